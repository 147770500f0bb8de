import { AuthApiError, AuthRetryableFetchError, AuthUnknownError } from "@supabase/supabase-js";
import { describe, expect, test } from "vitest";
import { createAuthAdmin } from "../../functions/update-user-org-metadata/auth-admin.ts";
import { createAuthFetch } from "../../functions/update-user-org-metadata/auth-fetch.ts";
import { createThrottle } from "../../functions/update-user-org-metadata/throttle.ts";
import type { Pause, Stop, Timing } from "../../functions/update-user-org-metadata/timing.ts";
import { createClock } from "./fakes.ts";

type Admin = Parameters<typeof createAuthAdmin>[0];

/** An admin client that answers each call with the next of these; null is success. */
function answering(...answers: (Error | null)[]): Admin & { bodies: unknown[] } {
  const bodies: unknown[] = [];
  const admin = {
    bodies,
    updateUserById: async (id: string, attributes: unknown) => {
      bodies.push([id, attributes]);
      const error = answers[Math.min(bodies.length, answers.length) - 1] ?? null;
      if (error && !("__isAuthError" in error)) throw error;
      return { data: { user: null }, error };
    },
  };
  return admin as unknown as Admin & { bodies: unknown[] };
}

const unavailable = new AuthRetryableFetchError("unavailable", 503);
const tooMany = new AuthApiError("slow down", 429, "over_request_rate_limit");
const waiting = new AbortController().signal;
const never: Stop = { deadline: Number.POSITIVE_INFINITY, signal: waiting };
const user = { userId: "user", value: "org", attempts: 0 };
const authAdmin = (admin: Admin, clock: Timing = createClock(), pause: Pause = { until: 0 }) =>
  createAuthAdmin(admin, createThrottle(5), pause, clock);

describe("setOrganization", () => {
  test("sends org_id and no other key", async () => {
    const admin = answering(null);
    const result = await authAdmin(admin).setOrganization(user, never);
    expect(admin.bodies).toEqual([["user", { app_metadata: { org_id: "org" } }]]);
    expect(result).toEqual({ attempts: 1, error: null, state: "answered" });
  });

  test.each([
    ["503", unavailable],
    ["no answer", new AuthRetryableFetchError("fetch failed", 0)],
    ["an error without status", new AuthUnknownError("?", new Error())],
    ["an unreadable body", new SyntaxError("Unexpected token <")],
    ["429", tooMany],
  ])("tries again after %s", async (_name, error) => {
    const result = await authAdmin(answering(error, null)).setOrganization(
      user,
      never,
    );
    expect(result).toEqual({ attempts: 2, error: null, state: "answered" });
  });

  test("backs off exponentially with jitter, and gives up after five attempts with the last error", async () => {
    const clock = createClock(1);
    const result = await authAdmin(answering(unavailable), clock).setOrganization(user, never);
    expect(result).toEqual({ attempts: 5, error: "503 unavailable", state: "answered" });
    expect(clock.slept).toEqual([500, 1000, 2000, 4000]);
  });

  test("counts the attempts of earlier calls", async () => {
    const admin = authAdmin(answering(unavailable));
    const result = await admin.setOrganization({ ...user, attempts: 3 }, never);
    expect(result).toEqual({ attempts: 2, error: "503 unavailable", state: "answered" });
  });

  test.each([
    ["404", new AuthApiError("User not found", 404, "user_not_found"), "answered", "404 user_not_found User not found"],
    ["400", new AuthApiError("bad", 400, "bad_json"), "answered", "400 bad_json bad"],
    ["401", new AuthApiError("no", 401, "no_authorization"), "refused", "401 no_authorization no"],
    ["403", new AuthApiError("no", 403, "not_admin"), "refused", "403 not_admin no"],
  ])("does not try again after %s", async (_name, error, state, message) => {
    const admin = answering(error, null);
    const result = await authAdmin(admin).setOrganization(user, never);
    expect(result).toEqual({ attempts: 1, error: message, state });
  });

  test("makes every user wait when the Auth server says slow down", async () => {
    const clock = createClock();
    const pause: Pause = { until: 0 };
    const admin = authAdmin(answering(tooMany, null), clock, pause);
    await admin.setOrganization(user, never);
    expect(pause.until).toBeGreaterThan(0);

    const later = createClock();
    await authAdmin(answering(null), later, { until: 700 }).setOrganization(user, never);
    expect(later.slept).toEqual([700]);
  });

  test("does not begin an attempt that the deadline would cut off", async () => {
    const result = await authAdmin(answering(unavailable), createClock(1)).setOrganization(user, {
      deadline: 900,
      signal: waiting,
    });
    expect(result).toEqual({ attempts: 2, error: "503 unavailable", state: "unfinished" });
  });

  test("sends nothing while the pause lasts longer than there is time, or when nobody waits any more", async () => {
    const admin = answering(null);
    const clock = createClock();
    const unfinished = { attempts: 0, error: null, state: "unfinished" };
    const paused = authAdmin(admin, clock, { until: 61_000 });
    expect(await paused.setOrganization(user, { deadline: 60_000, signal: waiting })).toEqual(unfinished);
    expect(await authAdmin(admin).setOrganization(user, { ...never, signal: AbortSignal.abort() })).toEqual(unfinished);
    expect([admin.bodies, clock.slept]).toEqual([[], []]);
    expect(await paused.setOrganization(user, { deadline: 62_000, signal: waiting })).toMatchObject({ attempts: 1 });
    expect(clock.slept).toEqual([61_000]);
  });

  test("makes everyone wait, longer and longer, while the server is away, so that an outage costs nobody's attempts", async () => {
    const clock = createClock(0);
    const down = authAdmin(answering(unavailable), clock);
    const attempts: number[] = [];
    for (let number = 1; number <= 6; number++) {
      attempts.push((await down.setOrganization({ ...user, attempts: 4 }, never)).attempts);
    }
    expect(attempts, "fifteen in all, where five are the rule").toEqual([1, 1, 1, 1, 1, 11]);
    expect(clock.slept).toEqual([250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);

    const well = authAdmin(answering(unavailable, unavailable, null), createClock(), { until: 0 });
    const result = await well.setOrganization(user, never);
    expect(result).toEqual({ attempts: 3, error: null, state: "answered" });
  });

  test("does not take one user's 500 for an outage", async () => {
    const pause: Pause = { until: 0 };
    const broken = authAdmin(answering(new AuthRetryableFetchError("Error updating user", 500)), createClock(), pause);
    for (let user = 0; user < 4; user++) {
      await broken.setOrganization({ userId: `${user}`, value: "org", attempts: 0 }, never);
    }
    expect(pause.until).toBe(0);
  });

  test("says no address of a connection that failed", async () => {
    const failed = new AuthRetryableFetchError("error sending request from 127.0.0.1:33070 for http://kong:8000/x", 0);
    const result = await authAdmin(answering(failed)).setOrganization({ ...user, attempts: 4 }, never);
    expect(result).toEqual({ attempts: 1, error: "no connection", state: "answered" });
    const slow = new AuthRetryableFetchError("no answer in 10000 ms", 0);
    const other = await authAdmin(answering(slow)).setOrganization({ ...user, attempts: 4 }, never);
    expect(other.error).toBe("no answer in 10000 ms");
  });

  test("takes the key away with null", async () => {
    const admin = answering(null);
    await authAdmin(admin).setOrganization({ ...user, value: null }, never);
    expect(admin.bodies).toEqual([["user", { app_metadata: { org_id: null } }]]);
  });
});

describe("createAuthFetch", () => {
  const reply = (status: number, body: string, headers: Record<string, string> = {}): typeof fetch => async () =>
    new Response(body, { status, headers });

  test("passes a good answer on as it is", async () => {
    const response = await createAuthFetch(reply(200, "{}"), { until: 0 }, createClock())("http://auth");
    expect([response.status, await response.text()]).toEqual([200, "{}"]);
  });

  test("keeps a JSON error and replaces a page of HTML", async () => {
    const json = await createAuthFetch(reply(429, '{"code": "slow"}'), { until: 0 }, createClock())("http://auth");
    expect(await json.json()).toEqual({ code: "slow" });
    const html = await createAuthFetch(reply(429, "<html>"), { until: 0 }, createClock())("http://auth");
    expect([html.status, await html.json()]).toEqual([429, { message: "HTTP 429" }]);
  });

  test.each([
    ["2", 2000],
    ["Thu, 01 Jan 1970 00:00:03 GMT", 3000],
    ["100000", 300_000],
    ["soon", 0],
    ["-5", 0],
  ])("Retry-After: %s pauses all requests for %i ms", async (header, expected) => {
    const pause: Pause = { until: 0 };
    await createAuthFetch(reply(429, "", { "retry-after": header }), pause, createClock())("http://auth");
    expect(pause.until).toBe(expected);
  });

  test("ends a request that takes too long", async () => {
    const hang: typeof fetch = (_input, init) =>
      new Promise((_resolve, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
    await expect(createAuthFetch(hang, { until: 0 }, createClock(), 20)("http://auth")).rejects.toThrow(
      "no answer in 20 ms",
    );
  });

  test("refuses an answer that does not end", async () => {
    const endless: typeof fetch = async () =>
      new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) }));
    await expect(createAuthFetch(endless, { until: 0 }, createClock())("http://auth")).rejects.toThrow(
      "an answer of more than 1048576 bytes",
    );
  });
});
