import { parseArgs } from "node:util";
import { explainArguments, UsageError } from "./command-line.ts";
import { readDatabaseUrl } from "./database-url.ts";

export const help = `npm run export -- --org <id> --out <folder> [options]
npm run export -- --load <folder> [options]

Writes the rows of one organization to a folder, or loads such a folder into another database that has the same tables. What is written
holds personal data: the folder is for you alone.

  --db-url <url>   the database, as postgres (else SUPABASE_DB_URL, which keeps the password out of the list of processes)
  --org <id>       the organization
  --out <folder>   where its rows go: a folder that is empty or not there yet
  --with-users     write its users' accounts too, with the hashes of their passwords
  --load <folder>  load the rows that are in this folder
  --without <table>  do not load the rows of this table that is not org-scoped, such as public.profiles; may be repeated
  --help

Exit code: 0 done, 1 not, and then nothing is loaded, 2 called wrong.`;

export type Options =
  | { do: "help" }
  | { do: "export"; url: string; org: string; folder: string; withUsers: boolean }
  | { do: "load"; url: string; folder: string; without: string[] };

/** Reads the command line. Throws an error with the option and the rule. */
export function readOptions(parameters: string[], environment: Record<string, string | undefined>): Options {
  const given = parse(parameters);
  if (given.help) return { do: "help" };
  const url = readDatabaseUrl(given["db-url"], environment);
  const { org, out, load, without = [], "with-users": withUsers } = given;
  if (load !== undefined) {
    if (org !== undefined || out !== undefined || withUsers) {
      throw new UsageError("Cannot use --load with --org, --out or --with-users: it loads what is in the folder");
    }
    if (load === "") throw new UsageError('Cannot read --load "": not the name of a folder');
    return { do: "load", url, folder: load, without };
  }
  if (org === undefined || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(org)) {
    throw new UsageError(`Cannot use --org ${JSON.stringify(org ?? "")}: not the id of an organization, a uuid`);
  }
  if (out === undefined || out === "") throw new UsageError("Cannot export: give --out, the folder for the rows");
  if (without.length > 0) throw new UsageError("Cannot use --without: it is for --load");
  return { do: "export", url, org: org.toLowerCase(), folder: out, withUsers };
}

function parse(parameters: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  try {
    return parseArgs({
      args: parameters,
      options: {
        "db-url": text,
        org: text,
        out: text,
        load: text,
        without: { type: "string", multiple: true },
        "with-users": flag,
        help: flag,
      },
    }).values;
  } catch (error) {
    throw explainArguments(error);
  }
}
