import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { cloneDatabase } from "../databases.ts";

const guards = "do $$ begin while tenancy.advance('guard') loop commit; end loop; end $$";

describe("tenancy.now, of a push in another session,", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  /** The session that pushes, and the one in its way. */
  let push: Sql;
  let other: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("now", "migrated");
    await database.sql`insert into public.calls (user_id, started_at) values (gen_random_uuid(), now())`;
  });

  beforeEach(() => {
    push = connect(database.url);
    other = connect(database.url);
  });

  afterEach(async () => {
    await push.end({ timeout: 1 });
    await other.end({ timeout: 1 });
  });

  afterAll(async () => await database?.drop());

  const pidOf = async (sql: Sql) => (await sql`select pg_backend_pid() as pid`)[0]?.["pid"] as number;
  const readNow = async () => (await database.sql`select *, relation::text as relation from tenancy.now`)[0] ?? {};
  const untilStatus = async (status: string) => {
    for (;;) {
      const now = await readNow();
      if (now["status"] === status) return now;
      await sleep(20);
    }
  };

  test("names who holds the lock that it waits for, and the statement that ends that", async () => {
    await push`drop trigger org_id_immutable_calls on public.calls`;
    await other`begin`;
    await other`update public.calls set started_at = now()`;
    const pid = await pidOf(other);
    const pushed = push.unsafe(guards).execute();
    const now = await untilStatus("blocked");
    expect(now).toMatchObject({
      alive: true,
      session_pid: await database.sql`select pid from org_migration.push_session`.then(([row]) =>
        row?.["pid"] as number
      ),
      step: "guard",
      relation: "calls",
      waits_for: "a lock on calls",
      unblock: `select pg_terminate_backend(${pid});`,
    });
    expect(now["blocked_by"]).toContain(`pid ${pid}, idle in transaction for `);
    expect(now["session_pid"]).not.toBe(pid);
    await database.sql.unsafe(now["unblock"] as string);
    await pushed;
    expect(await readNow()).toMatchObject({ status: "done", unblock: null, blocked_by: null });
  });

  test("names the old snapshot that an index build waits for", async () => {
    await push`drop index public.idx_calls_org_id`;
    await push.unsafe("do $$ begin while tenancy.advance('invalid_index') loop commit; end loop; end $$");
    await other`begin isolation level repeatable read`;
    await other`select count(*) from public.agents`;
    const pid = await pidOf(other);
    const built = push.unsafe("create index concurrently idx_calls_org_id on public.calls (org_id)").execute();
    const now = await untilStatus("blocked");
    expect(now).toMatchObject({
      alive: true,
      phase: 2,
      step: "index",
      relation: "calls",
      table_number: "1",
      tables: "1",
      waits_for: "the index build, waiting for old snapshots",
      unblock: `select pg_terminate_backend(${pid});`,
    });
    await database.sql.unsafe(now["unblock"] as string);
    await built;
    expect(await readNow()).toMatchObject({ status: "done", percent: "100" });
  });

  test("says that the session is gone, and what a push does then", async () => {
    await push`drop trigger org_id_immutable_calls on public.calls`;
    await push`drop trigger org_id_immutable_leads on public.leads`;
    await other`begin`;
    await other`lock table public.leads in share mode`;
    const pushed = push.unsafe(guards).catch((error: { code: string }) => error.code);
    const running = await untilStatus("blocked");
    await database.sql`select pg_terminate_backend(${running["session_pid"] as number})`;
    await pushed;
    expect(await untilStatus("dead")).toMatchObject({
      alive: false,
      session_pid: running["session_pid"],
      session_began: running["session_began"],
      step: "guard",
      relation: "leads",
      percent: running["percent"],
      time_left: null,
      blocked_by: null,
      next: "push",
    });
    await other`rollback`;
    await other.unsafe(guards);
    expect(await readNow()).toMatchObject({ status: "done", alive: true, percent: "100" });
    expect(await database.sql`select * from tenancy.plan`).toEqual([]);
  });

  test("takes no lock that anyone waits for", async () => {
    await database.sql`begin`;
    await database.sql`select * from tenancy.now`;
    const locks = await database.sql`
      select distinct mode from pg_locks where pid = pg_backend_pid() and locktype = 'relation'
    `;
    await database.sql`rollback`;
    expect(locks).toEqual([{ mode: "AccessShareLock" }]);
  });
});
