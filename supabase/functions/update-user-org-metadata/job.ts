import type { AuthAdmin } from "./auth-admin.ts";
import type { Log } from "./log.ts";
import { Pipeline } from "./pipeline.ts";
import { type Progress, startProgress } from "./progress.ts";
import { writeInSql } from "./sql-run.ts";
import type { Stop, Timing } from "./timing.ts";
import type { RunPreview, RunRequest, RunSummary, UserProblem, Users } from "./users.ts";

export interface JobRequest extends RunRequest {
  /** Write in the database, and not through the Auth server. */
  inSql: boolean;
  /** Users claimed and settled together. */
  pageSize: number;
  /** Requests to the Auth server at a time. */
  concurrency: number;
  /** No new work after this many seconds. */
  maxSeconds: number;
  /** No new work after this many users, since a worker's CPU time is limited. */
  maxUsers: number;
  /** Count, write nothing. */
  dryRun: boolean;
  /** Tell every problem of a run that is done. */
  report: boolean;
}

export interface JobPorts {
  users: Users;
  authAdmin: AuthAdmin;
  timing: Timing;
  log: Log;
}

/** Whoever watches a run. */
export interface Observer {
  /** Aborted when nobody waits for the answer any more: no new work from then on. */
  signal: AbortSignal;
  /** Called once, when the run has begun; the progress goes on changing. */
  onStart(progress: Progress): void;
  onProblem(problem: UserProblem): void;
}

export type JobResult =
  | { kind: "summary"; summary: RunSummary; pages: number; seconds: number; retryInSeconds: number }
  | { kind: "preview"; preview: RunPreview }
  | { kind: "unknown_organization"; orgId: string }
  | { kind: "unknown_run"; runId: string }
  | { kind: "busy" }
  | { kind: "refused"; message: string };

/** Gives users their organization, or their previous value back, until none is left or it is time to stop. */
export async function updateUsers(request: JobRequest, ports: JobPorts, observer: Observer): Promise<JobResult> {
  const { users, authAdmin, timing, log } = ports;
  const startedAt = timing.now();
  const stop: Stop = { deadline: startedAt + request.maxSeconds * 1000, signal: observer.signal };

  if (request.orgId && !(await users.organizationExists(request.orgId))) {
    return { kind: "unknown_organization", orgId: request.orgId };
  }
  if (request.revertedRunId && !(await users.runExists(request.revertedRunId))) {
    return { kind: "unknown_run", runId: request.revertedRunId };
  }
  if (request.dryRun) return { kind: "preview", preview: await users.preview(request) };
  const runId = await users.start(request);
  if (!runId) return { kind: "busy" };
  log("info", "run_started", { run_id: runId });
  const progress = startProgress(runId, await users.count(runId), startedAt);
  observer.onStart(progress);

  const { pages, refusal } = request.inSql
    ? await writeInSql(request, ports, progress, stop)
    : await new Pipeline(request, ports, progress, stop).run();
  if (refusal !== null) {
    log("error", "key_refused", { run_id: runId, error: refusal });
    return { kind: "refused", message: refusal };
  }

  const summary = await users.summary(runId);
  if (summary.done && request.report) {
    for await (const problems of users.problems(runId)) problems.forEach(observer.onProblem);
  }
  const seconds = Math.round(timing.now() - startedAt) / 1000;
  const retryInSeconds = Math.max(Math.ceil((authAdmin.pausedUntil() - timing.now()) / 1000), 0);
  const { problems: _, ...counts } = summary;
  log("info", "run_stopped", { ...counts, pages, seconds });
  return { kind: "summary", summary, pages, seconds, retryInSeconds };
}
