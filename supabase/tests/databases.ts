import type { Sql } from "postgres";
import { inject } from "vitest";
import { connect, createDatabase, dropDatabase } from "../local/databases.ts";
import { databaseUrl } from "../local/postgres.ts";

/** A clone of a database that the setup prepared, or of another that nobody is connected to, with a connection as postgres. */
export async function cloneDatabase(
  name: string,
  template: string,
): Promise<{ name: string; url: string; sql: Sql; drop(): Promise<void> }> {
  const port = inject("databasePort");
  const url = await createDatabase(port, name, template);
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
