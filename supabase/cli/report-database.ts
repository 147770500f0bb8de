import { closeLive, connectLive } from "./live-database.ts";

/** Asks the database one query, in a read-only transaction of its own, so that no lock is held longer than it takes. */
export type Ask = <Row extends object>(query: string, parameters?: (string | number)[]) => Promise<Row[]>;

export interface ReadOnlyDatabase {
  ask: Ask;
  end(): Promise<void>;
}

export function openReadOnly(url: string): ReadOnlyDatabase {
  const sql = connectLive(url, {
    // bigint and numeric: there is no number here that a double does not hold.
    types: { number: { to: 1700, from: [20, 1700], parse: Number, serialize: String } },
  });
  return {
    ask: async <Row extends object>(query: string, parameters: (string | number)[] = []) => {
      const rows = await sql.begin("read only", async (transaction) => {
        // It counts rows, which may take its time; where nobody waits for the answer any more, the server ends it.
        await transaction`set local statement_timeout = 0`;
        await transaction`set local client_connection_check_interval = '5s'`;
        await transaction`set local lock_timeout = '10s'`;
        await transaction`set local search_path = ''`;
        return await transaction.unsafe(query, parameters);
      });
      return [...rows] as unknown as Row[];
    },
    end: () => closeLive(sql),
  };
}
