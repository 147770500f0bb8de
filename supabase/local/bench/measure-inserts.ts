import type { Sql } from "postgres";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { median } from "./print.ts";
import { defaultOrgId, repeatParts, table } from "./shared.ts";

const kinds = ["without", "with"] as const;
type Filler = (typeof kinds)[number];

/** Microseconds that a row takes whose org_id is sent; the ratio is the median of those of the rounds, each taken within a moment. */
export type InsertCost = Record<Filler, number> & { ratio: number };

const rounds = 40;

const ways = {
  /** One statement with all rows. */
  together: (target: string, rows: number) => `
    insert into ${target} (user_id, phone_number, outcome, notes, org_id)
    select md5((n % 1000)::text)::uuid, '+1555' || n, 'no answer', repeat('x', 60), '${defaultOrgId}' from generate_series(1, ${rows}) as n
  `,
  /** A statement per row. */
  apart: (target: string, rows: number) => `
    do $$ begin
      for n in 1..${rows} loop
        insert into ${target} (user_id, phone_number, outcome, notes, org_id)
        values (md5((n % 1000)::text)::uuid, '+1555' || n, 'no answer', repeat('x', 60), '${defaultOrgId}');
      end loop;
    end $$
  `,
};

/** What the filler costs an insert that sends org_id, into the table as the push leaves it: with one statement, and a statement per row. */
export async function measureInserts(
  server: PostgresServer,
  rows: number,
): Promise<Record<keyof typeof ways, InsertCost>> {
  const url = await createDatabase(server.port, "bench_inserts", "columns");
  const sql = connect(url);
  await sql`set statement_timeout = 0`;
  for (const kind of kinds) await prepareTable(sql, kind);
  const costs = { together: await compare(sql, ways.together, rows), apart: await compare(sql, ways.apart, rows) };
  const [filled] = await sql`select sum(rows)::integer as rows from tenancy.filled_rows`;
  if (filled?.["rows"] !== 0) throw new Error(`${filled?.["rows"]} rows were filled that were to have org_id`);
  await sql.end();
  await dropDatabase(server.port, "bench_inserts");
  return costs;
}

/** An empty copy of the table with all of its parts, except that one has no filler. */
async function prepareTable(sql: Sql, kind: Filler): Promise<void> {
  const name = `bench_${kind}`;
  await sql.unsafe(`create table public.${name} (like public.${table} including all) with (autovacuum_enabled = off)`);
  await sql`
    insert into tenancy.registry (schema_name, table_name, scope, priority) values ('public', ${name}, 'org', 'secondary')
  `;
  await sql.unsafe(`create index idx_${name}_org_id on public.${name} (org_id)`);
  const parts = ["default", "foreign_key", "foreign_key_valid", "check", "check_valid", "not_null", "guard"];
  if (kind === "with") {
    await sql`select org_migration.prepare_fillers(${`public.${name}`}::regclass)`;
    parts.push("filler");
  }
  await repeatParts(sql, `public.${name}`, parts);
}

async function compare(sql: Sql, way: (target: string, rows: number) => string, rows: number): Promise<InsertCost> {
  const times: Record<Filler, number[]> = { without: [], with: [] };
  const ofRound = Math.ceil(rows / rounds);
  for (let round = 0; round <= rounds; round++) {
    for (const kind of round % 2 === 0 ? kinds : [...kinds].reverse()) {
      await sql.unsafe(`truncate public.bench_${kind}`);
      const start = performance.now();
      await sql.unsafe(way(`public.bench_${kind}`, ofRound));
      // The first round warms up.
      if (round > 0) times[kind].push(((performance.now() - start) * 1000) / ofRound);
    }
  }
  const ratios = times.with.map((time, round) => time / (times.without[round] ?? 0));
  return { without: median(times.without), with: median(times.with), ratio: median(ratios) };
}
