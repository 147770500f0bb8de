import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { copyCrm, crmFolder, decideAsOwner, undo } from "../adopter.ts";
import { adopt, change, listEnding } from "../applications.ts";
import { createMembers, findMisplaced, readRows } from "../crm.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { runAsWritten } from "../readme.ts";

/** What the owner writes at first, each instead of what is right: other columns of two tables, and another mapping. */
const mistakes = [
  ["'{owner_id,stage_id}'", "'{stage_id}'"],
  ["'{owner_id,referred_by}'", "'{referred_by}'"],
  ["order by user_id, created_at\n", "order by user_id, created_at desc\n"],
] as const;

describe("a list that was wrong", () => {
  let database: Database;
  let project: string;
  let rowsBefore: Map<string, string>;

  const run = (commands: string) => runAsWritten(commands, { folder: project, url: database.url });
  const block = (commands: string[], text: string) => {
    const found = commands.find((command) => command.includes(text));
    if (!found) throw new Error(`Cannot find a documented block with ${JSON.stringify(text)}`);
    return found;
  };
  const editList = (how: (text: string) => string) => change(project, listEnding, how);

  beforeAll(async () => {
    database = await cloneDatabase("push_again", "postgres");
    const { sql, url } = database;
    project = copyCrm(database.name);
    await sql`create publication supabase_realtime`;
    await supabase(["db", "push", "--workdir", project, `--remote=${url}`, "--yes"]);
    await sql.unsafe(readFileSync(join(crmFolder, "data.sql"), "utf8")).simple();
    await sql`create temporary table had as select id, org_id from public.contacts where org_id is not null`;
    await sql.unsafe(createMembers);
    rowsBefore = await readRows(sql);

    await adopt(project, url);
    decideAsOwner(project);
    editList((text) =>
      mistakes.reduce((edited, [right, wrong]) => {
        expect(edited).toContain(right);
        return edited.replaceAll(right, wrong);
      }, text)
    );
    const { code, output } = await run("npx supabase db push --remote");
    expect(code, output).toBe(0);
  });

  afterAll(async () => await database?.drop());

  const misplacedTables = async () =>
    [...new Set((await findMisplaced(database.sql)).map((row) => row.split(":")[0]))].sort();

  test("puts rows into organizations that are not theirs, and nothing but the application knows", async () => {
    expect(await database.sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
    expect(await misplacedTables()).toEqual(expect.arrayContaining(["contacts", "sales.deals"]));
    expect(await findWrongUsers()).not.toEqual([]);
  });

  const findWrongUsers = () =>
    database.sql`
      select members.user_id from members left join tenancy.user_orgs using (user_id)
      where members.org_id is distinct from user_orgs.org_id
    `;

  test("is corrected by the documented undo and the command to push again", async () => {
    const { sql } = database;
    await sql.unsafe(block(undo.blocks("sql"), "tenancy.roll_back(1)"));
    editList((text) => mistakes.reduce((edited, [right, wrong]) => edited.replaceAll(wrong, right), text));
    // Only this column was there before the push, so the values that it filled in have stayed.
    await sql.unsafe(`
      alter table public.contacts disable trigger user;
      update public.contacts set org_id = null where id not in (select id from had);
      alter table public.contacts enable trigger user;
    `).simple();

    const { code, output } = await run(block(undo.blocks("sh"), "migration repair"));
    expect(code, output).toBe(0);
    const applied = [...output.matchAll(/Applying migration \d+_(\w+)\.sql/g)].map(([, name]) => name);
    expect(applied).toEqual([
      "EDIT_list_of_tables",
      "add_org_id_to_existing_tables",
      "backfill_org_id_from_user_id",
      "EDIT_index_org_id",
      "add_org_id_foreign_keys",
      "add_org_id_not_null_constraints",
      "create_org_id_immutability_triggers",
      "verify_org_id_migration",
    ]);
    expect(await findWrongUsers()).toEqual([]);
    expect(await misplacedTables()).toEqual([]);
    expect(await sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
    expect(await readRows(sql)).toEqual(rowsBefore);
  });
});

describe("the default organization", () => {
  let database: Database;
  const create = "select org_migration.create_default_organization()";

  beforeAll(async () => {
    database = await cloneDatabase("push_again_default", "migrated");
    await database.sql`update tenancy.settings set default_org_id = 'c0000000-0000-4000-8000-000000000009'`;
  });

  afterAll(async () => await database?.drop());

  test("is not made where its name is another's", async () => {
    const { sql } = database;
    await sql`alter table public.organizations add constraint one_name unique (name)`;
    await expect(sql.unsafe(create)).rejects.toThrow("one_name");
    await sql`alter table public.organizations drop constraint one_name`;
  });

  test("is made once, also where the session of a killed push is still at it", async () => {
    const { sql, url } = database;
    const killed = connect(url);
    let again: Promise<unknown> = Promise.resolve();
    await killed.begin(async (transaction) => {
      await transaction.unsafe(create);
      again = sql.unsafe(create).then((rows) => rows.length);
      // It waits for this transaction.
      await expect(Promise.race([again, new Promise((resolve) => setTimeout(resolve, 300, "waits"))])).resolves.toBe(
        "waits",
      );
    });
    await killed.end();
    expect(await again).toBe(1);
  });
});
