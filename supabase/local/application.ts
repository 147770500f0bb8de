import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { connect } from "./databases.ts";
import { root } from "./project.ts";
import { supabase } from "./supabase-cli.ts";

const migrations = join(root, "supabase/migrations");
export const demoPassword = "correct horse battery staple";

/** The names of the migration files, in the order in which they are applied. */
export function migrationFiles(): string[] {
  return readdirSync(migrations).filter((name) => name.endsWith(".sql")).sort();
}

/**
 * Pushes only the application's own migration, which was deployed before there were organizations. The target is a
 * connection string, or "local" for the database of config.toml.
 */
export async function pushApplicationBefore(target: string, folder: string): Promise<void> {
  const project = join(folder, "before");
  rmSync(project, { recursive: true, force: true });
  mkdirSync(join(project, "supabase/migrations"), { recursive: true });
  copyFileSync(join(root, "supabase/config.toml"), join(project, "supabase/config.toml"));
  const [first = ""] = migrationFiles();
  copyFileSync(join(migrations, first), join(project, "supabase/migrations", first));
  await supabase(["db", "push", "--workdir", project, ...pushTarget(target)]);
}

/** The parameters that make `supabase db push` work on this target. */
export function pushTarget(target: string): string[] {
  return target === "local" ? [] : [`--remote=${target}`, "--yes"];
}

/** Creates users, and rows in every table of the application. */
export async function fillApplication(url: string, counts: { users: number; rows: number }): Promise<void> {
  const sql = connect(url);
  try {
    await sql.unsafe(readFileSync(join(root, "supabase/local/demo-data.sql"), "utf8")).simple();
    await sql`select pg_temp.create_users(${counts.users}, ${demoPassword})`;
    await sql`select pg_temp.fill_application(${counts.rows})`;
  } finally {
    await sql.end();
  }
}

/**
 * Fills the largest table, call_logs, with so many rows, each of a call of its own user and in the order of time: an update by the
 * mapping reaches every row.
 */
export async function fillCallLogs(sql: Sql, rows: number): Promise<void> {
  await sql`
    insert into public.calls (user_id, started_at)
    select id, now() - make_interval(days => number)
    from auth.users, generate_series(1, 20) as number
  `;
  await sql`truncate public.call_logs cascade`;
  await sql`
    with call as materialized (
      select calls.id, calls.user_id, row_number() over (order by calls.id) as number
      from public.calls
      where started_at < now()
        and user_id in (select id from auth.users)
    )
    insert into public.call_logs (user_id, call_id, phone_number, outcome, notes, created_at)
    select call.user_id, call.id, '+1555' || drawn.n, 'no answer', repeat('x', 60), now() - make_interval(secs => ${rows} - drawn.n)
    from (
      select n, 1 + floor(random() * (select count(*) from call))::integer as number
      from generate_series(1, ${rows}::integer) as n
    ) as drawn
    join call using (number)
    order by drawn.n
  `;
}

/** How many rows a table has and what they hold, except org_id. */
export interface TableDigest {
  table: string;
  rows: number;
  /** A sum of hashes over the rows, the same for the same rows in any order. */
  digest: string;
}

/** Reads the digest of every table of the application, except public.organizations. */
export async function digestTables(sql: Sql): Promise<Map<string, TableDigest>> {
  const tables = await sql<{ name: string }[]>`
    select relname as name
    from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'organizations'
    order by relname
  `;
  const digests = new Map<string, TableDigest>();
  for (const { name } of tables) {
    const [digest] = await sql<TableDigest[]>`
      select
        ${name}::text as table,
        count(*)::integer as rows,
        coalesce(sum(hashtextextended((to_jsonb(row) - 'org_id')::text, 0)), 0)::text as digest
      from ${sql(`public.${name}`)} as row
    `;
    if (digest) digests.set(name, digest);
  }
  return digests;
}

/** How many rows the tables have together. */
export function sumRows(tables: Map<string, TableDigest>): number {
  return [...tables.values()].reduce((sum, table) => sum + table.rows, 0);
}
