import { describe, expect, test } from "vitest";
import { type RunEnd, runUsers } from "../../cli/users-runner.ts";
import type { RequestBody } from "../../functions/update-user-org-metadata/protocol.ts";

const runId = "6f000000-0000-4000-8000-000000000001";
const key = "sb_secret_test";

const started = (done = 0, total = 12, failed = 0) => ({ event: "started", run_id: runId, done, total, failed });
const progress = (done: number, total = 12, failed = 0) => ({
  event: "progress",
  done,
  total,
  failed,
  users_per_second: 4,
  eta_seconds: (total - done) / 4,
});
const finished = (fields: Record<string, unknown> = {}) => ({
  event: "finished",
  run_id: runId,
  done: true,
  remaining: 0,
  updated: 12,
  conflicts: 0,
  conflicts_with_default: 0,
  unreachable: 0,
  failed: 0,
  deleted: 0,
  users: 12,
  users_without_org: 0,
  users_in_no_org: 0,
  problems: [],
  pages: 1,
  seconds: 3,
  retry_in_seconds: 0,
  ...fields,
});

type Answer = () => Response | Promise<Response>;
const stream = (...events: unknown[]): Answer => () =>
  new Response(events.map((event) => `${JSON.stringify(event)}\n`).join(""), {
    headers: { "content-type": "application/x-ndjson" },
  });
const json = (status: number, body: unknown): Answer => () => Response.json(body, { status });
const error = (status: number, code: string) => json(status, { error: { code, message: `The reason is ${code}` } });
const unreachable: Answer = () => Promise.reject(new TypeError("fetch failed", { cause: { code: "ECONNREFUSED" } }));
/** A stream that says this and then no more, until the request is closed. */
const hanging = (events: unknown[], onSilence: () => void) => (signal: AbortSignal) =>
  new Response(
    new ReadableStream({
      start: (controller) => {
        for (const event of events) controller.enqueue(new TextEncoder().encode(`${JSON.stringify(event)}\n`));
        signal.addEventListener("abort", () => controller.error(new Error("aborted")));
      },
      pull: () => onSilence(),
    }),
    { headers: { "content-type": "application/x-ndjson" } },
  );

/** Runs against these answers, the last one again and again; what was sent, slept and shown is recorded. */
async function run(
  answers: ((signal: AbortSignal) => Response | Promise<Response>)[],
  options: { fields?: RequestBody; stop?: AbortController; onSleep?: () => void } = {},
) {
  const { fields = {}, stop = new AbortController(), onSleep = () => {} } = options;
  const sent: { url: string; init: RequestInit }[] = [];
  const pauses: number[] = [];
  const shown: string[] = [];
  const limits = new Map<() => void, number>();
  const end = await runUsers(
    { url: "https://ref.supabase.co", key, fields, signal: stop.signal },
    {
      fetch: async (url, init) => {
        sent.push({ url, init });
        const answer = answers[Math.min(sent.length, answers.length) - 1];
        if (!answer) throw new Error("no answer");
        return await answer(init.signal as AbortSignal);
      },
      sleep: async (milliseconds) => {
        pauses.push(milliseconds);
        onSleep();
      },
      after: (milliseconds, action) => {
        limits.set(action, milliseconds);
        pending = () => [...limits.keys()].at(-1)?.();
        return () => limits.delete(action);
      },
      display: {
        started: (id, { done, total }) => shown.push(`started ${id} ${done}/${total}`),
        progress: ({ done, total }) => shown.push(`${done}/${total}`),
        pausing: (reason) => shown.push(reason),
      },
    },
  );
  return { end, sent, pauses, shown, limitsLeft: limits.size };
}
/** Lets the limit that runs now pass. */
let pending: () => void = () => {};

const message = (end: RunEnd) => end.kind === "refused" || end.kind === "gave_up" ? end.message : "";

describe("runUsers", () => {
  test("follows one call to its end and sends only what was given, the key as apikey alone", async () => {
    const fields: RequestBody = { concurrency: 3 };
    const { end, sent, pauses, shown, limitsLeft } = await run([stream(started(), progress(6), finished())], {
      fields,
    });
    expect(end).toMatchObject({ kind: "done", summary: { updated: 12 }, problems: [] });
    expect(sent.map(({ url }) => url)).toEqual(["https://ref.supabase.co/functions/v1/update-user-org-metadata"]);
    expect(sent[0]?.init).toMatchObject({ method: "POST", body: '{"concurrency":3}', redirect: "manual" });
    expect(sent[0]?.init.headers).toEqual({
      apikey: key,
      accept: "application/x-ndjson",
      "content-type": "application/json",
    });
    expect([pauses, limitsLeft]).toEqual([[], 0]);
    expect(shown).toEqual([`started ${runId} 0/12`, "6/12"]);
  });

  test("reads lines and letters that come in pieces", async () => {
    const text = [started(), { event: "problem", user_id: "a", outcome: "failed", reason: "grün" }, finished()]
      .map((event) => JSON.stringify(event)).join("\n");
    const bytes = new TextEncoder().encode(`${text}\n`);
    const inPieces: Answer = () =>
      new Response(
        new ReadableStream({
          start: (controller) => {
            for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
            controller.close();
          },
        }),
        { headers: { "content-type": "application/x-ndjson" } },
      );
    const { end } = await run([inPieces]);
    expect(end).toMatchObject({ kind: "done", problems: [{ user_id: "a", outcome: "failed", reason: "grün" }] });
  });

  test("calls again at once while calls come further, and as late as the function asks", async () => {
    const { end, sent, pauses } = await run([
      stream(started(), progress(4), finished({ done: false, remaining: 8 })),
      stream(started(4), finished({ done: false, remaining: 3, retry_in_seconds: 7 })),
      stream(started(9), finished()),
    ]);
    expect([end.kind, sent.length, pauses]).toEqual(["done", 3, [7000]]);
  });

  test("waits a second at least after a call that came no further, as long as it must", async () => {
    const vain = (retry_in_seconds: number) =>
      stream(started(4), finished({ done: false, remaining: 8, retry_in_seconds }));
    const { pauses } = await run([vain(0), vain(0), vain(60), stream(started(4), finished())]);
    expect(pauses).toEqual([1000, 2000, 60_000]);
  });

  test.each<[string, Answer]>([
    ["a network error", unreachable],
    ["409 run_in_progress", error(409, "run_in_progress")],
    ["500 with our error", error(500, "internal_error")],
    ["502 of the gateway", () => new Response("bad gateway", { status: 502 })],
    ["503", error(503, "database_unavailable")],
    ["504 of the gateway", () => new Response("", { status: 504 })],
    ["429", () => new Response("slow down", { status: 429 })],
    ["a stream that was cut off", stream(started(), progress(0))],
    [
      "a stream that was cut off in a line",
      () =>
        new Response(JSON.stringify(finished()).slice(0, -9), { headers: { "content-type": "application/x-ndjson" } }),
    ],
    ["an error in the stream", stream(started(), { event: "error", error: { code: "internal_error", message: "x" } })],
  ])("tries again after %s", async (_name, answer) => {
    const { end, pauses } = await run([answer, stream(started(), finished())]);
    expect([end.kind, pauses]).toEqual(["done", [1000]]);
  });

  test.each<[string, Answer, string]>([
    ["400", error(400, "invalid_field"), "The reason is invalid_field"],
    ["401", error(401, "unauthorized"), "The reason is unauthorized"],
    ["404 of the gateway", json(404, { message: "no such route" }), "no such route (is the function deployed?)"],
    ["405", error(405, "method_not_allowed"), "The reason is method_not_allowed"],
    ["409 of another kind", error(409, "not_revertible"), "The reason is not_revertible"],
    ["413", error(413, "body_too_large"), "The reason is body_too_large"],
    ["422", error(422, "unknown_organization"), "The reason is unknown_organization"],
    ["502 auth_server_refused", error(502, "auth_server_refused"), "The reason is auth_server_refused"],
    ["503 not_migrated", error(503, "not_migrated"), "The reason is not_migrated"],
    [
      "auth_server_refused in the stream",
      stream(started(), { event: "error", error: { code: "auth_server_refused", message: "No" } }),
      "No",
    ],
    ["a redirect", () => new Response("", { status: 308 }), "https://ref.supabase.co answered 308"],
    ["a function that does not stream", json(200, { run_id: runId, done: true }), "deploy the function again"],
    ["an end without its counts", stream(started(), finished({ users_without_org: null })), "Cannot read the answer"],
  ])("ends at once at %s, and says why", async (_name, answer, reason) => {
    const { end, sent } = await run([answer]);
    expect([end.kind, sent.length]).toEqual(["refused", 1]);
    expect(message(end)).toContain(reason);
  });

  test("gives up after ten calls in a row that came no further, with growing pauses and the last reason", async () => {
    const { end, sent, pauses } = await run([unreachable, unreachable, error(503, "database_unavailable")]);
    expect([end.kind, sent.length]).toEqual(["gave_up", 10]);
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    expect(message(end)).toBe(
      "Cannot go on: 10 calls in a row came no further: The reason is database_unavailable",
    );
  });

  test("gives up on a function that updates nobody, and on runs that begin anew each time", async () => {
    const vain = await run([stream(started(4), finished({ done: false, remaining: 8 }))]);
    expect([vain.end.kind, vain.sent.length]).toEqual(["gave_up", 10]);
    let run_id = 0;
    const anew = await run([() => stream({ ...started(4), run_id: `${run_id++}` })() as Response]);
    expect([anew.end.kind, anew.sent.length]).toEqual(["gave_up", 10]);
  });

  test("gives up where calls in a row only fail users, and not while one in between updates somebody", async () => {
    const calls = (updatedIn: (call: number) => number) => {
      let failed = 0;
      let updated = 0;
      return Array.from({ length: 30 }, (_, call) => {
        const began = started(failed + updated, 1000, failed);
        failed += 5;
        updated += updatedIn(call);
        const done = failed + updated;
        const ended = finished({ done: call === 29, remaining: 1000 - done, failed, updated });
        return stream(began, progress(done, 1000, failed), ended);
      });
    };
    const failing = await run(calls(() => 0));
    expect([failing.end.kind, failing.sent.length]).toEqual(["gave_up", 10]);
    const cutOff = await run(
      calls(() => 0).map((_, call) => stream(started(call, 12, call), progress(call + 1, 12, call + 1))),
    );
    expect([cutOff.end.kind, cutOff.sent.length]).toEqual(["gave_up", 10]);
    const mixed = await run(calls((call) => call % 9 === 8 ? 1 : 0));
    expect([mixed.end.kind, mixed.sent.length]).toEqual(["done", 30]);
  });

  test("does not give up while cut-off calls come further", async () => {
    const cuts = Array.from({ length: 12 }, (_, done) => stream(started(done), progress(done + 1)));
    const { end, sent, pauses } = await run([...cuts, stream(started(12), finished())]);
    expect([end.kind, sent.length]).toEqual(["done", 13]);
    expect(new Set(pauses)).toEqual(new Set([1000]));
  });

  test("keeps the problems of the last call alone", async () => {
    const problem = { event: "problem", user_id: "a", outcome: "conflict", reason: "has another" };
    const { end } = await run([stream(started(), problem), stream(started(), problem, finished())]);
    expect(end).toMatchObject({ kind: "done", problems: [{ user_id: "a" }] });
    expect((end as { problems: unknown[] }).problems).toHaveLength(1);
  });

  test("closes a call that has gone silent, and calls again", async () => {
    let silences = 0;
    const silent = hanging([started()], () => ++silences === 2 && pending());
    const { end, shown } = await run([silent, stream(started(), finished())]);
    expect(end.kind).toBe("done");
    expect(shown).toContain("no word from the function for 30 s");
  });

  test("closes the request when it is interrupted, while it reads and while it waits", async () => {
    const reading = new AbortController();
    let silences = 0;
    const whileReading = await run([hanging([started()], () => ++silences === 2 && reading.abort())], {
      stop: reading,
    });
    expect([whileReading.end.kind, whileReading.sent[0]?.init.signal?.aborted]).toEqual(["interrupted", true]);
    const waiting = new AbortController();
    const whileWaiting = await run([unreachable], { stop: waiting, onSleep: () => waiting.abort() });
    expect([whileWaiting.end.kind, whileWaiting.sent.length]).toEqual(["interrupted", 1]);
  });

  test("reads a dry run's counts", async () => {
    const counts = {
      dry_run: true,
      would_update: 3,
      conflicts: 1,
      conflicts_with_default: 0,
      unreachable: 0,
      users: 12,
      users_without_org: 4,
      users_in_no_org: 2,
    };
    const { end } = await run([unreachable, json(200, counts)], { fields: { dry_run: true } });
    expect(end).toEqual({
      kind: "preview",
      preview: counts,
    });
  });

  test("says neither the key nor control characters of what it was answered", async () => {
    const { end } = await run([
      json(400, { error: { code: "x", message: `no \x1b[2J${key}, eyJhbGciOi.eyJyb2xl.sig` } }),
    ]);
    expect(message(end)).toBe("no  [2J…, …");
  });
});
