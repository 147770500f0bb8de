import { parseArgs } from "node:util";
import type { RequestBody } from "../functions/update-user-org-metadata/protocol.ts";
import { explainArguments, readAddress, UsageError } from "./command-line.ts";
import { readGivenKey } from "./secret-key.ts";

export const help = `npm run users -- [options]

Calls the edge function update-user-org-metadata until every user has their organization, and shows how far it is.
Stop it with Ctrl-C whenever you like; the next call goes on from there.

  --url <url>            the project, such as https://ref.supabase.co (else SUPABASE_URL)
  --key <key>            a secret key of the project (else SUPABASE_SECRET_KEY; else it is asked for)
  --dry-run              count what would be done, write nothing
  --org-id <uuid>        only the users of this organization
  --on-conflict <what>   keep (default) or overwrite the organization of a user who has another one
  --move-to-default      with overwrite: also of those who should have the default organization
  --anonymous <what>     include (default), only or exclude anonymous users
  --concurrency <n>      simultaneous requests to the Auth server, 1 to 20
  --max-seconds <n>      length of one call to the function, 1 to 130
  --revert <run_id>      take back what this run has written
  --sql                  write in the database, without the Auth server; when nobody signs in meanwhile
  --report <file.csv>    write the users who could not be updated, with the reasons
  --help

Exit code: 0 nothing is missing, 1 something is, 2 called wrong, 130 stopped.`;

export interface Options {
  help: boolean;
  url: string;
  /** undefined: none was given. */
  key: string | undefined;
  /** The body of the calls: what was given, and nothing else. */
  fields: RequestBody;
  report: string | undefined;
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Reads the command line. Throws an error with the option, the value and the rule. */
export function readOptions(parameters: string[], environment: Record<string, string | undefined>): Options {
  const given = parse(parameters);
  if (given.help) return { help: true, url: "", key: undefined, fields: {}, report: undefined };

  const invalid = (option: string, value: string, rule: string) =>
    new UsageError(`Cannot parse --${option} ${JSON.stringify(value)}: ${rule}`);
  const readUuid = (option: "org-id" | "revert") => {
    const value = given[option];
    if (value !== undefined && !uuid.test(value)) throw invalid(option, value, "not a UUID");
    return value;
  };
  const readNumber = (option: "concurrency" | "max-seconds", most: number) => {
    const value = given[option];
    if (value === undefined) return undefined;
    if (!/^\d+$/.test(value) || Number(value) < 1 || Number(value) > most) {
      throw invalid(option, value, `not a whole number from 1 to ${most}`);
    }
    return Number(value);
  };

  const orgId = readUuid("org-id");
  const runId = readUuid("revert");
  const onConflict = given["on-conflict"];
  if (onConflict !== undefined && onConflict !== "keep" && onConflict !== "overwrite") {
    throw invalid("on-conflict", onConflict, "neither keep nor overwrite");
  }
  const { anonymous } = given;
  if (anonymous !== undefined && anonymous !== "include" && anonymous !== "only" && anonymous !== "exclude") {
    throw invalid("anonymous", anonymous, "neither include, only nor exclude");
  }
  for (const option of ["org-id", "on-conflict", "move-to-default", "anonymous"] as const) {
    if (runId !== undefined && given[option]) {
      throw new UsageError(`Cannot use --${option} with --revert: a run is taken back as a whole`);
    }
  }
  if (given["move-to-default"] && onConflict !== "overwrite") {
    throw new UsageError("Cannot use --move-to-default without --on-conflict overwrite: nobody else is moved");
  }
  if (given.sql && given.concurrency !== undefined) {
    throw new UsageError("Cannot use --concurrency with --sql, which sends no requests to the Auth server");
  }
  const concurrency = readNumber("concurrency", 20);
  const maxSeconds = readNumber("max-seconds", 130);
  const { report } = given;
  if (report === "") throw invalid("report", report, "not the name of a file");
  if (report !== undefined && given["dry-run"]) {
    throw new UsageError("Cannot use --report with --dry-run: a dry run counts the users and names none");
  }

  const url = given.url ?? environment["SUPABASE_URL"] ?? "";
  if (url === "") throw new UsageError("Cannot call the function: give --url, or set SUPABASE_URL");
  return {
    help: false,
    url: readAddress(given.url === undefined ? "SUPABASE_URL" : "--url", url, { path: false }),
    key: readGivenKey(given.key, environment),
    fields: {
      ...(orgId === undefined ? {} : { org_id: orgId }),
      ...(onConflict === undefined ? {} : { on_conflict: onConflict }),
      ...(given["move-to-default"] ? { move_to_default: true } : {}),
      ...(anonymous === undefined ? {} : { anonymous }),
      ...(concurrency === undefined ? {} : { concurrency }),
      ...(maxSeconds === undefined ? {} : { max_seconds: maxSeconds }),
      ...(given["dry-run"] ? { dry_run: true } : {}),
      ...(runId === undefined ? {} : { mode: "revert" as const, run_id: runId }),
      ...(given.sql ? { mode: "sql" as const } : {}),
      ...(report === undefined ? {} : { report: true }),
    },
    report,
  };
}

function parse(parameters: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  try {
    return parseArgs({
      args: parameters,
      options: {
        url: text,
        key: text,
        "dry-run": flag,
        "org-id": text,
        "on-conflict": text,
        "move-to-default": flag,
        anonymous: text,
        concurrency: text,
        "max-seconds": text,
        revert: text,
        sql: flag,
        report: text,
        help: flag,
      },
    }).values;
  } catch (error) {
    throw explainArguments(error);
  }
}
