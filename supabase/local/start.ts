/**
 * npm start: the whole migration on real servers, from an application that keeps its rows by user_id to a verified one with
 * org_id. Exits with 0 only if all of it holds. npm start -- --help lists the options.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { explainArguments, UsageError, usageExitCode } from "../cli/command-line.ts";
import { endWithReader, interruptedExitCode, watchInterruptions } from "../cli/interruption.ts";
import { formatTable } from "../cli/print.ts";
import { demoPassword } from "./application.ts";
import { functionName, showMigration } from "./demo.ts";
import { readConfig, stateFolder } from "./project.ts";
import { prepareRehearsal, type Rehearsal } from "./rehearsal.ts";
import { say, timed, title } from "./show.ts";
import { type Stack, startStack } from "./stack.ts";

const help = `npm start -- [options]

Starts a PostgreSQL, an Auth server and a Deno on this machine, and shows the whole migration of the application.

  --keep      leave it all running afterwards, until Ctrl-C
  --before    stop before the push, and leave it running: the application as it is, to rehearse everything on
  --rows <n>  with --before: so many rows in its largest table, call_logs (1000)
  --orgs <n>  with --before: map the users to so many organizations (0: all rows belong to the default one)
  --help

Exit code: 0 all of it holds, 1 something does not, 2 called wrong, 130 stopped.`;

interface Options {
  keep: boolean;
  /** undefined: the whole migration is shown. */
  rehearsal: Rehearsal | undefined;
}

/** Reads the command line; undefined: only the help is wanted. */
function readOptions(): Options | undefined {
  const flag = { type: "boolean", default: false } as const;
  const text = { type: "string" } as const;
  let given;
  try {
    given = parseArgs({ options: { keep: flag, before: flag, rows: text, orgs: text, help: flag } }).values;
  } catch (error) {
    throw explainArguments(error);
  }
  if (given.help) return undefined;
  const readNumber = (option: "rows" | "orgs", otherwise: number, most: number) => {
    const value = given[option];
    if (value === undefined) return otherwise;
    if (!given.before) throw new UsageError(`Cannot use --${option} without --before`);
    if (!/^\d+$/.test(value) || Number(value) > most) {
      throw new UsageError(`Cannot parse --${option} ${JSON.stringify(value)}: not a whole number up to ${most}`);
    }
    return Number(value);
  };
  const rehearsal = { rows: readNumber("rows", 1000, 1_000_000_000), orgs: readNumber("orgs", 0, 100_000) };
  return { keep: given.keep, rehearsal: given.before ? rehearsal : undefined };
}

async function main(): Promise<void> {
  endWithReader();
  let options: Options | undefined;
  try {
    options = readOptions();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    process.exit(usageExitCode);
  }
  if (options === undefined) return say(help);
  const folder = join(stateFolder(), "start");

  title("1. The local stack");
  const starting = timed("starting", async () => await startStack({ ...readConfig(), folder }));
  const signal = watchInterruptions();
  signal.addEventListener("abort", () => {
    say("\nStopping …");
    void starting
      .then(async ([stack]) => await stack.stop())
      .catch(() => {})
      .finally(() => process.exit(interruptedExitCode));
  });

  let stack: Stack | undefined;
  let holds = false;
  try {
    const [started, bootTime] = await starting;
    stack = started;
    const { keep, rehearsal } = options;
    if (rehearsal) {
      await stack.serve(functionName);
      showHowToGoOn(stack, await prepareRehearsal(stack, folder, rehearsal));
    } else {
      holds = await showMigration(stack, folder, bootTime);
      if (keep) showHowToGoOn(stack, commandsAfter(stack));
    }
    if (keep || rehearsal) await new Promise(() => setInterval(() => {}, 1 << 30));
  } catch (error) {
    holds = false;
    if (!signal.aborted) console.error(`\n${(error as Error).message}`);
  }
  if (!signal.aborted) {
    await stack?.stop();
    process.exit(holds ? 0 : 1);
  }
}

function showHowToGoOn({ api, keys, postgres: server }: Stack, commands: string[]): void {
  title("It is all still running");
  say(formatTable(["what", "where"], [
    ["API", api.url],
    ["database", server.url()],
    ["secret key", keys.secretKey],
    ["publishable key", keys.publishableKey],
    ["service_role key", keys.serviceRoleKey],
    ["anon key", keys.anonKey],
    ["a user", `user1@example.com, password: ${demoPassword}`],
  ]));
  say(`
${commands.map((command) => `  ${command}`).join("\n")}

  To stop: Ctrl-C here, or from elsewhere: kill ${process.pid}`);
}

/** What there is to try once the migration is through. */
const commandsAfter = ({ api, keys, postgres: server }: Stack) => [
  `psql '${server.url()}' -c 'select * from tenancy.now'`,
  "npx supabase db query 'select * from tenancy.verify() where not passed'",
  `curl -X POST ${api.url}/functions/v1/${functionName} -H 'apikey: ${keys.secretKey}' -d '{"dry_run": true}'`,
  `curl '${api.url}/auth/v1/token?grant_type=password' -H 'apikey: ${keys.publishableKey}'` +
  ` -H 'content-type: application/json' -d '{"email": "user1@example.com", "password": "${demoPassword}"}'`,
  "npx supabase db push",
  "npx supabase db push --dry-run",
];

await main();
