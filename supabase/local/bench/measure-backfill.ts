import { setTimeout as sleep } from "node:timers/promises";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { copyProject } from "../project-copy.ts";
import { compareStates, type Growth, keepPhase1, type Kind, mapping, readState, runLoops, table } from "./shared.ts";

export interface Backfill extends Growth {
  /** Rows per second. */
  rate: number;
}

/** warm: the pages are in memory, and in the WAL already. cold: neither, as in a table that rests. */
export type State = "warm" | "cold";

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

const oneUpdate =
  `update ${table} as todo set org_id = user_orgs.org_id from tenancy.user_orgs where user_orgs.user_id = todo.user_id`;

async function checkpoint(server: PostgresServer): Promise<void> {
  const admin = connect(server.url({ role: "supabase_admin" }));
  await admin`checkpoint`;
  await admin.end();
}

/** A copy of the database columns, and what one needs to know of it. */
async function copyColumns(server: PostgresServer, name: string, state: State) {
  const url = await createDatabase(server.port, name, "columns", state === "cold" ? "file_copy" : "wal_log");
  const sql = connect(url);
  await sql`set statement_timeout = 0`;
  const [counted] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  if (state === "cold") await checkpoint(server);
  return { sql, rows: counted?.["rows"] as number };
}

/** Rows per second of the backfill alone, no writer, no index, no foreign key: one UPDATE against ours. */
export async function measureBackfill(server: PostgresServer, kind: Kind, state: State = "warm"): Promise<Backfill> {
  const name = `bench_backfill_${kind}`;
  const { sql, rows } = await copyColumns(server, name, state);
  const before = await readState(sql);
  const start = performance.now();
  let seconds: number;
  if (kind === "plain") {
    await sql`set session_replication_role = replica`;
    await sql.unsafe(oneUpdate);
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
  const [left] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  if (left?.["rows"] !== 0) throw new Error(`${left?.["rows"]} rows without organization after the backfill`);
  // A statement of less than a second has not said yet what it updated.
  await sql`select pg_stat_force_next_flush()`;
  await sleep(1200);
  const after = await readState(sql);
  await sql.end();
  await dropDatabase(server.port, name);
  return { ...compareStates(before, after), rate: rows / seconds };
}

export interface Least {
  /** The share of the rows that must leave their page, since every row grows and the pages are full. */
  share: number;
  /** Rows per second of one UPDATE all of whose rows have room on their pages. */
  rateWithRoom: number;
}

/** What no backfill can do without: how many rows must leave their page, and how long one takes that need not. */
export async function measureLeast(server: PostgresServer, state: State): Promise<Least> {
  const name = "bench_backfill_room";
  const { sql, rows } = await copyColumns(server, name, state);
  // A page of 8192 bytes has 24 of its own, and 4 for each line; a row grows by org_id and by the line of its new version.
  const [page] = await sql`
    select 20 / (8168.0 / org_migration.lines_per_page(${table}::regclass, pg_relation_size(${table}::regclass) / 8192) + 16) as share
  `;
  await sql.unsafe(`alter table ${table} set (fillfactor = 45)`);
  await sql.unsafe(`vacuum full ${table}`);
  if (state === "cold") await checkpoint(server);
  await sql`set session_replication_role = replica`;
  const start = performance.now();
  await sql.unsafe(oneUpdate);
  const seconds = (performance.now() - start) / 1000;
  await sql.end();
  await dropDatabase(server.port, name);
  return { share: Number(page?.["share"]), rateWithRoom: rows / seconds };
}
