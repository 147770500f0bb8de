import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { demoPassword, pushTarget } from "../../local/application.ts";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import type { Services } from "../../local/stack.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase } from "../databases.ts";
import { defaultOrgId, otherOrgId } from "../organizations.ts";
import { describeSchema } from "../schema.ts";
import { startTestServices } from "../services.ts";

const functionName = "update-user-org-metadata";

type Row = Record<string, unknown>;
type Database = Awaited<ReturnType<typeof cloneDatabase>>;

/** All rows of a table, each as JSON without org_id, sorted. */
async function readRows(database: Database, table: string): Promise<string[]> {
  const rows = await database.sql<{ row: string }[]>`
    select (to_jsonb(row) - 'org_id')::text as row from ${database.sql(`public.${table}`)} as row order by 1
  `;
  return rows.map(({ row }) => row);
}

async function tableNames(database: Database): Promise<string[]> {
  const rows = await database.sql`
    select relname from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'organizations'
    order by 1
  `;
  return rows.map((row) => row["relname"] as string);
}

/** The SQLSTATE that a statement fails with, in a transaction that is rolled back; undefined: it goes through. */
async function failureOf(database: Database, statement: string): Promise<string | undefined> {
  try {
    await database.sql.begin(async (transaction) => {
      await transaction.unsafe(statement);
      throw new Error("rolled back");
    });
  } catch (error) {
    return (error as { code?: string }).code;
  }
  return undefined;
}

describe("an application with data is pushed, its users are updated", () => {
  let database: Database;
  let services: Services;
  let tables: string[];
  let orgScoped: string[];
  const rowsBefore = new Map<string, string[]>();
  let excludedBefore: string[];
  let usersBefore: Row[];
  let schemaAfter: string[];
  let summary: Row;

  const excludedColumns = async () => {
    const lines = await describeSchema(database.sql);
    return lines.filter((line) =>
      /^(column|constraint|index|trigger)/.test(line) && excluded.some((table) => line.includes(` ${table}`))
    );
  };
  const excluded = [
    "profiles",
    "user_profiles",
    "user_credits",
    "user_subscriptions",
    "customers",
    "billing_plans",
    "pricing_tiers",
    "voice_options",
    "campaign_templates",
  ];
  const signIn = async (email: string) => {
    const response = await fetch(`${services.api.url}/auth/v1/token?grant_type=password`, {
      method: "POST",
      headers: { apikey: services.keys.publishableKey },
      body: JSON.stringify({ email, password: demoPassword }),
    });
    return (await response.json()) as { access_token: string; refresh_token: string };
  };

  beforeAll(async () => {
    database = await cloneDatabase("whole_path", "before");
    tables = await tableNames(database);
    for (const table of tables) rowsBefore.set(table, await readRows(database, table));
    excludedBefore = await excludedColumns();
    usersBefore = await database.sql`select to_jsonb(users) as row from auth.users order by id`;

    await supabase(["db", "push", ...pushTarget(database.url)]);
    schemaAfter = await describeSchema(database.sql);
    orgScoped = (await database.sql`select table_name from tenancy.org_scoped_tables order by 1`).map(
      (row) => row["table_name"] as string,
    );
    services = await startTestServices(database.name);
    await services.serve(functionName);
    const response = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers: { apikey: services.keys.secretKey },
      body: JSON.stringify({ page_size: 7 }),
    });
    summary = (await response.json()) as Row;
  });

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  test("phase 1: 45 tables are org-scoped, 9 are excluded, and the 45 are all that have org_id", async () => {
    expect(orgScoped.length).toBe(45);
    const withOrgId = await database.sql`
      select table_name from information_schema.columns
      where column_name = 'org_id' and table_schema = 'public'
      order by table_name
    `;
    expect(withOrgId.map((row) => row["table_name"])).toEqual(orgScoped);
    expect(tables.filter((table) => !orgScoped.includes(table)).sort()).toEqual([...excluded].sort());
  });

  test("phase 2: every one has the foreign key and the index that the plan names", async () => {
    const keys = await database.sql`
      select table_name from information_schema.table_constraints
      where constraint_type = 'FOREIGN KEY' and constraint_name = 'fk_' || table_name || '_org_id'
      order by table_name
    `;
    expect(keys.map((row) => row["table_name"])).toEqual(orgScoped);
    const indexes = await database.sql`
      select tablename from pg_indexes where indexname = 'idx_' || tablename || '_org_id' order by tablename
    `;
    expect(indexes.map((row) => row["tablename"])).toEqual(orgScoped);
  });

  test("phase 3: every row belongs to the default organization", async () => {
    for (const table of orgScoped) {
      const [count] = await database.sql`
        select
          count(*) filter (where org_id is null)::integer as missing,
          count(*) filter (where org_id = ${defaultOrgId})::integer as in_default
        from ${database.sql(table)}
      `;
      expect({ table, ...count }).toEqual({ table, missing: 0, in_default: rowsBefore.get(table)?.length });
    }
  });

  test("phase 3: no row was lost, none added, and nothing but org_id changed, updated_at included", async () => {
    expect(rowsBefore.size).toBe(54);
    for (const [table, before] of rowsBefore) {
      expect(before.length, table).toBeGreaterThanOrEqual(60);
      expect(await readRows(database, table), table).toEqual(before);
    }
  });

  test("phase 4: every table has the constraint of the plan", async () => {
    const constraints = await database.sql`
      select constraint_name from information_schema.check_constraints
      where constraint_schema = 'public'
        and constraint_name like '%\\_org\\_id\\_not\\_null'
        and check_clause like '%org_id IS NOT NULL%'
    `;
    expect(constraints.map((row) => row["constraint_name"] as string).sort()).toEqual(
      orgScoped.map((table) => `${table}_org_id_not_null`).sort(),
    );
  });

  test("phase 4: a row without organization is refused in every table, the same row with one is not", async () => {
    for (const table of orgScoped) {
      const insert = (orgId: string) => `
        with gone as (delete from public.${table} where ctid = (select ctid from public.${table} limit 1) returning *)
        insert into public.${table} overriding system value
        select row.*
        from gone
        cross join lateral jsonb_populate_record(null::public.${table}, to_jsonb(gone) || '{"org_id": ${orgId}}') as row
      `;
      const replica = "set local session_replication_role = replica;";
      expect(await failureOf(database, `${replica} ${insert("null")}`), table).toBe("23502");
      expect(await failureOf(database, `${replica} ${insert(`"${defaultOrgId}"`)}`), table).toBeUndefined();
    }
  });

  test("phase 5: the function updated every user, and nothing of a user but app_metadata.org_id", async () => {
    expect(summary).toMatchObject({ done: true, updated: 60, failed: 0, remaining: 0, users_without_org: 0, pages: 9 });
    const after: Row[] = await database.sql`select to_jsonb(users) as row from auth.users order by id`;
    const expected = usersBefore.map(({ row }) => {
      const user = structuredClone(row) as { raw_app_meta_data: Row };
      user.raw_app_meta_data["org_id"] = defaultOrgId;
      return { ...user, updated_at: expect.any(String) };
    });
    expect(after.map(({ row }) => row)).toEqual(expected);
  });

  test("phase 5: each update is on record with what was there before", async () => {
    const [audit] = await database.sql`
      select
        count(*)::integer as rows,
        count(distinct user_id)::integer as users,
        bool_and(outcome = 'updated' and attempts = 1 and previous_value is null and new_value = to_jsonb(${defaultOrgId}::text)) as right
      from tenancy.user_metadata_audit
    `;
    expect(audit).toEqual({ rows: 60, users: 60, right: true });
  });

  test("phase 5: a user who signs in has it in the JWT, and public.auth_org_id() returns it", async () => {
    const { access_token } = await signIn("user1@example.com");
    const claims = decodeJwt(access_token);
    expect(claims["app_metadata"]).toEqual({ provider: "email", providers: ["email"], org_id: defaultOrgId });
    const answer = await database.sql.begin(async (transaction) => {
      await transaction`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
      await transaction`set local role authenticated`;
      const [row] = await transaction`
        select public.auth_org_id() as org_id, count(*)::integer as calls
        from public.calls
        where org_id = (select public.auth_org_id())
      `;
      return row;
    });
    expect(answer).toEqual({ org_id: defaultOrgId, calls: 1 });
  });

  test("phase 6: every table has the trigger of the plan", async () => {
    const triggers = await database
      .sql`select tgname from pg_trigger where tgname like 'org\\_id\\_immutable\\_%' order by 1`;
    expect(triggers.map((row) => row["tgname"])).toEqual(orgScoped.map((table) => `org_id_immutable_${table}`));
  });

  test("phase 6: no row of any table can change its organization, other updates go through", async () => {
    await database
      .sql`insert into public.organizations (id, name) values (${otherOrgId}, 'other') on conflict do nothing`;
    for (const table of orgScoped) {
      expect(await failureOf(database, `update public.${table} set org_id = '${otherOrgId}'`), table).toBe("23001");
      expect(await failureOf(database, `update public.${table} set org_id = null`), table).toBe("23502");
      const [column] = await database.sql`
        select attname from pg_attribute
        where attrelid = ${table}::regclass and attnum > 0 and attname <> 'org_id' and attidentity = '' and not attisdropped
        order by attnum desc
        limit 1
      `;
      const name = column?.["attname"] as string;
      expect(await failureOf(database, `update public.${table} set ${name} = ${name}`), table).toBeUndefined();
    }
  });

  test("the checklist passes", async () => {
    const failed = await database.sql`select * from tenancy.verify() where not passed`;
    expect(failed).toEqual([]);
    const [status] = await database.sql`
      select
        count(*)::integer as tables,
        bool_and(
          org_id = 'uuid' and indexed and references_organizations and checked and not_null and immutable
        ) as complete
      from tenancy.status
    `;
    expect(status).toEqual({ tables: 45, complete: true });
    const backfills = await database.sql`select distinct state, done from org_migration.backfill_progress`;
    expect(backfills).toEqual([{ state: "catalog", done: 1 }]);
    expect(await database.sql`select status, alive, percent::integer from tenancy.now`).toEqual([
      { status: "done", alive: false, percent: 100 },
    ]);
  });

  test("the nine excluded tables are untouched", async () => {
    expect(excludedBefore.length).toBeGreaterThan(40);
    expect(await excludedColumns()).toEqual(excludedBefore);
  });

  test("pushing again changes nothing, also when the CLI has forgotten that it ever pushed", async () => {
    expect(await supabase(["db", "push", ...pushTarget(database.url)])).toContain("up to date");
    const [before] = await database
      .sql`select sum(hashtextextended(row::text, 0))::text as digest from public.calls as row`;
    await database.sql`delete from supabase_migrations.schema_migrations`;
    expect(await supabase(["db", "push", ...pushTarget(database.url)])).toContain("20250110090000");
    expect(await describeSchema(database.sql)).toEqual(schemaAfter);
    const [after] = await database
      .sql`select sum(hashtextextended(row::text, 0))::text as digest from public.calls as row`;
    expect(after).toEqual(before);
  });

  test("a second call of the function finds nothing to do", async () => {
    const response = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers: { apikey: services.keys.secretKey },
    });
    expect(await response.json()).toMatchObject({ done: true, updated: 0, pages: 0, users_without_org: 0 });
  });

  test("nobody is connected to the database who should have gone", async () => {
    const admin = connect(databaseUrl(inject("databasePort"), { role: "supabase_admin" }));
    const sessions = await admin`
      select usename, state, query from pg_stat_activity
      where datname = ${database.name} and usename = 'postgres' and state <> 'idle' and pid <> pg_backend_pid()
    `;
    await admin.end();
    expect(sessions).toEqual([]);
  });
});
