/**
 * npm run bench:progress -- [rows]: how far the time left that tenancy.now tells is off, over a push of the benchmark's tables, and over
 * one with a pause and a kill in it. Prints a Markdown table on standard output. rows: of the largest table.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { formatCount } from "../../cli/print.ts";
import { type Now, openNow } from "../../cli/push-now.ts";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import { freePort, type PostgresServer, startPostgres } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { copyProject } from "../project-copy.ts";
import { markdown, say, sum } from "./print.ts";
import { prepareApplication } from "./prepare.ts";
import { mapping, serverSettings, table } from "./shared.ts";

/** At which percent the push is paused, and at which it is killed; NaN: never. */
interface Disturbance {
  pausedAt: number;
  killedAt: number;
}

interface Sample extends Pick<Now, "status" | "percent" | "seconds_left"> {
  /** Seconds that the push has worked until then. */
  worked: number;
  /** The row of the largest table's backfill. */
  backfill: unknown;
}

const pauseSeconds = 5;

async function readBackfill(sql: Sql): Promise<unknown> {
  const rows = await sql`
    select number, state, first_block, end_block, passes, pass, next_block, sweep, seconds, recent_seconds, recently_done
    from org_migration.backfills
    where relation = ${table}::regclass
    order by last_batch_at desc nulls last
    limit 1
  `.catch(() => []);
  return rows[0];
}

/** Pushes to a fresh copy of the application, and notes four times a second what tenancy.now says. */
async function record(server: PostgresServer, { pausedAt, killedAt }: Disturbance): Promise<Sample[]> {
  const url = await createDatabase(server.port, "bench_progress", "before");
  const folder = join(stateFolder(), `bench-${process.pid}`, "progress");
  rmSync(folder, { recursive: true, force: true });
  const project = copyProject(folder);
  project.append("_EDIT_list_of_tables.sql", mapping);
  const sql = connect(url);
  const reader = openNow(url);
  const samples: Sample[] = [];
  let pausedUntil: number | undefined;
  let killed = false;
  let worked = 0;
  let lastTime: number | undefined;
  const push = async () => {
    const run = project.startPush(url, () => {});
    let ended = false;
    void run.result.finally(() => (ended = true));
    while (!ended) {
      const now = await reader.read();
      const time = performance.now() / 1000;
      if (now?.status === "running") worked += lastTime === undefined ? 0 : time - lastTime;
      lastTime = now?.status === "running" ? time : undefined;
      if (now) {
        samples.push({
          status: now.status,
          percent: now.percent,
          seconds_left: now.seconds_left,
          worked,
          backfill: await readBackfill(sql),
        });
      }
      if (now && now.percent >= pausedAt && pausedUntil === undefined) {
        pausedUntil = time + pauseSeconds;
        await sql`update tenancy.settings set paused = true`;
      }
      if (pausedUntil !== undefined && time > pausedUntil) {
        pausedUntil = Infinity;
        await sql`update tenancy.settings set paused = false`;
      }
      if (now && now.percent >= killedAt && !killed) {
        killed = true;
        process.kill(-Number(run.process.pid), "SIGKILL");
      }
      await sleep(250);
    }
    return await run.result;
  };
  let { code, output } = await push();
  if (killed) ({ code, output } = await push());
  await reader.close();
  await sql.end();
  if (code !== 0) throw new Error(output);
  await dropDatabase(server.port, "bench_progress");
  return samples;
}

/** The error of each time left that was shown, from a share of the work to another. */
function errors(samples: Sample[], from: number, to: number): number[] {
  const end = samples.find(({ status }) => status === "done")?.worked ?? samples.at(-1)?.worked ?? 0;
  return samples
    .filter(({ status, worked, seconds_left: left }) =>
      status === "running" && left !== null && worked >= from * end && worked < to * end
    )
    .map(({ seconds_left: left, worked }) => (left as number) / (end - worked) - 1);
}

const percent = (share: number | undefined) =>
  share === undefined ? "" : `${share > 0 ? "+" : "−"}${Math.abs(100 * share).toFixed(0)} %`;

function describe(name: string, samples: Sample[]): string[] {
  const all = errors(samples, 0.1, 0.95);
  const within = all.filter((error) => Math.abs(error) <= 0.25).length / all.length;
  return [
    name,
    `${(samples.at(-1)?.worked ?? 0).toFixed(0)} s`,
    ...[0.1, 0.25, 0.5, 0.75, 0.9].map((share) => percent(errors(samples, share, 1)[0])),
    `${(100 * sum(all.map(Math.abs)) / all.length).toFixed(0)} %`,
    `${(100 * within).toFixed(0)} %`,
  ];
}

async function measure(rows: number): Promise<void> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const server = await startPostgres({
    port: await freePort(),
    folder: join(folder, "server"),
    settings: serverSettings,
  });
  try {
    await prepareApplication(server, folder, rows);
    const runs: [string, Disturbance][] = [
      ["undisturbed", { pausedAt: NaN, killedAt: NaN }],
      [`paused for ${pauseSeconds} s, and killed`, { pausedAt: 30, killedAt: 60 }],
    ];
    const lines: string[][] = [];
    for (const [name, disturbance] of runs) {
      say(`  ${name}…`);
      const samples = await record(server, disturbance);
      lines.push(describe(name, samples));
      writeFileSync(join(stateFolder(), `progress-${lines.length}.json`), JSON.stringify(samples));
    }
    console.log(`The time left against the time that it took, ${formatCount(rows)} rows in ${table}:\n`);
    console.log(markdown(["", "work", "at 10 %", "25 %", "50 %", "75 %", "90 %", "mean", "within ±25 %"], lines));
  } finally {
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}

await measure(Number((process.argv[2] ?? "1000000").replaceAll("_", "")));
