import { randomUUID } from "node:crypto";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { digestTables, pushTarget, sumRows, type TableDigest } from "../../local/application.ts";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { supabase } from "../../local/supabase-cli.ts";
import {
  addMigrations,
  applications,
  copyApplication,
  findMisplaced,
  prepareApplication,
  readData,
  versionsFromList,
} from "../applications.ts";
import { become, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { defaultOrgId } from "../organizations.ts";
import { describeSchema, ofTheApplication, withoutRemainders } from "../schema.ts";
import { repeat } from "../steps.ts";
import { addUsers, appMetadata } from "../users.ts";

const byName = applications.map((application) => [application.name, application] as const);

describe.each(byName)("%s goes from user_id to org_id", (name, application) => {
  const { expectations, members, had } = application;
  const tables = Object.keys(expectations);
  let database: Database;
  let project: string;
  /** How many lines of the list were edited. */
  let edited: number;
  /** The migrations that are to be pushed again after an undo. */
  let versions: string[];
  let schemaBefore: string[];
  let rowsBefore: Map<string, TableDigest>;

  const push = (...more: string[]) =>
    supabase(["db", "push", "--workdir", project, ...pushTarget(database.url), ...more]);

  /** Goes on with no organization in the token: as the user, or else as the service. */
  async function becomeCaller(sql: Sql, user?: string): Promise<void> {
    if (!user) return await become(sql, "service_role", { role: "service_role" });
    const [caller] = await sql.unsafe(`select ${user} as sub`);
    await become(sql, "authenticated", { sub: caller?.["sub"], role: "authenticated" });
  }

  /** Does something as the Auth server. */
  async function asAuthServer<Result>(act: (sql: Sql) => Promise<Result>): Promise<Result> {
    const auth = connect(databaseUrl(inject("databasePort"), { database: database.name, role: "supabase_auth_admin" }));
    try {
      return await act(auth);
    } finally {
      await auth.end();
    }
  }

  beforeAll(async () => {
    database = await cloneDatabase(name.replaceAll("-", "_"), "postgres");
    const { sql } = database;
    project = copyApplication(name);
    await push();
    await sql.unsafe(readData(name)).simple();
    prepareApplication(name, project);
    await push();
    rowsBefore = await digestTables(sql);
    schemaBefore = await describeSchema(sql);
    if (had) await sql.unsafe(`create temporary table had as ${had}`);
    edited = await addMigrations(name, project, database.url);
    versions = versionsFromList(project);
    await push();
    await sql.unsafe(`create temporary view members as ${members}`);
  });

  afterAll(async () => {
    await database?.drop();
  });

  test("its owner had nothing to edit but decisions", () => {
    expect(edited).toBeLessThanOrEqual(application.mostDecisions);
  });

  test("the push leaves nothing to do", async () => {
    expect(await database.sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
    const found = await database.sql`select relation::text from tenancy.org_scoped_tables order by 1`;
    expect(found.map(({ relation }) => relation)).toEqual(tables.toSorted());
  });

  test("every row has the organization that it should have", async () => {
    expect(await findMisplaced(database.sql, application)).toEqual([]);
  });

  test.each(tables)("the rows of %s are all looked at, and not all of one organization", async (table) => {
    const [counts] = await database.sql.unsafe<{ rows: number; all: number; organizations: string[] }[]>(`
      select
        count(*)::integer as rows,
        (select count(*)::integer from public.${table}) as all,
        array_agg(distinct org_id) as organizations
      from (${expectations[table]}) as rows
    `);
    expect(counts?.rows).toBe(counts?.all);
    expect(counts?.organizations.includes(defaultOrgId)).toBe(application.withDefault.includes(table));
    expect(counts?.organizations.length).toBeGreaterThanOrEqual(3);
  });

  test("no row was lost, none added, and nothing of one changed except org_id", async () => {
    expect(await digestTables(database.sql)).toEqual(rowsBefore);
    expect(sumRows(rowsBefore)).toBeGreaterThan(1000);
  });

  test("the application's schema is what it was, and more", async () => {
    const after = new Set(await describeSchema(database.sql));
    const gone = schemaBefore.filter((entry) => !after.has(entry));
    expect(gone.filter((entry) => !/^column \S+\.org_id uuid at \d+$/.test(entry))).toEqual([]);
  });

  test("rows that come without organization and without claim get the right one", async () => {
    const { sql } = database;
    await rehearse(sql, async () => {
      for (const { what, user, statement } of application.inserts) {
        await becomeCaller(sql, user);
        const { count } = await sql.unsafe(statement);
        await sql`reset role`;
        expect(count, what).toBeGreaterThan(0);
        expect(await findMisplaced(sql, application), what).toEqual([]);
      }
    });
  });

  test("a row that nothing places is refused", async () => {
    const { sql } = database;
    await rehearse(sql, async () => {
      await becomeCaller(sql);
      const error = await refusalOf(sql, () => sql.unsafe(application.unplaced));
      expect(error).toMatchObject({ code: "23502", column_name: "org_id" });
    });
  });

  const upserts = application.upserts.map(({ what, statement }) => [what, statement] as const);
  test.each(upserts)("an upsert without organization changes %s", async (_, statement) => {
    const { sql } = database;
    await rehearse(sql, async () => {
      const before = await digestTables(sql);
      await becomeCaller(sql);
      const { count } = await sql.unsafe(statement);
      await sql`reset role`;
      expect(count).toBeGreaterThan(0);
      expect(await findMisplaced(sql, application)).toEqual([]);
      const table = /insert into public\.(\w+)/.exec(statement)?.[1] ?? "";
      const after = await digestTables(sql);
      expect(after.get(table)?.rows).toBe(before.get(table)?.rows);
      expect(after.get(table)?.digest).not.toBe(before.get(table)?.digest);
    });
  });

  const signUps = application.signUps.map((signUp) => [signUp.who, signUp] as const);
  test.each(signUps)(
    "%s signs up, and can be deleted",
    async (_, { email, appMetadata: own, rows, tables, forget }) => {
      const { sql } = database;
      const id = randomUUID();
      await asAuthServer((auth) => addUsers(auth, [{ id, email, metadata: { ...appMetadata, ...own } }]));
      const written = await sql.unsafe(rows, [id]);
      expect(written.map((row) => row["table_name"]).sort()).toEqual(tables);
      for (const { table_name, org_id, expected } of written) {
        expect(org_id, table_name).not.toBeNull();
        expect(org_id, table_name).toBe(expected);
      }
      await asAuthServer((auth) => auth`delete from auth.users where id = ${id}`);
      if (forget) await sql.unsafe(forget, [id]);
      expect(await findMisplaced(sql, application)).toEqual([]);
    },
  );

  test("the undo gives the schema back, and leaves the rows", async () => {
    const { sql } = database;
    const rows = await digestTables(sql);
    await sql`select tenancy.disable_new_users()`;
    await repeat(sql, "tenancy.roll_back(1)");
    expect(ofTheApplication(await describeSchema(sql))).toEqual(ofTheApplication(schemaBefore));
    expect(await digestTables(sql)).toEqual(rows);
  });

  test("pushed again, it comes to the same end", async () => {
    const { sql, url } = database;
    const rows = await digestTables(sql);
    await supabase([
      ...["migration", "repair", "--workdir", project, `--remote=${url}`, "--yes", "--status", "reverted"],
      ...versions,
    ]);
    await push("--include-all");
    expect(await sql`select * from tenancy.verify_schema() where not passed`).toEqual([]);
    expect(await findMisplaced(sql, application)).toEqual([]);
    expect(await digestTables(sql)).toEqual(rows);
  });

  test("undone again, and the two schemas dropped, nothing of ours is left", async () => {
    const { sql } = database;
    const rows = await digestTables(sql);
    await repeat(sql, "tenancy.roll_back(1)");
    await sql`drop schema org_migration, tenancy cascade`;
    expect(withoutRemainders(await describeSchema(sql))).toEqual(withoutRemainders(schemaBefore));
    expect(await digestTables(sql)).toEqual(rows);
  });
});
