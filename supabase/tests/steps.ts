import type { PostgresError, Sql } from "postgres";
import { runAsSuperuser } from "./databases.ts";

/** Calls a function of the loop protocol, as `tenancy.advance('guard')`, until it says that nothing is left. */
export async function repeat(sql: Sql, call: string): Promise<void> {
  for (let more = true; more;) {
    const [row] = await sql.unsafe(`select ${call} as more`);
    more = row?.["more"] === true;
  }
}

/** Makes parts of these kinds on every registered table, until none is missing: all loops in the order given. */
export async function advance(sql: Sql, ...loops: string[]): Promise<void> {
  for (const parts of loops) {
    await repeat(sql, `tenancy.advance(${parts.split(" ").map((part) => `'${part}'`).join(", ")})`);
  }
}

/** Takes all registered tables, which are small, through all phases, each step in a transaction of its own. */
export async function runAllPhases(sql: Sql): Promise<void> {
  await advance(
    sql,
    ...["count", "column default", "filler", "backfill", "invalid_index", "index", "index_root"],
    ...["foreign_key", "foreign_key_valid", "foreign_key_root"],
    ...[
      "leftovers",
      "last_resort check last_resort",
      "check_valid",
      "not_null",
      "guard",
      "guard_move",
      "guard_statement",
    ],
  );
}

/** The lines for indexes in the message of a refusal, which are to be run as they are. */
export const indexLines = (error: PostgresError | undefined) =>
  error?.message.match(/^(?:create (?:unique )?|drop )index concurrently .*;$/gm) ?? [];

/** Binds a table's foreign keys as the documentation says, and runs the lines that it is told to. Returns those. */
export async function bind(sql: Sql, relation: string): Promise<string[]> {
  const lines: string[] = [];
  for (;;) {
    const error = await sql.unsafe(
      `do $$ begin while tenancy.enable_binding('${relation}') loop commit; end loop; end $$`,
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
  await sql`select org_migration.prepare_fillers()`;
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
      select tenancy.enable_new_table_check();
      reset role;
      alter role postgres nosuperuser;
      commit;
    `,
  );
}
