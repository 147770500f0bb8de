import { mkdirSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { formatCount } from "../../cli/print.ts";
import { freePort, type PostgresServer, startPostgres } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { say } from "./print.ts";

/** The machine and the day, for the line above the figures. */
export const machine = () => `${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}`;

/** The one argument of a benchmark, a count. Undefined, and said, where it is none, or --help. */
export function readCount(what: string, fallback: number, least: number, most: number): number | undefined {
  const given = process.argv.slice(2);
  const rule = `the one argument is the number of ${what}, from ${least} to ${most}`;
  if (given.includes("--help") || given.includes("-h")) {
    console.log(`npm run ${process.env["npm_lifecycle_event"] ?? "bench"} -- [${fallback}]\n\n${rule}.`);
    return undefined;
  }
  const count = Number((given[0] ?? String(fallback)).replaceAll("_", ""));
  if (given.length <= 1 && Number.isFinite(count) && count >= least && count <= most) return count;
  say(`Cannot run the benchmark with ${JSON.stringify(given.join(" "))}: ${rule}`);
  process.exitCode = 1;
  return undefined;
}

/** Measures on a server of its own with these settings, in a folder of its own, and leaves neither. */
export async function withServer<T>(
  settings: Record<string, string>,
  measure: (server: PostgresServer, folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const server = await startPostgres({ port: await freePort(), folder: join(folder, "server"), settings });
  try {
    return await measure(server, folder);
  } finally {
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Measures so, prints the report on standard output and the seconds on standard error. */
export async function runBench(
  settings: Record<string, string>,
  measure: (server: PostgresServer, folder: string) => Promise<string>,
): Promise<void> {
  const started = Date.now();
  console.log(`${await withServer(settings, measure)}\n`);
  say(`${formatCount(Math.round((Date.now() - started) / 1000))} s in all.`);
}
