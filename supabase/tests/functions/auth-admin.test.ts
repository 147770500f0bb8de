import { AuthApiError, AuthRetryableFetchError, AuthUnknownError } from "@supabase/supabase-js";
import { describe, expect, test } from "vitest";
import { createAuthAdmin, createAuthFetch, type Pause } from "../../functions/update-user-org-metadata/auth-admin.ts";
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
const never = Number.POSITIVE_INFINITY;
const user = { userId: "user", orgId: "org", attempts: 0 };

describe("setOrganization", () => {
  test("sends org_id and no other key", async () => {
    const admin = answering(null);
    const result = await createAuthAdmin(admin, { until: 0 }, createClock()).setOrganization(user, never);
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
    const result = await createAuthAdmin(answering(error, null), { until: 0 }, createClock()).setOrganization(
      user,
      never,
    );
    expect(result).toEqual({ attempts: 2, error: null, state: "answered" });
  });

  test("backs off exponentially with jitter, and gives up after five attempts with the last error", async () => {
    const clock = createClock(1);
    const result = await createAuthAdmin(answering(unavailable), { until: 0 }, clock).setOrganization(user, never);
    expect(result).toEqual({ attempts: 5, error: "503 unavailable", state: "answered" });
    expect(clock.slept).toEqual([500, 1000, 2000, 4000]);
  });

  test("counts the attempts of earlier calls", async () => {
    const admin = createAuthAdmin(answering(unavailable), { until: 0 }, createClock());
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
    const result = await createAuthAdmin(admin, { until: 0 }, createClock()).setOrganization(user, never);
    expect(result).toEqual({ attempts: 1, error: message, state });
  });

  test("makes every user wait when the Auth server says slow down", async () => {
    const clock = createClock();
    const pause: Pause = { until: 0 };
    const admin = createAuthAdmin(answering(tooMany, null), pause, clock);
    await admin.setOrganization(user, never);
    expect(pause.until).toBeGreaterThan(0);

    const later = createClock();
    await createAuthAdmin(answering(null), { until: 700 }, later).setOrganization(user, never);
    expect(later.slept).toEqual([700]);
  });

  test("does not begin an attempt that the deadline would cut off", async () => {
    const result = await createAuthAdmin(answering(unavailable), { until: 0 }, createClock(1)).setOrganization(
      user,
      900,
    );
    expect(result).toEqual({ attempts: 2, error: "503 unavailable", state: "unfinished" });
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
    await expect(createAuthFetch(hang, { until: 0 }, createClock(), 20)("http://auth")).rejects.toThrow("timeout");
  });
});
