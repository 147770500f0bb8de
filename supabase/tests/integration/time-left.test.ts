import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cloneDatabase } from "../databases.ts";

/**
 * A backfill of call_logs, 500,000 rows, as npm run bench:progress recorded it on two cores with a dozen other processes at work: after
 * so many seconds, which block of how many it was at, in which pass over the range from which block on, and in which sweep.
 */
const recorded = JSON.parse(readFileSync(join(import.meta.dirname, "../recorded-backfill.json"), "utf8")) as {
  seconds: number;
  moments: [
    seconds: number,
    blocks: number,
    pass: number,
    firstBlock: number,
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
      insert into org_migration.backfills (relation, number, state, end_block, passes, sweep)
      values ('public.call_logs', 0, 'waiting', 10638, 10, 1), ('public.call_logs', 1, 'running', 10638, 10, 0);
    `).simple();
  });

  afterAll(async () => await database?.drop());

  test("is right within a quarter from a third of the work on, and what is done only grows", async () => {
    const { sql } = database;
    const told: { worked: number; percent: number; error: number }[] = [];
    let last = 0;
    for (const [seconds, blocks, pass, firstBlock, nextBlock, sweep] of recorded.moments) {
      await sql`
        update org_migration.backfills
        set state = 'finished'
        where relation = 'public.call_logs'::regclass and number = 1 and ${sweep}::integer > 0
      `;
      await sql`
        with before as (
          select backfills.*, org_migration.backfill_done(backfills.*) as done
          from org_migration.backfills
          where relation = 'public.call_logs'::regclass and number = case when ${sweep}::integer > 0 then 0 else 1 end
        ),
        noted as (
          select (org_migration.note_pace(
            jsonb_populate_record(null::org_migration.backfills, to_jsonb(before) || jsonb_build_object(
              'state', 'running', 'end_block', ${blocks}::integer, 'pass', ${pass}::integer, 'first_block', ${firstBlock}::integer,
              'next_block', ${nextBlock}::integer, 'sweep', ${sweep}::integer
            )),
            before.done,
            ${seconds - last}::float8
          )).*
          from before
        )
        update org_migration.backfills
        set
          state = noted.state, end_block = noted.end_block, pass = noted.pass, first_block = noted.first_block,
          next_block = noted.next_block, sweep = noted.sweep, seconds = noted.seconds,
          recent_seconds = noted.recent_seconds, recently_done = noted.recently_done,
          started_at = '2000-01-01', last_batch_at = timestamp '2000-01-01' + make_interval(secs => noted.seconds)
        from noted
        where backfills.relation = noted.relation and backfills.number = noted.number
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
