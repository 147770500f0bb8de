import { randomUUID } from "node:crypto";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { become, claimsOf, refusal, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { giveUsersTheirOrganization, north, south } from "../organizations.ts";
import { callForAllTables, insert, isolateAllTables, newRow, readTables, type Table } from "../rows.ts";
import { describeSchema } from "../schema.ts";
import { advance, repeat } from "../steps.ts";

describe("isolation of organizations", () => {
  let database: Database;
  let sql: Sql;
  let tables: Table[];
  let schemaBefore: string[];
  const withoutRowSecurity = ["credit_transactions", "payment_events_log", "user_twilio_subaccounts"];

  beforeAll(async () => {
    database = await cloneDatabase("isolation", "two_organizations");
    sql = database.sql;
    tables = await readTables(sql);
  });

  afterAll(async () => await database?.drop());

  test("is refused while users lack their organization", async () => {
    const before = await describeSchema(sql);
    expect(await refusal(sql`select tenancy.enable_org_isolation('public.calls')`)).toMatchObject({
      code: "55000",
      message: expect.stringMatching(/\b60 users have no organization in app_metadata.*\[users_without_org\]/),
      schema_name: "public",
      table_name: "calls",
    });
    expect(await describeSchema(sql)).toEqual(before);
    await giveUsersTheirOrganization(sql);
    expect(await sql`select from tenancy.users_without_org`).toHaveLength(0);
  });

  test.each(withoutRowSecurity)(
    "is refused on %s, where row-level security is off, and names all such tables",
    async (table) => {
      const before = await describeSchema(sql);
      expect(await refusal(sql`select tenancy.enable_org_isolation(${`public.${table}`}::regclass)`)).toMatchObject({
        code: "55000",
        message: expect.stringContaining(withoutRowSecurity.map((name) => `public.${name}`).join(", ")),
      });
      expect(await describeSchema(sql)).toEqual(before);
    },
  );

  test("is refused on any other table", async () => {
    for (const relation of ["public.billing_plans", "public.organizations"]) {
      expect(await refusal(sql`select tenancy.enable_org_isolation(${relation}::regclass)`)).toMatchObject({
        code: "55000",
      });
    }
  });

  test("is refused while rows would go out of somebody's sight, and says how many of whose", async () => {
    const lost = await sql<{ organizations: number; rows: number }[]>`
      select count(distinct org_id)::integer as organizations, sum(rows)::integer as rows
      from tenancy.isolation_losses('public.calls') group by what order by what
    `;
    expect(lost.length).toBeGreaterThan(0);
    const [crossing] = await sql`
      select count(*)::integer as rows from tenancy.cross_org_references('public.calls') where constraint_name = 'calls_lead_id_fkey'
    `;
    const message = (await refusal(sql`select tenancy.enable_org_isolation('public.calls')`))?.message ?? "";
    for (const { rows, organizations } of lost) {
      expect(message).toContain(`${rows} rows of ${organizations} organizations`);
    }
    expect(message).toContain(`${crossing?.["rows"]} rows of 2 organizations reference by calls_lead_id_fkey`);
    expect(message).toContain("despite_findings => true");
    expect(await sql`select from tenancy.registry where isolated`).toHaveLength(0);
  });

  test("goes through every table once row-level security is on, one restrictive policy each", async () => {
    for (const table of withoutRowSecurity) await sql.unsafe(`alter table public.${table} enable row level security`);
    schemaBefore = await describeSchema(sql);
    const status = () =>
      sql`
        select row_security, isolated, count(*)::integer as tables from tenancy.status group by 1, 2 order by 1, 2
      `;
    expect(await status()).toEqual([{ row_security: true, isolated: false, tables: 45 }]);
    await callForAllTables(sql, "tenancy.enable_org_isolation", "despite_findings => true");
    const objections = await sql`select distinct table_name from tenancy.log where part = 'objection'`;
    expect(objections).toContainEqual({ table_name: "public.calls" });
    expect(await status()).toEqual([{ row_security: true, isolated: true, tables: 45 }]);
    const policies = await sql`
      select polname, polpermissive, polcmd, polroles::regrole[]::text as roles, count(*)::integer as tables
      from pg_policy
      where polname = 'org_isolation'
      group by 1, 2, 3, 4
    `;
    expect(policies).toEqual([
      { polname: "org_isolation", polpermissive: false, polcmd: "*", roles: "{authenticated}", tables: 45 },
    ]);
    const added = (await describeSchema(sql)).filter((line) => !schemaBefore.includes(line));
    expect(added.filter((line) => !line.startsWith("policy org_isolation "))).toEqual([]);
    expect(await sql`select tenancy.enable_org_isolation('public.calls') as worked`).toEqual([{ worked: false }]);
  });

  test("leaves the application's own policies in force: within an organization, a user sees its own rows", async () => {
    const [user] = await sql`
      select user_orgs.user_id as id, count(*)::integer as rows
      from tenancy.user_orgs join public.calls using (user_id, org_id)
      where org_id = ${north} group by 1 order by 1 limit 1
    `;
    const [all] = await sql`select count(*)::integer as rows from public.calls where org_id = ${north}`;
    expect(all?.["rows"]).toBeGreaterThan(user?.["rows"]);
    const table = tables.find(({ relation }) => relation === "calls");
    if (!table) throw new Error("calls is not registered");
    await rehearse(sql, async () => {
      const row = { ...(await newRow(sql, table, north)), user_id: user?.["id"], org_id: north };
      await become(sql, "authenticated", claimsOf(north, user?.["id"]));
      const seen = await sql`select distinct user_id, org_id from public.calls`;
      expect(seen).toEqual([{ user_id: user?.["id"], org_id: north }]);
      expect((await sql`select from public.calls`).length).toBe(user?.["rows"]);
      expect(await insert(sql, "calls", row)).toBe(1);
      expect(await refusalOf(sql, () => insert(sql, "calls", { ...row, id: randomUUID(), user_id: randomUUID() })))
        .toMatchObject({
          code: "42501",
        });
      expect(
        await refusalOf(sql, () => insert(sql, "calls", { ...row, id: randomUUID(), org_id: south })),
        "one's own row in another organization",
      ).toMatchObject({ code: "42501" });
    });
    await rehearse(sql, async () => {
      await become(sql, "authenticated", claimsOf(south, user?.["id"]));
      expect(await sql`select from public.calls`, "the same user, gone to another organization").toHaveLength(0);
    });
  });

  test.each([
    ["disable_org_isolation", async () => await callForAllTables(sql, "tenancy.disable_org_isolation")],
    ["roll_back(6)", async () => await repeat(sql, "tenancy.roll_back(6)")],
  ])("is put back by %s: the schema is what it was", async (_name, putBack) => {
    await putBack();
    expect(await describeSchema(sql)).toEqual(schemaBefore);
    expect(await sql`select from tenancy.status where isolated`).toHaveLength(0);
    expect(await sql`select from tenancy.registry where isolated`).toHaveLength(0);
    expect(await sql`select tenancy.advance('isolation') as worked`).toEqual([{ worked: false }]);
    await isolateAllTables(sql);
  });

  const failedChecks = async () => [
    ...(await sql`select table_name, check_name from tenancy.verify_schema() where not passed`),
  ];

  test("can be passed by with privileges that the platform gives everyone: verify() says so until they are taken", async () => {
    const privileged = async () =>
      (await sql`
        select from pg_class, unnest(array['anon', 'authenticated', 'service_role']) as role
        where relnamespace = 'public'::regnamespace and relkind = 'r' and relname in (select table_name from tenancy.registry where scope = 'org')
          and (has_table_privilege(role, pg_class.oid, 'trigger') or has_table_privilege(role, pg_class.oid, 'truncate')
            or has_table_privilege(role, pg_class.oid, 'references'))
      `).length;
    const before = await privileged();
    expect(before).toBeGreaterThan(0);
    const [check] = await sql`select passed, detail from tenancy.verify_schema() where check_name = 'api_privileges'`;
    expect(check).toMatchObject({
      passed: false,
      detail: expect.stringMatching(
        /authenticated.* get past the isolation of 4\d tables, .*tenancy\.enable_least_privilege/,
      ),
    });
    await callForAllTables(sql, "tenancy.enable_least_privilege");
    expect(await privileged()).toBe(0);
    expect(await failedChecks()).toEqual([]);
    await sql`grant trigger on public.calls to authenticated`;
    expect(await failedChecks()).toEqual([{ table_name: "public.calls", check_name: "least_privilege" }]);
    await advance(sql, "least_privilege");
    expect(await failedChecks()).toEqual([]);
    await callForAllTables(sql, "tenancy.disable_least_privilege");
    expect(await privileged()).toBe(before);
    await callForAllTables(sql, "tenancy.enable_least_privilege");
  });

  const makers = [
    ["enable_org_isolation", async () => await repeat(sql, "tenancy.enable_org_isolation('public.calls')")],
    ["advance('isolation')", async () => await advance(sql, "isolation")],
  ] as const;
  const damages = [
    "alter table public.calls disable row level security",
    "alter policy org_isolation on public.calls using (true)",
    "alter policy org_isolation on public.calls with check (true)",
    "alter policy org_isolation on public.calls to service_role",
    "drop policy org_isolation on public.calls",
  ];
  test.each(damages.flatMap((damage) => makers.map(([maker, make]) => [damage, maker, make] as const)))(
    "is remembered: verify() fails after %s, and %s makes it whole",
    async (damage, _maker, make) => {
      const whole = await describeSchema(sql);
      await rehearse(sql, async () => {
        await sql.unsafe(damage);
        expect(await sql`select relation::text from tenancy.status where not isolated`).toEqual([{
          relation: "calls",
        }]);
        expect(await failedChecks()).toEqual([{ table_name: "public.calls", check_name: "isolation" }]);
        await make();
        expect(await sql`select from tenancy.status where not isolated`).toHaveLength(0);
        expect(await failedChecks()).toEqual([]);
        expect(await describeSchema(sql)).toEqual(whole);
      });
    },
  );

  test("is refused where somebody else's policy has its name, and that stays", async () => {
    await rehearse(sql, async () => {
      await repeat(sql, "tenancy.disable_org_isolation('public.calls')");
      await sql`create policy org_isolation on public.calls to authenticated using (true)`;
      const before = await describeSchema(sql);
      expect(await refusalOf(sql, async () => await sql`select tenancy.enable_org_isolation('public.calls')`))
        .toMatchObject({ code: "42710", schema_name: "public", table_name: "calls" });
      expect(await describeSchema(sql)).toEqual(before);
    });
  });
});
