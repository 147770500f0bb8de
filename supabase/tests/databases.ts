import type { Sql } from "postgres";
import { inject } from "vitest";
import { connect, createDatabase, dropDatabase } from "../local/databases.ts";
import { databaseUrl } from "../local/postgres.ts";
import { isTemplate, makeTemplate, type TemplateName } from "./templates.ts";

export interface Database {
  name: string;
  url: string;
  /** A connection as postgres. */
  sql: Sql;
  drop(): Promise<void>;
}

/** A clone of a template, of the platform's empty database postgres, or of another that nobody is connected to. */
export async function cloneDatabase(
  name: string,
  template: TemplateName | "postgres" | Pick<Database, "name">,
): Promise<Database> {
  const port = inject("databasePort");
  const source = typeof template === "string" ? template : template.name;
  if (isTemplate(source)) await makeTemplate(source);
  const url = await createDatabase(port, name, source);
  const sql = connect(url);
  return {
    name,
    url,
    sql,
    drop: async () => {
      await sql.end({ timeout: 5 });
      await dropDatabase(port, name);
    },
  };
}

/** Runs statements in a database as the server's superuser, whom the platform keeps for itself. */
export async function runAsSuperuser(database: string, statements: string): Promise<void> {
  const superuser = connect(databaseUrl(inject("databasePort"), { database, role: "supabase_admin" }));
  try {
    await superuser.unsafe(statements).simple();
  } finally {
    await superuser.end();
  }
}
