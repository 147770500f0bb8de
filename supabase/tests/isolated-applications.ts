import type { Sql } from "postgres";
import { adoptApplication } from "./applications.ts";
import { cloneDatabase, type Database } from "./databases.ts";
import type { Hit } from "./intruder.ts";
import { placeEveryone } from "./organizations.ts";
import { isolateAllTables } from "./rows.ts";

/** The application that is shipped, and those of the fixtures: each has users in at least two organizations. */
export const isolatedApplications = ["call-centre", "crm", "marketplace", "team-chat", "half-migrated"] as const;
export type IsolatedApplication = typeof isolatedApplications[number];

export interface Isolated {
  database: Database;
  /** What tenancy.review named before anything was isolated. */
  named: Leak[];
}

/** A finding of tenancy.review of the severity leaks. */
export interface Leak {
  code: string;
  object: string;
  /** Of a function, all that it reaches, with commas between. */
  table_name: string | null;
}

/** Pushes an application as its owner has prepared it, places every user, and isolates every org-scoped table. */
export async function isolateApplication(name: IsolatedApplication, suffix = ""): Promise<Isolated> {
  const database = await pushApplication(name, `two_${name.replaceAll("-", "_")}${suffix}`);
  const { sql } = database;
  await placeEveryone(sql);
  const named = await readLeaks(sql);
  await isolateWhole(sql);
  return { database, named };
}

async function pushApplication(name: IsolatedApplication, database: string): Promise<Database> {
  if (name === "call-centre") return await cloneDatabase(database, "two_organizations");
  const { sql, url, drop } = await cloneDatabase(database, "postgres");
  // The platform has it, and the CRM adds its tables to it.
  await sql`create publication supabase_realtime`;
  await adoptApplication(name, url, { kind: database, live: true });
  return { name: database, sql, url, drop };
}

/** What the review names beforehand: leaks, functions that look at who calls, and keys that are not bound. */
export async function readLeaks(sql: Sql): Promise<Leak[]> {
  return [
    ...await sql<Leak[]>`
      select code, object, table_name from tenancy.review
      where severity = 'leaks' or code in ('security_definer_function', 'unbound_reference')
    `,
  ];
}

/** The hits that no leak names: neither what was used nor what was reached through it. */
export function findUnnamed(hits: Hit[], leaks: Leak[]): Hit[] {
  const withoutPublic = (name: string) => name.replace(/^public\./, "");
  const names = new Set(
    leaks.flatMap(({ object, table_name }) => [object, ...(table_name ?? object).split(", ")]).map(withoutPublic),
  );
  const isNamed = (name: string) =>
    names.has(withoutPublic(name)) || names.has(withoutPublic(name).replace(/\(.*$/, ""));
  return hits.filter(({ through, reached }) => !isNamed(through) && !(reached.length > 0 && reached.every(isNamed)));
}

/** Tables with rows that reference a row of another organization. */
export async function readCrossing(sql: Sql): Promise<Set<string>> {
  const tables = await sql<{ name: string }[]>`
    select distinct application_tables.qualified_name as name
    from tenancy.cross_org_references() as crossing
    join tenancy.application_tables on application_tables.relation = crossing.relation
  `;
  return new Set(tables.map(({ name }) => name));
}

/** Drops the foreign keys between rows of two organizations, which binding would not let be. */
export async function dropCrossingKeys(sql: Sql): Promise<void> {
  const keys = await sql<{ table: string; name: string }[]>`
    select distinct relation::text as table, constraint_name as name from tenancy.cross_org_references()
  `;
  for (const { table, name } of keys) await sql.unsafe(`alter table ${table} drop constraint "${name}"`);
}

/** Isolates every org-scoped table, after what the refusal says: row-level security on every one of them. */
export async function isolateWhole(sql: Sql): Promise<void> {
  const tables = await sql<{ name: string }[]>`
    select qualified_name as name from tenancy.isolation_policies where not row_security
  `;
  for (const { name } of tables) await sql.unsafe(`alter table ${name} enable row level security`);
  await isolateAllTables(sql);
  const open = await sql`select qualified_name from tenancy.isolation_policies where not isolated`;
  if (open.length > 0) throw new Error(`Cannot isolate ${open.map((row) => row["qualified_name"]).join(", ")}`);
}

/** Lets everyone signed in do everything within the organization, so that nothing but the isolation stands in the way. */
export async function openToEveryoneSignedIn(sql: Sql): Promise<void> {
  const members = await sql<{ name: string }[]>`select qualified_name as name from tenancy.isolation_policies`;
  for (const { name } of members) {
    await sql.unsafe(`
      create policy open_to_everyone_signed_in on ${name} to authenticated using (true) with check (true);
      grant select, insert, update, delete on ${name} to authenticated;
    `).simple();
  }
}
