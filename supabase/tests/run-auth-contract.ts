/**
 * npm run test:auth -- --url <url> [--key <key>]: holds a live Auth server against what this project relies on. The
 * key is a secret key, else SUPABASE_SECRET_KEY. Exits 0 only if every check passes, 2 when it was called wrong.
 */
import { parseArgs } from "node:util";
import {
  explainArguments,
  hideKeys,
  networkReason,
  readAddress,
  UsageError,
  usageExitCode,
} from "../cli/command-line.ts";
import { readGivenKey } from "../cli/secret-key.ts";
import { authContract, type AuthTarget } from "./auth-contract.ts";

function readTarget(): AuthTarget {
  const { url, key: given } = readParameters();
  const missing = (what: string) => new UsageError(`Cannot check an Auth server: ${what}`);
  if (!url) throw missing("give --url, such as https://ref.supabase.co/auth/v1");
  const key = readGivenKey(given, process.env);
  if (key === undefined) throw missing("set SUPABASE_SECRET_KEY, or give --key");
  return { url: readAddress("--url", url, { path: true }), key };
}

function readParameters(): { url?: string | undefined; key?: string | undefined } {
  try {
    return parseArgs({ options: { url: { type: "string" }, key: { type: "string" } } }).values;
  } catch (error) {
    throw explainArguments(error);
  }
}

async function runChecks(target: AuthTarget): Promise<number> {
  const say = (text: string) => console.log(hideKeys(text, [target.key]));
  say(`The checks create users of their own on ${target.url} and delete them again.`);
  let failed = 0;
  for (const { name, run } of authContract) {
    try {
      await run(target);
      say(`✔ ${name}`);
    } catch (error) {
      failed++;
      say(`✘ ${name}`);
      say(networkReason(error).replace(/^(?=.)/gm, "    "));
    }
  }
  say(`${authContract.length - failed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  try {
    return await runChecks(readTarget());
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(hideKeys(error.message));
    return usageExitCode;
  }
}

process.exitCode = await main();
