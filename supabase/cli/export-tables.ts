import { createHash } from "node:crypto";
import type { TransactionSql } from "postgres";
import { copyOut } from "./copy.ts";
import type { Column, ExportedTable, Kind } from "./export-manifest.ts";

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** Makes rows read the same in every database, and refuses to read only a part of them. */
export async function prepareSession(sql: TransactionSql): Promise<void> {
  await sql.unsafe(`
    set local statement_timeout = 0;
    set local search_path = '';
    set local row_security = off;
    set local datestyle = 'ISO, YMD';
    set local intervalstyle = 'postgres';
    set local timezone = 'UTC';
    set local extra_float_digits = 1;
    set local bytea_output = 'hex';
    set local lc_monetary = 'C';
  `).simple();
}

/** The tables that an organization's rows are in, in the order in which they are to be loaded. */
export async function findTables(sql: TransactionSql, withUsers: boolean): Promise<ExportedTable[]> {
  const rows = await sql<{ name: string; only: boolean; kind: Kind; owner: string; key: string[] }[]>`
    with recursive naming (relation, attnum) as (
      -- Columns that hold an organization's id: keys of it, and of companies whose own key it is.
      select reference.relation, reference.attnums[1]
      from tenancy.references_between_tables as reference
      where reference.parent = 'public.organizations'::regclass and reference.parent_column_names = array['id']
      union
      select reference.relation, reference.attnums[1]
      from naming
      join tenancy.references_between_tables as reference
        on reference.parent = naming.relation and reference.parent_attnums = array[naming.attnum]
    ),
    candidate (relation, kind, attnum, is_unique, is_not_null, rank) as (
      select
        naming.relation, 'organization', naming.attnum,
        exists (select from tenancy.unique_columns where (unique_columns.relation, unique_columns.attnum) = (naming.relation, naming.attnum)),
        its_column.attnotnull, 0
      from naming
      join pg_attribute as its_column on its_column.attrelid = naming.relation and its_column.attnum = naming.attnum
      union all
      select owner_columns.relation, 'personal', owner_columns.attnum, owner_columns.is_unique, owner_columns.is_not_null, owner_columns.rank
      from tenancy.owner_columns
    ),
    listed (relation, kind, owner, place, position) as (
      select 'auth.users'::regclass, 'account', 'id', 1, 1 where ${withUsers}
      union all
      select 'auth.identities'::regclass, 'account', 'user_id', 1, 2 where ${withUsers}
      union all
      select 'public.organizations'::regclass, 'organization', 'id', 2, 1
      union all
      -- A row is the organization's where it is the company that the organization is, or is in it; and a user's where it is the user.
      select own.relation, own.kind, own.column_name, 3, row_number() over (order by own.kind, own.qualified_name)
      from (
        select distinct on (candidate.relation)
          candidate.relation, candidate.kind, application_tables.qualified_name, its_column.attname as column_name
        from candidate
        join tenancy.application_tables on application_tables.relation = candidate.relation and application_tables.scope = 'excluded'
        join pg_attribute as its_column on its_column.attrelid = candidate.relation and its_column.attnum = candidate.attnum
        order by
          candidate.relation,
          case
            when candidate.kind = 'organization' and candidate.is_unique then 1
            when candidate.kind = 'personal' and candidate.is_unique then 2
            when candidate.kind = 'organization' and candidate.is_not_null then 3
            when candidate.kind = 'personal' then 4
            else 5
          end,
          candidate.rank, not candidate.is_not_null, candidate.attnum
      ) as own
      union all
      select org_scoped_tables.relation, 'org-scoped', 'org_id', 4, org_scoped_tables.position from tenancy.org_scoped_tables
      union all
      select 'tenancy.memberships'::regclass, 'membership', 'org_id', 5, 1
      union all
      select 'tenancy.user_orgs'::regclass, 'membership', 'org_id', 5, 2
    )
    select
      format('%I.%I', namespace.nspname, class.relname) as name, class.relkind <> 'p' as only, listed.kind, listed.owner,
      array(
        select attribute.attname::text
        from pg_index
        join pg_attribute as attribute on attribute.attrelid = pg_index.indrelid and attribute.attnum = any (pg_index.indkey)
        where pg_index.indrelid = listed.relation and pg_index.indisprimary
        order by attribute.attnum
      ) as key
    from listed
    join pg_class as class on class.oid = listed.relation
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    order by listed.place, listed.position
  `;
  const tables: ExportedTable[] = [];
  for (const row of rows) tables.push({ ...row, columns: await readColumns(sql, row.name) });
  return tables;
}

/** A table whose rows do not come along, since no column of theirs says whose they are. */
export interface LeftOut {
  table: string;
  /** Of the tables that come along, those that it references. */
  references: string;
  reason: string;
}

/** The application's tables that are none of these. */
export async function findLeftOut(sql: TransactionSql, tables: ExportedTable[]): Promise<LeftOut[]> {
  const names = tables.map(({ name }) => name);
  const rows = await sql<LeftOut[]>`
    select
      application_tables.qualified_name as table,
      coalesce(
        (
          select string_agg(distinct format('%I.%I', namespace.nspname, class.relname), ', ')
          from tenancy.references_between_tables as reference
          join pg_class as class on class.oid = reference.parent
          join pg_namespace as namespace on namespace.oid = class.relnamespace
          where reference.relation = application_tables.relation
            and format('%I.%I', namespace.nspname, class.relname) = any (${names}::text[])
        ),
        ''
      ) as references,
      coalesce(registered_tables.reason, 'not in the list of tables') as reason
    from tenancy.application_tables
    left join tenancy.registered_tables on registered_tables.relation = application_tables.relation
    where application_tables.qualified_name <> all (${names}::text[])
    order by 1
  `;
  return [...rows];
}

/** The columns of a table, in the order of their names, as in another database they may stand in another one. */
export async function readColumns(sql: TransactionSql, table: string): Promise<Column[]> {
  const rows = await sql<Column[]>`
    select attname::text as name, format_type(atttypid, atttypmod) as type, attgenerated <> '' as generated
    from pg_attribute
    where attrelid = to_regclass(${table}) and attnum > 0 and not attisdropped
    order by attname collate "C"
  `;
  return [...rows];
}

/** The columns that are written: what is generated is not. */
export const columnList = ({ columns }: ExportedTable): string =>
  columns.filter(({ generated }) => !generated).map(({ name }) => quote(name)).join(", ");

/** What its own rows are read from. */
export const rowsOf = ({ name, only }: ExportedTable): string => `${only ? "only " : ""}${name}`;

/** The condition for a row, named so, to be the organization's. */
export function condition(
  { kind, owner }: ExportedTable,
  row: string,
  scope: { org: string; users: string[] },
): string {
  const column = `${row}.${quote(owner)}`;
  return kind === "personal" || kind === "account"
    ? `lower(${column}::text) = any (array[${scope.users.map(literal).join(", ")}]::text[])`
    : `${column} = ${literal(scope.org)}`;
}

/** Reads the organization's rows of a table, in an order that is the same in every database. */
export async function readRows(
  sql: TransactionSql,
  table: ExportedTable,
  scope: { org: string; users: string[] },
  onChunk: (chunk: Buffer) => Promise<void> | void = () => {},
): Promise<{ rows: number; sha256: string }> {
  const key = table.key.length > 0
    ? table.key
    : table.columns.filter(({ generated }) => !generated).map(({ name }) => name);
  const order = key.map((name) => `held.${quote(name)}::text collate "C"`).join(", ");
  const query = `copy (select ${columnList(table)} from ${rowsOf(table)} as held where ${
    condition(table, "held", scope)
  } order by ${order}) to stdout`;
  const hash = createHash("sha256");
  let rows = 0;
  await copyOut(sql, query, async (chunk) => {
    hash.update(chunk);
    // Each row ends with a line feed, and within one it is written as \n.
    for (const byte of chunk) if (byte === 10) rows++;
    await onChunk(chunk);
  });
  return { rows, sha256: hash.digest("hex") };
}

/** Rows of the organization that reference rows which are not there. */
export interface Missing {
  table: string;
  parent: string;
  key: string;
  rows: number;
}

/** What the exported rows reference, and does not come along or, within: is not in the database at all. */
export async function findMissing(
  sql: TransactionSql,
  tables: ExportedTable[],
  scope: { org: string; users: string[] },
  where: "in the export" | "in the database",
): Promise<Missing[]> {
  const keys = await sql<
    { table: string; partition: string | null; parent: string; key: string; present: string; matches: string }[]
  >`
    select
      format('%I.%I', child_schema.nspname, child.relname) as table,
      case
        when part.relispartition then format('%I.%I', part_schema.nspname, part.relname)
      end as partition,
      format('%I.%I', parent_schema.nspname, parent.relname) as parent,
      its.conname as key,
      (
        select string_agg(format('child.%I is not null', attribute.attname), ' and ')
        from unnest(its.conkey) as column_ (attnum)
        join pg_attribute as attribute on attribute.attrelid = its.conrelid and attribute.attnum = column_.attnum
      ) as present,
      replace(replace(tenancy.key_condition(its.oid), '{parent}', 'parent'), '{child}', 'child') as matches
    from pg_constraint as its
    join pg_class as part on part.oid = its.conrelid
    join pg_namespace as part_schema on part_schema.oid = part.relnamespace
    join pg_class as child on child.oid = coalesce(pg_partition_root(its.conrelid), its.conrelid)
    join pg_namespace as child_schema on child_schema.oid = child.relnamespace
    join pg_class as parent on parent.oid = coalesce(pg_partition_root(its.confrelid), its.confrelid)
    join pg_namespace as parent_schema on parent_schema.oid = parent.relnamespace
    where its.contype = 'f' and its.conparentid = 0
    order by 1, 3
  `;
  const missing: Missing[] = [];
  for (const { table, partition, parent, key, present, matches } of keys) {
    const child = tables.find(({ name }) => name === table);
    if (child === undefined) continue;
    const exported = where === "in the export" ? tables.find(({ name }) => name === parent) : undefined;
    const reached = exported
      ? ` and ${condition(exported, "parent", scope)}`
      : where === "in the export"
      ? " and false"
      : "";
    const [counted] = await sql.unsafe<{ rows: number }[]>(`
      select count(*)::integer as rows from ${partition ?? rowsOf(child)} as child
      where ${condition(child, "child", scope)} and ${present}
        and not exists (select from ${parent} as parent where ${matches}${reached})
    `);
    if (counted && counted.rows > 0) missing.push({ table, parent, key, rows: counted.rows });
  }
  return missing;
}
