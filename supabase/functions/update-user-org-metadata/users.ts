/** What a run is to do, and to whom. */
export interface RunRequest {
  /** Only the users of this organization; null: all. */
  orgId: string | null;
  /** A user who has another organization: keep it and report a conflict, or overwrite it. */
  onConflict: "keep" | "overwrite";
  /** Overwrite also where the user is to have the default organization. */
  moveToDefault: boolean;
  /** Anonymous users as well, only them, or not them. */
  anonymous: "include" | "only" | "exclude";
  /** Take back what this run changed, where nothing has changed since; null: give users their organization. */
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
  /** True if the error is the last word; otherwise the next call tries again. */
  final: boolean;
}

/** A page that the database has claimed, written and settled; pending users are not among the settled ones. */
export interface WrittenUsers {
  claimed: number;
  settled: number;
  failed: number;
}

/** How far a run is, over all its calls. */
export interface RunCounts {
  /** Users that it has dealt with. */
  done: number;
  /** Users among those done. */
  failed: number;
  remaining: number;
}

/** The run over all its calls, as tenancy.user_run_summary gives it. */
export interface RunSummary {
  run_id: string;
  done: boolean;
  remaining: number;
  updated: number;
  conflicts: number;
  /** Those of the conflicts who should have the default organization. */
  conflicts_with_default: number;
  unreachable: number;
  failed: number;
  deleted: number;
  users: number;
  users_without_org: number;
  /** On purpose: anonymous ones, and those whom the mapping leaves out. They are not among users_without_org. */
  users_in_no_org: number;
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
  /** Those of the conflicts who should have the default organization. */
  conflicts_with_default: number;
  unreachable: number;
  users: number;
  users_without_org: number;
  /** On purpose: anonymous ones, and those whom the mapping leaves out. They are not among users_without_org. */
  users_in_no_org: number;
}

/** The port to the database, which has the list of users to update, the audit and the lock. */
export interface Users {
  organizationExists(orgId: string): Promise<boolean>;
  runExists(runId: string): Promise<boolean>;
  preview(request: RunRequest): Promise<RunPreview>;
  /** The run to go on with, or a new one; null while another connection runs one. */
  start(request: RunRequest): Promise<string | null>;
  /** The next page; empty at the end of a round. Whoever is claimed and not settled is claimed again by the next call. */
  claim(runId: string, pageSize: number): Promise<ClaimedUser[]>;
  /** Settles users by what the database holds. Returns the outcomes by user id. */
  settle(runId: string, results: SettledUser[]): Promise<Map<string, Outcome>>;
  /** Claims, writes and settles the next page, without the Auth server. Nobody claimed: the end of a round. */
  write(runId: string, pageSize: number): Promise<WrittenUsers>;
  /** Ends a round. True if it was the last one. */
  endRound(runId: string): Promise<boolean>;
  /** How far the run is. Takes a third of the time of the summary, which counts all users. */
  count(runId: string): Promise<RunCounts>;
  summary(runId: string): Promise<RunSummary>;
  /** Every problem of the run, a few hundred at a time. */
  problems(runId: string): AsyncIterable<UserProblem[]>;
  /** Gives the connection back, and with it the lock. */
  close(): Promise<void>;
}
