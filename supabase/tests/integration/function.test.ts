import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { SignJWT } from "jose";
import type { Fault } from "../../local/auth-server.ts";
import { demoPassword } from "../../local/application.ts";
import type { FunctionServer } from "../../local/function-server.ts";
import type { Services } from "../../local/stack.ts";
import { cloneDatabase } from "../databases.ts";
import { startTestServices } from "../services.ts";

const functionName = "update-user-org-metadata";
const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
const otherOrgId = "b0000000-0000-4000-8000-000000000001";

type Reply = Record<string, unknown> & { error?: { code: string; message: string } };

describe("update-user-org-metadata over HTTP", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let served: FunctionServer;
  let choose: (request: { method: string; path: string }) => Fault | undefined;
  /** How long the Auth server takes to write. */
  let writeMs = 0;
  const requests: string[] = [];

  const call = async (body: unknown = {}, headers: Record<string, string> = { apikey: services.keys.secretKey }) => {
    const response = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers,
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    return { status: response.status, reply: (await response.json()) as Reply };
  };
  const idOf = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
  const addUsers = async (count: number) => {
    await database.sql`
      insert into auth.users (
        instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
        email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
      )
      select
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', format('user%s@example.com', n),
        extensions.crypt(${demoPassword}, extensions.gen_salt('bf', 4)), now(), '', '', '', '',
        '{"provider": "email", "providers": ["email"], "plan": {"name": "pro"}}', '{}', now(), now()
      from generate_series(1, ${count}::integer) as n
    `;
  };
  const outcomes = async () =>
    Object.fromEntries(
      (await database
        .sql`select right(user_id::text, 2)::integer as user, outcome from tenancy.user_metadata_audit order by 1`)
        .map((row) => [row["user"], row["outcome"]]),
    );
  const withoutOrg = async () => {
    const [row] = await database.sql`select count(*)::integer as count from tenancy.users_without_org`;
    return row?.["count"];
  };

  const forgeToken = async (role: string, secret: string) =>
    await new SignJWT({ role }).setProtectedHeader({ alg: "HS256" }).setExpirationTime("1h").sign(
      new TextEncoder().encode(secret),
    );
  const userToken = async () => {
    const response = await fetch(`${services.api.url}/auth/v1/token?grant_type=password`, {
      method: "POST",
      headers: { apikey: services.keys.publishableKey },
      body: JSON.stringify({ email: "user1@example.com", password: demoPassword }),
    });
    return ((await response.json()) as { access_token: string }).access_token;
  };

  beforeAll(async () => {
    database = await cloneDatabase("function_http", "migrated");
    services = await startTestServices(database.name, {
      faults: {
        choose: (request) => {
          requests.push(`${request.method} ${request.path}`);
          return choose(request);
        },
        beforeWrite: async () => await new Promise((resolve) => setTimeout(resolve, writeMs)),
      },
    });
    served = await services.serve(functionName);
  });

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  beforeEach(async () => {
    choose = () => undefined;
    writeMs = 0;
    requests.length = 0;
    await database.sql`delete from tenancy.user_metadata_audit`;
    await database.sql`delete from tenancy.user_metadata_runs`;
    await database.sql`delete from tenancy.user_orgs`;
    await database.sql`delete from auth.users`;
  });

  test("opens for the secret key and the legacy service_role key, and for nothing else", async () => {
    const { keys } = services;
    await addUsers(1);
    for (
      const headers of [
        {},
        { apikey: "sb_secret_wrong" },
        { apikey: keys.publishableKey },
        { apikey: keys.anonKey },
        { authorization: `Bearer ${keys.secretKey}` },
        { authorization: `Bearer ${keys.serviceRoleKey}` },
        { apikey: await forgeToken("service_role", "not the project's secret") },
        { apikey: `${keys.serviceRoleKey.split(".").slice(0, 2).join(".")}.` },
        { apikey: await userToken() },
        { apikey: keys.publishableKey, authorization: `Bearer ${await userToken()}` },
      ]
    ) {
      const { status, reply } = await call({}, headers as Record<string, string>);
      expect([status, reply.error?.code], JSON.stringify(Object.keys(headers))).toEqual([401, "unauthorized"]);
    }
    expect(requests.filter((request) => request.startsWith("PUT"))).toEqual([]);
    expect(await withoutOrg()).toBe(1);
    expect((await call({ dry_run: true }, { apikey: keys.serviceRoleKey })).status).toBe(200);
    expect((await call({}, { apikey: keys.secretKey })).status).toBe(200);
    expect(await withoutOrg()).toBe(0);
  });

  test("answers bad requests with the value and the rule", async () => {
    const get = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      headers: { apikey: services.keys.secretKey },
    });
    expect([get.status, get.headers.get("allow")]).toEqual([405, "POST"]);
    expect(await call("{not json")).toMatchObject({ status: 400, reply: { error: { code: "invalid_json" } } });
    expect(await call({ page_size: 0 })).toMatchObject({
      status: 400,
      reply: {
        error: { code: "invalid_field", message: "Cannot parse page_size 0: not a whole number from 1 to 1000" },
      },
    });
    expect(await call({ orgid: defaultOrgId })).toMatchObject({
      status: 400,
      reply: { error: { code: "unknown_field" } },
    });
    expect(await call({ org_id: otherOrgId })).toMatchObject({
      status: 422,
      reply: {
        error: {
          code: "unknown_organization",
          message: `Cannot use org_id "${otherOrgId}": there is no such organization`,
        },
      },
    });
    expect(await call({ org_id: defaultOrgId })).toMatchObject({ status: 200 });
  });

  test("says in a dry run what it would do, and does none of it", async () => {
    await addUsers(5);
    await database.sql`
      update auth.users set raw_app_meta_data = jsonb_build_object('org_id', ${otherOrgId}::text) where id = ${idOf(2)}
    `;
    await database.sql`update auth.users set instance_id = null where id = ${idOf(3)}`;
    expect(await call({ dry_run: true })).toEqual({
      status: 200,
      reply: { dry_run: true, would_update: 3, conflicts: 1, unreachable: 1, users: 5, users_without_org: 5 },
    });
    expect(requests).toEqual([]);
    expect(await outcomes()).toEqual({});
  });

  test("names conflicts and users out of reach, leaves them alone, and sends one request for each other user", async () => {
    await addUsers(6);
    await database.sql`
      update auth.users set raw_app_meta_data = jsonb_build_object('org_id', ${otherOrgId}::text) where id = ${idOf(2)}
    `;
    await database.sql`update auth.users set recovery_token = null where id = ${idOf(3)}`;
    const { reply } = await call({ page_size: 2 });
    expect(reply).toMatchObject({
      done: true,
      updated: 4,
      conflicts: 1,
      unreachable: 1,
      users_without_org: 2,
      problems: [
        { user_id: idOf(2), outcome: "conflict", reason: `has organization ${otherOrgId} already` },
        {
          user_id: idOf(3),
          outcome: "unreachable",
          reason: "recovery_token NULL: the Auth server cannot read the user",
        },
      ],
    });
    expect(requests.sort()).toEqual([1, 4, 5, 6].map((number) => `PUT /admin/users/${idOf(number)}`));
    const [conflict] = await database.sql`select raw_app_meta_data ->> 'org_id' as org_id from auth.users where id = ${
      idOf(2)
    }`;
    expect(conflict).toEqual({ org_id: otherOrgId });
  });

  test("overwrites another organization when told to, and keeps it on record", async () => {
    await addUsers(1);
    await database.sql`
      update auth.users set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', ${otherOrgId}::text)
    `;
    expect((await call({ on_conflict: "overwrite" })).reply).toMatchObject({ updated: 1, conflicts: 0 });
    const [user] = await database.sql`select raw_app_meta_data from auth.users`;
    expect(user?.["raw_app_meta_data"]).toEqual({
      provider: "email",
      providers: ["email"],
      plan: { name: "pro" },
      org_id: defaultOrgId,
    });
    const [audit] = await database.sql`select previous_value from tenancy.user_metadata_audit`;
    expect(audit).toEqual({ previous_value: otherOrgId });
  });

  test("gives each user the organization of the mapping, or only the users of one organization", async () => {
    await addUsers(4);
    await database
      .sql`insert into public.organizations (id, name) values (${otherOrgId}, 'other') on conflict do nothing`;
    await database
      .sql`insert into tenancy.user_orgs (user_id, org_id) select id, ${otherOrgId} from auth.users where right(id::text, 1) > '2'`;
    expect((await call({ org_id: otherOrgId })).reply).toMatchObject({ done: true, updated: 2, users_without_org: 2 });
    expect((await call({})).reply).toMatchObject({ done: true, updated: 2, users_without_org: 0 });
    const users = await database.sql`select raw_app_meta_data ->> 'org_id' as org_id from auth.users order by id`;
    expect(users.map((row) => row["org_id"])).toEqual([defaultOrgId, defaultOrgId, otherOrgId, otherOrgId]);
  });

  test("tries again after 429, 5xx, a dropped connection and a lost write, and ends right", async () => {
    await addUsers(5);
    const faults = new Map<string, Fault>([
      [idOf(1), { status: 429, headers: { "retry-after": "1" }, body: "<html>slow down</html>" }],
      [idOf(2), { status: 503, body: '{"message": "unavailable"}' }],
      [idOf(3), { drop: true }],
      [idOf(4), { skipWrite: true }],
      [idOf(5), { status: 504, afterWrite: true, body: "" }],
    ]);
    choose = ({ path }) => {
      const id = path.split("/").pop() ?? "";
      const fault = faults.get(id);
      faults.delete(id);
      return fault;
    };
    const { reply } = await call();
    expect(reply).toMatchObject({ done: true, updated: 5, failed: 0, users_without_org: 0 });
    expect(Number(reply["seconds"])).toBeGreaterThanOrEqual(1);
    const attempts = await database.sql`select attempts from tenancy.user_metadata_audit order by user_id`;
    for (const { attempts: count } of attempts as unknown as { attempts: number }[]) {
      expect(count).toBeGreaterThanOrEqual(2);
    }
  });

  test("calls a user failed whom the Auth server never updates, with its last words, and goes on", async () => {
    await addUsers(3);
    choose = ({ path }) =>
      path.endsWith(idOf(2))
        ? { status: 500, body: '{"code": "unexpected_failure", "message": "Error updating user"}' }
        : undefined;
    const { reply } = await call();
    expect(reply).toMatchObject({
      done: true,
      updated: 2,
      failed: 1,
      users_without_org: 1,
      problems: [{ user_id: idOf(2), outcome: "failed", reason: "500 Error updating user" }],
    });
    expect(requests.filter((request) => request.endsWith(idOf(2))).length).toBe(5);
  });

  test("stops in time, says so, and goes on with the same run when it is called again", async () => {
    await addUsers(30);
    choose = ({ path }) =>
      path.endsWith(idOf(30)) ? { status: 503, headers: { "retry-after": "1" }, body: "{}" } : undefined;
    const replies: Reply[] = [];
    for (let calls = 0; calls < 10; calls++) {
      const { reply } = await call({ max_seconds: 1, page_size: 10, concurrency: 1 });
      replies.push(reply);
      if (reply["done"]) break;
    }
    expect(replies.length).toBeGreaterThan(1);
    expect(replies[0]).toMatchObject({ done: false, remaining: 1, updated: 29 });
    expect(replies.at(-1)).toMatchObject({ done: true, remaining: 0, updated: 29, failed: 1 });
    expect(new Set(replies.map((reply) => reply["run_id"])).size).toBe(1);
    expect(requests.filter((request) => request.endsWith(idOf(30))).length).toBe(5);
  });

  test("refuses a second run while one is in progress", async () => {
    await addUsers(2);
    let arrived: () => void = () => {};
    const waiting = new Promise<void>((resolve) => (arrived = resolve));
    choose = () => {
      arrived();
      return undefined;
    };
    writeMs = 1000;
    const first = call({ concurrency: 1 });
    await waiting;
    expect(await call()).toMatchObject({ status: 409, reply: { error: { code: "run_in_progress" } } });
    expect((await call({ dry_run: true })).status).toBe(200);
    writeMs = 0;
    expect((await first).reply).toMatchObject({ done: true, updated: 2 });
    expect((await call()).status).toBe(200);
  });

  test("stops at once when the Auth server asks for a longer pause than there is time, and says when to come back", async () => {
    await addUsers(3);
    choose = () => ({ status: 429, headers: { "retry-after": "30" }, body: "<html>" });
    const { reply } = await call({ max_seconds: 20, concurrency: 1 });
    expect(reply).toMatchObject({ done: false, remaining: 3 });
    expect(Number(reply["retry_in_seconds"])).toBeGreaterThan(25);
    expect(Number(reply["seconds"])).toBeLessThan(10);
    expect(requests.length).toBe(1);
    choose = () => undefined;
    expect((await call()).reply).toMatchObject({ done: true, updated: 3, retry_in_seconds: 0 });
  });

  test("counts a user who is deleted under its hands, and fails nobody", async () => {
    await addUsers(2);
    choose = ({ path }) => {
      if (path.endsWith(idOf(1))) void database.sql`delete from auth.users where id = ${idOf(1)}`.execute();
      return undefined;
    };
    const { reply } = await call({ concurrency: 1 });
    expect(reply).toMatchObject({ done: true, failed: 0, users_without_org: 0 });
    expect(Number(reply["updated"]) + Number(reply["deleted"])).toBe(2);
  });

  const stream = async (body: unknown, signal?: AbortSignal) =>
    await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers: { apikey: services.keys.secretKey, accept: "application/x-ndjson" },
      body: JSON.stringify(body),
      ...(signal ? { signal } : {}),
    });

  test("streams how far it is, at least once a second, and each problem when asked to", async () => {
    await addUsers(40);
    await database
      .sql`update auth.users set raw_app_meta_data = jsonb_build_object('org_id', ${otherOrgId}::text) where id = ${
      idOf(1)
    }`;
    writeMs = 100;
    const response = await stream({ concurrency: 2, page_size: 10, report: true });
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    const events: { at: number; event: Record<string, unknown> }[] = [];
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      for (const line of decoder.decode(chunk).trim().split("\n")) {
        events.push({ at: Date.now(), event: JSON.parse(line) });
      }
    }
    expect(events.map(({ event }) => event["event"]).filter((name, index, all) => name !== all[index - 1])).toEqual([
      "started",
      "progress",
      "problem",
      "progress",
      "finished",
    ]);
    expect(events[0]?.event).toMatchObject({ done: 0, total: 40 });
    const done = events.filter(({ event }) => event["event"] === "progress").map(({ event }) => Number(event["done"]));
    expect(done.length).toBeGreaterThan(2);
    expect(done).toEqual([...done].sort((one, other) => one - other));
    expect(done.at(-1)).toBe(40);
    const pauses = events.slice(1).map(({ at }, index) => at - (events[index]?.at ?? 0));
    expect(Math.max(...pauses)).toBeLessThan(1500);
    expect(events.find(({ event }) => event["event"] === "problem")?.event).toMatchObject({
      user_id: idOf(1),
      outcome: "conflict",
      reason: `has organization ${otherOrgId} already`,
    });
    expect(events.at(-1)?.event).toMatchObject({ event: "finished", done: true, updated: 39, conflicts: 1 });
  });

  test("stops when the reader of its stream has gone, and goes on when it is called again", async () => {
    await addUsers(60);
    writeMs = 100;
    const gone = new AbortController();
    const response = await stream({ concurrency: 2, page_size: 10 }, gone.signal);
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.read();
    gone.abort();
    await reader?.closed.catch(() => {});

    let again = await call();
    for (let tries = 0; again.status === 409 && tries < 50; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      again = await call({ dry_run: true });
      if (again.status === 200) again = await call({ max_seconds: 1 });
    }
    const sent = requests.length;
    expect(sent, "it had stopped before the rest").toBeLessThanOrEqual(60);
    writeMs = 0;
    const { reply } = await call();
    expect(reply).toMatchObject({ users_without_org: 0 });
    expect(new Set(requests).size).toBe(60);
    expect(requests.length, "nobody was written twice").toBe(60);
    const [runs] = await database
      .sql`select count(*)::integer as runs from tenancy.user_metadata_runs where finished_at is null`;
    expect(runs).toEqual({ runs: 0 });
  });

  test("puts back what a run changed, and leaves alone what has changed since", async () => {
    await addUsers(4);
    await database
      .sql`update auth.users set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', ${otherOrgId}::text) where id = ${
      idOf(1)
    }`;
    const before = await database.sql`select id, raw_app_meta_data from auth.users order by id`;
    const { reply: run } = await call({ on_conflict: "overwrite" });
    expect(run).toMatchObject({ done: true, updated: 4 });
    await database
      .sql`update auth.users set raw_app_meta_data = raw_app_meta_data || '{"org_id": "other", "plan": "x"}' where id = ${
      idOf(2)
    }`;

    const { reply: preview } = await call({ mode: "revert", run_id: run["run_id"], dry_run: true });
    expect(preview).toMatchObject({ dry_run: true, would_update: 3, conflicts: 1 });
    const { reply: revert } = await call({ mode: "revert", run_id: run["run_id"] });
    expect(revert).toMatchObject({
      done: true,
      updated: 3,
      conflicts: 1,
      problems: [{ user_id: idOf(2), reason: "has organization other now, which is not what the run gave" }],
    });
    const after = await database.sql`select id, raw_app_meta_data from auth.users order by id`;
    expect(after.filter(({ id }) => id !== idOf(2))).toEqual(before.filter(({ id }) => id !== idOf(2)));
    expect((await call({ mode: "revert", run_id: idOf(9) })).reply.error).toEqual({
      code: "unknown_run",
      message: `Cannot revert the run "${idOf(9)}": there is no such run`,
    });
  });

  test("gives who signs up afterwards an organization, once the operator has said so", async () => {
    const signUp = async (email: string) => {
      const response = await fetch(`${services.api.url}/auth/v1/admin/users`, {
        method: "POST",
        headers: { apikey: services.keys.secretKey },
        body: JSON.stringify({ email, password: demoPassword }),
      });
      return ((await response.json()) as { app_metadata: Record<string, unknown> }).app_metadata["org_id"];
    };
    expect(await signUp("before@example.com")).toBeUndefined();
    await database.sql`select tenancy.assign_org_to_new_users()`;
    await signUp("after@example.com");
    await database.sql`select tenancy.stop_assigning_org_to_new_users()`;
    await signUp("again@example.com");
    const rows = await database.sql`
      select email, raw_app_meta_data ->> 'org_id' as org_id from auth.users where email !~ 'user' order by email
    `;
    expect(rows).toEqual([
      { email: "after@example.com", org_id: defaultOrgId },
      { email: "again@example.com", org_id: null },
      { email: "before@example.com", org_id: null },
    ]);
  });

  test("says that the migrations are missing", async () => {
    await database.sql`alter schema tenancy rename to tenancy_away`;
    try {
      expect(await call()).toMatchObject({
        status: 503,
        reply: { error: { code: "not_migrated" } },
      });
    } finally {
      await database.sql`alter schema tenancy_away rename to tenancy`;
    }
    expect((await call()).status).toBe(200);
  });

  test("logs one JSON object a line, without keys, tokens and emails", async () => {
    await addUsers(1);
    await call();
    const lines = readFileSync(served.log, "utf8").trim().split("\n").filter((line) => !line.startsWith("deno serve"));
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) {
      expect(JSON.parse(line)).toMatchObject({
        level: expect.stringMatching(/^(info|warn|error)$/),
        event: expect.stringMatching(/^[a-z_]+$/),
      });
      expect(line).not.toMatch(/@example\.com|sb_secret|eyJ/);
    }
  });
});
