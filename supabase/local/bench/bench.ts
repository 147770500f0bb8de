/**
 * npm run bench -- [rows] [--only mapped,guard]: the plan as it is usually written against these migrations, on the same data,
 * alternating, in one run. Prints Markdown tables on standard output; what it is at, on standard error. rows: of the largest table.
 */
import { join } from "node:path";
import type { PostgresServer } from "../postgres.ts";
import { formatCount } from "../../cli/print.ts";
import { type Backfill, measureBackfill, measureLeast, prepareBackfill, type State } from "./measure-backfill.ts";
import { machine, readCommand, runBench } from "./command.ts";
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

const header = ["", "plain plan", "these migrations", "ratio"];

const parts = ["one-organization", "mapped", "backfill", "backfill-cold", "guard", "inserts"] as const;
type Part = (typeof parts)[number];

/** The heading of each part, and what measures it: its table. The first two push to a copy of before, the others to one of columns. */
const measures: Record<Part, (server: PostgresServer, rows: number) => Promise<{ heading: string; table: string }>> = {
  "one-organization": async (server) => {
    const { plain, ours } = await measurePushes(server, false);
    return { heading: "One organization", table: markdown(header, comparePushes(plain, ours)) };
  },
  mapped: async (server) => {
    const { plain, ours } = await measurePushes(server, true);
    return { heading: "Mapped, 100 organizations", table: markdown(header, comparePushes(plain, ours)) };
  },
  backfill: async (server) => ({
    heading:
      "The mapped backfill alone, on a column without index and foreign key, nothing else at work, its pages in memory and in the WAL",
    table: await measureBackfills(server, "warm"),
  }),
  "backfill-cold": async (server) => ({
    heading: "The mapped backfill alone just after a checkpoint, on a copy of the files",
    table: await measureBackfills(server, "cold"),
  }),
  guard: async (server, rows) => {
    say("  triggers…");
    return {
      heading: `An update of another column, ${formatCount(rows)} rows of ${table}, median of 7`,
      table: compareTriggers(await measureTriggers(server, rows)),
    };
  },
  inserts: async (server, rows) => {
    say("  inserts…");
    return {
      heading: `An insert that sends org_id, ${formatCount(rows)} rows, medians of 40 rounds in turn`,
      table: compareInserts(await measureInserts(server, rows)),
    };
  },
};

/** Measures these parts. Returns the report. */
async function measure(server: PostgresServer, folder: string, rows: number, only: readonly Part[]): Promise<string> {
  const { heap, indexes, postgresVersion } = await prepareApplication(server, folder, rows);
  const lines = [
    `${formatCount(rows)} rows in ${table} (${megabytes(heap)} and ${
      megabytes(indexes)
    } of indexes), 44 other tables of ` +
    `1,000 rows or more, a writer at work; medians of ${runs} alternating runs. PostgreSQL ${postgresVersion}, fsync on, ` +
    `shared_buffers 2 GB, ${machine()}.`,
    "",
  ];
  let hasColumns = false;
  for (const part of only) {
    if (!hasColumns && part !== "one-organization" && part !== "mapped") {
      await prepareBackfill(server, join(folder, "columns"));
      hasColumns = true;
    }
    const measured = await measures[part](server, Math.min(rows, 200_000));
    lines.push(`${measured.heading}:`, "", measured.table, "");
  }
  return lines.join("\n");
}

const command = readCommand({ what: "rows", fallback: 1_000_000, least: 1000, most: 1_000_000_000 }, parts);
if (command !== undefined) {
  const { count, only } = command;
  await runBench(serverSettings, (server, folder) => measure(server, folder, count, only));
}
