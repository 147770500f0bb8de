import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
