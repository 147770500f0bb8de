/**
 * npm run users -- [options]: calls the edge function update-user-org-metadata until every user has the organization,
 * shows how far it is, and says at the end what is missing. npm run users -- --help has the options and the exit codes.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { askSecret } from "./ask-secret.ts";
import { hideKeys, readKey, UsageError, usageExitCode } from "./command-line.ts";
import { createInterruption } from "./interruption.ts";
import { formatCount } from "./print.ts";
import { createDisplay, describeFinished, describePreview, type Ending } from "./users-display.ts";
import { help, type Options, readOptions } from "./users-options.ts";
import { beginReport, formatReport, type Report } from "./users-report.ts";
import { type Clock, type RunEnd, runUsers } from "./users-runner.ts";

const interruptedExitCode = 130;
/** What no output may have: the key, and the one of the environment also where it is not the one that is used. */
const keys = [(process.env["SUPABASE_SECRET_KEY"] ?? "").trim()];

function say(text: string): void {
  process.stdout.write(`${hideKeys(text, keys)}\n`);
}

function complain(text: string): void {
  process.stderr.write(`${hideKeys(text, keys)}\n`);
}

const clock: Clock = {
  sleep: async (milliseconds, signal) => {
    await sleep(milliseconds, undefined, { signal }).catch(() => {});
  },
  after: (milliseconds, action) => {
    const timer = setTimeout(action, milliseconds);
    return () => clearTimeout(timer);
  },
};

/** Ends what the signal is given to at the first Ctrl-C, and the process at the second. */
function watchInterrupts(cleanUp: () => void): AbortSignal {
  const { signal, interrupt } = createInterruption(() => performance.now(), () => {
    cleanUp();
    process.exit(interruptedExitCode);
  });
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  return signal;
}

/** The key, asked for where it was not given; undefined: the person did not want to say. */
async function findKey(given: string | undefined, signal: AbortSignal): Promise<string | undefined> {
  if (given !== undefined) return given;
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new UsageError("Cannot call the function without a secret key: set SUPABASE_SECRET_KEY");
  }
  const question = "Secret key of the project (it is not shown): ";
  const typed = await askSecret(question, process.stdin, (text) => process.stderr.write(text), signal);
  return typed === undefined ? undefined : readKey("the prompt", typed);
}

async function run(options: Options, key: string, report: Report | undefined, signal: AbortSignal): Promise<number> {
  const { url, fields } = options;
  say(`Calling update-user-org-metadata of ${url} …`);
  const display = createDisplay({
    write: (text) => process.stdout.write(hideKeys(text, keys)),
    // A terminal that does not know its width says 0.
    columns: () => process.stdout.isTTY && process.env["TERM"] !== "dumb" ? process.stdout.columns || 80 : undefined,
    now: () => performance.now(),
  });
  const end = await runUsers({ url, key, fields, signal }, { fetch, clock, display });
  display.end();
  return conclude(end, options, report);
}

function conclude(end: RunEnd, { fields, report: file }: Options, report: Report | undefined): number {
  const tell = ({ text, complete }: Ending) => {
    say(`\n${text}`);
    return complete ? 0 : 1;
  };
  switch (end.kind) {
    case "done": {
      const { finished, problems } = end;
      const code = tell(describeFinished(finished, { revert: fields.mode === "revert", reported: file !== undefined }));
      report?.finish(hideKeys(formatReport(problems), keys));
      if (report) say(`All problems (${formatCount(problems.length)}) are in ${file}`);
      return code;
    }
    case "preview":
      return tell(describePreview(end.preview));
    case "refused":
      complain(end.message);
      return 1;
    case "gave_up":
      complain(`${end.message}\nNothing is lost: call again to go on.`);
      return 1;
    case "interrupted":
      complain("Stopped. Nothing is lost: call again to go on.");
      return interruptedExitCode;
  }
}

async function main(): Promise<number> {
  let report: Report | undefined;
  try {
    const options = readOptions(process.argv.slice(2), process.env);
    if (options.help) {
      say(help);
      return 0;
    }
    const signal = watchInterrupts(() => report?.discard());
    if (options.report !== undefined) report = beginReport(options.report);
    const key = await findKey(options.key, signal);
    if (key === undefined) return interruptedExitCode;
    keys.push(key);
    return await run(options, key, report, signal);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(error.message);
    return usageExitCode;
  } finally {
    report?.discard();
  }
}

process.exitCode = await main();
