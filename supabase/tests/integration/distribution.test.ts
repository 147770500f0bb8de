import { join } from "node:path";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { root } from "../../local/project.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { readSection } from "../readme.ts";

interface Row {
  step: string;
  table_name: string | null;
  statement: string | null;
  decision: string | null;
}

const [fold = ""] = readSection("### The order that works", "docs/past-one-server.md").blocks("sql");

/** Citus' functions, of which only the order counts: each notes what it was called with. */
const citus = `
  create schema citus;
  create table citus.calls (number integer generated always as identity, call text);
  create function citus.create_reference_table(name text) returns void language sql as
    $$ insert into citus.calls (call) values ('reference ' || name) $$;
  create function citus.create_distributed_table(name text, key text, colocate_with text default 'none') returns void language sql as
    $$ insert into citus.calls (call) values (concat_ws(' ', 'distributed', name, key, colocate_with)) $$;
  create function citus.truncate_local_data_after_distributing_table(name text) returns void language sql as '';
`;

const readPlan = async (sql: Sql) => [
  ...await sql<Row[]>`
  select step, table_name, statement, decision from tenancy.distribution_plan() order by ordinal
`,
];

const readPrivileges = async (sql: Sql) => [
  ...await sql`
  select defaclrole, defaclnamespace, (select array_agg(item::text order by item::text) from unnest(defaclacl) as item) as privileges
  from pg_default_acl
  order by 1, 2, defaclobjtype
`,
];

const readReferences = async (sql: Sql) => [
  ...await sql<{ name: string; definition: string }[]>`
  select conrelid::regclass || ' ' || conname as name, pg_get_constraintdef(oid) as definition
  from pg_constraint
  where contype = 'f' and conrelid in (select relation from tenancy.org_scoped_tables)
  order by 1
`,
];

describe("the plan that distributes the shipped application", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("distribution", "migrated_with_data");
    sql = database.sql;
    await sql.unsafe(citus).simple();
  });

  afterAll(async () => await database?.drop());

  // What PostgreSQL writes of the same schema differs from version to version.
  test.runIf(inject("major") === 17)("is what supabase/tests/distribution-plan.txt says", async () => {
    const lines = (await readPlan(sql)).map(({ step, table_name, statement, decision }) =>
      [`${step}: ${statement ?? `-- ${table_name}`}`, ...decision ? [`    ${decision}`] : []].join("\n")
    );
    await expect(`${lines.join("\n")}\n`).toMatchFileSnapshot(join(root, "supabase/tests/distribution-plan.txt"));
  });

  test("folds the organization into policies in the transaction that ends isolation", async () => {
    await sql`update tenancy.registry set isolated = true where table_name in ('agents', 'leads')`;
    await sql`select tenancy.advance('isolation')`;
    await sql`select tenancy.advance('isolation')`;
    await expect(readPlan(sql)).rejects.toThrow("restrictive");
    await sql.unsafe(fold);
    const policies = await sql`
      select polname, polpermissive, pg_get_expr(polqual, polrelid) as condition
      from pg_policy
      where polrelid = 'public.leads'::regclass
    `;
    expect([...policies]).toEqual([
      { polname: "own rows", polpermissive: true, condition: "((org_id = auth_org_id()) AND (user_id = auth.uid()))" },
    ]);
    expect((await readPlan(sql)).filter(({ step }) => step === "policy")).toEqual([]);
  });

  test("runs on plain PostgreSQL, from its first statement to its last", async () => {
    const plan = await readPlan(sql);
    const [rows, privileges, references] = [
      await sql`select count(*) from public.call_logs`,
      await readPrivileges(sql),
      await readReferences(sql),
    ];
    await sql`select set_config('search_path', 'public, extensions, citus', false)`;
    for (const { statement } of plan) if (statement) await sql.unsafe(statement);
    await sql`reset search_path`;

    const calls = (await sql<{ call: string }[]>`select call from citus.calls order by number`).map(({ call }) => call);
    expect(calls.slice(0, 3)).toEqual([
      "reference public.customers",
      "reference public.voice_options",
      "distributed public.organizations id none",
    ]);
    const [scoped] =
      await sql`select array_agg(qualified_name order by position) as tables from tenancy.org_scoped_tables`;
    expect(calls.slice(3)).toEqual(
      (scoped?.["tables"] as string[]).map((name) => `distributed ${name} org_id public.organizations`),
    );
    expect(await readPrivileges(sql)).toEqual(privileges);
    expect(await sql`select count(*) from public.call_logs`).toEqual(rows);
    expect(references.length - (await readReferences(sql)).length).toBe(3);
    expect(
      await sql`
      select conrelid::regclass
      from pg_constraint
      where contype in ('p', 'u')
        and conrelid in (select relation from tenancy.org_scoped_tables)
        and pg_get_constraintdef(oid) !~ '\\(org_id, '
    `,
    ).toEqual([]);
  });

  test("leaves keys that hold organizations apart, and none that sets org_id", async () => {
    const references = await readReferences(sql);
    expect(references.filter(({ definition }) => /SET (NULL|DEFAULT)/.test(definition))).toEqual([]);
    expect(references.find(({ name }) => name === "leads leads_campaign_id_fkey")?.definition).toBe(
      "FOREIGN KEY (org_id, campaign_id) REFERENCES campaigns(org_id, id)",
    );
  });
});
