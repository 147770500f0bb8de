/**
 * npm run bench:workers -- [rows]: how much sooner a mapped backfill is through when two sessions share it, over one large table and over
 * four. Prints a Markdown table on standard output. rows: of the large tables together.
 */
import { join } from "node:path";
import { formatCount } from "../../cli/print.ts";
import { startWorkers } from "../../cli/push-workers.ts";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { readCount, runBench } from "./command.ts";
import { prepareBackfill } from "./measure-backfill.ts";
import { markdown, median, say } from "./print.ts";
import { prepareApplication } from "./prepare.ts";
import { runLoops, runs, serverSettings, table } from "./shared.ts";

const user = (count: number) => `(array(select id from auth.users order by id limit ${count}))[1 + n % ${count}]`;

/** Three tables more with so many rows each; imports, leads, calls and call_logs hang from one another, as tables do. */
const otherTables = (rows: number) => `
  insert into public.calls (user_id, started_at) select ${user(60)}, now() from generate_series(1, ${rows}) as n;
  insert into public.leads (user_id, full_name, phone_number)
  select ${user(60)}, 'Lead ' || n, '+1555' || n from generate_series(1, ${rows}) as n;
  insert into public.imports (user_id, file_name) select ${
  user(60)
}, 'file ' || n from generate_series(1, ${rows}) as n;
`;

/** Seconds that the backfill of all tables takes with so many sessions. */
async function measureSessions(server: PostgresServer, sessions: number): Promise<number> {
  const name = `bench_sessions_${sessions}`;
  const url = await createDatabase(server.port, name, "columns");
  const sql = connect(url);
  await sql`set statement_timeout = 0`;
  const over = new AbortController();
  const helpers = startWorkers(sessions - 1, url, over.signal, (reason) => say(`  ${reason}`));
  const start = performance.now();
  await runLoops(sql, "_backfill_org_id_from_user_id.sql");
  const seconds = (performance.now() - start) / 1000;
  over.abort();
  await helpers;
  const [left] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  if (left?.["rows"] !== 0) throw new Error(`${left?.["rows"]} rows without organization after the backfill`);
  await sql.end();
  await dropDatabase(server.port, name);
  return seconds;
}

/** The medians of alternating runs with one session and with two, and how many times the first is the second. */
async function compare(name: string, server: PostgresServer): Promise<string[]> {
  const seconds: { one: number[]; two: number[] } = { one: [], two: [] };
  for (let run = 1; run <= runs; run++) {
    seconds.one.push(await measureSessions(server, 1));
    seconds.two.push(await measureSessions(server, 2));
    say(`  ${name}, run ${run} of ${runs}: ${seconds.one.at(-1)?.toFixed(1)} s, ${seconds.two.at(-1)?.toFixed(1)} s`);
  }
  const [one, two] = [median(seconds.one), median(seconds.two)];
  return [name, `${one.toFixed(1)} s`, `${two.toFixed(1)} s`, `${(one / two).toFixed(2)} ×`];
}

async function measure(server: PostgresServer, folder: string, rows: number): Promise<string> {
  await prepareApplication(server, folder, rows);
  await prepareBackfill(server, join(folder, "one"));
  const lines = [await compare("one large table", server)];
  await dropDatabase(server.port, "columns");
  await dropDatabase(server.port, "before");

  await prepareApplication(server, join(folder, "four"), rows / 4);
  const sql = connect(server.url({ database: "before" }));
  await sql`set statement_timeout = 0`;
  await sql.unsafe(otherTables(rows / 4)).simple();
  await sql`vacuum (freeze, analyze)`;
  await sql.end();
  await prepareBackfill(server, join(folder, "columns"));
  lines.push(await compare("four large tables", server));
  return `The mapped backfill of all tables, ${formatCount(rows)} rows in the large ones:\n\n` +
    markdown(["", "one session", "two sessions", "ratio"], lines);
}

const rows = readCount("rows", 1_000_000, 1000, 1_000_000_000);
if (rows !== undefined) await runBench(serverSettings, (server, folder) => measure(server, folder, rows));
