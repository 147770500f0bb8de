/**
 * npm run test:auth -- --url <url> [--key <key>] [--db-url <url> [--issuer <url>] [--hook]]: holds a live Auth server against what
 * this project relies on. The key is a secret key, else SUPABASE_SECRET_KEY. With the database behind the server, which nobody may
 * use, it signs people up, too: by id token, if the server accepts the tokens of --issuer, an address on 127.0.0.1 that this command
 * answers at. --hook: the server calls tenancy.add_org_id_to_token. Exits 0 only if every check passes, 2 when it was called wrong.
 */
import { parseArgs } from "node:util";
import type { Sql } from "postgres";
import {
  explainArguments,
  hideKeys,
  networkReason,
  readAddress,
  UsageError,
  usageExitCode,
} from "../cli/command-line.ts";
import { readDatabaseUrl } from "../cli/database-url.ts";
import { connectLive } from "../cli/live-database.ts";
import { readGivenKey } from "../cli/secret-key.ts";
import { authContract, type AuthTarget } from "./auth-contract.ts";
import { hookContract } from "./hook-contract.ts";
import { startIssuer } from "./id-tokens.ts";
import { signUpContract } from "./sign-up-contract.ts";

interface Parameters {
  url?: string | undefined;
  key?: string | undefined;
  "db-url"?: string | undefined;
  issuer?: string | undefined;
  hook?: boolean | undefined;
}

interface Request {
  target: AuthTarget;
  /** The database behind the server; null: the checks that need it are left out. */
  database: { url: string; issuer: string | null; isHooked: boolean } | null;
}

interface Check {
  name: string;
  run(): Promise<void>;
}

const missing = (what: string) => new UsageError(`Cannot check an Auth server: ${what}`);

function readRequest(): Request {
  const { url, key: given, "db-url": databaseUrl, issuer, hook = false } = readParameters();
  if (!url) throw missing("give --url, such as https://ref.supabase.co/auth/v1");
  const key = readGivenKey(given, process.env);
  if (key === undefined) throw missing("set SUPABASE_SECRET_KEY, or give --key");
  const target = { url: readAddress("--url", url, { path: true }), key };
  if (databaseUrl === undefined) {
    if (issuer !== undefined || hook) throw missing("--issuer and --hook are for checks that need --db-url");
    return { target, database: null };
  }
  const database = {
    url: readDatabaseUrl(databaseUrl, {}),
    issuer: issuer === undefined ? null : readAddress("--issuer", issuer, { path: false }),
    isHooked: hook,
  };
  return { target, database };
}

function readParameters(): Parameters {
  const text = { type: "string" } as const;
  try {
    return parseArgs({ options: { url: text, key: text, "db-url": text, issuer: text, hook: { type: "boolean" } } })
      .values;
  } catch (error) {
    throw explainArguments(error);
  }
}

async function runChecks({ target, database }: Request): Promise<number> {
  const basic = authContract.map(({ name, run }): Check => ({ name, run: async () => await run(target) }));
  if (!database) return await runEach(basic, target);
  const sql = connectLive(database.url, { max: 2 });
  const issuer = database.issuer === null ? null : await startIssuer(database.issuer);
  try {
    await refuseUsers(sql);
    const checks = [...signUpContract(issuer !== null), ...database.isHooked ? hookContract : []];
    const all = [
      ...basic,
      ...checks.map(({ name, run }): Check => ({ name, run: async () => await run({ ...target, sql, issuer }) })),
    ];
    if (database.isHooked) await sql`select tenancy.enable_token_hook()`;
    return await runEach(all, target);
  } finally {
    await sql.end();
    await issuer?.close();
  }
}

/** The checks change who signs up to which organization: nobody may do so meanwhile. */
async function refuseUsers(sql: Sql): Promise<void> {
  const [found] = await sql`select count(*)::integer as count from auth.users`;
  if (found?.["count"] !== 0) throw missing(`--db-url has ${found?.["count"]} users: take a project that nobody uses`);
}

async function runEach(checks: Check[], { url, key }: AuthTarget): Promise<number> {
  const say = (text: string) => console.log(hideKeys(text, [key]));
  say(`The checks create users of their own on ${url} and delete them again.`);
  let failed = 0;
  for (const { name, run } of checks) {
    try {
      await run();
      say(`✔ ${name}`);
    } catch (error) {
      failed++;
      say(`✘ ${name}`);
      say(networkReason(error).replace(/^(?=.)/gm, "    "));
    }
  }
  say(`${checks.length - failed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  try {
    return await runChecks(readRequest());
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(hideKeys(error.message));
    return usageExitCode;
  }
}

process.exitCode = await main();
