import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database, runAsSuperuser } from "../databases.ts";
import { takeLastStep } from "../last-step.ts";
import { laterChanges } from "../later-changes.ts";
import { defaultOrgId } from "../organizations.ts";
import { advance, bind, checkNewTables, dropApplication, repeat } from "../steps.ts";

/** Isolated, bound and with memberships that follow a table, in short with every opt-in. */
async function prepareHarbour(database: Database): Promise<void> {
  const { sql } = database;
  await dropApplication(sql);
  await sql.unsafe(`
    create schema pier;
    grant usage on schema pier to authenticated;
    create domain pier.depth as integer;
    create table pier.boats (id integer primary key, user_id uuid references auth.users (id), name text, draught pier.depth);
    create table pier.notes (id integer primary key, user_id uuid, boat_id integer references pier.boats (id), body text);
    create table pier.visits (id integer, year integer, primary key (id, year)) partition by list (year);
    create table pier.visits_2024 partition of pier.visits for values in (2024);
    create table pier.visits_2025 partition of pier.visits for values in (2025);
    create table pier.kinds (code text primary key);
    create table pier.crew (user_id uuid, org_id uuid, rank text, primary key (user_id, org_id));
    insert into tenancy.registry (schema_name, table_name, scope, reason)
    values ('pier', 'kinds', 'excluded', 'shared'), ('pier', 'crew', 'excluded', 'memberships');
    insert into pier.boats (id, user_id) select n, (select id from auth.users limit 1) from generate_series(1, 9) as n;
    insert into pier.notes (id, boat_id) select n, n from generate_series(1, 9) as n;
    insert into pier.visits (id, year) values (1, 2024), (2, 2025);
    insert into pier.crew select id, '${defaultOrgId}', 'sailor' from auth.users;
    update tenancy.registry set table_name = table_name;
  `).simple();
  for (const table of ["boats", "notes", "visits"]) {
    const relation = `pier.${table}`;
    await sql.unsafe(`
      insert into tenancy.registry (schema_name, table_name, scope, priority, org_from)
      values ('pier', '${table}', 'org', 'secondary', ${table === "visits" ? "'{}'" : "null"})
    `);
    await sql`select tenancy.onboard(${relation}::regclass)`;
  }
  for (const table of ["boats", "notes", "visits", "visits_2024", "visits_2025"]) {
    await sql.unsafe(`alter table pier.${table} enable row level security`);
  }
  for (const relation of ["pier.boats", "pier.notes", "pier.visits"]) {
    await repeat(sql, `tenancy.enable_org_isolation('${relation}', despite_findings => true)`);
    await repeat(sql, `tenancy.enable_least_privilege('${relation}')`);
  }
  await bind(sql, "pier.notes");
  await sql`select tenancy.enable_memberships('pier.crew', role_column => 'rank'), tenancy.enable_new_users('default')`;
  await checkNewTables(database.name);
}

const failures = async (sql: Sql) => [
  ...(await sql<{ failed: string; detail: string }[]>`
    select concat_ws(' ', table_name, check_name) as failed, detail
    from tenancy.verify()
    where passed is distinct from true
    order by 1
  `),
];

/** Of the fillers nothing is left after the last step. */
const isOfFillers = (failed: string) => /^fillers$| filler$/.test(failed);

describe.each([["before the last step", false], ["after the last step", true]])(
  "tenancy.verify(), years later, %s",
  (when, isFinished) => {
    let database: Database;
    let sql: Sql;

    beforeAll(async () => {
      database = await cloneDatabase(`years_later_${when.slice(0, 5)}`, "migrated_with_data");
      sql = database.sql;
      await prepareHarbour(database);
      if (isFinished) await takeLastStep(sql);
    });

    afterAll(async () => await database?.drop());

    test("finds nothing before", async () => {
      expect(await failures(sql)).toEqual([]);
    });

    test.each(laterChanges.map((change) => [change.name, change] as const))(
      "is right after this: %s",
      async (_name, change) => {
        await rehearse(sql, async () => {
          await sql.unsafe(change.sql).simple();
          const found = await failures(sql);
          const withoutFillers = change.failedAfterwards ?? change.failed.filter((failed) => !isOfFillers(failed));
          const expected = isFinished ? withoutFillers : change.failed;
          expect(found.map(({ failed }) => failed).sort()).toEqual(expected);
          if (change.says && expected.length > 0) {
            expect(found.map(({ detail }) => detail).join("\n")).toMatch(change.says);
          }
          if (!change.onboards) return;
          await sql`create table pier.ropes (id integer primary key, user_id uuid)`;
          const error = await refusalOf(sql, async () => await sql`select tenancy.onboard('pier.ropes')`);
          expect(error?.message).toMatch(change.onboards);
        });
      },
    );

    test("names whichever column of its own tables is renamed", async () => {
      const columns = await sql<{ table: string; column: string }[]>`
        select attrelid::regclass::text as table, attname::text as column
        from pg_attribute
        join pg_class on pg_class.oid = attrelid and relkind = 'r' and relnamespace = 'tenancy'::regnamespace
        where attnum > 0 and not attisdropped
      `;
      expect(columns.length).toBeGreaterThan(50);
      for (const { table, column } of columns) {
        await rehearse(sql, async () => {
          await sql.unsafe(`alter table ${table} rename column ${column} to another`);
          expect(await sql`select object, problem from tenancy.library_findings`).toMatchObject([
            { object: table, problem: expect.stringContaining(`no ${column},`) },
          ]);
        });
      }
    });
  },
);

describe("tenancy.verify(), years later", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("years_later", "migrated_with_data");
    sql = database.sql;
    await prepareHarbour(database);
  });

  afterAll(async () => await database?.drop());

  test("is right after rows were deleted, after the statistics were reset, and after a vacuum full", async () => {
    await sql`delete from pier.notes where id = 9`;
    await sql`select pg_stat_force_next_flush()`;
    expect(await failures(sql)).toEqual([]);
    await runAsSuperuser(database.name, "select pg_stat_reset()");
    expect(await failures(sql)).toEqual([]);
    await sql`vacuum full pier.notes`;
    expect(await failures(sql)).toEqual([]);
  });

  test("a new partition of an isolated table has all of it from the new-table check, however it is made", async () => {
    await rehearse(sql, async () => {
      await sql.unsafe(`
        alter default privileges in schema pier grant trigger, truncate on tables to authenticated;
        create table pier.visits_2026 partition of pier.visits for values in (2026);
        create table pier.visits_2027 (like pier.visits including defaults);
        alter table pier.visits attach partition pier.visits_2027 for values in (2027);
        set constraints all immediate;
        create table pier.visits_2028 partition of pier.visits for values in (2028) partition by list (id)
      `).simple();
      expect(await failures(sql)).toEqual([]);
      const policies = await sql`
        select polrelid::regclass::text as relation from pg_policy where polrelid::regclass::text like 'pier.visits_202_' order by 1
      `;
      expect(policies.map(({ relation }) => relation)).toEqual(
        [4, 5, 6, 7, 8].map((year) => `pier.visits_202${year}`),
      );
    });
  });

  test("its owner, who is not ours, can make a partition", async () => {
    await rehearse(sql, async () => {
      await runAsSuperuser(database.name, "create role pier_master; grant pier_master to postgres");
      try {
        await sql.unsafe(`
          grant all on schema pier to pier_master;
          alter table pier.visits owner to pier_master
        `).simple();
        const unguarded = (await failures(sql)).map(({ failed }) => failed);
        expect(unguarded).toEqual(
          ["filler", "guard", "guard_move", "guard_statement"].map((part) => `pier.visits ${part}`),
        );
        await advance(sql, "filler", "guard guard_move guard_statement");
        expect(await failures(sql)).toEqual([]);
        await sql.unsafe(
          "set local role pier_master; create table pier.visits_2026 partition of pier.visits for values in (2026)",
        )
          .simple();
      } finally {
        await sql`rollback`;
        await runAsSuperuser(database.name, "drop role pier_master");
      }
    });
  });

  test("what was granted is granted again: with its option, and on columns", async () => {
    await rehearse(sql, async () => {
      const privileges = async () => [
        ...await sql`
          select relacl::text, array(select attacl::text from pg_attribute where attrelid = pg_class.oid and attacl is not null) as columns
          from pg_class where oid = 'pier.boats'::regclass
        `,
      ];
      await repeat(sql, "tenancy.disable_least_privilege('pier.boats')");
      await sql.unsafe(`
        grant trigger on pier.boats to authenticated with grant option;
        grant references (name) on pier.boats to anon;
        grant truncate on pier.boats to public
      `).simple();
      const before = await privileges();
      await repeat(sql, "tenancy.enable_least_privilege('pier.boats')");
      expect(await privileges()).not.toEqual(before);
      expect(await failures(sql)).toEqual([]);
      await repeat(sql, "tenancy.disable_least_privilege('pier.boats')");
      const sorted = (rows: unknown) => JSON.stringify(rows).split(/[{},"]/).sort();
      expect(sorted(await privileges())).toEqual(sorted(before));
    });
  });

  test("a registered table that is made again is no reason to refuse a transaction", async () => {
    await rehearse(sql, async () => {
      await sql.unsafe(`
        drop table pier.notes; create table pier.notes (id integer primary key, user_id uuid);
        set constraints all immediate
      `).simple();
      expect((await failures(sql)).map(({ failed }) => failed)).toContain("pier.notes column");
    });
  });

  test("no new table is let through where the settings are lost", async () => {
    await rehearse(sql, async () => {
      await sql`delete from tenancy.settings`;
      const error = await refusalOf(
        sql,
        async () => await sql.unsafe("create table pier.crates (id integer); set constraints all immediate").simple(),
      );
      expect(error).toMatchObject({ code: "55000", message: expect.stringContaining("[settings_missing]") });
    });
  });

  test("and all of it can be undone, with the new-table check on", async () => {
    await repeat(sql, "tenancy.roll_back(1)");
    expect(await sql`select from pg_attribute where attrelid = 'pier.visits'::regclass and attname = 'org_id'`).toEqual(
      [],
    );
    expect(await sql`select from pg_policy where polname = 'org_isolation'`).toEqual([]);
    expect(await sql`select from tenancy.registry where isolated or privileges_before is not null`).toEqual([]);
    expect(await sql`select from tenancy.bound_references`).toEqual([]);
  });
});
