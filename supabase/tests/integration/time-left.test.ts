import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cloneDatabase } from "../databases.ts";

/**
 * A backfill of call_logs, 500,000 rows, as npm run bench:progress recorded it on two cores with a dozen other processes at work: after
 * so many seconds, which block of how many it was at, in which pass over which group of blocks, and in which sweep.
 */
const recorded = JSON.parse(readFileSync(join(import.meta.dirname, "../recorded-backfill.json"), "utf8")) as {
  seconds: number;
  moments: [
    seconds: number,
    blocks: number,
    pass: number,
    groupStart: number,
    nextBlock: number,
    sweep: number,
  ][];
};

describe("the time left that tenancy.now tells", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;

  beforeAll(async () => {
    database = await cloneDatabase("time_left", "migrated");
    // This session is the push, and this table's backfill all that it has to do. Nobody knows yet how fast it is.
    await database.sql.unsafe(`
      delete from org_migration.work;
      select org_migration.enter_loop('backfill');
      insert into org_migration.work (number, phase, part, relation, expected)
      values (1, 3, 'backfill', 'public.call_logs', 10);
      delete from org_migration.backfills where relation = 'public.call_logs'::regclass;
      insert into org_migration.backfills (relation, state, blocks, passes)
      values ('public.call_logs', 'running', 1, 10);
    `).simple();
  });

  afterAll(async () => await database?.drop());

  test("is right within a quarter from a third of the work on, and what is done only grows", async () => {
    const { sql } = database;
    const told: { worked: number; percent: number; error: number }[] = [];
    let last = 0;
    for (const [seconds, blocks, pass, groupStart, nextBlock, sweep] of recorded.moments) {
      await sql`
        with before as (
          select backfills.*, org_migration.backfill_done(backfills.*) as done
          from org_migration.backfills
          where relation = 'public.call_logs'::regclass
        ),
        noted as (
          select (org_migration.note_pace(
            jsonb_populate_record(null::org_migration.backfills, to_jsonb(before) || jsonb_build_object(
              'blocks', ${blocks}::integer, 'pass', ${pass}::integer, 'group_start', ${groupStart}::integer,
              'next_block', ${nextBlock}::integer, 'sweep', ${sweep}::integer
            )),
            before.done,
            ${seconds - last}::float8
          )).*
          from before
        )
        update org_migration.backfills
        set
          blocks = noted.blocks, pass = noted.pass, group_start = noted.group_start, next_block = noted.next_block,
          sweep = noted.sweep, seconds = noted.seconds, recent_seconds = noted.recent_seconds,
          recently_done = noted.recently_done
        from noted
        where backfills.relation = noted.relation
      `;
      last = seconds;
      const [now] = await sql`
        select percent::float8 as percent, extract(epoch from time_left)::float8 as left from tenancy.now
      `;
      told.push({
        worked: seconds / recorded.seconds,
        percent: now?.["percent"] as number,
        error: (now?.["left"] as number) / (recorded.seconds - seconds) - 1,
      });
    }
    expect(told.length).toBeGreaterThan(50);
    expect(told.map(({ percent }) => percent)).toEqual(told.map(({ percent }) => percent).sort((a, b) => a - b));
    expect(told.filter(({ worked, error }) => worked > 0.33 && worked < 0.95 && Math.abs(error) > 0.25)).toEqual([]);
  });
});
