/**
 * npm start: the whole migration on real servers, from an application that keeps its rows by user_id to a verified one with
 * org_id. Exits with 0 only if all of it holds. With --keep everything stays up afterwards, until Ctrl-C.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { interruptedExitCode, watchInterruptions } from "../cli/interruption.ts";
import { formatTable } from "../cli/print.ts";
import { demoPassword } from "./application.ts";
import { functionName, showMigration, timed } from "./demo.ts";
import { readConfig, stateFolder } from "./project.ts";
import { say, title } from "./show.ts";
import { type Stack, startStack } from "./stack.ts";

async function main(): Promise<void> {
  const { values: options } = parseArgs({ options: { keep: { type: "boolean", default: false } } });
  const folder = join(stateFolder(), "start");

  title("1. The local stack");
  const starting = timed(() => startStack({ ...readConfig(), folder }));
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
    holds = await showMigration(stack, folder, bootTime);
    if (options.keep) {
      showHowToGoOn(stack);
      await new Promise(() => setInterval(() => {}, 1 << 30));
    }
  } catch (error) {
    holds = false;
    if (!signal.aborted) console.error(`\n${(error as Error).message}`);
  }
  if (!signal.aborted) {
    await stack?.stop();
    process.exit(holds ? 0 : 1);
  }
}

function showHowToGoOn({ api, keys, postgres: server }: Stack): void {
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
  psql '${server.url()}' -c 'select * from tenancy.status'
  npx supabase db query 'select * from tenancy.verify() where not passed'
  curl -X POST ${api.url}/functions/v1/${functionName} -H 'apikey: ${keys.secretKey}' -d '{"dry_run": true}'
  curl '${api.url}/auth/v1/token?grant_type=password' -H 'apikey: ${keys.publishableKey}' -H 'content-type: application/json' -d '{"email": "user1@example.com", "password": "${demoPassword}"}'
  npx supabase db push
  npx supabase db push --dry-run

  To stop: Ctrl-C here, or from elsewhere: kill ${process.pid}`);
}

await main();
