import type { Sql } from "postgres";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { demoPassword } from "../../local/application.ts";
import type { Fault } from "../../local/auth-server.ts";
import { connect } from "../../local/databases.ts";
import { runAsSuperuser } from "../databases.ts";
import { type FunctionUnderTest, type Reply, startFunction } from "../function.ts";
import { withResolvers } from "../promises.ts";
import { addUsers, numberedUsers, userId } from "../users.ts";

describe("update-user-org-metadata, when the Auth server or time is short,", () => {
  let tested: FunctionUnderTest;
  let sql: Sql;
  let call: FunctionUnderTest["call"];
  let requests: string[];
  let behaviour: FunctionUnderTest["behaviour"];

  beforeAll(async () => {
    tested = await startFunction("function_faults_http");
    ({ call, requests, behaviour } = tested);
    sql = tested.database.sql;
  });

  beforeEach(async () => await tested.reset());
  afterAll(async () => await tested?.stop());

  test("tries again after 429, 5xx, a dropped connection and a lost write, and ends right", async () => {
    await addUsers(sql, numberedUsers(5), demoPassword);
    const faults = new Map<string, Fault>([
      [userId(1), { status: 429, headers: { "retry-after": "1" }, body: "<html>slow down</html>" }],
      [userId(2), { status: 503, body: '{"message": "unavailable"}' }],
      [userId(3), { drop: true }],
      [userId(4), { skipWrite: true }],
      [userId(5), { status: 504, afterWrite: true, body: "" }],
    ]);
    behaviour.choose = ({ path }) => {
      const id = path.split("/").pop() ?? "";
      const fault = faults.get(id);
      faults.delete(id);
      return fault;
    };
    const { reply } = await call();
    expect(reply).toMatchObject({ done: true, updated: 5, failed: 0, users_without_org: 0 });
    expect(Number(reply["seconds"])).toBeGreaterThanOrEqual(1);
    const attempts = await sql`select attempts from tenancy.user_metadata_audit order by user_id`;
    for (const { attempts: count } of attempts as unknown as { attempts: number }[]) {
      expect(count).toBeGreaterThanOrEqual(2);
    }
  });

  test("calls a user failed whom the Auth server never updates, with its last words, and goes on", async () => {
    await addUsers(sql, numberedUsers(3), demoPassword);
    behaviour.choose = ({ path }) =>
      path.endsWith(userId(2))
        ? { status: 500, body: '{"code": "unexpected_failure", "message": "Error updating user"}' }
        : undefined;
    const { reply } = await call();
    expect(reply).toMatchObject({
      done: true,
      updated: 2,
      failed: 1,
      users_without_org: 1,
      problems: [{ user_id: userId(2), outcome: "failed", reason: "500 Error updating user" }],
    });
    expect(requests.filter((request) => request.endsWith(userId(2))).length).toBe(5);
  });

  test("stops in time, says so, and goes on with the same run when it is called again", async () => {
    await addUsers(sql, numberedUsers(30), demoPassword);
    behaviour.choose = ({ path }) =>
      path.endsWith(userId(30)) ? { status: 503, headers: { "retry-after": "1" }, body: "{}" } : undefined;
    const replies: Reply[] = [];
    // However few a slow machine updates in a call, the last user's pauses take more than one.
    while (replies.length < 100 && !replies.at(-1)?.["done"]) {
      const { reply } = await call({ max_seconds: 1, page_size: 10, concurrency: 1 });
      replies.push(reply);
    }
    expect(replies.length).toBeGreaterThan(1);
    expect(replies[0]?.["done"]).toBe(false);
    expect(Number(replies[0]?.["remaining"]) + Number(replies[0]?.["updated"])).toBe(30);
    expect(replies.at(-1)).toMatchObject({ done: true, remaining: 0, updated: 29, failed: 1 });
    expect(new Set(replies.map((reply) => reply["run_id"])).size).toBe(1);
    expect(requests.filter((request) => request.endsWith(userId(30))).length).toBe(5);
  });

  test("answers 503 while the database takes no more connections, and goes on when it does", async () => {
    await addUsers(sql, numberedUsers(1), demoPassword);
    const allow = (connections: number) =>
      runAsSuperuser("postgres", `alter database ${tested.database.name} connection limit ${connections}`);
    await allow(0);
    expect(await call()).toMatchObject({ status: 503, reply: { error: { code: "database_unavailable" } } });
    await allow(-1);
    expect((await call()).reply).toMatchObject({ done: true, updated: 1 });
  });

  test("lists afterwards whose sign-in it undid, and nobody once the next sign-in has put that back", async () => {
    await addUsers(sql, numberedUsers(2), demoPassword);
    await sql`
      insert into auth.identities (provider_id, user_id, identity_data, provider, created_at, updated_at)
      select id, id, '{}', 'email', now(), now() from auth.users
    `;
    /** Writes the providers of a user as an OAuth sign-in does: those of all identities. */
    const writeProviders = async () =>
      await sql`
        update auth.users
        set raw_app_meta_data = raw_app_meta_data || jsonb_build_object(
          'providers', (select jsonb_agg(provider) from auth.identities where user_id = users.id)
        )
        where id = ${userId(1)}
      `;
    behaviour.beforeWrite = async () => {
      behaviour.beforeWrite = async () => {};
      await sql`
        insert into auth.identities (provider_id, user_id, identity_data, provider, created_at, updated_at)
        values ('google', ${userId(1)}, '{}', 'google', now(), now())
      `;
      await writeProviders();
    };
    const listed = async () => await sql`select user_id, reason from tenancy.user_preflight`;
    expect(await listed()).toEqual([]);
    expect((await call({ concurrency: 1 })).reply).toMatchObject({ done: true, updated: 2 });
    expect(await listed()).toEqual([
      {
        user_id: userId(1),
        reason: expect.stringMatching(/^app_metadata\.providers lacks google of auth\.identities/),
      },
    ]);
    await writeProviders();
    expect(await listed()).toEqual([]);
  });

  /** Ends the function's connection to the database, as a restart or a failover does. */
  const loseConnection = () =>
    runAsSuperuser(
      tested.database.name,
      `select pg_terminate_backend(pid) from pg_locks
       where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
    );

  test.each([
    [
      "between two queries",
      async () => {
        await loseConnection();
        // Long enough for the function to hear of it.
        await sql`select pg_sleep(0.2)`;
      },
    ],
    ["just before the next query", loseConnection],
  ])("answers 503 when it loses its connection %s, lives on, and goes on with the run", async (_name, lose) => {
    await addUsers(sql, numberedUsers(4), demoPassword);
    behaviour.beforeWrite = async () => {
      behaviour.beforeWrite = async () => {};
      await lose();
    };
    expect(await call({ page_size: 2, concurrency: 1 })).toMatchObject({
      status: 503,
      reply: { error: { code: "database_unavailable" } },
    });
    expect((await call()).reply).toMatchObject({ done: true, updated: 4, failed: 0, users_without_org: 0 });
    expect(await sql`select from tenancy.user_metadata_runs`, "it is the same run").toHaveLength(1);
    expect(tested.served.process.exitCode).toBeNull();
  });

  test("answers 503 when it loses its connection during a query, lives on, and goes on with the run", async () => {
    await addUsers(sql, numberedUsers(2), demoPassword);
    const other = connect(tested.database.url);
    const { promise: released, resolve: release } = withResolvers();
    let holding: Promise<unknown> = Promise.resolve();
    behaviour.beforeWrite = async () => {
      behaviour.beforeWrite = async () => {};
      const { promise: isLocked, resolve: locked } = withResolvers();
      holding = other.begin(async (transaction) => {
        await transaction`lock table tenancy.user_metadata_audit in exclusive mode`;
        locked();
        await released;
      });
      await isLocked;
    };
    const answer = call({ concurrency: 1 });
    try {
      const waiting = async () =>
        await sql`
          select from pg_locks
          join pg_database on pg_database.oid = pg_locks.database
          where not granted and datname = current_database() and relation = 'tenancy.user_metadata_audit'::regclass
        `;
      await vi.waitUntil(async () => (await waiting()).length > 0, 60_000);
      await loseConnection();
      expect(await answer).toMatchObject({ status: 503, reply: { error: { code: "database_unavailable" } } });
    } finally {
      release();
      await holding;
      await other.end();
    }
    expect((await call()).reply).toMatchObject({ done: true, updated: 2, failed: 0 });
    expect(tested.served.process.exitCode).toBeNull();
  });

  test("refuses a second run while one is in progress", async () => {
    await addUsers(sql, numberedUsers(2), demoPassword);
    const { promise: written, resolve: write } = withResolvers();
    const { promise: begun, resolve: begin } = withResolvers();
    behaviour.beforeWrite = async () => {
      begin();
      await written;
    };
    const first = call({ concurrency: 1 });
    await begun;
    expect(await call()).toMatchObject({ status: 409, reply: { error: { code: "run_in_progress" } } });
    expect((await call({ dry_run: true })).status).toBe(200);
    write();
    expect((await first).reply).toMatchObject({ done: true, updated: 2 });
    expect((await call()).status).toBe(200);
  });

  test("stops at once when the Auth server asks for a longer pause than there is time, and says when to come back", async () => {
    await addUsers(sql, numberedUsers(3), demoPassword);
    behaviour.choose = () => ({ status: 429, headers: { "retry-after": "30" }, body: "<html>" });
    const { reply } = await call({ max_seconds: 20, concurrency: 1 });
    expect(reply).toMatchObject({ done: false, remaining: 3 });
    expect(Number(reply["seconds"]), "it did not use up its time").toBeLessThan(20);
    expect(Number(reply["seconds"]) + Number(reply["retry_in_seconds"])).toBeGreaterThanOrEqual(29);
    expect(requests.length).toBe(1);
    behaviour.choose = () => undefined;
    expect((await call()).reply).toMatchObject({ done: true, updated: 3, retry_in_seconds: 0 });
  });

  test("counts a user who is deleted meanwhile, and fails nobody", async () => {
    await addUsers(sql, numberedUsers(2), demoPassword);
    behaviour.choose = ({ path }) => {
      if (path.endsWith(userId(1))) void sql`delete from auth.users where id = ${userId(1)}`.execute();
      return undefined;
    };
    const { reply } = await call({ concurrency: 1 });
    expect(reply).toMatchObject({ done: true, failed: 0, users_without_org: 0 });
    expect(Number(reply["updated"]) + Number(reply["deleted"])).toBe(2);
  });
});
