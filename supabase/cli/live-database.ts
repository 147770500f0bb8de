import postgres, { type Options, type PostgresError, type PostgresType, type Sql, type TransactionSql } from "postgres";

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

/** Does work in one transaction of a connection of its own. `mode`: as after BEGIN, or empty. Throws what the work or the server throws. */
export async function inTransaction<Result>(
  url: string,
  mode: string,
  work: (sql: TransactionSql) => Promise<Result>,
): Promise<Result> {
  const sql = connectLive(url, { fetch_types: true });
  let lose: (error: unknown) => void = () => {};
  const lost = new Promise<never>((_resolve, reject) => lose = reject);
  // postgres.js would roll back on a connection that is gone, and no caller could catch the error of that.
  const unlessLost = (error: unknown) => {
    const { code = "", severity = "" } = error as Partial<PostgresError>;
    if (!code.startsWith("CONNECTION_") && severity !== "FATAL") throw error;
    lose(error);
    return new Promise<never>(() => {});
  };
  try {
    const done = sql.begin(mode, async (transaction) => ({ result: await work(transaction).catch(unlessLost) }));
    return (await Promise.race([done, lost])).result as Result;
  } finally {
    await closeLive(sql);
  }
}
