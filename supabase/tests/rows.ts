import { randomUUID } from "node:crypto";
import type { Sql } from "postgres";
import { expect } from "vitest";
import { advance, repeat } from "./steps.ts";

export type Row = Record<string, unknown>;

/** What a new row has to know of a column. */
export interface Column {
  name: string;
  type: string;
  is_identity: boolean;
  is_foreign_key: boolean;
}
export interface Table {
  relation: string;
  columns: Column[];
  /** Each unique key as the names of its columns, the primary key first. */
  keys: string[][];
}

/** Every org-scoped table, partitioned ones once. */
export async function readAllTables(sql: Sql): Promise<Table[]> {
  return await sql<Table[]>`
    select
      org_scoped_tables.relation::text as relation,
      (
        select json_agg(json_build_object(
          'name', attname,
          'type', format_type(atttypid, null),
          'is_identity', attidentity <> '',
          'is_foreign_key', exists (
            select from pg_constraint where conrelid = attrelid and contype = 'f' and attnum = any (conkey)
          )
        ) order by attnum)
        from pg_attribute
        where attrelid = org_scoped_tables.relation and attnum > 0 and not attisdropped
      ) as columns,
      coalesce((
        select json_agg(
          (
            select json_agg(attname order by position)
            from unnest(indkey::smallint[]) with ordinality as key (attnum, position)
            join pg_attribute on attrelid = indrelid and pg_attribute.attnum = key.attnum
          )
          order by indisprimary desc, indexrelid
        )
        from pg_index
        where indrelid = org_scoped_tables.relation and indisunique
      ), '[]') as keys
    from tenancy.org_scoped_tables
    order by 1
  `;
}

/** Calls a function of the loop protocol, such as tenancy.enable_least_privilege, for every org-scoped table. */
export async function callForAllTables(sql: Sql, name: string, ...others: string[]): Promise<void> {
  for (const { relation } of await readAllTables(sql)) {
    await repeat(sql, `${name}(${[`'${relation}'`, ...others].join(", ")})`);
  }
}

/** Isolates every org-scoped table, whatever speaks against it: notes all at once what tenancy.enable_org_isolation would note. */
export async function isolateAllTables(sql: Sql): Promise<void> {
  await sql`update tenancy.registry set isolated = true where scope = 'org'`;
  await advance(sql, "isolation");
}

/** The 45 org-scoped tables of the shipped application. */
export async function readTables(sql: Sql): Promise<Table[]> {
  const tables = await readAllTables(sql);
  const [registered] = await sql`select count(*)::integer as count from tenancy.registry where scope = 'org'`;
  expect(registered).toEqual({ count: 45 });
  expect(tables).toHaveLength(45);
  return [...tables];
}

/** The one table whose key is made of foreign keys alone, and a pair of its organization that is not taken. */
export const freeKeys: Record<string, (sql: Sql, orgId: string) => Promise<Row | undefined>> = {
  campaign_phone_numbers: async (sql, orgId) =>
    (await sql`
      select campaigns.id as campaign_id, user_phone_numbers.id as user_phone_number_id
      from public.campaigns
      join public.user_phone_numbers using (org_id)
      where campaigns.org_id = ${orgId}
      except
      select campaign_id, user_phone_number_id from public.campaign_phone_numbers
      limit 1
    `)[0],
};

/** For dates that no row has. */
let nextYear = 2100;

const anotherValue = (type: string, value: unknown): unknown => {
  switch (type) {
    case "uuid":
      return randomUUID();
    case "text":
      return `${value} ${randomUUID()}`;
    case "date":
      return `${nextYear++}-01-01`;
    default:
      throw new Error(`Cannot make another value of ${type}`);
  }
};

/** A row to insert: like one of the organization's, with keys of its own. */
export async function newRow(sql: Sql, { relation, columns, keys }: Table, orgId: string): Promise<Row> {
  const [like] = await sql<{ row: Row }[]>`
    select to_jsonb(row) as row from ${sql(relation)} as row where org_id = ${orgId} order by 1 limit 1
  `;
  if (!like) throw new Error(`${relation} has no row of ${orgId}`);
  const row: Row = { ...like.row, ...(await freeKeys[relation]?.(sql, orgId)) };
  for (const key of freeKeys[relation] ? [] : keys) {
    const own = columns.filter(({ name, is_foreign_key }) => key.includes(name) && !is_foreign_key).at(-1);
    if (!own) throw new Error(`${relation} has a key of foreign keys alone: ${key}`);
    if (!own.is_identity) row[own.name] = anotherValue(own.type, row[own.name]);
  }
  for (const { name } of columns.filter(({ is_identity }) => is_identity)) delete row[name];
  return row;
}

export const columnsOf = (row: Row) => Object.keys(row).map((name) => `"${name}"`).join(", ");
/** Inserts a row, identity columns apart. Returns how many rows came. */
export async function insert(sql: Sql, relation: string, row: Row, ending = ""): Promise<number> {
  const inserted = await sql.unsafe(
    `insert into ${relation} (${columnsOf(row)}) overriding user value
     select ${columnsOf(row)} from jsonb_populate_record(null::${relation}, $1::text::jsonb) ${ending}`,
    [JSON.stringify(row)],
  );
  return inserted.count;
}

/** Rows that make a table large enough for passes: more than 1000 blocks. */
export const manyCalls = (count: number) => `
  insert into public.calls (user_id, started_at)
  select (array(select id from auth.users order by id))[1 + n % 60], now() from generate_series(1, ${count}) as n
`;

export const manyCallLogs = (count: number) => `
  insert into public.call_logs (user_id, phone_number, outcome, notes)
  select (array(select id from auth.users order by id))[1 + n % 60], '+1555' || n, 'answered', repeat('x', 60) from generate_series(1, ${count}) as n
`;
