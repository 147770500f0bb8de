import type { PostgresError, Sql } from "postgres";
import { runAsSuperuser } from "./databases.ts";

/** Runs steps of the migration on every registered table, as its files do, until none has anything left to do. */
export async function runSteps(sql: Sql, ...steps: string[]): Promise<void> {
  let target: string | null = null;
  do {
    const [row]: { target: string | null }[] =
      await sql`select tenancy.next_step(${steps}, ${target}::regclass)::text as target`;
    target = row?.target ?? null;
  } while (target !== null);
}

/** Takes all registered tables through all phases, each step in a transaction of its own; the indexes are small ones. */
export async function runAllPhases(sql: Sql): Promise<void> {
  await runSteps(sql, "record_table_before");
  await runSteps(sql, "add_org_id");
  await runSteps(sql, "backfill_org_id");
  const leaves = await sql<{ leaf: string }[]>`
    select leaf::text as leaf
    from tenancy.org_scoped_tables
    cross join tenancy.leaves(org_scoped_tables.relation) as leaf
    where (tenancy.org_id_index(leaf)).indexrelid is null
  `;
  for (const { leaf } of leaves) await sql.unsafe(`create index on ${leaf} (org_id)`);
  await runSteps(sql, "index_partitioned_table");
  await runSteps(sql, "add_org_id_foreign_key");
  await runSteps(sql, "refuse_null_org_id");
  await runSteps(sql, "enforce_org_id");
  await runSteps(sql, "make_org_id_immutable");
}

/** The lines for indexes in the DETAIL of a refusal, which are to be run as they are. */
export const indexLines = (error: PostgresError | undefined) =>
  error?.detail?.match(/^create .*index concurrently .*;$/gm) ?? [];

/** Binds a table's foreign keys as the documentation says, and runs the lines that it is told to. Returns those. */
export async function bind(sql: Sql, relation: string): Promise<string[]> {
  const lines: string[] = [];
  for (;;) {
    const error = await sql.unsafe(
      `do $$ begin while tenancy.bind_to_parent('${relation}') loop commit; end loop; end $$`,
    )
      .simple().then(() => undefined, (thrown: PostgresError) => thrown);
    if (!error) return lines;
    const told = indexLines(error);
    if (told.length === 0) throw error;
    for (const line of told) await sql.unsafe(line);
    lines.push(...told);
  }
}

/** Drops the application's tables, except those that are named, and their registration, so that there is little to verify. */
export async function dropApplication(sql: Sql, ...kept: string[]): Promise<void> {
  const tables = await sql<{ relation: string }[]>`
    select relation::text as relation from tenancy.application_tables where relation::text <> all (${kept})
  `;
  await sql.unsafe(`drop table ${tables.map(({ relation }) => relation).join(", ")} cascade`);
  await sql`delete from tenancy.registry where table_name <> all (${kept})`;
}

/**
 * Switches the new-table check on, as postgres. The platform lets it create event triggers; here it is superuser for that,
 * for as long as nobody else can see it.
 */
export async function checkNewTables(database: string): Promise<void> {
  await runAsSuperuser(
    database,
    `
      begin;
      alter role postgres superuser;
      set local role postgres;
      select tenancy.guard_new_tables();
      reset role;
      alter role postgres nosuperuser;
      commit;
    `,
  );
}
