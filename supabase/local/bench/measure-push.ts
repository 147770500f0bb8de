import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { copyProject, type ProjectCopy } from "../project-copy.ts";
import {
  compareStates,
  type Growth,
  keepPhase1,
  type Kind,
  mapping,
  plainPlan,
  readState,
  type State,
  table,
} from "./shared.ts";
import { say } from "./print.ts";
import { startWriter } from "./writer.ts";

export const phases = ["columns", "backfill", "indexes", "foreign keys", "not null", "immutability"] as const;
export type Phase = (typeof phases)[number];
/** Our migrations by how their names end, and the phase, if it is measured; the plain plan's foreign keys come with the columns. */
const filePhases: [string, Phase | undefined][] = [
  ["_add_org_id_to_existing_tables.sql", "columns"],
  ["_backfill_org_id_from_user_id.sql", "backfill"],
  ["_EDIT_index_org_id.sql", "indexes"],
  ["_add_org_id_foreign_keys.sql", "foreign keys"],
  ["_add_org_id_not_null_constraints.sql", "not null"],
  ["_create_org_id_immutability_triggers.sql", "immutability"],
  ["_verify_org_id_migration.sql", undefined],
];

export interface Measured extends Growth {
  /** Seconds by phase. */
  seconds: Partial<Record<Phase, number>>;
  /** Milliseconds of each of the writer's operations while the phases ran. */
  latencies: number[];
  /** How many of them failed. */
  errors: number;
  /** And how many when it was over, or until then. */
  refused: number;
}

/** When the phases began and ended, and the seconds of each. */
export interface Times {
  from: number;
  to: number;
  seconds: Measured["seconds"];
}

/** What an owner changes in the copied migrations. */
export type Edit = (project: ProjectCopy) => void;

export const addMapping: Edit = (project) => project.append("_EDIT_list_of_tables.sql", mapping);

/** The project with one of the two plans in it. */
function prepareProject(name: string, kind: Kind, edit: Edit): ProjectCopy {
  const folder = join(stateFolder(), `bench-${process.pid}`, name);
  rmSync(folder, { recursive: true, force: true });
  const project = copyProject(folder);
  edit(project);
  if (kind === "plain") {
    keepPhase1(folder);
    writeFileSync(join(folder, "supabase/migrations/20250110030000_plain_plan.sql"), plainPlan);
  }
  return project;
}

/** Pushes, and notes when each file begins, and the state of the table just before the first that is measured. */
async function pushAndWatch(project: ProjectCopy, url: string, sql: Sql) {
  const begun = new Map<string, number>();
  let before = await readState(sql);
  let output = "";
  const { result } = project.startPush(url, (text) => {
    output += text;
    for (const [, file] of output.matchAll(/Applying migration \d+(_\S+)\.\.\./g)) {
      if (!begun.has(file as string)) begun.set(file as string, Date.now());
    }
  });
  let ended = false;
  const ending = result.finally(() => (ended = true));
  while (!ended && !begun.has("_add_org_id_to_existing_tables.sql") && !begun.has("_plain_plan.sql")) {
    before = await readState(sql);
    await sleep(5);
  }
  const { code } = await ending;
  return { code, output, begun, before };
}

function timesOfOurs(begun: Map<string, number>): Times {
  const seconds: Measured["seconds"] = {};
  filePhases.forEach(([file, phase], index) => {
    const next = filePhases[index + 1]?.[0];
    if (next && phase) seconds[phase] = ((begun.get(next) ?? 0) - (begun.get(file) ?? 0)) / 1000;
  });
  return {
    from: begun.get("_add_org_id_to_existing_tables.sql") ?? 0,
    to: begun.get("_verify_org_id_migration.sql") ?? 0,
    seconds,
  };
}

/** The plain plan notes its phases itself, since it is one file. */
async function timesOfPlainPlan(sql: Sql): Promise<Times> {
  const marks = await sql<{ name: string; at: number }[]>`
    select name, extract(epoch from ended_at)::double precision as at from bench.phases order by ended_at
  `;
  const names: Record<string, Phase> = { not_null: "not null" };
  const seconds: Measured["seconds"] = {};
  marks.forEach(({ name, at }, index) => {
    const last = marks[index - 1];
    if (last) seconds[names[name] ?? (name as Phase)] = at - last.at;
  });
  return { from: (marks[0]?.at ?? 0) * 1000, to: (marks.at(-1)?.at ?? 0) * 1000, seconds };
}

/** What is done to a copy of the application: it tells when, and the state of the largest table before. */
export type Work = (url: string, sql: Sql) => Promise<{ before: State; times: Times }>;

/** Does something to a fresh copy of a database, with a writer at work, and measures it. */
export async function measureWork(
  server: PostgresServer,
  name: string,
  template: string,
  work: Work,
  inspect: (sql: Sql) => Promise<void> = async () => {},
): Promise<Measured> {
  const url = await createDatabase(server.port, name, template);
  const sql = connect(url);
  // In the new database the tables are cold, and whoever reads them first pays for that.
  await sql`select count(*) from ${sql(table)} where notes = ''`;
  const writer = startWriter(url);
  await sleep(500);
  const done = await work(url, sql).catch((error: unknown) => ({ error }));
  await sleep(1200);
  const after = await readState(sql);
  const operations = await writer.stop();
  if (!("error" in done)) await inspect(sql);
  await sql.end();
  if ("error" in done) throw done.error;
  await dropDatabase(server.port, name);
  const { before, times: { from, to, seconds } } = done;
  const since = operations.filter(({ begun, milliseconds }) => begun + milliseconds >= from);
  const meanwhile = since.filter(({ begun }) => begun <= to);
  return {
    ...compareStates(before, after),
    seconds,
    latencies: meanwhile.map(({ milliseconds }) => milliseconds),
    errors: meanwhile.filter(({ failed }) => failed).length,
    refused: since.filter(({ failed }) => failed).length,
  };
}

/** Pushes one of the two plans to a fresh copy of the application, and measures it. */
export async function measurePush(
  server: PostgresServer,
  kind: Kind,
  edit: Edit,
  inspect?: (sql: Sql) => Promise<void>,
): Promise<Measured> {
  const name = `bench_${kind}`;
  const project = prepareProject(name, kind, edit);
  let isDeadlock = false;
  const push: Work = async (url, sql) => {
    const { code, output, begun, before } = await pushAndWatch(project, url, sql);
    isDeadlock = kind === "plain" && code !== 0 && output.includes("deadlock detected");
    if (code !== 0) throw new Error(`the push failed:\n${output}`);
    return { before, times: kind === "ours" ? timesOfOurs(begun) : await timesOfPlainPlan(sql) };
  };
  try {
    return await measureWork(server, name, "before", push, inspect);
  } catch (error) {
    if (!isDeadlock) throw error;
    say("  PostgreSQL ended the plain plan in a deadlock with the writer; it is pushed to a new copy");
    return await measurePush(server, kind, edit, inspect);
  }
}
