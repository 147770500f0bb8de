/** npm run watch -- [options]: shows what a push is doing that runs elsewhere. npm run watch -- --help lists the options. */
import { networkReason, usageExitCode } from "./command-line.ts";
import { endWithReader, interruptedExitCode, watchInterruptions } from "./interruption.ts";
import { screenOf } from "./live-line.ts";
import { createPushDisplay } from "./push-display.ts";
import { openNow } from "./push-now.ts";
import { findTarget, surroundings } from "./push-target.ts";
import { watchPush } from "./push-watch.ts";

const help = `npm run watch -- [options]

Shows what a push is doing that runs elsewhere, as npm run push does, until it is done. Ctrl-C ends the watch, not the push.

  --remote                        the linked project; its password is in SUPABASE_DB_PASSWORD, or --password
  --remote='postgresql://…'       a database by its address
  --workdir <folder>              the folder with your supabase folder in it
  --once                          show one line and end
  --help

Exit code: 0 the push is done, 1 it is not, 2 called wrong, 130 stopped.`;

const flags = ["--remote", "--linked", "--local", "--once"];
const withValue = ["--workdir", "--password", "-p", "--db-url"];

/** The first parameter that there is no such option for; undefined: all are known. */
function findUnknown(parameters: string[]): string | undefined {
  return parameters.find((parameter, index) =>
    !flags.includes(parameter) && !withValue.includes(parameter) && !withValue.includes(parameters[index - 1] ?? "") &&
    ![...withValue, "--remote"].some((name) => parameter.startsWith(`${name}=`))
  );
}

async function main(parameters: string[]): Promise<number> {
  endWithReader();
  if (parameters.includes("--help") || parameters.includes("-h")) {
    console.log(help);
    return 0;
  }
  const unknown = findUnknown(parameters);
  if (unknown !== undefined) {
    console.error(`Cannot use ${unknown}: there is no such option; see npm run watch -- --help`);
    return usageExitCode;
  }
  const target = findTarget(parameters, surroundings);
  if ("why" in target) {
    console.error(`Cannot watch: ${target.why}`);
    return usageExitCode;
  }
  const signal = watchInterruptions();
  const reader = openNow(target.url);
  const once = parameters.includes("--once");
  try {
    if (await reader.read() === undefined) {
      console.error(
        "There is no push to watch: nothing of it is in this database yet, or the last step has been taken." +
          (once ? "" : " Waiting for one."),
      );
      if (once) {
        await reader.close();
        return 1;
      }
    }
  } catch (error) {
    console.error(`Cannot watch: ${networkReason(error)}`);
    await reader.close();
    return usageExitCode;
  }
  const display = createPushDisplay(screenOf(process.stdout));
  const watch = watchPush(reader, display, signal, ({ status }) => once || status === "done");
  await watch.ended;
  display.end();
  await reader.close();
  if (signal.aborted) return interruptedExitCode;
  return watch.last()?.status === "done" ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
