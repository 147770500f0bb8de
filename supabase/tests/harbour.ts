import type { PostgresError, Sql } from "postgres";
import { refusal, rehearse } from "./attempts.ts";
import { cloneDatabase, type Database } from "./databases.ts";
import { finishWhereAsked } from "./last-step.ts";
import { defaultOrgId } from "./organizations.ts";
import { dropApplication, runAllPhases } from "./steps.ts";

export const ownOrgId = defaultOrgId;
export const secondOrgId = "b0000000-0000-4000-8000-000000000002";
export const thirdOrgId = "b0000000-0000-4000-8000-000000000003";

/** Whoever tries: the owner of the tables, the backend and a signed-in user, all of whom may write every column. */
export const roles = ["postgres", "service_role", "authenticated"] as const;
export type Role = (typeof roles)[number];

/** The relation that a statement addresses. All of them have the same columns; row 1 is in it. */
export interface Target {
  what: string;
  relation: string;
  /** For a table with partitions: what moves a row of it to another leaf, and to which. */
  move?: { set: string; to: string };
}
export const targets: Target[] = [
  { what: "an ordinary table", relation: "harbour.ships" },
  {
    what: "a partitioned table",
    relation: "harbour.voyages",
    move: { set: "region = 'south'", to: "harbour.voyages_south_2024" },
  },
  {
    what: "a partition with partitions of its own",
    relation: "harbour.voyages_north",
    move: { set: "year = 2025", to: "harbour.voyages_north_2025" },
  },
  { what: "a leaf partition", relation: "harbour.voyages_north_2024" },
];

const columns =
  "id integer, region text not null, year integer not null, user_id uuid, name text, visits integer not null default 0";

const tables = `
  insert into public.organizations (id, name) values ('${secondOrgId}', 'second'), ('${thirdOrgId}', 'third');
  create schema harbour;
  create table harbour.ships (${columns}, primary key (id, region, year));
  create table harbour.voyages (${columns}, primary key (id, region, year)) partition by list (region);
  create table harbour.voyages_north partition of harbour.voyages for values in ('north') partition by list (year);
  create table harbour.voyages_south partition of harbour.voyages for values in ('south') partition by list (year);
  create table harbour.voyages_north_2024 partition of harbour.voyages_north for values in (2024);
  create table harbour.voyages_north_2025 partition of harbour.voyages_north for values in (2025);
  create table harbour.voyages_south_2024 partition of harbour.voyages_south for values in (2024);
  insert into tenancy.registry (schema_name, table_name, scope, priority)
  values ('harbour', 'ships', 'org', 'secondary'), ('harbour', 'voyages', 'org', 'secondary');
`;
const rows = `
  insert into harbour.ships (id, region, year, name, org_id)
  values (1, 'north', 2024, 'Argo', '${ownOrgId}'), (2, 'north', 2024, 'Boat', '${secondOrgId}');
  insert into harbour.voyages (id, region, year, name, org_id)
  values (1, 'north', 2024, 'Argo', '${ownOrgId}'), (2, 'north', 2024, 'Boat', '${secondOrgId}');
  grant usage on schema harbour to service_role, authenticated;
  grant all on all tables in schema harbour to service_role, authenticated;
`;

/** A database with an ordinary and a partitioned table after all phases, which every role may read and write. */
export async function createHarbour(name: string): Promise<Database> {
  const database = await cloneDatabase(name, "migrated");
  const { sql } = database;
  await dropApplication(sql);
  await sql.unsafe(tables).simple();
  await runAllPhases(sql);
  await sql.unsafe(rows).simple();
  for (const { relation } of await listTables(sql)) {
    await sql.unsafe(`
      alter table ${relation} enable row level security;
      create policy everything on ${relation} to authenticated using (true) with check (true);
    `).simple();
  }
  await finishWhereAsked(sql);
  return database;
}

/** The tables of the harbour, partitions included. */
export const listTables = async (sql: Sql) =>
  await sql<{ relation: string }[]>`
    select oid::regclass::text as relation from pg_class
    where relnamespace = 'harbour'::regnamespace and relkind in ('r', 'p')
    order by 1
  `;

/** All rows of both tables, each with the leaf that it is in. */
export const readRows = async (sql: Sql) =>
  await sql`
    select tableoid::regclass::text as leaf, * from harbour.ships
    union all
    select tableoid::regclass::text as leaf, * from harbour.voyages
    order by id, leaf
  `;

/** Runs a statement as a role, after the owner has set the scene: its error, and the rows before and after. */
export async function attempt(sql: Sql, role: Role, setUp: string, statement: string) {
  return await rehearse(sql, async () => {
    await sql.unsafe(setUp).simple();
    const before = await readRows(sql);
    await sql`savepoint attempt`;
    await sql`set local role ${sql(role)}`;
    const error: PostgresError | undefined = await refusal(sql.unsafe(statement).simple());
    if (error) await sql`rollback to attempt`;
    await sql`set local role postgres`;
    return { error, before, after: await readRows(sql) };
  });
}
