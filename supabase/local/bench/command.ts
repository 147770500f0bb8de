import { mkdirSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatCount } from "../../cli/print.ts";
import { freePort, type PostgresServer, startPostgres } from "../postgres.ts";
import { stateFolder } from "../project.ts";
import { say } from "./print.ts";

/** The machine and the day, for the line above the figures. */
export const machine = () => `${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}`;

/** The one argument of a benchmark. */
interface Count {
  what: string;
  fallback: number;
  least: number;
  most: number;
}

/**
 * What a benchmark is called with: a count and, where it has parts, those that --only names, else all. Undefined, and said, where it is
 * neither, or --help.
 */
export function readCommand<Part extends string>(
  { what, fallback, least, most }: Count,
  parts: readonly Part[] = [],
): { count: number; only: readonly Part[] } | undefined {
  const given = process.argv.slice(2);
  const rule = `the one argument is the number of ${what}, from ${least} to ${most}` +
    (parts.length === 0 ? "" : `; --only names what to measure, with commas between: ${parts.join(", ")}`);
  if (given.includes("--help") || given.includes("-h")) {
    const command = `npm run ${process.env["npm_lifecycle_event"] ?? "bench"}`;
    console.log(`${command} -- [${fallback}]${parts.length === 0 ? "" : ` [--only ${parts.join(",")}]`}\n\n${rule}.`);
    return undefined;
  }
  const { positionals, only } = parseGiven(given, parts.length > 0);
  const count = Number((positionals[0] ?? String(fallback)).replaceAll("_", ""));
  const named = only?.split(",");
  if (
    positionals.length <= 1 && Number.isFinite(count) && count >= least && count <= most &&
    (named ?? []).every((name) => parts.some((part) => part === name))
  ) {
    return { count, only: parts.filter((part) => named?.includes(part) ?? true) };
  }
  say(`Cannot run the benchmark with ${JSON.stringify(given.join(" "))}: ${rule}`);
  process.exitCode = 1;
  return undefined;
}

function parseGiven(given: string[], hasParts: boolean): { positionals: string[]; only?: string | undefined } {
  if (!hasParts) return { positionals: given };
  try {
    const { positionals, values } = parseArgs({
      args: given,
      options: { only: { type: "string" } },
      allowPositionals: true,
    });
    return { positionals, only: values.only };
  } catch {
    // An option that there is none of is no count either.
    return { positionals: given.length > 0 ? [given.join(" ")] : given };
  }
}

/** The one argument of a benchmark without parts. */
export const readCount = (what: string, fallback: number, least: number, most: number): number | undefined =>
  readCommand({ what, fallback, least, most })?.count;

/** Measures on a server of its own with these settings, in a folder of its own, and leaves neither. */
export async function withServer<T>(
  settings: Record<string, string>,
  measure: (server: PostgresServer, folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  // The server ends with the process, and may still write for a moment.
  const leave = () => rmSync(folder, { recursive: true, force: true, maxRetries: 20 });
  const end = () => process.exit(1);
  const server = await startPostgres({ port: await freePort(), folder: join(folder, "server"), settings });
  process.once("exit", leave).once("SIGTERM", end).once("SIGINT", end);
  try {
    return await measure(server, folder);
  } finally {
    await server.stop("immediate");
    process.off("exit", leave).off("SIGTERM", end).off("SIGINT", end);
    leave();
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
