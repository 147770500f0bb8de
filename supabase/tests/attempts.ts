import { randomUUID } from "node:crypto";
import type { PostgresError, Sql } from "postgres";

/** Runs in a transaction that leaves nothing behind. */
export async function rehearse<Result>(sql: Sql, act: () => Promise<Result>): Promise<Result> {
  await sql`begin`;
  try {
    return await act();
  } finally {
    await sql`rollback`;
  }
}

/** The error of a statement; undefined if it goes through. */
export const refusal = async (statement: Promise<unknown>): Promise<PostgresError | undefined> =>
  await statement.then(() => undefined, (error: PostgresError) => error);

/** The error of an act within a transaction, which goes on after it. */
export async function refusalOf(sql: Sql, act: () => Promise<unknown>): Promise<PostgresError | undefined> {
  await sql`savepoint attempt`;
  const error = await refusal(act());
  if (error) await sql`rollback to attempt`;
  return error;
}

/** Goes on, to the end of the transaction, as a request with these claims does. */
export async function become(sql: Sql, role: string, claims: unknown): Promise<void> {
  await sql`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
  await sql`set local role ${sql(role)}`;
}

/** The claims of a user of this organization. */
export const claimsOf = (orgId: string, sub: string = randomUUID()) => ({
  sub,
  role: "authenticated",
  app_metadata: { org_id: orgId },
});
