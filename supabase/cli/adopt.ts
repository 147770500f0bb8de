/**
 * npm run adopt -- <folder of the application> [--db-url …]: puts the migration into an application, and fills in what is to be
 * edited, as far as the database says it. npm run adopt -- --help lists the options and the exit codes.
 */
import { readApplication } from "./adopt-application.ts";
import { openSource } from "./adopt-database.ts";
import { help, type Options, readOptions } from "./adopt-options.ts";
import { planAdoption } from "./adopt-plan.ts";
import { describeAdoption } from "./adopt-report.ts";
import { writeChanges } from "./adopt-write.ts";
import { hideKeys, UsageError, usageExitCode } from "./command-line.ts";
import { endWithReader, interruptedExitCode, watchInterruptions } from "./interruption.ts";

function say(text: string): void {
  process.stdout.write(`${hideKeys(text)}\n`);
}

async function adopt({ folder, dbUrl, dryRun }: Options): Promise<number> {
  const application = readApplication(folder);
  const source = await openSource(application, dbUrl, say);
  try {
    say(`Reading the tables of ${source.what} …\n`);
    // A terminal that does not know its width says 0.
    const canAsk = !dryRun && process.stdin.isTTY && process.stdout.isTTY && process.stdout.columns > 0;
    // Loaded only where somebody can answer.
    const questions = canAsk ? await import("./adopt-questions.ts") : undefined;
    const adoption = await planAdoption(application, source, questions ? { decide: questions.askDecisions } : {});
    say(describeAdoption(adoption));
    if (dryRun) {
      say("\nNothing was written: --dry-run.");
    } else if (adoption.changes.length > 0) {
      if (questions && !await questions.confirmWriting(folder, adoption.changes.length)) {
        say("Nothing was written.");
        return interruptedExitCode;
      }
      writeChanges(folder, adoption.changes);
      say(
        `\nWritten to ${folder}. Decide what is marked in the list, run this again if you like, and push:\n  npm run push -- --workdir ${
          JSON.stringify(folder)
        } --remote`,
      );
    }
    return 0;
  } finally {
    await source.close();
  }
}

async function main(): Promise<number> {
  endWithReader();
  try {
    const options = readOptions(process.argv.slice(2), process.env);
    if (options.help) {
      say(help);
      return 0;
    }
    watchInterruptions().addEventListener("abort", () => process.exit(interruptedExitCode));
    return await adopt(options);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`${hideKeys(error.message)}\n`);
    return usageExitCode;
  }
}

process.exitCode = await main();
