/** The application while it is being migrated: writers on several tables, and a record of what they did, kept by triggers. */
import type { Sql } from "postgres";
import { connect } from "../local/databases.ts";
import { createRandom, type Random } from "./random.ts";

export interface Traffic {
  /** Ends the writers; resolves to what they did and met. */
  stop(): Promise<TrafficReport>;
}

export interface TrafficReport {
  transactions: number;
  /** Errors that the plan calls for: a row without organization, once that is refused. */
  refusals: number;
  /** Every other error. */
  errors: string[];
}

/** A row without organization was refused: what the plan calls for, from phase 4 on. */
class Refused extends Error {}

/** The application's trigger copied a row that has no organization yet into the audit table, which refuses it by now. */
function isRefusedCopy(error: unknown): boolean {
  const { code, table_name: table, message } = error as { code?: string; table_name?: string; message: string };
  return (code === "23502" || code === "23514") && table === "compliance_audit_logs" && message.includes("org_id");
}

/** The tables that the writers write, and that are on record. */
const tables = ["calls", "leads", "call_logs", "call_tracking", "imports"];

/** The row of the record in the list of tables. */
export const recordRow = "    ('watch', 'record', 'excluded', null, 'a test'),\n";

/**
 * Keeps a copy of each row as the application wrote it, without org_id. The backfill fires no trigger, so what it does
 * besides org_id shows as a difference between the rows and the record.
 */
export async function keepRecord(sql: Sql): Promise<void> {
  await sql.unsafe(`
    create schema watch;
    create table watch.record (table_name text, id uuid, row jsonb, primary key (table_name, id));
    create function watch.note() returns trigger language plpgsql as $$
    begin
      if tg_op = 'DELETE' then
        delete from watch.record where table_name = tg_table_name and id = old.id;
      else
        insert into watch.record values (tg_table_name, new.id, to_jsonb(new) - 'org_id')
        on conflict (table_name, id) do update set row = excluded.row;
      end if;
      return null;
    end $$;
  `).simple();
  for (const table of tables) {
    await sql.unsafe(`
      insert into watch.record select '${table}', id, to_jsonb(row) - 'org_id' from public.${table} as row;
      create trigger zzz_note after insert or update or delete on public.${table} for each row execute function watch.note();
    `).simple();
  }
}

/** Rows that are lost, extra, or other than on record, as one line each. */
export async function differencesFromRecord(sql: Sql): Promise<string[]> {
  const differences: string[] = [];
  for (const table of tables) {
    const rows = await sql`
      select coalesce(record.id, actual.id) as id, record.row as recorded, to_jsonb(actual) - 'org_id' as found
      from (select * from watch.record where table_name = ${table}) as record
      full join ${sql(`public.${table}`)} as actual on actual.id = record.id
      where record.row is distinct from to_jsonb(actual) - 'org_id'
    `;
    for (const row of rows) {
      differences.push(
        `${table} ${row["id"]}: ${JSON.stringify(row["recorded"])} became ${JSON.stringify(row["found"])}`,
      );
    }
  }
  return differences;
}

/**
 * Starts writers that insert, with and without org_id, update, delete and select, one statement or several tables a
 * transaction in any order, until they are stopped. Waiting for a lock for more than two seconds counts as an error.
 */
export function startTraffic(url: string, options: { writers: number; seed: number }): Traffic {
  const report: TrafficReport = { transactions: 0, refusals: 0, errors: [] };
  let stopped = false;
  const writers = Array.from({ length: options.writers }, async (_, number) => {
    const sql = connect(url);
    const random = createRandom(options.seed + number);
    try {
      await sql`set lock_timeout = '2s'`;
      const writer = await createWriter(sql, random, number, options.writers);
      while (!stopped) {
        try {
          await writer();
          report.transactions++;
        } catch (error) {
          const { code, message } = error as { code?: string; message: string };
          if (error instanceof Refused || isRefusedCopy(error)) report.refusals++;
          else report.errors.push(`${code} ${message}`);
        }
      }
    } finally {
      await sql.end({ timeout: 5 });
    }
  });
  return {
    stop: async () => {
      stopped = true;
      await Promise.all(writers);
      return report;
    },
  };
}

/** What one writer knows: its users, the calls that it may reference, and the rows of each table that are its own. */
interface Writer {
  random: Random;
  users: string[];
  parents: string[];
  mine: Record<string, string[]>;
}

/** One transaction of one writer. Each writer changes and deletes only rows that it made, so none waits for another. */
async function createWriter(sql: Sql, random: Random, number: number, writers: number): Promise<() => Promise<void>> {
  const users = (await sql`select id from auth.users order by id`).map((row) => row["id"] as string);
  const parents = (await sql`select id from public.calls order by id limit 500`).map((row) => row["id"] as string);
  const mine: Writer["mine"] = {};
  for (const table of tables) mine[table] = await readShare(sql, table, users, number, writers);
  const writer: Writer = { random, users, parents, mine };
  return async () => {
    const touched = random.shuffle(tables).slice(0, 1 + random.below(3));
    const before = Object.fromEntries(tables.map((table) => [table, [...(mine[table] ?? [])]]));
    try {
      await sql.begin(async (transaction) => {
        for (const table of touched) await change(transaction as unknown as Sql, writer, table);
      });
    } catch (error) {
      Object.assign(mine, before);
      throw error;
    }
  };
}

/**
 * The writer's share of the rows that are there. Not those of users who are gone: what the audit trigger copies from a lead
 * of theirs has the organization of the lead's campaign, which no rule for the audit table alone could tell. Nor the imports
 * of such leads, whose deletion changes them.
 */
async function readShare(
  sql: Sql,
  table: string,
  users: string[],
  number: number,
  writers: number,
): Promise<string[]> {
  const rows = await sql`
    select id
    from ${sql(table)} as row
    where abs(hashtext(id::text) % ${writers}) = ${number}
      and coalesce(to_jsonb(row) ->> 'user_id' = any(${users}), true)
      and not exists (
        select from public.leads
        where ${table} = 'imports' and leads.import_id = row.id and leads.user_id::text <> all(${users})
      )
    order by id
    limit 200
  `;
  return rows.map((row) => row["id"] as string);
}

async function insert(transaction: Sql, { random, users, parents, mine }: Writer, table: string): Promise<void> {
  const id = random.uuid();
  const owner = random.pick(users);
  const values: Record<string, Record<string, string>> = {
    calls: { user_id: owner },
    leads: { user_id: owner, full_name: "Lead", phone_number: "+1555" },
    call_logs: { user_id: owner, phone_number: "+1555" },
    call_tracking: { call_id: random.pick(parents), event: "ring" },
    imports: { user_id: owner, file_name: "leads.csv" },
  };
  const row: Record<string, string> = { id, ...values[table] };
  // The application sends org_id as soon as there is one to send, except for some of its code.
  if (random.below(10) > 0 && (await hasOrgId(transaction, table))) {
    const [organization] = row["call_id"]
      ? await transaction`select org_id from public.calls where id = ${row["call_id"]}`
      : await transaction`select tenancy.org_of(${owner}) as org_id`;
    if (organization?.["org_id"]) row["org_id"] = organization["org_id"] as string;
  }
  try {
    await transaction`insert into ${transaction(`public.${table}`)} ${transaction(row)}`;
  } catch (error) {
    const { code } = error as { code?: string };
    const refused = !row["org_id"] && (code === "23502" || code === "23514");
    throw refused ? new Refused() : error;
  }
  mine[table]?.push(id);
}

/** Inserts, updates, deletes or reads a row of the writer's. */
async function change(transaction: Sql, writer: Writer, table: string): Promise<void> {
  const { random, mine } = writer;
  const ids = mine[table] ?? [];
  if (ids.length === 0) return await insert(transaction, writer, table);
  const id = random.pick(ids);
  switch (random.below(4)) {
    case 0:
      await insert(transaction, writer, table);
      break;
    case 1:
      await transaction.unsafe(`update public.${table} set ${changes[table]} where id = '${id}'`);
      break;
    case 2:
      if (table === "calls") break;
      await transaction`delete from ${transaction(`public.${table}`)} where id = ${id}`;
      mine[table] = ids.filter((other) => other !== id);
      break;
    default:
      await transaction`select count(*) from ${transaction(`public.${table}`)} where id = ${id}`;
  }
}

/** What the application changes in a row of each table; it never changes an owner or a parent to another organization's. */
const changes: Record<string, string> = {
  calls: "status = 'completed', duration_seconds = coalesce(duration_seconds, 0) + 1",
  leads: "status = 'contacted', tags = tags || 'seen'::text",
  call_logs: "outcome = 'answered', notes = coalesce(notes, '') || 'x'",
  call_tracking: "payload = payload || '{\"seen\": true}'",
  imports: "row_count = row_count + 1",
};

async function hasOrgId(sql: Sql, table: string): Promise<boolean> {
  const [row] = await sql`
    select
      exists (
        select from pg_attribute where attrelid = ${`public.${table}`}::regclass and attname = 'org_id' and not attisdropped
      ) and (
        ${table} <> 'call_tracking'
        or exists (select from pg_attribute where attrelid = 'public.calls'::regclass and attname = 'org_id' and not attisdropped)
      ) as has_org_id
  `;
  return row?.["has_org_id"] === true;
}
