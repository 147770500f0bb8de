import postgres, { type Sql } from "postgres";
import { databaseUrl } from "./postgres.ts";

/** Opens one connection that ignores notices. */
export function connect(url: string): Sql {
  return postgres(url, { max: 1, onnotice: () => {} });
}

/**
 * Creates a database as a copy of one to which nobody is connected. Returns its connection string. As files: its pages are as after a
 * checkpoint, each to be written to the WAL as a whole when it is first changed.
 */
export async function createDatabase(
  port: number,
  name: string,
  template: string,
  strategy: "wal_log" | "file_copy" = "wal_log",
): Promise<string> {
  await dropDatabase(port, name);
  const admin = connect(databaseUrl(port, { database: "template1", role: "supabase_admin" }));
  try {
    await admin`create database ${admin(name)} template ${admin(template)} strategy ${admin(strategy)} owner postgres`;
  } finally {
    await admin.end();
  }
  return databaseUrl(port, { database: name });
}

/** Drops a database, if it exists, and ends the sessions in it. */
export async function dropDatabase(port: number, name: string): Promise<void> {
  const admin = connect(databaseUrl(port, { database: "template1", role: "supabase_admin" }));
  try {
    await admin`drop database if exists ${admin(name)} with (force)`;
  } finally {
    await admin.end();
  }
}
