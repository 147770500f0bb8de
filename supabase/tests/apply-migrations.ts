import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ISql, PostgresError, Sql } from "postgres";
import { versionOf } from "../cli/adopt-migrations.ts";
import { connect } from "../local/databases.ts";
import type { CliResult } from "../local/supabase-cli.ts";
import { splitStatements } from "./run-pgtap.ts";

/** The first line of a migration that commits as it goes. */
const outsideOfTransaction = /^-- pg-delta: transaction=false\r?\n/;

/**
 * Applies the migrations below this folder that the database does not have, each as `supabase db push` does, without the second
 * that the CLI takes to start. For tests of what the migrations do; push.test.ts holds the two equal.
 */
export async function applyMigrations(folder: string, url: string): Promise<void> {
  const sql = connect(url);
  const files = readdirSync(join(folder, "supabase/migrations")).filter((name) => name.endsWith(".sql")).sort();
  try {
    const applied = await readVersions(sql);
    for (const name of files.filter((file) => !applied.has(versionOf(file)))) {
      await applyMigration(sql, name, readFileSync(join(folder, "supabase/migrations", name), "utf8"));
    }
  } finally {
    await sql.end();
  }
}

/** The same, where it may be refused: with the exit code of the CLI, and the error as the CLI prints it. */
export async function tryMigrations(folder: string, url: string): Promise<CliResult> {
  return await applyMigrations(folder, url).then(
    () => ({ code: 0, output: "" }),
    ({ message, code }: PostgresError) => ({ code: 1, output: `ERROR: ${message} (SQLSTATE ${code})\n` }),
  );
}

/** The versions that the database has, in the table that the CLI keeps. */
async function readVersions(sql: Sql): Promise<Set<string>> {
  await sql.unsafe(`
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (version text primary key, statements text[], name text);
  `).simple();
  const rows = await sql<{ version: string }[]>`select version from supabase_migrations.schema_migrations`;
  return new Set(rows.map(({ version }) => version));
}

async function applyMigration(sql: Sql, file: string, text: string): Promise<void> {
  const [, name = ""] = /^\d+_(.*)\.sql$/.exec(file) ?? [];
  const note = (on: ISql) =>
    on`insert into supabase_migrations.schema_migrations (version, name) values (${versionOf(file)}, ${name})`;
  await sql`reset all`;
  if (outsideOfTransaction.test(text)) {
    for (const statement of splitStatements(text)) await sql.unsafe(statement).simple();
    await note(sql);
    return;
  }
  await sql.begin(async (transaction) => {
    await transaction.unsafe(text).simple();
    await note(transaction);
  });
}
