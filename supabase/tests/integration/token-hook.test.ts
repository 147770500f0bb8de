import { decodeJwt } from "jose";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { demoPassword } from "../../local/application.ts";
import type { Services } from "../../local/stack.ts";
import { become, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { hookContract } from "../hook-contract.ts";
import { north, south } from "../organizations.ts";
import { readSection } from "../readme.ts";
import { startTestServices } from "../services.ts";
import { addUsers, numberedUsers, userId } from "../users.ts";

describe("the custom access token hook", () => {
  let database: Database;
  let services: Services;
  let withoutHook: Services;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("token_hook", "migrated");
    sql = database.sql;
    services = await startTestServices(database.name, { tokenHook: "tenancy.add_org_id_to_token" });
    withoutHook = await startTestServices(database.name);
    await sql`insert into public.organizations (id, name) values (${north}, 'north'), (${south}, 'south')`;
    await sql`select tenancy.enable_token_hook()`;
    await addUsers(sql, numberedUsers(2), demoPassword);
    await sql`insert into tenancy.user_orgs (user_id, org_id) values (${userId(1)}, ${north})`;
    await sql`select tenancy.enable_memberships()`;
    await sql`
      insert into tenancy.memberships (user_id, org_id, role)
      values (${userId(1)}, ${north}, 'admin'), (${userId(1)}, ${south}, 'guest')
    `;
  });

  afterAll(async () => {
    await services?.stop();
    await withoutHook?.stop();
    await database?.drop();
  });

  const ask = async (grant: string, body: Record<string, string>, { api, keys } = services) => {
    const response = await fetch(`${api.url}/auth/v1/token?grant_type=${grant}`, {
      method: "POST",
      headers: { apikey: keys.publishableKey },
      body: JSON.stringify(body),
    });
    const reply = await response.json() as Record<string, string>;
    const claims = reply["access_token"] ? decodeJwt(reply["access_token"]) : {};
    return { status: response.status, refreshToken: reply["refresh_token"] ?? "", claims };
  };
  const signIn = (number: number, at = services) =>
    ask("password", { email: `user${number}@example.com`, password: demoPassword }, at);
  const switchTo = async (orgId: string) =>
    await sql.begin(async (transaction) => {
      await become(transaction as unknown as Sql, "authenticated", { sub: userId(1), role: "authenticated" });
      await transaction`select public.switch_organization(${orgId})`;
    });
  const withOrganization = (orgId: string) => ({ app_metadata: { org_id: orgId } });

  for (const { name, run } of hookContract) {
    test(name, async () => {
      const { api, keys } = services;
      await run({ url: `${api.url}/auth/v1`, key: keys.secretKey, sql, issuer: null });
    });
  }

  test("gives the first token its organization, without a run of the function", async () => {
    const { status, claims } = await signIn(1);
    expect(status).toBe(200);
    expect(claims).toMatchObject({ sub: userId(1), role: "authenticated", ...withOrganization(north) });
    expect((await signIn(2)).claims["app_metadata"]).not.toHaveProperty("org_id");
  });

  test("gives the next token the organization that the user has switched to", async () => {
    const { refreshToken } = await signIn(1);
    await switchTo(south);
    await sql`update tenancy.settings set org_role = true`;
    const refreshed = await ask("refresh_token", { refresh_token: refreshToken });
    expect(refreshed.claims).toMatchObject({ app_metadata: { org_id: south, org_role: "guest" } });
  });

  test("leaves app_metadata right for the day on which it is switched off, also of who is in no organization by then", async () => {
    expect((await signIn(1, withoutHook)).claims).toMatchObject(withOrganization(south));
    await sql`delete from tenancy.memberships where (user_id, org_id) = (${userId(1)}, ${south})`;
    expect((await signIn(1, withoutHook)).claims["app_metadata"]).not.toHaveProperty("org_id");
    await sql`insert into tenancy.memberships (user_id, org_id, role) values (${userId(1)}, ${south}, 'guest')`;
    await switchTo(south);
  });

  test("lets policies ask for the role", async () => {
    const { claims } = await signIn(1);
    await rehearse(sql, async () => {
      await become(sql, "authenticated", claims);
      expect(await sql`select public.auth_org_id() as org, public.auth_org_role() as role`).toEqual([
        { org: south, role: "guest" },
      ]);
    });
  });

  test("reads past whoever is changing the user's rows", async () => {
    await sql.begin(async (transaction) => {
      await transaction`update tenancy.user_orgs set org_id = ${north}`;
      await transaction`update tenancy.memberships set role = 'other'`;
      expect((await signIn(1)).claims).toMatchObject(withOrganization(south));
      throw new Error("taken back");
    }).catch(({ message }: Error) => expect(message).toBe("taken back"));
  });

  test.each([
    [
      "revoked",
      "revoke execute on function tenancy.add_org_id_to_token(jsonb) from supabase_auth_admin",
      "select tenancy.enable_token_hook()",
    ],
    [
      "renamed",
      "alter function tenancy.add_org_id_to_token(jsonb) rename to add_it",
      "alter function tenancy.add_it(jsonb) rename to add_org_id_to_token",
    ],
  ])("is found by verify() where it is %s, which stops every sign-in", async (_what, breakIt, fixIt) => {
    const isFound = async () =>
      (await sql`select from tenancy.verify_schema() where check_name = 'token_hook' and not passed`).length > 0;
    expect(await isFound()).toBe(false);
    await sql.unsafe(breakIt);
    expect((await signIn(1)).status).toBe(500);
    expect(await isFound()).toBe(true);
    await sql.unsafe(fixIt);
    expect((await signIn(1)).claims).toMatchObject(withOrganization(south));
    expect(await isFound()).toBe(false);
  });

  test("can be called by a hook of the application", async () => {
    const block = readSection("## The token hook", "docs/memberships.md").blocks("sql").find((text) =>
      text.includes("create function")
    );
    await sql.unsafe(block ?? "");
    const own = await startTestServices(database.name, { tokenHook: "public.custom_access_token" });
    try {
      const { status, claims } = await signIn(1, own);
      expect(status).toBe(200);
      expect(claims).toMatchObject({ plan: "pro", ...withOrganization(south) });
    } finally {
      await own.stop();
    }
    expect(
      await sql`
      select grantee from information_schema.routine_privileges
      where routine_name = 'custom_access_token' and grantee in ('PUBLIC', 'anon', 'authenticated')
    `,
    ).toEqual([]);
  });

  test("takes the organization from the next token of who loses it", async () => {
    await sql`delete from tenancy.memberships where (user_id, org_id) = (${userId(1)}, ${south})`;
    expect((await signIn(1)).claims["app_metadata"]).not.toHaveProperty("org_id");
    expect(await sql`select user_id from tenancy.stale_sessions()`).not.toHaveLength(0);
  });
});
