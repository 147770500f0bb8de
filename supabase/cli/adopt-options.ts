import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { explainArguments, UsageError } from "./command-line.ts";

export const help = `npm run adopt -- <folder of the application> [options]

Puts the migration into an application: the migrations, dated after its own, the edge function with its entry in config.toml,
the preflight, and two tests. Reads its database, writes nothing there, and fills in the list of tables and the index lines.
Run it again whenever you like: what you have edited stays, new tables are added, and it says what is gone.

  --db-url <url>   the database, such as postgresql://postgres:…@db.ref.supabase.co:5432/postgres. Without it: the one of
                   supabase start, if it runs and has the application's migrations; else a PostgreSQL of its own, to which it
                   applies them, and which has no rows to look at
  --dry-run        show what would be written, write nothing
  --help

On a terminal it asks about the tables that are to be decided, and before it writes.
Exit code: 0 done, 2 refused, and nothing was written, 130 stopped, and nothing was written.`;

export interface Options {
  help: boolean;
  folder: string;
  /** undefined: none was given. */
  dbUrl: string | undefined;
  dryRun: boolean;
}

/** Reads the command line. A folder is relative to where npm was called. Throws an error with the option, the value and the rule. */
export function readOptions(parameters: string[], environment: Record<string, string | undefined>): Options {
  const { values, positionals } = parse(parameters);
  if (values.help) return { help: true, folder: "", dbUrl: undefined, dryRun: false };
  const [folder, ...others] = positionals;
  if (folder === undefined || folder === "") {
    throw new UsageError("Cannot adopt an application: give its folder, such as npm run adopt -- ../my-application");
  }
  if (others.length > 0) {
    throw new UsageError(
      `Cannot adopt ${JSON.stringify(folder)} and ${
        JSON.stringify(others.join(" "))
      }: give one folder, in quotes if its path has spaces`,
    );
  }
  const dbUrl = values["db-url"];
  if (dbUrl !== undefined) checkDatabaseUrl(dbUrl);
  return {
    help: false,
    folder: resolve(environment["INIT_CWD"] ?? process.cwd(), folder),
    dbUrl,
    dryRun: values["dry-run"],
  };
}

function checkDatabaseUrl(value: string): void {
  const invalid = (rule: string) =>
    new UsageError(`Cannot parse --db-url ${JSON.stringify(hidePassword(value))}: ${rule}`);
  if (!URL.canParse(value)) {
    throw invalid(
      "not a URL such as postgresql://postgres:…@host:5432/postgres; a password has its special characters as %23 for #",
    );
  }
  if (!/^postgres(ql)?:$/.test(new URL(value).protocol)) throw invalid("neither postgresql:// nor postgres://");
}

/** A connection string without its password. */
export const hidePassword = (url: string): string => url.replace(/(?<=:\/\/[^:@/]*:).*(?=@)/, "…");

function parse(parameters: string[]) {
  try {
    return parseArgs({
      args: parameters,
      allowPositionals: true,
      options: {
        "db-url": { type: "string" },
        "dry-run": { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw explainArguments(error);
  }
}
