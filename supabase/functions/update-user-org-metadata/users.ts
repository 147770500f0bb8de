import type { Sql } from "postgres";

/** What a run is asked to do with whom. */
export interface RunRequest {
  /** Only the users of this organization; null: all. */
  orgId: string | null;
  /** A user who has another organization: keep it and report a conflict, or overwrite it. */
  onConflict: "keep" | "overwrite";
  /** Put back what this run changed, where nothing has changed since; null: give users their organization. */
  revertedRunId: string | null;
}

export type Outcome = "pending" | "updated" | "conflict" | "unreachable" | "failed" | "deleted";

export interface ClaimedUser {
  userId: string;
  /** What app_metadata.org_id is to be; null: the key is to go. */
  value: unknown;
  /** pending is to be updated; conflict and unreachable come settled. */
  outcome: Outcome;
  /** Requests that earlier calls have sent for this user. */
  attempts: number;
}

export interface SettledUser {
  userId: string;
  /** Requests that were sent now. */
  attempts: number;
  error: string | null;
  /** Whether the error is the last word; otherwise the next call tries again. */
  final: boolean;
}

/** The run over all its calls, as tenancy.user_run_summary gives it. */
export interface RunSummary {
  run_id: string;
  done: boolean;
  remaining: number;
  updated: number;
  conflicts: number;
  unreachable: number;
  failed: number;
  deleted: number;
  users: number;
  users_without_org: number;
  problems: UserProblem[];
}

/** A user whom the run could not or must not update. */
export interface UserProblem {
  user_id: string;
  outcome: Outcome;
  reason: string;
}

/** What a run would do, as tenancy.user_run_preview gives it. */
export interface RunPreview {
  would_update: number;
  conflicts: number;
  unreachable: number;
  users: number;
  users_without_org: number;
}

/** The port to the database: the work list, the audit and the lock live there. */
export interface Users {
  organizationExists(orgId: string): Promise<boolean>;
  runExists(runId: string): Promise<boolean>;
  preview(request: RunRequest): Promise<RunPreview>;
  /** The run to go on with, or a new one; null while another connection runs one. */
  start(request: RunRequest): Promise<string | null>;
  /** The next page; empty at the end of a pass. What it claims and does not settle, the next call claims again. */
  claim(runId: string, pageSize: number): Promise<ClaimedUser[]>;
  /** Settles by what the database holds, and returns how. */
  settle(runId: string, results: SettledUser[]): Promise<Map<string, Outcome>>;
  /** Whether that was the last pass. */
  endPass(runId: string): Promise<boolean>;
  summary(runId: string): Promise<RunSummary>;
  /** Every problem of the run, as many at a time as memory should hold. */
  problems(runId: string): AsyncIterable<UserProblem[]>;
  /** Gives the connection back, and with it the lock. */
  close(): Promise<void>;
}

/** Opens the port on one connection of its own, since the lock that keeps runs apart belongs to a connection. */
export async function openUsers(sql: Sql): Promise<Users> {
  const connection = await sql.reserve().catch(async (error: unknown) => {
    await sql.end({ timeout: 5 });
    throw error;
  });
  return {
    organizationExists: async (orgId) => {
      const [row] = await connection`select from public.organizations where id = ${orgId}`;
      return row !== undefined;
    },
    runExists: async (runId) => {
      const [row] = await connection`select from tenancy.user_metadata_runs where run_id = ${runId}`;
      return row !== undefined;
    },
    preview: async ({ orgId, onConflict, revertedRunId }) => {
      const [row] = await connection`
        select tenancy.user_run_preview(${orgId}, ${onConflict}, ${revertedRunId}) as preview
      `;
      return row?.["preview"] as RunPreview;
    },
    start: async ({ orgId, onConflict, revertedRunId }) => {
      const [row] =
        await connection`select tenancy.start_user_run(${orgId}, ${onConflict}, ${revertedRunId}) as run_id`;
      return (row?.["run_id"] ?? null) as string | null;
    },
    claim: async (runId, pageSize) =>
      await connection<ClaimedUser[]>`
        select user_id as "userId", new_value as value, outcome, attempts
        from tenancy.claim_users(${runId}, ${pageSize})
        order by user_id
      `,
    settle: async (runId, results) => {
      const rows = results.map(({ userId, ...result }) => ({ user_id: userId, ...result }));
      const settled = await connection`
        select user_id, outcome from tenancy.settle_users(${runId}, ${JSON.stringify(rows)}::text::jsonb)
      `;
      return new Map(settled.map((row) => [row["user_id"] as string, row["outcome"] as Outcome]));
    },
    endPass: async (runId) => {
      const [row] = await connection`select tenancy.end_user_pass(${runId}) as ended`;
      return row?.["ended"] === true;
    },
    summary: async (runId) => {
      const [row] = await connection`select tenancy.user_run_summary(${runId}) as summary`;
      return row?.["summary"] as RunSummary;
    },
    problems: (runId) =>
      connection<UserProblem[]>`
        select user_id, outcome, reason from tenancy.user_problems where run_id = ${runId} order by user_id
      `.cursor(500),
    close: async () => {
      connection.release();
      await sql.end({ timeout: 5 });
    },
  };
}
