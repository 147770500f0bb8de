import postgres, { type Options, type PostgresType, type Sql } from "postgres";

/**
 * Opens one connection to a database that somebody names, on its first query: encrypted where the server does, unless the connection
 * string says otherwise, and fit for a pooler, which may give every query another session.
 */
export function connectLive(url: string, options: Options<Record<string, PostgresType>> = {}): Sql {
  const saysSsl = ["sslmode", "ssl"].some((name) => new URL(url).searchParams.has(name));
  return postgres(url, {
    max: 1,
    prepare: false,
    onnotice: () => {},
    ...(saysSsl ? {} : { ssl: "prefer" }),
    ...options,
  });
}
