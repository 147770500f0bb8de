/**
 * Reads what the function answers, as its types say. An answer is judged by what is in it: a count that is missing must not
 * pass for zero.
 */
import type {
  ErrorAnswer,
  PreviewAnswer,
  ProgressEvent,
  SummaryAnswer,
} from "../functions/update-user-org-metadata/protocol.ts";
import type { UserProblem } from "../functions/update-user-org-metadata/users.ts";

/** How far a run is. */
export type Progress = Omit<ProgressEvent, "event">;

/** An error that the function or the gateway answers with; the code of the gateway's is its own. */
export interface AnsweredError {
  code: ErrorAnswer["error"]["code"] | "";
  message: string;
}

type Fields = Record<string, unknown>;

/** The object that a text holds; empty if it holds none. */
export function parseObject(text: string): Fields {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Fields : {};
  } catch {
    return {};
  }
}

/** The summary at the end of a call; undefined: a count is missing. */
export function readSummary(fields: Fields): SummaryAnswer | undefined {
  const { done, run_id, problems } = fields;
  const counts = readCounts(fields, [
    "remaining",
    "updated",
    "conflicts",
    "conflicts_with_default",
    "unreachable",
    "failed",
    "deleted",
    "users",
    "users_without_org",
    "users_in_no_org",
  ]);
  if (typeof done !== "boolean" || !counts) return undefined;
  return {
    ...counts,
    run_id: String(run_id),
    done,
    problems: Array.isArray(problems) ? problems.map((problem) => readProblem(problem as Fields)) : [],
    pages: readNumber(fields["pages"]),
    seconds: readNumber(fields["seconds"]),
    retry_in_seconds: readNumber(fields["retry_in_seconds"]),
  };
}

/** The counts of a dry run; undefined: one is missing. */
export function readPreview(fields: Fields): PreviewAnswer | undefined {
  const counts = readCounts(fields, [
    "would_update",
    "conflicts",
    "conflicts_with_default",
    "unreachable",
    "users",
    "users_without_org",
    "users_in_no_org",
  ]);
  return fields["dry_run"] === true && counts ? { dry_run: true, ...counts } : undefined;
}

export function readProgress(fields: Fields): Progress {
  const { eta_seconds } = fields;
  return {
    done: readNumber(fields["done"]),
    total: readNumber(fields["total"]),
    failed: readNumber(fields["failed"]),
    users_per_second: readNumber(fields["users_per_second"]),
    eta_seconds: typeof eta_seconds === "number" ? eta_seconds : null,
  };
}

export function readProblem({ user_id, outcome, reason }: Fields): UserProblem {
  return { user_id: String(user_id), outcome: String(outcome) as UserProblem["outcome"], reason: String(reason ?? "") };
}

export function readError({ error }: Fields): AnsweredError {
  const { code, message } = typeof error === "object" && error !== null ? error as Fields : {};
  return { code: String(code ?? "") as AnsweredError["code"], message: String(message ?? "") };
}

function readCounts<Name extends string>(fields: Fields, names: Name[]): Record<Name, number> | undefined {
  if (names.some((name) => typeof fields[name] !== "number")) return undefined;
  return Object.fromEntries(names.map((name) => [name, fields[name]])) as Record<Name, number>;
}

function readNumber(value: unknown): number {
  return typeof value === "number" ? value : 0;
}
