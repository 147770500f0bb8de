import { randomUUID } from "node:crypto";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { become, claimsOf, refusal, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { giveUsersTheirOrganization, north, south } from "../organizations.ts";
import { insert, newRow, readTables, type Table } from "../rows.ts";
import { describeSchema } from "../schema.ts";
import { runSteps } from "../steps.ts";

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
      message: expect.stringMatching(/60/),
      detail: expect.stringContaining("tenancy.users_without_org"),
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
        detail: expect.stringContaining(withoutRowSecurity.map((name) => `public.${name}`).join(", ")),
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

  test("goes through every table once row-level security is on, one restrictive policy each", async () => {
    for (const table of withoutRowSecurity) await sql.unsafe(`alter table public.${table} enable row level security`);
    schemaBefore = await describeSchema(sql);
    const status = () =>
      sql`
        select row_security, isolated, count(*)::integer as tables from tenancy.status group by 1, 2 order by 1, 2
      `;
    expect(await status()).toEqual([{ row_security: true, isolated: false, tables: 45 }]);
    await runSteps(sql, "enable_org_isolation");
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
    ["disable_org_isolation", async () => await runSteps(sql, "disable_org_isolation")],
    ["roll_back(6)", async () => {
      for (let target: string | null = ""; target !== null;) {
        const [row]: { target: string | null }[] = await sql`select tenancy.roll_back(6, ${
          target || null
        }::regclass)::text as target`;
        target = row?.target ?? null;
      }
    }],
  ])("is put back by %s: the schema is what it was", async (_name, putBack) => {
    await putBack();
    expect(await describeSchema(sql)).toEqual(schemaBefore);
    expect(await sql`select from tenancy.status where isolated`).toHaveLength(0);
    await runSteps(sql, "enable_org_isolation");
  });

  test.each([
    ["alter table public.calls disable row level security", { code: "55000" }],
    ["alter policy org_isolation on public.calls using (true)", { code: "42710" }],
    ["alter policy org_isolation on public.calls with check (true)", { code: "42710" }],
    ["alter policy org_isolation on public.calls to service_role", { code: "42710" }],
    ["drop policy org_isolation on public.calls", undefined],
  ])("is not taken for whole after: %s", async (damage, answer) => {
    await rehearse(sql, async () => {
      await sql.unsafe(damage);
      expect(await sql`select relation::text from tenancy.status where not isolated`).toEqual([{ relation: "calls" }]);
      const error = await refusalOf(sql, async () => await sql`select tenancy.enable_org_isolation('public.calls')`);
      if (answer) expect(error).toMatchObject(answer);
      else expect(await sql`select from tenancy.status where not isolated`).toHaveLength(0);
    });
  });
});
