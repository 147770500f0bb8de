import { afterEach, describe, expect, inject, test } from "vitest";
import type { PreflightRow } from "../../cli/adopt-preflight.ts";
import { connect } from "../../local/databases.ts";
import { copyProject, readList } from "../../local/project-copy.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { applyMigrations, tryMigrations } from "../apply-migrations.ts";
import { cloneDatabase, runAsSuperuser } from "../databases.ts";
import { askPreflight, type Pasted, preflightFile } from "../preflight.ts";
import { withResolvers } from "../promises.ts";
import { addUsers, numberedUsers } from "../users.ts";

type Database = Awaited<ReturnType<typeof cloneDatabase>>;

const open: Database[] = [];
async function clone(name: string): Promise<Database> {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  return database;
}

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

const about = (rows: PreflightRow[], topic: string) => rows.filter((row) => row.topic === topic);

describe("the preflight", () => {
  test("runs read-only by the CLI, before any migration, and gives the row to add for each table", async () => {
    const database = await clone("preflight_cli");
    const target = `--remote=${database.url}`;
    const ask = (format: string) => supabase(["db", "query", target, "--read-only", format, "-f", preflightFile]);
    const output = await ask("--output-format=json");
    const found = about(JSON.parse(output.slice(output.indexOf("\n["))) as PreflightRow[], "to classify");
    expect(found).toHaveLength(54);
    expect(found.find(({ object }) => object === "public.call_tracking")).toMatchObject({
      code: "unclassified_table",
      finding: "references public.calls",
      to_do: "('public', 'call_tracking', 'org', 'secondary', null, '{call_id}'),",
    });
    expect(found.find(({ object }) => object === "public.voice_options")).toMatchObject({
      finding: "decide: excluded, unless its rows belong to organizations; it has nothing that says whose its rows are",
      to_do: "('public', 'voice_options', 'excluded', null, 'has nothing that says whose its rows are', null),",
    });
    expect(await ask("--output=csv")).toContain("\ntopic,code,object,finding,to_do\n");
  });

  test("marks what its owner has to decide, and gives the row as the keys say it", async () => {
    const database = await cloneDatabase("preflight_decisions", "postgres");
    open.push(database);
    await database.sql.unsafe(`
      create table public.people (id uuid primary key references auth.users (id));
      create table public.shops (id integer primary key);
      create table public.shop_people (person uuid references public.people (id), shop integer references public.shops (id), primary key (shop, person));
      create table public.seats (user_id uuid primary key references auth.users (id), team_id integer);
      create table public.folders (id integer primary key, user_id uuid references auth.users (id));
      create table public.files (id integer primary key, folder integer references public.folders (id), created_by uuid references auth.users (id));
      create table public.links (id integer primary key, "file's" integer references public.files (id));
      create table public.tags (id integer primary key, shop integer references public.shops (id), file_id integer);
      insert into auth.users (id, email) select md5(n::text)::uuid, n || '@example.com' from generate_series(1, 2) as n;
      insert into public.folders values (1, md5('1')::uuid), (2, null);
      insert into public.files values (1, 1, md5('2')::uuid), (2, 1, md5('1')::uuid), (3, 2, md5('1')::uuid);
      insert into public.links values (1, 1);
    `).simple();
    const rows = about(await askPreflight(database.sql), "to classify");
    const byKey = "it references";
    expect(rows.map(({ object, finding, to_do }) => [object.replace("public.", ""), finding.split(byKey)[0], to_do]))
      .toEqual([
        [
          "files",
          "decide: the order of org_from, whose columns name different users or organizations (rows: 1); ",
          "('public', 'files', 'org', 'secondary', null, '{created_by,folder}'),",
        ],
        [
          "folders",
          "decide: whose the rows are that no column decides, 1 of them; it has the column user_id",
          "('public', 'folders', 'org', 'secondary', null, '{user_id}'),",
        ],
        [
          "people",
          "decide: org, or excluded, if a user's row is the same in whatever organization; ",
          "('public', 'people', 'org', 'secondary', null, '{id}'),",
        ],
        [
          "seats",
          "decide: org, or excluded, if a user's row is the same in whatever organization; it has the column user_id",
          "('public', 'seats', 'org', 'secondary', null, '{user_id}'),",
        ],
        [
          "shop_people",
          "decide: org, or excluded, if it says who belongs to which organization; ",
          "('public', 'shop_people', 'org', 'secondary', null, '{person}'),",
        ],
        [
          "shops",
          "decide: excluded, unless its rows belong to organizations; it has nothing that says whose its rows are",
          "('public', 'shops', 'excluded', null, 'has nothing that says whose its rows are', null),",
        ],
        [
          "tags",
          expect.stringMatching(/^decide: org or excluded; it has file_id, which looks like the key of public\.files/),
          "-- ('public', 'tags', 'org', 'secondary', null, null), or ('public', 'tags', 'excluded', null, '<why not>', null),",
        ],
        ["links", "references public.files", `('public', 'links', 'org', 'secondary', null, '{file''s}'),`],
      ]);
  });

  test("refuses nothing of the shipped application with its list, and says what will happen to each of its 45 tables", async () => {
    const database = await clone("preflight_list");
    await database.sql`analyze`;
    const rows = await askPreflight(database.sql, { list: readList() });
    expect(rows.map(({ topic }) => topic).filter((topic, index, all) => topic !== all[index - 1])).toEqual([
      "leaks",
      "to decide",
      "gets org_id",
      "good to know",
      "plan",
    ]);
    const tables = about(rows, "gets org_id");
    expect(tables).toHaveLength(45);
    const [orphans] = await database.sql`
      select count(*)::integer as rows from public.calls where not exists (select from auth.users where users.id = user_id)
    `;
    expect(orphans?.["rows"]).toBeGreaterThan(0);
    expect(tables.find(({ object }) => object === "public.calls")).toMatchObject({
      finding: `60 rows, 16 kB and 32 kB of indexes; user_id decides ${60 - orphans?.["rows"]}, agent_id decides ${
        orphans?.["rows"]
      }`,
      to_do: "org_from '{user_id,agent_id,lead_id}'; no row is touched; 10 statements, about 0.0 s",
    });
    const counted = about(rows, "good to know").find(({ object }) => object === "auth.users");
    expect(counted?.finding).toBe("60 users, 60 of them without app_metadata.org_id");
  });

  test("has no column of over 200 characters, except a statement", async () => {
    const statement = /^(leave it [^:]{1,80}: )?(alter|create|revoke|grant) /;
    const database = await clone("preflight_width");
    const rows = [...await askPreflight(database.sql), ...await askPreflight(database.sql, { list: readList() })];
    expect(rows.length).toBeGreaterThan(500);
    const cells = rows.flatMap((
      row,
    ) => [
      row.topic,
      row.code,
      row.object,
      row.finding,
      row.topic === "plan" || statement.test(row.to_do) ? "" : row.to_do,
    ]);
    expect(cells.filter((cell) => cell.length > 200)).toEqual([]);
  });

  test("names what the push will refuse, by its code, and then the push refuses it", async () => {
    const database = await clone("preflight_refused");
    await database.sql.unsafe(`
      alter table public.calls add column org_id text;
      create rule no_deletes as on delete to public.leads do instead nothing;
      create table public.organizations (id uuid primary key, name text not null);
      alter table public.imports add column org_id uuid default gen_random_uuid();
      alter table public.contacts add column org_id uuid references public.organizations (id);
    `).simple();
    const refused = about(await askPreflight(database.sql, { list: readList() }), "refused");
    expect(refused.map(({ object, code }) => `${object} ${code}`)).toEqual([
      "public.calls org_id_type",
      "public.contacts org_id_foreign_key",
      "public.imports org_id_of_no_organization",
      "public.imports org_id_default",
      "public.leads rule",
    ]);
    const { code, output } = await copyProject(`${inject("folder")}/preflight_refused`).push(database.url);
    expect(code).toBe(1);
    for (const row of refused) expect(output).toContain(`${row.object} ${row.finding}; ${row.to_do} [${row.code}]`);
    expect(output.match(/\[[a-z_]+\](?= \(SQLSTATE|$)/gm)).toHaveLength(refused.length);
  });

  test("names an org_id that references another table, before there are organizations", async () => {
    const database = await clone("preflight_other_organizations");
    await database.sql.unsafe(`
      create table public.orgs (id uuid primary key);
      alter table public.contacts add column org_id uuid references public.orgs (id) on delete cascade;
    `).simple();
    const list = `${readList()}('public', 'orgs', 'excluded', null, 'a test', null),`;
    const refused = about(await askPreflight(database.sql, { list }), "refused");
    expect(refused.map(({ object, code }) => `${object} ${code}`)).toEqual(["public.contacts org_id_foreign_key"]);
    await database.sql.unsafe(refused[0]?.to_do ?? "");
    expect(about(await askPreflight(database.sql, { list }), "refused")).toEqual([]);
  });

  test.each([
    ["numbers", "id bigint primary key, name text"],
    ["text", "id text primary key, name text"],
    ["under another name", "organization_id uuid primary key, name text"],
  ])(
    "says before anything else that organizations whose ids are %s cannot be referenced, as the push does",
    async (kind, columns) => {
      const database = await clone(`preflight_organizations_${kind.replaceAll(" ", "_")}`);
      await database.sql.unsafe(`create table public.organizations (${columns}); insert into public.organizations values
      (${kind === "under another name" ? "gen_random_uuid()" : "1"}, 'one')`).simple();
      const mapping = "select id, id from auth.users";
      for (const pasted of [{}, { list: readList() }, { list: readList(), mapping }]) {
        expect(await askPreflight(database.sql, pasted)).toMatchObject([{
          topic: "refused",
          code: "organizations_not_referable",
          object: "public.organizations",
        }]);
      }
      const copy = copyProject(`${inject("folder")}/preflight_organizations`);
      const { code, output } = await tryMigrations(copy.folder, database.url);
      expect(code).toBe(1);
      expect(output).toMatch(
        /public\.organizations cannot be referenced: .*; rename it, .*\[organizations_not_referable\]/,
      );
      await database.sql`alter table public.organizations rename to companies`;
      expect(about(await askPreflight(database.sql), "refused")).toEqual([]);
    },
  );

  test("tries an auth_org_id() of the application's own where its sessions look", async () => {
    const database = await clone("preflight_auth_org_id");
    await database.sql.unsafe(`
      create function public.read_claim() returns text language sql stable as
      $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{app_metadata,org_id}' $$;
      create function public.auth_org_id() returns uuid language sql stable as
      $$ select case when read_claim() ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then read_claim()::uuid end $$;
    `).simple();
    const refused = async () => about(await askPreflight(database.sql, { list: readList() }), "refused");
    expect(await refused()).toEqual([]);
    await applyMigrations(copyProject(`${inject("folder")}/preflight_auth_org_id`).folder, database.url);
    await database.sql.unsafe(`
      drop schema tenancy, org_migration cascade;
      create or replace function public.read_claim() returns text language sql stable as
      $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{user_metadata,org_id}' $$;
    `).simple();
    expect(await refused()).toMatchObject([{ code: "auth_org_id_wrong" }]);
  });

  test("says whom the mapping puts into another organization than their token has", async () => {
    const database = await cloneDatabase("preflight_claims", "postgres");
    open.push(database);
    await database.sql.unsafe(`
      create table public.notes (id integer primary key, user_id uuid references auth.users (id));
      create table public.organizations (id uuid primary key, name text not null);
      insert into public.organizations values (md5('A')::uuid, 'A'), (md5('B')::uuid, 'B');
      insert into auth.users (id, raw_app_meta_data)
      select md5(name)::uuid, case when org_id is not null then jsonb_build_object('org_id', org_id) else '{}' end
      from (
        values ('moved', md5('B')::uuid::text), ('same', upper(md5('A')::uuid::text)), ('none', null), ('nonsense', 'acme')
      ) as users (name, org_id);
    `).simple();
    const ask = async (mapped: string) =>
      (await askPreflight(database.sql, {
        list: "('public', 'notes', 'org', 'secondary', null, null),",
        mapping: `select id, md5('A')::uuid from auth.users where ${mapped}`,
        newUsers: "default",
      })).filter(({ code }) => code === "user_conflict");
    expect(await ask("true")).toMatchObject([{
      topic: "to decide",
      object: "auth.users",
      finding:
        "has 1 users whose app_metadata.org_id is another organization than the mapping's: their rows go by the" +
        " mapping, their token stays",
    }]);
    expect(await ask("id <> md5('moved')::uuid")).toEqual([]);
  });

  test("says how to place the users whom the mapping leaves out, which depends on what new users get", async () => {
    const database = await cloneDatabase("preflight_left_out", "postgres");
    open.push(database);
    await addUsers(database.sql, numberedUsers(2));
    const ask = async (pasted: Pasted) =>
      (await askPreflight(database.sql, pasted)).filter(({ code }) => code === "users_left_out").map((
        { topic, to_do },
      ) => `${topic}: ${to_do}`);
    expect(await ask({ newUsers: "personal" })).toEqual([
      expect.stringMatching(/^refused: .*select tenancy\.create_personal_organizations\(\);/),
    ]);
    expect(await ask({ newUsers: "application" })).toEqual([
      expect.stringMatching(/^refused: place them in the mapping/),
    ]);
    expect(await ask({ newUsers: "personal", mapping: "select id, md5('A')::uuid from auth.users" })).toEqual([]);
    expect(await ask({ newUsers: "default" })).toEqual([]);
  });

  test("names who is in the way now, and what that holds", async () => {
    const database = await clone("preflight_held");
    const holder = connect(database.url);
    const { promise: released, resolve: release } = withResolvers();
    const held = holder.begin(async (transaction) => {
      await transaction`select count(*) as nightly_report from public.calls`;
      await released;
    });
    const waiting = () => askPreflight(database.sql).then((rows) => about(rows, "in the way now"));
    let found = await waiting();
    while (found.length === 0) found = await waiting();
    expect(found).toHaveLength(1);
    expect(found[0]?.finding).toMatch(
      /^postgres idle in transaction for \d+ s, holds public\.calls: select count\(\*\) as nightly_report from public\.calls$/,
    );
    release();
    await held;
    await holder.end();
  });

  test("tells what will break, what leaks and what there is to decide, as tenancy.review does after the push", async () => {
    const database = await clone("preflight_review");
    await database.sql.unsafe(`
      grant select (id, user_id) on public.agents to dashboard_user;
      create publication supabase_realtime for table public.calls;
      create publication warehouse for table public.leads;
      create materialized view public.call_counts as select user_id, count(*) as calls from public.calls group by user_id;
    `).simple();
    const subscriber = connect(database.url);
    await subscriber`select pg_create_logical_replication_slot('preflight_review', 'pgoutput')`;
    const rows = await askPreflight(database.sql, { list: readList() });
    await subscriber`select pg_drop_replication_slot('preflight_review')`;
    await subscriber.end();
    const found = (topic: string) => about(rows, topic).map(({ code, object }) => `${code} ${object}`);
    expect(found("breaks")).toEqual(["published warehouse"]);
    expect(found("leaks")).toEqual(["api_privileges public", "materialized_view public.call_counts"]);
    expect(found("to decide")).toEqual(
      expect.arrayContaining(["column_grants dashboard_user", "realtime_table supabase_realtime"]),
    );
    expect(found("good to know")).toEqual(["users auth.users"]);
  });
});

describe("code of others", () => {
  const planted = `
    create function public.format(text, text, text) returns text language plpgsql as
    $$ begin raise exception 'format of public was called'; end $$;
    create function public.equals(regclass, regclass) returns boolean language plpgsql as
    $$ begin raise exception 'the operator of public was called'; end $$;
    create operator public.= (leftarg = regclass, rightarg = regclass, function = public.equals);
  `;

  test("that a role with CREATE on public has planted there is bound by no preflight query, view or function", async () => {
    const database = await clone("planted");
    await runAsSuperuser(database.name, planted);
    expect((await askPreflight(database.sql, { list: readList() })).length).toBeGreaterThan(400);
    const { code, output } = await copyProject(`${inject("folder")}/planted`).push(database.url);
    expect(code, output).toBe(0);
    expect(await database.sql`select * from tenancy.plan`).toEqual([]);
    expect(await database.sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
    const bound = await database.sql`
      select distinct refobjid::regprocedure::text as function
      from pg_depend
      where refclassid = 'pg_proc'::regclass
        and refobjid in ('public.format(text,text,text)'::regprocedure, 'public.equals(regclass,regclass)'::regprocedure)
        and classid <> 'pg_operator'::regclass
    `;
    expect(bound).toEqual([]);
  });

  test("in a check that is not valid costs one finding: one that uses the whole row, and one that raises", async () => {
    const database = await clone("checks");
    await database.sql.unsafe(`
      create function public.is_valid(call public.calls) returns boolean language sql as 'select true';
      create function public.raise_for(text) returns boolean language plpgsql as
      $$ begin raise exception 'no check today'; end $$;
      alter table public.calls add constraint whole_row check (public.is_valid(calls)) not valid;
      alter table public.leads add constraint raising check (public.raise_for(id::text)) not valid;
    `).simple();
    const rows = await askPreflight(database.sql, { list: readList() });
    expect(
      about(rows, "to decide").filter(({ code }) => code === "untried_check").map(({ object }) => object),
    ).toEqual(["public.calls", "public.leads"]);
    expect(about(rows, "gets org_id")).toHaveLength(45);
    const copy = copyProject(`${inject("folder")}/checks`);
    const refused = await copy.push(database.url);
    expect(refused.code).toBe(1);
    expect(refused.output).toContain(
      "public.leads has the check raising, which is not valid and raises: no check today",
    );
    expect(refused.output.match(/\[rows_break_check\]/g)).toHaveLength(1);
    await database.sql`alter table public.leads drop constraint raising`;
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    expect(await database.sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  });

  test("of a table that belongs to another role is not run, neither by the preflight nor by the push", async () => {
    const database = await clone("foreign_check");
    await runAsSuperuser(
      database.name,
      `
        create function public.spy(text) returns boolean language plpgsql as
        $$ begin raise exception 'run as %', current_user; end $$;
        alter table public.calls add constraint spying check (public.spy(id::text)) not valid;
        alter table public.calls owner to supabase_admin;
      `,
    );
    const rows = await askPreflight(database.sql, { list: readList() });
    expect(about(rows, "refused").map(({ code, object }) => `${code} ${object}`)).toEqual([
      "table_of_another_role public.calls",
    ]);
    const { output } = await copyProject(`${inject("folder")}/foreign_check`).push(database.url);
    expect(output).toContain("[table_of_another_role]");
    expect(output).not.toContain("run as");
  });
});
