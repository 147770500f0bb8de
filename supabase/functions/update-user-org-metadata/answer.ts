import { RequestError, toErrorAnswer } from "./errors.ts";
import type { JobResult } from "./job.ts";
import type { PreviewAnswer, SummaryAnswer } from "./protocol.ts";

/** The answer to a request in one piece of JSON. */
export function answer(result: JobResult): Response {
  switch (result.kind) {
    case "summary":
      return Response.json(toSummaryAnswer(result));
    case "preview":
      return Response.json({ dry_run: true, ...result.preview } satisfies PreviewAnswer);
    default:
      return answerError(toFailure(result));
  }
}

export function answerError(error: RequestError): Response {
  const { status } = error;
  const headers: Record<string, string> = status === 405 ? { allow: "POST" } : {};
  return Response.json(toErrorAnswer(error), { status, headers });
}

export function toSummaryAnswer(
  { summary, pages, seconds, retryInSeconds }: JobResult & { kind: "summary" },
): SummaryAnswer {
  return { ...summary, pages, seconds, retry_in_seconds: retryInSeconds };
}

/** Why a job did not do what it was asked for. */
export function toFailure(result: Exclude<JobResult, { kind: "summary" | "preview" }>): RequestError {
  switch (result.kind) {
    case "unknown_organization":
      return new RequestError(
        422,
        "unknown_organization",
        `Cannot use org_id "${result.orgId}": there is no such organization`,
      );
    case "unknown_run":
      return new RequestError(422, "unknown_run", `Cannot revert the run "${result.runId}": there is no such run`);
    case "busy":
      return new RequestError(
        409,
        "run_in_progress",
        "Cannot start: another run is in progress; call again when it has ended",
      );
    case "refused":
      return new RequestError(
        502,
        "auth_server_refused",
        `Cannot update users: the Auth server refuses the function's key: ${result.message}`,
      );
  }
}
