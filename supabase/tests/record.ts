/** A record, kept by triggers, of what the application wrote, to compare the rows with. */
import type { Sql } from "postgres";

/** The row of the record in the list of tables. */
export const recordRow = "    ('watch', 'record', 'excluded', null, 'a test', null),\n";

/**
 * Keeps a copy of each row of these tables as the application wrote it, without org_id. The backfill fires no trigger, so what it
 * does besides org_id shows as a difference between the rows and the record.
 */
export async function keepRecord(sql: Sql, tables: readonly string[]): Promise<void> {
  await sql.unsafe(`
    create schema watch;
    create table watch.record (table_name text, id uuid, row jsonb, primary key (table_name, id));
    create function watch.note() returns trigger language plpgsql security definer set search_path = '' as $$
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
export async function differencesFromRecord(sql: Sql, tables: readonly string[]): Promise<string[]> {
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
