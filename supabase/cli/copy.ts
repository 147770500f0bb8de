/** COPY through postgres.js (3.4.9), which reports neither the end of every answer nor every error: https://github.com/porsager/postgres. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Sql } from "postgres";

/** A connection that does nothing else meanwhile, as within a transaction. */
type Connection = Pick<Sql, "unsafe">;

/** Passes on what `copy … to stdout` answers, chunk by chunk. Reads to the end also where `onChunk` throws, and throws that error then. */
export async function copyOut(
  sql: Connection,
  query: string,
  onChunk: (chunk: Buffer) => Promise<void> | void,
): Promise<void> {
  const answer = await sql.unsafe(query).readable();
  let failure: { error: unknown } | undefined;
  for await (const chunk of answer) {
    if (failure) continue;
    try {
      await onChunk(chunk as Buffer);
    } catch (error) {
      failure = { error };
    }
  }
  // It stops reading its socket when the stream is full, and goes on when the stream asks for more: never, where the end came with what filled it.
  answer._read(0);
  if (failure) throw failure.error;
}

/** Sends what it reads to `copy … from stdin`. Throws what the server says of it. */
export async function copyIn(sql: Connection, query: string, source: Readable): Promise<void> {
  const copying = sql.unsafe(query);
  // It settles the query when the stream opens, and tells nobody of an error that comes after the last byte.
  const settled = copying as unknown as { reject(error: unknown): void };
  const settle = settled.reject;
  const refused = new Promise<never>((_resolve, reject) => {
    settled.reject = (error) => {
      settle(error);
      reject(error as Error);
    };
  });
  refused.catch(() => {});
  await Promise.race([pipeline(source, await copying.writable()), refused]);
}
