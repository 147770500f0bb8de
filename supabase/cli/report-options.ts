import { parseArgs } from "node:util";
import { explainArguments, UsageError } from "./command-line.ts";
import { readDatabaseUrl } from "./database-url.ts";

export const help = `npm run report -- [options] > report.html

Writes one self-contained page for the reviewer and the auditor. Before the push: the plan of each table and the findings. After it:
what ran and how long, waits, what decided each table's rows, users by outcome, and the checks of tenancy.verify().
It only reads, each query in a read-only transaction, and it shows neither passwords nor anything of rows and users but ids.

  --db-url <url>      the database, as postgres (else SUPABASE_DB_URL, which keeps the password out of the list of processes)
  --preflight <file>  before the push: the preflight, with your list and your mapping pasted in (else supabase/preflight.sql)
  --skip-rows         do not read the application's rows: no counts per source, no row checks
  --help

Exit code: 0 the page is written, 1 it is not, 2 called wrong.`;

export interface Options {
  help: boolean;
  url: string;
  /** undefined: the one that this project ships. */
  preflight: string | undefined;
  skipRows: boolean;
}

/** Reads the command line. Throws an error with the option and the rule. */
export function readOptions(parameters: string[], environment: Record<string, string | undefined>): Options {
  const given = parse(parameters);
  if (given.help) return { help: true, url: "", preflight: undefined, skipRows: false };
  if (given.preflight === "") throw new UsageError('Cannot read --preflight "": not the name of a file');
  return {
    help: false,
    url: readDatabaseUrl(given["db-url"], environment),
    preflight: given.preflight,
    skipRows: given["skip-rows"],
  };
}

function parse(parameters: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  try {
    return parseArgs({
      args: parameters,
      options: { "db-url": text, preflight: text, "skip-rows": flag, help: flag },
    }).values;
  } catch (error) {
    throw explainArguments(error);
  }
}
