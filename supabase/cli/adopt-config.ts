import { isDeepStrictEqual } from "node:util";
import { parse } from "smol-toml";
import { UsageError } from "./command-line.ts";

const functionName = "update-user-org-metadata";
const entry = ["", `[functions.${functionName}]`, "verify_jwt = false", ""];

interface Config {
  db?: { port?: unknown; major_version?: unknown };
  functions?: Record<string, { verify_jwt?: unknown }>;
  inbucket?: unknown;
}

/** Reads config.toml. Throws an error with the name of the file and what is wrong. */
export function parseConfig(file: string, text: string): Config {
  let config: Config;
  try {
    config = parse(text) as Config;
  } catch (error) {
    throw new UsageError(`Cannot read ${file}: it is no TOML: ${(error as Error).message.split("\n")[0]}`);
  }
  if (config.inbucket !== undefined) {
    throw new UsageError(
      `Cannot use ${file}: the Supabase CLI 3 ends at [inbucket], which is called [local_smtp] now; rename that section`,
    );
  }
  return config;
}

/** Adds the entry of the function at the end, unless it is there. All else stays as it is, comments included. */
export function addFunction(file: string, text: string): string {
  const { functions, ...others } = parseConfig(file, text);
  const own = functions?.[functionName];
  if (own?.verify_jwt === false) return text;
  if (own !== undefined) {
    throw new UsageError(
      `Cannot use ${file}: [functions.${functionName}] has verify_jwt ${JSON.stringify(own.verify_jwt ?? "unset")}, ` +
        "and the function is called with a secret key, which is no JWT: set verify_jwt = false",
    );
  }
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  const added = `${text}${text === "" || text.endsWith("\n") ? "" : newline}${entry.join(newline)}`;
  const expected = { ...others, functions: { ...functions, [functionName]: { verify_jwt: false } } };
  let found: Config | undefined;
  try {
    found = parse(added) as Config;
  } catch {
    // functions is an inline table, to which nothing can be added further down.
  }
  if (!isDeepStrictEqual(plain(found), plain(expected))) {
    throw new UsageError(
      `Cannot add [functions.${functionName}] with verify_jwt = false to ${file}: what it has of functions cannot be added to ` +
        "at its end; add it by hand",
    );
  }
  return added;
}

/** Without the prototypes and classes of the parser. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null));
