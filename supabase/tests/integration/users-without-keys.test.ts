import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { tryMigrations } from "../apply-migrations.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { askPreflight } from "../preflight.ts";

const application = `
  create table public.users (id uuid primary key, email text);
  create table public.notes (id integer primary key, uid uuid);
  create table public.tasks (id integer primary key, created_by text);
  create table public.posts (id integer primary key, author uuid references public.users (id));
  create table public."Lead" (id uuid primary key, "ownerId" uuid);
  create table public.lead_events (id integer primary key, "leadId" uuid);
  create table public.visits (id integer primary key, session uuid);
  insert into auth.users (id, email) select md5(n::text)::uuid, n || '@example.com' from generate_series(1, 4) as n;
  insert into public.users select id, email from auth.users;
  insert into public.notes select n, md5(n::text)::uuid from generate_series(1, 4) as n;
  insert into public.tasks select n, md5(n::text)::uuid from generate_series(1, 4) as n;
  insert into public.posts select n, md5(n::text)::uuid from generate_series(1, 4) as n;
  insert into public."Lead" select md5('lead ' || n)::uuid, md5(n::text)::uuid from generate_series(1, 4) as n;
  insert into public.lead_events select n, md5('lead ' || n)::uuid from generate_series(1, 4) as n;
  insert into public.visits select n, md5('visit ' || n)::uuid from generate_series(1, 4) as n;
`;
/** The odd users are in another organization. */
const otherOrg = "b0000000-0000-0000-0000-000000000001";
const mapping = `
  insert into public.organizations (id, name) values ('${otherOrg}', 'The odd ones') on conflict (id) do nothing;
  insert into tenancy.user_orgs (user_id, org_id)
  select users.id, case when users.email ~ '^[13]' then '${otherOrg}' else settings.default_org_id end
  from auth.users cross join tenancy.settings
  on conflict (user_id) do nothing;
`;

describe("users' ids without a foreign key", () => {
  let database: Database;

  beforeAll(async () => {
    database = await cloneDatabase("users_without_keys", "postgres");
    await database.sql.unsafe(application).simple();
  });

  afterAll(async () => await database?.drop());

  /** The rows to add, of each table that is not in the list. */
  const suggest = async (list?: string) =>
    (await askPreflight(database.sql, list ? { list } : {})).filter(({ topic }) => topic === "to classify");

  function write(name: string, rows: string[]): ProjectCopy {
    const copy = copyProject(`${inject("folder")}/users_without_keys_${name}`);
    copy.remove("_user_based_application.sql");
    copy.rewrite(
      "_EDIT_list_of_tables.sql",
      (text) => text.replace(/^( {4}\('.*\),?\n)+/m, () => rows.join("\n").replace(/,$/, "\n")),
    );
    copy.rewrite("_EDIT_index_org_id.sql", (text) => text.replaceAll(/^create index concurrently .*\n/gm, ""));
    copy.append("_EDIT_list_of_tables.sql", mapping);
    return copy;
  }

  test("are found by their values, and what looks like another table's key stays open", async () => {
    const rows = await suggest();
    expect(rows.map(({ to_do, finding }) => [to_do, finding.split("; it ")[0]])).toEqual(expect.arrayContaining([
      [
        "('public', 'Lead', 'org', 'secondary', null, '{ownerId}'),",
        "decide: org, or excluded, if the users in ownerId do not say whose a row is",
      ],
      [
        "('public', 'users', 'org', 'secondary', null, '{id}'),",
        "decide: org, or excluded, if a user's row is the same in whatever organization",
      ],
      ["('public', 'posts', 'org', 'secondary', null, '{author}'),", "references public.users"],
      ["('public', 'notes', 'org', 'secondary', null, '{uid}'),", expect.any(String)],
      ["('public', 'tasks', 'org', 'secondary', null, '{created_by}'),", expect.any(String)],
      [
        "('public', 'visits', 'excluded', null, 'has nothing that says whose its rows are', null),",
        "decide: excluded, unless its rows belong to organizations",
      ],
    ]));
    expect(rows.find(({ object }) => object === "public.lead_events")).toMatchObject({
      finding:
        'decide: org or excluded; it has leadId, which looks like the key of public."Lead": if it is, first alter table public.lead_events' +
        ' add foreign key ("leadId") references public."Lead" not valid',
    });
  });

  test("stop the push where the list names none of them, with the column's name", async () => {
    const tables = (await suggest()).filter(({ object }) => object !== "public.visits").map(({ object }) =>
      `    ('public', '${object.replaceAll(/public\.|"/g, "")}', 'org', 'secondary', null, null),`
    );
    const { code, output } = await tryMigrations(
      write("unnamed", [...tables, "    ('public', 'visits', 'excluded', null, 'a test', null),"]).folder,
      database.url,
    );
    expect(code).toBe(1);
    expect(output.match(/^.*\[no_source\]/gm)?.map((line) => line.split(" ")[0]).sort()).toEqual([
      'public."Lead"',
      "public.lead_events",
      "public.notes",
      "public.tasks",
      "public.users",
    ]);
    expect(output).toContain("it has uid, probably users' ids");
    expect(output).toContain("it has leadId, which looks like the key of");
  });

  test("place every row as the mapping says, once the list is as it was suggested and the key is there", async () => {
    await database.sql`alter table public.lead_events add foreign key ("leadId") references public."Lead" not valid`;
    const rows = (await suggest()).map(({ to_do }) => `    ${to_do}`);
    const { code, output } = await tryMigrations(write("named", rows).folder, database.url);
    expect(code, output).toBe(0);
    const misplaced = await database.sql`
      select placed.what, placed.number
      from (
        select 'notes' as what, id as number, org_id from public.notes
        union all select 'tasks', id, org_id from public.tasks
        union all select 'posts', id, org_id from public.posts
        union all select 'lead_events', id, org_id from public.lead_events
        union all select 'users', split_part(email, '@', 1)::integer, org_id from public.users
      ) as placed
      where (placed.org_id = ${otherOrg}) is distinct from (placed.number % 2 = 1)
    `;
    expect(misplaced).toEqual([]);
    expect(await database.sql`select from public."Lead" where org_id = ${otherOrg}`).toHaveLength(2);
    expect(await database.sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
  });

  test("are not decided again by a list that was corrected without an undo, and the push says so", async () => {
    const { sql } = database;
    const pushAgain = async (copy: ProjectCopy) => {
      await sql`
        delete from supabase_migrations.schema_migrations
        where version >= (select version from supabase_migrations.schema_migrations where name = 'EDIT_list_of_tables')
      `;
      return await tryMigrations(copy.folder, database.url);
    };
    const rows = (await sql<{ row: string }[]>`
      select format('    (%L, %L, %L, %L, %L, %L),', schema_name, table_name, scope, priority, reason, org_from) as row
      from tenancy.registry
    `).map(({ row }) => row);
    const unchanged = await pushAgain(write("again", rows));
    expect(unchanged.code, unchanged.output).toBe(0);

    const corrected = write("corrected", rows.map((row) => row.replace("'{uid}'", "'{}'")));
    const refused = await pushAgain(corrected);
    expect(refused.code).toBe(1);
    expect(refused.output.match(/^.*\[org_from_changed\]/gm)).toEqual([
      expect.stringContaining(
        "public.notes is decided already, with org_from {uid}, and the list says {} now, which changes no row",
      ),
    ]);
    await sql`update tenancy.registry set org_from = '{}' where table_name = 'notes'`;
    const failed = await sql`select detail from tenancy.verify_schema() where not passed and check_name = 'registry'`;
    expect(failed).toEqual([{ detail: expect.stringContaining("[org_from_changed]") }]);

    // For new rows alone.
    await sql`select org_migration.note_rules('public.notes'), org_migration.note_sources('public.notes')`;
    const { code, output } = await pushAgain(corrected);
    expect(code, output).toBe(0);
    await sql`alter table public.tasks rename column created_by to maker`;
    await sql`select tenancy.note_tables()`;
    expect(await sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
  });
});
