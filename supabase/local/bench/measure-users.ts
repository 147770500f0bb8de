/** The users, the Auth server's stand-in, and the ways in which users get their organization. */
import { type ChildProcess, execFile, fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Sql } from "postgres";
import { denoProgram, serveFunction } from "../function-server.ts";
import { databaseUrl, freePort } from "../postgres.ts";
import { formatCount } from "../../cli/print.ts";
import { root, stateFolder } from "../project.ts";
import { say } from "./print.ts";
import { readCpuOfServer, readProcess } from "./processes.ts";
import { defaultOrgId } from "./shared.ts";
import type { StandInMessage, StandInOrder } from "./stand-in.ts";

const functionName = "update-user-org-metadata";
const run = promisify(execFile);

interface StandIn {
  apiUrl: string;
  secretKey: string;
  serviceRoleKey: string;
  /** The requests that read or changed users since the last time, and the users whose update was lost. From now on none is. */
  readCounts(): Promise<{ requests: number; lost: string[] }>;
  /** Loses the first update of every hundredth user. */
  lose(): void;
  /** Of the CPU, until now. */
  readCpuSeconds(): number;
  stop(): Promise<void>;
}

export interface Stage {
  sql: Sql;
  url: string;
  folder: string;
  standIn: StandIn;
  /** The process of the database server. */
  serverPid: number;
}

export interface Measured {
  users: number;
  calls: number;
  /** Of all calls together. */
  seconds: number;
  requests: number;
  /** Of the CPU, the Auth server's and the database's included. */
  allCpuSeconds: number;
  /** Of the Deno process: what it used of the CPU, and its memory in megabytes, at its peak and in the end. */
  cpuSeconds: number;
  peakMegabytes: number;
  megabytes: number;
  /** Seconds spent in each SQL function, what it calls included, and how often it was called. */
  sqlFunctions: { name: string; calls: number; seconds: number }[];
}

export async function startStandIn(port: number, database: string, folder: string): Promise<StandIn> {
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
    readCounts: async () => {
      const answer = next();
      order("count");
      const message = await answer;
      if (message.ready) throw new Error("Cannot read the stand-in's counts: it was only starting");
      return message;
    },
    lose: () => order("lose"),
    readCpuSeconds: () => readProcess(child.pid).cpuSeconds,
    stop: async () => {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      order("stop");
      await gone;
    },
  };
}

/** As many users, none with an organization, in tables that nobody has written to. */
export async function createUsers({ sql, standIn }: Stage, count: number): Promise<void> {
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
      '{"provider": "email", "providers": ["email"]}', '{"full_name": "A user"}', now() - make_interval(mins => n), now()
    from generate_series(1, ${count}::integer) as n
  `;
  await sql`vacuum (freeze, analyze)`;
  await sql`checkpoint`;
  await standIn.readCounts();
}

/** Throws unless every user has the organization: what is fast and wrong is not measured. */
export async function expectAllDone(sql: Sql): Promise<void> {
  const [row] = await sql`
    select count(*)::integer as count from auth.users where raw_app_meta_data ->> 'org_id' is distinct from ${defaultOrgId}
  `;
  if (row?.["count"] !== 0) throw new Error(`${row?.["count"]} users without organization in the end`);
}

/** Runs one of the programs beside this one on Deno. Returns the seconds that it says, without the start of its process. */
async function runOnDeno(program: string, parameters: string[]): Promise<number> {
  const { stdout } = await run(
    denoProgram(),
    [
      "run",
      "--allow-all",
      "--cached-only",
      "--node-modules-dir=manual",
      join(import.meta.dirname, program),
      ...parameters,
    ],
    {
      cwd: root,
      env: { ...process.env, DENO_DIR: join(stateFolder(), "deno"), DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
    },
  );
  return Number(stdout);
}

/** Seconds of CPU that all take together, the way's own processes, the Auth server and the database, until the way is done. */
export async function measureCpu<Result>(
  { standIn, serverPid }: Stage,
  way: () => Promise<Result>,
): Promise<{ result: Result; cpuSeconds: number }> {
  const read = () => readCpuOfServer(serverPid) + standIn.readCpuSeconds() + readProcess(process.pid).cpuSecondsOfEnded;
  const before = read();
  const result = await way();
  return { result, cpuSeconds: read() - before };
}

/** Seconds of the requests alone. */
export async function runBareLoad({ sql, folder, standIn }: Stage, concurrency: number): Promise<number> {
  const list = join(folder, "users.txt");
  // In the order in which the function goes through them.
  writeFileSync(list, (await sql`select id from auth.users order by id`).map((row) => row["id"]).join("\n"));
  return await runOnDeno("bare-load.ts", [standIn.apiUrl, standIn.secretKey, defaultOrgId, String(concurrency), list]);
}

/** Seconds of the plan's own script. */
export const runPlanScript = ({ standIn }: Stage, concurrency: number): Promise<number> =>
  runOnDeno("plan-script.ts", [standIn.apiUrl, standIn.secretKey, defaultOrgId, String(concurrency)]);

/** Calls the function, on a process of its own, until it says that it is done. */
export async function runFunction(
  { url, folder, standIn }: Stage,
  request: Record<string, unknown>,
): Promise<Pick<Measured, "calls" | "seconds" | "cpuSeconds" | "peakMegabytes" | "megabytes">> {
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
    const { cpuSeconds, peakMegabytes, megabytes } = readProcess(served.process.pid);
    return { calls, seconds, cpuSeconds, peakMegabytes, megabytes };
  } finally {
    await served.stop();
  }
}

/** Calls the function for so many users whom nobody else changes meanwhile. */
export async function measureFunction(
  stage: Stage,
  users: number,
  request: Record<string, unknown>,
): Promise<Measured> {
  const { sql, standIn } = stage;
  await createUsers(stage, users);
  await sql`select pg_stat_reset()`;
  const { result: ofFunction, cpuSeconds: allCpuSeconds } = await measureCpu(stage, () => runFunction(stage, request));
  await expectAllDone(sql);
  const { requests } = await standIn.readCounts();
  return { users, ...ofFunction, allCpuSeconds, requests, sqlFunctions: await readSql(sql) };
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
