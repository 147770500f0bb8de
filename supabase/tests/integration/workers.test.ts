import type { Sql } from "postgres";
import { afterEach, describe, expect, inject, test } from "vitest";
import { keepPhase1 } from "../../local/bench/shared.ts";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { copyProject } from "../../local/project-copy.ts";
import { cloneDatabase } from "../databases.ts";
import { defaultOrgId, tenOrganizations } from "../organizations.ts";
import { findWrongRows } from "../oracle.ts";
import { manyCallLogs } from "../rows.ts";
import { advance } from "../steps.ts";
import { inRanges, withWorkers } from "../workers.ts";

const open: Awaited<ReturnType<typeof cloneDatabase>>[] = [];
const beside: Sql[] = [];
afterEach(async () => {
  for (const sql of beside.splice(0)) await sql.end({ timeout: 1 });
  for (const database of open.splice(0)) await database.drop();
});

/** A copy of the application with a table of so many rows, of six ranges, in small batches, and the project that migrates it. */
async function prepare(name: string, rows = 30_000) {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  await database.sql.unsafe(manyCallLogs(rows)).simple();
  const copy = copyProject(`${inject("folder")}/${name}`);
  copy.append(
    "_EDIT_list_of_tables.sql",
    `${tenOrganizations} update tenancy.settings set batch_target_ms = 5;`,
  );
  copy.append("_add_org_id_to_existing_tables.sql", inRanges("public.call_logs", 6));
  return { database, copy };
}

/** A session that pushes, at its backfill, and one beside it. */
async function prepareSessions(name: string, rows: number) {
  const { database, copy } = await prepare(name, rows);
  keepPhase1(copy.folder);
  const { code, output } = await copy.push(database.url);
  expect(code, output).toBe(0);
  const pushing = database.sql;
  await pushing`update tenancy.settings set batch_target_ms = default`;
  await advance(pushing, "count", "column default", "filler");
  const helping = connect(database.url);
  beside.push(helping);
  return { pushing, helping, url: database.url };
}

const pidOf = async (sql: Sql) => (await sql`select pg_backend_pid() as pid`)[0]?.["pid"] as number;
const help = async (sql: Sql) => (await sql`select org_migration.help() as worked`)[0]?.["worked"] as boolean;
/** One turn of the loop of one step. */
const turn = async (sql: Sql, step: string) => await sql`select tenancy.advance(${step})`;

/** Of all tables: the oracle takes one that is not named for no organization's, and its owners for those of what references it. */
async function expectRowsRight(sql: Sql): Promise<void> {
  const tables = await sql`select table_name from tenancy.org_scoped_tables`;
  expect(await findWrongRows(sql, tables.map((row) => row["table_name"] as string), defaultOrgId)).toEqual([]);
}

async function expectAllRight(sql: Sql): Promise<void> {
  await expectRowsRight(sql);
  expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  const [counted] = await sql`
    select
      progress.state, progress.done, progress.rows_updated::integer as updated,
      (select count(*)::integer from public.call_logs) as rows
    from org_migration.backfill_progress as progress
    where progress.relation = 'public.call_logs'::regclass
  `;
  expect(counted).toMatchObject({ state: "finished", done: 1, updated: counted?.["rows"] });
}

/** Ends, as a superuser, sessions of the database. */
async function terminate(database: string, condition: string): Promise<number> {
  const admin = connect(databaseUrl(inject("databasePort"), { database: "template1", role: "supabase_admin" }));
  const ended = await admin`
    select pg_terminate_backend(pid) from pg_stat_activity where datname = ${database} and ${admin.unsafe(condition)}
  `;
  await admin.end();
  return ended.length;
}

describe("a push with two sessions that help", () => {
  test("shares a table among them, and each row is decided once and as by one", async () => {
    const { database, copy } = await prepare("workers");
    const { result, failures } = await withWorkers(2, database.url, async () => await copy.push(database.url));
    expect(result.code, result.output).toBe(0);
    expect(failures).toEqual([]);
    await expectAllRight(database.sql);
    const [shared] = await database.sql`
      select count(distinct session_pid)::integer as sessions, count(*)::integer as ranges
      from org_migration.backfills
      where relation = 'public.call_logs'::regclass and number > 0
    `;
    expect(shared).toMatchObject({ ranges: 6 });
    expect(shared?.["sessions"]).toBeGreaterThan(1);
  });

  test("goes on when they are killed, and does their part", async () => {
    const { database, copy } = await prepare("workers_killed");
    let ended = 0;
    const { result } = await withWorkers(2, database.url, async () => {
      const pushed = copy.push(database.url);
      let over = false;
      void pushed.finally(() => (over = true));
      // Each session of theirs that has begun a batch, the ones that come in their place too.
      while (!over) {
        ended += await terminate(
          database.name,
          "application_name = 'npm run push, worker' and state = 'active' and random() < 0.3",
        );
      }
      return await pushed;
    });
    expect(ended).toBeGreaterThan(0);
    expect(result.code, result.output).toBe(0);
    await expectAllRight(database.sql);
  });

  test("leaves a pause alone, and has nothing to do where no push is", async () => {
    const { database, copy } = await prepare("workers_paused");
    copy.append(
      "_add_org_id_to_existing_tables.sql",
      "update tenancy.settings set pause_limit_minutes = 1, paused = true;",
    );
    const pushed = copy.push(database.url);
    const status = async () => (await database.sql`select status from tenancy.now`.catch(() => []))[0]?.["status"];
    while (await status() !== "paused") await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await help(database.sql)).toBe(false);
    await database.sql`update tenancy.settings set paused = false`;
    const { code, output } = await pushed;
    expect(code, output).toBe(0);
    expect(await help(database.sql)).toBe(false);
    await expectAllRight(database.sql);
  });
});

/** The ranges of the large table. */
const rangesOf = async (sql: Sql) => [
  ...await sql<{ first: number; next: number; end: number; pass: number; pid: number | null }[]>`
    select
      first_block::integer as first, next_block::integer as next, end_block::integer as end, pass, session_pid as pid
    from org_migration.backfills
    where relation = 'public.call_logs'::regclass and number > 0
    order by number
  `,
];
const doneOf = async (sql: Sql) =>
  (await sql`select done from org_migration.backfill_progress where relation = 'public.call_logs'::regclass`)[0]
    ?.["done"] as number;
const isWaiting = (sql: Sql) =>
  sql`select pg_advisory_lock_shared(hashtext('org_migration'), hashtext('waits for others'))`;
const isNotWaiting = (sql: Sql) =>
  sql`select pg_advisory_unlock_shared(hashtext('org_migration'), hashtext('waits for others'))`;

describe("a session that helps", () => {
  test("ends with its turn when it is no longer wanted, and leaves the rest", async () => {
    const { pushing, url } = await prepareSessions("workers_end", 100_000);
    // By this all rows of the large table take half a minute at least, on any machine.
    await pushing`update tenancy.settings set wal_mb_per_second = 1`;
    await turn(pushing, "backfill");
    const { failures } = await withWorkers(1, url, async () => {
      while (!(await rangesOf(pushing))[0]?.pid) await new Promise((resolve) => setTimeout(resolve, 20));
    });
    expect(failures).toEqual([]);
    const [left] = await pushing`
      select exists (select from public.call_logs where org_id is null) as some
    `;
    expect(left).toEqual({ some: true });
  });
});

describe("a range of a large table", () => {
  /** Goes on, in batches of 90 blocks, until the condition holds of its first range. */
  async function untilFirst(sql: Sql, holds: (range: Awaited<ReturnType<typeof rangesOf>>[number]) => boolean) {
    for (;;) {
      await sql`update org_migration.backfills set batch_blocks = 90 where number > 0`;
      await turn(sql, "backfill");
      const ranges = await rangesOf(sql);
      if (ranges[0] && holds(ranges[0])) return ranges;
    }
  }

  test("is halved for a session that waits, once, and each row is decided as by one", async () => {
    const { pushing, helping } = await prepareSessions("halved", 100_000);
    const [own, other] = [await pidOf(pushing), await pidOf(helping)];
    const [whole] = await untilFirst(pushing, (range) => range.pid === own);
    const size = whole?.end ?? 0;
    const middle = Math.floor(size / 2);
    expect(middle).toBeGreaterThan(512);

    // Nobody waits: it stays whole.
    await turn(pushing, "backfill");
    expect(await rangesOf(pushing)).toMatchObject([{ first: 0, end: size, pass: 1 }]);

    await isWaiting(helping);
    await turn(pushing, "backfill");
    const halves = await rangesOf(pushing);
    expect(halves).toMatchObject([
      { first: 0, end: middle, pass: 1, pid: own },
      { first: middle, next: middle, end: size, pass: 1, pid: null },
    ]);
    // What waits has something to take already.
    await turn(pushing, "backfill");
    expect(await rangesOf(pushing)).toHaveLength(2);
    await isNotWaiting(helping);

    while ((await rangesOf(helping))[1]?.pid !== other) expect(await help(helping)).toBe(true);
    await advance(pushing, "backfill");
    expect(await rangesOf(pushing)).toHaveLength(2);
    expect(await pushing`select count(*)::integer as rows from public.call_logs where org_id is null`).toEqual([{
      rows: 0,
    }]);
    await expectRowsRight(pushing);
    const [counted] = await pushing`
      select sum(rows_updated)::integer = (select count(*) from public.call_logs) as once
      from org_migration.backfills where relation = 'public.call_logs'::regclass
    `;
    expect(counted).toEqual({ once: true });
  });

  test("gives its first half for the next pass once that has been gone through, and what is done stays so", async () => {
    const { pushing, helping } = await prepareSessions("halved_late", 100_000);
    const [whole] = await untilFirst(
      pushing,
      ({ pass, next, end }) => pass >= 2 && next > end / 2 && next < end * 0.7,
    );
    const { end, pass } = whole as NonNullable<typeof whole>;
    const middle = Math.floor(end / 2);
    const before = await doneOf(pushing);
    await isWaiting(helping);
    await turn(pushing, "backfill");
    expect(await rangesOf(pushing)).toMatchObject([
      { first: middle, end, pass },
      { first: 0, next: 0, end: middle, pass: pass + 1, pid: null },
    ]);
    const after = await doneOf(pushing);
    expect(after).toBeGreaterThan(before);
    expect(after - before, "no more than the batch has done").toBeLessThan(0.1);
  });

  test("is a smaller table's, which has no passes, and is halved as well", async () => {
    const { pushing, helping } = await prepareSessions("halved_small", 30_000);
    const [own, other] = [await pidOf(pushing), await pidOf(helping)];
    await isWaiting(helping);
    const [half] = await untilFirst(pushing, (range) => range.pid === own);
    const [{ blocks } = { blocks: 0 }] = await pushing<{ blocks: number }[]>`
      select (pg_relation_size('public.call_logs') / 8192)::integer as blocks
    `;
    expect(blocks).toBeLessThan(1000);
    const middle = half?.end as number;
    const ranges = await rangesOf(pushing);
    expect(ranges).toMatchObject([{ first: 0, pass: 1, pid: own }, {
      first: middle,
      next: middle,
      pass: 1,
      pid: null,
    }]);
    await isNotWaiting(helping);
    while ((await rangesOf(helping))[1]?.pid !== other) expect(await help(helping)).toBe(true);
    await advance(pushing, "backfill");
    await expectRowsRight(pushing);
  });

  test("stays whole where a pass over its half would be too short", async () => {
    const { pushing, helping } = await prepareSessions("not_halved", 30_000);
    await pushing.unsafe(inRanges("public.call_logs", 1)).simple();
    await isWaiting(helping);
    await advance(pushing, "backfill");
    expect(await rangesOf(pushing)).toHaveLength(1);
  });
});

describe("a row that another session holds", () => {
  /** Goes on until the first sweep over the large table has ended. */
  async function untilSwept(sql: Sql) {
    for (;;) {
      await turn(sql, "backfill");
      const [swept] = await sql`
        select state, sweep from org_migration.backfills
        where relation = 'public.call_logs'::regclass and number = 0 and (sweep > 1 or state = 'finished')
      `;
      if (swept) return swept;
    }
  }

  test("is waited for in the end, and not taken for one that nobody can decide", async () => {
    // In ranges, after which the sweep meets this row alone.
    const { pushing, helping } = await prepareSessions("held_row", 30_000);
    await helping`begin`;
    await helping`select from public.call_logs order by id limit 1 for update`;
    expect(await untilSwept(pushing)).toEqual({ state: "running", sweep: 2 });
    await helping`rollback`;
    await advance(pushing, "backfill");
    await expectRowsRight(pushing);
  });
});

describe("the validations of a push", () => {
  const valid = async (sql: Sql) =>
    (await sql`select table_name from tenancy.log where part = 'foreign_key_valid' order by id`).map((row) =>
      row["table_name"] as string
    );

  test("are shared with a session beside it, and those of one that dies are done by the others", async () => {
    const { pushing, helping } = await prepareSessions("validated", 100);
    await advance(pushing, "backfill", "index", "foreign_key");
    expect(await help(helping), "no loop that is shared").toBe(false);

    // The first turn looks what there is.
    await turn(pushing, "foreign_key_valid");
    expect(await help(helping)).toBe(true);
    expect(await valid(helping)).toHaveLength(1);

    await helping`begin`;
    await help(helping);
    const [, taken] = await valid(helping);
    await turn(pushing, "foreign_key_valid");
    const own = await valid(pushing);
    expect(own).toHaveLength(2);
    expect(own, "each of them a table of its own").not.toContain(taken);
    expect(await pushing`select from org_migration.lock_waits`, "and none asks for the lock of the other").toEqual([]);
    // The application writes to the table meanwhile.
    await pushing`set lock_timeout = '1s'`;
    await pushing.unsafe(`update ${taken} set org_id = org_id`);
    await pushing`reset lock_timeout`;
    await helping`rollback`;

    await advance(pushing, "foreign_key_valid");
    const validated = await valid(pushing);
    expect(validated).toContain(taken);
    expect(new Set(validated).size).toBe(validated.length);
    expect(await pushing`select from tenancy.table_parts where part = 'foreign_key_valid' and not present`).toEqual([]);
  });

  test("wait for one that another session has under way", async () => {
    const { pushing, helping } = await prepareSessions("validated_last", 100);
    await advance(
      pushing,
      "backfill",
      "index",
      "foreign_key",
      "foreign_key_valid",
      "leftovers",
      "last_resort check last_resort",
    );
    await turn(pushing, "check_valid");
    await helping`begin`;
    await help(helping);
    // It is not through while one of them is not committed.
    for (let turns = 0; turns < 50; turns++) {
      const [row] = await pushing`select tenancy.advance('check_valid') as more`;
      expect(row).toEqual({ more: true });
    }
    await helping`commit`;
    await advance(pushing, "check_valid");
    expect(await pushing`select from tenancy.table_parts where part = 'check_valid' and not present`).toEqual([]);
    const [logged] = await pushing`
      select count(*)::integer = count(distinct table_name) as once from tenancy.log where part = 'check_valid'
    `;
    expect(logged).toEqual({ once: true });
  });
});
