import { setTimeout as sleep } from "node:timers/promises";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { copyProject } from "../project-copy.ts";
import { readProcess } from "./processes.ts";
import { compareStates, type Growth, keepPhase1, type Kind, mapping, readState, runLoops, table } from "./shared.ts";

export interface Backfill extends Growth {
  /** Rows per second. */
  rate: number;
  /** Of its session; NaN where the system does not tell. */
  cpuSeconds: number;
}

/** Makes the database columns: the mapped application with the column on every table, and no organization in it yet. */
export async function prepareBackfill(server: PostgresServer, folder: string): Promise<void> {
  const url = await createDatabase(server.port, "columns", "before");
  const project = copyProject(folder);
  project.append("_EDIT_list_of_tables.sql", mapping);
  keepPhase1(folder);
  const { code, output } = await project.push(url);
  if (code !== 0) throw new Error(output);
  const sql = connect(url);
  await sql`set statement_timeout = 0`;
  await runLoops(sql, "_add_org_id_to_existing_tables.sql");
  await sql`vacuum (freeze, analyze)`;
  await sql.end();
}

/** Rows per second of the backfill alone, no writer, no index, no foreign key: one UPDATE against ours. */
export async function measureBackfill(
  server: PostgresServer,
  kind: Kind,
): Promise<Backfill> {
  const name = `bench_backfill_${kind}`;
  const url = await createDatabase(server.port, name, "columns");
  const sql = connect(url);
  const [counted] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  await sql`set statement_timeout = 0`;
  const before = await readState(sql);
  const start = performance.now();
  let seconds: number;
  if (kind === "plain") {
    await sql`set session_replication_role = replica`;
    await sql.unsafe(
      `update ${table} as todo set org_id = user_orgs.org_id from tenancy.user_orgs where user_orgs.user_id = todo.user_id`,
    );
    seconds = (performance.now() - start) / 1000;
  } else {
    await runLoops(sql, "_backfill_org_id_from_user_id.sql");
    // Of this table alone, whose backfill is not interrupted.
    const [spent] = await sql`
      select extract(epoch from finished_at - started_at)::double precision as seconds
      from org_migration.backfill_progress
      where relation = ${table}::regclass
    `;
    seconds = spent?.["seconds"] as number;
  }
  const [session] = await sql`select pg_backend_pid() as pid`;
  const { cpuSeconds } = readProcess(session?.["pid"] as number);
  const [left] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  if (left?.["rows"] !== 0) throw new Error(`${left?.["rows"]} rows without organization after the backfill`);
  // A statement of less than a second has not said yet what it updated.
  await sql`select pg_stat_force_next_flush()`;
  await sleep(1200);
  const after = await readState(sql);
  await sql.end();
  await dropDatabase(server.port, name);
  return { ...compareStates(before, after), rate: (counted?.["rows"] as number) / seconds, cpuSeconds };
}
