import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { connect, createDatabase } from "../../local/databases.ts";
import { freePort, type PostgresServer, startPostgres } from "../../local/postgres.ts";
import { root } from "../../local/project.ts";
import { copyProject } from "../../local/project-copy.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { readSection } from "../readme.ts";
import { addUsers, numberedUsers } from "../users.ts";

const page = "docs/other-tools.md";
/** The row of the list that the page has for Prisma's own table. */
const [, prismaRow = ""] = /`(\('public', '_prisma_migrations', [^`]*\))`/.exec(
  readSection("## Tables of the tools themselves", page).text,
) ?? [];
const orgTables = "select table_name as name from tenancy.registry where scope = 'org' order by 1";

describe("the CLI's other commands, on a database that was pushed", () => {
  let before: Database;
  let empty: Database;
  let full: Database;
  let names: string[];
  const folder = () => join(inject("folder"), "other_tools");

  /** The statements that make one database's schema the other's. */
  async function diff(from: Database, to: Database): Promise<string> {
    const file = join(folder(), `${from.name}-${to.name}.sql`);
    await supabase(["db", "diff", `--from=${from.url}`, `--to=${to.url}`, `--output=${file}`]);
    return readFileSync(file, "utf8");
  }

  beforeAll(async () => {
    mkdirSync(folder(), { recursive: true });
    before = await cloneDatabase("other_tools_before", "before");
    empty = await cloneDatabase("other_tools_empty", "migrated");
    full = await cloneDatabase("other_tools_full", "migrated_with_data");
    names = (await full.sql.unsafe(orgTables)).map(({ name }) => name as string);
  });

  afterAll(async () => {
    for (const database of [before, empty, full]) await database?.drop();
  });

  test("db diff finds no difference between one that was full before the push and one that was empty", async () => {
    expect(await diff(empty, full)).toBe("");
  });

  test("db diff to the schema before the push drops org_id: an old picture of the schema takes the migration back", async () => {
    const statements = await diff(full, before);
    expect(statements.match(/DROP COLUMN "org_id"/g)).toHaveLength(names.length);
    expect(statements).toContain('DROP TABLE "public"."organizations"');
    expect(statements).toContain('DROP SCHEMA "tenancy"');
  });

  test("gen types has org_id in every org-scoped table, and does not ask for it in an insert", async () => {
    const typesOf = async ({ url }: Database) => await supabase(["gen", "types", `--remote=${url}`, "--yes"]);
    const types = await typesOf(full);
    expect(types.match(/"org_id": string[,\n]/g)).toHaveLength(names.length);
    expect(types.match(/"org_id"\?: string[,\n]/g)).toHaveLength(2 * names.length);
    expect(await typesOf(before)).not.toContain("org_id");
  });

  test("declarative schemas that are generated anew have org_id in the file of every org-scoped table", async () => {
    const schemas = join(folder(), "schemas");
    await supabase([
      "db",
      "schema",
      "declarative",
      "generate",
      `--remote=${full.url}`,
      "--yes",
      "--output-dir",
      schemas,
    ]);
    const files = readdirSync(join(schemas, "public/tables")).filter((file) =>
      readFileSync(join(schemas, "public/tables", file), "utf8").includes('ADD COLUMN "org_id" uuid NOT NULL')
    );
    expect(files.sort()).toEqual(names.map((name) => `${name}.sql`).sort());
  });

  test("a push takes a database with Prisma's own table, where the list has what is documented for it", async () => {
    const { sql, url } = before;
    await sql`create table public._prisma_migrations (id varchar(36) primary key)`;
    const copy = copyProject(join(folder(), "with_prisma"));
    const refused = await copy.push(url);
    expect(refused.output).toMatch(/^public\._prisma_migrations is not classified: .* \[unclassified_table\]/m);

    copy.edit("_EDIT_list_of_tables.sql", "values\n", `values\n    ${prismaRow},\n`);
    const { code, output } = await copy.push(url);
    expect(code, output).toBe(0);
    expect(await sql`select scope from tenancy.registry where table_name = '_prisma_migrations'`)
      .toEqual([{ scope: "excluded" }]);
  });
});

describe("db reset", () => {
  let server: PostgresServer;
  let url: string;
  let sql: ReturnType<typeof connect>;

  /** What is on of the opt-ins, by the catalog alone. */
  async function optIns(): Promise<Record<string, number | boolean>> {
    const [on] = await sql`
      select
        (select count(*)::integer from pg_policy where polname = 'org_isolation') as isolated,
        (
          select count(*)::integer
          from pg_constraint
          join pg_attribute on attrelid = conrelid and attnum = any (conkey)
          where contype = 'f' and attname = 'org_id' and cardinality(conkey) > 1
        ) as bound,
        exists (select from pg_event_trigger where evtname = 'tenancy_new_table_check') as new_tables,
        exists (
          select from pg_trigger where tgrelid = 'auth.users'::regclass and tgname = '!assign_org_to_new_user'
        ) as new_users
    `;
    return on as unknown as Record<string, number | boolean>;
  }

  const reset = async (workdir: string, ...more: string[]) =>
    await supabase(["db", "reset", `--remote=${url}`, "--yes", "--workdir", workdir, ...more]);

  const failedChecks = async () => [...await sql`select check_name, detail from tenancy.verify() where not passed`];

  /** The opt-ins as a migration, as documented, with the index lines that enable_binding would name one by one. */
  async function composeOptIns(): Promise<string> {
    const [block = ""] = readSection("## Opt-ins as a migration", page).blocks("sql");
    const migrated = await cloneDatabase("other_tools_lines", "migrated");
    const lines = await migrated.sql<{ line: string }[]>`
      select distinct string_to_table(lines, E'\\n') as line from tenancy.binding_index_lines
    `;
    const open = await migrated.sql<{ line: string }[]>`
      select format('alter table %s enable row level security;', relation) as line
      from tenancy.application_tables
      join pg_class on pg_class.oid = relation
      where scope = 'org' and not relrowsecurity
    `;
    await migrated.drop();
    expect(block).toContain("-- The index lines");
    return block.replace(
      "-- The index lines",
      (place) => `${[...open, ...lines].map(({ line }) => line).join("\n")}\n${place}`,
    );
  }

  beforeAll(async () => {
    const folder = join(inject("folder"), "other_tools_reset");
    server = await startPostgres({ port: await freePort(), folder: `${folder}/server`, major: inject("major") });
    const admin = connect(server.url({ role: "supabase_admin" }));
    // The platform lets postgres create event triggers, and drop extensions. Here it has to be superuser for that.
    await admin`alter role postgres superuser`;
    await admin.end();
    url = await createDatabase(server.port, "reset", "postgres");
    sql = connect(url);
  });

  afterAll(async () => {
    await sql?.end();
    await server?.stop("immediate");
  });

  test("goes through from empty with every opt-in in a migration, and again with all of them on and rows in it", async () => {
    const copy = copyProject(join(inject("folder"), "other_tools_reset", "with_opt_ins"));
    writeFileSync(join(copy.folder, "supabase/migrations/20250111000000_opt_ins.sql"), await composeOptIns());
    copy.edit("_EDIT_list_of_tables.sql", "values\n", `values\n    ${prismaRow},\n`);
    const [isolated, bound] = [45, 32];

    await reset(copy.folder);
    expect(await optIns()).toEqual({ isolated, bound, new_tables: true, new_users: true });
    expect(await failedChecks()).toEqual([]);
    await expect(sql`create table public.unclassified (id integer)`).rejects.toMatchObject({ code: "55000" });

    await addUsers(sql, numberedUsers(3));
    await sql`insert into public.calls (user_id) select id from auth.users`;
    expect(await sql`select distinct org_id from public.calls`).toHaveLength(3);

    await reset(copy.folder);
    expect(await optIns()).toEqual({ isolated, bound, new_tables: true, new_users: true });
    expect(await failedChecks()).toEqual([]);
    expect(await sql`select from auth.users`).toHaveLength(0);
  });

  test("with the migrations alone leaves no opt-in on, and verify() does not miss them", async () => {
    await reset(root);
    expect(await optIns()).toEqual({ isolated: 0, bound: 0, new_tables: false, new_users: false });
    expect(await failedChecks()).toEqual([]);
  });

  test("to the application's own migration leaves nothing of ours", async () => {
    await reset(root, "--version=20250101000000");
    expect(await sql`select nspname from pg_namespace where nspname in ('tenancy', 'org_migration')`).toHaveLength(0);
    expect(await sql`select tgname from pg_trigger where tgrelid = 'auth.users'::regclass and not tgisinternal`)
      .toHaveLength(0);
    expect(await sql`select from pg_attribute where attname = 'org_id' and not attisdropped`).toHaveLength(0);
  });
});
