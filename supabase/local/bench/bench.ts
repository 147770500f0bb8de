/**
 * npm run bench -- [rows]: the plan as it is usually written against these migrations, on the same data, alternating, in one
 * run. Prints Markdown tables on standard output; what it is at, on standard error. rows: of the largest table.
 */
import { mkdirSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { freePort, type PostgresServer, startPostgres } from "../postgres.ts";
import { formatCount } from "../../cli/print.ts";
import { stateFolder } from "../project.ts";
import { type Backfill, measureBackfill, prepareBackfill } from "./measure-backfill.ts";
import { type Edit, type Measured, measurePush } from "./measure-push.ts";
import { prepareApplication } from "./prepare.ts";
import { measureInserts } from "./measure-inserts.ts";
import { measureTriggers } from "./measure-triggers.ts";
import { type Kind, kinds, mapping, runs, serverSettings, table } from "./shared.ts";
import { markdown, megabytes, say } from "./print.ts";
import { compareBackfills, compareInserts, comparePushes, compareTriggers, phases2to4 } from "./report.ts";

const names: Record<Kind, string> = { plain: "plain plan", ours: "ours" };

const addMapping: Edit = (project) => project.append("_EDIT_list_of_tables.sql", mapping);

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

async function measureBackfills(server: PostgresServer, folder: string): Promise<Record<Kind, Backfill[]>> {
  await prepareBackfill(server, folder);
  const backfills: Record<Kind, Backfill[]> = { plain: [], ours: [] };
  for (let run = 1; run <= runs; run++) {
    for (const kind of kinds) {
      const measured = await measureBackfill(server, kind);
      backfills[kind].push(measured);
      say(
        `  backfill alone, run ${run} of ${runs}, ${kind === "plain" ? "one UPDATE" : "ours"}: ` +
          `${formatCount(Math.round(measured.rate))} rows a second`,
      );
    }
  }
  return backfills;
}

/** Measures everything. Returns the report. */
async function measure(server: PostgresServer, folder: string, rows: number): Promise<string> {
  const { heap, indexes, postgresVersion } = await prepareApplication(server, folder, rows);
  const single = await measurePushes(server, false);
  const mapped = await measurePushes(server, true);
  const backfills = await measureBackfills(server, join(folder, "columns"));
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
    `shared_buffers 2 GB, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}.`,
    "",
    "One organization:",
    "",
    markdown(header, comparePushes(single.plain, single.ours)),
    "",
    "Mapped, 100 organizations:",
    "",
    markdown(header, comparePushes(mapped.plain, mapped.ours)),
    "",
    "The mapped backfill alone, on a column without index and foreign key, nothing else at work:",
    "",
    compareBackfills(backfills),
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

async function bench(rows: number): Promise<void> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const started = Date.now();
  const server = await startPostgres({
    port: await freePort(),
    folder: join(folder, "server"),
    settings: serverSettings,
  });
  try {
    console.log(await measure(server, folder, rows));
    say(`${formatCount(Math.round((Date.now() - started) / 1000))} s in all.`);
  } finally {
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}

const [argument = "1000000", ...others] = process.argv.slice(2);
const rows = Number(argument.replaceAll("_", ""));
if (others.length > 0 || !Number.isInteger(rows) || rows < 1000 || rows > 1_000_000_000) {
  say(
    `Cannot run the benchmark with ${
      JSON.stringify(process.argv.slice(2).join(" "))
    }: the one argument is the number of rows, from 1000 to 1000000000`,
  );
  process.exitCode = 1;
} else {
  await bench(rows);
}
