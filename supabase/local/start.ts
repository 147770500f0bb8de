/**
 * npm start: the whole move on real parts, from an application that keeps its rows by user_id to a verified one with org_id.
 * Exits 0 only if all of it holds. With --keep everything stays up afterwards, until Ctrl-C.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { decodeJwt } from "jose";
import type { Sql } from "postgres";
import { demoPassword, digestTables, fillApplication, pushApplicationBefore, type TableDigest } from "./application.ts";
import { connect } from "./databases.ts";
import { createInterruption } from "../cli/interruption.ts";
import { formatCount, formatSeconds, formatTable } from "../cli/print.ts";
import { readConfig, stateFolder } from "./project.ts";
import { type Stack, startStack } from "./stack.ts";
import { supabase } from "./supabase-cli.ts";

const counts = { users: 1200, rows: 1000 };
const functionName = "update-user-org-metadata";

/** The plan's manual checklist, and the checks of tenancy.verify() that decide each line. */
const checklist: [line: string, checks: string[]][] = [
  ["All tables have org_id column", ["column", "type"]],
  ["All records have org_id populated", ["no_nulls"]],
  ["NOT NULL constraints are applied", ["check", "not_null"]],
  ["Foreign keys reference organizations table", ["foreign_key"]],
  ["Indexes exist on org_id columns", ["index"]],
  ["Immutability triggers work", ["immutable"]],
  ["JWT contains org_id in app_metadata", ["users"]],
  ["public.auth_org_id() function works", ["auth_org_id"]],
  ["No data loss occurred during migration", ["row_count"]],
  ["No table is unclassified", ["registry"]],
];

interface Check {
  check_name: string;
  table_name: string | null;
  passed: boolean;
  detail: string;
}

let failures = 0;

function say(text = ""): void {
  console.log(text);
}

function title(text: string): void {
  say(`\n${text}\n${"─".repeat(text.length)}`);
}

/** One line of the outcome; a line that does not hold makes the exit code 1. */
function expectThat(holds: boolean, text: string): void {
  if (!holds) failures++;
  say(`  ${holds ? "✔" : "✘"} ${text}`);
}

function sumRows(tables: Map<string, TableDigest>): number {
  return [...tables.values()].reduce((sum, table) => sum + table.rows, 0);
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const began = performance.now();
  return [await work(), performance.now() - began];
}

async function callFunction(stack: Stack, body: Record<string, unknown>): Promise<Record<string, unknown>> {
  const response = await fetch(`${stack.api.url}/functions/v1/${functionName}`, {
    method: "POST",
    headers: { apikey: stack.keys.secretKey, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const reply = await response.text();
  if (!response.ok) throw new Error(`The function answered ${response.status}: ${reply}`);
  return JSON.parse(reply) as Record<string, unknown>;
}

async function signIn(stack: Stack, email: string): Promise<Record<string, unknown>> {
  const response = await fetch(`${stack.api.url}/auth/v1/token?grant_type=password`, {
    method: "POST",
    headers: { apikey: stack.keys.publishableKey, "content-type": "application/json" },
    body: JSON.stringify({ email, password: demoPassword }),
  });
  if (!response.ok) throw new Error(`Cannot sign in as ${email}: ${response.status} ${await response.text()}`);
  const { access_token } = (await response.json()) as { access_token: string };
  return decodeJwt(access_token);
}

/** What the database says to a request with these claims, as the API would ask it. */
async function askAs(sql: Sql, claims: Record<string, unknown>): Promise<{ orgId: string | null; calls: number }> {
  return await sql.begin(async (transaction) => {
    await transaction`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
    await transaction`set local role authenticated`;
    const [row] = await transaction`
      select
        public.auth_org_id() as org_id,
        (select count(*)::integer from public.calls where org_id = (select public.auth_org_id())) as calls
    `;
    return { orgId: row?.["org_id"] as string | null, calls: row?.["calls"] as number };
  });
}

async function showChecklist(sql: Sql, before: Map<string, TableDigest>): Promise<void> {
  title("6. The checklist");
  const checks = await sql<Check[]>`select * from tenancy.verify()`;
  const passedOf = (names: string[]) => {
    const concerned = checks.filter((check) => names.includes(check.check_name));
    return { passed: concerned.filter((check) => check.passed).length, all: concerned.length };
  };
  const mark = (names: string[], table?: string) =>
    checks.filter((check) => names.includes(check.check_name) && check.table_name === table).every((check) =>
        check.passed
      )
      ? "✔"
      : "✘";

  const tables = await sql<{ name: string; priority: string }[]>`
    select relation::text as name, priority from tenancy.org_scoped_tables order by priority, relation::text
  `;
  say(formatTable(
    ["table", "priority", "rows", "org_id", "no NULL", "FK", "index", "CHECK", "NOT NULL", "immutable"],
    tables.map(({ name, priority }) => {
      const verified = name.includes(".") ? name : `public.${name}`;
      return [
        name,
        priority,
        before.get(name)?.rows ?? 0,
        mark(["column", "type"], verified),
        mark(["no_nulls"], verified),
        mark(["foreign_key"], verified),
        mark(["index"], verified),
        mark(["check"], verified),
        mark(["not_null"], verified),
        mark(["immutable"], verified),
      ];
    }),
  ));
  say();
  say(formatTable(
    ["", "checklist of the plan", "checks passed"],
    checklist.map(([line, names]) => {
      const { passed, all } = passedOf(names);
      return [passed === all && all > 0 ? "✔" : "✘", line, `${passed} of ${all}`];
    }),
  ));
  say();
  for (const check of checks.filter((check) => !check.passed)) {
    say(`  ✘ ${check.table_name ?? ""} ${check.check_name}: ${check.detail}`);
  }
  expectThat(checks.length > 0 && checks.every((check) => check.passed), `tenancy.verify(): ${checks.length} checks`);

  const after = await digestTables(sql);
  const changed = [...before].filter(([table, { rows, digest }]) => {
    const now = after.get(table);
    return now?.rows !== rows || now.digest !== digest;
  });
  expectThat(
    changed.length === 0 && after.size === before.size,
    `${formatCount(sumRows(before))} rows in ${before.size} tables are what they were, org_id apart` +
      (changed.length === 0 ? "" : `, but for ${changed.map(([table]) => table).join(", ")}`),
  );
  const excluded = await sql<{ name: string; touched: boolean }[]>`
    select
      registry.table_name as name,
      exists (
        select from pg_attribute
        where attrelid = to_regclass(format('%I.%I', schema_name, table_name)) and attname = 'org_id'
      ) as touched
    from tenancy.registry
    where scope = 'excluded'
  `;
  expectThat(
    excluded.length === 9 && excluded.every((table) => !table.touched),
    `${excluded.length} excluded tables are untouched`,
  );
}

/** What the steps share: the running stack, a connection as postgres, and the figures for the end. */
interface Demo {
  stack: Stack;
  sql: Sql;
  figures: [step: string, time: string][];
}

async function showApplicationBefore({ stack, sql, figures }: Demo, folder: string): Promise<Map<string, TableDigest>> {
  title("2. The application before: rows kept by user_id");
  const [, fillTime] = await timed(async () => {
    await pushApplicationBefore("local", folder);
    await fillApplication(stack.postgres.url(), counts);
  });
  figures.push(["the application and its data", formatSeconds(fillTime)]);

  const before = await digestTables(sql);
  const [orphans] = await sql`
    select count(*)::integer as count from public.calls where not exists (select from auth.users where users.id = user_id)
  `;
  say(`  ${before.size} tables, ${formatCount(sumRows(before))} rows, ${formatCount(counts.users)} users`);
  say(`  orphans, whose user is gone: ${orphans?.["count"]} of ${before.get("calls")?.rows} calls, likewise elsewhere`);
  const claims = await signIn(stack, "user1@example.com");
  say(`  JWT of user1: app_metadata ${JSON.stringify(claims["app_metadata"])}`);
  return before;
}

async function pushMigrations({ figures }: Demo): Promise<void> {
  title("3. supabase db push");
  const marks: [name: string, at: number][] = [];
  await supabase(["db", "push"], (text) => {
    process.stdout.write(text.replace(/^(?=.)/gm, "  "));
    for (const [, name] of text.matchAll(/Applying migration (\S+?)\.\.\./g)) {
      marks.push([name ?? "", performance.now()]);
    }
  });
  marks.push(["", performance.now()]);
  marks.slice(0, -1).forEach(([name, at], index) => {
    figures.push([name, formatSeconds((marks[index + 1]?.[1] ?? at) - at)]);
  });
}

async function updateUsers({ stack, figures }: Demo): Promise<void> {
  title(`4. The edge function ${functionName}`);
  await stack.serve(functionName);
  const body = { page_size: 100 };
  say(`  curl -X POST ${stack.api.url}/functions/v1/${functionName} \\`);
  say(`    -H "apikey: $SECRET_KEY" -H "content-type: application/json" -d '${JSON.stringify(body)}'`);
  say(`  with "dry_run": true: ${JSON.stringify(await callFunction(stack, { ...body, dry_run: true }))}`);
  const [summary, functionTime] = await timed(() => callFunction(stack, body));
  figures.push([functionName, formatSeconds(functionTime)]);
  say(`  ${JSON.stringify(summary)}`);
  expectThat(
    summary["done"] === true && summary["updated"] === counts.users && summary["users_without_org"] === 0,
    `${summary["updated"]} of ${counts.users} users updated in ${summary["pages"]} pages`,
  );
}

async function signInAfter({ stack, sql }: Demo): Promise<void> {
  title("5. A user signs in");
  const claims = await signIn(stack, "user1@example.com");
  const orgId = (claims["app_metadata"] as Record<string, unknown>)["org_id"];
  say(`  JWT of user1: app_metadata ${JSON.stringify(claims["app_metadata"])}`);
  const answer = await askAs(sql, claims);
  expectThat(orgId !== undefined && answer.orgId === orgId, `public.auth_org_id() returns ${answer.orgId}`);
  expectThat(
    answer.calls > 0,
    `user1 queries calls by org_id: ${answer.calls} of its own (its user policy still holds)`,
  );
}

async function showFigures(
  { sql, figures }: Demo,
  before: Map<string, TableDigest>,
  milliseconds: number,
): Promise<void> {
  title("7. Figures");
  const [registered] = await sql`select count(*)::integer as org from tenancy.registry where scope = 'org'`;
  const orgScoped = Number(registered?.["org"]);
  say(formatTable(["tables", "rows", "users", "total"], [[
    `${orgScoped} org-scoped, ${before.size - orgScoped} excluded`,
    sumRows(before),
    counts.users,
    formatSeconds(milliseconds),
  ]]));
  say();
  say(formatTable(["step", "time"], figures));
}

async function run(stack: Stack, folder: string, bootTime: number): Promise<void> {
  const sql = connect(stack.postgres.url());
  const demo: Demo = { stack, sql, figures: [["the local stack", formatSeconds(bootTime)]] };
  const [version] = await sql`select current_setting('server_version') as text`;
  say(`  PostgreSQL ${version?.["text"]} on 127.0.0.1:${stack.postgres.port}, the API on ${stack.api.url}`);

  const began = performance.now() - bootTime;
  const before = await showApplicationBefore(demo, folder);
  await pushMigrations(demo);
  await updateUsers(demo);
  await signInAfter(demo);
  await showChecklist(sql, before);
  await showFigures(demo, before, performance.now() - began);
  await sql.end();
  say(`\n${failures === 0 ? "All of it holds." : `${failures} of it do not hold.`}`);
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({ options: { keep: { type: "boolean", default: false } } });
  const folder = join(stateFolder(), "start");

  title("1. The local stack");
  const starting = timed(() => startStack({ ...readConfig(), folder }));
  const { signal, interrupt } = createInterruption(() => performance.now(), () => process.exit(130));
  signal.addEventListener("abort", () => {
    say("\nStopping …");
    void starting.then(async ([stack]) => await stack.stop()).catch(() => {}).finally(() => process.exit(130));
  });
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);

  let stack: Stack | undefined;
  try {
    const [started, bootTime] = await starting;
    stack = started;
    await run(stack, folder, bootTime);
    if (options.keep) {
      showHowToGoOn(stack);
      await new Promise(() => setInterval(() => {}, 1 << 30));
    }
  } catch (error) {
    failures++;
    if (!signal.aborted) console.error(`\n${(error as Error).message}`);
  }
  if (!signal.aborted) {
    await stack?.stop();
    process.exit(failures === 0 ? 0 : 1);
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
