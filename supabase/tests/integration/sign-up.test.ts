import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { freePort } from "../../local/postgres.ts";
import type { Services } from "../../local/stack.ts";
import { authContract } from "../auth-contract.ts";
import { startCommand } from "../commands.ts";
import { cloneDatabase } from "../databases.ts";
import { type Issuer, startIssuer } from "../id-tokens.ts";
import { startTestServices } from "../services.ts";
import { signUpContract } from "../sign-up-contract.ts";
import { addUsers, numberedUsers } from "../users.ts";

describe("whoever signs up", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let issuer: Issuer;

  beforeAll(async () => {
    database = await cloneDatabase("sign_up", "migrated");
    issuer = await startIssuer(`http://127.0.0.1:${await freePort()}`);
    services = await startTestServices(database.name, { idTokenIssuers: [issuer.url] });
  });

  afterAll(async () => {
    await services?.stop();
    await issuer?.close();
    await database?.drop();
  });

  const target = () => ({ url: `${services.api.url}/auth/v1`, key: services.keys.secretKey });
  const runContract = async (issuerUrl: string) => {
    const { url, key } = target();
    const parameters = ["--url", url, "--key", key, "--db-url", database.url, "--issuer", issuerUrl];
    const run = startCommand(["npm", "run", "--silent", "test:auth", "--", ...parameters], { env: process.env });
    return { code: await run.ended, output: run.output() };
  };

  const leftovers = async () =>
    await database.sql`
      select
        (select count(*)::integer from auth.users) as users,
        (select count(*)::integer from public.organizations) as organizations,
        (select count(*)::integer from tenancy.user_orgs) as places,
        (select count(*)::integer from pg_catalog.pg_trigger where tgname like 'contract%') as triggers,
        (select new_users from tenancy.settings) as new_users
    `;

  for (const { name, run } of signUpContract(true)) {
    test(name, async () => await run({ ...target(), sql: database.sql, issuer }));
  }

  describe("while others work on the settings", () => {
    const newcomer = async (email: string) => {
      const { url, key } = target();
      const body = JSON.stringify({ email, password: "correct horse" });
      const { status } = await fetch(`${url}/signup`, { method: "POST", headers: { apikey: key }, body });
      const users = await database
        .sql`select raw_app_meta_data ->> 'org_id' as org from auth.users where email = ${email}`;
      return { status, organizations: users.map(({ org }) => org) };
    };
    const whileOpen = async <Result>(statement: string, act: () => Promise<Result>): Promise<Result> => {
      const other = connect(database.url);
      try {
        await other`begin`;
        await other.unsafe(statement);
        return await act();
      } finally {
        await other.end();
      }
    };
    let defaultOrg: unknown;

    beforeAll(async () => {
      await database.sql`select tenancy.enable_new_users('default')`;
      [{ defaultOrg }] = await database.sql`select default_org_id as "defaultOrg" from tenancy.settings` as [
        { defaultOrg: unknown },
      ];
    });

    afterAll(async () => {
      await database.sql`delete from auth.users`;
      await database.sql`select tenancy.disable_new_users()`;
    });

    test.each(["tenancy.settings", "tenancy.user_orgs"])(
      "fails soon where %s is locked, leaves nothing, and succeeds afterwards",
      async (table) => {
        const email = `${table}@example.com`;
        const refused = await whileOpen(`lock table ${table} in access exclusive mode`, () => newcomer(email));
        expect(refused).toEqual({ status: 500, organizations: [] });
        expect(await newcomer(email)).toEqual({ status: 200, organizations: [defaultOrg] });
      },
    );

    test("succeeds while they are changed", async () => {
      const email = "meanwhile@example.com";
      const outcome = await whileOpen("select tenancy.disable_new_users()", () => newcomer(email));
      expect(outcome).toEqual({ status: 200, organizations: [defaultOrg] });
    });
  });

  test("npm run test:auth refuses a database in which somebody is", async () => {
    await addUsers(database.sql, numberedUsers(1));
    const { code, output } = await runContract(`http://127.0.0.1:${await freePort()}`);
    expect([code, output]).toEqual([
      2,
      expect.stringContaining("--db-url has 1 users: take a project that nobody uses"),
    ]);
    await database.sql`delete from auth.users`;
  });

  test("npm run test:auth tries each way to sign up on any server, and leaves nothing", async () => {
    await issuer.close();
    const before = await leftovers();
    const { code, output } = await runContract(issuer.url);
    expect(code, output).toBe(0);
    expect(output).toContain(`${authContract.length + signUpContract(true).length} passed, 0 failed`);
    expect(await leftovers()).toEqual(before);
  });
});
