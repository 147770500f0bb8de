import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterEach, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { cloneDatabase } from "../databases.ts";
import { defaultOrgId, tenOrganizations } from "../organizations.ts";
import { findWrongRows } from "../oracle.ts";
import { withResolvers } from "../promises.ts";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { chooseSeed } from "../random.ts";
import { differencesFromRecord, keepRecord, recordRow, startTraffic, type TrafficReport } from "../traffic.ts";

type Database = Awaited<ReturnType<typeof cloneDatabase>>;
const open: Database[] = [];

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

async function prepare(name: string): Promise<Database> {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  await database.sql.unsafe(`
    insert into public.calls (user_id, started_at)
    select (array(select id from auth.users order by id))[1 + n % 60], now() from generate_series(1, 20000) as n;
    insert into public.leads (user_id, full_name, phone_number)
    select (array(select id from auth.users order by id))[1 + n % 60], 'Lead ' || n, '+1555' || n from generate_series(1, 10000) as n;
    insert into public.call_logs (user_id, phone_number, notes)
    select (array(select id from auth.users order by id))[1 + n % 60], '+1555' || n, repeat('x', 60) from generate_series(1, 60000) as n;
  `).simple();
  await keepRecord(database.sql);
  return database;
}

/** Waits until the push has come to the migration. */
async function untilApplied(sql: Sql, version: string): Promise<void> {
  for (;;) {
    const rows = await sql`select from supabase_migrations.schema_migrations where version = ${version}`.catch(
      () => [],
    );
    if (rows.length > 0) return;
    await sleep(10);
  }
}

/** A transaction that does something to a table and stays open for so long. */
async function hold(url: string, statement: string, milliseconds: number): Promise<void> {
  const sql = connect(url);
  await sql.begin(async (transaction) => {
    await transaction.unsafe(statement);
    await sleep(milliseconds);
  });
  await sql.end();
}

/** The project with the table of the record in its list. */
function copyFor(database: Database): ProjectCopy {
  const copy = copyProject(`${inject("folder")}/${database.name}`);
  copy.edit("_EDIT_list_of_tables.sql", "values\n", `values\n${recordRow}`);
  return copy;
}

/** Pushes under traffic, with three sessions in the way. */
async function pushUnderTraffic(
  database: Database,
  seed: number,
  settings: string,
): Promise<{ code: number | null; output: string; report: TrafficReport; holders: number }> {
  const copy = copyFor(database);
  copy.append("_EDIT_list_of_tables.sql", `${tenOrganizations} ${settings}`);
  const traffic = startTraffic(database.url, { writers: 4, seed });
  const pushed = copy.push(database.url);

  const watcher = connect(database.url);
  await untilApplied(watcher, "20250110020000");
  const began = Date.now();
  let lastEnd = 0;
  const holders = [
    hold(database.url, "select count(*) from public.calls", 6000),
    hold(database.url, "lock table public.leads in row exclusive mode", 5000),
  ].map((held) => held.then(() => (lastEnd = Date.now() - began)));
  const { code, output } = await pushed;
  const ended = Date.now() - began;
  await Promise.all(holders);
  await watcher.end();
  expect(ended, "the push went on while the sessions held their tables").toBeGreaterThan(lastEnd);
  return { code, output, report: await traffic.stop(), holders: holders.length };
}

describe("a push while the application writes", () => {
  test("loses, adds and changes no row, gives each the right organization, and holds nobody up", async () => {
    const database = await prepare("traffic");
    const seed = chooseSeed("traffic");
    const { code, output, report } = await pushUnderTraffic(database, seed, "");
    expect(code, output).toBe(0);
    expect(report.errors).toEqual([]);
    expect(report.transactions).toBeGreaterThan(100);
    expect(report.refusals, "code that sends no org_id is refused once phase 4 is done").toBeGreaterThan(0);

    const { sql } = database;
    expect(await differencesFromRecord(sql)).toEqual([]);
    const tables = (await sql`select table_name from tenancy.org_scoped_tables`).map((row) =>
      row["table_name"] as string
    );
    expect(await findWrongRows(sql, tables, defaultOrgId)).toEqual([]);
    expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  });

  test("and the control: with the lock rules off, the same push holds the application up", async () => {
    const database = await prepare("traffic_control");
    const seed = chooseSeed("traffic control");
    const { report } = await pushUnderTraffic(database, seed, "update tenancy.settings set lock_timeout_ms = 10000;");
    expect(report.errors.filter((error) => error.startsWith("55P03")).length).toBeGreaterThan(0);
  });
});

describe("a table that is held", () => {
  test("by autovacuum is had, since the worker gives way", async () => {
    const database = await prepare("autovacuum");
    const { sql } = database;
    const admin = connect(databaseUrl(inject("databasePort"), { database: database.name, role: "supabase_admin" }));
    await admin`alter system set autovacuum_naptime = '1s'`;
    await admin`select pg_reload_conf()`;
    try {
      await sql`
        alter table public.call_logs set (
          autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1
        )
      `;
      await sql`update public.call_logs set outcome = 'vacuum me'`;
      const working = async () =>
        (await admin`
          select pid from pg_stat_activity where backend_type = 'autovacuum worker' and query like '%call_logs%'
        `).length > 0;
      while (!(await working())) await sleep(50);
      const { code, output } = await copyFor(database).push(database.url);
      expect(code, output).toBe(0);
    } finally {
      await admin`alter system reset autovacuum_naptime`;
      await admin`select pg_reload_conf()`;
      await admin.end();
    }
  });

  test("for longer than the push has patience for ends it with the holder's name, and the next push goes on", async () => {
    const database = await prepare("held");
    const copy = copyFor(database);
    copy.append(
      "_EDIT_list_of_tables.sql",
      "update tenancy.settings set lock_attempts = 5, lock_timeout_ms = 20;",
    );
    const holder = connect(database.url);
    const { promise: released, resolve: release } = withResolvers();
    const held = holder.begin(async (transaction) => {
      await transaction`select count(*) as nightly_report from public.calls`;
      await released;
    });
    const stopped = await copy.push(database.url);
    expect(stopped.code).toBe(1);
    expect(stopped.output).toMatch(/column got no lock on public\.calls in 5 attempts since /);
    expect(stopped.output).toMatch(
      /pid \d+, idle in transaction for [\d.]+ s: select count\(\*\) as nightly_report from public\.calls/,
    );
    expect(stopped.output).toContain(
      "Nothing is lost: wait for them or end them (pg_terminate_backend), then run the same again.",
    );
    const [others] = await database.sql`
      select count(*)::integer as tables
      from pg_attribute
      where attrelid in (select relation from tenancy.org_scoped_tables) and attname = 'org_id'
    `;
    expect(others, "the other tables did not wait for this one").toEqual({ tables: 44 });

    release();
    await held;
    await holder.end();
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
  });
});
