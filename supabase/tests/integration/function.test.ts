import { readFileSync } from "node:fs";
import { SignJWT } from "jose";
import type { Sql } from "postgres";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { demoPassword } from "../../local/application.ts";
import type { Services } from "../../local/stack.ts";
import { type FunctionUnderTest, startFunction } from "../function.ts";
import { contradictMapping, defaultOrgId, otherOrgId } from "../organizations.ts";
import { addUsers, numberedUsers, userId } from "../users.ts";

describe("update-user-org-metadata over HTTP", () => {
  let tested: FunctionUnderTest;
  let sql: Sql;
  let services: Services;
  let call: FunctionUnderTest["call"];
  let requests: string[];

  beforeAll(async () => {
    tested = await startFunction("function_http");
    ({ services, call, requests } = tested);
    sql = tested.database.sql;
  });

  beforeEach(async () => await tested.reset());
  afterAll(async () => await tested?.stop());

  /** What became of each user, by the last digits of its id. */
  const outcomes = async () =>
    Object.fromEntries(
      (await sql`select right(user_id::text, 2)::integer as user, outcome from tenancy.user_metadata_audit order by 1`)
        .map((row) => [row["user"], row["outcome"]]),
    );
  const withoutOrg = async () => {
    const [row] = await sql`select count(*)::integer as count from tenancy.users_without_org`;
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

  test("opens for the secret key, and for nothing else, not for the legacy service_role key either", async () => {
    const { keys } = services;
    await addUsers(sql, numberedUsers(1), demoPassword);
    for (
      const headers of [
        {},
        { apikey: "sb_secret_wrong" },
        { apikey: keys.publishableKey },
        { apikey: keys.anonKey },
        { apikey: keys.serviceRoleKey },
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
    expect((await call({}, { apikey: keys.secretKey })).status).toBe(200);
    expect(await withoutOrg()).toBe(0);
  });

  test("answers bad requests with the value and the rule", async () => {
    const get = await fetch(`${services.api.url}/functions/v1/update-user-org-metadata`, {
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
    await addUsers(sql, numberedUsers(5), demoPassword);
    await contradictMapping(sql, userId(2));
    await sql`update auth.users set instance_id = null where id = ${userId(3)}`;
    expect(await call({ dry_run: true })).toEqual({
      status: 200,
      reply: { dry_run: true, would_update: 3, conflicts: 1, unreachable: 1, users: 5, users_without_org: 5 },
    });
    expect(requests).toEqual([]);
    expect(await outcomes()).toEqual({});
  });

  test("names conflicts and users out of reach, leaves them alone, and sends one request for each other user", async () => {
    await addUsers(sql, numberedUsers(6), demoPassword);
    await contradictMapping(sql, userId(2));
    await sql`update auth.users set recovery_token = null where id = ${userId(3)}`;
    const { reply } = await call({ page_size: 2 });
    expect(reply).toMatchObject({
      done: true,
      updated: 4,
      conflicts: 1,
      unreachable: 1,
      users_without_org: 2,
      problems: [
        { user_id: userId(2), outcome: "conflict", reason: `has organization ${otherOrgId} already` },
        {
          user_id: userId(3),
          outcome: "unreachable",
          reason: "recovery_token NULL: the Auth server cannot read the user",
        },
      ],
    });
    expect(requests.sort()).toEqual([1, 4, 5, 6].map((number) => `PUT /admin/users/${userId(number)}`));
    const [conflict] = await sql`select raw_app_meta_data ->> 'org_id' as org_id from auth.users where id = ${
      userId(2)
    }`;
    expect(conflict).toEqual({ org_id: otherOrgId });
  });

  test("sends no request for users whose identities or factors the Auth server cannot read", async () => {
    await addUsers(sql, numberedUsers(7), demoPassword);
    await sql`
      insert into auth.identities (provider_id, user_id, identity_data, provider, created_at, updated_at)
      select id, id, '{}', 'email', now(), now() from auth.users
    `;
    await sql`
      insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret)
      select gen_random_uuid(), id, '', 'totp', 'verified', now(), now(), '' from auth.users
    `;
    await sql`update auth.identities set created_at = null, updated_at = null where user_id = ${userId(2)}`;
    await sql`update auth.identities set identity_data = '[]' where user_id = ${userId(3)}`;
    await sql`update auth.mfa_factors set friendly_name = null where user_id = ${userId(4)}`;
    await sql`update auth.mfa_factors set secret = null where user_id = ${userId(5)}`;
    await sql`update auth.users set recovery_token = null where id = ${userId(5)}`;
    await sql`update auth.identities set last_sign_in_at = null, identity_data = 'null' where user_id = ${userId(6)}`;
    await sql`update auth.mfa_factors set phone = null, web_authn_credential = null where user_id = ${userId(7)}`;
    const cannot = "NULL: the Auth server cannot read the user";
    const reasons = [
      [userId(2), `auth.identities.created_at, auth.identities.updated_at ${cannot}`],
      [userId(3), "auth.identities.identity_data that is no JSON object: the Auth server cannot read the user"],
      [userId(4), `auth.mfa_factors.friendly_name ${cannot}`],
      [userId(5), `recovery_token, auth.mfa_factors.secret ${cannot}`],
    ];
    expect((await sql`select user_id, reason from tenancy.user_preflight order by user_id`).map(Object.values)).toEqual(
      reasons,
    );
    const { reply } = await call();
    expect(reply).toMatchObject({ done: true, updated: 3, unreachable: 4, failed: 0 });
    expect(requests.sort()).toEqual([1, 6, 7].map((number) => `PUT /admin/users/${userId(number)}`));
  });

  test("overwrites another organization when told to, and keeps it on record", async () => {
    await addUsers(sql, numberedUsers(1), demoPassword);
    await contradictMapping(sql, userId(1));
    expect((await call({ on_conflict: "overwrite" })).reply).toMatchObject({ updated: 1, conflicts: 0 });
    const [user] = await sql`select raw_app_meta_data from auth.users`;
    expect(user?.["raw_app_meta_data"]).toEqual({
      provider: "email",
      providers: ["email"],
      plan: { name: "pro" },
      org_id: defaultOrgId,
    });
    const [audit] = await sql`select previous_value from tenancy.user_metadata_audit`;
    expect(audit).toEqual({ previous_value: otherOrgId });
  });

  test("gives each user the organization of the mapping, or only the users of one organization", async () => {
    await addUsers(sql, numberedUsers(4), demoPassword);
    await sql`insert into public.organizations (id, name) values (${otherOrgId}, 'other') on conflict do nothing`;
    await sql`insert into tenancy.user_orgs (user_id, org_id) select id, ${otherOrgId} from auth.users where right(id::text, 1) > '2'`;
    expect((await call({ org_id: otherOrgId })).reply).toMatchObject({ done: true, updated: 2, users_without_org: 2 });
    expect((await call({})).reply, "whom the mapping leaves out is in none").toMatchObject({
      done: true,
      updated: 0,
      users_without_org: 2,
    });
    await sql`select tenancy.enable_new_users('default')`;
    expect((await call({})).reply).toMatchObject({ done: true, updated: 2, users_without_org: 0 });
    await sql`select tenancy.disable_new_users()`;
    const users = await sql`select raw_app_meta_data ->> 'org_id' as org_id from auth.users order by id`;
    expect(users.map((row) => row["org_id"])).toEqual([defaultOrgId, defaultOrgId, otherOrgId, otherOrgId]);
  });

  test("puts back what a run changed, and leaves alone what has changed since", async () => {
    await addUsers(sql, numberedUsers(4), demoPassword);
    await contradictMapping(sql, userId(1));
    const before = await sql`select id, raw_app_meta_data from auth.users order by id`;
    const { reply: run } = await call({ on_conflict: "overwrite" });
    expect(run).toMatchObject({ done: true, updated: 4 });
    await sql`update auth.users set raw_app_meta_data = raw_app_meta_data || '{"org_id": "other", "plan": "x"}' where id = ${
      userId(2)
    }`;

    const { reply: preview } = await call({ mode: "revert", run_id: run["run_id"], dry_run: true });
    expect(preview).toMatchObject({ dry_run: true, would_update: 3, conflicts: 1 });
    const { reply: revert } = await call({ mode: "revert", run_id: run["run_id"] });
    expect(revert).toMatchObject({
      done: true,
      updated: 3,
      conflicts: 1,
      problems: [{ user_id: userId(2), reason: "has organization other now, which is not what the run gave" }],
    });
    const after = await sql`select id, raw_app_meta_data from auth.users order by id`;
    expect(after.filter(({ id }) => id !== userId(2))).toEqual(before.filter(({ id }) => id !== userId(2)));
    expect((await call({ mode: "revert", run_id: userId(9) })).reply.error).toEqual({
      code: "unknown_run",
      message: `Cannot revert the run "${userId(9)}": there is no such run`,
    });
  });

  test("gives new users an organization once the operator has switched that on", async () => {
    const signUp = async (email: string) => {
      const response = await fetch(`${services.api.url}/auth/v1/admin/users`, {
        method: "POST",
        headers: { apikey: services.keys.secretKey },
        body: JSON.stringify({ email, password: demoPassword }),
      });
      return ((await response.json()) as { app_metadata: Record<string, unknown> }).app_metadata["org_id"];
    };
    expect(await signUp("before@example.com")).toBeUndefined();
    await sql`select tenancy.enable_new_users('default')`;
    await signUp("after@example.com");
    await sql`select tenancy.disable_new_users()`;
    await signUp("again@example.com");
    const rows = await sql`
      select email, raw_app_meta_data ->> 'org_id' as org_id from auth.users where email !~ 'user' order by email
    `;
    expect(rows).toEqual([
      { email: "after@example.com", org_id: defaultOrgId },
      { email: "again@example.com", org_id: null },
      { email: "before@example.com", org_id: null },
    ]);
  });

  test.each([
    ["nothing", {}, { org_id: defaultOrgId }],
    ["keys of the application's", { plan: "pro" }, { plan: "pro", org_id: defaultOrgId }],
    ["another organization", { org_id: otherOrgId }, { org_id: otherOrgId }],
    ["no organization that exists", { org_id: "none" }, { org_id: defaultOrgId }],
  ])(
    "new users keep it where an administrator creates them with app_metadata of %s",
    async (_name, given, expected) => {
      await sql`insert into public.organizations (id, name) values (${otherOrgId}, 'other') on conflict do nothing`;
      await sql`select tenancy.enable_new_users('default')`;
      const response = await fetch(`${services.api.url}/auth/v1/admin/users`, {
        method: "POST",
        headers: { apikey: services.keys.secretKey },
        body: JSON.stringify({ email: "invited@example.com", password: demoPassword, app_metadata: given }),
      });
      await sql`select tenancy.disable_new_users()`;
      expect(response.status).toBe(200);
      const [user] =
        await sql`select raw_app_meta_data as metadata from auth.users where email = 'invited@example.com'`;
      expect(user?.["metadata"]).toEqual({ provider: "email", providers: ["email"], ...expected });
    },
  );

  test("says that the migrations are missing", async () => {
    await sql`alter schema tenancy rename to tenancy_away`;
    try {
      expect(await call()).toMatchObject({
        status: 503,
        reply: { error: { code: "not_migrated" } },
      });
    } finally {
      await sql`alter schema tenancy_away rename to tenancy`;
    }
    expect((await call()).status).toBe(200);
  });

  test("logs one JSON object per line, without keys, tokens and emails", async () => {
    await addUsers(sql, numberedUsers(1), demoPassword);
    await call();
    const lines = readFileSync(tested.served.log, "utf8").trim().split("\n").filter((line) =>
      !line.startsWith("deno serve")
    );
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
