import type { Sql } from "postgres";

/**
 * Describes everything that migrations define in the application's schemas and in tenancy, one line an object, in an order
 * of its own: the same schema gives the same lines however it came about.
 */
export async function describeSchema(sql: Sql): Promise<string[]> {
  const rows = await sql<{ line: string }[]>`
    with namespaces as (
      select oid, nspname, nspacl, nspowner
      from pg_namespace
      where nspname !~ '^pg_'
        and nspname not in ('information_schema', 'auth', 'extensions', 'supabase_migrations')
    ),
    relations as (
      select pg_class.*
      from pg_class
      where relnamespace in (select oid from namespaces)
    )
    select format('schema %I owner %s acl %s', nspname, nspowner::regrole, nspacl) as line
    from namespaces
    union all
    select format(
      'relation %s kind %s owner %s rls %s/%s options %s acl %s comment %s',
      oid::regclass, relkind, relowner::regrole, relrowsecurity, relforcerowsecurity, reloptions,
      (select array_agg(item::text order by item::text) from unnest(relacl) as item), obj_description(oid, 'pg_class')
    )
    from relations
    where relkind in ('r', 'p', 'f', 'v', 'm', 'S')
    union all
    select format(
      'column %s.%I %s not null %s default %s identity %s generated %s comment %s',
      attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
      attidentity, attgenerated, col_description(attrelid, attnum)
    )
    from pg_attribute
    join relations on relations.oid = attrelid
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'f', 'v', 'm')
    union all
    select format('view %s as %s', oid::regclass, pg_get_viewdef(oid))
    from relations
    where relkind in ('v', 'm')
    union all
    select format('constraint %I on %s %s valid %s', conname, conrelid::regclass, pg_get_constraintdef(pg_constraint.oid), convalidated)
    from pg_constraint
    where conrelid in (select oid from relations)
    union all
    select format('index %s valid %s', pg_get_indexdef(indexrelid), indisvalid)
    from pg_index
    where indrelid in (select oid from relations)
    union all
    select format('trigger %s enabled %s', pg_get_triggerdef(pg_trigger.oid), tgenabled)
    from pg_trigger
    where tgrelid in (select oid from relations) and not tgisinternal
    union all
    select format('policy %I on %s %s %s using %s check %s', polname, polrelid::regclass, polcmd, polpermissive,
      pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    from pg_policy
    where polrelid in (select oid from relations)
    union all
    select format(
      'function %s acl %s comment %s',
      pg_get_functiondef(pg_proc.oid),
      (select array_agg(item::text order by item::text) from unnest(proacl) as item),
      obj_description(pg_proc.oid, 'pg_proc')
    )
    from pg_proc
    where pronamespace in (select oid from namespaces)
  `;
  return rows.map((row) => row.line).sort();
}
