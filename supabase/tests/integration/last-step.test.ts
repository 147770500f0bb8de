import { cpSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { migrationFiles, pushTarget } from "../../local/application.ts";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { root } from "../../local/project.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { adoptApplication, copyApplication, prepareApplication, runAdopt } from "../applications.ts";
import { refusal } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { isolateWhole } from "../isolated-applications.ts";
import { lastStep, lastStepDespiteFindings, takeLastStep } from "../last-step.ts";
import { defaultOrgId } from "../organizations.ts";
import { readSection, runAsWritten } from "../readme.ts";
import { callForAllTables } from "../rows.ts";
import { describeSchema } from "../schema.ts";
import { advance, checkNewTables, repeat } from "../steps.ts";

const [take = ""] = readSection("## Take it", "docs/last-step.md").blocks("sh");
/** Both blocks, which a reader types in one terminal. */
const replaceFiles = readSection("## One plain migration instead of the copied files", "docs/last-step.md").blocks("sh")
  .join(
    "\n",
  );

/** What an application has beside plain tables: partitions, a column from before with a row, and what is renamed later. */
const application = `
  create table public.events (id bigint generated always as identity, user_id uuid, day date not null, primary key (id, day))
  partition by range (day);
  create table public.events_2025 partition of public.events for values from ('2025-01-01') to ('2026-01-01');
  create table public.half (id integer primary key, user_id uuid, org_id uuid);
  insert into public.half values (1, null, null);
  create table public.old_name (id integer primary key, user_id uuid);
  create table public.notes (id integer primary key, user_id uuid, old_id integer constraint its_old references public.old_name);
`;
const listed = ["events", "half", "old_name", "notes"].map((name) =>
  `    ('public', '${name}', 'org', 'secondary', null, null),\n`
);

/** Migrations of later years, which stay; dated after the day on which this runs. */
const later = {
  "20990101000000_rename.sql": "alter table public.old_name rename to new_name;\nselect tenancy.note_tables();\n",
  "20990201000000_later_table.sql": `
    insert into tenancy.registry (table_name, scope, priority) values ('later', 'org', 'secondary');
    create table public.later (id integer primary key, user_id uuid);
    select tenancy.onboard('public.later');
  `,
  "20990301000000_later_members.sql": `
    insert into tenancy.registry (table_name, scope, reason) values ('members', 'excluded', 'memberships');
    create table public.members (user_id uuid, org_id uuid references public.organizations (id), primary key (user_id, org_id));
    select tenancy.enable_memberships('public.members');
  `,
};

/** What the owner has switched on by hand. */
async function optIn(sql: Sql): Promise<void> {
  await sql.unsafe(`
    create unique index old_of_organization on public.old_name (org_id, id);
    create index notes_of_organization on public.notes (org_id, old_id);
    alter table public.notes enable row level security;
    alter table public.events enable row level security;
    alter table public.events_2025 enable row level security;
  `).simple();
  await sql`select tenancy.enable_memberships(), tenancy.enable_token_hook(), tenancy.enable_new_users('default')`;
  await repeat(sql, "tenancy.enable_binding('public.notes')");
  for (const table of ["public.notes", "public.events"]) {
    await repeat(sql, `tenancy.enable_org_isolation('${table}', despite_findings => true)`);
    await repeat(sql, `tenancy.enable_least_privilege('${table}')`);
  }
}

const failures = async (sql: Sql) => [
  ...await sql`select check_name, table_name, detail from tenancy.verify() where not passed`,
];

describe("the last step", () => {
  let database: Database;
  let sql: Sql;
  let copy: ProjectCopy;
  let migrations: string;

  const push = async (url: string) => {
    const { code, output } = await copy.push(url);
    expect(code, output).toBe(0);
    return output;
  };
  const run = async (commands: string, replace: Record<string, string>) => {
    const { code, output } = await runAsWritten(commands, { folder: copy.folder, url: database.url, replace });
    expect(code, output).toBe(0);
    return output;
  };
  const fileNames = () => readdirSync(migrations).sort();

  beforeAll(async () => {
    database = await cloneDatabase("last_step", "postgres");
    sql = database.sql;
    copy = copyProject(join(inject("folder"), "last_step"));
    migrations = join(copy.folder, "supabase/migrations");
    writeFileSync(join(migrations, "20250102000000_more.sql"), application);
    copy.rewrite("_EDIT_list_of_tables.sql", (text) => text.replace("values\n", `values\n${listed.join("")}`));
    await push(database.url);
    await optIn(sql);
  });

  afterAll(async () => await database?.drop());

  test("is refused while a filler is on or a check fails, with both in the message, and drops nothing", async () => {
    await sql`drop policy org_isolation on public.notes`;
    const error = await refusal(sql`select tenancy.finish()`);
    expect(error?.code).toBe("55000");
    expect(error?.message).toContain("public.calls still has its filler, see docs/last-step.sql");
    expect(error?.message).toMatch(/^public\.notes isolation: org_isolation is missing or not what it should be/m);
    expect(await sql`select to_regnamespace('org_migration') as gone`).toEqual([{ gone: "org_migration" }]);

    await advance(sql, "isolation");
    await sql.unsafe(`
      create view public.progress as select relation from org_migration.tables_before;
      create function public.first_plan() returns tenancy.plan language sql begin atomic select * from tenancy.plan limit 1; end;
      create table public.counted (id integer, was org_migration.tables_before, relation regclass references org_migration.tables_before);
    `).simple();
    const { message } = await refusal(sql`select tenancy.finish()`) ?? {};
    for (
      const object of [
        "rule _RETURN on view public.progress",
        "function public.first_plan\\(\\)",
        "column was of table public.counted",
      ]
    ) {
      expect(message).toMatch(new RegExp(`^${object} uses .* which goes`, "m"));
    }
    expect(message).toMatch(/^constraint counted_relation_fkey on table public.counted uses .* which goes/m);
    await sql.unsafe(`drop view public.progress; drop function public.first_plan(); drop table public.counted`)
      .simple();

    // What still inserts without org_id would fail.
    await sql.unsafe(`
      create function public.note_sign_up() returns trigger language plpgsql security definer set search_path = '' as
      $$ begin insert into public.notes (id, user_id) values (1, new.id); return new; end $$;
      create trigger note_sign_up after insert on auth.users for each row execute function public.note_sign_up();
    `).simple();
    const asMigration = await refusal(sql.unsafe(lastStep.slice(lastStep.indexOf("do $$"))));
    expect(asMigration?.message).toMatch(/note_sign_up.*\[trigger_without_org_id\]/m);
    expect(await sql`select fill_org_id from tenancy.settings`).toEqual([{ fill_org_id: true }]);
    await sql`drop function public.note_sign_up() cascade`;
    expect((await refusal(sql`select tenancy.end_state()`))?.message).toContain("select tenancy.finish() first");
  });

  test("is a migration, which can be run again", async () => {
    // As an owner has it who knows of log_lead_change().
    const repository = join(inject("folder"), "last_step_repository");
    mkdirSync(join(repository, "docs"), { recursive: true });
    writeFileSync(join(repository, "docs/last-step.sql"), lastStepDespiteFindings);
    await run(take, { "../org-id-migration": repository });
    expect(await sql`select to_regnamespace('org_migration') as schema`).toEqual([{ schema: null }]);
    await supabase([
      "migration",
      "repair",
      "--workdir",
      copy.folder,
      ...pushTarget(database.url),
      "--status",
      "reverted",
      fileNames().at(-1)?.slice(0, 14) ?? "",
    ]);
    await push(database.url);
    expect(await failures(sql)).toEqual([]);
  });

  test("leaves nothing to adopt, which npm run adopt says", async () => {
    const { code, output } = await runAdopt(
      copyApplication("team-chat", "after_the_last_step"),
      "--db-url",
      database.url,
    );
    expect(code).toBe(2);
    expect(output).toContain("the last step was taken there, so nothing is left to adopt");
  });

  test("leaves nothing that names what is gone", async () => {
    const gone = await sql`
      select function.oid::regprocedure::text as name
      from pg_proc as function
      where pronamespace = 'tenancy'::regnamespace
        and prosrc ~ 'org_migration\\.'
        and prosrc !~ 'to_reg(namespace|class)\\(''org_migration'
    `;
    expect(gone.map(({ name }) => name)).toEqual([]);
    for (
      const { name }
        of await sql`select oid::regclass::text as name from pg_class where relnamespace = 'tenancy'::regnamespace and relkind = 'v'`
    ) {
      await sql.unsafe(`select * from ${name}`);
    }
  });

  test("leaves what takes in a new table, and refuses one whose rows nobody decides any more", async () => {
    await sql`create table public.fresh (id integer primary key, user_id uuid)`;
    const checks = await sql`select check_name from tenancy.onboard('public.fresh') where not passed`;
    expect(checks).toEqual([]);

    await sql`create table public.filled as select 1 as id, gen_random_uuid() as user_id`;
    const error = await refusal(sql`select tenancy.onboard('public.filled')`);
    expect(error?.code).toBe("23502");
    expect(error?.message).toContain("has 1 rows without organization");
    await sql`alter table public.filled add column org_id uuid`;
    await sql`update public.filled set org_id = ${defaultOrgId}`;
    expect(await sql`select check_name from tenancy.onboard('public.filled') where not passed`).toEqual([]);

    await checkNewTables(database.name);
    expect((await refusal(sql`create table public.nobody (user_id uuid)`))?.message).toContain("[unclassified_table]");
    await sql`drop event trigger if exists tenancy_new_table_check`.catch(() => {});
  });

  test("leaves verify(), which finds what is missing, and the step that makes it again", async () => {
    await sql`drop policy org_isolation on public.events_2025`;
    expect(await failures(sql)).toMatchObject([{ check_name: "isolation", table_name: "public.events" }]);
    await repeat(sql, "tenancy.enable_org_isolation('public.events')");
    await sql`alter table public.calls disable trigger org_id_immutable_calls`;
    expect(await failures(sql)).toMatchObject([{ check_name: "guard", table_name: "public.calls" }]);
    await sql`alter table public.calls enable always trigger org_id_immutable_calls`;
    expect(await failures(sql)).toEqual([]);
  });

  describe("and then the end state in place of the files", () => {
    let fresh: Database;
    let answer: string;

    beforeAll(async () => {
      await sql`drop table public.fresh, public.filled`;
      await sql`delete from tenancy.registry where table_name in ('fresh', 'filled')`;
      for (const [name, text] of Object.entries(later)) writeFileSync(join(migrations, name), text);
      await push(database.url);

      answer = await run(replaceFiles, { "tenancy.end_state()": "tenancy.end_state('{public.later,public.members}')" });

      fresh = await cloneDatabase("last_step_fresh", "postgres");
      await push(fresh.url);
    });

    afterAll(async () => await fresh?.drop());

    test("leaves one file of ours beside the organizations'", () => {
      expect(fileNames()).toEqual([
        "20250101000000_user_based_application.sql",
        "20250102000000_more.sql",
        "20250110000000_create_organizations.sql",
        "20250110090000_org_id.sql",
        ...Object.keys(later),
      ]);
    });

    test("makes the same from empty", async () => {
      expect(await describeSchema(fresh.sql)).toEqual(await describeSchema(sql));
      expect(await failures(fresh.sql)).toEqual([]);
      expect(await fresh.sql`select org_id from public.half`).toEqual([{ org_id: defaultOrgId }]);
    });

    test("agrees with the database that was migrated, for the CLI", async () => {
      expect(answer).toContain("up to date");
      const history = async (
        of: Sql,
      ) => [...await of`select version from supabase_migrations.schema_migrations order by 1`];
      expect(await history(sql)).toEqual(await history(fresh.sql));
    });

    test("protects nothing any more without the schema tenancy, as documented", async () => {
      const undone = new Error("undone");
      await fresh.sql.begin(async (transaction) => {
        await transaction`drop schema tenancy cascade`;
        const triggers = await transaction`
          select tgname from pg_trigger where not tgisinternal and (tgname ~ 'org_id' or tgrelid = 'auth.users'::regclass)
        `;
        expect(triggers).toEqual([]);
        expect(await transaction`select from pg_event_trigger where evtname ~ 'tenancy'`).toEqual([]);
        const [left] = await transaction`
          select
            (select count(*)::integer from pg_policy where polname = 'org_isolation') as policies,
            attnotnull,
            pg_get_expr(adbin, adrelid) as default
          from pg_attribute
          join pg_attrdef on adrelid = attrelid and adnum = attnum
          where attrelid = 'public.notes'::regclass and attname = 'org_id'
        `;
        expect(left).toEqual({ policies: 3, attnotnull: true, default: "auth_org_id()" });
        throw undone;
      }).catch((error: unknown) => {
        if (error !== undone) throw error;
      });
    });

    test("writes itself again", async () => {
      const write = async (of: Sql) =>
        (await of`select tenancy.end_state('{public.later,public.members}') as text`)[0]?.["text"];
      expect(await write(fresh.sql)).toBe(await write(sql));
    });
  });
});

describe.each(["crm", "marketplace", "team-chat", "half-migrated"])("the end state of %s, isolated", (name) => {
  let database: Database;
  let fresh: Database;

  beforeAll(async () => {
    database = await cloneDatabase(`finished_${name.replaceAll("-", "_")}`, "postgres");
    fresh = await cloneDatabase(`${database.name}_fresh`, "postgres");
    const { sql, url } = database;
    for (const each of [sql, fresh.sql]) await each`create publication supabase_realtime`;
    await adoptApplication(name, url, { kind: database.name, live: true });
    await isolateWhole(sql);
    await callForAllTables(sql, "tenancy.enable_least_privilege");
    await takeLastStep(sql);
    const [row] = await sql`select tenancy.end_state() as text`;

    const project = copyApplication(name, fresh.name);
    prepareApplication(name, project);
    const migrations = join(project, "supabase/migrations");
    const [organizations = ""] = migrationFiles().filter((file) => file.endsWith("_create_organizations.sql"));
    cpSync(join(root, "supabase/migrations", organizations), join(migrations, organizations));
    writeFileSync(
      join(migrations, organizations.replace("create_organizations", "org_id").replace(/^\d{13}/, "$&9")),
      row?.["text"],
    );
    await supabase(["db", "push", "--workdir", project, ...pushTarget(fresh.url)]);
  });

  afterAll(async () => {
    await fresh?.drop();
    await database?.drop();
  });

  test("makes the same from empty", async () => {
    expect(await describeSchema(fresh.sql)).toEqual(await describeSchema(database.sql));
    expect(await failures(fresh.sql)).toEqual([]);
  });
});
