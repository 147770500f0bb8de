import postgres, { type Options, type PostgresType, type Sql } from "postgres";

/**
 * Opens one connection to a database that somebody names, on its first query: encrypted where the server does, unless the connection
 * string says otherwise, and fit for a pooler, which may give every query another session. postgres.js would ask for the types of
 * arrays first, and no caller could catch it where the connection goes at that moment: arrays come as text unless `fetch_types` is on.
 * To be closed by closeLive.
 */
export function connectLive(url: string, options: Options<Record<string, PostgresType>> = {}): Sql {
  const saysSsl = ["sslmode", "ssl"].some((name) => new URL(url).searchParams.has(name));
  return postgres(url, {
    max: 1,
    prepare: false,
    fetch_types: false,
    onnotice: () => {},
    ...(saysSsl ? {} : { ssl: "prefer" }),
    ...options,
  });
}

/** Closes it when its queries are through. It waits two seconds at most: postgres.js would wait for ever for one that was lost with its connection. */
export const closeLive = async (sql: Sql): Promise<void> => await sql.end({ timeout: 2 });
