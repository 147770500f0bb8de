import postgres, { type ReservedSql } from "postgres";
import { systemTiming } from "./timing.ts";
import type {
  ClaimedUser,
  Outcome,
  RunCounts,
  RunPreview,
  RunSummary,
  UserProblem,
  Users,
  WrittenUsers,
} from "./users.ts";

/** Opens the port on a connection of its own: the lock that keeps runs apart belongs to a connection. */
export async function openUsers(databaseUrl: string): Promise<Users> {
  let isLost = false;
  let lose: (reason: Error) => void = () => {};
  const lost = new Promise<never>((_resolve, reject) => (lose = reject));
  lost.catch(() => {});
  const sql = postgres(databaseUrl, {
    max: 1,
    prepare: false,
    // A query of postgres.js's own, which nobody could catch where the connection goes at that moment. No answer here has an array.
    fetch_types: false,
    onnotice: () => {},
    onclose: () => {
      isLost = true;
      lose(Object.assign(new Error("the connection is lost"), { code: "CONNECTION_CLOSED" }));
    },
  });
  let connection: ReservedSql;
  try {
    // postgres.js reserves a connection that is open; one that it only opens, without asking for types, it never hands over.
    await sql`select`;
    connection = await Promise.race([sql.reserve(), lost]);
  } catch (error) {
    await sql.end({ timeout: isLost ? 0 : 5 });
    throw error;
  }

  /**
   * The answer of a query, of which `send` begins to wait. Throws if the connection is gone, or goes: postgres.js neither answers a query that is
   * sent to a reserved connection then, nor fails it.
   */
  const unlessLost = async <Answer>(send: () => PromiseLike<Answer>): Promise<Answer> => {
    // Events of the connection come between two tasks, so from here to the query there is none.
    await Promise.resolve();
    return isLost ? await lost : await Promise.race([send(), lost]);
  };
  const ask = async <Rows extends readonly object[] = Record<string, unknown>[]>(
    query: TemplateStringsArray,
    ...values: (string | number | boolean | null)[]
  ) => await unlessLost(() => connection<Rows>(query, ...values));

  return {
    organizationExists: async (orgId) => {
      const [row] = await ask`select from public.organizations where id = ${orgId}`;
      return row !== undefined;
    },
    runExists: async (runId) => {
      const [row] = await ask`select from tenancy.user_metadata_runs where run_id = ${runId}`;
      return row !== undefined;
    },
    preview: async ({ orgId, onConflict, revertedRunId, moveToDefault, anonymous }) => {
      const [row] = await ask`
        select tenancy.user_run_preview(
          ${orgId}, ${onConflict}, ${revertedRunId}, ${moveToDefault}, ${anonymous}
        ) as preview
      `;
      return row?.["preview"] as RunPreview;
    },
    start: async ({ orgId, onConflict, revertedRunId, moveToDefault, anonymous }) => {
      const [row] = await ask`
        select tenancy.start_user_run(${orgId}, ${onConflict}, ${revertedRunId}, ${moveToDefault}, ${anonymous}) as run_id
      `;
      return (row?.["run_id"] ?? null) as string | null;
    },
    claim: async (runId, pageSize) =>
      await ask<ClaimedUser[]>`
        select user_id as "userId", new_value as value, outcome, attempts
        from tenancy.claim_users(${runId}, ${pageSize})
        order by user_id
      `,
    settle: async (runId, results) => {
      const rows = results.map(({ userId, ...result }) => ({ user_id: userId, ...result }));
      const settled = await ask`
        select user_id, outcome from tenancy.settle_users(${runId}, ${JSON.stringify(rows)}::text::jsonb)
      `;
      return new Map(settled.map((row) => [row["user_id"] as string, row["outcome"] as Outcome]));
    },
    write: async (runId, pageSize) => {
      const [page] = await ask<WrittenUsers[]>`
        select claimed, settled, failed from tenancy.write_users(${runId}, ${pageSize})
      `;
      return page ?? { claimed: 0, settled: 0, failed: 0 };
    },
    endRound: async (runId) => {
      const [row] = await ask`select tenancy.end_user_pass(${runId}) as ended`;
      return row?.["ended"] === true;
    },
    count: async (runId) => {
      const [counts] = await ask<RunCounts[]>`
        select
          count(*) filter (where outcome <> 'pending')::integer as done,
          count(*) filter (where outcome = 'failed')::integer as failed,
          tenancy.users_remaining(${runId})::integer as remaining
        from tenancy.user_metadata_audit
        where run_id = ${runId}
      `;
      return counts ?? { done: 0, failed: 0, remaining: 0 };
    },
    summary: async (runId) => {
      const [row] = await ask`select tenancy.user_run_summary(${runId}) as summary`;
      return row?.["summary"] as RunSummary;
    },
    problems: async function* (runId) {
      const pages = connection<UserProblem[]>`
        select user_id, outcome, reason from tenancy.user_problems where run_id = ${runId} order by user_id
      `.cursor(500)[Symbol.asyncIterator]();
      try {
        for (;;) {
          const page = await unlessLost(() => pages.next());
          if (page.done) return;
          yield page.value;
        }
      } finally {
        // Whoever stops reading leaves a cursor open, and the connection answers nothing else until it is closed.
        if (!isLost) await pages.return?.();
      }
    },
    close: async () => {
      if (!isLost) {
        // The server may end the session, and free its lock, a moment after the connection is closed.
        await waitAtMost(5000, ask`select pg_advisory_unlock_all()`);
        connection.release();
      }
      // A lost connection has nothing to wait for, and postgres.js waits for the query that was under way.
      await sql.end({ timeout: isLost ? 0 : 5 });
    },
  };
}

/** Waits for the end of a promise, whether it fails or not, for so many milliseconds at most. */
async function waitAtMost(milliseconds: number, promise: Promise<unknown>): Promise<void> {
  const ended = new AbortController();
  const end = () => ended.abort();
  promise.then(end, end);
  await systemTiming.sleep(milliseconds, ended.signal);
}
