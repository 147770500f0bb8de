/**
 * How one call works through the users of a run. Every user passes three stages, a page of users at a time:
 *
 *   claim    the database hands out the next users, in the order of their ids
 *   write    the Auth server is asked to write each user's organization, a few requests at a time
 *   settle   the database compares what it now holds with what was asked for, and records the outcome of each user
 *
 * The Auth server is the slowest of them, so it must never wait for the database. While one page is being written, the next
 * one is claimed and the previous one is settled:
 *
 *   claim    1   2   3   4
 *   write        1   2   3   4
 *   settle           1   2   3   4      time →
 *
 * A user whom the Auth server says it updated and who turns out unchanged is lost. Lost users join the page that is written
 * next, so those of page 1 are written again together with page 3. Whoever is lost three times has failed.
 *
 * An empty page means that everyone has been claimed. The pipeline then runs dry: it settles the last page, writes again whom
 * that one lost, and ends the round. The database starts another round, a few at most, if there are users whom the last one
 * has missed.
 *
 * The call ends when the database starts no other round, when it has claimed as many users as it may, when its time is up or
 * will be before the Auth server wants to be asked again, when nobody waits for its answer any more, or when the Auth server
 * refuses the key. Whoever was claimed and not settled stays pending, and the next call claims them again.
 */
import type { UpdateResult } from "./auth-admin.ts";
import { forEachConcurrently, handled } from "./concurrency.ts";
import type { JobPorts, JobRequest } from "./job.ts";
import { addDone, type Progress } from "./progress.ts";
import type { Stop } from "./timing.ts";
import type { ClaimedUser, Outcome } from "./users.ts";

/** A user with this many lost updates has failed. */
const maxLost = 3;

/** A user to be written. */
interface PendingUser extends ClaimedUser {
  /** Updates of this call that were lost. */
  lost: number;
}

/** What the Auth server said of the users of one page. */
interface WrittenPage {
  users: PendingUser[];
  /** By user id; whoever is not in here was not written. */
  results: Map<string, UpdateResult>;
  /** Why the Auth server refuses every request; null: it does not. */
  refusal: string | null;
}

export interface PipelineEnd {
  /** Pages that were claimed. */
  pages: number;
  /** Why the Auth server refuses every request; null: it does not. */
  refusal: string | null;
}

export class Pipeline {
  #pages = 0;
  /** How many users this call may still claim. */
  #room: number;

  constructor(
    private readonly request: Pick<JobRequest, "pageSize" | "concurrency" | "maxUsers">,
    private readonly ports: JobPorts,
    private readonly progress: Progress,
    private readonly stop: Stop,
  ) {
    this.#room = request.maxUsers;
  }

  async run(): Promise<PipelineEnd> {
    let claiming = this.#claim();
    let settling: Promise<PendingUser[]> = Promise.resolve([]);
    let lost: PendingUser[] = [];
    let refusal: string | null = null;
    while (!this.#mustStop()) {
      const page = await claiming;
      if (page.length > 0) {
        this.#pages++;
        this.#room -= page.length;
        claiming = this.#claim();
      } else {
        lost.push(...await settling);
        settling = Promise.resolve([]);
        if (lost.length === 0) {
          if (await this.#isLastRound()) break;
          claiming = this.#claim();
          continue;
        }
      }
      const pending = page.filter(({ outcome }) => outcome === "pending").map((user) => ({ ...user, lost: 0 }));
      addDone(this.progress, page.length - pending.length, 0);
      const written = await this.#write([...lost, ...pending]);
      lost = await settling;
      settling = handled(this.#settle(written));
      ({ refusal } = written);
      const unfinished = [...written.results.values()].some(({ state }) => state === "unfinished");
      if (refusal !== null || unfinished) break;
    }
    await Promise.all([settling, claiming]);
    return { pages: this.#pages, refusal };
  }

  #mustStop(): boolean {
    return this.ports.timing.now() >= this.stop.deadline || this.stop.signal.aborted;
  }

  #claim(): Promise<ClaimedUser[]> {
    if (this.#room <= 0) return Promise.resolve([]);
    return handled(this.ports.users.claim(this.progress.runId, Math.min(this.request.pageSize, this.#room)));
  }

  /** True if this call has nobody left to claim. */
  async #isLastRound(): Promise<boolean> {
    return this.#room <= 0 || await this.ports.users.endRound(this.progress.runId);
  }

  async #write(users: PendingUser[]): Promise<WrittenPage> {
    const { authAdmin, log } = this.ports;
    const { runId } = this.progress;
    const results = new Map<string, UpdateResult>();
    let refusal: string | null = null;
    await forEachConcurrently(users, this.request.concurrency, async (user) => {
      if (refusal !== null) return;
      const result = await authAdmin.setOrganization(user, this.stop);
      results.set(user.userId, result);
      if (result.state === "refused") refusal = result.error;
      if (result.error) log("warn", "update_failed", { run_id: runId, user_id: user.userId, error: result.error });
      if (result.state === "answered") addDone(this.progress, 1, result.error === null ? 0 : 1);
    });
    return { users, results, refusal };
  }

  /** Settles a page by what the database holds. Returns the users to write again. */
  async #settle(page: WrittenPage): Promise<PendingUser[]> {
    const { users, log } = this.ports;
    const { runId } = this.progress;
    const outcomes = await users.settle(
      runId,
      [...page.results].map(([userId, { attempts, error, state }]) => ({
        userId,
        attempts,
        error,
        final: state === "answered",
      })),
    );
    const settled = [...outcomes.values()].filter((outcome) => outcome !== "pending");
    const answered = [...page.results.values()].filter(({ state }) => state === "answered");
    const failed = settled.filter((outcome) => outcome === "failed");
    const refused = answered.filter(({ error }) => error !== null);
    // #write has counted those who were answered, as failed with an error; it may have come after the write.
    addDone(this.progress, settled.length - answered.length, failed.length - refused.length);

    const lost = findLost(page, outcomes);
    if (lost.length > 0) log("warn", "updates_lost", { run_id: runId, users: lost.length });
    await this.#giveUp(lost.filter((user) => user.lost === maxLost));
    return lost.filter((user) => user.lost < maxLost);
  }

  async #giveUp(lost: PendingUser[]): Promise<void> {
    if (lost.length === 0) return;
    const error = `not written: ${maxLost} updates were answered with 200 and none is in the database`;
    await this.ports.users.settle(
      this.progress.runId,
      lost.map(({ userId }) => ({ userId, attempts: 0, error, final: true })),
    );
    addDone(this.progress, lost.length, lost.length);
  }
}

/** The users whom the Auth server says it updated and who are not, with this attempt counted. */
function findLost({ users, results }: WrittenPage, outcomes: Map<string, Outcome>): PendingUser[] {
  return users.flatMap((user) => {
    const result = results.get(user.userId);
    if (result?.state !== "answered" || outcomes.get(user.userId) !== "pending") return [];
    return [{ ...user, attempts: user.attempts + result.attempts, lost: user.lost + 1 }];
  });
}
