import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterEach, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { codeBefore } from "../../local/requests.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { cloneDatabase } from "../databases.ts";
import { organizationIds } from "../../local/mapping.ts";
import { defaultOrgId, tenOrganizations } from "../organizations.ts";
import { findWrongRows } from "../oracle.ts";
import { withResolvers } from "../promises.ts";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { chooseSeed } from "../random.ts";
import { differencesFromRecord, keepRecord, recordRow } from "../record.ts";
import { startTestServices } from "../services.ts";
import { functionName } from "../function.ts";
import { advance } from "../steps.ts";
import { startTraffic, type Traffic, type TrafficReport } from "../traffic.ts";
import { type Kind, tables, writing } from "../traffic-steps.ts";
import { withWorkers } from "../workers.ts";

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
  await database.sql.unsafe(codeBefore).simple();
  await keepRecord(database.sql, tables);
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

/** Pushes under traffic, with two sessions that help, and others in the way. */
async function pushWithHolders(
  database: Database,
  copy: ProjectCopy,
  milliseconds = 6000,
): Promise<{ code: number | null; output: string }> {
  const pushed = withWorkers(2, database.url, async () => await copy.push(database.url));
  const watcher = connect(database.url);
  await untilApplied(watcher, "20250110020000");
  const began = Date.now();
  let lastEnd = 0;
  const holders = [
    hold(database.url, "select count(*) from public.calls", milliseconds),
    hold(database.url, "lock table public.leads in row exclusive mode", 5000),
  ].map((held) => held.then(() => (lastEnd = Date.now() - began)));
  const { result, failures } = await pushed;
  const ended = Date.now() - began;
  expect(failures).toEqual([]);
  await Promise.all(holders);
  await watcher.end();
  expect(ended, "the push went on while the sessions held their tables").toBeGreaterThan(lastEnd);
  return result;
}

/** Calls the edge function until it says that it is done. */
async function callFunction(database: Database): Promise<void> {
  const services = await startTestServices(database.name);
  try {
    await services.serve(functionName);
    for (let done = false; !done;) {
      const response = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
        method: "POST",
        headers: { apikey: services.keys.secretKey },
      });
      const reply = await response.text();
      expect(response.status, reply).toBe(200);
      done = JSON.parse(reply).done === true;
    }
  } finally {
    await services.stop();
  }
}

/** The last step, once the application sends org_id and nothing is filled any more. */
async function switchFillerOff({ sql }: Database, traffic: Traffic): Promise<void> {
  const filled = async () => await sql`select relation::text, rows::integer from tenancy.filled_rows order by 1`;
  const before = await filled();
  expect(before.filter((row) => row["rows"] > 0).length, "old tokens and hooks were filled").toBeGreaterThan(
    tables.length - 1,
  );
  await traffic.untilTried(5);
  expect(await filled(), "nothing needs the filler any more").toEqual(before);
  await sql`update tenancy.settings set fill_org_id = false`;
  await advance(sql, "filler");
}

/** Push, function and last step while the application writes, each old token and new user included. */
async function migrate(database: Database, copy: ProjectCopy, enableNewUsers?: string): Promise<TrafficReport> {
  const traffic = startTraffic(database.url, { writers: 4, seed: chooseSeed(database.name) });
  await traffic.untilTried(5);
  const { code, output } = await pushWithHolders(database, copy);
  expect(code, output).toBe(0);
  await traffic.untilTried(5);
  if (enableNewUsers) await database.sql.unsafe(enableNewUsers);
  await callFunction(database);
  await traffic.untilTried(5);
  await traffic.release();
  await switchFillerOff(database, traffic);
  await traffic.untilTried(5);
  return await traffic.stop();
}

/** No row is lost, added, changed or in another organization than its user, and the migration is complete. */
async function expectAllRight({ sql }: Database): Promise<void> {
  expect(await differencesFromRecord(sql, tables)).toEqual([]);
  const scoped = (await sql`select table_name from tenancy.org_scoped_tables`).map((row) =>
    row["table_name"] as string
  );
  expect(await findWrongRows(sql, scoped, defaultOrgId)).toEqual([]);
  expect(await sql`select * from tenancy.verify() where not passed`).toEqual([]);
}

describe("push, function and last step while the application writes", () => {
  test("in one organization: no operation fails, no row is lost or misplaced", async () => {
    const database = await prepare("traffic");
    const report = await migrate(database, copyFor(database), "select tenancy.enable_new_users('default')");
    expect([...new Set(report.errors)]).toEqual([]);
    await expectAllRight(database);
    const elsewhere = await database.sql`
      select id from auth.users where raw_app_meta_data ->> 'org_id' is distinct from ${defaultOrgId}
    `;
    expect(elsewhere).toEqual([]);
  });

  test("in ten organizations, and one of their own for whoever signs up: the same", async () => {
    const database = await prepare("traffic_mapped");
    const copy = copyFor(database);
    copy.append("_EDIT_list_of_tables.sql", `select tenancy.enable_new_users('personal'); ${tenOrganizations}`);
    const report = await migrate(database, copy);
    expect([...new Set(report.errors)]).toEqual([]);
    await expectAllRight(database);

    const users = await database.sql`
      select
        users.id, user_orgs.org_id, users.raw_app_meta_data ->> 'org_id' as claim,
        count(*) over (partition by user_orgs.org_id)::integer as members
      from auth.users
      left join tenancy.user_orgs on user_orgs.user_id = users.id
    `;
    const placed = new Map(users.map((user) => [user["id"] as string, user]));
    expect(users.filter((user) => user["claim"] !== user["org_id"])).toEqual([]);
    const withOwn = report.signUps.filter(({ orgId }) => orgId !== undefined);
    expect(withOwn.length).toBeGreaterThan(0);
    for (const { id, orgId } of withOwn) expect(placed.get(id)).toMatchObject({ org_id: orgId, members: 1 });
    // Whoever signed up before the list of tables is in the mapping, and while it was checked, in an organization of their own.
    for (const { id } of report.signUps.filter(({ orgId }) => orgId === undefined)) {
      if (!organizationIds(10).includes(placed.get(id)?.["org_id"] as string)) {
        expect(placed.get(id)).toMatchObject({ org_id: expect.any(String), members: 1 });
      }
    }
  });
});

describe("the controls:", () => {
  test("with the lock rules off, the same push holds the application up", async () => {
    const database = await prepare("traffic_locks");
    const copy = copyFor(database);
    copy.append("_EDIT_list_of_tables.sql", "update tenancy.settings set lock_timeout_ms = 10000;");
    const traffic = startTraffic(database.url, { writers: 4, seed: chooseSeed(database.name) });
    // Long enough for the push to come to the table, however busy the machine is, and to wait there while others queue.
    await pushWithHolders(database, copy, 20_000);
    const { errors } = await traffic.stop();
    expect(errors.filter((error) => error.includes("55P03")).length).toBeGreaterThan(0);
  });

  test("with the filler off, each kind of insert fails once the same push is through", async () => {
    const database = await prepare("traffic_unfilled");
    const copy = copyFor(database);
    copy.append("_EDIT_list_of_tables.sql", "update tenancy.settings set fill_org_id = false;");
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    const traffic = startTraffic(database.url, { writers: 4, seed: chooseSeed(database.name) });
    await traffic.untilTried(20);
    const { errors } = await traffic.stop();
    const refused = (kind: Kind) => errors.some((error) => error.startsWith(`${kind}: 23502`));
    expect(writing.filter(refused)).toEqual(writing);
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
