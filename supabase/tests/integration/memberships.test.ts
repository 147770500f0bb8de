import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { become, refusal } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { north, south } from "../organizations.ts";
import { addUsers, numberedUsers, userId } from "../users.ts";

describe("memberships that two sessions change at the same moment", () => {
  let database: Database;
  let sql: Sql;
  let first: Sql;
  let second: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("memberships", "migrated");
    sql = database.sql;
    first = connect(database.url);
    second = connect(database.url);
    await sql`insert into public.organizations (id, name) values (${north}, 'north'), (${south}, 'south')`;
    await addUsers(sql, numberedUsers(2));
    await sql`select tenancy.enable_memberships()`;
  });

  beforeEach(async () => {
    await sql`delete from tenancy.memberships`;
    await sql`delete from tenancy.user_orgs`;
    await sql`update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id'`;
    // With a mapping nobody is put into the default organization.
    await sql`insert into tenancy.user_orgs (user_id, org_id) values (${userId(2)}, ${north})`;
  });

  afterAll(async () => {
    await first?.end();
    await second?.end();
    await database?.drop();
  });

  const join = async (session: Sql, orgId: string) =>
    await session`insert into tenancy.memberships (user_id, org_id) values (${userId(1)}, ${orgId})`;
  const remove = async (session: Sql, orgId: string) =>
    await session`delete from tenancy.memberships where (user_id, org_id) = (${userId(1)}, ${orgId})`;
  const switchTo = async (session: Sql, orgId: string) => {
    await become(session, "authenticated", { sub: userId(1), role: "authenticated" });
    await session`select public.switch_organization(${orgId})`;
  };

  /** Lets a session act until it waits for another one or is done. */
  const untilItWaits = async (session: Sql, act: (session: Sql) => Promise<unknown>) => {
    const [row] = await session`select pg_backend_pid() as pid`;
    let over = false;
    const outcome = refusal(act(session)).finally(() => over = true);
    const waits = async () =>
      (await sql`select from pg_stat_activity where pid = ${row?.["pid"]} and wait_event_type = 'Lock'`).length > 0;
    while (!over && !(await waits())) await sleep(5);
    return { hasWaited: !over, refusal: outcome };
  };

  /** Lets the first session act and wait with its commit until the second one, which acts then, waits for it. */
  const atOnce = async (act: (session: Sql) => Promise<unknown>, then: (session: Sql) => Promise<unknown>) => {
    await first`begin`;
    await act(first);
    await second`begin`;
    const { hasWaited, refusal: error } = await untilItWaits(second, then);
    await first`commit`;
    const refused = await error;
    await second.unsafe(refused ? "rollback" : "commit");
    return { hasWaited, refused: refused?.code };
  };

  /** The active organization, and the one that the next token has. */
  const read = async () => {
    const [row] = await sql`
      select user_orgs.org_id as active, users.raw_app_meta_data ->> 'org_id' as claim
      from auth.users
      left join tenancy.user_orgs on user_orgs.user_id = users.id
      where users.id = ${userId(1)}
    `;
    return { ...row };
  };

  test("a switch into an organization that the user is just removed from is refused", async () => {
    await join(sql, north);
    await join(sql, south);
    const outcome = await atOnce((session) => remove(session, south), (session) => switchTo(session, south));
    expect(outcome).toEqual({ hasWaited: true, refused: "42501" });
    expect(await read()).toEqual({ active: north, claim: north });
  });

  test("a removal from the organization that the user has just switched to leaves them in none", async () => {
    await join(sql, north);
    await join(sql, south);
    const outcome = await atOnce((session) => switchTo(session, south), (session) => remove(session, south));
    expect(outcome).toEqual({ hasWaited: true, refused: undefined });
    expect(await read()).toEqual({ active: null, claim: null });
  });

  test("a removal from the organization that the user has just left leaves them where they are", async () => {
    await join(sql, north);
    await join(sql, south);
    const outcome = await atOnce((session) => switchTo(session, south), (session) => remove(session, north));
    expect(outcome).toEqual({ hasWaited: false, refused: undefined });
    expect(await read()).toEqual({ active: south, claim: south });
  });

  test("a removal that does not see the switch, under repeatable read, has to start again", async () => {
    await join(sql, north);
    await join(sql, south);
    await first`begin isolation level repeatable read`;
    await first`select from tenancy.user_orgs`;
    await second`begin`;
    await switchTo(second, south);
    await second`commit`;
    await remove(first, south);
    expect((await refusal(first`commit`))?.code).toBe("40001");
    expect(await read()).toEqual({ active: south, claim: south });

    await first`begin isolation level repeatable read`;
    await remove(first, south);
    await first`commit`;
    expect(await read()).toEqual({ active: null, claim: null });
  });

  describe("of a user whom app_metadata alone places, so that the switch is their first one", () => {
    beforeEach(async () => {
      await sql`
        update auth.users set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', ${north}::text)
        where id = ${userId(1)}
      `;
      await join(sql, north);
      await join(sql, south);
      expect(await read()).toEqual({ active: null, claim: north });
      await first`begin isolation level repeatable read`;
      await first`select from tenancy.user_orgs`;
    });

    test("a removal under repeatable read that does not see it has to start again", async () => {
      await second`begin`;
      await switchTo(second, south);
      await second`commit`;
      await remove(first, south);
      expect((await refusal(first`commit`))?.code).toBe("40001");
      expect(await read()).toEqual({ active: south, claim: south });
    });

    test("a removal under repeatable read that waited for it has to start again", async () => {
      await second`begin`;
      await switchTo(second, south);
      const removing = await untilItWaits(first, (session) => remove(session, south));
      expect(removing.hasWaited).toBe(true);
      await second`commit`;
      expect(await removing.refusal).toBeUndefined();
      expect((await refusal(first`commit`))?.code).toBe("40001");
      expect(await read()).toEqual({ active: south, claim: south });
    });

    test("it is refused after a removal under repeatable read, which leaves them where they were", async () => {
      await remove(first, south);
      await second`begin`;
      const switching = await untilItWaits(second, (session) => switchTo(session, south));
      expect(switching.hasWaited).toBe(true);
      await first`commit`;
      expect((await switching.refusal)?.code).toBe("42501");
      await second`rollback`;
      expect(await read()).toEqual({ active: null, claim: north });
      expect(await sql`select from tenancy.user_orgs where user_id = ${userId(1)}`).toHaveLength(0);
    });
  });

  // Why switch_organization locks the organization itself, before user_orgs, whose foreign key does so afterwards.
  test("a transaction that deletes both the organization of a user and the one they switch to does not fail", async () => {
    const [east, west] = ["b0000000-0000-4000-8000-00000000ea57", "b0000000-0000-4000-8000-000000003e57"];
    await sql`insert into public.organizations (id, name) values (${east}, 'east'), (${west}, 'west')`;
    await join(sql, west);
    await join(sql, east);
    await second`begin`;
    await second`delete from public.organizations where id = ${east}`;
    await first`begin`;
    const switching = await untilItWaits(first, (session) => switchTo(session, east));
    expect(switching.hasWaited).toBe(true);
    await second`delete from public.organizations where id = ${west}`;
    await second`commit`;
    expect((await switching.refusal)?.code).toBe("42501");
    await first`rollback`;
    expect(await read()).toEqual({ active: null, claim: null });
  });

  test("an organization that is deleted while somebody switches to it waits, and neither fails", async () => {
    const third = connect(database.url);
    const east = "b0000000-0000-4000-8000-00000000ea57";
    try {
      await sql`insert into public.organizations (id, name) values (${east}, 'east')`;
      await join(sql, north);
      await join(sql, east);
      await third`begin`;
      await third`select from tenancy.user_orgs where user_id = ${userId(1)} for update`;
      await first`begin`;
      const switching = await untilItWaits(first, (session) => switchTo(session, east));
      const deleting = await untilItWaits(
        second,
        (session) => session`delete from public.organizations where id = ${east}`,
      );
      expect([switching.hasWaited, deleting.hasWaited]).toEqual([true, true]);
      await third`commit`;
      expect(await switching.refusal).toBeUndefined();
      await first`commit`;
      expect(await deleting.refusal).toBeUndefined();
      expect(await read()).toEqual({ active: null, claim: null });
    } finally {
      await third.end();
      await sql`delete from public.organizations where id = ${east}`;
    }
  });

  test("of two first memberships one becomes active, and is the one in the token", async () => {
    const outcome = await atOnce((session) => join(session, north), (session) => join(session, south));
    expect(outcome).toEqual({ hasWaited: true, refused: undefined });
    expect(await read()).toEqual({ active: north, claim: north });
  });

  describe("by a table of the application, with a row per role", () => {
    const rolesOf = async (session: Sql, role: string) =>
      await session`delete from public.roles where (member, role) = (${userId(1)}, ${role})`;

    beforeEach(async () => {
      await sql.unsafe(`
        drop table if exists public.roles;
        create table public.roles (id integer generated always as identity, member text, company uuid, role text);
        insert into public.roles (member, company, role) values ('${userId(1)}', '${north}', 'author'), ('${
        userId(1)
      }', '${north}', 'editor');
      `).simple();
    });

    test("two that each take away one of them take away the membership", async () => {
      await sql`select tenancy.enable_memberships('public.roles', 'member', 'company', 'role')`;
      expect(await read()).toEqual({ active: north, claim: north });
      const outcome = await atOnce((session) => rolesOf(session, "author"), (session) => rolesOf(session, "editor"));
      expect(outcome).toEqual({ hasWaited: true, refused: undefined });
      expect(await sql`select from tenancy.memberships`).toHaveLength(0);
      expect(await read()).toEqual({ active: null, claim: null });
    });

    test("what is written while it is enabled is not missed", async () => {
      const outcome = await atOnce(
        (session) => session`insert into public.roles (member, company, role) values (${userId(1)}, ${south}, 'guest')`,
        (session) => session`select tenancy.enable_memberships('public.roles', 'member', 'company', 'role')`,
      );
      expect(outcome).toEqual({ hasWaited: true, refused: undefined });
      expect(await sql`select org_id, role from tenancy.memberships order by org_id`).toEqual([
        { org_id: north, role: "author" },
        { org_id: south, role: "guest" },
      ]);
    });
  });

  test("another role of a membership keeps nobody from switching to it", async () => {
    await join(sql, north);
    await join(sql, south);
    const outcome = await atOnce(
      (session) => session`update tenancy.memberships set role = 'guest' where org_id = ${south}`,
      (session) => switchTo(session, south),
    );
    expect(outcome).toEqual({ hasWaited: false, refused: undefined });
    expect(await read()).toEqual({ active: south, claim: south });
  });
});
