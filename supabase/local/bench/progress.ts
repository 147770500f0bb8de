/**
 * npm run bench:progress -- [rows]: how far the time left that tenancy.now tells is off, over a push of the benchmark's tables, and over
 * one with a pause and a kill in it. Prints a Markdown table on standard output, and every time left that is off on standard error.
 * rows: of the largest table.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { formatCount } from "../../cli/print.ts";
import { type Now, openNow } from "../../cli/push-now.ts";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { copyProject } from "../project-copy.ts";
import { readCount, runBench } from "./command.ts";
import { markdown, say, sum } from "./print.ts";
import { prepareApplication } from "./prepare.ts";
import { mapping, serverSettings, table } from "./shared.ts";

/** At which percent the push is paused, and at which it is killed; NaN: never. */
interface Disturbance {
  pausedAt: number;
  killedAt: number;
}

interface Sample extends Pick<Now, "status" | "percent" | "seconds_left" | "step" | "relation"> {
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
      if (now?.status === "running" || now?.status === "done") worked += lastTime === undefined ? 0 : time - lastTime;
      lastTime = now?.status === "running" ? time : undefined;
      if (now) {
        samples.push({
          status: now.status,
          percent: now.percent,
          seconds_left: now.seconds_left,
          step: now.step,
          relation: now.relation,
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

/** A time left that was shown, and the truth. */
interface Shown extends Pick<Sample, "percent" | "step" | "relation"> {
  left: number;
  truth: number;
}

/** What was shown from 10 % on. */
function judge(samples: Sample[]): Shown[] {
  const end = samples.find(({ status }) => status === "done")?.worked ?? samples.at(-1)?.worked ?? 0;
  return samples.flatMap(({ status, percent, step, relation, seconds_left: left, worked }) =>
    status === "running" && left !== null && percent >= 10
      ? [{ percent, step, relation, left, truth: end - worked }]
      : []
  );
}

const errorOf = ({ left, truth }: Shown) => left / truth - 1;
const isWithinQuarter = (shown: Shown) => Math.abs(errorOf(shown)) <= 0.25;
/** A second is the least that the display can show. */
const isWithinSecond = ({ left, truth }: Shown) => Math.abs(left - truth) <= 1;

const formatShare = (share: number) => `${(100 * share).toFixed(0)} %`;

function formatError(shown: Shown | undefined): string {
  if (shown === undefined) return "";
  const error = errorOf(shown);
  return `${error > 0 ? "+" : "−"}${formatShare(Math.abs(error))}`;
}

/** By how much what is done fell at most, from one time to the next. */
const stepBack = (samples: Sample[]) =>
  Math.max(0, ...samples.slice(1).map(({ percent }, index) => (samples[index]?.percent ?? 0) - percent));

function describe(name: string, samples: Sample[]): string[] {
  const shown = judge(samples);
  const errors = shown.map((moment) => Math.abs(errorOf(moment)));
  const quarter = shown.filter(isWithinQuarter).length;
  const either = shown.filter((moment) => isWithinQuarter(moment) || isWithinSecond(moment)).length;
  return [
    name,
    `${(samples.at(-1)?.worked ?? 0).toFixed(0)} s`,
    ...[10, 25, 50, 75, 90].map((percent) => formatError(shown.find((moment) => moment.percent >= percent))),
    formatShare(sum(errors) / errors.length),
    String(shown.length),
    `${quarter} (${formatShare(quarter / shown.length)})`,
    `${either} (${formatShare(either / shown.length)})`,
    `${stepBack(samples).toFixed(1)} %`,
  ];
}

function sayMisses(samples: Sample[]): void {
  for (const shown of judge(samples)) {
    if (isWithinQuarter(shown) || isWithinSecond(shown)) continue;
    const { percent, step, relation, left, truth } = shown;
    say(
      `    ${percent.toFixed(1)} %, ${step ?? "between two loops"} ${relation ?? ""}: ${left.toFixed(1)} s told, ${
        truth.toFixed(1)
      } s left, ${formatError(shown)}`,
    );
  }
}

async function measure(server: PostgresServer, folder: string, rows: number): Promise<string> {
  await prepareApplication(server, folder, rows);
  const runs: [string, Disturbance][] = [
    ["undisturbed", { pausedAt: NaN, killedAt: NaN }],
    [`paused for ${pauseSeconds} s, and killed`, { pausedAt: 30, killedAt: 60 }],
  ];
  const lines: string[][] = [];
  for (const [name, disturbance] of runs) {
    say(`  ${name}…`);
    const samples = await record(server, disturbance);
    sayMisses(samples);
    lines.push(describe(name, samples));
    writeFileSync(join(stateFolder(), `progress-${lines.length}.json`), JSON.stringify(samples));
  }
  return `The time left against the time that it took, ${formatCount(rows)} rows in ${table}:\n\n` +
    markdown([
      "",
      "work",
      ...["at 10 %", "25 %", "50 %", "75 %", "90 %", "mean"],
      "times shown from 10 % on",
      "within ±25 %",
      "within ±25 % or 1 s",
      "percent fell by",
    ], lines);
}

const rows = readCount("rows", 1_000_000, 1000, 1_000_000_000);
if (rows !== undefined) await runBench(serverSettings, (server, folder) => measure(server, folder, rows));
