import { startWorkers } from "../cli/push-workers.ts";

/** Runs something with sessions beside it that share a backfill. Returns what those could not do as well. */
export async function withWorkers<T>(
  count: number,
  url: string,
  use: () => Promise<T>,
): Promise<{ result: T; failures: string[] }> {
  const over = new AbortController();
  const failures: string[] = [];
  const ended = startWorkers(count, url, over.signal, (reason) => failures.push(reason));
  try {
    return { result: await use(), failures };
  } finally {
    over.abort();
    await ended;
  }
}

/** To be run before the backfill begins: it goes through the table in so many ranges, as it does with a large one. */
export const inRanges = (table: string, ranges: number): string => `
  insert into org_migration.backfills (relation, number, state, first_block, next_block, end_block, passes, pass_ends, sweep)
  select
    '${table}', number, 'waiting', first_block, first_block,
    case when number = 0 then blocks else blocks * number / ${ranges} end,
    10, array[6, 11, 16, 21, 26, 31, 36, 41, 46, 51], case when number = 0 then 1 else 0 end
  from generate_series(0, ${ranges}) as number
  cross join (select pg_relation_size('${table}') / 8192 as blocks) as size
  cross join lateral (select greatest(blocks * (number - 1) / ${ranges}, 0) as first_block) as start
  on conflict do nothing;
`;
