/**
 * npm run bench:peers -- [rows]: one large table and its organizations by the plain plan, in batches of 1,000 as people write them, by
 * these migrations and, where the variable BENCH_PGROLL names its program, by pgroll, alternating, while a writer is at work. Prints
 * a Markdown table on standard output; what it is at, on standard error.
 */
import { join } from "node:path";
import type { Sql } from "postgres";
import { formatCount } from "../../cli/print.ts";
import { createDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { copyProject } from "../project-copy.ts";
import { machine, readCount, runBench } from "./command.ts";
import { type Edit, type Measured, measurePush, measureWork } from "./measure-push.ts";
import { countWrong, inBatches, withPgroll } from "./peer-ways.ts";
import { prepareApplication } from "./prepare.ts";
import { markdown, median, megabytes, percentile, ratio, say, sum } from "./print.ts";
import { keepPhase1, mapping, runs, serverSettings, table } from "./shared.ts";

interface Result extends Measured {
  /** Rows without organization when the batches were through. */
  leftOver: number;
  /** Rows whose organization is not their user's in the end. */
  wrong: number;
}

interface Way {
  name: string;
  measure(server: PostgresServer): Promise<Result>;
}

const pgroll = process.env["BENCH_PGROLL"];

/** Leaves one table in the list, with its index; all others stay with their users. */
const keepTable: Edit = (project) => {
  project.append(
    "_EDIT_list_of_tables.sql",
    `${mapping}
    update tenancy.registry set scope = 'excluded', priority = null, reason = 'not measured' where table_name <> '${table}';`,
  );
  project.rewrite(
    "_EDIT_index_org_id.sql",
    (text) =>
      text.split("\n").filter((line) => !line.startsWith("create index") || line.includes(` public.${table} `)).join(
        "\n",
      ),
  );
};

/** Makes the database peers: the application with the mapping that all of them read, and nothing else of these migrations at work. */
async function preparePeers(server: PostgresServer, folder: string): Promise<void> {
  const url = await createDatabase(server.port, "peers", "before");
  const project = copyProject(folder);
  keepTable(project);
  keepPhase1(folder);
  const { code, output } = await project.push(url);
  if (code !== 0) throw new Error(output);
}

function listWays(folder: string): Way[] {
  let leftOver = 0;
  const noteLeftOver = (rows: number) => void (leftOver = rows);
  const way = (
    name: string,
    measure: (server: PostgresServer, inspect: (sql: Sql) => Promise<void>) => Promise<Measured>,
  ): Way => ({
    name,
    measure: async (server) => {
      leftOver = 0;
      let wrong = NaN;
      const measured = await measure(server, async (sql) => void (wrong = await countWrong(sql)));
      return { ...measured, leftOver, wrong };
    },
  });
  const ways = [
    way("plain plan", (server, inspect) => measurePush(server, "plain", keepTable, inspect)),
    way(
      "batches of 1,000",
      (server, inspect) => measureWork(server, "bench_batches", "peers", inBatches(noteLeftOver), inspect),
    ),
    way("these migrations", (server, inspect) => measurePush(server, "ours", keepTable, inspect)),
  ];
  if (pgroll) {
    const work = withPgroll(pgroll, folder, noteLeftOver);
    ways.push(way("pgroll", (server, inspect) => measureWork(server, "bench_pgroll", "peers", work, inspect)));
  }
  return ways;
}

const secondsOf = ({ seconds }: Measured) => sum(Object.values(seconds));

function compare(rows: number, ways: Way[], results: Result[][]): string {
  const figures: [string, (run: Result) => number, (value: number) => string, isRatio?: boolean][] = [
    ["seconds", secondsOf, (value) => `${value.toFixed(1)} s`, true],
    ["rows per second", (run) => rows / secondsOf(run), (value) => formatCount(Math.round(value))],
    [
      "writer: longest stall",
      (run) => Math.max(...run.latencies),
      (value) => `${formatCount(Math.round(value))} ms`,
      true,
    ],
    ["writer: p99.9", (run) => percentile(run.latencies, 0.999), (value) => `${formatCount(Math.round(value))} ms`],
    ["writer: refused, until a second after the end", (run) => run.refused, formatCount],
    ["WAL", (run) => run.walBytes, megabytes, true],
    [`growth of ${table}`, (run) => run.sizeAfter / run.sizeBefore - 1, (value) => `${Math.round(value * 100)} %`],
    ["HOT updates", (run) => run.hotUpdates / Math.max(run.updates, 1), (value) => `${Math.round(value * 100)} %`],
    ["rows left over by the backfill", (run) => run.leftOver, formatCount],
    ["rows with a wrong organization or none", (run) => run.wrong, formatCount],
  ];
  const ours = ways.findIndex(({ name }) => name === "these migrations");
  return markdown(
    ["", ...ways.map(({ name }) => name), ...(pgroll ? ["pgroll against these"] : [])],
    figures.map(([name, read, show, isRatio]) => {
      const medians = results.map((ofWay) => median(ofWay.map(read)));
      const against = isRatio ? ratio(medians.at(-1) ?? NaN, medians[ours] ?? NaN) : "";
      return [name, ...medians.map(show), ...(pgroll ? [against] : [])];
    }),
  );
}

async function measure(server: PostgresServer, folder: string, rows: number): Promise<string> {
  const { heap, indexes, postgresVersion } = await prepareApplication(server, folder, rows);
  await preparePeers(server, join(folder, "peers"));
  const ways = listWays(folder);
  const results: Result[][] = ways.map(() => []);
  for (let run = 1; run <= runs; run++) {
    for (const [number, way] of ways.entries()) {
      const result = await way.measure(server);
      results[number]?.push(result);
      say(
        `  run ${run} of ${runs}, ${way.name}: ${secondsOf(result).toFixed(1)} s, ` +
          `longest stall ${Math.max(...result.latencies).toFixed(0)} ms`,
      );
    }
  }
  return [
    `${formatCount(rows)} rows in ${table} (${megabytes(heap)} and ${
      megabytes(indexes)
    } of indexes), 100 organizations, a ` +
    `writer at work; medians of ${runs} alternating runs. PostgreSQL ${postgresVersion}, fsync on, shared_buffers 2 GB, ${machine()}.`,
    "",
    compare(rows, ways, results),
  ].join("\n");
}

const rows = readCount("rows", 1_000_000, 1000, 1_000_000_000);
if (rows !== undefined) await runBench(serverSettings, (server, folder) => measure(server, folder, rows));
