import type { AuthAdmin, Timing, UpdateResult } from "./auth-admin.ts";
import type { Log } from "./log.ts";
import type { ClaimedUser, RunPreview, RunRequest, RunSummary, SettledUser, Users } from "./users.ts";

export interface JobRequest extends RunRequest {
  /** Users claimed and settled together. */
  pageSize: number;
  /** Requests to the Auth server at a time. */
  concurrency: number;
  /** No new work after this many seconds. */
  maxSeconds: number;
  /** Count, write nothing. */
  dryRun: boolean;
}

export interface JobPorts {
  users: Users;
  authAdmin: AuthAdmin;
  timing: Timing;
  log: Log;
}

export type JobResult =
  | { kind: "summary"; summary: RunSummary; pages: number; seconds: number }
  | { kind: "preview"; preview: RunPreview }
  | { kind: "unknown_organization"; orgId: string }
  | { kind: "busy" }
  | { kind: "refused"; message: string };

/** How often a user is written again when an update that was answered with 200 is not there. */
const maxWrites = 3;

/** Gives users their organization, page by page, until none is left or the time is up. */
export async function updateUsers(request: JobRequest, ports: JobPorts): Promise<JobResult> {
  const { users, timing, log } = ports;
  const started = timing.now();
  const deadline = started + request.maxSeconds * 1000;

  if (request.orgId && !(await users.organizationExists(request.orgId))) {
    return { kind: "unknown_organization", orgId: request.orgId };
  }
  if (request.dryRun) return { kind: "preview", preview: await users.preview(request) };
  const runId = await users.start(request);
  if (!runId) return { kind: "busy" };
  log("info", "run_started", { run_id: runId });

  let pages = 0;
  while (timing.now() < deadline) {
    const page = await users.claim(runId, request.pageSize);
    if (page.length === 0) {
      if (await users.endPass(runId)) break;
      continue;
    }
    pages++;
    const refusal = await updatePage(runId, page, request.concurrency, deadline, ports);
    if (refusal !== null) {
      log("error", "key_refused", { run_id: runId, error: refusal });
      return { kind: "refused", message: refusal };
    }
  }

  const summary = await users.summary(runId);
  const seconds = Math.round(timing.now() - started) / 1000;
  const { problems: _, ...counts } = summary;
  log("info", "run_stopped", { ...counts, pages, seconds });
  return { kind: "summary", summary, pages, seconds };
}

/** Updates a page's pending users and settles them. Returns why the Auth server refuses every request, if it does. */
async function updatePage(
  runId: string,
  page: ClaimedUser[],
  concurrency: number,
  deadline: number,
  { users, authAdmin, timing, log }: JobPorts,
): Promise<string | null> {
  let todo = page.filter((user) => user.outcome === "pending");
  for (let write = 1; todo.length > 0; write++) {
    const results = new Map<string, UpdateResult>();
    let refusal: string | null = null;
    await forEachConcurrently(todo, concurrency, async (user) => {
      if (refusal !== null || timing.now() >= deadline) return;
      const result = await authAdmin.setOrganization(user, deadline);
      if (result.state === "refused") refusal = result.error;
      results.set(user.userId, result);
      if (result.error) log("warn", "update_failed", { run_id: runId, user_id: user.userId, error: result.error });
    });
    const settled = [...results].map(([userId, { attempts, error, state }]): SettledUser => {
      return { userId, attempts, error, final: state === "answered" };
    });
    const unwritten = new Set(await users.settle(runId, settled));
    if (refusal !== null) return refusal;
    todo = todo.filter((user) => unwritten.has(user.userId));
    if (todo.length > 0) log("warn", "updates_lost", { run_id: runId, users: todo.length });
    if (todo.length > 0 && write === maxWrites) {
      const error = `not written: ${maxWrites} updates were answered with 200 and none is in the database`;
      await users.settle(runId, todo.map(({ userId }) => ({ userId, attempts: 0, error, final: true })));
      return null;
    }
  }
  return null;
}

/** Runs an action for each item, at most `limit` at a time. */
async function forEachConcurrently<T>(items: T[], limit: number, action: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const work = async () => {
    for (const item of queue) await action(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, work));
}
