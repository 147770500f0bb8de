/**
 * npm run users -- [options]: calls the edge function update-user-org-metadata until every user has their organization, shows
 * how far it is, and says at the end what is missing. npm run users -- --help lists the options and the exit codes.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { hideKeys, UsageError, usageExitCode } from "./command-line.ts";
import { endWithReader, interruptedExitCode, watchInterruptions } from "./interruption.ts";
import { screenOf } from "./live-line.ts";
import { formatCount } from "./print.ts";
import { askForKey } from "./secret-key.ts";
import { createDisplay } from "./users-display.ts";
import { describePreview, describeSummary, type Ending } from "./users-ending.ts";
import { help, type Options, readOptions } from "./users-options.ts";
import { beginReport, formatReport, type Report } from "./users-report.ts";
import { type RunEnd, runUsers } from "./users-runner.ts";

/** What no output may hold: the key, and the key of the environment even if another one is used. */
const keys = [(process.env["SUPABASE_SECRET_KEY"] ?? "").trim()];

function say(text: string): void {
  process.stdout.write(`${hideKeys(text, keys)}\n`);
}

function complain(text: string): void {
  process.stderr.write(`${hideKeys(text, keys)}\n`);
}

async function run({ url, fields }: Options, key: string, signal: AbortSignal): Promise<RunEnd> {
  say(`Calling update-user-org-metadata of ${url} …`);
  const display = createDisplay(screenOf(process.stdout, (text) => hideKeys(text, keys)));
  const end = await runUsers({ url, key, fields, signal }, {
    fetch,
    display,
    sleep: async (milliseconds, signal) => {
      await sleep(milliseconds, undefined, { signal }).catch(() => {});
    },
    after: (milliseconds, action) => {
      const timer = setTimeout(action, milliseconds);
      return () => clearTimeout(timer);
    },
  });
  display.end();
  return end;
}

/** Says how the run has ended, writes the report, and returns the exit code. */
function conclude(end: RunEnd, { fields, report: file }: Options, report: Report | undefined): number {
  const tell = ({ text, complete }: Ending) => {
    say(`\n${text}`);
    return complete ? 0 : 1;
  };
  switch (end.kind) {
    case "done": {
      const { summary, problems } = end;
      const code = tell(describeSummary(summary, {
        revert: fields.run_id !== undefined,
        inSql: fields.mode === "sql",
        reported: file !== undefined,
      }));
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
  endWithReader(() => report?.discard());
  try {
    const options = readOptions(process.argv.slice(2), process.env);
    if (options.help) {
      say(help);
      return 0;
    }
    const signal = watchInterruptions(() => report?.discard());
    if (options.report !== undefined) report = beginReport(options.report);
    const key = options.key ?? await askForKey(signal);
    if (key === undefined) return interruptedExitCode;
    keys.push(key);
    return conclude(await run(options, key, signal), options, report);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(error.message);
    return usageExitCode;
  } finally {
    report?.discard();
  }
}

process.exitCode = await main();
