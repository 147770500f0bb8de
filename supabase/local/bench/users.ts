/**
 * npm run bench:users -- [users]: the edge function against the bare load of the requests that it cannot do without, against the plan's
 * own script, and against itself with few users. Prints Markdown tables on standard output; what it is at, on standard error.
 */
import { pushTarget } from "../application.ts";
import { connect, createDatabase } from "../databases.ts";
import { databaseUrl, type PostgresServer } from "../postgres.ts";
import { formatCount } from "../../cli/print.ts";
import { supabase } from "../supabase-cli.ts";
import { machine, readCount, runBench } from "./command.ts";
import {
  createUsers,
  expectAllDone,
  measureCpu,
  type Measured,
  measureFunction,
  runBareLoad,
  type Stage,
  startStandIn,
} from "./measure-users.ts";
import { measureWay, type Outcome, ways } from "./measure-ways.ts";
import { markdown, median, say } from "./print.ts";
import { findServer } from "./processes.ts";
import { runs } from "./shared.ts";

interface Rate {
  /** Users. */
  perSecond: number;
  /** Of the CPU, the Auth server's and the database's included. */
  cpuSeconds: number;
}

/** The requests alone. */
async function measureBareLoad(stage: Stage, users: number, concurrency: number): Promise<Rate> {
  await createUsers(stage, users);
  const { result: seconds, cpuSeconds } = await measureCpu(stage, () => runBareLoad(stage, concurrency));
  await expectAllDone(stage.sql);
  return { perSecond: users / seconds, cpuSeconds };
}

async function measureRate(stage: Stage, users: number, request: Record<string, unknown>): Promise<Rate> {
  const { seconds, allCpuSeconds } = await measureFunction(stage, users, request);
  return { perSecond: users / seconds, cpuSeconds: allCpuSeconds };
}

async function compareWithBareLoad(stage: Stage, users: number): Promise<string> {
  const rows: string[][] = [];
  say("  both once, not counted");
  await measureBareLoad(stage, users, 10);
  await measureFunction(stage, users, {});
  for (const concurrency of [5, 10]) {
    const rates = { bare: [] as Rate[], ours: [] as Rate[], inSql: [] as Rate[] };
    for (let turn = 1; turn <= runs; turn++) {
      rates.bare.push(await measureBareLoad(stage, users, concurrency));
      // In one call: at its limit of users it leaves the end of the run to another one.
      rates.ours.push(await measureRate(stage, users, { concurrency, max_users: users + 1 }));
      rates.inSql.push(await measureRate(stage, users, { mode: "sql" }));
      say(
        `  concurrency ${concurrency}, run ${turn} of ${runs}: ` +
          `bare ${rates.bare.at(-1)?.perSecond.toFixed(0)} users a second, function ${
            rates.ours.at(-1)?.perSecond.toFixed(0)
          }, its mode sql ${rates.inSql.at(-1)?.perSecond.toFixed(0)}`,
      );
    }
    const perSecond = (of: Rate[]) => median(of.map((rate) => rate.perSecond));
    const cpu = (of: Rate[]) => median(of.map((rate) => (rate.cpuSeconds / users) * 1000));
    rows.push([
      String(concurrency),
      ...[rates.bare, rates.ours].map((of) => formatCount(Math.round(perSecond(of)))),
      times(perSecond(rates.ours) / perSecond(rates.bare)),
      ...[rates.bare, rates.ours].map((of) => `${cpu(of).toFixed(2)} ms`),
      times(cpu(rates.bare) / cpu(rates.ours)),
      formatCount(Math.round(perSecond(rates.inSql))),
    ]);
  }
  return markdown(
    [
      "requests at a time",
      "bare load, users per second",
      "the function",
      "ratio",
      "CPU of all per user, bare load",
      "the function",
      "ratio",
      "its mode sql, which sends none",
    ],
    rows,
  );
}

async function compareWays(stage: Stage, comparedUsers: number): Promise<string> {
  const outcomes: Outcome[][] = ways.map(() => []);
  for (let turn = 1; turn <= runs; turn++) {
    for (const [number, way] of ways.entries()) {
      const outcome = await measureWay(stage, comparedUsers, way);
      outcomes[number]?.push(outcome);
      const { seconds, missed, lost } = outcome;
      say(`  ${way.name}, run ${turn} of ${runs}: ${seconds.toFixed(1)} s, ${missed} missed, ${lost} updates lost`);
    }
  }
  const seconds = outcomes.map((ofWay) => median(ofWay.map((outcome) => outcome.seconds)));
  const ours = seconds[ways.findIndex(({ name }) => name === "the function, ten at a time")] ?? NaN;
  return markdown(
    ["", "seconds", "against the function", "requests", "users missed", "updates lost"],
    ways.map(({ name }, number) => {
      const middle = (read: (outcome: Outcome) => number) => formatCount(median(outcomes[number]?.map(read) ?? []));
      const spent = seconds[number] ?? NaN;
      return [
        name,
        `${spent.toFixed(1)} s`,
        times(spent / ours),
        middle((outcome) => outcome.requests),
        middle((outcome) => outcome.missed),
        middle((outcome) => outcome.lost),
      ];
    }),
  );
}

const times = (ratio: number) => `${ratio.toFixed(2)} ×`;

function compareSizes(few: Measured[], many: Measured): string {
  const both = (name: string, read: (run: Measured) => number, show: (value: number) => string, isRatio = false) => {
    const [left, right] = [median(few.map(read)), read(many)];
    return [name, show(left), show(right), isRatio ? times(right / left) : ""];
  };
  const megabytes = (value: number) => `${value.toFixed(0)} MB`;
  const perUser = (value: number) => `${value.toFixed(2)} ms`;
  return markdown(
    ["", `${formatCount(few[0]?.users ?? NaN)} users`, `${formatCount(many.users)} users`, "ratio"],
    [
      both("seconds of all calls", (run) => run.seconds, (value) => `${value.toFixed(1)} s`),
      both("calls", (run) => run.calls, formatCount),
      both("per user", (run) => (run.seconds / run.users) * 1000, perUser, true),
      both("requests per user", (run) => run.requests / run.users, (value) => value.toFixed(3)),
      both("CPU of the worker per user", (run) => (run.cpuSeconds / run.users) * 1000, perUser, true),
      both("memory of the worker at its peak", (run) => run.peakMegabytes, megabytes, true),
      both("memory of the worker in the end", (run) => run.megabytes, megabytes, true),
    ],
  );
}

function listSqlFunctions({ sqlFunctions, seconds }: Measured): string {
  return markdown(
    ["function", "calls", "seconds", "a call", "of all time"],
    sqlFunctions.map(({ name, calls, seconds: spent }) => [
      name,
      formatCount(calls),
      spent.toFixed(2),
      `${((spent / calls) * 1000).toFixed(spent / calls < 0.001 ? 4 : 1)} ms`,
      `${((spent / seconds) * 100).toFixed(1)} %`,
    ]),
  );
}

/** Migrates an empty application, and starts the Auth server's stand-in beside it. */
async function prepareStage(server: PostgresServer, folder: string): Promise<Stage> {
  say("The migrations…");
  const url = await createDatabase(server.port, "bench_users", "postgres");
  await supabase(["db", "push", ...pushTarget(url)]);
  const sql = connect(databaseUrl(server.port, { database: "bench_users", role: "supabase_admin" }));
  await sql`set statement_timeout = 0`;
  const standIn = await startStandIn(server.port, "bench_users", folder);
  return { sql, url, folder, standIn, serverPid: await findServer(server) };
}

async function measure(stage: Stage, users: number): Promise<string> {
  const comparedUsers = Math.min(users, 10_000);
  const fewUsers = Math.min(users, 1000);
  const comparison = await compareWithBareLoad(stage, comparedUsers);
  const comparedWays = await compareWays(stage, comparedUsers);
  const few: Measured[] = [];
  for (let turn = 1; turn <= runs; turn++) {
    few.push(await measureFunction(stage, fewUsers, {}));
    say(`  ${formatCount(fewUsers)} users, run ${turn} of ${runs}: ${few.at(-1)?.seconds.toFixed(2)} s`);
  }
  say(`  ${formatCount(users)} users`);
  const many = await measureFunction(stage, users, {});
  return [
    `Medians of ${runs} alternating runs of ${
      formatCount(comparedUsers)
    } users. The Auth server's stand-in in a process of its ` +
    `own, PostgreSQL 17, fsync off, ${machine()}.`,
    "",
    comparison,
    "",
    "The same users while others sign up and are deleted, and the first update of every hundredth is lost:",
    "",
    comparedWays,
    "",
    `Few users (median of ${runs}) and many (once), the defaults of the function:`,
    "",
    compareSizes(few, many),
    "",
    `Where ${formatCount(users)} users spend their time in the database, what a function calls included:`,
    "",
    listSqlFunctions(many),
  ].join("\n");
}

const users = readCount("users", 100_000, 1, 10_000_000);
if (users !== undefined) {
  // fsync is off: the Auth server answers as fast as it can, and what the function adds to that counts the most.
  const settings = { shared_buffers: "512MB", max_wal_size: "4GB", track_functions: "all" };
  await runBench(settings, async (server, folder) => {
    const stage = await prepareStage(server, folder);
    try {
      return await measure(stage, users);
    } finally {
      await stage.standIn.stop();
      await stage.sql.end({ timeout: 5 });
    }
  });
}
