import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { cloneDatabase } from "../databases.ts";
import { findLostOrgIds, findWrongRows, type OrgIdsBefore, readOrgIds } from "../oracle.ts";
import { preflightFile, withList } from "../preflight.ts";
import { copyProject } from "../../local/project-copy.ts";
import { chooseSeed } from "../random.ts";
import { findBrokenReferences, findGaps, findMutable, listMembers } from "./catalog.ts";
import { allFeatures, allObstacles, generateSchema, type RandomSchema } from "./generate.ts";
import { defaultOrgId } from "../organizations.ts";
import { findOurs, findStrangeChanges, takeSnapshot, validate } from "./snapshot.ts";

const seed = chooseSeed("random schemas");
const major = inject("major");
const only = process.env["TEST_SCHEMA"];
const numbers = only === undefined ? Array.from({ length: 210 }, (_, number) => number) : [Number(only)];

/** What became of the schemas. */
const outcome = {
  succeeded: 0,
  rolledBack: 0,
  inPasses: 0,
  refused: new Map<string, number>(),
  features: new Set<string>(),
};

type Database = Awaited<ReturnType<typeof cloneDatabase>>;

/** Copies the project and edits it as the owner of the schema would. */
function prepareProject(number: number, { list, columns, mapping, indexLines }: RandomSchema) {
  const project = copyProject(join(inject("folder"), `schema-${number}`));
  project.remove("_user_based_application.sql");
  project.rewrite("_discover_org_scoped_tables.sql", (text) => {
    const rows = /^( {4}\('.*\),?\n)+/m;
    const check = "select tenancy.assert_registry();";
    if (!rows.test(text) || !text.includes(check)) throw new Error("Cannot replace the list: it is not where it was");
    return text
      .replace(rows, () => list.map((row) => `    ${row}`).join(",\n") + "\n")
      .replace(check, () => `${nameColumns(columns)}\n${check}\n${mapping}\n`);
  });
  project.rewrite("_index_org_id.sql", (text) => {
    const lines = /(^create index concurrently .*\n)+/m;
    if (!lines.test(text)) throw new Error("Cannot replace the index lines: there are none");
    return text.replace(lines, () => `${indexLines}\n`);
  });
  return project;
}

/** The statement below the list that completes it. */
function nameColumns(columns: string[]): string {
  return columns.length === 0 ? "" : `
    update tenancy.registry
    set owner_column = named.owner_column, parent_column = named.parent_column
    from (values ${columns.join(", ")}) as named (schema_name, table_name, owner_column, parent_column)
    where (registry.schema_name, registry.table_name) = (named.schema_name, named.table_name);
  `;
}

async function createSchema({ name }: Database, { script }: RandomSchema): Promise<void> {
  const superuser = connect(databaseUrl(inject("databasePort"), { database: name, role: "supabase_admin" }));
  try {
    await superuser.unsafe(script).simple();
  } finally {
    await superuser.end();
  }
}

/** Pushes to a database that has the schema, and holds it to what must come of that. */
async function testPush(number: number, schema: RandomSchema, database: Database): Promise<void> {
  const { sql } = database;
  const ours = await findOurs(sql);
  const before = await takeSnapshot(sql, ours);
  const orgIdsBefore: OrgIdsBefore = schema.obstacle ? new Map() : await readOrgIds(sql, schema.orgTables);
  const role = schema.obstacle?.role ?? "postgres";
  const url = databaseUrl(inject("databasePort"), { database: database.name, role });
  const foreseen = await foresee(url, schema);
  const { code, output } = await prepareProject(number, schema).push(url);
  if (schema.obstacle) {
    expect(code, output).toBe(1);
    expect(foreseen, `the preflight says nothing\n${output}`).not.toEqual([]);
    await expectRefusal(sql, schema.obstacle, output);
    const after = await takeSnapshot(sql, ours);
    expect(after.schema, `refused, and changed\n${output}`).toEqual(before.schema);
    expect(after.data, `refused, and changed\n${output}`).toEqual(before.data);
    const { kind } = schema.obstacle;
    outcome.refused.set(kind, (outcome.refused.get(kind) ?? 0) + 1);
    return;
  }

  expect(code, output).toBe(0);
  expect(foreseen, "what the preflight calls refused").toEqual([]);
  expect(await findGaps(sql, schema.orgTables)).toEqual([]);
  const members = await listMembers(sql, schema.orgTables);
  expect(await findMutable(sql, members)).toEqual([]);
  expect(await findBrokenReferences(sql)).toEqual([]);
  const after = await takeSnapshot(sql, ours);
  expect(findStrangeChanges(before.schema, after.schema, members)).toEqual([]);
  const withoutOrgId = (snapshot: typeof before) =>
    new Map(
      [...snapshot.data].map(([name, digest]) => [name, members.includes(name) ? digest.withoutOrgId : digest.rows]),
    );
  expect(withoutOrgId(after)).toEqual(withoutOrgId(before));
  expect(await findWrongRows(sql, schema.orgTables, defaultOrgId, orgIdsBefore)).toEqual([]);
  expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  const passes = await sql`select from tenancy.backfills where passes > 0`;
  outcome.inPasses += passes.length;
  for (const feature of schema.features) outcome.features.add(feature);
  outcome.succeeded++;

  if (!schema.rollBack) return;
  for (let target: unknown = ""; target !== null;) {
    [target] = (await sql`select tenancy.roll_back(1)::text as target`).map((row) => row["target"]);
  }
  const rolledBack = await takeSnapshot(sql, ours);
  // What was there of org_id before stays, but that gaps are filled and constraints have been validated.
  expect(rolledBack.schema.map(validate), "rolled back").toEqual(before.schema.map(validate));
  expect(withoutOrgId(rolledBack), "rolled back").toEqual(withoutOrgId(before));
  expect(findLostOrgIds(orgIdsBefore, await readOrgIds(sql, schema.orgTables)), "rolled back").toEqual([]);
  outcome.rolledBack++;
}

/** What stops the push, by the preflight. */
async function foresee(url: string, { list, columns }: RandomSchema): Promise<string[]> {
  const paste = (rows: string[]) => rows.map((row) => `${row},\n`).join("");
  const query = withList(readFileSync(preflightFile, "utf8"), paste(list), paste(columns));
  const sql = connect(url);
  try {
    const findings = await sql.begin("read only", async (transaction) => await transaction.unsafe(query));
    return findings
      .filter((found) => found["topic"] === "refused" || found["topic"] === "to classify")
      .map((found) => `${found["object"]} ${found["finding"]}`);
  } finally {
    await sql.end();
  }
}

/** Holds the push to name the table, and no other, and why. */
async function expectRefusal(
  sql: Database["sql"],
  { table, problem }: NonNullable<RandomSchema["obstacle"]>,
  output: string,
): Promise<void> {
  if (!table) return expect(output).toMatch(problem);
  expect(output).toContain("the registry does not fit the database: 1 of its tables stop the push");
  const [quoted] = await sql`select format('%I.%I ', ${table.schema}::text, ${table.name}::text) as name`;
  const place = output.indexOf(quoted?.["name"] as string);
  expect(place, output).toBeGreaterThan(0);
  expect(output.slice(place + (quoted?.["name"] as string).length)).toMatch(problem);
}

describe.concurrent("a schema that no one has thought of is migrated whole, or refused and left as it was", () => {
  test.for(numbers)("schema %i", { timeout: 300_000 }, async (number) => {
    const schema = generateSchema(seed, number, major);
    const database = await cloneDatabase(`schema_${number}`, "postgres");
    try {
      await createSchema(database, schema);
      await testPush(number, schema, database);
    } catch (error) {
      const folder = join(tmpdir(), "random-schemas");
      mkdirSync(folder, { recursive: true });
      const file = join(folder, `${seed}-${number}.sql`);
      const { script, list, columns, mapping, indexLines } = schema;
      writeFileSync(
        file,
        [script, "/*", list.join(",\n"), nameColumns(columns), mapping, indexLines, "*/"].join("\n\n"),
      );
      const kind = schema.obstacle ? `refused for ${schema.obstacle.kind}` : "migrated";
      (error as Error).message = `TEST_SEED=${seed} TEST_SCHEMA=${number}, to be ${kind}: ${file}\n${
        (error as Error).message
      }`;
      throw error;
    } finally {
      await database.drop();
    }
  });
});

describe.skipIf(only !== undefined)("in all the schemas of a run", () => {
  test("there was every feature, and every obstacle", () => {
    expect(allFeatures(major).filter((feature) => !outcome.features.has(feature))).toEqual([]);
    expect(allObstacles(major).filter((obstacle) => !outcome.refused.has(obstacle))).toEqual([]);
    expect(outcome.rolledBack, "undone").toBeGreaterThan(outcome.succeeded / 5);
    expect(outcome.inPasses, "tables that were gone through in passes").toBeGreaterThan(0);
  });
});

afterAll(() => {
  const refused = [...outcome.refused].map(([kind, times]) => `${kind} (${times})`);
  console.log(
    `random schemas, PostgreSQL ${major}: ${outcome.succeeded} migrated with ${outcome.features.size} of ` +
      `${
        allFeatures(major).length
      } features, ${outcome.rolledBack} of them rolled back, ${outcome.inPasses} tables in passes; ` +
      `refused for ${refused.length} of ${allObstacles(major).length} obstacles: ${refused.join(", ")}`,
  );
});
