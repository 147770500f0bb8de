import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database, runAsSuperuser } from "../databases.ts";
import { accepted, refused, userId } from "../onboarding-cases.ts";
import { defaultOrgId, otherOrgId } from "../organizations.ts";
import { withResolvers } from "../promises.ts";
import { describeSchema } from "../schema.ts";
import { dropApplication } from "../steps.ts";

describe("onboarding", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("onboard", "migrated");
    sql = database.sql;
    await dropApplication(sql, "calls");
    await runAsSuperuser(
      database.name,
      `create foreign data wrapper nowhere;
       create server elsewhere foreign data wrapper nowhere;
       grant usage on foreign server elsewhere to postgres;`,
    );
    await sql.unsafe(`
      insert into public.organizations (id, name) values ('${otherOrgId}', 'other');
      insert into tenancy.user_orgs (user_id, org_id) values ('${userId}', '${otherOrgId}');
      insert into public.calls (id, user_id, org_id)
      values ('c0000000-0000-4000-8000-000000000001', '${userId}', '${otherOrgId}');
      create schema harbour;
    `).simple();
  });

  afterAll(async () => await database?.drop());

  const onboard = async (relation: string) => [...(await sql`select * from tenancy.onboard(${relation}::regclass)`)];
  const failures =
    async () => [...(await sql`select table_name, check_name, detail from tenancy.verify_schema() where not passed`)];
  const organizations = async (relation: string) =>
    Object.fromEntries(
      (await sql`select id, org_id from ${sql(relation)} order by id`).map((row) => [row["id"], row["org_id"]]),
    );

  test.each(accepted.map((one) => [one.name, one] as const))(
    "takes %s through all phases in one call, and a second call changes nothing",
    async (_name, { table, sql: statements, rows }) => {
      await rehearse(sql, async () => {
        await sql.unsafe(statements).simple();
        const checks = await onboard(table);
        expect(checks.length).toBeGreaterThanOrEqual(9);
        expect(checks.filter((row) => !row["passed"])).toEqual([]);
        expect(await failures()).toEqual([]);
        const found = Object.fromEntries(
          (await sql.unsafe(`select id, org_id from ${table} order by id`)).map((row) => [row["id"], row["org_id"]]),
        );
        expect(found).toEqual(rows);
        expect(
          await sql`
            select scope, priority from tenancy.registry
            join tenancy.application_tables using (schema_name, table_name, scope, priority)
            where relation = ${table}::regclass
          `,
        ).toEqual([{ scope: "org", priority: "secondary" }]);

        const state = async () => [
          ...(await describeSchema(sql)),
          JSON.stringify(await sql.unsafe(`select ctid, xmin, * from ${table} order by id`)),
          JSON.stringify(await sql`select * from tenancy.registry order by 1, 2`),
        ];
        const before = await state();
        expect((await onboard(table)).filter((row) => !row["passed"])).toEqual([]);
        expect(await state()).toEqual(before);

        expect(
          await refusalOf(
            sql,
            async () =>
              await sql.unsafe(`update ${table} set org_id = '${defaultOrgId}' where org_id <> '${defaultOrgId}'`),
          ),
        ).toEqual(Object.values(rows).includes(otherOrgId) ? expect.objectContaining({ code: "23001" }) : undefined);
      });
    },
  );

  test("leaves what the application's triggers keep alone", async () => {
    await rehearse(sql, async () => {
      await sql.unsafe(`
        create table harbour.ships (id integer primary key, user_id uuid, updated_at timestamptz);
        insert into harbour.ships values (1, '${userId}', '2020-01-01');
        create trigger set_updated_at before update on harbour.ships for each row execute function public.set_updated_at();
      `).simple();
      await onboard("harbour.ships");
      expect(await sql`select org_id, updated_at from harbour.ships`).toEqual([
        { org_id: otherOrgId, updated_at: new Date("2020-01-01T00:00:00Z") },
      ]);
    });
  });

  test("takes a child once its parent has been onboarded, each row after its parent's", async () => {
    await rehearse(sql, async () => {
      await sql.unsafe(`
        create table harbour.ships (id integer primary key, user_id uuid);
        create table harbour.cargo (id integer primary key, ship_id integer references harbour.ships (id));
        insert into harbour.ships values (1, '${userId}'), (2, null);
        insert into harbour.cargo values (1, 1), (2, 2);
      `).simple();
      await onboard("harbour.ships");
      await onboard("harbour.cargo");
      expect(await organizations("harbour.cargo")).toEqual({ 1: otherOrgId, 2: defaultOrgId });
      expect(await failures()).toEqual([]);
    });
  });

  test.each(refused)("refuses %s, and leaves nothing behind", async (_name, refusal) => {
    await rehearse(sql, async () => {
      await sql.unsafe(refusal.sql).simple();
      const state = async () => [
        ...(await describeSchema(sql)),
        JSON.stringify(await sql`select * from tenancy.registry order by 1, 2`),
      ];
      const before = await state();
      const error = await refusalOf(sql, () => onboard(refusal.table ?? "harbour.ships"));
      expect(error).toMatchObject({ code: refusal.code });
      if (refusal.finding) expect(error?.message).toContain(`[${refusal.finding}]`);
      expect(error?.message).toContain(refusal.mentions ?? "");
      expect(await state()).toEqual(before);
    });
  });

  test("leaves a table alone that is in use, and takes it when it is called again", async () => {
    await sql`create table harbour.ships (id integer primary key, user_id uuid)`;
    await sql`insert into harbour.ships values (1)`;
    const other = connect(database.url);
    const { promise: released, resolve: release } = withResolvers();
    const { promise: isLocked, resolve: locked } = withResolvers();
    const holding = other.begin(async (transaction) => {
      await transaction`lock table harbour.ships in row exclusive mode`;
      locked();
      await released;
    });
    await isLocked;
    const before = await describeSchema(sql);
    await expect(onboard("harbour.ships")).rejects.toMatchObject({ code: "55P03" });
    expect(await describeSchema(sql)).toEqual(before);
    expect(await sql`select from tenancy.registry where schema_name = 'harbour'`).toHaveLength(0);
    release();
    await holding;
    await other.end();
    expect((await onboard("harbour.ships")).filter((row) => !row["passed"])).toEqual([]);
  });

  test("has nothing to refuse of a large table that is whole", async () => {
    await rehearse(sql, async () => {
      await sql`update tenancy.settings set small_table_bytes = 0`;
      expect((await onboard("public.calls")).filter((row) => !row["passed"])).toEqual([]);
    });
  });
});
