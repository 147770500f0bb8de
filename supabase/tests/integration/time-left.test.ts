import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { cloneDatabase } from "../databases.ts";

interface Recording {
  seconds: number;
  moments: [
    seconds: number,
    number: number,
    blocks: number,
    pass: number,
    firstBlock: number,
    nextBlock: number,
    sweep: number,
  ][];
}

/**
 * A backfill of call_logs, 300,000 rows, as npm run bench:progress recorded it on two cores with a dozen other processes at work: after so
 * many seconds, in which range, at which block of how many, in which pass over the range from which block on, and in which sweep.
 */
const recorded = JSON.parse(readFileSync(join(import.meta.dirname, "../recorded-backfill.json"), "utf8")) as {
  passEnds: number[];
  busy: Recording;
};

/** What was told at a moment. */
interface Told {
  /** Seconds since the first step. */
  worked: number;
  percent: number;
  left: number;
}

/** Seconds per step on the quiet machine, in the order in which they ran: of a table of 1,000 rows, and of call_logs where that is more. */
const costs: [part: string, small: number, large?: number][] = [
  ["count", 0.003, 0.05],
  ["column", 0.0011],
  ["filler", 0.0019],
  ["backfill", 0.036],
  ["index", 0.007, 0.65],
  ["foreign_key", 0.0011],
  ["foreign_key_valid", 0.0012, 0.19],
  ["check", 0.0012],
  ["check_valid", 0.0013, 0.15],
  ["not_null", 0.0007],
  ["guard", 0.0014],
];

/** What the backfill of call_logs took there. */
const quietSeconds = 7.9;

describe("the time left that tenancy.now tells", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;

  beforeEach(async () => {
    await database?.drop();
    database = await cloneDatabase("time_left", "migrated");
    // This session is the push. Nobody knows yet how fast it is.
    await database.sql.unsafe(`
      delete from org_migration.work;
      delete from org_migration.backfills;
      select org_migration.enter_loop('backfill');
    `).simple();
  });

  afterAll(async () => await database?.drop());

  async function readNow(worked: number): Promise<Told> {
    const [now] = await database.sql`
      select percent::float8 as percent, extract(epoch from time_left)::float8 as left from tenancy.now
    `;
    return { worked, percent: now?.["percent"] as number, left: now?.["left"] as number };
  }

  /** Notes what the backfill noted then, on a machine so many times as slow; reads what is told after each moment. */
  async function replay({ moments }: Recording, began = 0, slowness = 1): Promise<Told[]> {
    const { sql } = database;
    const ranges = new Map(moments.map(([, number, end, , first]) => [number, { end, first }]));
    for (const [number, { end, first }] of ranges) {
      await sql`
        insert into org_migration.backfills (relation, number, state, first_block, next_block, end_block, passes, sweep, pass_ends)
        values (
          'public.call_logs', ${number}, ${
        number === 0 ? "waiting" : "running"
      }, ${first}, ${first}, ${end}, ${recorded.passEnds.length},
          ${number === 0 ? 1 : 0}, ${recorded.passEnds}
        )
      `;
    }
    const told: Told[] = [];
    let last = 0;
    for (const [seconds, number, blocks, pass, , nextBlock, sweep] of moments) {
      await sql`
        update org_migration.backfills
        set state = 'finished'
        where number > 0 and (${number} = 0 or number < ${number})
      `;
      await sql`
        with before as (
          select backfills.*, org_migration.backfill_done(backfills.*) as done
          from org_migration.backfills
          where number = ${number}
        ),
        noted as (
          select (org_migration.note_pace(
            jsonb_populate_record(null::org_migration.backfills, to_jsonb(before) || jsonb_build_object(
              'state', 'running', 'end_block', ${blocks}::integer, 'pass', ${pass}::integer,
              'next_block', ${nextBlock}::integer, 'sweep', ${sweep}::integer
            )),
            before.done,
            ${(seconds - last) * slowness}::float8
          )).*
          from before
        )
        update org_migration.backfills
        set
          state = noted.state, end_block = noted.end_block, pass = noted.pass, next_block = noted.next_block, sweep = noted.sweep,
          seconds = noted.seconds, recent_seconds = noted.recent_seconds, recently_done = noted.recently_done,
          started_at = coalesce(backfills.started_at, timestamp '2000-01-01' + make_interval(secs => ${last}::float8)),
          last_batch_at = timestamp '2000-01-01' + make_interval(secs => ${seconds}::float8)
        from noted
        where backfills.number = noted.number
      `;
      last = seconds;
      told.push(await readNow(began + seconds * slowness));
    }
    await sql`update org_migration.backfills set state = 'finished'`;
    return told;
  }

  /** The same where the first half of the first pass goes slower by so much. */
  function beginSlowly({ moments, seconds }: Recording, by: number): Recording {
    const until = moments.findLast(([, , blocks, pass, , next]) => pass === 1 && next <= blocks / 2)?.[0] ?? 0;
    const later = (moment: number) => moment + (by - 1) * Math.min(moment, until);
    return { seconds: later(seconds), moments: moments.map(([moment, ...rest]) => [later(moment), ...rest]) };
  }

  /** What was told from 10 % on and is off by more than a quarter, and by more than the second that the display shows. */
  const misses = (told: Told[], seconds: number) =>
    told
      .filter(({ percent }) => percent >= 10)
      .map((moment) => ({ ...moment, truth: seconds - moment.worked }))
      .filter(({ left, truth }) => Math.abs(left - truth) > Math.max(0.25 * truth, 1))
      .map(({ percent, left, truth }) => `${percent} %: ${left} s told, ${truth.toFixed(1)} s left`);

  const expectToGrow = (told: Told[]) =>
    expect(told.map(({ percent }) => percent)).toEqual(told.map(({ percent }) => percent).sort((a, b) => a - b));

  test("is right within a quarter over a backfill, and what is done only grows", async () => {
    await database.sql`
        insert into org_migration.work (number, phase, part, relation, expected, bytes)
        values (1, 3, 'backfill', 'public.call_logs', 10, 0)
      `;
    const told = await replay(recorded.busy);
    expect(told.length).toBeGreaterThan(40);
    expectToGrow(told);
    expect(misses(told, recorded.busy.seconds)).toEqual([]);
  });

  test.each([[1, 1], [3, 1], [1, 1.5], [1, 0.75]])(
    "is right within a quarter or a second over a whole push, on a machine %s times as slow, whose largest table begins %s times as slow",
    async (slowness, by) => {
      const { sql } = database;
      // An index that is there is done.
      for (
        const { index } of await sql`
          select indexrelid::regclass::text as index
          from pg_index
          join pg_attribute on attrelid = indrelid and attnum = indkey[0] and attname = 'org_id'
          join tenancy.org_scoped_tables as tables on tables.relation = indrelid
          where not indisunique
        `
      ) await sql.unsafe(`drop index ${index as string}`);
      for (const [position, [part]] of costs.entries()) {
        await sql`
          insert into org_migration.work (number, phase, part, relation, expected, bytes)
          select
            1000 * ${position}::integer + row_number() over (order by tables.relation::text), 2, ${part}, tables.relation,
            org_migration.expected_seconds(${part}, size.rows), size.bytes * case ${part} when 'backfill' then 0 when 'index' then 2 else 1 end
          from tenancy.org_scoped_tables as tables
          cross join lateral (
            select
              case when tables.relation = 'public.call_logs'::regclass then 1000000 else 1000 end as rows,
              case when tables.relation = 'public.call_logs'::regclass then 174000000 else 170000 end as bytes
          ) as size
        `;
      }
      const tables = (await sql`select relation::text as name from tenancy.org_scoped_tables order by 1`).map(
        ({ name }) => name as string,
      );
      const told: Told[] = [];
      let worked = 0;
      for (const [part, small, large = small] of costs) {
        for (const name of tables) {
          if (part === "backfill" && name === "call_logs") {
            const recording = beginSlowly(recorded.busy, by);
            const slower = slowness * quietSeconds / recorded.busy.seconds;
            told.push(...await replay(recording, worked, slower));
            worked += recording.seconds * slower;
            continue;
          }
          const seconds = slowness * (name === "call_logs" ? large : small);
          worked += seconds;
          await sql`
            update org_migration.work
            set done_at = clock_timestamp(), seconds = ${seconds}
            where part = ${part} and relation = ${name}::regclass
          `;
          told.push(await readNow(worked));
        }
      }
      expectToGrow(told);
      expect(told.filter(({ worked: then, percent }) => Math.abs(percent - 100 * then / worked) > 10)).toEqual([]);
      // With the last step there is no time left.
      expect(misses(told.slice(0, -1), worked)).toEqual([]);
    },
  );
});
