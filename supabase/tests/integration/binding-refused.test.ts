import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { refusal, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database, runAsSuperuser } from "../databases.ts";
import { north, south } from "../organizations.ts";
import { describeCrossing, findCrossing, listCrossing, readReferences, uncross } from "../references.ts";
import { describeSchema } from "../schema.ts";
import { bind, dropApplication, indexLines } from "../steps.ts";

describe("rows that reference another organization's", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("crossing", "two_organizations");
    sql = database.sql;
  });

  afterAll(async () => await database?.drop());

  test("are listed, each by its key, as they are in the demonstration's data", async () => {
    const found = await findCrossing(sql);
    expect(found.length).toBeGreaterThan(100);
    expect(await listCrossing(sql)).toEqual(found);
    const [calls] = await sql`
      select count(*)::integer as listed, (
        select count(*)::integer from tenancy.cross_org_references() where relation = 'public.calls'::regclass
      ) as of_all
      from tenancy.cross_org_references('public.calls')
    `;
    expect(calls?.["listed"]).toBe(calls?.["of_all"]);
  });

  test("are not there when nothing is listed, and exactly those that were planted are", async () => {
    await uncross(sql);
    expect(await findCrossing(sql)).toEqual([]);
    expect(await listCrossing(sql)).toEqual([]);
    const planted: string[] = [];
    const plant = async (name: string, child: string, column: string, parent: string) => {
      const [row] = await sql.unsafe(`
        update ${child} set ${column} = (select id from ${parent} where org_id = '${south}' order by id limit 1)
        where ctid = (select ctid from ${child} where org_id = '${north}' order by ctid limit 1)
        returning to_jsonb(${child}) as row
      `);
      const [key] = await sql<{ columns: string[] }[]>`
        select array_agg(attname::text) as columns from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey)
        where indisprimary and indrelid = ${child}::regclass
      `;
      planted.push(
        describeCrossing(
          child,
          Object.fromEntries((key?.columns ?? []).map((part) => [part, row?.["row"][part]])),
          north,
          name,
          parent,
          south,
        ),
      );
    };
    await plant("calls_lead_id_fkey", "calls", "lead_id", "leads");
    await plant("campaigns_cloned_from_id_fkey", "campaigns", "cloned_from_id", "campaigns");
    await plant("kb_sync_log_integration_id_fkey", "kb_sync_log", "integration_id", "integrations");
    await plant("campaign_phone_numbers_campaign_id_fkey", "campaign_phone_numbers", "campaign_id", "campaigns");
    expect(await listCrossing(sql)).toEqual(planted.sort());
  });

  test.each(["calls", "campaigns", "kb_sync_log", "campaign_phone_numbers"])(
    "keep the foreign keys of %s from being bound, and the refusal says where they are listed",
    async (table) => {
      const error = await refusal(bind(sql, `public.${table}`));
      expect(error).toMatchObject({ code: "23503", schema_name: "public", table_name: table });
      const listing = /tenancy\.cross_org_references\([^)]*\)/.exec(error?.message ?? "")?.[0];
      expect((await sql.unsafe(`select relation::text from ${listing}`)).map((row) => row["relation"])).toEqual([
        table,
      ]);
      const crossing = (await readReferences(sql)).filter(({ child, name, columns }) =>
        child === table && columns[0] !== "org_id" && error?.constraint_name === name
      );
      expect(crossing, "the foreign key is what it was").toHaveLength(1);
    },
  );
});

describe("foreign keys that cannot be bound", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("unbindable", "two_organizations");
    sql = database.sql;
    await dropApplication(sql);
    await sql.unsafe(`
      create schema harbour;
      create table harbour.ports (id integer primary key);
      select tenancy.onboard('harbour.ports');
    `).simple();
  });

  afterAll(async () => await database?.drop());

  test.each([
    ["match full", "foreign key (port_id) references harbour.ports (id) match full"],
    ["not valid", "foreign key (port_id) references harbour.ports (id) not valid"],
    ["on update set null", "foreign key (port_id) references harbour.ports (id) on update set null"],
    ["on update set default", "foreign key (port_id) references harbour.ports (id) on update set default"],
  ])("are such as are %s: they are refused and stay as they are", async (kind, definition) => {
    await rehearse(sql, async () => {
      await sql.unsafe(`
        create table harbour.cranes (id integer primary key, port_id integer);
        alter table harbour.cranes add constraint strange ${definition};
        select tenancy.onboard('harbour.cranes');
      `).simple();
      const before = await describeSchema(sql);
      expect(await refusalOf(sql, async () => await sql`select tenancy.enable_binding('harbour.cranes')`))
        .toMatchObject({
          code: "0A000",
          constraint_name: "strange",
        });
      // No index helps them, except one that can be validated first.
      expect(await sql`select from tenancy.binding_index_lines where relation = 'harbour.cranes'::regclass`)
        .toHaveLength(kind === "not valid" ? 1 : 0);
      expect(await describeSchema(sql)).toEqual(before);
    });
  });

  test("are none for lack of an index, whose line builds one however often it runs, and whatever has its name", async () => {
    const [home, longer] = ["home_port_id", `second_${"home_".repeat(9)}port_id`];
    await sql.unsafe(`
      create table harbour.boats (
        id integer primary key, ${home} integer references harbour.ports (id), ${longer} integer references harbour.ports (id)
      );
      create table harbour.rafts (idx_boats integer);
      create index idx_boats_org_id_home_port_id on harbour.rafts (idx_boats);
      insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'rafts', 'excluded', 'a test');
      select tenancy.onboard('harbour.boats');
    `).simple();
    const lines = async () => indexLines(await refusal(sql`select tenancy.enable_binding('harbour.boats')`));
    const indexes = async () =>
      (await sql`select indexrelid::regclass::text as name from pg_index where indrelid = 'harbour.boats'::regclass order by 1`)
        .map(({ name }) => name as string);
    const before = await indexes();
    const told = await lines();
    expect(told.filter((line) => line.includes("harbour.boats"))).toEqual([
      `create index concurrently if not exists idx2_boats_org_id_${home} on harbour.boats (org_id, ${home});`,
      expect.stringMatching(
        `^create index concurrently if not exists idx_[0-9a-f]{8}_boats_org_id_second_[a-z_]+ on harbour\\.boats \\(org_id, ${longer}\\);$`,
      ),
    ]);
    for (const line of [...told, ...told]) await sql.unsafe(line);
    expect(await indexes()).toHaveLength(before.length + 2);

    // A build that was interrupted leaves an index that is not valid, which "if not exists" takes for one.
    const broken = `harbour.idx2_boats_org_id_${home}`;
    await runAsSuperuser(
      database.name,
      `update pg_index set indisvalid = false where indexrelid = '${broken}'::regclass`,
    );
    expect(await bind(sql, "harbour.boats")).toEqual([
      `drop index concurrently if exists ${broken};`,
      told.find((line) => line.includes("idx2_")),
    ]);
    await sql`drop table harbour.boats, harbour.rafts`;
    await sql`delete from tenancy.registry where table_name in ('boats', 'rafts')`;
  });

  test.each([
    [
      "the child",
      "harbour.cargo",
      `create table harbour.cargo (id integer, port_id integer references harbour.ports (id)) partition by list (id);
       create table harbour.cargo_1 partition of harbour.cargo for values in (1);`,
    ],
    [
      "the parent",
      "harbour.crates",
      `create table harbour.cargo (id integer primary key) partition by list (id);
       create table harbour.cargo_1 partition of harbour.cargo for values in (1);
       create table harbour.crates (id integer primary key, cargo_id integer references harbour.cargo (id));`,
    ],
  ])("are refused where %s is partitioned", async (_side, relation, tables) => {
    await rehearse(sql, async () => {
      await sql.unsafe(tables).simple();
      await sql`select tenancy.onboard('harbour.cargo')`;
      await sql`select tenancy.onboard(${relation}::regclass)`;
      expect(await refusalOf(sql, async () => await sql`select tenancy.enable_binding(${relation}::regclass)`))
        .toMatchObject({
          code: "0A000",
        });
    });
  });
});
