import type { Sql } from "postgres";
import { inject } from "vitest";
import { connect, createDatabase, dropDatabase } from "../local/databases.ts";

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
      await dropDatabase(port, name);
    },
  };
}
