import { describe, expect, test } from "vitest";
import type { UserToUpdate } from "../../functions/update-user-org-metadata/auth-admin.ts";
import { type JobPorts, type JobRequest, updateUsers as run } from "../../functions/update-user-org-metadata/job.ts";
import type { Progress } from "../../functions/update-user-org-metadata/progress.ts";
import type { Stop } from "../../functions/update-user-org-metadata/timing.ts";
import { createClock, createFakeAuthAdmin, createObserver, FakeUsers, preview } from "./fakes.ts";

const request: JobRequest = {
  inSql: false,
  revertedRunId: null,
  orgId: null,
  onConflict: "keep",
  moveToDefault: false,
  anonymous: "include",
  pageSize: 4,
  concurrency: 2,
  maxSeconds: 60,
  maxUsers: 1000,
  dryRun: false,
  report: false,
};
const ids = (count: number) => Array.from({ length: count }, (_, index) => `user${index}`);
const silent = () => {};
const updateUsers = (asked: JobRequest, ports: JobPorts, observer = createObserver()) => run(asked, ports, observer);

describe("updateUsers", () => {
  test("updates every user once, page by page, and ends on an empty page", async () => {
    const users = new FakeUsers(ids(10));
    const authAdmin = createFakeAuthAdmin(users);
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(result).toMatchObject({ kind: "summary", pages: 3, summary: { done: true, updated: 10, remaining: 0 } });
    expect(users.pages).toEqual([4, 4, 2]);
    expect([...authAdmin.calls].sort()).toEqual(ids(10));
  });

  test("has no more requests under way than it was told", async () => {
    const users = new FakeUsers(ids(12));
    const authAdmin = createFakeAuthAdmin(users);
    await updateUsers({ ...request, pageSize: 12, concurrency: 3 }, {
      users,
      authAdmin,
      timing: createClock(),
      log: silent,
    });
    expect(authAdmin.mostAtOnce).toBe(3);
  });

  test("leaves conflicts and users out of reach alone", async () => {
    const users = new FakeUsers(ids(3), "org", { user0: "conflict", user1: "unreachable" });
    const authAdmin = createFakeAuthAdmin(users);
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(authAdmin.calls).toEqual(["user2"]);
    expect(result).toMatchObject({ summary: { done: true, updated: 1, conflicts: 1, unreachable: 1 } });
  });

  test("writes again what was answered with 200 and is not in the database", async () => {
    const users = new FakeUsers(ids(3));
    const authAdmin = createFakeAuthAdmin(
      users,
      (id, call) => id === "user1" && call === 1 ? { attempts: 1, error: null, state: "answered" } : undefined,
    );
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(result).toMatchObject({ summary: { updated: 3 } });
    expect(users.outcomes.get("user1")).toMatchObject({ outcome: "updated", attempts: 2 });
  });

  test("calls a user failed whose update is never there, and goes on", async () => {
    const users = new FakeUsers(ids(6));
    const authAdmin = createFakeAuthAdmin(
      users,
      (id) => id === "user1" ? { attempts: 1, error: null, state: "answered" } : undefined,
    );
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(result).toMatchObject({ summary: { done: true, updated: 5, failed: 1 } });
    expect(users.outcomes.get("user1")).toEqual({
      outcome: "failed",
      attempts: 3,
      error: "not written: 3 updates were answered with 200 and none is in the database",
    });
  });

  test("settles a failed request by what the database holds: an error after the write is no failure", async () => {
    const users = new FakeUsers(ids(2));
    const authAdmin = createFakeAuthAdmin(users, (id) => {
      if (id === "user0") users.written.set(id, "org");
      return { attempts: 5, error: "504", state: "answered" };
    });
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(result).toMatchObject({ summary: { updated: 1, failed: 1 } });
    expect(users.outcomes.get("user1")).toEqual({ outcome: "failed", attempts: 5, error: "504" });
  });

  test("takes no new user when the time is up, and leaves the rest pending for the next call", async () => {
    const users = new FakeUsers(ids(10));
    const timing = createClock();
    const authAdmin = createFakeAuthAdmin(users, undefined, timing);
    const slow = {
      ...authAdmin,
      setOrganization: async (user: UserToUpdate, stop: Stop) => {
        const result = await authAdmin.setOrganization(user, stop);
        await timing.sleep(1000);
        return result;
      },
    };
    const first = await updateUsers({ ...request, maxSeconds: 6, concurrency: 1 }, {
      users,
      authAdmin: slow,
      timing,
      log: silent,
    });
    expect(first).toMatchObject({ summary: { done: false, updated: 6, remaining: 4 } });
    const second = await updateUsers({ ...request, maxSeconds: 6, concurrency: 1 }, {
      users,
      authAdmin: slow,
      timing,
      log: silent,
    });
    expect(second).toMatchObject({ summary: { done: true, updated: 10, remaining: 0 } });
    expect([...authAdmin.calls].sort()).toEqual(ids(10));
  });

  test("stops at once when the Auth server refuses the key", async () => {
    const users = new FakeUsers(ids(100));
    const authAdmin = createFakeAuthAdmin(users, () => ({ attempts: 1, error: "401 invalid key", state: "refused" }));
    const result = await updateUsers({ ...request, pageSize: 100 }, {
      users,
      authAdmin,
      timing: createClock(),
      log: silent,
    });
    expect(result).toEqual({ kind: "refused", message: "401 invalid key" });
    expect(authAdmin.calls.length).toBeLessThanOrEqual(request.concurrency);
  });

  test("counts and writes nothing in a dry run", async () => {
    const users = new FakeUsers(ids(3), "org", { user0: "conflict" });
    const authAdmin = createFakeAuthAdmin(users);
    const result = await updateUsers({ ...request, dryRun: true }, {
      users,
      authAdmin,
      timing: createClock(),
      log: silent,
    });
    expect(result).toEqual({ kind: "preview", preview });
    expect(authAdmin.calls).toEqual([]);
    expect(users.outcomes.size).toBe(0);
  });

  test("starts nothing while another run is in progress", async () => {
    const users = new FakeUsers(ids(3));
    users.locked = true;
    const authAdmin = createFakeAuthAdmin(users);
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(result).toEqual({ kind: "busy" });
    expect(authAdmin.calls).toEqual([]);
  });

  test("knows an organization that does not exist from one that does", async () => {
    const users = new FakeUsers(ids(1));
    const ports = { users, authAdmin: createFakeAuthAdmin(users), timing: createClock(), log: silent };
    expect(await updateUsers({ ...request, orgId: "other" }, ports)).toEqual({
      kind: "unknown_organization",
      orgId: "other",
    });
    expect(await updateUsers({ ...request, orgId: "org" }, ports)).toMatchObject({ kind: "summary" });
  });

  test("logs ids and counts, and nothing else of a user", async () => {
    const users = new FakeUsers(ids(2));
    const events: unknown[] = [];
    const authAdmin = createFakeAuthAdmin(
      users,
      (id) => id === "user1" ? { attempts: 5, error: "500 unexpected_failure", state: "answered" } : undefined,
    );
    await updateUsers(request, { users, authAdmin, timing: createClock(), log: (...event) => events.push(event) });
    expect(events).toEqual([
      ["info", "run_started", { run_id: "run" }],
      ["warn", "update_failed", { run_id: "run", user_id: "user1", error: "500 unexpected_failure" }],
      [
        "info",
        "run_stopped",
        expect.objectContaining({ run_id: "run", done: true, updated: 1, failed: 1, pages: 1 }),
      ],
    ]);
  });

  test("never counts a failed user for one that was updated, not even until the page is settled", async () => {
    const users = new FakeUsers(ids(6));
    const observer = createObserver();
    let progress: Progress | undefined;
    const withoutFailed: number[] = [];
    const authAdmin = createFakeAuthAdmin(users, (id) => {
      withoutFailed.push((progress?.done ?? 0) - (progress?.failed ?? 0));
      return id === "user5" ? undefined : { attempts: 15, error: "429", state: "answered" };
    });
    const watch = { ...observer, onStart: (started: Progress) => (progress = started) };
    await updateUsers({ ...request, concurrency: 1 }, { users, authAdmin, timing: createClock(), log: silent }, watch);
    expect(withoutFailed).toEqual([0, 0, 0, 0, 0, 0]);
    expect(progress).toMatchObject({ done: 6, failed: 5 });
  });

  test("tells how far it is: who was dealt with before, what comes, and how many failed", async () => {
    const users = new FakeUsers(ids(6), "org", { user0: "unreachable", user1: "conflict" });
    users.outcomes.set("user5", { outcome: "updated", attempts: 1, error: null });
    users.written.set("user5", "org");
    const authAdmin = createFakeAuthAdmin(
      users,
      (id) => id === "user2" ? { attempts: 5, error: "500", state: "answered" } : undefined,
    );
    const observer = createObserver();
    const timing = createClock();
    const running = updateUsers(request, { users, authAdmin, timing, log: silent }, observer);
    while (observer.started.length === 0) await Promise.resolve();
    expect(observer.started).toEqual([{ runId: "run", done: 1, total: 6, failed: 0, doneNow: 0, startedAt: 0 }]);
    await running;
    expect(observer.started).toEqual([{ runId: "run", done: 6, total: 6, failed: 1, doneNow: 5, startedAt: 0 }]);
  });

  test("takes no more users than it was told, and leaves the rest for the next call", async () => {
    const users = new FakeUsers(ids(10));
    const ports = { users, authAdmin: createFakeAuthAdmin(users), timing: createClock(), log: silent };
    const first = await updateUsers({ ...request, maxUsers: 6 }, ports);
    expect(first).toMatchObject({ pages: 2, summary: { done: false, updated: 6, remaining: 4 } });
    expect(users.pages).toEqual([4, 2]);
    expect(await updateUsers({ ...request, maxUsers: 6 }, ports)).toMatchObject({
      summary: { done: true, updated: 10 },
    });
  });

  test("stops when nobody waits for the answer any more, and leaves the rest for the next call", async () => {
    const users = new FakeUsers(ids(10));
    const observer = createObserver();
    const authAdmin = createFakeAuthAdmin(users, (id) => {
      if (id === "user2") observer.stop.abort();
      return undefined;
    });
    const ports = { users, authAdmin, timing: createClock(), log: silent };
    const stopped = await updateUsers({ ...request, concurrency: 1 }, ports, observer);
    expect(stopped).toMatchObject({ summary: { done: false, updated: 3, remaining: 7 } });
    expect(await updateUsers(request, ports)).toMatchObject({ summary: { done: true, updated: 10 } });
  });

  test("stops, and says when to come back, when the Auth server wants a longer pause than there is time", async () => {
    const users = new FakeUsers(ids(3));
    const authAdmin = {
      pausedUntil: () => 90_500,
      setOrganization: async () => ({ attempts: 0, error: null, state: "unfinished" as const }),
    };
    const result = await updateUsers(request, { users, authAdmin, timing: createClock(), log: silent });
    expect(result).toMatchObject({ retryInSeconds: 91, summary: { done: false, remaining: 3, updated: 0 } });
  });

  test("tells every problem of a run that is done, when asked to", async () => {
    const users = new FakeUsers(ids(3), "org", { user0: "conflict" });
    const observer = createObserver();
    const ports = { users, authAdmin: createFakeAuthAdmin(users), timing: createClock(), log: silent };
    await updateUsers({ ...request, report: true }, ports, observer);
    expect(observer.problems).toEqual([{ user_id: "user0", outcome: "conflict", reason: "" }]);
    const unasked = createObserver();
    await updateUsers(request, ports, unasked);
    expect(unasked.problems).toEqual([]);
  });

  test("works in the mode sql page by page, without the Auth server, as far as it may and as long as it has time", async () => {
    const users = new FakeUsers(ids(10), "org", { user0: "conflict" });
    const authAdmin = createFakeAuthAdmin(users);
    const timing = createClock();
    const ports = { users, authAdmin, timing, log: silent };
    const inSql = { ...request, inSql: true };
    const observer = createObserver();
    expect(await updateUsers({ ...inSql, maxUsers: 5 }, ports, observer)).toMatchObject({
      pages: 2,
      retryInSeconds: 0,
      summary: { done: false, updated: 4, conflicts: 1, remaining: 5 },
    });
    expect(observer.started).toMatchObject([{ done: 5, total: 10, failed: 0, doneNow: 5 }]);
    const write = users.write.bind(users);
    users.write = async (...page) => {
      await timing.sleep(1000);
      return await write(...page);
    };
    expect(await updateUsers({ ...inSql, maxSeconds: 1 }, ports)).toMatchObject({
      pages: 1,
      summary: { remaining: 1 },
    });
    const gone = createObserver();
    gone.stop.abort();
    expect(await updateUsers(inSql, ports, gone)).toMatchObject({ pages: 0, summary: { done: false, remaining: 1 } });
    expect(await updateUsers(inSql, ports)).toMatchObject({ pages: 1, summary: { done: true, updated: 9 } });
    expect(users.pages).toEqual([4, 1, 4, 1]);
    expect(authAdmin.calls).toEqual([]);
  });

  test("knows a run that does not exist from one that does", async () => {
    const users = new FakeUsers(ids(1));
    const ports = { users, authAdmin: createFakeAuthAdmin(users), timing: createClock(), log: silent };
    expect(await updateUsers({ ...request, revertedRunId: "other" }, ports)).toEqual({
      kind: "unknown_run",
      runId: "other",
    });
    expect(await updateUsers({ ...request, revertedRunId: "run" }, ports)).toMatchObject({ kind: "summary" });
  });
});
