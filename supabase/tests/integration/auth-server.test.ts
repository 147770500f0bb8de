import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../../local/postgres.ts";
import type { Services } from "../../local/stack.ts";
import { authContract } from "../auth-contract.ts";
import { startCommand } from "../commands.ts";
import { cloneDatabase } from "../databases.ts";
import { startTestServices } from "../services.ts";

describe("the Auth server's stand-in", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let beforeWrite: (userId: string) => Promise<void> = async () => {};

  beforeAll(async () => {
    database = await cloneDatabase("auth_server", "postgres");
    services = await startTestServices(database.name, { faults: { beforeWrite: async (id) => await beforeWrite(id) } });
  });

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  const target = () => ({ url: `${services.api.url}/auth/v1`, key: services.keys.secretKey });
  const admin = async (method: string, path: string, body?: unknown) =>
    await fetch(`${target().url}/admin/users${path}`, {
      method,
      headers: { apikey: services.keys.secretKey },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const createUser = async (email: string) =>
    ((await (await admin("POST", "", { email })).json()) as { id: string }).id;

  for (const { name, run } of authContract) {
    test(name, async () => await run(target()));
  }

  const runContract = async (parameters: string[], key: string) => {
    const run = startCommand(["npm", "run", "--silent", "test:auth", "--", ...parameters], {
      env: { ...process.env, SUPABASE_SECRET_KEY: key },
    });
    const code = await run.ended;
    const output = run.output();
    return { code, output, lines: output.trimEnd().split("\n") };
  };

  test.each(["", "/auth/v1/"])(
    "npm run test:auth runs the same checks by a project's address and %j, and leaves no users",
    async (path) => {
      const { key, url } = target();
      const { code, output, lines } = await runContract(["--url", `${services.api.url}${path}`, "--key", key], "");
      expect(code, output).toBe(0);
      expect(lines[0]).toContain(`create users of their own on ${url} `);
      expect(lines.slice(1, -1)).toEqual(authContract.map(({ name }) => `✔ ${name}`));
      expect(lines.at(-1)).toBe(`${authContract.length} passed, 0 failed`);
      expect(output).not.toContain(key);
      const [left] = await database
        .sql`select count(*)::integer as count from auth.users where email like 'contract-%'`;
      expect(left?.["count"]).toBe(0);
    },
  );

  test("npm run test:auth takes an address without a project behind it for a bare Auth server's", async () => {
    const { lines } = await runContract(["--url", `http://127.0.0.1:${await freePort()}`], "some-key");
    expect(lines[0]).toMatch(/ on http:\/\/127\.0\.0\.1:\d+ /);
  });

  test("npm run test:auth says with --help how it is called", async () => {
    const { code, output } = await runContract(["--help"], "");
    expect([code, output]).toEqual([0, expect.stringContaining("--url <url>")]);
  });

  test("npm run test:auth ends with 1 and names what fails when the key is wrong", async () => {
    const { code, output, lines } = await runContract(["--url", services.api.url], "sb_secret_wrong");
    expect(code).toBe(1);
    expect(output).toContain(`✘ ${authContract[0]?.name}\n    `);
    expect(lines.at(-1)).toMatch(/^\d+ passed, [1-9]\d* failed$/);
    expect(output).not.toContain("sb_secret_wrong");
  });

  test.each([
    [[], "some-key", "Cannot check an Auth server: give --url"],
    [["--url", "http://127.0.0.1:1/auth/v1"], "", "Cannot check an Auth server: set SUPABASE_SECRET_KEY"],
    [["--url", "auth"], "some-key", 'Cannot use --url "auth": not a URL'],
    [["--url", "http://127.0.0.1:1", "--hook"], "some-key", "--issuer and --hook are for checks that need --db-url"],
    [["--url", "http://127.0.0.1:1", "--db-url", "x"], "some-key", "Cannot use --db-url: it is no connection string"],
    [["--frob"], "some-key", "Unknown option '--frob'"],
  ])("npm run test:auth called wrong, with %j, says the rule and ends with 2", async (parameters, key, rule) => {
    const { code, output } = await runContract(parameters, key);
    expect([code, output]).toEqual([2, expect.stringContaining(rule)]);
  });

  test.each([
    ["a NULL where GoTrue has none", "confirmation_token = null", 500],
    ["app_metadata that is no object", `raw_app_meta_data = '[1]'`, 500],
    ["user_metadata that is no object", `raw_user_meta_data = '"x"'`, 500],
    ["no instance_id", "instance_id = null", 404],
    ["another aud, which the list leaves out", "aud = 'other'", 200],
    ["app_metadata NULL", "raw_app_meta_data = null", 200],
  ])("answers for a user with %s as GoTrue does", async (_name, change, status) => {
    const id = await createUser(`${status}-${change.length}@example.com`);
    await database.sql.unsafe(`update auth.users set ${change} where id = '${id}'`);
    const reply = await admin("PUT", `/${id}`, { app_metadata: { org_id: "x" } });
    expect(reply.status).toBe(status);
    const [row] = await database.sql`select raw_app_meta_data ->> 'org_id' as org_id from auth.users where id = ${id}`;
    expect(row?.["org_id"]).toBe(status === 200 ? "x" : null);
    await database.sql`delete from auth.users where id = ${id}`;
  });

  test.each([
    ["identities", "created_at = null", 500],
    ["identities", "updated_at = null", 500],
    ["identities", "identity_data = '[]'", 500],
    ["identities", "last_sign_in_at = null, identity_data = 'null'", 200],
    ["mfa_factors", "friendly_name = null", 500],
    ["mfa_factors", "secret = null", 500],
    ["mfa_factors", "phone = null", 200],
  ])(
    "answers for a user with a row of %s where %s with %i, as GoTrue does, and lists the user",
    async (table, change, status) => {
      const { sql } = database;
      const id = await createUser("reads@example.com");
      await sql`
      insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret)
      values (gen_random_uuid(), ${id}, '', 'totp', 'verified', now(), now(), 'secret')
    `;
      expect((await admin("GET", `/${id}`)).status).toBe(200);
      await sql.unsafe(`update auth.${table} set ${change} where user_id = '${id}'`);
      for (const [method, body] of [["GET"], ["PUT", { app_metadata: { org_id: "x" } }]] as const) {
        expect((await admin(method, `/${id}`, body)).status).toBe(status);
      }
      expect((await admin("GET", "?page=1&per_page=1")).status).toBe(200);
      await sql`delete from auth.users where id = ${id}`;
    },
  );

  test("writes the whole of app_metadata from what it read, so that the last writer wins", async () => {
    const id = await createUser("lost-update@example.com");
    beforeWrite = async () => {
      beforeWrite = async () => {};
      await database
        .sql`update auth.users set raw_app_meta_data = raw_app_meta_data || '{"lost": true}' where id = ${id}`;
    };
    await admin("PUT", `/${id}`, { app_metadata: { org_id: "x" } });
    const [row] = await database.sql`select raw_app_meta_data as metadata from auth.users where id = ${id}`;
    expect(row?.["metadata"]).toEqual({ provider: "email", providers: ["email"], org_id: "x" });
  });

  test("answers 200 for a user who was deleted between its read and its write", async () => {
    const id = await createUser("deleted@example.com");
    beforeWrite = async () => {
      beforeWrite = async () => {};
      await database.sql`delete from auth.users where id = ${id}`;
    };
    const reply = await admin("PUT", `/${id}`, { app_metadata: { org_id: "x" } });
    expect([reply.status, ((await reply.json()) as { id: string }).id]).toEqual([200, id]);
  });
});
