import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { readRows } from "../../cli/adopt-list.ts";
import { pushTarget } from "../../local/application.ts";
import { connect } from "../../local/databases.ts";
import { freePort, startPostgres } from "../../local/postgres.ts";
import { root } from "../../local/project.ts";
import { startSupabase, supabase } from "../../local/supabase-cli.ts";
import { change, findMigration, listEnding, runAdopt } from "../applications.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { runAsWritten } from "../readme.ts";

const tables = `
  create table public.profiles (id uuid primary key references auth.users (id), name text);
  create table public.currencies (code text primary key);
  create table public.orders (
    id bigint generated always as identity primary key,
    buyer_id uuid not null references public.profiles (id),
    seller_id uuid references public.profiles (id)
  );
  create table public.events (id bigint generated always as identity primary key, user_id uuid, body text);
`;
/** Over 8 MB of events, all of a user. */
const fill = `
  insert into auth.users (id, email) values ('e0000000-0000-4000-8000-000000000001', 'somebody@shop.example.com');
  insert into public.events (user_id, body)
  select 'e0000000-0000-4000-8000-000000000001', repeat('x', 1000) from generate_series(1, 9000)
`;

describe("npm run adopt", () => {
  let count = 0;
  let database: Database;
  /** In a path with spaces. */
  let project: string;

  const migration = (name: string) => join(project, "supabase/migrations", name);
  const addMigration = (name: string, sql: string) => writeFileSync(migration(name), sql);
  const adopt = (...parameters: string[]) => runAdopt(project, "--db-url", database.url, ...parameters);
  const readMigration = (ending: string) => readFileSync(findMigration(project, ending), "utf8");
  const list = () => readRows("", readMigration(listEnding)).split("\n");
  const indexLines = () => readMigration("_EDIT_index_org_id.sql").match(/^create index .*$/gm) ?? [];
  /** Every file of the project, with its text. */
  const snapshot = () =>
    Object.fromEntries(
      (readdirSync(project, { recursive: true }) as string[])
        .filter((name) => statSync(join(project, name)).isFile())
        .sort()
        .map((name) => [name, readFileSync(join(project, name), "utf8")]),
    );

  async function mustAdopt(...parameters: string[]): Promise<string> {
    const { code, output } = await adopt(...parameters);
    expect(code, output).toBe(0);
    return output;
  }

  /** What the CLI notes of files that it has pushed. */
  async function notePushed(files: string[]): Promise<void> {
    await database.sql.unsafe(`
      create schema supabase_migrations;
      create table supabase_migrations.schema_migrations (version text primary key, name text);
    `).simple();
    const rows = files.map((file) => ({ version: file.slice(0, 14), name: file.slice(15, -".sql".length) }));
    await database.sql`insert into supabase_migrations.schema_migrations ${database.sql(rows)}`;
  }

  beforeEach(async () => {
    const name = `adopt_command_${count++}`;
    database = await cloneDatabase(name, "postgres");
    project = join(inject("folder"), "my apps", name);
    mkdirSync(join(project, "supabase/migrations"), { recursive: true });
    writeFileSync(
      join(project, "supabase/config.toml"),
      `# ours\nproject_id = "shop"\n\n[db]\nport = ${await freePort()}\nmajor_version = 17\n`,
    );
    addMigration("20240101000000_tables.sql", tables);
    await database.sql.unsafe(tables).simple();
    await database.sql.unsafe(fill).simple();
  });

  afterEach(async () => await database.drop());

  test("shows with --dry-run what it would write, and writes nothing", async () => {
    const before = snapshot();
    const output = await mustAdopt("--dry-run");
    expect(output).toMatch(/4 tables are new in the list, 3 of them to decide/);
    expect(output).toContain("Nothing was written: --dry-run.");
    expect(snapshot()).toEqual(before);
  });

  test("copies what the migration needs, and nothing of the shipped application", async () => {
    await mustAdopt();
    const files = Object.keys(snapshot());
    const shipped = (folder: string, ending = "") =>
      readdirSync(join(root, folder)).filter((name) => name.endsWith(ending));
    expect(files.filter((file) => file.startsWith("supabase/functions/")).length).toBe(
      shipped("supabase/functions/update-user-org-metadata").length,
    );
    expect(files.filter((file) => file.startsWith("supabase/migrations/")).map((file) => file.replace(/.*?_/, "")))
      .toEqual(
        ["tables.sql", ...shipped("supabase/migrations").map((file) => file.replace(/.*?_/, "")).slice(1)],
      );
    expect(files.filter((file) => file.startsWith("supabase/tests/")).map((file) => file.split("/").at(-1))).toEqual(
      shipped("supabase/tests/database", ".test.sql"),
    );
    expect(list().map((line) => line.trim().split(" -- ")[0])).toEqual([
      expect.stringContaining("To decide"),
      "('public', 'currencies', 'excluded', null, 'has nothing that says whose its rows are', null),",
      "('public', 'orders', 'org', 'secondary', null, '{buyer_id,seller_id}'),",
      "('public', 'profiles', 'org', 'secondary', null, '{id}'),",
      expect.stringContaining("As the keys say"),
      "('public', 'events', 'org', 'secondary', null, '{user_id}')",
    ]);
    expect(indexLines()).toEqual([
      expect.stringMatching(
        /^create index concurrently if not exists idx_events_org_id on public\.events \(org_id\); -- /,
      ),
    ]);
    expect(snapshot()["supabase/config.toml"]).toMatch(
      /^# ours\n[^]*\n\n\[functions\.update-user-org-metadata\]\nverify_jwt = false\n$/,
    );
  });

  test("run again keeps what was decided, adds what is new, says what is gone, and then has nothing to do", async () => {
    await mustAdopt();
    change(project, listEnding, (text) =>
      text
        .replace("'{buyer_id,seller_id}'", "'{seller_id}'")
        .replace(
          "('public', 'events', 'org', 'secondary', null, '{user_id}')",
          "('public', 'events', 'excluded', null, 'ours', null)",
        ));
    const decided = list();
    await database.sql.unsafe(`
      create table public.notes (id integer primary key, user_id uuid references auth.users (id));
      drop table public.currencies;
    `).simple();
    const line = "create index concurrently if not exists idx_of_old on public.old (org_id);\n";
    change(project, "_EDIT_index_org_id.sql", (text) => text.replace("set lock_timeout = 0;\n", `$&${line}`));
    const output = await mustAdopt();
    expect(output).toMatch(/1 table is new in the list, 0 of them to decide/);
    expect(output).toMatch(/✘ public\.currencies is registered and does not exist; .* \[missing_table\]/);
    expect(output).toContain("Index lines taken out, since these are excluded: public.events.");
    expect(list().slice(2)).toEqual(decided);
    expect(list()[1]).toBe(
      "    ('public', 'notes', 'org', 'secondary', null, '{user_id}'), -- has the column user_id",
    );
    expect(output).toContain("✘ Index lines of what is not in this database, and stops a push: public.old.");
    expect(indexLines().join("\n")).toBe(line.trimEnd());
    expect(snapshot()["supabase/preflight.sql"]).toContain(list()[1]);

    const before = snapshot();
    expect(await mustAdopt()).toContain("Nothing to write: the application has all of it.");
    expect(snapshot()).toEqual(before);
  });

  test("keeps what was pasted into the preflight, and what was accepted in the tests", async () => {
    await mustAdopt();
    const preflight = join(project, "supabase/preflight.sql");
    writeFileSync(
      preflight,
      readFileSync(preflight, "utf8").replace("select null::text\n", "select 'personal'::text\n"),
    );
    const leaks = join(project, "supabase/tests/database/nothing_leaks.test.sql");
    writeFileSync(leaks, `${readFileSync(leaks, "utf8")}-- looked at\n`);
    const before = snapshot();
    await mustAdopt();
    expect(snapshot()).toEqual(before);
  });

  test("what it writes is pushed as it is, and nothing is left to do", async () => {
    await mustAdopt();
    // Its own migration was pushed before.
    const repair = ["migration", "repair", "--workdir", project, "--status", "applied", "20240101000000"];
    await supabase([...repair, ...pushTarget(database.url)]);
    await supabase(["db", "push", "--workdir", project, ...pushTarget(database.url)]);
    expect(await database.sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
    const [log] = await database
      .sql`select statement from tenancy.log where part = 'index' and table_name like '%events'`;
    expect(log?.["statement"]).toContain("create index concurrently");
  });

  test("leaves a table open that looks like it references another, and the push stops at it", async () => {
    const open = "create table public.lines (id integer primary key, order_id bigint)";
    addMigration("20240201000000_lines.sql", open);
    await database.sql.unsafe(open);
    await mustAdopt();
    expect(list()).toContainEqual(
      expect.stringMatching(
        /^ {4}-- \('public', 'lines', 'org', .*\), or \(.* -- decide: org or excluded; it has order_id/,
      ),
    );
    await database.sql`drop table public.lines, public.events, public.orders, public.currencies, public.profiles`;
    const { code, output } = await startSupabase(["db", "push", "--workdir", project, ...pushTarget(database.url)])
      .result;
    expect(code).toBe(1);
    expect(output).toMatch(/public\.lines is not classified: .* \[unclassified_table\]/);
  });

  test("dates its files anew after migrations that came since, unless they are pushed there", async () => {
    await mustAdopt();
    change(project, listEnding, (text) => text.replace("'{buyer_id,seller_id}'", "'{seller_id}'"));
    const later = "create table public.later (id integer primary key, user_id uuid references auth.users (id))";
    addMigration("20991231000000_later.sql", later);
    await database.sql.unsafe(later);
    await mustAdopt();
    const files = readdirSync(join(project, "supabase/migrations")).sort();
    expect(files.slice(0, 3)).toEqual([
      "20240101000000_tables.sql",
      "20991231000000_later.sql",
      "20991231000001_create_organizations.sql",
    ]);
    expect(files.filter((file) => file.endsWith(listEnding))).toHaveLength(1);
    expect(list().join("\n")).toContain("'{seller_id}'");
    expect(list().join("\n")).toContain("'later', 'org'");

    // A push that has stopped before the list: what it has applied stays where it is.
    await database.sql.unsafe(`
      create schema supabase_migrations;
      create table supabase_migrations.schema_migrations (version text);
    `).simple();
    const note = (names: string[]) =>
      database.sql`insert into supabase_migrations.schema_migrations ${
        database.sql(names.map((name) => ({ version: name.split("_")[0] ?? "" })))
      }`;
    await note(files.slice(0, 5));
    addMigration("20991231010000_latest.sql", "select 1;");
    await mustAdopt();
    const again = readdirSync(join(project, "supabase/migrations")).sort();
    expect(again.slice(0, 7)).toEqual([
      ...files.slice(0, 5),
      "20991231010000_latest.sql",
      expect.stringMatching(/^20991231010004_/),
    ]);
    expect(again.at(-1)).toMatch(/^20991231010\d+_verify_org_id_migration\.sql$/);

    // All of it is pushed.
    await note(again.slice(5));
    await database.sql`create table public.latest (id integer primary key, user_id uuid references auth.users (id))`;
    addMigration("20991231020000_table.sql", "select 1;");
    const before = snapshot();
    const output = await mustAdopt();
    expect(output).toContain("The list is pushed, so these come too late for it");
    expect(output).toContain("('public', 'latest', 'org', 'secondary', null, '{user_id}'),");
    expect(snapshot()).toEqual(before);
  });

  test.each([
    ["of which nothing is pushed", []],
    ["of which the application's is pushed", ["2099_own"]],
  ])("dates its files anew where a migration of the application has the version of one, %s", async (_, pushed) => {
    await mustAdopt();
    const version = basename(findMigration(project, listEnding)).slice(0, 14);
    const earlier = readdirSync(join(project, "supabase/migrations")).filter((file) => file < version).slice(1);
    addMigration(`${version}_2099_own.sql`, "select 1;");
    await notePushed([...earlier, ...pushed.map((name) => `${version}_${name}.sql`)]);
    await mustAdopt();
    const files = readdirSync(join(project, "supabase/migrations")).sort();
    expect(files.slice(1, earlier.length + 2)).toEqual([...earlier, `${version}_2099_own.sql`]);
    expect(basename(findMigration(project, listEnding)) > `${version}_z`).toBe(true);
    expect(files).toHaveLength(new Set(files.map((file) => file.slice(0, 14))).size);
  });

  test("refuses a migration of the application that has the version of one of ours that is pushed", async () => {
    await mustAdopt();
    const list = basename(findMigration(project, listEnding));
    addMigration(`${list.slice(0, 14)}_own.sql`, "select 1;");
    await notePushed(readdirSync(join(project, "supabase/migrations")).filter((file) => !file.endsWith("_own.sql")));
    const before = snapshot();
    const { code, output } = await adopt();
    expect(code).toBe(2);
    expect(output).toContain(`${list.slice(0, 14)}_own.sql has the version of ${list}, which is pushed`);
    expect(snapshot()).toEqual(before);
  });

  describe("without --db-url", () => {
    test("says where a migration of the application has the version of one of ours", async () => {
      await mustAdopt();
      addMigration(
        `${basename(findMigration(project, "_tenancy_05_classification.sql")).slice(0, 14)}_own.sql`,
        "select 1;",
      );
      const { code, output } = await runAdopt(project);
      expect(code, output).toBe(0);
      expect(output).toMatch(
        /have the version of one of ours, and the CLI pushes one file per version: \d{14}_own\.sql/,
      );
    });

    test("asks a PostgreSQL of its own, with the migrations that come before the list", async () => {
      const { code, output } = await runAdopt(project);
      expect(code, output).toBe(0);
      expect(output).toContain("Reading the tables of a PostgreSQL of its own with the application's migrations");
      expect(list().join("\n")).toContain("('public', 'orders', 'org', 'secondary', null, '{buyer_id,seller_id}'),");
      expect(indexLines(), "it has no rows").toEqual([]);
      addMigration("20991231000000_later.sql", "create table public.later (id integer primary key)");
      const again = await runAdopt(project);
      expect(again.code, again.output).toBe(0);
      expect(again.output).toContain("a table that they make is classified there: 20991231000000_later.sql");
      expect(list().join("\n")).not.toContain("later");
    });

    test("says which migration an empty PostgreSQL does not take, and writes nothing", async () => {
      addMigration("20240201000000_vectors.sql", "create extension vector;");
      const before = snapshot();
      const { code, output } = await runAdopt(project);
      expect(code).toBe(2);
      expect(output).toMatch(
        /Cannot apply the application's migrations to an empty PostgreSQL.*give the database with --db-url/,
      );
      expect(output).toMatch(/20240201000000_vectors\.sql[^]*vector/);
      expect(snapshot()).toEqual(before);
    });

    test("asks the local stack, if it has the application's migrations", async () => {
      const port = await freePort();
      const config = join(project, "supabase/config.toml");
      writeFileSync(config, readFileSync(config, "utf8").replace(/port = \d+/, `port = ${port}`));
      const stack = await startPostgres({ port, folder: join(inject("folder"), "adopt-stack") });
      try {
        const asked = async () => (await runAdopt(project, "--dry-run")).output;
        expect(await asked()).toContain("Reading the tables of a PostgreSQL of its own");
        await supabase(["db", "push", "--workdir", project, ...pushTarget(stack.url())]);
        expect(await asked()).toContain(`Reading the tables of the local stack at 127.0.0.1:${port}`);
        // Of another application, or with more than comes before the list.
        const sql = connect(stack.url());
        await sql`insert into supabase_migrations.schema_migrations (version) values ('20991231000000')`;
        await sql.end();
        expect(await asked()).toContain("Reading the tables of a PostgreSQL of its own");
      } finally {
        await stack.stop("immediate");
      }
    });
  });

  test.each<[string, () => string[], RegExp]>([
    [
      "no connection",
      () => [project, "--db-url", "postgresql://postgres:geheim@127.0.0.1:1/postgres"],
      /^Cannot connect to --db-url postgresql:\/\/postgres:…@127\.0\.0\.1:1\/postgres: .*ECONNREFUSED/,
    ],
    [
      "a wrong password",
      () => [project, "--db-url", database.url.replace(":postgres@", ":geheim@")],
      /^Cannot connect to --db-url .*: password authentication failed/,
    ],
    ["no folder", () => [join(project, "nowhere")], /^Cannot adopt ".*nowhere": there is no such folder/],
    [
      "no tables",
      () => [project, "--db-url", database.url.replace(/adopt_command_\d+$/, "template1")],
      /^Cannot (read|write the list of) .*tables/,
    ],
  ])("refuses %s in one line, shows no password, and writes nothing", async (_, parameters, message) => {
    const before = snapshot();
    const [first = "", ...others] = parameters();
    const { code, output } = await runAdopt(first, ...others);
    expect(code, output).toBe(2);
    expect(output.replace(/^Reading .*\n\n/, "")).toMatch(message);
    expect(output).not.toContain("geheim");
    expect(output).not.toMatch(/^ +at /m);
    expect(snapshot()).toEqual(before);
  });

  test("refuses organizations with other ids, by what the migrations would refuse", async () => {
    await database.sql`create table public.organizations (id bigint primary key, name text)`;
    const before = snapshot();
    const { code, output } = await adopt();
    expect(code).toBe(2);
    expect(output).toContain(
      "Cannot look at the tables: public.organizations cannot be referenced: it must be a logged table with",
    );
    expect(snapshot()).toEqual(before);
  });

  test("refuses a list that cannot be read, by what is wrong with it", async () => {
    await mustAdopt();
    change(project, listEnding, (text) => text.replace("'org', 'secondary'", "'org' 'secondary'"));
    const before = snapshot();
    const { code, output } = await adopt();
    expect(code).toBe(2);
    expect(output).toMatch(/Cannot read the list in .*_EDIT_list_of_tables\.sql: syntax error/);
    expect(snapshot()).toEqual(before);
  });

  test("is called from the application's folder as well, by npm and with a path that has spaces", async () => {
    const { code, output } = await runAsWritten(
      `npm --prefix '${root}' run adopt -- . --db-url '${database.url}' --dry-run; cd ..; npm --prefix '${root}' run adopt -- '${
        project.split("/").at(-1)
      }' --db-url '${database.url}'`,
      { folder: project, url: database.url },
    );
    expect(code, output).toBe(0);
    expect(output).toContain(`Written to ${project}.`);
    expect(list().length).toBe(6);
  });
});
