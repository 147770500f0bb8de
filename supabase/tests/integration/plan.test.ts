import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { applyMigrations } from "../apply-migrations.ts";
import { cloneDatabase } from "../databases.ts";
import { askPreflight } from "../preflight.ts";
import { copyProject, readList } from "../../local/project-copy.ts";
import { describeSchema, withoutRemainders } from "../schema.ts";

type Database = Awaited<ReturnType<typeof cloneDatabase>>;

interface Statement {
  part: string;
  table_name: string;
  statement: string;
}

/** The phase files: what is pushed after the library and the list. */
const phases = [
  "_add_org_id_to_existing_tables.sql",
  "_backfill_org_id_from_user_id.sql",
  "_EDIT_index_org_id.sql",
  "_add_org_id_foreign_keys.sql",
  "_add_org_id_not_null_constraints.sql",
  "_create_org_id_immutability_triggers.sql",
  "_verify_org_id_migration.sql",
];

/** What is still to run on the database, in the order of the plan. */
const readPlan = async ({ sql }: Database): Promise<Statement[]> =>
  await sql<Statement[]>`
    select plan.part, format('%I.%I', nspname, relname) as table_name, plan.statement
    from tenancy.plan
    join pg_class on pg_class.oid = plan.relation
    join pg_namespace on pg_namespace.oid = relnamespace
    order by plan.number
  `;

const readLog = async ({ sql }: Database): Promise<Statement[]> =>
  await sql<Statement[]>`select part, table_name, statement from tenancy.log order by id`;

const mapping = `
  insert into public.organizations (id, name)
  select md5('org ' || n)::uuid, 'Organization ' || n from generate_series(0, 9) as n;
  insert into tenancy.user_orgs (user_id, org_id)
  select id, md5('org ' || (row_number() over (order by id)) % 10)::uuid from auth.users;
`;

/** Any user is enough for a mapping to be one. */
const oneUser = "select id, id from auth.users limit 1";

describe.each([
  ["one organization", "", 10 * 45],
  ["a mapping", mapping, 11 * 45],
])("a push of the 54 tables with %s", (name, sqlOfMapping, statements) => {
  const folder = `${inject("folder")}/plan-${name.replaceAll(" ", "-")}`;
  let database: Database;
  let foretold: Statement[];
  let plan: Statement[];

  beforeAll(async () => {
    database = await cloneDatabase(`plan_${name.replaceAll(" ", "_")}`, "before");
    foretold = (await askPreflight(database.sql, { list: readList(), ...(sqlOfMapping ? { mapping: oneUser } : {}) }))
      .filter((row) => row.topic === "plan")
      .map((row) => ({ part: row.code, table_name: row.object, statement: row.to_do }));
    const library = copyProject(`${folder}/library`);
    for (const phase of phases) library.remove(phase);
    library.append("_EDIT_list_of_tables.sql", sqlOfMapping);
    await applyMigrations(library.folder, database.url);
    plan = await readPlan(database);
    const whole = copyProject(`${folder}/whole`);
    whole.append("_EDIT_list_of_tables.sql", sqlOfMapping);
    await applyMigrations(whole.folder, database.url);
  });

  afterAll(async () => await database?.drop());

  test("is foretold by the preflight statement by statement", () => {
    expect(foretold).toEqual(plan);
  });

  test("runs what the plan said, statement by statement, and nothing else", async () => {
    expect(plan).toHaveLength(statements);
    expect(await readLog(database)).toEqual(plan);
  });

  test("logs when each statement began, how long it took, and the rows that it counted or updated", async () => {
    const { sql } = database;
    const unmeasured = await sql`select distinct part from tenancy.log where began is null or seconds is null`;
    expect(unmeasured).toEqual([{ part: "index" }]);
    const miscounted = await sql`
      select log.part, log.table_name, log.rows
      from tenancy.log
      join org_migration.tables_before on tables_before.relation = log.table_name::regclass
      where log.part in ('count', 'backfill') and log.rows is distinct from tables_before.row_count
    `;
    expect(miscounted).toEqual([]);
  });

  test("leaves nothing of the plan to do", async () => {
    expect(await readPlan(database)).toEqual([]);
  });
});

describe("the plan", () => {
  test("applied as plain SQL to an untouched copy gives the same catalog", async () => {
    const pushed = await cloneDatabase("end_state_pushed", "migrated_with_data");
    const written = await cloneDatabase("end_state_written", "before");
    try {
      const library = copyProject(`${inject("folder")}/end-state`);
      for (const phase of phases) library.remove(phase);
      await applyMigrations(library.folder, written.url);
      const [endState] = await written.sql`
        select string_agg(parts.ddl, E';\n' order by parts.ordinal, parts.relation::text) || ';' as text
        from tenancy.org_scoped_tables
        cross join tenancy.parts(org_scoped_tables.relation) as parts
      `;
      // As psql would run it: one statement at a time, since an index is built concurrently.
      for (const statement of (endState?.["text"] as string).split(/;\n/)) await written.sql.unsafe(statement);
      const describe = async ({ sql }: Database) => withoutRemainders(await describeSchema(sql));
      expect(await describe(written)).toEqual(await describe(pushed));
    } finally {
      await pushed.drop();
      await written.drop();
    }
  });
});
