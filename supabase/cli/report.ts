/**
 * npm run report -- [options] > report.html: writes one page of what the migration will do to a database, or has done. npm run
 * report -- --help lists the options and the exit codes.
 */
import { hideKeys, networkReason, UsageError, usageExitCode } from "./command-line.ts";
import { secretsOf } from "./database-url.ts";
import { endWithReader } from "./interruption.ts";
import { help, readOptions } from "./report-options.ts";
import { bannerOf, preparePage } from "./report-output.ts";
import { writeReport } from "./report-write.ts";

/** What no output may hold. */
let secrets: string[] = [];

function complain(text: string): void {
  // Also the password of a connection string that was given in the wrong place.
  const unsaid = text.replace(/(:\/\/[^\s:@/]*:)\S*@/g, "$1…@");
  process.stderr.write(`${hideKeys(unsaid, secrets)}\n`);
}

async function main(): Promise<number> {
  endWithReader();
  try {
    const parameters = process.argv.slice(2);
    const options = readOptions(parameters, process.env);
    if (options.help) {
      process.stdout.write(`${help}\n`);
      return 0;
    }
    secrets = secretsOf(options.url);
    const page = preparePage(process.stdout.fd, {
      isTerminal: process.stdout.isTTY,
      banner: bannerOf(process.env),
    });
    page.write(await writeReport(options.url, options));
    return 0;
  } catch (error) {
    complain(error instanceof UsageError ? error.message : `Cannot read the database: ${networkReason(error)}`);
    return error instanceof UsageError ? usageExitCode : 1;
  }
}

process.exitCode = await main();
