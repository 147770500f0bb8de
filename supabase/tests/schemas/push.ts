import { rmSync } from "node:fs";
import { join } from "node:path";
import { expect, inject } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { copyProject } from "../../local/project-copy.ts";
import { tryMigrations } from "../apply-migrations.ts";
import { type Database, runAsSuperuser } from "../databases.ts";
import { findLostOrgIds, findWrongRows, type OrgIdsBefore, readOrgIds } from "../oracle.ts";
import { defaultOrgId } from "../organizations.ts";
import { askPreflight } from "../preflight.ts";
import { repeat } from "../steps.ts";
import { findBrokenReferences, findGaps, findMutable, listMembers } from "./catalog.ts";
import { findWrongFills } from "./filler.ts";
import type { RandomSchema } from "./generate.ts";
import { findOurs, findStrangeChanges, type Snapshot, takeSnapshot, validate } from "./snapshot.ts";

/** Copies the project and edits it as the owner of the schema would. */
function prepareProject(number: number, { list, mapping, indexLines }: RandomSchema) {
  const folder = join(inject("folder"), `schema-${number}`);
  rmSync(folder, { recursive: true, force: true });
  const project = copyProject(folder);
  project.remove("_user_based_application.sql");
  project.rewrite("_EDIT_list_of_tables.sql", (text) => {
    const rows = /^( {4}\('.*\),?\n)+/m;
    const check = "select tenancy.assert_registry();";
    if (!rows.test(text) || !text.includes(check)) throw new Error("Cannot replace the list: it is not where it was");
    return text
      .replace(rows, () => list.map((row) => `    ${row}`).join(",\n") + "\n")
      .replace(check, () => `${mapping.statements}\n${check}\n`);
  });
  project.rewrite("_EDIT_index_org_id.sql", (text) => {
    const lines = /(^create index concurrently .*\n)+/m;
    if (!lines.test(text)) throw new Error("Cannot replace the index lines: there are none");
    return text.replace(lines, () => `${indexLines}\n`);
  });
  return project;
}

/** The others are spared its start, a second each. */
const everyNthByCli = 8;

/** What became of a schema. */
export interface Outcome {
  result: "refused" | "migrated" | "rolled back";
  /** How many tables the backfill went through in passes. */
  inPasses: number;
}

/** Pushes to a database that has the schema, and holds it to what must come of that. */
export async function testPush(number: number, schema: RandomSchema, database: Database): Promise<Outcome> {
  const { sql } = database;
  await runAsSuperuser(database.name, schema.script);
  const ours = await findOurs(sql);
  const before = await takeSnapshot(sql, ours);
  const orgIdsBefore: OrgIdsBefore = schema.obstacle ? new Map() : await readOrgIds(sql, schema.orgTables);
  const role = schema.obstacle?.role ?? "postgres";
  const url = databaseUrl(inject("databasePort"), { database: database.name, role });
  const foreseen = await foresee(url, schema);
  const project = prepareProject(number, schema);
  const { code, output } = number % everyNthByCli === 0
    ? await project.push(url)
    : await tryMigrations(project.folder, url);
  if (schema.obstacle) {
    expect(code, output).toBe(1);
    if (!schema.obstacle.isUnforeseen) {
      expect(foreseen, `the preflight does not say so\n${output}`).toContain(schema.obstacle.code);
    }
    await expectRefusal(sql, schema.obstacle, output);
    expect(await takeSnapshot(sql, ours), `refused, and changed\n${output}`).toEqual(before);
    return { result: "refused", inPasses: 0 };
  }
  expect(code, output).toBe(0);
  expect(foreseen, "what the preflight calls refused").toEqual([]);
  const members = await listMembers(sql, schema.orgTables);
  await expectMigrated(sql, schema, { before, after: await takeSnapshot(sql, ours), members, orgIdsBefore });
  const inPasses = (await sql`select from org_migration.backfills where number = 0 and passes > 0`).length;
  if (!schema.rollBack) return { result: "migrated", inPasses };
  await repeat(sql, "tenancy.roll_back(1)");
  const rolledBack = await takeSnapshot(sql, ours);
  // What was there of org_id before stays, with its gaps filled and its constraints validated.
  expect(rolledBack.schema.map(validate), "rolled back").toEqual(before.schema.map(validate));
  expect(withoutOrgId(rolledBack, members), "rolled back").toEqual(withoutOrgId(before, members));
  expect(findLostOrgIds(orgIdsBefore, await readOrgIds(sql, schema.orgTables)), "rolled back").toEqual([]);
  return { result: "rolled back", inPasses };
}

/** The rows of every table by their digests, without org_id where the migration may have changed it. */
const withoutOrgId = ({ data }: Snapshot, members: string[]) =>
  new Map([...data].map(([name, digest]) => [name, members.includes(name) ? digest.withoutOrgId : digest.rows]));

async function expectMigrated(
  sql: Database["sql"],
  { orgTables }: RandomSchema,
  found: { before: Snapshot; after: Snapshot; members: string[]; orgIdsBefore: OrgIdsBefore },
): Promise<void> {
  const { before, after, members, orgIdsBefore } = found;
  expect(await findGaps(sql, orgTables)).toEqual([]);
  expect(await findMutable(sql, members)).toEqual([]);
  expect(await findBrokenReferences(sql)).toEqual([]);
  expect(findStrangeChanges(before.schema, after.schema, members)).toEqual([]);
  expect(withoutOrgId(after, members)).toEqual(withoutOrgId(before, members));
  expect(await findWrongRows(sql, orgTables, defaultOrgId, orgIdsBefore)).toEqual([]);
  expect(await findWrongFills(sql, orgTables), "filled").toEqual([]);
  expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
}

/** The codes of what stops the push, by the preflight. */
async function foresee(url: string, { list, mapping: { query } }: RandomSchema): Promise<string[]> {
  const sql = connect(url);
  try {
    const rows = await askPreflight(sql, {
      list: list.map((row) => `${row},\n`).join(""),
      ...(query ? { mapping: query } : {}),
    });
    return rows.filter(({ topic }) => topic === "refused" || topic === "to classify").map(({ code }) => code);
  } finally {
    await sql.end();
  }
}

/** Holds the push to name the obstacle by its code, and its table and no other. */
async function expectRefusal(
  sql: Database["sql"],
  { table, code }: NonNullable<RandomSchema["obstacle"]>,
  output: string,
): Promise<void> {
  const codes = [...output.matchAll(/\[([a-z_]+)\](?= \(SQLSTATE|$)/gm)].map(([, found]) => found);
  expect(codes, output).toContain(code);
  if (!table) return;
  const [named] = await sql`select format('%I.%I ', ${table.schema}::text, ${table.name}::text) as name`;
  const findings = output.split("\n").filter((line) => /\[[a-z_]+\]( \(SQLSTATE|$)/.test(line));
  const others = findings.filter((line) => !line.startsWith(named?.["name"] as string));
  expect(others, output).toEqual([]);
}
