import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { decodeJwt } from "jose";
import type { TransactionSql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { demoPassword } from "../../local/application.ts";
import { supabase } from "../../local/supabase-cli.ts";
import {
  type Answers,
  cannotRun,
  copyCrm,
  crmFolder,
  followRecipe,
  growTables,
  recipe,
  run,
  type Site,
  undo,
} from "../adopter.ts";
import { findMigration, listEnding } from "../applications.ts";
import { companyA, companyB, companyC, createMembers, expectations, findMisplaced, pilot, readRows } from "../crm.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { defaultOrgId } from "../organizations.ts";
import { findPgtapFiles, runPgtapFile } from "../run-pgtap.ts";
import { describeSchema, ofTheApplication } from "../schema.ts";
import { startTestServices } from "../services.ts";

type Row = Record<string, unknown>;

/** Its name with the schema, which the catalog leaves out for public. */
const qualify = (table: string) => table.includes(".") ? table : `public.${table}`;

/** The rows of an answer in CSV. */
const readCsv = (text: string): string[][] =>
  (text.match(/(?:"(?:[^"]|"")*"|[^"\n])+/g) ?? []).map((line) =>
    [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain = ""]) =>
      quoted?.replaceAll('""', '"') ?? plain
    )
  );

describe("another application follows the documentation", () => {
  let database: Database;
  let site: Site;
  let answers: Answers;
  /** What the pilot had written to contacts.org_id. */
  let had: { id: string; org_id: string }[];
  let rowsBefore: Map<string, string>;
  let schemaBefore: string[];

  async function signIn(user: number): Promise<Row> {
    const response = await fetch(`${site.services.api.url}/auth/v1/token?grant_type=password`, {
      method: "POST",
      headers: { apikey: site.services.keys.publishableKey },
      body: JSON.stringify({ email: `user${user}@crm.example.com`, password: demoPassword }),
    });
    const { access_token } = (await response.json()) as { access_token: string };
    return decodeJwt(access_token);
  }

  /** Does something as a request with these claims does, and takes it back. */
  async function asUser<Answer>(claims: Row, act: (transaction: TransactionSql) => Promise<Answer>): Promise<Answer> {
    let answer: { value: Answer } | undefined;
    const undone = new Error("undone");
    await database.sql.begin(async (transaction) => {
      await transaction`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
      await transaction`set local role authenticated`;
      answer = { value: await act(transaction) };
      throw undone;
    }).catch((error: unknown) => {
      if (error !== undone) throw error;
    });
    return (answer as { value: Answer }).value;
  }

  /** Users in no company: the mapping leaves them out, and nobody puts them anywhere unasked. */
  const findUnplaced = async () =>
    (await database.sql`
      select id from auth.users where id not in (select user_id from public.company_members) order by id
    `).map(({ id }) => id as string);

  /** What the checklist finds, except these users. */
  async function findFailures(): Promise<Row[]> {
    const failures = await database.sql`select * from tenancy.verify() where not passed`;
    const { length } = await findUnplaced();
    return failures.filter(({ check_name, detail }) =>
      check_name !== "users" || !detail.includes(`(0 missing, 0 conflicts, ${length} in none, 0 unreachable)`)
    );
  }

  beforeAll(async () => {
    database = await cloneDatabase("adopt", "postgres");
    const { sql, url } = database;
    site = { project: copyCrm(database.name), url, services: await startTestServices(database.name) };
    // The application as it is live, on a platform that has its publication for Realtime.
    await sql`create publication supabase_realtime`;
    await supabase(["db", "push", "--workdir", site.project, `--remote=${url}`, "--yes"]);
    await sql.unsafe(readFileSync(join(crmFolder, "data.sql"), "utf8")).simple();
    await growTables(sql);
    had = [...await sql<typeof had>`select id, org_id from public.contacts where org_id is not null`];
    rowsBefore = await readRows(sql);
    schemaBefore = await describeSchema(sql);
    answers = await followRecipe(site);
  });

  afterAll(async () => {
    await site?.services.stop();
    await database?.drop();
  });

  test("every command of the recipe was run, or there is a reason why it cannot be", () => {
    const blocks = recipe.blocks("sh").join("\n");
    const unknown = recipe.inlineCommands.filter((command) =>
      !blocks.includes(command) && !Object.hasOwn(cannotRun, command)
    );
    expect(unknown, "commands between the blocks that nobody runs").toEqual([]);
    const stale = Object.keys(cannotRun).filter((command) => !recipe.text.includes(command));
    expect(stale, "commands that docs/adopt.md does not have any more").toEqual([]);
  });

  test("took at most six commands, and ten lines of decisions", () => {
    expect(answers.typed.length, answers.typed.join("\n")).toBeLessThanOrEqual(6);
    expect(answers.edited).toBeLessThanOrEqual(10);
  });

  test("the list has a row for every table, those to decide first, and nothing of the call-centre's", () => {
    const list = readFileSync(findMigration(site.project, listEnding), "utf8");
    const rows = [...list.matchAll(/^ {4}\('(\w+)', '(\w+)', '(\w+)'/gm)].map(([, ...names]) => names.join(" "));
    expect(rows).toEqual([
      "public activities org",
      "public audit_log org",
      "public companies excluded",
      "public company_members excluded",
      "public contacts org",
      "public currencies excluded",
      "public profiles excluded",
      "sales DealStages org",
      "sales deals org",
      "sales price_changes org",
      "sales deal_items org",
    ]);
    expect(list).not.toMatch(/call_logs|billing_plans/);
    expect(answers.adoptions[0]?.output).toContain("11 tables are new in the list");
    expect(answers.adoptions[1]?.output).toContain("No table is new in the list");
  });

  test("the index lines are those of the tables and partitions over 8 MB", () => {
    const lines = readFileSync(findMigration(site.project, "_EDIT_index_org_id.sql"), "utf8")
      .match(/^create index concurrently .*$/gm);
    expect(lines).toEqual([
      "create index concurrently if not exists idx_activities_2024_10_org_id on public.activities_2024_10 (org_id);" +
      " -- 9608 kB; partition of public.activities",
      "create index concurrently if not exists idx_price_changes_org_id on sales.price_changes (org_id); -- 8656 kB",
    ]);
  });

  test("asked with the list, the preflight refuses nothing, and has nothing left to classify", () => {
    const rows = answers.preflights.map(({ output }) => readCsv(output));
    expect(answers.preflights.map(({ code }) => code)).toEqual([0, 0]);
    expect(rows.flat().filter(([topic]) => topic === "refused" || topic === "to classify")).toEqual([]);
    const gets = rows[1]?.filter(([topic]) => topic === "gets org_id") ?? [];
    expect(gets.map(([, , table]) => table).sort()).toEqual(Object.keys(expectations).map(qualify).sort());
  });

  test("asked with the list, the columns and the mapping, it says what decided the rows of each table in the end", async () => {
    const backfills = readCsv(answers.preflights[1]?.output ?? "").filter(([topic, part]) =>
      topic === "plan" && part === "backfill"
    );
    const planned = backfills.map(([, , , , statement = ""]) => statement).sort();
    const log = await database.sql`select statement from tenancy.log where part = 'backfill'`;
    expect(planned).toEqual(log.map((row) => row["statement"] as string).sort());
    expect(planned).toContainEqual(
      expect.stringMatching(/^update public\.contacts: org_id of the owner in owner_id, /),
    );
    expect(planned).toContainEqual(expect.stringMatching(/^update public\.audit_log: org_id of the owner in actor, /));
    expect(planned).toContainEqual(
      expect.stringMatching(
        /^update sales\.deals: org_id of [^,]+, else sales\."DealStages" through stage_id, else the d/,
      ),
    );
  });

  test("the checklist passes, users included", async () => {
    expect(await findFailures()).toEqual([]);
    const tables = await database.sql`select relation::text from tenancy.org_scoped_tables order by 1`;
    expect(tables.map(({ relation }) => relation)).toEqual(Object.keys(expectations).sort());
  });

  test("users whom the mapping leaves out were named before the push, and are in no organization after it", async () => {
    const unplaced = await findUnplaced();
    expect(unplaced.length).toBeGreaterThan(0);
    const toDecide = readCsv(answers.preflights[1]?.output ?? "").filter(([topic]) => topic === "to decide");
    expect(toDecide).toContainEqual(
      expect.arrayContaining(["users_left_out", "auth.users", expect.stringMatching(`^has ${unplaced.length} users `)]),
    );
    const named = await database
      .sql`select user_id from tenancy.users_without_org where obstacle = 'unplaced' order by 1`;
    expect(named.map(({ user_id }) => user_id)).toEqual(unplaced);
  });

  test("the preflight says per table which columns decide, as text for the list, and how many rows each", async () => {
    const tables = readCsv(answers.preflights[1]?.output ?? "").filter(([topic]) => topic === "gets org_id");
    const said = Object.fromEntries(tables.map(([, , table, finding, toDo]) => [table, `${finding}; ${toDo}`]));
    expect(said["sales.deals"]).toMatch(
      /owner_id decides \d+, stage_id decides \d+.*; org_from '\{owner_id,stage_id\}'/,
    );
    expect(said["public.contacts"]).toMatch(/owner_id decides \d+, .*; org_from '\{owner_id,referred_by\}'/);
    expect(said["sales.deal_items"]).toMatch(/deal_id decides \d+.*; org_from '\{deal_id\}'/);
  });

  test("every row has the organization that it should have, and what the pilot had written stays", async () => {
    const { sql } = database;
    await sql.unsafe(createMembers);
    await sql`create temporary table had as select * from jsonb_to_recordset(${
      sql.json(had)
    }) as had (id uuid, org_id uuid)`;
    expect(await findMisplaced(database.sql)).toEqual([]);
    for (const [table, rows] of Object.entries(expectations)) {
      const [counts] = await sql.unsafe<{ rows: number; all: number; organizations: string[] }[]>(`
        select
          count(*)::integer as rows,
          (select count(*)::integer from ${table}) as all,
          array_agg(distinct org_id order by org_id) as organizations
        from (${rows}) as rows
      `);
      expect(counts?.rows, table).toBe(counts?.all);
      const expected = [defaultOrgId, companyA, companyB, companyC, ...(table === "contacts" ? [pilot] : [])];
      expect(counts?.organizations, table).toEqual(expect.arrayContaining(expected));
    }
  });

  test("no row was lost, none added, and nothing of one changed except org_id, not even updated_at", async () => {
    expect(await readRows(database.sql)).toEqual(rowsBefore);
  });

  test("the application's schema is what it was, and more", async () => {
    const after = new Set(await describeSchema(database.sql));
    expect(schemaBefore.filter((entry) => !after.has(entry))).toEqual([
      "column contacts.org_id uuid at 9",
    ]);
  });

  test("the copied tests pass", async () => {
    const copied = join(site.project, "supabase/tests/database");
    const files = findPgtapFiles(copied);
    expect(files.map((file) => basename(file))).toEqual([
      "everything_is_classified_and_right.test.sql",
      "nothing_leaks.test.sql",
    ]);
    const failed: Record<string, string[]> = {};
    for (const file of files) {
      const { passed, failures } = await runPgtapFile(database.url, file);
      if (failures.length > 0 || passed === 0) failed[basename(file)] = failures;
    }
    expect(failed).toEqual({});
  });

  test.each([
    { user: 7, org_id: companyA, others: companyB },
    { user: 2, org_id: companyB, others: companyA },
    { user: 8, org_id: companyB, others: companyA },
  ])(
    "user $user signs in, has the organization in the token, and what it writes comes there",
    async ({ user, org_id, others }) => {
      const claims = await signIn(user);
      expect(claims["app_metadata"]).toMatchObject({ org_id });
      const answer = await asUser(claims, async (transaction) => {
        const [own] = await transaction`
        select public.auth_org_id() as org_id, count(*)::integer as deals from sales.deals where org_id = (select public.auth_org_id())
      `;
        const [stage] =
          await transaction`select id from sales."DealStages" where org_id = (select public.auth_org_id()) limit 1`;
        // What the application's code has always sent, with no word of an organization.
        const [deal] = await transaction`
        insert into sales.deals (stage_id, title) values (${stage?.["id"]}, 'New') returning id, org_id
      `;
        const [item] = await transaction`
        insert into sales.deal_items (deal_id, product, unit_price) values (${
          deal?.["id"]
        }, 'New', 1) returning id, org_id
      `;
        await transaction`update sales.deal_items set unit_price = 2 where id = ${item?.["id"]}`;
        const [activity] = await transaction`
        insert into public.activities (deal_id, kind, occurred_at) values (${
          deal?.["id"]
        }, 'note', '2024-09-15') returning org_id
      `;
        const [audited] = await transaction`select org_id from public.audit_log where deal_id = ${deal?.["id"]}`;
        const [priced] = await transaction`select org_id from sales.price_changes where deal_item_id = ${item?.["id"]}`;
        const written = [deal, item, activity, audited, priced].map((row) => row?.["org_id"]);
        return { org_id: own?.["org_id"], deals: own?.["deals"] as number, written };
      });
      expect(answer).toEqual({ org_id, deals: expect.any(Number), written: Array(5).fill(org_id) });
      expect(answer.deals).toBeGreaterThan(0);

      await expect(asUser(claims, (transaction) => transaction`update sales.deals set org_id = ${others}`))
        .rejects.toMatchObject({ code: "23001", schema_name: "sales", table_name: "deals", column_name: "org_id" });
    },
  );

  test("with the documented policy colleagues see each other's deals, and no one else's", async () => {
    const condition = /`(using \(org_id = [^`]+)`/.exec(recipe.text)?.[1];
    await database.sql.unsafe(`create policy colleagues on sales.deals for select to authenticated ${condition}`);
    for (const [user, org_id] of [[7, companyA], [2, companyB]] as const) {
      const seen = await asUser(await signIn(user), (transaction) =>
        transaction`
          select org_id, count(*)::integer as deals, count(*) filter (where owner_id = auth.uid())::integer as own
          from sales.deals
          group by org_id
        `);
      const all = await database.sql`
        select org_id, count(*)::integer as deals, count(*) filter (where owner_id = md5('crm user ' || ${user})::uuid)::integer as own
        from sales.deals
        where org_id = ${org_id}
        group by org_id
      `;
      expect(seen, `user ${user}`).toEqual(all);
    }
  });

  test("a partition for another month comes with all of it", async () => {
    const { sql } = database;
    await sql`select public.create_activities_partition('2025-01-01')`;
    expect(await findFailures()).toEqual([]);
    const move = sql`update public.activities_2025_01 set org_id = ${companyB}`;
    await sql`
      insert into public.activities (occurred_at, kind, org_id) values ('2025-01-15', 'note', ${companyA})
    `;
    await expect(move).rejects.toMatchObject({ code: "23001" });
    await expect(sql`insert into public.activities (occurred_at, kind) values ('2025-01-16', 'note')`)
      .rejects.toMatchObject({ code: "23502", column_name: "org_id" });
  });

  test("the documented undo takes all of it back, except what filled the pilot's column", async () => {
    const { sql } = database;
    const loop = undo.blocks("sql").find((block) => block.includes("tenancy.roll_back(1)")) ?? "";
    await expect(sql.unsafe(loop), "the policy uses org_id").rejects.toMatchObject({ code: "2BP01" });
    await sql`drop policy colleagues on sales.deals`;
    await sql.unsafe(loop);

    await sql`drop table public.activities_2025_01`;
    expect(ofTheApplication(await describeSchema(sql))).toEqual(ofTheApplication(schemaBefore));
    expect(await readRows(database.sql)).toEqual(rowsBefore);
    const [contacts] = await sql`
      select count(*)::integer as changed
      from public.contacts
      left join had using (id)
      where had.org_id <> contacts.org_id
    `;
    expect(contacts).toEqual({ changed: 0 });
  });

  test("and can be pushed again, to the same end", async () => {
    const again = undo.blocks("sh").find((block) => block.includes("migration repair")) ?? "";
    const { code, output } = await run(site, again);
    expect(code, output).toBe(0);
    expect(await findFailures()).toEqual([]);
    expect(await findMisplaced(database.sql)).toEqual([]);
  });
});
