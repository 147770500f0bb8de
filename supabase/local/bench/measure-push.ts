import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { copyProject, type ProjectCopy } from "../project-copy.ts";
import { compareStates, type Growth, keepPhase1, type Kind, mapping, plainPlan, readState, table } from "./shared.ts";
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
}

/** When the phases began and ended, and the seconds of each. */
interface Times {
  from: number;
  to: number;
  seconds: Measured["seconds"];
}

/** The project with one of the two plans in it. */
function prepareProject(name: string, kind: Kind, mapped: boolean): ProjectCopy {
  const folder = join(stateFolder(), `bench-${process.pid}`, name);
  rmSync(folder, { recursive: true, force: true });
  const project = copyProject(folder);
  if (mapped) project.append("_EDIT_list_of_tables.sql", mapping);
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

/** Pushes one of the two plans to a fresh copy of the application, with a writer at work, and measures it. */
export async function measurePush(server: PostgresServer, kind: Kind, mapped: boolean): Promise<Measured> {
  const name = `bench_${kind}`;
  const url = await createDatabase(server.port, name, "before");
  const project = prepareProject(name, kind, mapped);
  const sql = connect(url);
  // In the new database the tables are cold, and whoever reads them first pays for that.
  await sql`select count(*) from ${sql(table)} where notes = ''`;
  const writer = startWriter(url);
  await sleep(500);
  const { code, output, begun, before } = await pushAndWatch(project, url, sql);
  await sleep(1200);
  const after = await readState(sql);
  const operations = await writer.stop();
  if (code !== 0) {
    await sql.end();
    if (kind === "ours" || !output.includes("deadlock detected")) throw new Error(`the push failed:\n${output}`);
    say("  PostgreSQL ended the plain plan in a deadlock with the writer; it is pushed to a new copy");
    return await measurePush(server, kind, mapped);
  }

  const { from, to, seconds } = kind === "ours" ? timesOfOurs(begun) : await timesOfPlainPlan(sql);
  await sql.end();
  await dropDatabase(server.port, name);
  const meanwhile = operations.filter(({ begun, milliseconds }) => begun + milliseconds >= from && begun <= to);
  return {
    ...compareStates(before, after),
    seconds,
    latencies: meanwhile.map(({ milliseconds }) => milliseconds),
    errors: meanwhile.filter(({ failed }) => failed).length,
  };
}
