import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { digestTables, pushTarget, type TableDigest } from "../../local/application.ts";
import { root } from "../../local/project.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase } from "../databases.ts";
import { refusal } from "../attempts.ts";
import { readSection, runAsWritten } from "../readme.ts";
import { defaultOrgId } from "../organizations.ts";
import { describeSchema, ofTheApplication } from "../schema.ts";
import { bind, repeat } from "../steps.ts";

const undo = readSection("## Undo", "docs/operate.md");

describe("the shipped application goes up, down and up again", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let schemaBefore: string[];
  let schemaUp: string[];
  let rowsBefore: Map<string, TableDigest>;

  /** The documented loop, back to this phase. */
  async function rollBack(phase: number): Promise<void> {
    const loop = undo.blocks("sql").find((block) => block.includes("tenancy.roll_back(1)"));
    if (!loop) throw new Error("Cannot find the loop of tenancy.roll_back(1) in docs/operate.md");
    await database.sql.unsafe(loop.replace("roll_back(1)", `roll_back(${phase})`));
  }

  /** What the catalog has of org_id on the application's tables, counted without any function of the migrations. */
  async function countOrgIds(): Promise<Record<string, number>> {
    const [counts] = await database.sql`
      with org_id as (
        select attribute.*
        from pg_attribute as attribute
        join pg_class on pg_class.oid = attrelid
        where attname = 'org_id' and not attisdropped and relkind = 'r' and relnamespace = 'public'::regnamespace
      ),
      of_org_id as (
        select contype, convalidated, conkey, confrelid, confdeltype, pg_get_constraintdef(pg_constraint.oid) as definition, attnum
        from pg_constraint
        join org_id on attrelid = conrelid and attnum = any (conkey)
      )
      select
        (select count(*)::integer from pg_policy where polname = 'org_isolation') as isolated,
        (select count(*)::integer from of_org_id where contype = 'f' and cardinality(conkey) > 1) as bound,
        (
          select count(*)::integer from pg_trigger
          where tgname ~ '^(zzz_)?org_id_immutable_' and tgenabled = 'A' and not tgisinternal
        ) as guards,
        (select count(*)::integer from pg_trigger where tgname ~ '^zzz_fill_org_id_' and not tgisinternal) as fillers,
        (select count(*)::integer from org_id where attnotnull) as not_null,
        (
          select count(*)::integer from of_org_id
          where contype = 'c' and convalidated and definition = 'CHECK ((org_id IS NOT NULL))'
        ) as checked,
        (
          select count(*)::integer from of_org_id
          where contype = 'f' and convalidated and conkey = array[attnum] and confdeltype = 'c'
            and confrelid = to_regclass('public.organizations')
        ) as foreign_keys,
        (
          select count(*)::integer
          from org_id
          join pg_index on indrelid = attrelid and indkey[0] = attnum and indnatts = 1 and indisvalid
        ) as indexes,
        (
          select count(*)::integer
          from org_id
          join pg_attrdef on adrelid = attrelid and adnum = attnum and pg_get_expr(adbin, adrelid) ~ 'auth_org_id\\(\\)'
        ) as defaults,
        (select count(*)::integer from org_id) as columns,
        (select count(*)::integer from org_migration.backfills) as backfills
    `;
    return counts as unknown as Record<string, number>;
  }

  beforeAll(async () => {
    database = await cloneDatabase("roll_back", "before");
    schemaBefore = await describeSchema(database.sql);
    rowsBefore = await digestTables(database.sql);
    await supabase(["db", "push", ...pushTarget(database.url)]);
    schemaUp = await describeSchema(database.sql);
  });

  afterAll(async () => await database?.drop());

  test("while a view and a policy use org_id it refuses to go back to phase 1, and touches nothing", async () => {
    const { sql } = database;
    await sql`create view public.calls_of_organizations as select org_id, count(*) from public.calls group by org_id`;
    await sql`create policy "of the organization" on public.leads for select using (org_id = (select public.auth_org_id()))`;
    const before = await describeSchema(sql);

    const refused = await refusal(rollBack(1));
    expect(refused).toMatchObject({ code: "2BP01" });
    expect(refused?.message.split("\n").slice(1)).toEqual([
      expect.stringMatching(
        /^public\.calls: rule _RETURN on view public\.calls_of_organizations; .* \[uses_org_id\]$/,
      ),
      expect.stringMatching(/^public\.leads: policy of the organization on table public\.leads; .* \[uses_org_id\]$/),
    ]);
    expect(await sql`select code, severity, table_name from org_migration.dependent_findings order by table_name`)
      .toEqual([
        { code: "uses_org_id", severity: "stops", table_name: "public.calls" },
        { code: "uses_org_id", severity: "stops", table_name: "public.leads" },
      ]);
    expect(await describeSchema(sql)).toEqual(before);

    await sql`drop view public.calls_of_organizations`;
    await sql`drop policy "of the organization" on public.leads`;
  });

  describe("phase by phase", () => {
    const all = {
      isolated: 1,
      bound: 1,
      guards: 45,
      fillers: 45,
      not_null: 45,
      checked: 45,
      foreign_keys: 45,
      indexes: 45,
      defaults: 45,
      columns: 45,
      backfills: 45,
    };

    beforeAll(async () => {
      // Whatever can be opted into is on.
      const { sql } = database;
      await sql`
        update auth.users set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', ${defaultOrgId}::text)
      `;
      await repeat(sql, "tenancy.enable_org_isolation('public.calls', despite_findings => true)");
      await bind(sql, "public.call_logs");
    });

    test("all of it is there before", async () => {
      expect(await countOrgIds()).toEqual(all);
    });

    test.each([
      [6, { ...all, isolated: 0, bound: 0 }],
      [5, { ...all, isolated: 0, bound: 0, guards: 0 }],
      [4, { ...all, isolated: 0, bound: 0, guards: 0 }],
      [3, { ...all, isolated: 0, bound: 0, guards: 0, not_null: 0, checked: 0 }],
      [2, { ...all, isolated: 0, bound: 0, guards: 0, not_null: 0, checked: 0, backfills: 0 }],
    ])("back to phase %i, what came after it is gone and the rest stays", async (phase, expected) => {
      const { sql } = database;
      await rollBack(phase);
      expect(await countOrgIds()).toEqual(expected);
      const after = new Set(await describeSchema(sql));
      expect(schemaBefore.filter((entry) => !after.has(entry)), "of the application's own").toEqual([]);
      const [rows] =
        await sql`select count(*)::integer as lost from public.calls where org_id is distinct from ${defaultOrgId}`;
      expect(rows, "the organizations of the rows are still there").toEqual({ lost: 0 });
    });

    test("back to phase 1, the application is what it was, in every definition and in every row", async () => {
      const { sql } = database;
      await rollBack(1);
      expect(await countOrgIds()).toEqual(Object.fromEntries(Object.keys(all).map((key) => [key, 0])));
      expect(ofTheApplication(await describeSchema(sql))).toEqual(schemaBefore);
      expect(await digestTables(sql)).toEqual(rowsBefore);
      const [left] = await sql`
        select
          (select count(*)::integer from tenancy.registry) as registered,
          (select count(*)::integer from public.organizations) as organizations,
          (select count(*)::integer from auth.users where raw_app_meta_data ->> 'org_id' = ${defaultOrgId}) as users
      `;
      expect(left).toEqual({ registered: 54, organizations: 1, users: 60 });
    });
  });

  test("after the documented repair a push brings it to the same schema again", async () => {
    const { sql } = database;
    const again = undo.blocks("sh").find((block) => block.includes("migration repair")) ?? "";
    const { code, output } = await runAsWritten(again, { folder: root, url: database.url });
    expect(code, output).toBe(0);
    expect(await describeSchema(sql)).toEqual(schemaUp);
    expect(await sql`select * from tenancy.verify() where not passed`).toEqual([]);
    expect(await digestTables(sql)).toEqual(rowsBefore);
  });
});
