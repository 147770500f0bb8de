import type { Sql } from "postgres";

/** What of the database a role can name, read from the catalog: nothing here knows an application. */

export interface Column {
  name: string;
  type: string;
  insertable: boolean;
  updatable: boolean;
}
export interface Relation {
  /** Qualified and quoted. */
  name: string;
  kind: "table" | "view";
  /** The org-scoped table that it is, or is a partition of. */
  root: string | null;
  /** The org-scoped tables that a view reads directly. */
  bases: string[];
  columns: Column[];
  /** Those that the role may read, in order. */
  readable: string[];
  /** The columns of its first unique key. */
  key: string[];
  insertable: boolean;
  updatable: boolean;
  deletable: boolean;
}
export interface Callable {
  name: string;
  /** Its name with the types of its arguments. */
  signature: string;
  isProcedure: boolean;
  isVariadic: boolean;
  types: ArgumentType[];
}
export interface ArgumentType {
  name: string;
  /** Of an enum, its first label. */
  label: string | null;
  /** Of a row type, its table. */
  table: string | null;
}

/** Schemas without those of PostgreSQL; what belongs to an extension is left out besides. */
const isOfTheApplication = (relation: string, catalog: string) => `
  nspname not in ('pg_catalog', 'information_schema')
  and nspname !~ '^pg_(toast|temp)'
  and not exists (
    select from pg_depend where classid = '${catalog}'::regclass and objid = ${relation} and deptype = 'e'
  )
`;

/** The roles that a request can come as. service_role, which passes every policy, is not one of them. */
export async function readRoles(sql: Sql): Promise<string[]> {
  const roles = await sql<{ name: string }[]>`
    select rolname as name
    from pg_roles
    where pg_has_role('authenticator', oid, 'member')
      and rolname not in ('authenticator', 'service_role')
    order by rolname
  `;
  return roles.map(({ name }) => name);
}

/** Every table, partition, view and materialized view that the role may touch in any way. */
export async function readRelations(sql: Sql, role: string): Promise<Relation[]> {
  return [
    ...await sql.unsafe<Relation[]>(
      `
      select
        format('%I.%I', nspname, pg_class.relname) as name,
        case when pg_class.relkind in ('v', 'm') then 'view' else 'table' end as kind,
        (
          select qualified_name from tenancy.application_tables where relation = org_id_columns.root
        ) as root,
        array(
          select distinct org_scoped.qualified_name
          from pg_rewrite
          join pg_depend as dependency
            on dependency.classid = 'pg_rewrite'::regclass
            and dependency.objid = pg_rewrite.oid
            and dependency.refclassid = 'pg_class'::regclass
          join tenancy.org_id_columns as org_scoped on org_scoped.relation = dependency.refobjid
          where ev_class = pg_class.oid and pg_class.relkind in ('v', 'm')
        ) as bases,
        (
          select json_agg(json_build_object(
            'name', attname,
            'type', format_type(atttypid, atttypmod),
            'insertable', attgenerated = '' and has_column_privilege($1, attrelid, attnum, 'insert'),
            'updatable', attgenerated = '' and attidentity <> 'a' and has_column_privilege($1, attrelid, attnum, 'update')
          ) order by attnum)
          from pg_attribute
          where attrelid = pg_class.oid and attnum > 0 and not attisdropped
        ) as columns,
        array(
          select attname::text
          from pg_attribute
          where attrelid = pg_class.oid and attnum > 0 and not attisdropped
            and has_column_privilege($1, attrelid, attnum, 'select')
          order by attnum
        ) as readable,
        array(
          select attname::text
          from pg_attribute
          where attrelid = pg_class.oid and attnum = any (
            coalesce((
              select indkey::smallint[]
              from pg_index
              where indrelid = pg_class.oid and indisunique and indpred is null and indexprs is null
              order by indisprimary desc, indexrelid
              limit 1
            ), '{}')
          )
        ) as key,
        has_any_column_privilege($1, pg_class.oid, 'insert') as insertable,
        has_any_column_privilege($1, pg_class.oid, 'update') as updatable,
        has_table_privilege($1, pg_class.oid, 'delete') as deletable
      from pg_class
      join pg_namespace on pg_namespace.oid = pg_class.relnamespace
      left join tenancy.org_id_columns on org_id_columns.relation = pg_class.oid
      where pg_class.relkind in ('r', 'p', 'v', 'm', 'f')
        and ${isOfTheApplication("pg_class.oid", "pg_class")}
        and has_schema_privilege($1, pg_class.relnamespace, 'usage')
        and (
          has_any_column_privilege($1, pg_class.oid, 'select, insert, update')
          or has_table_privilege($1, pg_class.oid, 'delete')
        )
      order by 1
    `,
      [role],
    ),
  ];
}

/** Every function and procedure that the role may call. Triggers' cannot be called; they are reached by writing. */
export async function readCallables(sql: Sql, role: string): Promise<Callable[]> {
  return [
    ...await sql.unsafe<Callable[]>(
      `
      select
        format('%I.%I', nspname, proname) as name,
        format('%I.%I(%s)', nspname, proname, oidvectortypes(proargtypes)) as signature,
        prokind = 'p' as "isProcedure",
        provariadic <> 0 as "isVariadic",
        coalesce((
          select json_agg(json_build_object(
            'name', format_type(argument.type, null),
            'label', (select enumlabel from pg_enum where enumtypid = argument.type order by enumsortorder limit 1),
            'table', (
              select format('%I.%I', namespace.nspname, class.relname)
              from pg_type
              join pg_class as class on class.oid = typrelid
              join pg_namespace as namespace on namespace.oid = class.relnamespace
              where pg_type.oid = argument.type
            )
          ) order by argument.position)
          from unnest(proargtypes) with ordinality as argument (type, position)
        ), '[]') as types
      from pg_proc
      join pg_namespace on pg_namespace.oid = pronamespace
      where prokind in ('f', 'p')
        and prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
        and ${isOfTheApplication("pg_proc.oid", "pg_proc")}
        and has_schema_privilege($1, pronamespace, 'usage')
        and has_function_privilege($1, pg_proc.oid, 'execute')
      order by 2
    `,
      [role],
    ),
  ];
}

/** The org-scoped tables, qualified and quoted. */
export async function readTables(sql: Sql): Promise<string[]> {
  const tables = await sql<{ name: string }[]>`
    select application_tables.qualified_name as name
    from tenancy.org_scoped_tables
    join tenancy.application_tables on application_tables.relation = org_scoped_tables.relation
    order by 1
  `;
  return tables.map(({ name }) => name);
}
