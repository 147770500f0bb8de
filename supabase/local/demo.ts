/** The steps of npm start, each shown as it is done. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeJwt } from "jose";
import type { Sql } from "postgres";
import type { PreviewAnswer, RequestBody, SummaryAnswer } from "../functions/update-user-org-metadata/protocol.ts";
import { screenOf } from "../cli/live-line.ts";
import { writeReport } from "../cli/report-write.ts";
import { formatCount, formatSeconds, formatTable } from "../cli/print.ts";
import { createPushDisplay } from "../cli/push-display.ts";
import { openNow } from "../cli/push-now.ts";
import { watchPush } from "../cli/push-watch.ts";
import {
  demoPassword,
  digestTables,
  fillApplication,
  pushApplicationBefore,
  sumRows,
  type TableDigest,
} from "./application.ts";
import { showChecklist } from "./checklist.ts";
import { connect } from "./databases.ts";
import { type Claims, codeBefore, request } from "./requests.ts";
import { countFailures, expectThat, say, timed, title } from "./show.ts";
import type { Stack } from "./stack.ts";
import { supabase } from "./supabase-cli.ts";

const counts = { users: 1200, rows: 1000 };
const newcomer = "newcomer@example.com";
export const functionName = "update-user-org-metadata";

/** What the steps share: the running stack, a connection as postgres, and the figures for the end. */
interface Demo {
  stack: Stack;
  sql: Sql;
  figures: [step: string, time: string][];
}

/** Shows the whole migration. Returns true if all of it holds. */
export async function showMigration(stack: Stack, folder: string, bootTime: number): Promise<boolean> {
  const sql = connect(stack.postgres.url());
  const demo: Demo = { stack, sql, figures: [["the local stack", formatSeconds(bootTime)]] };
  const [version] = await sql`select current_setting('server_version') as text`;
  say(`  PostgreSQL ${version?.["text"]} on 127.0.0.1:${stack.postgres.port}, the API on ${stack.api.url}`);

  const began = performance.now() - bootTime;
  const { before, oldClaims } = await showApplicationBefore(demo, folder);
  await pushMigrations(demo);
  await updateUsers(demo);
  await signInAfter(demo);
  await showChecklist(sql, before);
  await showApplicationAfter(demo, oldClaims);
  await writeDemoReport(demo, folder);
  await showFigures(demo, before, performance.now() - began);
  await sql.end();
  const failures = countFailures();
  say(`\n${failures === 0 ? "All of it holds." : `${failures} of the above do not hold.`}`);
  return failures === 0;
}

/** What the application held before, and the claims of a token that it issued then. */
interface Before {
  before: Map<string, TableDigest>;
  oldClaims: Claims;
}

async function showApplicationBefore({ stack, sql, figures }: Demo, folder: string): Promise<Before> {
  title("2. The application before: rows kept by user_id");
  const [, fillTime] = await timed("the application and its data", async () => {
    await pushApplicationBefore("local", folder);
    await fillApplication(stack.postgres.url(), counts);
    await sql.unsafe(codeBefore).simple();
  });
  figures.push(["the application and its data", formatSeconds(fillTime)]);

  const [before] = await timed("what its rows hold", async () => await digestTables(sql));
  const [orphans] = await sql`
    select count(*)::integer as count from public.calls where not exists (select from auth.users where users.id = user_id)
  `;
  say(`  ${before.size} tables, ${formatCount(sumRows(before))} rows, ${formatCount(counts.users)} users`);
  say(
    `  orphans, whose user is gone: ${orphans?.["count"]} of ${
      before.get("calls")?.rows
    } calls, and likewise in other tables`,
  );
  const claims = await signIn(stack, "user1@example.com");
  say(`  JWT of user1: app_metadata ${JSON.stringify(claims["app_metadata"])}`);
  return { before, oldClaims: claims as Claims };
}

async function pushMigrations({ stack, figures, sql }: Demo): Promise<void> {
  title("3. supabase db push");
  const marks: [name: string, at: number][] = [];
  const display = createPushDisplay(screenOf(process.stdout));
  const over = new AbortController();
  const reader = openNow(stack.postgres.url());
  const watch = watchPush(reader, display, over.signal);
  await supabase(["db", "push"], (text) => {
    display.pass(() => process.stdout.write(text.replace(/^(?=.)/gm, "  ")), text.endsWith("\n"));
    for (const [, name] of text.matchAll(/Applying migration (\S+?)\.\.\./g)) {
      marks.push([name ?? "", performance.now()]);
    }
  }).finally(() => over.abort());
  await watch.ended;
  await reader.close();
  display.end();
  marks.push(["", performance.now()]);
  const times = new Map<string, number>();
  marks.slice(0, -1).forEach(([name, at], index) => {
    // The library, which touches nothing of the application, is one line.
    const step = name.includes("_tenancy_") ? "the library, …_tenancy_….sql" : name;
    times.set(step, (times.get(step) ?? 0) + (marks[index + 1]?.[1] ?? at) - at);
  });
  for (const [step, time] of times) figures.push([step, formatSeconds(time)]);
  const [log] = await sql`
    select
      count(*)::integer as statements,
      (array_agg(statement order by seconds desc nulls last))[1] as longest,
      max(seconds)::float as seconds
    from tenancy.log
  `;
  say(
    `  tenancy.log: ${log?.["statements"]} statements on the application's tables; the longest took ${
      log?.["seconds"]
    } s:`,
  );
  say(`    ${log?.["longest"]}`);
}

async function updateUsers({ stack, figures }: Demo): Promise<void> {
  title(`4. The edge function ${functionName}`);
  await timed("starting the function", async () => await stack.serve(functionName));
  const body: RequestBody = { page_size: 100 };
  say(`  curl -X POST ${stack.api.url}/functions/v1/${functionName} \\`);
  say(`    -H "apikey: $SECRET_KEY" -H "content-type: application/json" -d '${JSON.stringify(body)}'`);
  const [preview] = await timed("counting", () => callFunction<PreviewAnswer>(stack, { ...body, dry_run: true }));
  say(`  with "dry_run": true: ${JSON.stringify(preview)}`);
  const [summary, functionTime] = await timed("updating the users", () => callFunction<SummaryAnswer>(stack, body));
  figures.push([functionName, formatSeconds(functionTime)]);
  say(`  ${JSON.stringify(summary)}`);
  expectThat(
    summary.done && summary.updated === counts.users && summary.users_without_org === 0,
    `${summary.updated} of ${counts.users} users updated in ${summary.pages} pages`,
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

/** The application as it is, which does not know org_id: it goes on by the filler alone. */
async function showApplicationAfter({ stack, sql }: Demo, oldClaims: Claims): Promise<void> {
  title("7. The application goes on");
  const [inserted] = await request(sql, "authenticated", oldClaims, async (transaction) =>
    await transaction`
      insert into public.calls (user_id, direction) values (${oldClaims["sub"] as string}, 'inbound') returning org_id
    `);
  const [expected] = await sql`select tenancy.org_of(${oldClaims["sub"] as string}) as org_id`;
  expectThat(
    inserted !== undefined && inserted["org_id"] === expected?.["org_id"],
    `user1 inserts a call with the token from before the push: it is in organization ${inserted?.["org_id"]}`,
  );

  const choice = "select tenancy.enable_new_users('default')";
  say(`  ${choice}`);
  await sql.unsafe(choice);
  const { id } = await createUser(stack, newcomer);
  const { app_metadata: metadata } = await signIn(stack, newcomer);
  const orgId = (metadata as Record<string, unknown>)["org_id"];
  const [agent] = await sql`select org_id from public.agents where user_id = ${id}`;
  expectThat(orgId !== undefined, `${newcomer} signs up: the JWT has organization ${orgId}`);
  expectThat(
    agent !== undefined && agent["org_id"] === orgId,
    `the application's trigger wrote an agent for the new user: it is in organization ${agent?.["org_id"]}`,
  );
}

async function writeDemoReport({ stack }: Demo, folder: string): Promise<void> {
  title("8. The report");
  const file = join(folder, "report.html");
  const page = await writeReport(stack.postgres.url());
  writeFileSync(file, page);
  expectThat(page.includes("Done."), "what npm run report says of all this, a page for the reviewer and the auditor:");
  say(`    ${file}`);
}

async function showFigures(
  { sql, figures }: Demo,
  before: Map<string, TableDigest>,
  milliseconds: number,
): Promise<void> {
  title("9. Figures");
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

async function callFunction<Answer>(stack: Stack, body: RequestBody): Promise<Answer> {
  const response = await fetch(`${stack.api.url}/functions/v1/${functionName}`, {
    method: "POST",
    headers: { apikey: stack.keys.secretKey, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const reply = await response.text();
  if (!response.ok) throw new Error(`The function answered ${response.status}: ${reply}`);
  return JSON.parse(reply) as Answer;
}

/** Signs somebody up, as an application does that confirms addresses itself. */
async function createUser(stack: Stack, email: string): Promise<{ id: string }> {
  const response = await fetch(`${stack.api.url}/auth/v1/admin/users`, {
    method: "POST",
    headers: { apikey: stack.keys.secretKey, "content-type": "application/json" },
    body: JSON.stringify({ email, password: demoPassword, email_confirm: true }),
  });
  if (!response.ok) throw new Error(`Cannot sign ${email} up: ${response.status} ${await response.text()}`);
  return (await response.json()) as { id: string };
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

/** Asks the database as the API would for a request with these claims. */
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
