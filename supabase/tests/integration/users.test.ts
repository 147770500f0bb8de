import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from "vitest";
import { type Command, startCommand } from "../commands.ts";
import { withResolvers } from "../promises.ts";

const runId = "6f000000-0000-4000-8000-000000000001";
const key = "a-key-that-nobody-may-see";

/** Speaks the function's protocol; each test says what it answers. */
describe("npm run users", () => {
  let server: Server;
  let url: string;
  let folder: string;
  let answer: (body: Record<string, unknown>, response: ServerResponse, request: IncomingMessage) => void;
  const runs: Command[] = [];

  beforeAll(async () => {
    folder = join(inject("folder"), "users");
    mkdirSync(folder, { recursive: true });
    server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => body += chunk.toString());
      request.on("end", () => answer(JSON.parse(body) as Record<string, unknown>, response, request));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  afterEach(async () => {
    for (const run of runs.splice(0)) {
      run.signal("SIGKILL");
      await run.ended;
      expect(run.output()).not.toContain(key);
    }
  });

  const start = (parameters: string[], environment: Record<string, string> = {}, command?: string[]): Command => {
    const program = command ?? [process.execPath, "--import", "tsx", "supabase/cli/users.ts"];
    const run = startCommand([...program, ...parameters], {
      env: { PATH: process.env["PATH"], SUPABASE_URL: url, SUPABASE_SECRET_KEY: key, ...environment },
    });
    runs.push(run);
    return run;
  };
  const say = (response: ServerResponse, ...events: unknown[]) => {
    if (!response.headersSent) response.writeHead(200, { "content-type": "application/x-ndjson" });
    for (const event of events) response.write(`${JSON.stringify(event)}\n`);
    return response;
  };
  const started = { event: "started", run_id: runId, done: 0, total: 1200 };
  const progress = (done: number) => ({
    event: "progress",
    done,
    total: 1200,
    failed: 0,
    users_per_second: 100,
    eta_seconds: 12,
  });
  const finished = (fields: Record<string, unknown> = {}) => ({
    event: "finished",
    run_id: runId,
    done: true,
    remaining: 0,
    updated: 1200,
    conflicts: 0,
    conflicts_with_default: 0,
    unreachable: 0,
    failed: 0,
    deleted: 0,
    users: 1200,
    users_without_org: 0,
    users_in_no_org: 0,
    problems: [],
    pages: 12,
    seconds: 12,
    retry_in_seconds: 0,
    ...fields,
  });

  test("ends quietly when nobody reads its output any more, and closes the call", async () => {
    const { promise: closed, resolve: close } = withResolvers();
    answer = (_body, response) => {
      response.once("close", close);
      say(response, started);
      const steps = setInterval(() => say(response, { ...started, run_id: randomUUID() }), 50);
      response.once("close", () => clearInterval(steps));
    };
    const report = join(folder, "unread.csv");
    const pipe = '"$0" "$@" | head -n 2; echo "ended with ${PIPESTATUS[0]}"';
    const run = start(["--report", report], {}, [
      "bash",
      "-c",
      pipe,
      process.execPath,
      "--import",
      "tsx",
      "supabase/cli/users.ts",
    ]);
    expect(await run.ended, run.output()).toBe(0);
    await closed;
    expect(run.stderr()).toBe("");
    expect(run.stdout().trimEnd().split("\n")).toEqual([
      expect.stringMatching(/^Calling /),
      expect.stringMatching(/^Run /),
      "ended with 141",
    ]);
    expect(readdirSync(folder).filter((name) => name.startsWith("unread"))).toEqual([]);
  });

  test("goes on over calls that end early and are cut off, and ends with 0 when nothing is missing", async () => {
    const bodies: unknown[] = [];
    answer = (body, response, request) => {
      bodies.push(body);
      expect([request.method, request.url]).toEqual(["POST", "/functions/v1/update-user-org-metadata"]);
      expect(request.headers).toMatchObject({ apikey: key, accept: "application/x-ndjson" });
      say(response, { ...started, done: bodies.length * 300 });
      if (bodies.length === 1) say(response, progress(500), finished({ done: false, remaining: 700 })).end();
      else if (bodies.length === 2) say(response, progress(800)).destroy();
      else say(response, progress(1200), finished()).end();
    };
    const run = start(["--concurrency", "7"]);
    expect(await run.ended, run.output()).toBe(0);
    expect(bodies).toEqual([{ concurrency: 7 }, { concurrency: 7 }, { concurrency: 7 }]);
    expect(run.output()).toMatch(/updated +1,200\n/);
    expect(run.output()).toContain(`npm run users -- --revert ${runId}`);
  });

  test("writes plain lines where there is no terminal: the start, and not one for each event", async () => {
    answer = (_body, response) => {
      say(response, started, ...Array.from({ length: 50 }, (_, step) => progress(step * 24)), finished()).end();
    };
    const run = start([]);
    expect(await run.ended, run.output()).toBe(0);
    expect(run.output().split("\n").slice(0, 4)).toEqual([
      `Calling update-user-org-metadata of ${url} …`,
      `Run ${runId}`,
      "0 of 1,200 users  0 failed",
      "",
    ]);
    expect(run.output()).not.toMatch(/[^\P{Cc}\n]/u);
  });

  test("ends with 1 when a user is without organization, and says what to do", async () => {
    const problems = [{ user_id: "user1", outcome: "conflict", reason: `has ${key} already` }];
    answer = (_body, response) => {
      say(response, started, finished({ conflicts: 1, users_without_org: 1, problems })).end();
    };
    const run = start([]);
    expect(await run.ended).toBe(1);
    expect(run.output()).toMatch(/user1 +conflict +has … already/);
    expect(run.output()).toContain("--on-conflict overwrite");
  });

  test("takes a run back: 0 although nobody has an organization then, 1 with a conflict", async () => {
    let conflicts = 0;
    answer = (body, response) => {
      expect(body).toEqual({ mode: "revert", run_id: runId });
      say(response, started, finished({ conflicts, users_without_org: 1200 })).end();
    };
    const whole = start(["--revert", runId]);
    expect(await whole.ended, whole.output()).toBe(0);
    conflicts = 1;
    expect(await start(["--revert", runId]).ended).toBe(1);
  });

  test("a dry run ends with 0 when there is nothing to do, else with 1", async () => {
    let would_update = 0;
    answer = (body, response) => {
      expect(body).toEqual({ dry_run: true });
      response.setHeader("content-type", "application/json");
      const rest = {
        conflicts: 0,
        conflicts_with_default: 0,
        unreachable: 0,
        users: 1200,
        users_without_org: would_update,
        users_in_no_org: 0,
      };
      response.end(JSON.stringify({ dry_run: true, would_update, ...rest }));
    };
    expect(await start(["--dry-run"]).ended).toBe(0);
    would_update = 3;
    const run = start(["--dry-run"]);
    expect(await run.ended).toBe(1);
    expect(run.output()).toMatch(/would be updated +3\n/);
  });

  test("writes the report, with the header alone when there are no problems, and leaves no other file", async () => {
    const file = join(folder, "report.csv");
    writeFileSync(file, "an older one");
    answer = (body, response) => {
      expect(body).toEqual({ report: true });
      const problem = { event: "problem", user_id: "user1", outcome: "failed", reason: `=says "${key}"` };
      say(response, started, problem, finished({ failed: 1, users_without_org: 1 })).end();
    };
    const run = start(["--report", file]);
    expect(await run.ended, run.output()).toBe(1);
    expect(readFileSync(file, "utf8")).toBe(`user_id,outcome,reason\r\nuser1,failed,"'=says ""…"""\r\n`);
    expect(run.output()).toContain(`All problems (1) are in ${file}`);

    answer = (_body, response) => say(response, started, finished()).end();
    expect(await start(["--report", file]).ended).toBe(0);
    expect(readFileSync(file, "utf8")).toBe("user_id,outcome,reason\r\n");
    expect(readdirSync(folder)).toEqual(["report.csv"]);
  });

  test("ends at once with the function's message, and leaves an older report alone", async () => {
    const file = join(folder, "report.csv");
    writeFileSync(file, "an older one");
    let calls = 0;
    answer = (_body, response) => {
      calls++;
      response.writeHead(401, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { code: "unauthorized", message: `Cannot run with ${key}` } }));
    };
    const run = start(["--report", file]);
    expect(await run.ended).toBe(1);
    expect(run.output()).toContain("Cannot run with …");
    expect([calls, readFileSync(file, "utf8")]).toEqual([1, "an older one"]);
    expect(readdirSync(folder)).toEqual(["report.csv"]);
  });

  test.each<[string, NodeJS.Signals, string[] | undefined]>([
    ["Ctrl-C", "SIGINT", undefined],
    ["SIGTERM", "SIGTERM", undefined],
    ["Ctrl-C under npm", "SIGINT", ["npm", "run", "--silent", "users", "--"]],
  ])("%s closes the request, says how to go on, and ends with 130", async (_name, signal, command) => {
    let closed: () => void = () => {};
    const requestClosed = new Promise<void>((resolve) => closed = resolve);
    answer = (_body, response) => {
      response.once("close", closed);
      say(response, started, progress(100));
    };
    const run = start(["--report", join(folder, "stopped.csv")], {}, command);
    await run.untilPrinted("0 of 1,200 users");
    // Ctrl-C in a terminal reaches the whole group.
    run.signal(signal);
    await requestClosed;
    expect(await run.ended).toBe(130);
    expect(run.output()).toContain("Stopped. Nothing is lost: call again to go on.");
    expect(readdirSync(folder).filter((name) => name.startsWith("stopped"))).toEqual([]);
  });

  test.each<[string[], Record<string, string>, string]>([
    [["--concurrency", "none"], {}, 'Cannot parse --concurrency "none": not a whole number from 1 to 20'],
    [["--frob"], {}, "Unknown option '--frob'"],
    [["sb_secret_given_in_the_wrong_place"], {}, "Unexpected argument '…'"],
    [[key], {}, "Unexpected argument '…'"],
    [[], { SUPABASE_URL: "" }, "Cannot call the function: give --url, or set SUPABASE_URL"],
    [[], { SUPABASE_SECRET_KEY: "" }, "Cannot call the function without a secret key: set SUPABASE_SECRET_KEY"],
    [[], { SUPABASE_SECRET_KEY: "two words" }, "Cannot use the key of SUPABASE_SECRET_KEY: it has spaces"],
    [["--report", "/no/such/folder/report.csv"], {}, 'Cannot write --report "/no/such/folder/report.csv"'],
    [["--report", "supabase"], {}, 'Cannot write --report "supabase": not a file'],
  ])("called wrong, with %j and %j, it says the rule and ends with 2", async (parameters, environment, rule) => {
    answer = () => {
      throw new Error("the function was called");
    };
    const run = start(parameters, environment);
    expect(await run.ended).toBe(2);
    expect(run.output()).toContain(rule);
    expect(run.output().trimEnd().split("\n")).toHaveLength(1);
  });

  test("explains itself with --help, without address and key", async () => {
    const run = start(["--help"], { SUPABASE_URL: "", SUPABASE_SECRET_KEY: "" });
    expect(await run.ended).toBe(0);
    expect(run.output()).toContain("--revert <run_id>");
  });
});
