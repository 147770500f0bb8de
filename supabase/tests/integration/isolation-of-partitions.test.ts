import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { become, claimsOf, refusal, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { giveUsersTheirOrganization, north, south } from "../organizations.ts";

describe("isolation of a partitioned table", () => {
  let database: Database;
  let sql: Sql;
  const members = ["harbour.voyages", "harbour.voyages_1", "harbour.voyages_2"];

  beforeAll(async () => {
    database = await cloneDatabase("isolation_partitions", "two_organizations");
    sql = database.sql;
    await giveUsersTheirOrganization(sql);
    await sql.unsafe(`
      create schema harbour;
      grant usage on schema harbour to authenticated;
      create table harbour.voyages (id integer, year integer, primary key (id, year)) partition by list (year);
      create table harbour.voyages_1 partition of harbour.voyages for values in (1);
      create table harbour.voyages_2 partition of harbour.voyages for values in (2);
      select tenancy.onboard('harbour.voyages');
      insert into harbour.voyages (id, year, org_id)
      select n, 1 + n / 3, case n % 2 when 0 then '${north}'::uuid else '${south}' end from generate_series(1, 4) as n;
      create policy everything on harbour.voyages to authenticated using (true) with check (true);
      create policy everything on harbour.voyages_1 to authenticated using (true) with check (true);
      create policy everything on harbour.voyages_2 to authenticated using (true) with check (true);
      grant all on all tables in schema harbour to authenticated;
    `).simple();
  });

  afterAll(async () => await database?.drop());

  const isolate = async () =>
    await sql.unsafe("do $$ begin while tenancy.enable_org_isolation('harbour.voyages') loop commit; end loop; end $$")
      .simple();
  const isolated = async () =>
    (await sql`select isolated from tenancy.status where relation = 'harbour.voyages'::regclass`)[0]?.["isolated"];

  test("is refused while row-level security is off on any partition, which anyone can read by itself", async () => {
    await sql`alter table harbour.voyages enable row level security`;
    await sql`alter table harbour.voyages_1 enable row level security`;
    expect(await refusal(isolate())).toMatchObject({
      code: "55000",
      message: expect.stringContaining("harbour.voyages_2"),
      table_name: "voyages",
    });
    await sql`alter table harbour.voyages_2 enable row level security`;
    await isolate();
    expect(await isolated()).toBe(true);
  });

  test.each(members)("holds for rows that are read and written through %s", async (member) => {
    const [own] = await sql`select count(*)::integer as rows from ${sql(member)} where org_id = ${north}`;
    expect(own?.["rows"]).toBeGreaterThan(0);
    await rehearse(sql, async () => {
      await become(sql, "authenticated", claimsOf(north));
      expect(await sql`select org_id, count(*)::integer as rows from ${sql(member)} group by 1`).toEqual([
        { org_id: north, rows: own?.["rows"] },
      ]);
      expect((await sql`delete from ${sql(member)} where org_id = ${south}`).count).toBe(0);
      const year = member.endsWith("_2") ? 2 : 1;
      const insertAs = async (orgId: string) =>
        await sql`insert into ${sql(member)} (id, year, org_id) values (9, ${year}, ${orgId})`;
      expect(await refusalOf(sql, () => insertAs(south))).toMatchObject({ code: "42501" });
      expect((await insertAs(north)).count).toBe(1);
    });
  });

  test("does not pass for whole once there is a new partition, until the same call is made again", async () => {
    await sql`create table harbour.voyages_3 partition of harbour.voyages for values in (3)`;
    expect(await isolated()).toBe(false);
    const failures = async () => [
      ...(await sql`select table_name, check_name from tenancy.verify_schema() where not passed`),
    ];
    expect(await failures()).toContainEqual({ table_name: "harbour.voyages", check_name: "isolation" });
    await isolate();
    expect(await isolated()).toBe(true);
    expect(await failures()).not.toContainEqual(expect.objectContaining({ check_name: "isolation" }));
    const [partition] = await sql`
      select relrowsecurity as row_security, array(select polname::text from pg_policy where polrelid = pg_class.oid) as policies
      from pg_class where oid = 'harbour.voyages_3'::regclass
    `;
    expect(partition).toEqual({ row_security: true, policies: ["org_isolation"] });
  });
});
