import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { takeLastStep } from "../last-step.ts";
import { north } from "../organizations.ts";

const third = "c0000000-0000-4000-8000-000000000003";

/** Makes an organization whose rows reference each other and nobody else's, so many leads among them. */
async function addOrganization(sql: Sql, org: string, leads: number): Promise<void> {
  await sql`insert into public.organizations (id, name) values (${org}, 'Third')`;
  await sql`insert into public.campaigns (user_id, name, org_id) values (gen_random_uuid(), 'autumn', ${org})`;
  await sql`
    insert into public.campaigns (user_id, name, cloned_from_id, org_id)
    select user_id, 'winter', id, org_id from public.campaigns where org_id = ${org}
  `;
  await sql`
    insert into public.leads (user_id, campaign_id, full_name, phone_number, org_id)
    select user_id, id, 'lead ' || n, n, org_id from public.campaigns, generate_series(1, ${leads}::integer) as n
    where org_id = ${org} and name = 'winter'
  `;
  await sql`insert into public.calls (user_id, lead_id, org_id) select user_id, id, org_id from public.leads where org_id = ${org}`;
  await sql`insert into public.call_tracking (call_id, event, org_id) select id, 'ring', org_id from public.calls where org_id = ${org}`;
}

/** What belongs to others: the rows of every table, as one number each. */
async function digestOthers(sql: Sql, org: string): Promise<unknown> {
  const tables = await sql<{ name: string }[]>`select qualified_name as name from tenancy.org_scoped_tables order by 1`;
  return await sql.unsafe(
    tables.map(({ name }) =>
      `select '${name}' as name, count(*)::integer, coalesce(sum(hashtextextended(row::text, 0)), 0)::text as digest` +
      ` from ${name} as row where org_id <> '${org}'`
    ).join(" union all "),
  );
}

async function countRows(sql: Sql, org: string): Promise<number> {
  const [counted] = await sql`
    select coalesce(sum(row_count), 0)::integer as rows from tenancy.organization_rows(${org}) where what = 'go'
  `;
  return counted?.["rows"] as number;
}

const deletion = (org: string, options = "") =>
  `do $$ begin while tenancy.delete_organization('${org}'${options}) loop commit; end loop; end $$`;

describe.each([
  { when: "after the push", lastStep: false },
  { when: "after the last step", lastStep: true },
])("an organization of the shipped application, $when,", ({ lastStep }) => {
  let database: Database;
  let before: unknown;

  beforeAll(async () => {
    database = await cloneDatabase(`delete_organization_${lastStep}`, "two_organizations");
    if (lastStep) await takeLastStep(database.sql);
    // Few rows per batch, so that there are many.
    await database.sql`update tenancy.settings set batch_target_ms = 1`;
    before = await digestOthers(database.sql, third);
  });

  afterAll(async () => await database?.drop());

  test("is deleted by a plain DELETE, although each change of a lead is on record", async () => {
    const { sql } = database;
    await addOrganization(sql, third, 20);
    expect(await countRows(sql, third)).toBe(82);
    await sql`delete from public.organizations where id = ${third}`;
    expect(await digestOthers(sql, third)).toEqual(before);
  });

  test.each(["", ", application_triggers => false"])(
    "is deleted in batches, killed between two of them, and goes on%s",
    async (options) => {
      const { sql, url } = database;
      await addOrganization(sql, third, 300);
      const rows = await countRows(sql, third);
      const killed = connect(url);
      const [session] = await killed`select pg_backend_pid() as pid`;
      // What is written meanwhile makes it wait where half of it is done.
      await sql`begin`;
      await sql`select from public.leads where org_id = ${third} order by ctid desc limit 1 for update`;
      const ended = killed.unsafe(deletion(third, options)).simple().then(() => "done", () => "killed");
      while (
        (await sql`select from pg_stat_activity where pid = ${session?.["pid"]} and wait_event_type = 'Lock'`).count ===
          0
      ) await sleep(20);
      await sql`select pg_terminate_backend(${session?.["pid"]})`;
      expect(await ended).toBe("killed");
      await sql`rollback`;
      await killed.end({ timeout: 1 });

      const left = await countRows(sql, third);
      expect(left).toBeGreaterThan(0);
      expect(left).toBeLessThan(rows);
      expect(await sql`select from public.organizations where id = ${third}`).toHaveLength(1);
      await sql.unsafe(deletion(third, options)).simple();
      expect(await countRows(sql, third)).toBe(0);
      expect(await sql`select from public.organizations where id = ${third}`).toHaveLength(0);
      expect(await digestOthers(sql, third)).toEqual(before);
    },
  );

  test("is refused where rows of others reference its rows, and users are in it, and stays whole", async () => {
    const { sql } = database;
    const rows = await countRows(sql, north);
    await expect(sql.unsafe(deletion(north, ", leave_users => true")).simple()).rejects.toThrow(
      /rows of public\.leads are referenced by rows of public\.calls that do not belong to the organization \(calls_lead_id_fkey\)/,
    );
    await expect(sql.unsafe(deletion(north)).simple()).rejects.toThrow(
      "30 rows of auth.users have it as their organization",
    );
    expect(await countRows(sql, north)).toBe(rows);
    expect(await sql`select from tenancy.user_orgs where org_id = ${north}`).toHaveLength(30);
  });
});

describe("a row of another organization that comes while a batch is being deleted", () => {
  let database: Database;
  const beside: Sql[] = [];

  beforeAll(async () => {
    database = await cloneDatabase("delete_organization_beside", "two_organizations");
    await database.sql.unsafe(`
      create table public.ships (id integer primary key, user_id uuid);
      create table public.remarks (id integer primary key, ship_id integer references public.ships (id) on delete cascade);
      create index on public.remarks (ship_id);
      create table public.files (id integer primary key, remark_id integer, user_id uuid);
      insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
      values ('public', 'ships', 'org', 'secondary', null), ('public', 'files', 'org', 'secondary', null),
        ('public', 'remarks', 'excluded', null, 'a test');
      select tenancy.onboard('public.ships');
      select tenancy.onboard('public.files');
      alter table public.files add constraint of_remark foreign key (remark_id) references public.remarks (id) on delete cascade;
      create function public.wait() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(7); return old; end $$;
      create trigger wait before delete on public.ships for each row execute function public.wait();
      insert into public.organizations (id, name) values ('${third}', 'Third');
      insert into public.ships (id, org_id) values (1, '${third}');
      insert into public.remarks (id, ship_id) values (1, 1);
    `).simple();
  });

  afterAll(async () => {
    for (const sql of beside) await sql.end({ timeout: 1 });
    await database?.drop();
  });

  test("is refused, and goes nowhere with it", async () => {
    const { sql, url } = database;
    const [deleting, writing, holding] = [connect(url), connect(url), connect(url)];
    beside.push(deleting, writing, holding);
    await holding`select pg_advisory_lock(7)`;
    const deleted = deleting.unsafe(deletion(third));
    const waits = async (what: string) => {
      for (;;) {
        const [found] = await sql`
          select count(*)::integer as sessions from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock' and query like ${what}
        `;
        if (found?.["sessions"] === 1) return;
        await sleep(10);
      }
    };
    const going = deleted.then(() => undefined, (error: Error) => error.message);
    await waits("do $$%");
    const written = writing`insert into public.files (id, remark_id, org_id) values (1, 1, ${north})`
      .then(() => "written", (error: Error) => error.message);
    await Promise.race([written, waits("insert into public.files%")]);
    await holding`select pg_advisory_unlock(7)`;
    expect(await written).toContain("violates foreign key constraint");
    expect(await going).toBeUndefined();
    expect(await sql`select from public.organizations where id = ${third}`).toHaveLength(0);
  });
});
