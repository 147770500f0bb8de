/**
 * npm run bench -- [rows]: the plan as it is usually written against these migrations, on the same data, alternating, in one
 * run. Prints Markdown tables on standard output; what it is at, on standard error. rows: of the largest table.
 */
import { join } from "node:path";
import type { PostgresServer } from "../postgres.ts";
import { formatCount } from "../../cli/print.ts";
import {
  type Backfill,
  measureBackfill,
  measureLeast,
  prepareBackfill,
  type State,
  states,
} from "./measure-backfill.ts";
import { machine, readCount, runBench } from "./command.ts";
import { addMapping, type Measured, measurePush } from "./measure-push.ts";
import { prepareApplication } from "./prepare.ts";
import { measureInserts } from "./measure-inserts.ts";
import { measureTriggers } from "./measure-triggers.ts";
import { type Kind, kinds, runs, serverSettings, table } from "./shared.ts";
import { markdown, megabytes, say } from "./print.ts";
import { compareBackfills, compareInserts, comparePushes, compareTriggers, phases2to4 } from "./report.ts";

const names: Record<Kind, string> = { plain: "plain plan", ours: "ours" };

async function measurePushes(server: PostgresServer, mapped: boolean): Promise<Record<Kind, Measured[]>> {
  const pushes: Record<Kind, Measured[]> = { plain: [], ours: [] };
  for (let run = 1; run <= runs; run++) {
    for (const kind of kinds) {
      const measured = await measurePush(server, kind, mapped ? addMapping : () => {});
      pushes[kind].push(measured);
      say(
        `  ${mapped ? "mapped" : "single organization"}, run ${run} of ${runs}, ${names[kind]}: ` +
          `phases 2–4 ${phases2to4(measured).toFixed(1)} s, longest stall ${
            Math.max(...measured.latencies).toFixed(0)
          } ms`,
      );
    }
  }
  return pushes;
}

async function measureBackfills(server: PostgresServer, state: State): Promise<string> {
  const backfills: Record<Kind, Backfill[]> = { plain: [], ours: [] };
  for (let run = 1; run <= runs; run++) {
    for (const kind of kinds) {
      const measured = await measureBackfill(server, kind, state);
      backfills[kind].push(measured);
      say(
        `  backfill alone, ${state}, run ${run} of ${runs}, ${kind === "plain" ? "one UPDATE" : "ours"}: ` +
          `${formatCount(Math.round(measured.rate))} rows a second`,
      );
    }
  }
  return compareBackfills(backfills, await measureLeast(server, state));
}

/** Measures everything. Returns the report. */
async function measure(server: PostgresServer, folder: string, rows: number): Promise<string> {
  const { heap, indexes, postgresVersion } = await prepareApplication(server, folder, rows);
  const single = await measurePushes(server, false);
  const mapped = await measurePushes(server, true);
  await prepareBackfill(server, join(folder, "columns"));
  const backfills = [];
  for (const state of states) backfills.push(await measureBackfills(server, state));
  say("  triggers…");
  const updated = Math.min(rows, 200_000);
  const triggers = await measureTriggers(server, updated);
  const inserts = await measureInserts(server, updated);
  const header = ["", "plain plan", "these migrations", "ratio"];
  return [
    `${formatCount(rows)} rows in ${table} (${megabytes(heap)} and ${
      megabytes(indexes)
    } of indexes), 44 other tables of ` +
    `1,000 rows or more, a writer at work; medians of ${runs} alternating runs. PostgreSQL ${postgresVersion}, fsync on, ` +
    `shared_buffers 2 GB, ${machine()}.`,
    "",
    "One organization:",
    "",
    markdown(header, comparePushes(single.plain, single.ours)),
    "",
    "Mapped, 100 organizations:",
    "",
    markdown(header, comparePushes(mapped.plain, mapped.ours)),
    "",
    "The mapped backfill alone, on a column without index and foreign key, nothing else at work, its pages in memory and in the WAL:",
    "",
    backfills[0] ?? "",
    "",
    "The same just after a checkpoint, on a copy of the files:",
    "",
    backfills[1] ?? "",
    "",
    `An update of another column, ${formatCount(updated)} rows of ${table}, median of 7:`,
    "",
    compareTriggers(triggers),
    "",
    `An insert that sends org_id, ${formatCount(updated)} rows, medians of 40 rounds in turn:`,
    "",
    compareInserts(inserts),
    "",
  ].join("\n");
}

const rows = readCount("rows", 1_000_000, 1000, 1_000_000_000);
if (rows !== undefined) {
  await runBench(serverSettings, async (server, folder) => await measure(server, folder, rows));
}
