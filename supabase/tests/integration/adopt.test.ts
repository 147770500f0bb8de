import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeJwt } from "jose";
import type { TransactionSql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { demoPassword } from "../../local/application.ts";
import { root } from "../../local/project.ts";
import type { Services } from "../../local/stack.ts";
import { type CliResult, supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase } from "../databases.ts";
import { readSection, runAsWritten } from "../readme.ts";
import { findPgtapFiles, runPgtapFile } from "../run-pgtap.ts";
import { describeSchema, withoutRemainders } from "../schema.ts";
import { startTestServices } from "../services.ts";

const recipe = readSection("## Use it on your application");
const undo = readSection("### Undo");
const functionName = "update-user-org-metadata";
const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
const companyA = "c0000000-0000-4000-8000-00000000000a";
const companyB = "c0000000-0000-4000-8000-00000000000b";
const companyC = "c0000000-0000-4000-8000-00000000000c";
const pilot = "d0000000-0000-4000-8000-000000000001";

/** Commands of the recipe that no test can run, and why. Every other command of it is run below. */
const cannotRun: Record<string, string> = {
  "npx supabase link": "there is no project on the platform to link to; --remote=<address> stands in for it",
  "npx supabase db pull --remote": "it needs Docker to compare schemas, and the CRM's schema is in migrations already",
  "npx supabase functions deploy update-user-org-metadata --use-api":
    "there is no project on the platform to deploy to; the copied function is served here instead",
  "npx supabase start": "it needs Docker; the local stack stands in for it",
  "npx supabase test db": "it needs Docker; the copied tests are run without it",
  "npx supabase functions serve": "it needs Docker; the copied function is served without it",
  "npm run users": "another way to do step 5, tested in users.test.ts",
};

/** What the owner of the CRM decides where the message cannot: these tables do not get org_id. */
const excluded: Record<string, string> = {
  "public.companies": "each is an organization",
  "public.company_members": "says who belongs to which organization",
  "public.currencies": "the same for all",
  "public.profiles": "of users, whatever their organization",
};

/** And what the owner alone knows: the README's example for the table that is in the list from the start, and two more. */
const owners = `
${recipe.blocks("sql").find((block) => block.includes("('public', 'contacts')")) ?? ""}
update tenancy.registry
set parent_column = 'stage_id'
where (schema_name, table_name) = ('sales', 'deals');
update tenancy.registry
set owner_column = 'actor'
where (schema_name, table_name) = ('public', 'audit_log');
`;

/**
 * For each org-scoped table its rows with the organization that each should have, written for this application and its data
 * and without any code of the migration. The temporary tables are the CRM's own knowledge: members has the organization of
 * every user, of two companies the one joined first; had is what the pilot had written to contacts.org_id.
 */
const expectations: Record<string, string> = {
  contacts: `
    with recursive placed (id, expected) as (
      select contacts.id, coalesce(had.org_id, members.org_id, '${defaultOrgId}')
      from public.contacts
      left join had using (id)
      left join members on members.user_id = contacts.owner_id
      where had.org_id is not null or members.org_id is not null or contacts.referred_by is null
      union all
      select contacts.id, placed.expected
      from placed
      join public.contacts on contacts.referred_by = placed.id
      left join had on had.id = contacts.id
      left join members on members.user_id = contacts.owner_id
      where had.org_id is null and members.org_id is null
    )
    select contacts.*, expected from public.contacts left join placed using (id)
  `,
  'sales."DealStages"': `
    select stages.*, coalesce(members.org_id, '${defaultOrgId}') as expected
    from sales."DealStages" as stages
    left join members on members.user_id = stages.owner_id
  `,
  "sales.deals": `
    select deals.*, coalesce(members.org_id, stages.org_id) as expected
    from sales.deals
    join sales."DealStages" as stages on stages.id = deals.stage_id
    left join members on members.user_id = deals.owner_id
  `,
  "sales.deal_items": `
    select items.*, deals.org_id as expected
    from sales.deal_items as items
    join sales.deals on deals.id = items.deal_id
  `,
  "sales.price_changes": `
    select changes.*, coalesce(items.org_id, '${defaultOrgId}') as expected
    from sales.price_changes as changes
    left join sales.deal_items as items on items.id = changes.deal_item_id
  `,
  activities: `
    select activities.*, coalesce(members.org_id, contacts.org_id, deals.org_id, '${defaultOrgId}') as expected
    from public.activities
    left join members on members.user_id = activities.owner_id
    left join public.contacts on contacts.id = activities.contact_id
    left join sales.deals on deals.id = activities.deal_id
  `,
  audit_log: `
    select audit_log.*, coalesce(members.org_id, deals.org_id, '${defaultOrgId}') as expected
    from public.audit_log
    left join members on members.user_id::text = lower(audit_log.actor)
    left join sales.deals on deals.id = audit_log.deal_id
  `,
};

type Row = Record<string, unknown>;

describe("another application follows the README", () => {
  const folder = join(inject("folder"), "adopt");
  const project = join(folder, "crm");
  const migrations = join(project, "supabase/migrations");
  const had: { id: string; org_id: string }[] = [];
  const answers: CliResult[] = [];
  const refusals: string[] = [];
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let rowsBefore: Map<string, string>;
  let schemaBefore: string[];

  const run = (commands: string): Promise<CliResult> =>
    runAsWritten(commands, {
      folder: project,
      url: database.url,
      replace: { "https://$PROJECT_REF.supabase.co": services.api.url },
      environment: { SUPABASE_SECRET_KEY: services.keys.secretKey },
    });

  const nameOf = (ending: string) =>
    readdirSync(migrations).find((file) => file.endsWith(ending)) ?? `no file ending in ${ending}`;

  function change(ending: string, how: (text: string) => string): void {
    const file = join(migrations, nameOf(ending));
    writeFileSync(file, how(readFileSync(file, "utf8")));
  }

  /** Step 3: the list with the one table that the owner is sure of, no index line, who belongs where. */
  function editForTheFirstTime(): void {
    change("_discover_org_scoped_tables.sql", (text) =>
      text
        .replace(/^ {4}\('public', .*\n/gm, "")
        .replace("values\n", "values\n    ('public', 'contacts', 'org', 'critical', null)\n")
        .replace("select tenancy.assert_registry();", (check) => `${owners}\n${check}`)
        .concat("\n", recipe.blocks("sql").find((block) => block.includes("tenancy.user_orgs")) ?? ""));
    change("_index_org_id.sql", (text) => text.replaceAll(/^create index concurrently .*\n/gm, ""));
  }

  /** What the owner does about a refusal: only what its message says. Returns whether it said anything. */
  function mend(output: string): boolean {
    const unclassified = [...output.matchAll(/^(\S+) is not classified: .*$/gm)];
    const rows = unclassified.map(([line, table = ""]) => {
      const why = excluded[table];
      const offered = [...line.matchAll(/\('[^']+', '[^']+', '(org|excluded)', [^)]*\)/g)];
      expect(offered.length, line).toBe(2);
      const [row] = offered.find(([, scope]) => scope === (why ? "excluded" : "org")) ?? [line];
      return `    ${row.replace("<why not>", why ?? "")},\n`;
    });
    const updates = unclassified.filter(([, table = ""]) => !excluded[table]).flatMap(([line]) =>
      line.match(/update tenancy\.registry [^;]*;/) ?? []
    );
    change("_discover_org_scoped_tables.sql", (text) =>
      text
        .replace("values\n", `values\n${rows.join("")}`)
        .replace("select tenancy.assert_registry();", (check) => `${updates.join("\n")}\n${check}`));
    const lines = [...output.matchAll(/create index concurrently .*?;/g)].map(([line]) => `${line}\n`);
    change("_index_org_id.sql", (text) => text.replace("set lock_timeout = 0;\n", `$&${lines.join("")}`));
    return rows.length + lines.length > 0;
  }

  /** Step 2 once more: the list is pasted into the question of what will happen. */
  async function askWithTheList(): Promise<void> {
    const [list = ""] =
      /^( {4}\(.*\n)+/m.exec(readFileSync(join(migrations, nameOf("_discover_org_scoped_tables.sql")), "utf8")) ?? [];
    const file = join(project, "supabase/preflight.sql");
    writeFileSync(
      file,
      readFileSync(file, "utf8").replace(/^ *\(null::text, .*$/m, (last) => `${list.trimEnd()},\n${last}`),
    );
    answers.push(await run(recipe.blocks("sh").find((block) => block.includes("-f supabase/preflight.sql")) ?? ""));
  }

  /** Every table of the application with its rows, org_id apart; partitions are in what they are partitions of. */
  async function readRows(): Promise<Map<string, string>> {
    const { sql } = database;
    const tables = await sql<{ name: string }[]>`
      select oid::regclass::text as name
      from pg_class
      where relnamespace in ('public'::regnamespace, 'sales'::regnamespace)
        and (relkind in ('r', 'p') and not relispartition or relkind = 'm')
        and relname <> 'organizations'
    `;
    const rows = new Map<string, string>();
    for (const { name } of tables) {
      const found = await sql.unsafe<{ row: string }[]>(
        `select (to_jsonb(row) - 'org_id')::text as row from ${name} as row order by 1`,
      );
      rows.set(name, found.map(({ row }) => row).join("\n"));
    }
    return rows;
  }

  /** The rows that have another organization than they should. */
  async function findMisplaced(): Promise<string[]> {
    const misplaced: string[] = [];
    for (const [table, rows] of Object.entries(expectations)) {
      const found = await database.sql.unsafe(`select * from (${rows}) as rows where org_id is distinct from expected`);
      misplaced.push(...found.map((row) => `${table}: ${JSON.stringify(row)}`));
    }
    return misplaced;
  }

  async function signIn(user: number): Promise<Row> {
    const response = await fetch(`${services.api.url}/auth/v1/token?grant_type=password`, {
      method: "POST",
      headers: { apikey: services.keys.publishableKey },
      body: JSON.stringify({ email: `user${user}@crm.example.com`, password: demoPassword }),
    });
    const { access_token } = (await response.json()) as { access_token: string };
    return decodeJwt(access_token);
  }

  /** The steps 1 to 6, in order. */
  async function followTheRecipe(): Promise<void> {
    for (const block of recipe.blocks("sh")) {
      const commands = block.split("\n").filter((line) => !Object.hasOwn(cannotRun, line)).join("\n");
      if (/^npx supabase db push/m.test(commands)) editForTheFirstTime();
      if (commands.includes("/functions/v1/")) {
        await services.serve(functionName, join(project, "supabase/functions"));
      }
      let { code, output } = await run(commands);
      if (commands.includes("-f supabase/preflight.sql")) answers.push({ code, output });
      while (code !== 0 && refusals.length < 5 && mend(output)) {
        refusals.push(output);
        if (refusals.length === 1) await askWithTheList();
        ({ code, output } = await run("npx supabase db push --remote"));
      }
      expect(code, `${commands}\n${output}`).toBe(0);
    }
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

  beforeAll(async () => {
    database = await cloneDatabase("adopt", "postgres");
    services = await startTestServices(database.name);
    mkdirSync(folder, { recursive: true });
    // The application as its developer has it, the Supabase CLI among its packages, and this repository beside it.
    const fixture = join(root, "supabase/local/fixtures/crm");
    cpSync(join(fixture, "supabase"), join(project, "supabase"), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(project, "node_modules"));
    symlinkSync(root, join(folder, "org-id-migration"));
    // And as it is live, on a platform that has its publication for Realtime.
    await database.sql`create publication supabase_realtime`;
    await supabase(["db", "push", "--workdir", project, `--remote=${database.url}`, "--yes"]);
    await database.sql.unsafe(readFileSync(join(fixture, "data.sql"), "utf8")).simple();
    had.push(...await database.sql<typeof had>`select id, org_id from public.contacts where org_id is not null`);
    rowsBefore = await readRows();
    schemaBefore = await describeSchema(database.sql);
    await followTheRecipe();
  }, 180_000);

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  test("every command of the recipe was run, or there is a reason why it cannot be", () => {
    const blocks = recipe.blocks("sh").join("\n");
    const unknown = recipe.inlineCommands.filter((command) =>
      !blocks.includes(command) && !Object.hasOwn(cannotRun, command)
    );
    expect(unknown, "commands between the blocks that nobody runs").toEqual([]);
    const stale = Object.keys(cannotRun).filter((command) => !recipe.text.includes(command));
    expect(stale, "commands that the README does not have any more").toEqual([]);
  });

  test("asked before, it names every table with its row for the list, and with the list none", () => {
    const [before, withTheList] = answers.map(({ output }) =>
      [...output.matchAll(/\('(\w+)', '(\w+)', '(org|excluded)', [^)]*\),/g)].map(([, schema, table]) =>
        `${schema}.${table}`
      )
    );
    expect(before).toEqual([
      "public.activities",
      "public.audit_log",
      "public.companies",
      "public.company_members",
      "public.contacts",
      "public.currencies",
      "public.profiles",
      "sales.DealStages",
      "sales.deal_items",
      "sales.deals",
      "sales.price_changes",
    ]);
    expect(withTheList).toEqual([]);
    expect(answers.map(({ code }) => code)).toEqual([0, 0]);
    const gets = [...(answers[1]?.output ?? "").matchAll(/^. gets org_id +. (\S+)/gm)].map(([, table]) => table);
    expect(gets).toEqual(Object.keys(expectations).sort());
    expect(answers.map(({ output }) => output).join("\n")).not.toContain("will be refused");
  });

  test("the push was refused twice, and each message had all that was missing", () => {
    expect(refusals.length).toBe(2);
    const [unclassified = "", unindexed = ""] = refusals;
    expect(unclassified).toContain("the registry does not fit the database: 10 of its tables stop the push");
    expect(unindexed).toContain("org_id is not indexed on every org-scoped table");
    const lines = [...unindexed.matchAll(/create index concurrently if not exists (\S+) on (\S+) \(org_id\);/g)];
    expect(lines.map(([, , table]) => table).sort()).toEqual([
      "public.activities_2024_09",
      "public.activities_2024_10",
      "public.activities_2024_11",
      "public.activities_other",
      "public.audit_log",
      'sales."DealStages"',
      "sales.deal_items",
      "sales.deals",
      "sales.price_changes",
    ]);
  });

  test("the checklist passes, users included", async () => {
    expect(await database.sql`select * from tenancy.verify() where not passed`).toEqual([]);
    const tables = await database.sql`select relation::text from tenancy.org_scoped_tables order by 1`;
    expect(tables.map(({ relation }) => relation)).toEqual(Object.keys(expectations).sort());
  });

  test("every row has the organization that it should have, and what the pilot had written stays", async () => {
    const { sql } = database;
    await sql`
      create temporary table members as
      select distinct on (user_id) user_id, company_id as org_id
      from public.company_members
      order by user_id, created_at
    `;
    await sql`create temporary table had as select * from jsonb_to_recordset(${
      sql.json(had)
    }) as had (id uuid, org_id uuid)`;
    expect(await findMisplaced()).toEqual([]);
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

  test("no row was lost, none added, and nothing of one changed but org_id, updated_at included", async () => {
    expect(await readRows()).toEqual(rowsBefore);
  });

  test("the application's schema is what it was, and more", async () => {
    const after = new Set(await describeSchema(database.sql));
    expect(schemaBefore.filter((entry) => !after.has(entry))).toEqual([
      "column contacts.org_id uuid at 9",
    ]);
  });

  test("the copied tests pass", async () => {
    const copied = join(project, "supabase/tests/database");
    const files = findPgtapFiles(copied);
    expect(files.length).toBeGreaterThan(10);
    for (const file of files) {
      const { passed, failures } = await runPgtapFile(database.url, file);
      expect(failures, file).toEqual([]);
      expect(passed, file).toBeGreaterThan(0);
    }
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
        .rejects.toMatchObject({ code: "23001", message: "org_id of sales.deals is immutable" });
    },
  );

  test("with the README's policy colleagues see each other's deals, and no one else's", async () => {
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
    expect(await sql`select * from tenancy.verify() where not passed`).toEqual([]);
    const move = sql`update public.activities_2025_01 set org_id = ${companyB}`;
    await sql`
      insert into public.activities (occurred_at, kind, org_id) values ('2025-01-15', 'note', ${companyA})
    `;
    await expect(move).rejects.toMatchObject({ code: "23001" });
    await expect(sql`insert into public.activities (occurred_at, kind) values ('2025-01-16', 'note')`)
      .rejects.toMatchObject({ code: "23502", column_name: "org_id" });
  });

  test("the README's undo takes all of it back but what the pilot's column was filled with", async () => {
    const { sql } = database;
    const loop = undo.blocks("sql").find((block) => block.includes("tenancy.roll_back(1, target)")) ?? "";
    await expect(sql.unsafe(loop), "the policy uses org_id").rejects.toMatchObject({ code: "2BP01" });
    await sql`drop policy colleagues on sales.deals`;
    await sql.unsafe(loop);

    await sql`drop table public.activities_2025_01`;
    expect(withoutRemainders(await describeSchema(sql))).toEqual(withoutRemainders(schemaBefore));
    expect(await readRows()).toEqual(rowsBefore);
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
    const { code, output } = await run(again);
    expect(code, output).toBe(0);
    expect(await database.sql`select * from tenancy.verify() where not passed`).toEqual([]);
    expect(await findMisplaced()).toEqual([]);
  });
});
