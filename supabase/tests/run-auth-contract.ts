/**
 * npm run test:auth -- --url <url> [options]: holds a live Auth server against what this project relies on. npm run test:auth --
 * --help lists the options and the exit codes.
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
import { closeLive, connectLive } from "../cli/live-database.ts";
import { readGivenKey } from "../cli/secret-key.ts";
import { authContract, type AuthTarget, send } from "./auth-contract.ts";
import { hookContract } from "./hook-contract.ts";
import { startIssuer } from "./id-tokens.ts";
import { signUpContract } from "./sign-up-contract.ts";

const help = `npm run test:auth -- --url <url> [options]

Holds a live Auth server against what this project relies on. It creates users of its own and deletes them again.

  --url <url>      the project, such as https://ref.supabase.co, or a bare Auth server
  --key <key>      a secret key of it (else SUPABASE_SECRET_KEY)
  --db-url <url>   the database behind it, which nobody may use: sign people up, too
  --issuer <url>   by id token, too: an address on 127.0.0.1 at which this command answers, and whose tokens the server accepts
  --hook           the server calls tenancy.add_org_id_to_token: check that, too
  --help

Exit code: 0 all of it holds, 1 something does not, 2 called wrong.`;

interface Parameters {
  help?: boolean | undefined;
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

function readRequest({ url, key: given, "db-url": databaseUrl, issuer, hook = false }: Parameters): Request {
  if (!url) throw missing("give --url, such as https://ref.supabase.co");
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
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({ options: { url: text, key: text, "db-url": text, issuer: text, hook: flag, help: flag } })
      .values;
  } catch (error) {
    throw explainArguments(error);
  }
}

/** The Auth server of a project, by the project's address; a bare one, and an address with a path, are as given. */
async function findAuthServer({ url, key }: AuthTarget): Promise<AuthTarget> {
  const ofProject = { url: `${url}/auth/v1`, key };
  if (new URL(url).pathname !== "/") return { url, key };
  const { status } = await send(ofProject, "GET", "/admin/users").catch(() => ({ status: 404 }));
  return status === 404 ? { url, key } : ofProject;
}

async function runChecks({ target: given, database }: Request): Promise<number> {
  const target = await findAuthServer(given);
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
    await closeLive(sql);
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
    const parameters = readParameters();
    if (parameters.help) {
      console.log(help);
      return 0;
    }
    return await runChecks(readRequest(parameters));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(hideKeys(error.message));
    return usageExitCode;
  }
}

process.exitCode = await main();
