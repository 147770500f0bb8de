import postgres, { type Sql } from "postgres";
import { inject } from "vitest";
import { databaseUrl } from "../local/postgres.ts";

/** Creates a database as a copy of another that nobody is connected to. Returns its connection string. */
export async function createDatabase(port: number, name: string, template: string): Promise<string> {
  const admin = connect(databaseUrl(port, { database: "template1", role: "supabase_admin" }));
  try {
    await admin`drop database if exists ${admin(name)} with (force)`;
    await admin`create database ${admin(name)} template ${admin(template)} owner postgres`;
  } finally {
    await admin.end();
  }
  return databaseUrl(port, { database: name });
}

/** A clone of one of the databases that the setup prepared, with a connection as postgres. */
export async function cloneDatabase(
  name: string,
  template: "before" | "migrated" | "postgres",
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
      const admin = connect(databaseUrl(port, { database: "template1", role: "supabase_admin" }));
      await admin`drop database if exists ${admin(name)} with (force)`;
      await admin.end();
    },
  };
}

/** One connection; notices are not of interest. */
export function connect(url: string): Sql {
  return postgres(url, { max: 1, onnotice: () => {} });
}
