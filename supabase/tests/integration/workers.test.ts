import type { Sql } from "postgres";
import { afterEach, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { copyProject } from "../../local/project-copy.ts";
import { cloneDatabase } from "../databases.ts";
import { defaultOrgId, tenOrganizations } from "../organizations.ts";
import { findWrongRows } from "../oracle.ts";
import { manyCallLogs } from "../rows.ts";
import { inRanges, withWorkers } from "../workers.ts";

const open: Awaited<ReturnType<typeof cloneDatabase>>[] = [];
afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

/** A copy of the application with a table of six ranges, in small batches, and the project that migrates it. */
async function prepare(name: string) {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  await database.sql.unsafe(manyCallLogs(30_000)).simple();
  const copy = copyProject(`${inject("folder")}/${name}`);
  copy.append(
    "_EDIT_list_of_tables.sql",
    `${tenOrganizations} update tenancy.settings set batch_target_ms = 5;`,
  );
  copy.append("_add_org_id_to_existing_tables.sql", inRanges("public.call_logs", 6));
  return { database, copy };
}

async function expectAllRight(sql: Sql): Promise<void> {
  const tables = await sql`select table_name from tenancy.org_scoped_tables`;
  expect(await findWrongRows(sql, tables.map((row) => row["table_name"] as string), defaultOrgId)).toEqual([]);
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
    const help = async () => (await database.sql`select org_migration.help_backfill() as worked`)[0]?.["worked"];
    copy.append(
      "_add_org_id_to_existing_tables.sql",
      "update tenancy.settings set pause_limit_minutes = 1, paused = true;",
    );
    const pushed = copy.push(database.url);
    const status = async () => (await database.sql`select status from tenancy.now`.catch(() => []))[0]?.["status"];
    while (await status() !== "paused") await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await help()).toBe(false);
    await database.sql`update tenancy.settings set paused = false`;
    const { code, output } = await pushed;
    expect(code, output).toBe(0);
    expect(await help()).toBe(false);
    await expectAllRight(database.sql);
  });
});
