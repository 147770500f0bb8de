import { afterEach, describe, expect, inject, onTestFinished, test } from "vitest";
import { fillApplication, pushApplicationBefore } from "../../local/application.ts";
import { connect, createDatabase } from "../../local/databases.ts";
import { freePort, startPostgres } from "../../local/postgres.ts";
import { root } from "../../local/project.ts";
import { applyMigrations } from "../apply-migrations.ts";
import { cloneDatabase } from "../databases.ts";
import { mapUsers } from "../../local/mapping.ts";
import { findWrongRows } from "../oracle.ts";
import { defaultOrgId, north, south, tenOrganizations } from "../organizations.ts";
import { copyProject } from "../../local/project-copy.ts";
import { manyCallLogs, manyCalls } from "../rows.ts";

const open: Awaited<ReturnType<typeof cloneDatabase>>[] = [];
async function clone(name: string, template: "before" | "migrated_with_data" = "before") {
  const database = await cloneDatabase(name, template);
  open.push(database);
  return database;
}

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

/** What comes without organization then is for the migration to find. */
const withoutFiller = "update tenancy.settings set fill_org_id = false;";
const countTriggers = `
  create schema watch;
  create sequence watch.fired;
  create function watch.note() returns trigger language plpgsql as
  $$ begin perform nextval('watch.fired'); return null; end $$;
  create trigger note after insert or update or delete on public.calls for each row execute function watch.note();
  create trigger note after insert or update or delete on public.call_logs for each row execute function watch.note();
`;

describe("while everyone belongs to one organization", () => {
  test("the backfill is in the catalog: no row is touched, in the heap, in the statistics or in the change stream", async () => {
    const database = await clone("catalog_only");
    const { sql } = database;
    await sql.unsafe(manyCalls(100_000)).simple();
    await sql.unsafe(countTriggers).simple();
    await sql`vacuum analyze public.calls`;
    const observe = async () => ({
      tables: await sql`
        select relname, relfilenode, pg_relation_size(oid)::integer as bytes
        from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'organizations'
        order by relname
      `,
      versions: await sql`
        select count(*)::integer as rows, sum(hashtextextended(ctid::text || xmin::text || updated_at, 0))::text as digest
        from public.calls
      `,
      changes: await sql`
        select relname, n_tup_ins, n_tup_upd, n_tup_del
        from pg_stat_user_tables
        where schemaname = 'public' and relname <> 'organizations'
        order by relname
      `,
      fired: await sql`select is_called from watch.fired`,
    });
    await sql`select pg_stat_force_next_flush()`;
    const before = await observe();
    await sql`select pg_create_logical_replication_slot('watch', 'test_decoding')`;

    await applyMigrations(root, database.url);

    await sql`select pg_stat_force_next_flush()`;
    expect(await observe()).toEqual(before);
    const decoded = await sql`
      select data from pg_logical_slot_get_changes('watch', null, null, 'include-xids', '0')
      where data like 'table public.%' and data not like 'table public.organizations:%'
    `;
    await sql`select pg_drop_replication_slot('watch')`;
    expect(decoded.length).toBe(0);

    const [filled] = await sql`select count(*)::integer as rows from public.calls where org_id = ${defaultOrgId}`;
    expect(filled).toEqual({ rows: 100_060 });
  });

  test("rows that come without organization, and tables that had the column, are finished by batches", async () => {
    const database = await clone("latecomers");
    const { sql } = database;
    await sql.unsafe(`
      create table public.organizations (id uuid primary key, name text not null);
      insert into public.organizations values ('${defaultOrgId}', 'Everyone');
      alter table public.calls add column org_id uuid;
      update public.calls set org_id = '${defaultOrgId}' where ctid < '(0,20)';
    `).simple();
    const copy = copyProject(`${inject("folder")}/latecomers`);
    copy.append("_EDIT_list_of_tables.sql", withoutFiller);
    copy.append(
      "_add_org_id_foreign_keys.sql",
      "insert into public.imports (user_id, file_name) select gen_random_uuid(), 'late' from generate_series(1, 2500);",
    );
    await applyMigrations(copy.folder, database.url);
    const progress = await sql`
      select relation::text, state, rows_updated::integer, orphans::integer
      from org_migration.backfill_progress
      where rows_updated > 0
      order by 1
    `;
    // What hangs from calls may belong to whatever organizations those have already.
    const followers = [
      "call_logs",
      "call_tracking",
      "hallucination_flags",
      "recording_upload_queue",
      "sentiment_analysis",
      "user_active_calls",
    ];
    expect(progress.filter((row) => !followers.includes(row["relation"] as string))).toEqual([
      { relation: "calls", state: "finished", rows_updated: 41, orphans: 0 },
      { relation: "imports", state: "catalog", rows_updated: 2500, orphans: 2500 },
    ]);
    expect(progress.filter((row) => followers.includes(row["relation"] as string))).toEqual(
      followers.map((relation) => ({ relation, state: "finished", rows_updated: 60, orphans: 0 })),
    );
    expect(await sql`select * from tenancy.verify() where not passed and check_name not in ('users', 'row_count')`)
      .toEqual([]);
  });
});

describe("with organizations to tell apart", () => {
  test("a large table is rewritten row by row in batches, without the application's triggers and without its doubling", async () => {
    // A transaction in any database of the server keeps old versions of rows alive: a server of its own.
    const folder = `${inject("folder")}/strided`;
    const server = await startPostgres({ port: await freePort(), folder: `${folder}/server`, major: inject("major") });
    onTestFinished(() => server.stop("immediate"));
    const url = await createDatabase(server.port, "strided", "postgres");
    await pushApplicationBefore(url, folder);
    await fillApplication(url, { users: 60, rows: 60 });
    const sql = connect(url);
    onTestFinished(() => sql.end());
    await sql.unsafe(manyCallLogs(150_000)).simple();
    // What is measured is the order of the updates; a worker that analyzes the table meanwhile would keep old versions alive.
    await sql`alter table public.call_logs set (autovacuum_enabled = off)`;
    await sql.unsafe(countTriggers).simple();
    await sql`vacuum analyze public.call_logs`;
    const digest = () =>
      sql`
      select count(*)::integer as rows, sum(hashtextextended((to_jsonb(call_logs) - 'org_id')::text, 0))::text as digest from public.call_logs
    `;
    const before = await digest();
    const [size] = await sql`select pg_relation_size('public.call_logs')::integer as bytes`;
    const copy = copyProject(`${folder}/project`);
    copy.append("_EDIT_list_of_tables.sql", tenOrganizations);
    await applyMigrations(copy.folder, url);

    expect(await digest()).toEqual(before);
    expect(await sql`select is_called from watch.fired`).toEqual([{ is_called: false }]);
    const [wrong] = await sql`
      select count(*)::integer as rows
      from public.call_logs
      where org_id is distinct from tenancy.org_of(user_id) and exists (select from tenancy.user_orgs where user_orgs.user_id = call_logs.user_id)
    `;
    expect(wrong).toEqual({ rows: 0 });
    await sql`select pg_stat_force_next_flush()`;
    const [after] = await sql`
      select pg_relation_size(relid)::integer as bytes, n_tup_hot_upd::float / n_tup_upd as hot from pg_stat_user_tables where relname = 'call_logs'
    `;
    expect(Number(after?.["bytes"]) / Number(size?.["bytes"])).toBeLessThan(1.25);
    expect(Number(after?.["hot"])).toBeGreaterThan(0.75);
    const [progress] = await sql`
      select
        progress.state, max(backfills.passes) as passes, progress.rows_updated::integer, progress.done = 1 as complete,
        progress.rows_per_second > 0 as measured, progress.triggers_fired
      from org_migration.backfill_progress as progress
      join org_migration.backfills using (relation)
      where relation = 'public.call_logs'::regclass
      group by progress.state, progress.rows_updated, progress.done, progress.rows_per_second, progress.triggers_fired
    `;
    expect(progress).toEqual({
      state: "finished",
      passes: 13,
      rows_updated: 150_060,
      complete: true,
      measured: true,
      triggers_fired: false,
    });
  });

  test("rows of who is in several organizations, by a table of the application, follow the rows that they reference", async () => {
    const database = await clone("several_organizations");
    const { sql } = database;
    await sql.unsafe(`
      create table public.company_members (user_id uuid, company_id uuid, position text, primary key (user_id, company_id));
      update public.leads
      set campaign_id = (select id from public.campaigns where campaigns.user_id <> leads.user_id order by id limit 1);
    `).simple();
    const copy = copyProject(`${inject("folder")}/several_organizations`);
    copy.edit(
      "_EDIT_list_of_tables.sql",
      "values\n",
      "values\n    ('public', 'company_members', 'excluded', null, 'who belongs where', null),\n",
    );
    copy.append(
      "_EDIT_list_of_tables.sql",
      `
        ${mapUsers([north, south])}
        insert into public.company_members (user_id, company_id) select user_id, org_id from tenancy.user_orgs;
        insert into public.company_members (user_id, company_id)
        select user_id, organizations.id
        from tenancy.user_orgs
        join public.organizations on organizations.id in ('${north}', '${south}')
        where hashtext(user_id::text) % 3 = 0
        on conflict do nothing;
        select tenancy.enable_memberships('public.company_members', 'user_id', 'company_id', 'position');
      `,
    );
    await applyMigrations(copy.folder, database.url);

    const tables = (await sql`select table_name from tenancy.org_scoped_tables`).map((row) =>
      row["table_name"] as string
    );
    expect(await findWrongRows(sql, tables, defaultOrgId)).toEqual([]);
    const [leads] = await sql`
      select
        count(*) filter (where leads.org_id <> user_orgs.org_id)::integer as "following",
        count(*) filter (where leads.org_id <> campaigns.org_id and members.user_id is not null)::integer as "wrong"
      from public.leads
      join public.campaigns on campaigns.id = leads.campaign_id
      join tenancy.user_orgs on user_orgs.user_id = leads.user_id
      left join tenancy.memberships as members on (members.user_id, members.org_id) = (leads.user_id, campaigns.org_id)
    `;
    expect(leads).toMatchObject({ following: expect.toSatisfy((rows: number) => rows > 5), wrong: 0 });
    expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  });

  test("a function of the application in a check finds its table where its own sessions do", async () => {
    const database = await clone("functions");
    const { sql } = database;
    await sql.unsafe(`
      create table public.allowed (outcome text primary key);
      insert into public.allowed select distinct outcome from public.call_logs;
      create function public.is_allowed(outcome text) returns boolean language plpgsql stable as
      $$ begin return exists (select from allowed where allowed.outcome = is_allowed.outcome); end $$;
      alter table public.call_logs add constraint allowed_outcome check (public.is_allowed(outcome));
    `).simple();
    const copy = copyProject(`${inject("folder")}/functions`);
    copy.edit(
      "_EDIT_list_of_tables.sql",
      "values\n",
      "values\n    ('public', 'allowed', 'excluded', null, 'a test', null),\n",
    );
    copy.append("_EDIT_list_of_tables.sql", tenOrganizations);
    await applyMigrations(copy.folder, database.url);
    const [updated] = await sql`
      select rows_updated::integer as rows from org_migration.backfill_progress where relation = 'public.call_logs'::regclass
    `;
    expect(updated?.["rows"]).toBe(60);
  });

  test("one organization for each user, tables that reference one another, and rows that reference themselves", async () => {
    const database = await clone("cycles");
    const { sql } = database;
    await sql.unsafe(`
      create table public.teams (id integer primary key, user_id uuid, main_board_id integer);
      create table public.boards (id integer primary key, team_id integer references public.teams (id), parent_id integer references public.boards (id));
      alter table public.teams add foreign key (main_board_id) references public.boards (id);
      insert into public.teams values (1, (select id from auth.users order by id limit 1), null), (2, null, null), (3, null, null);
      insert into public.boards values (10, 1, null), (20, null, 10), (30, 3, null), (40, 2, null);
      update public.teams set main_board_id = 20 where id = 2;
      update public.teams set main_board_id = 30 where id = 3;
    `).simple();
    const copy = copyProject(`${inject("folder")}/cycles`);
    copy.edit(
      "_EDIT_list_of_tables.sql",
      "values\n",
      "values\n    ('public', 'teams', 'org', 'secondary', null, null),\n    ('public', 'boards', 'org', 'secondary', null, null),\n",
    );
    copy.append("_EDIT_list_of_tables.sql", "select tenancy.create_personal_organizations();");
    copy.edit(
      "_EDIT_index_org_id.sql",
      "create index concurrently if not exists idx_calls_org_id",
      "create index concurrently if not exists idx_teams_org_id on public.teams (org_id);\n" +
        "create index concurrently if not exists idx_boards_org_id on public.boards (org_id);\n" +
        "create index concurrently if not exists idx_calls_org_id",
    );
    await applyMigrations(copy.folder, database.url);

    const [organizations] =
      await sql`select count(*)::integer as count, count(distinct org_id)::integer as apart from tenancy.user_orgs`;
    expect(organizations).toEqual({ count: 60, apart: 60 });
    const owner = (await sql`select org_id from tenancy.user_orgs order by user_id limit 1`)[0]?.["org_id"] as string;
    const rows = await sql`
      select 'team ' || id as row, org_id from public.teams
      union all
      select 'board ' || id, org_id from public.boards
      order by 1
    `;
    // Team 2 and board 40 hang from board 20 and so from team 1; team 3 and board 30 only from each other.
    expect(Object.fromEntries(rows.map((row) => [row["row"], row["org_id"] === owner ? "owner" : row["org_id"]])))
      .toEqual({
        "team 1": "owner",
        "board 10": "owner",
        "board 20": "owner",
        "team 2": "owner",
        "board 40": "owner",
        "team 3": defaultOrgId,
        "board 30": defaultOrgId,
      });
    expect(await sql`select * from org_migration.backfill_progress where state <> 'finished'`).toEqual([]);
    await expect(sql`select tenancy.create_personal_organizations() as created`).resolves.toEqual([{ created: "0" }]);
  });
});

test.each([
  ["between the backfill and phase 4", "_add_org_id_foreign_keys.sql"],
  ["during the backfill, with parents that were done", "_backfill_org_id_from_user_id.sql"],
])("rows that come without organization %s go with their parents, whatever the order of names", async (_name, file) => {
  const database = await clone("late_children");
  const { sql } = database;
  const copy = copyProject(`${inject("folder")}/late_children`);
  copy.append("_EDIT_list_of_tables.sql", `${tenOrganizations} ${withoutFiller}`);
  const insert = `with late as (
       insert into public.calls (user_id, started_at, status)
       select id, now(), 'completed' from auth.users where id in (select user_id from tenancy.user_orgs)
       returning id
     )
     insert into public.call_tracking (call_id, event) select id, 'late' from late;`;
  copy.append(file, insert);
  if (file.startsWith("_backfill")) {
    // The table of the late rows has its turn once more, those of their parents have had theirs.
    copy.append(
      file,
      `delete from org_migration.backfills where relation = 'public.call_tracking'::regclass;
       do $$ begin while tenancy.advance('backfill') loop commit; end loop; end $$;`,
    );
  }
  await applyMigrations(copy.folder, database.url);
  const [late] = await sql`
    select count(*)::integer as rows, bool_and(call_tracking.org_id = user_orgs.org_id) as with_their_owner
    from public.call_tracking
    join public.calls on calls.id = call_tracking.call_id
    join tenancy.user_orgs on user_orgs.user_id = calls.user_id
    where call_tracking.event = 'late'
  `;
  expect(late).toEqual({ rows: 60, with_their_owner: true });
});

test("personal organizations are refused once the rows belong to the default organization", async () => {
  const database = await clone("too_late", "migrated_with_data");
  await expect(database.sql`select tenancy.create_personal_organizations()`).rejects.toMatchObject({ code: "55000" });
});
