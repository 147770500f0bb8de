/**
 * npm run bench:users -- [users]: the edge function against the bare load of the requests that it cannot do without, and
 * against itself with few users. Prints Markdown tables on standard output; what it is at, on standard error.
 */
import { type ChildProcess, execFile, fork } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Sql } from "postgres";
import { pushTarget } from "../application.ts";
import { connect, createDatabase } from "../databases.ts";
import { denoProgram, serveFunction } from "../function-server.ts";
import { databaseUrl, freePort, startPostgres } from "../postgres.ts";
import { formatCount } from "../../cli/print.ts";
import { stateFolder } from "../project.ts";
import { supabase } from "../supabase-cli.ts";
import { markdown, median, say } from "./print.ts";
import type { StandInMessage, StandInOrder } from "./stand-in.ts";

const functionName = "update-user-org-metadata";
const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
const runs = 3;
/** Users of a run against the bare load. */
const comparedUsers = 10_000;
/** Users of a small run, which the large one is measured against. */
const fewUsers = 1000;
const run = promisify(execFile);

interface StandIn {
  apiUrl: string;
  secretKey: string;
  serviceRoleKey: string;
  /** The PUT requests since the last time. */
  readPuts(): Promise<number>;
  stop(): Promise<void>;
}

interface Stage {
  sql: Sql;
  url: string;
  folder: string;
  standIn: StandIn;
}

interface Measured {
  users: number;
  calls: number;
  /** Of all calls together. */
  seconds: number;
  requests: number;
  /** Of the Deno process: what it used of the CPU, and its memory in megabytes, at its peak and in the end. */
  cpuSeconds: number;
  peakMegabytes: number;
  megabytes: number;
  /** Seconds spent in each SQL function, what it calls included, and how often it was called. */
  sqlFunctions: { name: string; calls: number; seconds: number }[];
}

async function startStandIn(port: number, database: string, folder: string): Promise<StandIn> {
  const child: ChildProcess = fork(
    join(import.meta.dirname, "stand-in.ts"),
    [databaseUrl(port, { database, role: "ROLE" }), String(await freePort()), folder],
    { execArgv: ["--import", "tsx"] },
  );
  const next = () =>
    new Promise<StandInMessage>((resolve, reject) => {
      const fail = (code: number | null) => reject(new Error(`the stand-in ended with ${code}`));
      child.once("exit", fail);
      child.once("message", (message) => {
        child.off("exit", fail);
        resolve(message as StandInMessage);
      });
    });
  const order = (text: StandInOrder) => void child.send(text);
  const started = await next();
  if (!started.ready) throw new Error("Cannot start the stand-in: it did not say where it is");
  return {
    ...started,
    readPuts: async () => {
      const answer = next();
      order("count");
      const message = await answer;
      return message.ready ? 0 : message.puts;
    },
    stop: async () => {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      order("stop");
      await gone;
    },
  };
}

/** As many users, none with an organization, in tables that nobody has written to. */
async function createUsers({ sql, standIn }: Stage, count: number): Promise<void> {
  await sql`
    truncate tenancy.user_metadata_audit, tenancy.user_metadata_runs, auth.users, auth.audit_log_entries cascade
  `;
  await sql`
    insert into auth.users (
      instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
      email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
    )
    select
      '00000000-0000-0000-0000-000000000000', md5('user ' || n)::uuid, 'authenticated', 'authenticated',
      format('user%s@example.com', n), '', now(), '', '', '', '',
      '{"provider": "email", "providers": ["email"]}', '{"full_name": "A user"}', now(), now()
    from generate_series(1, ${count}::integer) as n
  `;
  await sql`vacuum (freeze, analyze)`;
  await sql`checkpoint`;
  await standIn.readPuts();
}

/** Throws unless every user has the organization: what is fast and wrong is not measured. */
async function expectAllDone(sql: Sql): Promise<void> {
  const [row] = await sql`
    select count(*)::integer as count from auth.users where raw_app_meta_data ->> 'org_id' is distinct from ${defaultOrgId}
  `;
  if (row?.["count"] !== 0) throw new Error(`${row?.["count"]} users without organization in the end`);
}

/** What the system says of a process: megabytes of memory at its peak and now, seconds of CPU. Nothing where it does not. */
function readProcess(pid: number | undefined): Pick<Measured, "cpuSeconds" | "peakMegabytes" | "megabytes"> {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const megabytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
    const times = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
    // utime and stime, the 14th and 15th field, in ticks of 10 ms.
    const cpuSeconds = (Number(times[11]) + Number(times[12])) / 100;
    return { cpuSeconds, peakMegabytes: megabytes("VmHWM"), megabytes: megabytes("VmRSS") };
  } catch {
    return { cpuSeconds: NaN, peakMegabytes: NaN, megabytes: NaN };
  }
}

/** Users per second of the requests alone, after a start of the process that is not counted. */
async function measureBareLoad(stage: Stage, users: number, concurrency: number): Promise<number> {
  const { sql, folder, standIn } = stage;
  await createUsers(stage, users);
  const list = join(folder, "users.txt");
  // In the order in which the function goes through them.
  writeFileSync(list, (await sql`select id from auth.users order by id`).map((row) => row["id"]).join("\n"));
  const { stdout } = await run(
    denoProgram(),
    [
      "run",
      "--allow-all",
      join(import.meta.dirname, "bare-load.ts"),
      standIn.apiUrl,
      standIn.secretKey,
      defaultOrgId,
      String(concurrency),
      list,
    ],
    {
      cwd: folder,
      env: { ...process.env, DENO_DIR: join(stateFolder(), "deno"), DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
    },
  );
  await expectAllDone(sql);
  return users / Number(stdout);
}

/** Calls the function, on a process of its own, until it says that it is done. */
async function measureFunction(stage: Stage, users: number, request: Record<string, unknown>): Promise<Measured> {
  const { sql, url, folder, standIn } = stage;
  await createUsers(stage, users);
  await sql`select pg_stat_reset()`;
  const served = await serveFunction(
    functionName,
    {
      SUPABASE_URL: standIn.apiUrl,
      SUPABASE_DB_URL: url,
      SUPABASE_SECRET_KEYS: JSON.stringify({ default: standIn.secretKey }),
      SUPABASE_SERVICE_ROLE_KEY: standIn.serviceRoleKey,
    },
    folder,
  );
  try {
    let calls = 0;
    let seconds = 0;
    for (let done = false; !done;) {
      calls++;
      const started = performance.now();
      const response = await fetch(`${served.url}/${functionName}`, {
        method: "POST",
        headers: { apikey: standIn.secretKey },
        body: JSON.stringify(request),
      });
      const reply = (await response.json()) as Record<string, unknown>;
      seconds += (performance.now() - started) / 1000;
      if (!response.ok) throw new Error(JSON.stringify(reply));
      done = reply["done"] === true;
      if (!done) say(`    ${formatCount(Number(reply["updated"]))} users in ${seconds.toFixed(0)} s`);
    }
    const ofProcess = readProcess(served.process.pid);
    await expectAllDone(sql);
    return {
      users,
      calls,
      seconds,
      requests: await standIn.readPuts(),
      ...ofProcess,
      sqlFunctions: await readSql(sql),
    };
  } finally {
    await served.stop();
  }
}

async function readSql(sql: Sql): Promise<Measured["sqlFunctions"]> {
  await sql`select pg_stat_force_next_flush()`;
  return await sql<Measured["sqlFunctions"]>`
    select funcname as name, calls::integer as calls, total_time / 1000 as seconds
    from pg_stat_user_functions
    where schemaname = 'tenancy' and calls > 0
    order by total_time desc
  `;
}

async function compareWithBareLoad(stage: Stage): Promise<string> {
  const rows: string[][] = [];
  say("  both once, not counted");
  await measureBareLoad(stage, fewUsers, 10);
  await measureFunction(stage, fewUsers, {});
  for (const concurrency of [5, 10]) {
    const rates = { bare: [] as number[], ours: [] as number[], inSql: [] as number[] };
    for (let turn = 1; turn <= runs; turn++) {
      rates.bare.push(await measureBareLoad(stage, comparedUsers, concurrency));
      const measured = await measureFunction(stage, comparedUsers, { concurrency, max_users: comparedUsers });
      rates.ours.push(measured.users / measured.seconds);
      const inSql = await measureFunction(stage, comparedUsers, { mode: "sql" });
      rates.inSql.push(inSql.users / inSql.seconds);
      say(
        `  concurrency ${concurrency}, run ${turn} of ${runs}: ` +
          `bare ${rates.bare.at(-1)?.toFixed(0)} users a second, function ${rates.ours.at(-1)?.toFixed(0)}, ` +
          `its mode sql ${rates.inSql.at(-1)?.toFixed(0)}`,
      );
    }
    const [bare, ours] = [median(rates.bare), median(rates.ours)];
    rows.push([
      String(concurrency),
      formatCount(Math.round(bare)),
      formatCount(Math.round(ours)),
      times(ours / bare),
      formatCount(Math.round(median(rates.inSql))),
    ]);
  }
  return markdown(
    ["requests at a time", "bare load, users per second", "the function", "ratio", "its mode sql, which sends none"],
    rows,
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
    ["", `${formatCount(fewUsers)} users`, `${formatCount(many.users)} users`, "ratio"],
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

async function bench(users: number): Promise<void> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const started = Date.now();
  const server = await startPostgres({
    port: await freePort(),
    folder: join(folder, "server"),
    // fsync is off: the Auth server answers as fast as it can, and what the function adds to that counts the most.
    settings: { shared_buffers: "512MB", max_wal_size: "4GB", track_functions: "all" },
  });
  let standIn: StandIn | undefined;
  let sql: Sql | undefined;
  try {
    say("The migrations…");
    const url = await createDatabase(server.port, "bench_users", "postgres");
    await supabase(["db", "push", ...pushTarget(url)]);
    sql = connect(databaseUrl(server.port, { database: "bench_users", role: "supabase_admin" }));
    await sql`set statement_timeout = 0`;
    standIn = await startStandIn(server.port, "bench_users", folder);
    const stage: Stage = { sql, url, folder, standIn };

    const comparison = await compareWithBareLoad(stage);
    const few: Measured[] = [];
    for (let turn = 1; turn <= runs; turn++) {
      few.push(await measureFunction(stage, fewUsers, {}));
      say(`  ${formatCount(fewUsers)} users, run ${turn} of ${runs}: ${few.at(-1)?.seconds.toFixed(2)} s`);
    }
    say(`  ${formatCount(users)} users`);
    const many = await measureFunction(stage, users, {});
    console.log(
      [
        `Medians of ${runs} alternating runs of ${
          formatCount(comparedUsers)
        } users. The Auth server's stand-in in a process ` +
        `of its own, PostgreSQL 17, fsync off, ${cpus().length} × ${cpus()[0]?.model.trim()}, ` +
        `${new Date().toISOString().slice(0, 10)}.`,
        "",
        comparison,
        "",
        `Few users (median of ${runs}) and many (once), the defaults of the function:`,
        "",
        compareSizes(few, many),
        "",
        `Where ${formatCount(users)} users spend their time in the database, what a function calls included:`,
        "",
        listSqlFunctions(many),
        "",
      ].join("\n"),
    );
    say(`${formatCount(Math.round((Date.now() - started) / 1000))} s in all.`);
  } finally {
    await standIn?.stop();
    await sql?.end({ timeout: 5 });
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}

const [argument = "100000", ...others] = process.argv.slice(2);
const users = Number(argument.replaceAll("_", ""));
if (others.length > 0 || !Number.isInteger(users) || users < 1 || users > 10_000_000) {
  say(
    `Cannot run the benchmark with ${
      JSON.stringify(process.argv.slice(2).join(" "))
    }: the one argument is the number of users, from 1 to 10000000`,
  );
  process.exitCode = 1;
} else {
  await bench(users);
}
