import { describe, expect, test, vi } from "vitest";
import { createHandler } from "../../functions/update-user-org-metadata/handler.ts";
import type { JobRequest, JobResult, Observer } from "../../functions/update-user-org-metadata/job.ts";
import type { Progress } from "../../functions/update-user-org-metadata/progress.ts";
import type { RunSummary } from "../../functions/update-user-org-metadata/users.ts";

const summary: RunSummary = {
  run_id: "r",
  done: true,
  remaining: 0,
  updated: 2,
  conflicts: 0,
  conflicts_with_default: 0,
  unreachable: 0,
  failed: 0,
  deleted: 0,
  users: 2,
  users_without_org: 0,
  users_in_no_org: 0,
  problems: [],
};
const defaults: JobRequest = {
  inSql: false,
  revertedRunId: null,
  orgId: null,
  onConflict: "keep",
  moveToDefault: false,
  anonymous: "include",
  pageSize: 500,
  concurrency: 5,
  maxSeconds: 60,
  maxUsers: 2000,
  dryRun: false,
  report: false,
};

interface Answer {
  status: number;
  body: Record<string, unknown>;
  headers: Headers;
  /** What reached the job; undefined: nothing did. */
  job: JobRequest | undefined;
  logged: string;
}

async function call(
  options: { method?: string; key?: string | null; headers?: Record<string, string>; body?: string },
  run: () => Promise<JobResult> = async () => ({ kind: "summary", summary, pages: 1, seconds: 0.5, retryInSeconds: 0 }),
): Promise<Answer> {
  let job: JobRequest | undefined;
  let logged = "";
  const handle = createHandler({
    config: {
      supabaseUrl: "http://127.0.0.1",
      acceptedKeys: { default: "sb_secret_right", service_role: "legacy.jwt" },
    },
    updateUsers: async (request) => {
      job = request;
      return await run();
    },
    now: () => 0,
    log: (...event) => (logged += JSON.stringify(event)),
  });
  const { method = "POST", key = "sb_secret_right", headers = {}, body } = options;
  const response = await handle(
    new Request("http://127.0.0.1/update-user-org-metadata", {
      method,
      headers: { ...(key === null ? {} : { apikey: key }), ...headers },
      ...(body === undefined ? {} : { body }),
    }),
  );
  const text = await response.text();
  return { status: response.status, body: text ? JSON.parse(text) : {}, headers: response.headers, job, logged };
}

describe("authorization", () => {
  test.each(["sb_secret_right", "legacy.jwt"])("the key %s in apikey opens the function", async (key) => {
    const { status, job } = await call({ key });
    expect(status).toBe(200);
    expect(job).toEqual(defaults);
  });

  test.each([
    ["no key", null, {}],
    ["an empty key", "", {}],
    ["a wrong key", "sb_secret_wrong", {}],
    ["a key that only begins right", "sb_secret_righ", {}],
    ["a publishable key", "sb_publishable_x", {}],
    ["the right key as a bearer token only", null, { authorization: "Bearer sb_secret_right" }],
    ["the legacy key as a bearer token only", null, { authorization: "Bearer legacy.jwt" }],
    ["a user's token", "sb_publishable_x", { authorization: "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x" }],
  ])("%s gets 401 and reaches nothing", async (_name, key, headers) => {
    const { status, body, job } = await call({ key, headers });
    expect(status).toBe(401);
    expect(body).toEqual({
      error: { code: "unauthorized", message: "Cannot run without a secret key of this project in the apikey header" },
    });
    expect(job).toBeUndefined();
  });
});

describe("the request", () => {
  test.each(["GET", "PUT", "DELETE", "OPTIONS"])("%s gets 405, and no CORS headers", async (method) => {
    const { status, body, headers } = await call({ method });
    expect(status).toBe(405);
    expect(body["error"]).toEqual({
      code: "method_not_allowed",
      message: `Cannot ${method}: the function takes POST`,
    });
    expect(headers.get("allow")).toBe("POST");
    expect([...headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
  });

  test.each([
    ["no body", undefined, defaults],
    ["an empty object", "{}", defaults],
    [
      "every field",
      '{"org_id": "A0000000-0000-0000-0000-000000000001", "on_conflict": "overwrite", "move_to_default": true, "anonymous": "only", "page_size": 1000, "concurrency": 1, "max_seconds": 130, "max_users": 7, "dry_run": true, "report": true, "mode": "update"}',
      {
        orgId: "A0000000-0000-0000-0000-000000000001",
        onConflict: "overwrite",
        moveToDefault: true,
        anonymous: "only",
        inSql: false,
        pageSize: 1000,
        concurrency: 1,
        revertedRunId: null,
        maxSeconds: 130,
        maxUsers: 7,
        dryRun: true,
        report: true,
      },
    ],
    ["org_id null, which is all", '{"org_id": null}', defaults],
    [
      "a run to revert",
      '{"mode": "revert", "run_id": "b0000000-0000-4000-8000-000000000001"}',
      { ...defaults, revertedRunId: "b0000000-0000-4000-8000-000000000001" },
    ],
    ["the mode sql, which the worker's CPU time does not limit", '{"mode": "sql"}', {
      ...defaults,
      inSql: true,
      maxUsers: 1_000_000,
    }],
    [
      "a run to revert in the mode sql",
      '{"mode": "sql", "run_id": "b0000000-0000-4000-8000-000000000001", "max_users": 5}',
      { ...defaults, inSql: true, revertedRunId: "b0000000-0000-4000-8000-000000000001", maxUsers: 5 },
    ],
  ])("%s is understood", async (_name, body, expected) => {
    const { status, job } = await call(body === undefined ? {} : { body });
    expect(status).toBe(200);
    expect(job).toEqual(expected);
  });

  test.each([
    ["{", "invalid_json", /^Cannot parse the body: /],
    ["[]", "invalid_body", "Cannot use the body []: not a JSON object"],
    ["null", "invalid_body", "Cannot use the body null: not a JSON object"],
    ['"x"', "invalid_body", 'Cannot use the body "x": not a JSON object'],
    [
      '{"pagesize": 10}',
      "unknown_field",
      'Cannot use the field "pagesize": the fields are mode, run_id, org_id, on_conflict, move_to_default, anonymous, page_size, concurrency, max_seconds, max_users, dry_run, report',
    ],
    ['{"page_size": "10"}', "invalid_field", 'Cannot parse page_size "10": not a whole number from 1 to 1000'],
    ['{"page_size": 0}', "invalid_field", "Cannot parse page_size 0: not a whole number from 1 to 1000"],
    ['{"page_size": 1001}', "invalid_field", "Cannot parse page_size 1001: not a whole number from 1 to 1000"],
    ['{"page_size": 1.5}', "invalid_field", "Cannot parse page_size 1.5: not a whole number from 1 to 1000"],
    ['{"concurrency": 21}', "invalid_field", "Cannot parse concurrency 21: not a whole number from 1 to 20"],
    ['{"max_seconds": -1}', "invalid_field", "Cannot parse max_seconds -1: not a whole number from 1 to 130"],
    ['{"max_users": 0}', "invalid_field", "Cannot parse max_users 0: not a whole number from 1 to 1000000"],
    ['{"dry_run": "yes"}', "invalid_field", 'Cannot parse dry_run "yes": neither true nor false'],
    ['{"on_conflict": "skip"}', "invalid_field", 'Cannot parse on_conflict "skip": neither "keep" nor "overwrite"'],
    [
      '{"move_to_default": true, "on_conflict": "keep"}',
      "invalid_field",
      'Cannot parse move_to_default true: only with the on_conflict "overwrite"',
    ],
    [
      '{"mode": "revert", "run_id": "b0000000-0000-4000-8000-000000000001", "move_to_default": false}',
      "invalid_field",
      "Cannot parse move_to_default false: not with a run to revert",
    ],
    ['{"anonymous": true}', "invalid_field", 'Cannot parse anonymous true: neither "include", "only" nor "exclude"'],
    ['{"org_id": "default"}', "invalid_field", 'Cannot parse org_id "default": not a UUID'],
    ['{"report": 1}', "invalid_field", "Cannot parse report 1: neither true nor false"],
    ['{"mode": "undo"}', "invalid_field", 'Cannot parse mode "undo": neither "update", "revert" nor "sql"'],
    [
      '{"mode": "sql", "run_id": "b0000000-0000-4000-8000-000000000001", "anonymous": "only"}',
      "invalid_field",
      'Cannot parse anonymous "only": not with a run to revert',
    ],
    ['{"mode": "sql", "run_id": null}', "invalid_field", "Cannot parse run_id null: not the UUID of the run to revert"],
    [
      '{"mode": "sql", "concurrency": 5}',
      "invalid_field",
      'Cannot parse concurrency 5: not with the mode "sql", which sends no requests',
    ],
    ['{"mode": "revert"}', "invalid_field", "Cannot parse run_id null: not the UUID of the run to revert"],
    ['{"run_id": "x"}', "invalid_field", 'Cannot parse run_id "x": only with the modes "revert" and "sql"'],
    [
      '{"mode": "revert", "run_id": "b0000000-0000-4000-8000-000000000001", "on_conflict": "overwrite"}',
      "invalid_field",
      'Cannot parse on_conflict "overwrite": not with a run to revert',
    ],
    [
      '{"mode": "revert", "run_id": "b0000000-0000-4000-8000-000000000001", "org_id": null}',
      "invalid_field",
      "Cannot parse org_id null: not with a run to revert",
    ],
    ['{"org_id": 7}', "invalid_field", "Cannot parse org_id 7: not a UUID"],
  ])("%s gets 400 with the value and the rule", async (body, code, message) => {
    const { status, body: answer, job } = await call({ body });
    expect(status).toBe(400);
    expect(answer["error"]).toMatchObject({ code });
    expect((answer["error"] as { message: string }).message).toMatch(message);
    expect(job).toBeUndefined();
  });

  test("a body over 16 kB gets 413, whatever its content-length says", async () => {
    const { status, body } = await call({ body: `{"org_id": "${"x".repeat(17_000)}"}` });
    expect(status).toBe(413);
    expect(body["error"]).toMatchObject({ code: "body_too_large" });
  });

  test.each([
    ["as the body", "[".repeat(8000) + "]".repeat(8000), "invalid_body"],
    ["in a field", `{"org_id": ${"[".repeat(8000)}${"]".repeat(8000)}}`, "invalid_field"],
    ["of objects, not closed", '{"a":'.repeat(3000), "invalid_json"],
  ])("JSON nested thousands deep %s gets 400", async (_where, body, code) => {
    const { status, body: answer } = await call({ body });
    expect(status).toBe(400);
    expect(answer["error"]).toMatchObject({ code });
  });

  test("a long value is cut in the message", async () => {
    const { body } = await call({ body: `{"org_id": "${"x".repeat(10_000)}"}` });
    expect((body["error"] as { message: string }).message.length).toBeLessThan(200);
  });
});

describe("the answer", () => {
  test("is the summary of the run", async () => {
    const { body } = await call({});
    expect(body).toEqual({ ...summary, pages: 1, seconds: 0.5, retry_in_seconds: 0 });
  });

  test("is the preview of a dry run", async () => {
    const preview = {
      would_update: 3,
      conflicts: 1,
      conflicts_with_default: 0,
      unreachable: 0,
      users: 9,
      users_without_org: 4,
      users_in_no_org: 2,
    };
    const { status, body } = await call({ body: '{"dry_run": true}' }, async () => ({ kind: "preview", preview }));
    expect(status).toBe(200);
    expect(body).toEqual({ dry_run: true, ...preview });
  });

  test.each<[JobResult, number, string, string]>([
    [{ kind: "busy" }, 409, "run_in_progress", "another run is in progress"],
    [
      { kind: "unknown_organization", orgId: "b0000000-0000-4000-8000-000000000001" },
      422,
      "unknown_organization",
      'Cannot use org_id "b0000000-0000-4000-8000-000000000001": there is no such organization',
    ],
    [
      { kind: "unknown_run", runId: "b0000000-0000-4000-8000-000000000001" },
      422,
      "unknown_run",
      'Cannot revert the run "b0000000-0000-4000-8000-000000000001": there is no such run',
    ],
    [{ kind: "refused", message: "401 invalid key" }, 502, "auth_server_refused", "401 invalid key"],
  ])("of %j is %i", async (result, status, code, message) => {
    const answer = await call({}, async () => result);
    expect(answer.status).toBe(status);
    expect(answer.body["error"]).toMatchObject({ code });
    expect((answer.body["error"] as { message: string }).message).toContain(message);
  });

  test.each([
    ["42P01", 503, "not_migrated"],
    ["3F000", 503, "not_migrated"],
    ["ECONNREFUSED", 503, "database_unavailable"],
    ["CONNECTION_CLOSED", 503, "database_unavailable"],
    ["EPIPE", 503, "database_unavailable"],
    ["ENOTFOUND", 503, "database_unavailable"],
    ["57P01", 503, "database_unavailable"],
    ["53300", 503, "database_unavailable"],
    ["53200", 500, "internal_error"],
    ["XX000", 500, "internal_error"],
    ["", 500, "internal_error"],
  ])("to an error with code %j is %i and says nothing of it but in the log", async (code, status, expected) => {
    const answer = await call({}, async () => {
      throw Object.assign(new Error("the details"), { code });
    });
    expect(answer.status).toBe(status);
    expect(answer.body["error"]).toMatchObject({ code: expected });
    expect(JSON.stringify(answer.body)).not.toContain("the details");
    expect(answer.logged).toContain("the details");
  });
});

describe("a stream", () => {
  const progress: Progress = { runId: "r", done: 1, total: 5, failed: 0, doneNow: 0, startedAt: 0 };
  const result: JobResult = { kind: "summary", summary, pages: 1, seconds: 4, retryInSeconds: 0 };

  async function open(
    run: (request: JobRequest, observer: Observer) => Promise<JobResult>,
    now = () => 0,
  ): Promise<Response> {
    const handle = createHandler({
      config: { supabaseUrl: "http://127.0.0.1", acceptedKeys: { default: "sb_secret_right" } },
      updateUsers: run,
      now,
      log: () => {},
    });
    const headers = { apikey: "sb_secret_right", accept: "application/x-ndjson" };
    return await handle(new Request("http://127.0.0.1/", { method: "POST", headers }));
  }
  const read = async (response: Response) =>
    (await response.text()).trim().split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);

  test("tells the start, the progress, each problem and the end, one JSON object per line", async () => {
    const response = await open(async (_request, observer) => {
      observer.onStart({ ...progress });
      observer.onProblem({ user_id: "u", outcome: "failed", reason: "500" });
      return result;
    });
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    expect(await read(response)).toEqual([
      { event: "started", run_id: "r", done: 1, total: 5, failed: 0 },
      { event: "problem", user_id: "u", outcome: "failed", reason: "500" },
      { event: "progress", done: 1, total: 5, failed: 0, users_per_second: 0, eta_seconds: null },
      { event: "finished", ...summary, pages: 1, seconds: 4, retry_in_seconds: 0 },
    ]);
  });

  test("tells the progress at least once a second, with the pace and the time left", async () => {
    vi.useFakeTimers();
    try {
      const response = await open(async (_request, observer) => {
        const live = { ...progress };
        observer.onStart(live);
        Object.assign(live, { done: 3, doneNow: 2, failed: 1 });
        await new Promise((resolve) => setTimeout(resolve, 10_000));
        return result;
      }, () => 4000);
      await vi.advanceTimersByTimeAsync(10_000);
      const events = await read(response);
      const told = events.filter(({ event }) => event === "progress");
      expect(events.map(({ event }) => event)).toEqual(["started", ...told.map(() => "progress"), "finished"]);
      expect(told.length).toBeGreaterThanOrEqual(10);
      for (const event of told) {
        expect(event).toEqual({
          event: "progress",
          done: 3,
          total: 5,
          failed: 1,
          users_per_second: 0.5,
          eta_seconds: 4,
        });
      }
    } finally {
      vi.useRealTimers();
    }
  });

  test("is none where the run does not begin", async () => {
    const response = await open(async () => ({ kind: "busy" }));
    expect([response.status, response.headers.get("content-type")]).toEqual([409, "application/json"]);
  });

  test("ends with the error where the run breaks off", async () => {
    const events = await read(
      await open(async (_request, observer) => {
        observer.onStart({ ...progress });
        await Promise.resolve();
        throw Object.assign(new Error("the details"), { code: "57P01" });
      }),
    );
    expect(events.at(-1)).toMatchObject({ event: "error", error: { code: "database_unavailable" } });
    expect(JSON.stringify(events)).not.toContain("the details");
  });

  test("that nobody reads any more ends the run", async () => {
    const stopped = new Promise<void>((resolve) =>
      open((_request, observer) => {
        observer.onStart({ ...progress });
        return new Promise((finish) =>
          observer.signal.addEventListener("abort", () => {
            resolve();
            finish(result);
          })
        );
      }).then(async (response) => await response.body?.cancel())
    );
    await stopped;
  });
});
