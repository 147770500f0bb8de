/**
 * npm run bench:stalls -- [rows]: what an application waits for while a mapped push runs, on this disk and on one that is slow: each write of
 * WAL waits for the disk there. Prints Markdown tables on standard output. rows: of the largest table.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { formatCount } from "../../cli/print.ts";
import { connect } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { readCount, withServer } from "./command.ts";
import { addMapping, type Measured, measurePush } from "./measure-push.ts";
import { prepareApplication } from "./prepare.ts";
import { markdown, median, percentile, say, sum } from "./print.ts";
import { runs, serverSettings } from "./shared.ts";

const disks = { "this disk": {}, "a slow one": { wal_sync_method: "open_sync" } };
/** Milliseconds from which on an operation of the application is looked at. */
const slow = 20;

type Waits = Map<string, number>;

const eventOf = (what: string, event: unknown) => `${what}: ${event ?? "on the processor"}`;

/** Counts, until it is stopped, what the application waits for in an operation that is slow, and what the backfill does meanwhile where it runs. */
function watchWaits(server: PostgresServer, waits: Waits): { stop(): Promise<void> } {
  const sql = connect(server.url({ database: "template1", role: "supabase_admin" }));
  let stopped = false;
  const watching = (async () => {
    while (!stopped) {
      const sessions = await sql<{ writer: boolean; is_slow: boolean; event: string | null }[]>`
        select
          usename in ('authenticator', 'supabase_auth_admin') as writer,
          clock_timestamp() - state_change > make_interval(secs => ${slow / 1000}) as is_slow,
          wait_event_type || ' ' || wait_event
            || coalesce(
              ', held by ' || (
                select string_agg(left(regexp_replace(blocking.query, '\\s+', ' ', 'g'), 60), ', ')
                from pg_stat_activity as blocking
                where blocking.pid = any (pg_blocking_pids(session.pid))
              ),
              ''
            ) as event
        from pg_stat_activity as session
        where datname = 'bench_ours' and state = 'active'
          and (usename in ('authenticator', 'supabase_auth_admin') or query like '%tenancy.advance(''backfill'')%')
      `;
      const stalled = sessions.find((session) => session.writer && session.is_slow);
      const backfill = sessions.find((session) => !session.writer);
      const events = stalled
        ? [eventOf("application", stalled.event), ...(backfill ? [eventOf("backfill", backfill.event)] : [])]
        : [];
      for (const event of events) waits.set(event, (waits.get(event) ?? 0) + 1);
      await sleep(2);
    }
    await sql.end();
  })();
  return {
    stop: async () => {
      stopped = true;
      await watching;
    },
  };
}

async function measureDisk(name: string, settings: Record<string, string>, rows: number) {
  const pushes: Measured[] = [];
  const waits: Waits = new Map();
  await withServer({ ...serverSettings, ...settings }, async (server, folder) => {
    await prepareApplication(server, folder, rows);
    for (let run = 1; run <= runs; run++) {
      const watch = watchWaits(server, waits);
      const measured = await measurePush(server, "ours", addMapping);
      await watch.stop();
      pushes.push(measured);
      say(
        `  ${name}, run ${run} of ${runs}: ${measured.seconds.backfill?.toFixed(1)} s, longest stall ` +
          `${Math.max(...measured.latencies).toFixed(0)} ms, p99.9 ${
            percentile(measured.latencies, 0.999).toFixed(1)
          } ms`,
      );
    }
  });
  return { name, pushes, waits };
}

function compareDisks(disks: Awaited<ReturnType<typeof measureDisk>>[]): string {
  const line = (name: string, read: (run: Measured) => number, unit: string) => [
    name,
    ...disks.map(({ pushes }) => `${formatCount(Math.round(median(pushes.map(read)) * 10) / 10)} ${unit}`),
  ];
  return markdown(["", ...disks.map(({ name }) => name)], [
    line("longest stall", (run) => Math.max(...run.latencies), "ms"),
    line("p99.9", (run) => percentile(run.latencies, 0.999), "ms"),
    line("p99", (run) => percentile(run.latencies, 0.99), "ms"),
    line("operations meanwhile", (run) => run.latencies.length, ""),
    line("backfill", (run) => run.seconds.backfill ?? 0, "s"),
  ]);
}

function compareWaits(disks: Awaited<ReturnType<typeof measureDisk>>[]): string {
  const events = [...new Set(disks.flatMap(({ waits }) => [...waits.keys()]))].sort();
  const share = (waits: Waits, event: string) => {
    const of = sum(
      [...waits].filter(([name]) => name.split(": ")[0] === event.split(": ")[0]).map(([, count]) => count),
    );
    return of === 0 ? "" : `${Math.round((100 * (waits.get(event) ?? 0)) / of)} %`;
  };
  return markdown(
    ["", ...disks.map(({ name }) => name)],
    events.map((event) => [event, ...disks.map(({ waits }) => share(waits, event))]),
  );
}

async function measure(rows: number): Promise<void> {
  const measured = [];
  for (const [name, settings] of Object.entries(disks)) measured.push(await measureDisk(name, settings, rows));
  console.log(`A mapped push, ${formatCount(rows)} rows in the largest table, medians of ${runs} runs:\n`);
  console.log(compareDisks(measured));
  console.log(
    `\nIn operations of more than ${slow} ms the application waited for, and the backfill, where it ran, meanwhile for:\n`,
  );
  console.log(compareWaits(measured));
}

const rows = readCount("rows", 1_000_000, 1000, 1_000_000_000);
if (rows !== undefined) await measure(rows);
