/**
 * npm run push -- [options of supabase db push]: runs the real CLI, shows on a second connection what the push is doing, and ends
 * with the CLI's exit code.
 */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { createInterface } from "node:readline/promises";
import { supabaseProgram } from "../local/supabase-cli.ts";
import { usageExitCode } from "./command-line.ts";
import { endWithReader, interruptedExitCode, watchInterruptions } from "./interruption.ts";
import { screenOf } from "./live-line.ts";
import { createPushDisplay, type PushDisplay } from "./push-display.ts";
import { type Now, openNow } from "./push-now.ts";
import { findTarget, isRemote, refuseFolder, surroundings } from "./push-target.ts";
import { watchPush } from "./push-watch.ts";
import { startWorkers, takeWorkers } from "./push-workers.ts";

const help = `npm run push -- [options of supabase db push] [--workers <n>]

Runs supabase db push with these options, and shows what it is doing: a line per second on a terminal, a line per 10 seconds
elsewhere, on standard error. Above it, who is in the way, and the statement that ends that.
Stop it with Ctrl-C whenever you like; the same command goes on from there. From elsewhere: npm run watch.

  --remote                        the linked project; for the progress its password is in SUPABASE_DB_PASSWORD, or --password
  --remote='postgresql://…'       a database by its address
  --workdir <folder>              the folder with your supabase folder in it
  --dry-run                       list the migrations, and push nothing
  --yes                           do not ask first
  --workers <n>                   share backfill and validations among so many sessions, 1 to 16; as many as the server has cores to spare
  --help

All others: npx supabase db push --help. Exit code: the CLI's; 130 stopped.`;

let parameters = process.argv.slice(2);

/** Runs the CLI, in a process group of its own, so that Ctrl-C reaches it once. Returns its exit code. */
async function runCli(given: string[], signal: AbortSignal, pass: PushDisplay["pass"]): Promise<number> {
  const child = spawn(process.execPath, [supabaseProgram, "db", "push", ...given], {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const end = (name: NodeJS.Signals) => {
    try {
      process.kill(-Number(child.pid), name);
    } catch {
      // It has ended by itself.
    }
  };
  const interrupt = () => end("SIGINT");
  const kill = () => end("SIGTERM");
  signal.addEventListener("abort", interrupt, { once: true });
  process.once("exit", kill);
  child.stdout.on("data", (chunk: Buffer) => pass(() => process.stdout.write(chunk), chunk.at(-1) === 10));
  child.stderr.on("data", (chunk: Buffer) => pass(() => process.stderr.write(chunk), chunk.at(-1) === 10));
  const code = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, name) => resolve(code ?? 128 + (name === null ? 0 : constants.signals[name])));
  });
  signal.removeEventListener("abort", interrupt);
  process.off("exit", kill);
  return code;
}

/** The CLI asks before it pushes to a remote database, but only where its output is a terminal's. */
async function confirm(signal: AbortSignal): Promise<boolean> {
  const asks = isRemote(parameters) && process.stdin.isTTY && process.stderr.isTTY &&
    !parameters.includes("--yes") && !process.env["SUPABASE_YES"];
  if (!asks) return true;
  const code = await runCli([...parameters, "--dry-run"], signal, (write) => write());
  if (code !== 0) process.exit(code);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question("Push these migrations? [y/N] ", { signal }).catch(() => "");
  terminal.close();
  if (!/^y(es)?$/i.test(answer.trim())) return false;
  parameters.push("--yes");
  return true;
}

/** What to say at the end of a push that is not through. */
function adviseToGoOn(now: Now | undefined, stopped: boolean): string {
  const done = now === undefined || now.status === "not begun"
    ? "no table was touched"
    : `${now.percent.toFixed(1)} % is done and stays`;
  return stopped
    ? `Stopped. Nothing is lost: ${done}; what was under way is taken back. To go on, run the same command again.`
    : `${done[0]?.toUpperCase()}${
      done.slice(1)
    }. Once what it says is dealt with, the same command goes on from there.`;
}

function refuse(reason: string): number {
  console.error(`Cannot push: ${reason}`);
  return usageExitCode;
}

/** What is left of a push before this one is no news, and would read as if this one had ended. */
function fromItsBeginning(show: PushDisplay["show"]): PushDisplay["show"] {
  let begun = false;
  return (now) => {
    begun ||= !["dead", "done"].includes(now.status);
    if (begun) show(now);
  };
}

async function main(): Promise<number> {
  endWithReader();
  if (parameters.includes("--help") || parameters.includes("-h")) {
    console.log(help);
    return 0;
  }
  let workers: number;
  try {
    ({ workers, rest: parameters } = takeWorkers(parameters));
  } catch (error) {
    return refuse((error as RangeError).message);
  }
  const refusal = refuseFolder(parameters, surroundings);
  if (refusal !== undefined) return refuse(refusal);
  const signal = watchInterruptions();
  const display = createPushDisplay(screenOf(process.stderr));
  if (parameters.includes("--dry-run")) return await runCli(parameters, signal, display.pass);
  if (!await confirm(signal)) return interruptedExitCode;

  const target = findTarget(parameters, surroundings);
  if ("why" in target) {
    if (workers > 1) return refuse(`--workers ${workers}: ${target.why}`);
    display.silent(target.why);
  }
  const reader = "url" in target ? openNow(target.url) : undefined;
  const over = new AbortController();
  const watch = reader && watchPush(reader, { ...display, show: fromItsBeginning(display.show) }, over.signal);
  const helpers = "url" in target
    ? startWorkers(workers - 1, target.url, AbortSignal.any([signal, over.signal]), display.silent)
    : undefined;
  const code = await runCli(parameters, signal, display.pass);
  over.abort();
  await Promise.all([watch?.ended, helpers]);
  const now = await reader?.read().catch(() => undefined);
  await reader?.close();
  if (code === 0 && now !== undefined) display.show(now);
  display.end();
  if (code !== 0) console.error(adviseToGoOn(now ?? watch?.last(), signal.aborted));
  return signal.aborted && code !== 0 ? interruptedExitCode : code;
}

process.exitCode = await main();
