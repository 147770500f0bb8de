import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl, freePort, isPortFree, startPostgres } from "../../local/postgres.ts";
import { readConfig } from "../../local/project.ts";
import { startApiServer } from "../../local/api-server.ts";
import { createKeys } from "../../local/keys.ts";
import { cloneDatabase } from "../databases.ts";

describe("the platform's stand-in", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;

  beforeAll(async () => {
    database = await cloneDatabase("platform", "postgres");
  });

  afterAll(async () => await database?.drop());

  test("has the PostgreSQL that it was asked for", async () => {
    const [row] = await database.sql`select current_setting('server_version_num')::integer / 10000 as major`;
    expect(row?.["major"]).toBe(inject("major"));
  });

  test("gives postgres what the platform gives it, and not superuser", async () => {
    const [role] = await database.sql`
      select rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls from pg_roles where rolname = current_user
    `;
    expect(role).toEqual({
      rolsuper: false,
      rolcreatedb: true,
      rolcreaterole: true,
      rolreplication: true,
      rolbypassrls: true,
    });
    const [timeout] = await database.sql`show statement_timeout`;
    expect(timeout).toEqual({ statement_timeout: "2min" });
  });

  test.each([
    "alter table auth.users add column mine text",
    "create index on auth.users (role)",
    "create function auth.mine() returns integer language sql as 'select 1'",
    "alter system set work_mem = '1GB'",
    "set role supabase_auth_admin",
  ])("refuses postgres: %s", async (statement) => {
    await expect(database.sql.unsafe(statement)).rejects.toMatchObject({ code: "42501" });
  });

  test.each([
    "create table mine (user_id uuid references auth.users (id))",
    "create function public.on_user() returns trigger language plpgsql as 'begin return new; end'; create trigger mine after insert on auth.users for each row execute function public.on_user()",
    "select * from auth.users",
    "set local session_replication_role = replica",
    "create schema mine",
  ])("lets postgres: %s", async (statement) => {
    const rolledBack = database.sql.begin(async (transaction) => {
      await transaction.unsafe(statement);
      throw new Error("went through");
    });
    await expect(rolledBack).rejects.toThrow("went through");
  });

  test("opens what postgres creates in public to the API's roles", async () => {
    await database.sql`create table public.opened (id integer)`;
    const [opened] = await database.sql`
      select
        has_table_privilege('anon', 'public.opened', 'select') as anon,
        has_table_privilege('authenticated', 'public.opened', 'insert') as authenticated,
        has_table_privilege('service_role', 'public.opened', 'delete') as service_role
    `;
    expect(opened).toEqual({ anon: true, authenticated: true, service_role: true });
  });

  test("reads the JWT's claims as the platform does", async () => {
    const [claims] = await database.sql.begin(async (transaction) => {
      await transaction`
        select set_config('request.jwt.claims', '{"sub": "00000000-0000-4000-8000-000000000001", "role": "authenticated", "email": "a@example.com"}', true)
      `;
      await transaction`set local role authenticated`;
      return await transaction`select auth.uid() as uid, auth.role() as role, auth.email() as email, auth.jwt() ->> 'role' as jwt`;
    });
    expect(claims).toEqual({
      uid: "00000000-0000-4000-8000-000000000001",
      role: "authenticated",
      email: "a@example.com",
      jwt: "authenticated",
    });
  });

  test("has the 35 columns of auth.users", async () => {
    const [row] = await database.sql`
      select count(*)::integer as columns from information_schema.columns where table_schema = 'auth' and table_name = 'users'
    `;
    expect(row).toEqual({ columns: 35 });
  });

  test("takes connections on 127.0.0.1 with a password only", async () => {
    const url = databaseUrl(inject("databasePort")).replace("postgres:postgres@", "postgres:wrong@");
    const sql = connect(url);
    await expect(sql`select 1`).rejects.toMatchObject({ code: "28P01" });
    await sql.end();
  });
});

describe("a port that is taken", () => {
  test("is said clearly, and nothing is started or deleted", async () => {
    const port = await freePort();
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(port, "127.0.0.1", resolve));
    expect(await isPortFree(port)).toBe(false);
    await expect(startPostgres({ port, folder: `${inject("folder")}/never` })).rejects.toThrow(
      `Cannot start PostgreSQL on 127.0.0.1:${port}: the port is taken.`,
    );
    const auth = { answer: async () => undefined, close: async () => {} };
    await expect(startApiServer({ port, auth, keys: await createKeys() })).rejects.toThrow(
      `Cannot start the API on 127.0.0.1:${port}: the port is taken.`,
    );
    await new Promise((resolve) => squatter.close(resolve));
    expect(await isPortFree(port)).toBe(true);
  });
});

test("config.toml has the ports and the expiry that the stack takes from it", () => {
  expect(readConfig()).toEqual({
    projectId: "org-id-migration",
    apiPort: 54321,
    dbPort: 54322,
    jwtExpiry: 3600,
    tokenHook: null,
  });
});
