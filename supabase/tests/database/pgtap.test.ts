import { dirname, join, relative } from "node:path";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { root } from "../../local/project.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { findPgtapFiles, readTap, runPgtapFile, splitStatements } from "../run-pgtap.ts";
import { describeSchema } from "../schema.ts";
import type { TemplateName } from "../templates.ts";

const folder = join(root, "supabase/tests");
const files = findPgtapFiles(folder).map((file) => [relative(folder, file), file] as const);

/** What a test must leave as it was: every definition, and the rows of every table, of the platform's too. */
async function readState(sql: Sql): Promise<string[]> {
  const tables = await sql<{ query: string }[]>`
    select format(
      'select %L || count(*) || '' '' || coalesce(sum(hashtextextended(row::text, 0)), 0) as line from %s as row',
      oid::regclass || ' ', oid::regclass
    ) as query
    from pg_class
    where relkind in ('r', 'm')
      and relnamespace in (select oid from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
  `;
  const rows = await sql.unsafe<{ line: string }[]>(
    tables.map(({ query }) => query).join(" union all ") + " order by 1",
  );
  return [...await describeSchema(sql), ...rows.map(({ line }) => line)];
}

/** The first file that changes a database for good, which takes a look at all of it after each. */
async function findLeak(template: TemplateName): Promise<string | undefined> {
  const database = await cloneDatabase(`pgtap_leak_${template}`, template);
  try {
    const before = (await readState(database.sql)).join();
    for (const [name, file] of files) {
      await runPgtapFile(database.url, file);
      if ((await readState(database.sql)).join() !== before) return name;
    }
    return undefined;
  } finally {
    await database.drop();
  }
}

// One after the other in one database, as `supabase test db` does: what a file leaves behind, the next one meets.
// On 17, the version of config.toml, the application has data; on the others it is empty, as after `supabase db reset`.
describe.each([inject("major") === 17 ? "migrated_with_data" : "migrated"] as const)(
  "every .sql file below supabase/tests, database %s:",
  (template) => {
    let database: Database;
    let before: string[];

    beforeAll(async () => {
      database = await cloneDatabase(`pgtap_${template}`, template);
      before = await readState(database.sql);
    });

    afterAll(async () => await database?.drop());

    test.each(files)("%s passes", async (_name, file) => {
      const { passed, failures } = await runPgtapFile(database.url, file);
      expect(failures).toEqual([]);
      expect(passed).toBeGreaterThan(0);
    });

    test("and none of them leaves anything behind", async () => {
      const after = await readState(database.sql);
      const leaking = after.join() === before.join() ? undefined : await findLeak(template);
      expect({ leaking, after }).toEqual({ leaking: undefined, after: before });
    });
  },
);

test("two files are for the CI of any application, which docs/adopt.md copies, and no other lies beside them", () => {
  const beside = files.flatMap(([name]) => dirname(name) === "database" ? [name] : []);
  expect(beside).toEqual(["database/everything_is_classified_and_right.test.sql", "database/nothing_leaks.test.sql"]);
});

describe("a file fails", () => {
  test.each([
    ["without a plan", ["ok 1 - it is"]],
    ["with two plans", ["1..1", "ok 1 - it is", "1..1"]],
    ["with fewer tests than planned", ["1..2", "ok 1 - it is"]],
    ["with more tests than planned", ["1..1", "ok 1 - it is", "ok 2 - it is"]],
    ["with a test that is not ok", ["1..1", "not ok 1 - it is", "# Failed test 1"]],
    ["with tests out of order", ["1..2", "ok 2 - it is", "ok 1 - it is"]],
    ["where it bails out", ["1..1", "ok 1 - it is", "Bail out! no more"]],
  ])("%s", (_why, lines) => {
    expect(readTap(lines).failures).not.toEqual([]);
  });

  test("and passes with what it planned", () => {
    expect(readTap(["1..2", "ok 1 - it is", "ok 2 - not ok"])).toEqual({ passed: 2, failures: [] });
  });
});

describe("a file is split into statements", () => {
  test.each([
    ["at semicolons", "select 1; select 2;\n", ["select 1;", " select 2;"]],
    ["without one at the end", "select 1; select 2", ["select 1;", " select 2"]],
    ["not within strings", "select 'a;''b;'; select E'\\';'; select \"a;\";", [
      "select 'a;''b;';",
      " select E'\\';';",
      ' select "a;";',
    ]],
    ["not within dollar quotes", "do $$ begin; $a$;$a$ end; $$; select $a$ ;$$; $a$;", [
      "do $$ begin; $a$;$a$ end; $$;",
      " select $a$ ;$$; $a$;",
    ]],
    ["not within comments", "select 1 -- one;\n; /* two; */ select 2; -- three;\n", [
      "select 1 -- one;\n;",
      " /* two; */ select 2;",
    ]],
    ["not within parentheses", "create rule a as on insert to b do (select 1; select 2); select 3;", [
      "create rule a as on insert to b do (select 1; select 2);",
      " select 3;",
    ]],
  ])("%s", (_where, text, statements) => {
    expect(splitStatements(text)).toEqual(statements);
  });

  test("and refused with a command of psql's own", () => {
    expect(() => splitStatements("select 1;\n\\echo it\n")).toThrow("a command of psql's own: \\echo it");
  });
});
