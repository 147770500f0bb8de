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
  /** Of those done. */
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

  const run = createRun(request, ports, progress, stop);
  const refusal = await run.work();
  if (refusal !== null) {
    log("error", "key_refused", { run_id: runId, error: refusal });
    return { kind: "refused", message: refusal };
  }
  const { pages } = run;

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
    failed,
    doneNow: 0,
    startedAt,
  };
}

/** A user to update, and how often an update of this call has been answered with 200. */
interface Task {
  user: ClaimedUser;
  writes: number;
}

interface Run {
  /** Pages that have been claimed. */
  readonly pages: number;
  /** Works until nobody is left or it is time to stop. Returns why the Auth server refuses every request, if it does. */
  work(): Promise<string | null>;
}

/**
 * The work of one call: while one page's requests are under way, the next page is claimed and the last one settled, so that the
 * Auth server does not wait for the database.
 */
function createRun(
  request: JobRequest,
  { users, authAdmin, timing, log }: JobPorts,
  progress: Progress,
  stop: Stop,
): Run {
  const { runId } = progress;
  let pages = 0;
  let room = request.maxUsers;

  const claim = () => handled(room > 0 ? users.claim(runId, Math.min(request.pageSize, room)) : Promise.resolve([]));

  function note(count: number, failed: number): void {
    progress.done += count;
    progress.doneNow += count;
    progress.failed += failed;
    progress.total = Math.max(progress.total, progress.done);
  }

  async function send(tasks: Task[]): Promise<{ results: Map<string, UpdateResult>; refusal: string | null }> {
    const results = new Map<string, UpdateResult>();
    let refusal: string | null = null;
    await forEachConcurrently(tasks, request.concurrency, async ({ user }) => {
      if (refusal !== null) return;
      const result = await authAdmin.setOrganization(user, stop);
      results.set(user.userId, result);
      if (result.state === "refused") refusal = result.error;
      if (result.error) log("warn", "update_failed", { run_id: runId, user_id: user.userId, error: result.error });
      if (result.state === "answered") note(1, 0);
    });
    return { results, refusal };
  }

  /** Settles by what the database holds. Returns those whom the Auth server said it updated and who are not, to be written again. */
  async function settle(tasks: Task[], results: Map<string, UpdateResult>): Promise<Task[]> {
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
    const answered = [...results.values()].filter(({ state }) => state === "answered");
    note(settled.length - answered.length, settled.filter((outcome) => outcome === "failed").length);

    const lost = tasks
      .filter(({ user: { userId } }) => outcomes.get(userId) === "pending" && results.get(userId)?.state === "answered")
      .map(({ user, writes }) => ({
        user: { ...user, attempts: user.attempts + (results.get(user.userId)?.attempts ?? 0) },
        writes: writes + 1,
      }));
    if (lost.length > 0) log("warn", "updates_lost", { run_id: runId, users: lost.length });
    const givenUp = lost.filter(({ writes }) => writes === maxWrites);
    if (givenUp.length > 0) {
      const error = `not written: ${maxWrites} updates were answered with 200 and none is in the database`;
      await users.settle(runId, givenUp.map(({ user: { userId } }) => ({ userId, attempts: 0, error, final: true })));
      note(givenUp.length, givenUp.length);
    }
    return lost.filter(({ writes }) => writes < maxWrites);
  }

  async function work(): Promise<string | null> {
    let next = claim();
    let settling: Promise<Task[]> = Promise.resolve([]);
    let lost: Task[] = [];
    let end: { refusal: string | null } | null = null;
    while (!end && timing.now() < stop.deadline && !stop.signal.aborted) {
      const page = await next;
      if (page.length > 0) {
        pages++;
        room -= page.length;
        next = claim();
      } else {
        lost.push(...await settling);
        settling = Promise.resolve([]);
        if (lost.length === 0) {
          if (room <= 0 || await users.endPass(runId)) break;
          next = claim();
          continue;
        }
      }
      note(page.filter(({ outcome }) => outcome !== "pending").length, 0);
      const pending = page.filter(({ outcome }) => outcome === "pending");
      const tasks = [...lost, ...pending.map((user) => ({ user, writes: 0 }))];
      const { results, refusal } = await send(tasks);
      lost = await settling;
      settling = handled(settle(tasks, results));
      const unfinished = [...results.values()].some(({ state }) => state === "unfinished");
      if (refusal !== null || unfinished) end = { refusal };
    }
    // What has been claimed and not sent stays pending, for the next call.
    await Promise.all([settling, next]);
    return end?.refusal ?? null;
  }

  return {
    get pages() {
      return pages;
    },
    work,
  };
}

/** A promise that is awaited later; its failure until then is nobody's surprise. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** Runs an action for each item, at most `limit` at a time. */
async function forEachConcurrently<T>(items: T[], limit: number, action: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const work = async () => {
    for (const item of queue) await action(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, work));
}
