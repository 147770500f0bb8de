import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { root } from "../../local/project.ts";
import { applyMigrations, tryMigrations } from "../apply-migrations.ts";
import { cloneDatabase } from "../databases.ts";
import { copyProject } from "../../local/project-copy.ts";
import { defaultOrgId, tenOrganizations } from "../organizations.ts";
import { findWrongRows } from "../oracle.ts";
import { withResolvers } from "../promises.ts";
import { describeSchema } from "../schema.ts";

type Database = Awaited<ReturnType<typeof cloneDatabase>>;

const open: Database[] = [];
async function clone(name: string, template: "before" | "migrated" | "postgres" = "before"): Promise<Database> {
  const database = await cloneDatabase(name, template);
  open.push(database);
  return database;
}

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

const project = (name: string) => copyProject(`${inject("folder")}/${name}`);

/** What a push that fails must leave as it was: every table of the application, whole. */
async function applicationOf(database: Database): Promise<string[]> {
  const [rows] = await database.sql`
    select string_agg(format('%s %s', relname, xpath_count), ' ' order by relname) as counts
    from (
      select relname, (xpath('/row/c/text()', query_to_xml(format('select count(*) as c from public.%I', relname), false, true, '')))[1] as xpath_count
      from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'organizations'
    ) as counted
  `;
  const lines = await describeSchema(database.sql);
  return [
    ...lines.filter((line) => !/ (tenancy|org_migration)\b|organizations|auth_org_id/.test(line)),
    String(rows?.["counts"]),
  ];
}

describe("the push stops before it touches a table", () => {
  test("while a table is not classified, and says what to add where", async () => {
    const database = await clone("unclassified");
    await database.sql`create table public.invoices (id uuid primary key, user_id uuid not null)`;
    await database
      .sql`create table public.invoice_lines (id uuid primary key, invoice_id uuid references public.invoices (id))`;
    const before = await applicationOf(database);
    const copy = project("unclassified");

    const refused = await copy.push(database.url);
    expect(refused.code).toBe(1);
    expect(refused.output).toContain("the registry does not fit the database, findings that stop the push: 2");
    expect(refused.output).toContain(
      "public.invoices is not classified: it has the column user_id; add ('public', 'invoices', 'org', 'secondary', null, null) " +
        "to tenancy.registry, in the migration ending in _EDIT_list_of_tables.sql or in one of your own, or, if it is not to have org_id, " +
        "('public', 'invoices', 'excluded', null, '<why not>', null)",
    );
    expect(refused.output).toContain("public.invoice_lines is not classified: it references public.invoices; add");
    expect(await applicationOf(database)).toEqual(before);
    const findings = (output: string) => output.split("\n").filter((line) => /^public\..*\[\w+\]/.test(line));
    const applied = await tryMigrations(copy.folder, database.url);
    expect(applied.code, "without the CLI, too").toBe(1);
    expect(findings(applied.output)).toEqual(findings(refused.output));

    copy.append(
      "_EDIT_list_of_tables.sql",
      `insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
       values ('public', 'invoices', 'org', 'secondary', null, null), ('public', 'invoice_lines', 'excluded', null, 'a test', null);`,
    );
    const stillRefused = await copy.push(database.url);
    expect(stillRefused.code, "the check stands above the rows that were appended").toBe(1);
  });

  test("and goes on once the table has its row, with no index line while it is small", async () => {
    const database = await clone("small");
    await database.sql`create table public.invoices (id uuid primary key, user_id uuid not null)`;
    const copy = project("small");
    copy.edit(
      "_EDIT_list_of_tables.sql",
      "values\n",
      "values\n    ('public', 'invoices', 'org', 'secondary', null, null),\n",
    );
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    expect(await database.sql`select from pg_indexes where indexname = 'idx_invoices_org_id'`).toHaveLength(1);
  });

  test("and goes on once a large table has its index line", async () => {
    const database = await clone("classified");
    await database.sql`create table public.invoices (id uuid primary key, user_id uuid not null)`;
    await database.sql`insert into public.invoices values (gen_random_uuid(), gen_random_uuid())`;
    const copy = project("classified");
    copy.append("_EDIT_list_of_tables.sql", "update tenancy.settings set small_table_bytes = 0;");
    copy.edit(
      "_EDIT_list_of_tables.sql",
      "values\n",
      "values\n    ('public', 'invoices', 'org', 'secondary', null, null),\n",
    );
    const withoutIndex = await copy.push(database.url);
    expect(withoutIndex.code).toBe(1);
    expect(withoutIndex.output).toContain("org_id is not indexed on org-scoped tables that are too large");
    expect(withoutIndex.output).toContain(
      "create index concurrently if not exists idx_invoices_org_id on public.invoices (org_id);",
    );
    copy.edit(
      "_EDIT_index_org_id.sql",
      "create index concurrently if not exists idx_calls_org_id",
      "create index concurrently if not exists idx_invoices_org_id on public.invoices (org_id);\n" +
        "create index concurrently if not exists idx_calls_org_id",
    );
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    expect(await database.sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  });

  test("when a registered table does not exist", async () => {
    const database = await clone("missing");
    await database.sql`drop table public.kb_sync_log`;
    const { code, output } = await project("missing").push(database.url);
    expect(code).toBe(1);
    expect(output).toContain("public.kb_sync_log is registered and does not exist; create it in an earlier migration");
    expect(output).toContain("[missing_table]");
  });

  test("when a table has an org_id of another type", async () => {
    const database = await clone("wrong_type");
    await database.sql`alter table public.calls add column org_id text`;
    const { code, output } = await project("wrong_type").push(database.url);
    expect(code).toBe(1);
    expect(output).toContain("public.calls has an org_id already that is text and not a plain uuid");
    expect(output).toContain("[org_id_type]");
  });

  test("when auth_org_id() trusts user_metadata", async () => {
    const database = await clone("trusting");
    await database.sql`
      create function public.auth_org_id() returns uuid language sql stable as
      $$ select (auth.jwt() -> 'user_metadata' ->> 'org_id')::uuid $$
    `;
    const { code, output } = await project("trusting").push(database.url);
    expect(code).toBe(1);
    expect(output).toMatch(/public\.auth_org_id\(\) returns \S+ for the organization in user_metadata and not NULL/);
    expect(output).toContain("[auth_org_id_wrong]");
  });

  test("when the application's organizations need more than a name", async () => {
    const database = await clone("organizations");
    await database.sql`
      create table public.organizations (id uuid primary key, name text not null, slug text not null, created_at date default now())
    `;
    const copy = project("organizations");
    const refused = await copy.push(database.url);
    expect(refused.code).toBe(1);
    expect(refused.output).toContain("and requires slug");
    expect(refused.output).toContain("[no_default_organization]");
    expect(refused.output).toContain(
      "insert into public.organizations (id, name, slug) values ('a0000000-0000-0000-0000-000000000001', …);",
    );
    await database.sql`
      insert into public.organizations (id, name, slug) values ('a0000000-0000-0000-0000-000000000001', 'Everyone', 'all')
    `;
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    expect(await database.sql`select name from public.organizations`).toEqual([{ name: "Everyone" }]);
  });
});

describe("the application's stand-in", () => {
  test("creates nothing in a database that holds other tables", async () => {
    const database = await clone("occupied", "postgres");
    await database.sql`create table public.notes (id uuid primary key, body text)`;
    const { code, output } = await project("occupied").push(database.url);
    expect(code).toBe(1);
    expect(output).toContain("the registry does not fit the database, findings that stop the push: 46");
    const tables = await database
      .sql`select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1`;
    expect(tables.map((row) => row["relname"])).toEqual(["notes", "organizations"]);
  });
});

describe("one organization for each of many users", () => {
  test("every row goes where its owner or its parent belongs, and nothing else of it changes", async () => {
    const database = await clone("mapped");
    const { sql } = database;
    const copy = project("mapped");
    copy.append(
      "_EDIT_list_of_tables.sql",
      tenOrganizations,
    );
    const read = async () => {
      const rows = new Map<string, string[]>();
      for (
        const { name } of await sql<{ name: string }[]>`
        select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'organizations'
      `
      ) {
        const found = await sql<{ row: string }[]>`select (to_jsonb(row) - 'org_id')::text as row from ${
          sql(name)
        } as row order by 1`;
        rows.set(name, found.map(({ row }) => row));
      }
      return rows;
    };
    const before = await read();
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    expect(await read()).toEqual(before);

    const tables = (await sql`select table_name from tenancy.org_scoped_tables`).map((row) =>
      row["table_name"] as string
    );
    expect(tables.length).toBe(45);
    expect(await findWrongRows(sql, tables, defaultOrgId)).toEqual([]);
    const [spread] = await sql`
      select
        count(distinct org_id)::integer as organizations,
        count(*) filter (where org_id = 'a0000000-0000-0000-0000-000000000001')::integer as orphans
      from public.imports
    `;
    expect(spread).toEqual({ organizations: 11, orphans: 3 });
    const progress =
      await sql`select * from org_migration.backfill_progress where state <> 'finished' or triggers_fired`;
    expect(progress).toEqual([]);
    expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  });
});

test("tests that do not need the CLI apply the migrations as it does", async () => {
  const pushed = await clone("pushed", "migrated");
  const applied = await clone("applied", "postgres");
  await applyMigrations(root, applied.url);
  const versionsOf = async (
    { sql }: Database,
  ) => [...await sql`select version, name from supabase_migrations.schema_migrations order by version`];
  expect(await versionsOf(applied)).toEqual(await versionsOf(pushed));
  expect(await describeSchema(applied.sql)).toEqual(await describeSchema(pushed.sql));
});

describe("an index build that was cut off", () => {
  test("leaves an invalid index, which the next push builds anew", async () => {
    const database = await clone("invalid_index");
    const { sql } = database;
    const reader = connect(database.url);
    const { promise: released, resolve: release } = withResolvers();
    // A concurrent build waits for every older snapshot.
    const reading = reader.begin("isolation level repeatable read", async (transaction) => {
      await transaction`select 1`;
      await released;
    });
    const copy = project("invalid_index");
    const pushed = copy.push(database.url);
    const findInvalid = () =>
      sql`
        select indexrelid::regclass::text as index, pid
        from pg_index
        join pg_stat_progress_create_index as build on build.index_relid = pg_index.indexrelid
        where not indisvalid
      `;
    let invalid = await findInvalid();
    for (; invalid.length === 0; invalid = await findInvalid()) await sleep(20);
    await sql`select pg_terminate_backend(${invalid[0]?.["pid"]})`;
    expect((await pushed).code).toBe(1);
    release();
    await reading;
    await reader.end();

    const validity = () =>
      sql`select indisvalid as valid from pg_index where indexrelid = to_regclass(${invalid[0]?.["index"]})`;
    expect(await validity()).toEqual([{ valid: false }]);
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    expect(await validity()).toEqual([{ valid: true }]);
  });
});

describe("a foreign key whose lock has to be waited for", () => {
  // Which of the two tables somebody has locked how, and what the push may hold meanwhile: nothing that the application's writes wait for.
  test.each([
    ["public.leads", "share update exclusive", "as autovacuum does", "public.organizations"],
    ["public.organizations", "row exclusive", "by a write of it", "public.leads"],
  ])("of %s, locked %s (%s), holds up no write of %s", async (held, mode, _by, free) => {
    const database = await clone("foreign_key_lock", "migrated");
    const { sql } = database;
    await sql`alter table public.leads drop constraint fk_leads_org_id`;
    const { promise: released, resolve: release } = withResolvers();
    const holder = connect(database.url);
    const holding = holder.begin(async (transaction) => {
      await transaction.unsafe(`lock table ${held} in ${mode} mode`);
      await released;
    });
    const push = connect(database.url);
    const loop = (part: string) => `do $$ begin while tenancy.advance('${part}') loop commit; end loop; end $$`;
    const pushing = push.unsafe(loop("foreign_key")).execute();
    const findWaiting = () =>
      sql<{ modes: string[] }[]>`
        select array(
          select own.mode
          from pg_locks as own
          where own.pid = waiting.pid
            and own.granted
            and own.relation = ${free}::regclass
            and own.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        ) as modes
        from pg_locks as waiting
        where waiting.relation = ${held}::regclass and not waiting.granted
      `;
    let waiting = await findWaiting();
    for (; waiting.length === 0; waiting = await findWaiting()) await sleep(5);
    release();
    await Promise.all([holding, pushing]);
    await push.unsafe(loop("foreign_key_valid"));
    await Promise.all([holder.end(), push.end()]);
    expect(waiting).toEqual([{ modes: [] }]);
    expect(
      await sql`select convalidated from pg_constraint where conrelid = 'public.leads'::regclass and conname = 'fk_leads_org_id'`,
    )
      .toEqual([{ convalidated: true }]);
  });
});
