import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, inject, test } from "vitest";
import { copyProject } from "../../local/project-copy.ts";
import { cloneDatabase } from "../databases.ts";
import { tenOrganizations } from "../organizations.ts";
import { manyCalls } from "../rows.ts";

const open: Awaited<ReturnType<typeof cloneDatabase>>[] = [];
async function clone(name: string) {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  return database;
}

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

describe("the settings of a running backfill", () => {
  test("let the plan be read before anything happens to a table", async () => {
    const database = await clone("planned");
    const { sql } = database;
    const copy = copyProject(`${inject("folder")}/planned`);
    copy.append("_EDIT_list_of_tables.sql", `${tenOrganizations} update tenancy.settings set paused = true;`);
    const pushed = copy.push(database.url);
    const waiting = () =>
      sql`
        select pid from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and query like '%tenancy.advance(''count'')%'
      `;
    while ((await waiting()).length === 0) await sleep(20);
    expect(
      await sql`select count(*)::integer as columns from pg_attribute where attname = 'org_id' and attrelid in (select relation from tenancy.org_scoped_tables)`,
    )
      .toEqual([{ columns: 0 }]);
    const plan = await sql`select relation::text, statement from tenancy.plan where part = 'backfill'`;
    expect(plan.length).toBe(45);
    expect(plan.find((row) => row["relation"] === "call_tracking")).toMatchObject({
      statement: "update public.call_tracking: org_id of public.calls through call_id, else the default organization",
    });
    await sql`update tenancy.settings set paused = false`;
    const { code, output } = await pushed;
    expect(code, output).toBe(0);
  });

  test("pause it, and let it go on, at the next batch", async () => {
    const database = await clone("paused");
    const { sql } = database;
    await sql.unsafe(manyCalls(60_000)).simple();
    const copy = copyProject(`${inject("folder")}/paused`);
    copy.append(
      "_EDIT_list_of_tables.sql",
      `${tenOrganizations} update tenancy.settings set batch_target_ms = 5, wal_mb_per_second = 2;`,
    );
    const pushed = copy.push(database.url);
    const rows = async () => {
      const [row] = await sql`
        select coalesce(sum(rows_updated), 0)::integer as rows, to_regclass('org_migration.backfills') is not null as begun
        from org_migration.backfills where relation = 'public.calls'::regclass
      `.catch(() => [{ rows: 0 }]);
      return Number(row?.["rows"]);
    };
    while ((await rows()) < 1000) await sleep(5);
    await sql`update tenancy.settings set paused = true`;
    // The batch under way ends; the transaction after it waits.
    const [paused] = await sql`select clock_timestamp()::text as at`;
    const waiting = () =>
      sql`
        select from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and usename = 'postgres'
          and xact_start > ${paused?.["at"]}::text::timestamptz
      `;
    while ((await waiting()).length === 0) await sleep(20);
    const atPause = await rows();
    expect(atPause).toBeLessThan(60_060);
    await sleep(1000);
    expect(await rows()).toBe(atPause);
    await sql`update tenancy.settings set paused = false, wal_mb_per_second = default`;
    const { code, output } = await pushed;
    expect(code, output).toBe(0);
    expect(await rows()).toBe(60_060);
  });

  test("keep it to a budget of WAL", async () => {
    const database = await clone("budget");
    const { sql } = database;
    await sql.unsafe(manyCalls(60_000)).simple();
    const copy = copyProject(`${inject("folder")}/budget`);
    copy.append(
      "_EDIT_list_of_tables.sql",
      `${tenOrganizations} update tenancy.settings set wal_mb_per_second = 10;`,
    );
    const { code, output } = await copy.push(database.url);
    expect(code, output).toBe(0);
    const [run] = await sql`
      select extract(epoch from max(next_batch_at) - min(started_at))::float as seconds
      from org_migration.backfills
      where relation = 'public.calls'::regclass
    `;
    // 60,000 rows are at least 12 MB of WAL: without the budget they take a second.
    expect(Number(run?.["seconds"])).toBeGreaterThan(1.2);
  });
});
