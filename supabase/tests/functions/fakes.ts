import type { AuthAdmin, UserToUpdate } from "../../functions/update-user-org-metadata/auth-admin.ts";
import type { Observer } from "../../functions/update-user-org-metadata/job.ts";
import type { Progress } from "../../functions/update-user-org-metadata/progress.ts";
import type { Stop, Timing } from "../../functions/update-user-org-metadata/timing.ts";
import type {
  ClaimedUser,
  Outcome,
  RunCounts,
  RunPreview,
  RunRequest,
  RunSummary,
  SettledUser,
  UserProblem,
  Users,
  WrittenUsers,
} from "../../functions/update-user-org-metadata/users.ts";

/** A clock that only sleeping moves. */
export function createClock(random = 0.5): Timing & { slept: number[] } {
  let now = 0;
  const slept: number[] = [];
  return {
    slept,
    now: () => now,
    sleep: async (milliseconds) => {
      if (milliseconds > 0) slept.push(milliseconds);
      now += milliseconds;
    },
    random: () => random,
  };
}

/** What the database port answers to a dry run. */
export const preview: RunPreview = {
  would_update: 3,
  conflicts: 1,
  conflicts_with_default: 0,
  unreachable: 2,
  users: 7,
  users_without_org: 6,
  users_in_no_org: 0,
};

/** The database port over a few users in memory: who has which organization is what `written` holds. */
export class FakeUsers implements Users {
  readonly written = new Map<string, string>();
  readonly outcomes = new Map<string, { outcome: string; attempts: number; error: string | null }>();
  pages: number[] = [];
  closed = false;
  locked = false;
  finished = false;

  constructor(
    readonly ids: string[],
    readonly orgId = "org",
    readonly settledAtOnce: Record<string, "conflict" | "unreachable"> = {},
  ) {}

  async organizationExists(orgId: string): Promise<boolean> {
    return orgId === this.orgId;
  }

  async runExists(runId: string): Promise<boolean> {
    return runId === "run";
  }

  async preview(_request: RunRequest): Promise<RunPreview> {
    return preview;
  }

  /** Whom this call has claimed. */
  #claimed = new Set<string>();

  async start(_request: RunRequest): Promise<string | null> {
    this.#claimed.clear();
    return this.locked ? null : "run";
  }

  async claim(_runId: string, pageSize: number): Promise<ClaimedUser[]> {
    const open = this.ids.filter((id) => {
      const outcome = this.outcomes.get(id)?.outcome;
      if (this.#claimed.has(id)) return false;
      return this.written.get(id) !== this.orgId && (outcome === undefined || outcome === "pending");
    });
    const page = open.slice(0, pageSize).map((userId): ClaimedUser => {
      const outcome = this.settledAtOnce[userId] ?? "pending";
      const attempts = this.outcomes.get(userId)?.attempts ?? 0;
      this.outcomes.set(userId, { outcome, attempts, error: null });
      this.#claimed.add(userId);
      return { userId, value: this.orgId, outcome, attempts };
    });
    if (page.length > 0) this.pages.push(page.length);
    return page;
  }

  async settle(_runId: string, results: SettledUser[]): Promise<Map<string, Outcome>> {
    const outcomes = new Map<string, Outcome>();
    for (const { userId, attempts, error, final } of results) {
      const before = this.outcomes.get(userId)?.attempts ?? 0;
      const outcome = this.written.get(userId) === this.orgId ? "updated" : error && final ? "failed" : "pending";
      this.outcomes.set(userId, { outcome, attempts: before + attempts, error });
      outcomes.set(userId, outcome);
    }
    return outcomes;
  }

  async write(runId: string, pageSize: number): Promise<WrittenUsers> {
    const page = await this.claim(runId, pageSize);
    const pending = page.filter(({ outcome }) => outcome === "pending");
    for (const { userId, value } of pending) this.written.set(userId, value as string);
    await this.settle(runId, pending.map(({ userId }) => ({ userId, attempts: 0, error: null, final: false })));
    return { claimed: page.length, settled: page.length, failed: 0 };
  }

  async endRound(): Promise<boolean> {
    this.finished = true;
    return true;
  }

  async count(): Promise<RunCounts> {
    const { remaining, updated, conflicts, unreachable, failed, deleted } = await this.summary("run");
    return { done: updated + conflicts + unreachable + failed + deleted, failed, remaining };
  }

  async summary(runId: string): Promise<RunSummary> {
    const count = (outcome: string) => [...this.outcomes.values()].filter((user) => user.outcome === outcome).length;
    return {
      run_id: runId,
      done: this.finished,
      remaining: this.ids.length - this.outcomes.size + count("pending"),
      updated: count("updated"),
      conflicts: count("conflict"),
      conflicts_with_default: 0,
      unreachable: count("unreachable"),
      failed: count("failed"),
      deleted: count("deleted"),
      users: this.ids.length,
      users_without_org: this.ids.length - this.written.size,
      users_in_no_org: 0,
      problems: [],
    };
  }

  async *problems(): AsyncIterable<UserProblem[]> {
    for (const [user_id, { outcome, error }] of this.outcomes) {
      if (outcome === "updated" || outcome === "pending") continue;
      yield [{ user_id, outcome: outcome as Outcome, reason: error ?? "" }];
    }
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** The Auth port that writes straight into the fake database, unless `behave` decides otherwise for a user. */
export function createFakeAuthAdmin(
  users: FakeUsers,
  behave: (userId: string, call: number) => Awaited<ReturnType<AuthAdmin["setOrganization"]>> | undefined = () =>
    undefined,
  timing: Pick<Timing, "now"> = createClock(),
): AuthAdmin & { calls: string[]; mostAtOnce: number } {
  const calls: string[] = [];
  let atOnce = 0;
  const admin = {
    calls,
    mostAtOnce: 0,
    pausedUntil: () => 0,
    setOrganization: async ({ userId, value }: UserToUpdate, { deadline, signal }: Stop) => {
      if (timing.now() >= deadline || signal.aborted) {
        return { attempts: 0, error: null, state: "unfinished" as const };
      }
      calls.push(userId);
      atOnce++;
      admin.mostAtOnce = Math.max(admin.mostAtOnce, atOnce);
      await new Promise((resolve) => setImmediate(resolve));
      atOnce--;
      const decided = behave(userId, calls.filter((id) => id === userId).length);
      if (decided) return decided;
      users.written.set(userId, value as string);
      return { attempts: 1, error: null, state: "answered" as const };
    },
  };
  return admin;
}

/** Someone who watches a run, and keeps what they are told. */
export function createObserver(): Observer & { started: Progress[]; problems: UserProblem[]; stop: AbortController } {
  const stop = new AbortController();
  const started: Progress[] = [];
  const problems: UserProblem[] = [];
  return {
    stop,
    started,
    problems,
    signal: stop.signal,
    onStart: (progress) => started.push(progress),
    onProblem: (problem) => problems.push(problem),
  };
}
