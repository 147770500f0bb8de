import type { AuthAdmin, Stop, Timing, UpdateResult } from "./auth-admin.ts";
import type { Log } from "./log.ts";
import type { ClaimedUser, RunPreview, RunRequest, RunSummary, SettledUser, UserProblem, Users } from "./users.ts";

export interface JobRequest extends RunRequest {
  /** Users claimed and settled together. */
  pageSize: number;
  /** Requests to the Auth server at a time. */
  concurrency: number;
  /** No new work after this many seconds. */
  maxSeconds: number;
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

/** Who watches a run. */
export interface Observer {
  /** Aborted when nobody waits for the answer any more: no new work from then on. */
  signal: AbortSignal;
  /** Told once, when the run has begun; the progress goes on changing. */
  onStart(progress: Progress): void;
  onProblem(problem: UserProblem): void;
}

/** How far a run is, over all its calls. */
export interface Progress {
  runId: string;
  /** Users that the run has dealt with. */
  done: number;
  total: number;
  /** Of those done: failed or out of reach. */
  failed: number;
  /** Users that this call has dealt with, and since when. */
  doneNow: number;
  startedAt: number;
}

export type JobResult =
  | { kind: "summary"; summary: RunSummary; pages: number; seconds: number; retryInSeconds: number }
  | { kind: "preview"; preview: RunPreview }
  | { kind: "unknown_organization"; orgId: string }
  | { kind: "unknown_run"; runId: string }
  | { kind: "busy" }
  | { kind: "refused"; message: string };

/** How often a user is written again when an update that was answered with 200 is not there. */
const maxWrites = 3;

/** Gives users their organization, or their previous value back, page by page, until none is left or it is time to stop. */
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
  const progress = readProgress(await users.summary(runId), startedAt);
  observer.onStart(progress);

  let pages = 0;
  while (timing.now() < stop.deadline && !stop.signal.aborted) {
    const page = await users.claim(runId, request.pageSize);
    if (page.length === 0) {
      if (await users.endPass(runId)) break;
      continue;
    }
    pages++;
    const end = await updatePage(page, { request, ports, progress, stop });
    if (end.refusal !== null) {
      log("error", "key_refused", { run_id: runId, error: end.refusal });
      return { kind: "refused", message: end.refusal };
    }
    if (end.unfinished) break;
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

function readProgress(summary: RunSummary, startedAt: number): Progress {
  const { updated, conflicts, unreachable, failed, deleted, remaining } = summary;
  const done = updated + conflicts + unreachable + failed + deleted;
  return {
    runId: summary.run_id,
    done,
    total: done + remaining,
    failed: failed + unreachable,
    doneNow: 0,
    startedAt,
  };
}

interface PageEnd {
  /** Why the Auth server refuses every request, if it does. */
  refusal: string | null;
  /** Whether it was time to stop before everyone was dealt with. */
  unfinished: boolean;
}

/** Updates a page's pending users and settles them. */
async function updatePage(
  page: ClaimedUser[],
  { request, ports, progress, stop }: { request: JobRequest; ports: JobPorts; progress: Progress; stop: Stop },
): Promise<PageEnd> {
  const { users, authAdmin, log } = ports;
  const { runId } = progress;
  const note = (count: number, failed: number) => {
    progress.done += count;
    progress.doneNow += count;
    progress.failed += failed;
    progress.total = Math.max(progress.total, progress.done);
  };
  note(
    page.filter(({ outcome }) => outcome !== "pending").length,
    page.filter(({ outcome }) => outcome === "unreachable").length,
  );

  let todo = page.filter((user) => user.outcome === "pending");
  for (let write = 1; todo.length > 0; write++) {
    const results = new Map<string, UpdateResult>();
    let refusal: string | null = null;
    let answered = 0;
    await forEachConcurrently(todo, request.concurrency, async (user) => {
      if (refusal !== null) return;
      const result = await authAdmin.setOrganization(user, stop);
      results.set(user.userId, result);
      if (result.state === "refused") refusal = result.error;
      if (result.error) log("warn", "update_failed", { run_id: runId, user_id: user.userId, error: result.error });
      if (result.state === "answered") {
        answered++;
        note(1, 0);
      }
    });

    // What each answer was worth, the database says.
    const outcomes = await users.settle(
      runId,
      [...results].map(([userId, { attempts, error, state }]): SettledUser => ({
        userId,
        attempts,
        error,
        final: state === "answered",
      })),
    );
    const settled = [...outcomes.values()].filter((outcome) => outcome !== "pending");
    note(settled.length - answered, settled.filter((outcome) => outcome === "failed").length);
    if (refusal !== null) return { refusal, unfinished: true };

    const isLost = ({ userId }: ClaimedUser) =>
      outcomes.get(userId) === "pending" && results.get(userId)?.state === "answered";
    const unfinished = todo.some(({ userId }) => outcomes.get(userId) === "pending") && !todo.some(isLost);
    todo = todo.filter(isLost).map((user) => ({
      ...user,
      attempts: user.attempts + (results.get(user.userId)?.attempts ?? 0),
    }));
    if (unfinished) return { refusal, unfinished };
    if (todo.length > 0) log("warn", "updates_lost", { run_id: runId, users: todo.length });
    if (todo.length > 0 && write === maxWrites) {
      const error = `not written: ${maxWrites} updates were answered with 200 and none is in the database`;
      await users.settle(runId, todo.map(({ userId }) => ({ userId, attempts: 0, error, final: true })));
      note(todo.length, todo.length);
      break;
    }
  }
  return { refusal: null, unfinished: false };
}

/** Runs an action for each item, at most `limit` at a time. */
async function forEachConcurrently<T>(items: T[], limit: number, action: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const work = async () => {
    for (const item of queue) await action(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, work));
}
