import { mkdirSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { formatCount } from "../../cli/print.ts";
import { freePort, type PostgresServer, startPostgres } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { say } from "./print.ts";

/** The machine and the day, for the line above the figures. */
export const machine = () => `${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}`;

/** The one argument of a benchmark, a count; undefined, and said on standard error: it is none. */
export function readCount(what: string, fallback: number, least: number, most: number): number | undefined {
  const given = process.argv.slice(2);
  const count = Number((given[0] ?? String(fallback)).replaceAll("_", ""));
  if (given.length <= 1 && Number.isInteger(count) && count >= least && count <= most) return count;
  say(
    `Cannot run the benchmark with ${
      JSON.stringify(given.join(" "))
    }: the one argument is the number of ${what}, from ${least} to ${most}`,
  );
  process.exitCode = 1;
  return undefined;
}

/** Measures on a server of its own, prints the report on standard output and the seconds on standard error. */
export async function runBench(
  settings: Record<string, string>,
  measure: (server: PostgresServer, folder: string) => Promise<string>,
): Promise<void> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const started = Date.now();
  const server = await startPostgres({ port: await freePort(), folder: join(folder, "server"), settings });
  try {
    console.log(`${await measure(server, folder)}\n`);
    say(`${formatCount(Math.round((Date.now() - started) / 1000))} s in all.`);
  } finally {
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}
