/** What the function takes and answers over HTTP. Types only, so that every caller can import them. */
import type { RunPreview, RunSummary, UserProblem } from "./users.ts";

/** The body of a request; an absent field has its default. */
export interface RequestBody {
  /** Give users their organization (default), or take back what a run changed; "sql" does either without the Auth server. */
  mode?: "update" | "revert" | "sql";
  /** The run that is taken back; only with the modes "revert" and "sql". */
  run_id?: string;
  /** Only the users of this organization; null: all. */
  org_id?: string | null;
  /** For a user who has another organization: keep it and report a conflict (default), or overwrite it. */
  on_conflict?: "keep" | "overwrite";
  /** Overwrite also where the user is to have the default organization; only with on_conflict "overwrite". */
  move_to_default?: boolean;
  /** Anonymous users as well (default), only them, or not them. */
  anonymous?: "include" | "only" | "exclude";
  page_size?: number;
  concurrency?: number;
  max_seconds?: number;
  max_users?: number;
  dry_run?: boolean;
  /** Stream every problem once the run is done. */
  report?: boolean;
}

/** The end of a call: the run over all its calls so far, and what this call took. */
export interface SummaryAnswer extends RunSummary {
  pages: number;
  seconds: number;
  /** How long the Auth server wants to be left alone. */
  retry_in_seconds: number;
}

/** The answer to a dry run. */
export interface PreviewAnswer extends RunPreview {
  dry_run: true;
}

export type ErrorCode =
  | "method_not_allowed"
  | "unauthorized"
  | "body_too_large"
  | "invalid_json"
  | "invalid_body"
  | "unknown_field"
  | "invalid_field"
  | "unknown_organization"
  | "unknown_run"
  | "run_in_progress"
  | "auth_server_refused"
  | "not_migrated"
  | "database_unavailable"
  | "internal_error";

/** The answer to a request that failed. */
export interface ErrorAnswer {
  error: { code: ErrorCode; message: string };
}

/** The media type of a stream: one event per line. */
export type StreamType = "application/x-ndjson";

interface StartedEvent {
  event: "started";
  run_id: string;
  done: number;
  total: number;
  failed: number;
}

export interface ProgressEvent {
  event: "progress";
  done: number;
  total: number;
  failed: number;
  users_per_second: number;
  /** null while nobody can tell. */
  eta_seconds: number | null;
}

/** One line of a stream. The last one is "finished" or "error". */
export type StreamEvent =
  | StartedEvent
  | ProgressEvent
  | ({ event: "problem" } & UserProblem)
  | ({ event: "finished" } & SummaryAnswer)
  | ({ event: "error" } & ErrorAnswer);
