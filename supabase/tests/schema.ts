import type { ISql } from "postgres";

/**
 * Describes everything that migrations define in the application's schemas and in ours, one entry per object, sorted: the
 * same schema gives the same entries however it came about. Of a function or view it has everything except the body, and of
 * that the md5. PostgreSQL's own defaults are left out. Of the platform's schema auth it has what an application can attach:
 * triggers, rules and policies. What the cluster's databases share (roles, tablespaces, subscriptions) is not described, nor
 * are members of extensions.
 */
export async function describeSchema(sql: ISql): Promise<string[]> {
  const sorted = (acl: string) =>
    sql`(
    select array_agg(item::text order by item::text) from unnest(${sql(acl)}) as item
  )`;
  const rows = await sql<{ line: string }[]>`
    with namespaces as (
      select oid, nspname, nspacl, nspowner
      from pg_namespace
      where nspname !~ '^pg_'
        and nspname not in ('information_schema', 'auth', 'extensions', 'supabase_migrations')
    ),
    members as (
      select classid, objid
      from pg_depend
      where deptype = 'e'
    ),
    relations as (
      select pg_class.*
      from pg_class
      where relnamespace in (select oid from namespaces)
        and not exists (select from members where classid = 'pg_class'::regclass and objid = pg_class.oid)
    ),
    relations_to_hang_on as (
      select oid from relations
      union all
      select oid from pg_class where relnamespace = to_regnamespace('auth')
    ),
    functions as (
      select pg_proc.*
      from pg_proc
      where pronamespace in (select oid from namespaces)
        and not exists (select from members where classid = 'pg_proc'::regclass and objid = pg_proc.oid)
    )

    -- Schemas, relations and columns
    select concat_ws(' ', 'schema', quote_ident(nspname), 'owner', nspowner::regrole, 'acl', ${
    sorted("nspacl")
  }) as line
    from namespaces
    union all
    select concat_ws(
      ' ', 'relation', relations.oid::regclass, 'kind', relations.relkind, 'owner', relations.relowner::regrole,
      case when relations.relpersistence <> 'p' then 'persistence ' || relations.relpersistence::text end,
      case when relations.relrowsecurity then 'row security' end,
      case when relations.relforcerowsecurity then 'forced' end,
      case when relations.relreplident not in ('d', 'n') then 'replica identity ' || relations.relreplident::text end,
      case when relations.relkind = 'm' and not relations.relispopulated then 'not populated' end,
      'access ' || nullif(amname, 'heap')::text,
      'tablespace ' || spcname::text,
      'of ' || nullif(relations.reloftype, 0)::regtype::text,
      'options ' || relations.reloptions::text,
      'toast ' || toast.reloptions::text,
      'acl ' || ${sorted("relations.relacl")}::text
    )
    from relations
    left join pg_class as toast on toast.oid = relations.reltoastrelid
    left join pg_am on pg_am.oid = relations.relam
    left join pg_tablespace on pg_tablespace.oid = relations.reltablespace
    where relations.relkind in ('r', 'p', 'f', 'v', 'm', 'S', 'c')
    union all
    select concat_ws(
      ' ', 'column', attrelid::regclass::text || '.' || quote_ident(attname), format_type(atttypid, atttypmod),
      'at ' || rank() over (partition by attrelid order by attnum),
      case when attnotnull then 'not null' end,
      'default ' || pg_get_expr(adbin, adrelid),
      'identity ' || nullif(attidentity, '')::text,
      'generated ' || nullif(attgenerated, '')::text,
      case when attcollation <> typcollation then 'collation ' || attcollation::regcollation::text end,
      case when attstorage <> typstorage then 'storage ' || attstorage::text end,
      'compression ' || nullif(attcompression, '')::text,
      'statistics ' || nullif(attstattarget, -1),
      'options ' || attoptions::text,
      'inherited ' || nullif(attinhcount, 0) || case when attislocal then ' and its own' else '' end,
      'foreign options ' || attfdwoptions::text,
      'acl ' || ${sorted("attacl")}::text
    )
    from pg_attribute
    join relations on relations.oid = attrelid
    join pg_type on pg_type.oid = atttypid
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'f', 'v', 'm', 'c')
    union all
    select format('view %s body %s', oid::regclass, md5(pg_get_viewdef(oid)))
    from relations
    where relkind in ('v', 'm')
    union all
    select format('partition key of %s: %s', oid::regclass, pg_get_partkeydef(oid))
    from relations
    where relkind = 'p'
    union all
    select concat_ws(
      ' ', 'child', inhrelid::regclass, 'of', inhparent::regclass, 'number', inhseqno,
      pg_get_expr(relpartbound, inhrelid),
      case when inhdetachpending then 'detach pending' end
    )
    from pg_inherits
    join relations on relations.oid = inhrelid
    union all
    select concat_ws(' ', 'foreign table', ftrelid::regclass, 'server', srvname, ftoptions)
    from pg_foreign_table
    join pg_foreign_server on pg_foreign_server.oid = ftserver
    where ftrelid in (select oid from relations)
    union all
    select concat_ws(
      ' ', 'sequence', seqrelid::regclass, seqtypid::regtype, 'start', seqstart, 'increment', seqincrement,
      'from', seqmin, 'to', seqmax, 'cache', seqcache,
      case when seqcycle then 'cycle' end,
      (
        select format('owned by %s.%I', attrelid::regclass, attname)
        from pg_depend
        join pg_attribute on attrelid = refobjid and attnum = refobjsubid
        where classid = 'pg_class'::regclass and objid = seqrelid and deptype in ('a', 'i')
          and refclassid = 'pg_class'::regclass and refobjsubid > 0
      )
    )
    from pg_sequence
    where seqrelid in (select oid from relations)

    -- What hangs on relations
    union all
    select concat_ws(
      ' ', 'constraint', quote_ident(conname), 'on', nullif(conrelid, 0)::regclass, nullif(contypid, 0)::regtype,
      pg_get_constraintdef(pg_constraint.oid),
      'inherited ' || nullif(coninhcount, 0) || case when conislocal then ' and its own' else '' end,
      'of ' || (select parent.conrelid::regclass::text from pg_constraint as parent where parent.oid = pg_constraint.conparentid)
    )
    from pg_constraint
    where connamespace in (select oid from namespaces)
      and (conrelid = 0 or conrelid in (select oid from relations))
    union all
    select concat_ws(
      ' ', 'index', pg_get_indexdef(indexrelid),
      case when not indisvalid then 'not valid' end,
      case when not (indisready and indislive) then 'not ready' end,
      case when indisclustered then 'clustered' end,
      case when indisreplident then 'replica identity' end,
      'tablespace ' || spcname::text
    )
    from pg_index
    join relations on relations.oid = indexrelid
    left join pg_tablespace on pg_tablespace.oid = reltablespace
    union all
    select concat_ws(
      ' ', 'trigger', pg_get_triggerdef(pg_trigger.oid), 'enabled', tgenabled,
      'of ' || (select parent.tgrelid::regclass::text from pg_trigger as parent where parent.oid = pg_trigger.tgparentid)
    )
    from pg_trigger
    where tgrelid in (select oid from relations_to_hang_on) and not tgisinternal
    union all
    select format('trigger of constraint %I on %s: %s enabled %s', conname, tgrelid::regclass, tgfoid::regproc, tgenabled)
    from pg_trigger
    join pg_constraint on pg_constraint.oid = tgconstraint
    where tgrelid in (select oid from relations_to_hang_on) and tgisinternal and tgenabled <> 'O'
    union all
    select format('rule %s enabled %s', pg_get_ruledef(oid), ev_enabled)
    from pg_rewrite
    where ev_class in (select oid from relations_to_hang_on) and rulename <> '_RETURN'
    union all
    select concat_ws(
      ' ', 'policy', quote_ident(polname), 'on', polrelid::regclass,
      case when not polpermissive then 'restrictive' end,
      'for', polcmd,
      'to', (select array_agg(case role when 0 then 'public' else pg_get_userbyid(role) end order by 1) from unnest(polroles) as role),
      'using ' || pg_get_expr(polqual, polrelid),
      'check ' || pg_get_expr(polwithcheck, polrelid)
    )
    from pg_policy
    where polrelid in (select oid from relations_to_hang_on)
    union all
    select concat_ws(' ', 'statistics', pg_get_statisticsobjdef(oid), 'owner', stxowner::regrole, 'target ' || nullif(stxstattarget, -1))
    from pg_statistic_ext
    where stxnamespace in (select oid from namespaces)

    -- Functions and types
    union all
    select concat_ws(
      ' ',
      case prokind when 'a' then 'aggregate' when 'p' then 'procedure' when 'w' then 'window function' else 'function' end,
      format('%I.%I(%s)', nspname, proname, pg_get_function_arguments(functions.oid)),
      'returns ' || pg_get_function_result(functions.oid),
      lanname,
      case provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
      case when proleakproof then 'leakproof' end,
      case when proisstrict then 'strict' end,
      case when prosecdef then 'security definer' end,
      case proparallel when 's' then 'parallel safe' when 'r' then 'parallel restricted' end,
      case when procost <> case when lanname in ('internal', 'c') then 1 else 100 end then 'cost ' || procost end,
      case when prorows <> case when proretset then 1000 else 0 end then 'rows ' || prorows end,
      'support ' || nullif(prosupport::oid, 0)::regproc::text,
      'transforms ' || protrftypes::regtype[]::text,
      'set ' || array_to_string(proconfig, ', '),
      to_jsonb(pg_aggregate) - 'aggfnoid' - 'aggsortop',
      case prokind when 'a' then null else 'body ' || md5(concat(pg_get_function_sqlbody(functions.oid), prosrc, probin)) end,
      'owner', proowner::regrole,
      'acl ' || ${sorted("proacl")}::text
    )
    from functions
    join namespaces on namespaces.oid = pronamespace
    join pg_language on pg_language.oid = prolang
    left join pg_aggregate on aggfnoid = functions.oid
    union all
    select concat_ws(
      ' ', 'type', pg_type.oid::regtype, 'kind', typtype, 'owner', typowner::regrole,
      (select array_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = pg_type.oid),
      nullif(typbasetype, 0)::regtype,
      case when typnotnull then 'not null' end,
      'default ' || typdefault,
      (select to_jsonb(pg_range) - 'rngtypid' - 'rngmultitypid' - 'rngsubopc' from pg_range where rngtypid = pg_type.oid),
      'acl ' || ${sorted("typacl")}::text
    )
    from pg_type
    left join pg_class on pg_class.oid = typrelid
    where typnamespace in (select oid from namespaces)
      and (typrelid = 0 or relkind = 'c')
      and not exists (select from pg_type as element where element.typarray = pg_type.oid)
      and not exists (select from members where classid = 'pg_type'::regclass and objid = pg_type.oid)

    -- The database itself
    union all
    select concat_ws(' ', 'publication', quote_ident(pubname), 'owner', pubowner::regrole, to_jsonb(pg_publication) - 'oid' - 'pubname' - 'pubowner')
    from pg_publication
    union all
    select concat_ws(
      ' ', 'publication', quote_ident(pubname), 'of', prrelid::regclass,
      'columns ' || (
        select array_agg(attname order by attnum) from pg_attribute where attrelid = prrelid and attnum = any (prattrs)
      )::text,
      'where ' || pg_get_expr(prqual, prrelid)
    )
    from pg_publication_rel
    join pg_publication on pg_publication.oid = prpubid
    union all
    select format('publication %I of schema %s', pubname, pnnspid::regnamespace)
    from pg_publication_namespace
    join pg_publication on pg_publication.oid = pnpubid
    union all
    select concat_ws(
      ' ', 'event trigger', quote_ident(evtname), 'on', evtevent, 'execute', evtfoid::regprocedure, 'owner', evtowner::regrole,
      'enabled', evtenabled, evttags
    )
    from pg_event_trigger
    union all
    select concat_ws(
      ' ', 'default privileges of', defaclrole::regrole, 'in ' || nullif(defaclnamespace, 0)::regnamespace::text, 'on', defaclobjtype,
      ${sorted("defaclacl")}
    )
    from pg_default_acl
    union all
    select concat_ws(' ', 'setting of', nullif(setrole, 0)::regrole, 'in this database', setconfig)
    from pg_db_role_setting
    where setdatabase = (select oid from pg_database where datname = current_database())
    union all
    select format('extension %I version %s in %s', extname, extversion, extnamespace::regnamespace)
    from pg_extension
    union all
    select format('%s %s', object.type, object.identity)
    from (
      select 'pg_cast'::regclass as catalog, oid from pg_cast
      union all select 'pg_collation'::regclass, oid from pg_collation
      union all select 'pg_conversion'::regclass, oid from pg_conversion
      union all select 'pg_foreign_data_wrapper'::regclass, oid from pg_foreign_data_wrapper
      union all select 'pg_foreign_server'::regclass, oid from pg_foreign_server
      union all select 'pg_language'::regclass, oid from pg_language
      union all select 'pg_opclass'::regclass, oid from pg_opclass
      union all select 'pg_operator'::regclass, oid from pg_operator
      union all select 'pg_opfamily'::regclass, oid from pg_opfamily
      union all select 'pg_transform'::regclass, oid from pg_transform
      union all select 'pg_ts_config'::regclass, oid from pg_ts_config
      union all select 'pg_ts_dict'::regclass, oid from pg_ts_dict
    ) as rare
    cross join pg_identify_object(rare.catalog, rare.oid, 0) as object
    where rare.oid >= 16384
      and not exists (select from members where classid = rare.catalog and objid = rare.oid)

    -- Comments on all of them
    union all
    select format('comment on %s %s: %s', object.type, object.identity, description)
    from pg_description
    cross join pg_identify_object(classoid, objoid, objsubid) as object
    where (
        object.schema in (select nspname from namespaces)
        or (object.type = 'schema' and object.name in (select nspname from namespaces))
        or (object.schema is null and object.type not in ('schema', 'extension') and objoid >= 16384)
      )
      and not exists (select from members where classid = classoid and objid = objoid)
  `;
  return rows.map((row) => row.line).sort();
}

/**
 * The entries of a description except those of what tenancy.roll_back(1) leaves: the schemas tenancy and org_migration,
 * public.organizations and public.auth_org_id(). What another table has of them, such as a foreign key or a trigger, is not
 * left out.
 */
export function withoutRemainders(entries: string[]): string[] {
  const remainders = [
    /^(schema|relation|column|view|type|sequence) (tenancy|org_migration)\b/,
    /^(relation|column) organizations\b/,
    /^trigger .* ON (tenancy|org_migration|public\.organizations)\b.* EXECUTE FUNCTION tenancy\./,
    /^(constraint|policy) ("[^"]+"|\S+) on (tenancy\.|org_migration\.|organizations )/,
    /^index CREATE (UNIQUE )?INDEX ("[^"]+"|\S+) ON (tenancy\.|org_migration\.|public\.organizations )/,
    /^(function|procedure) (tenancy\.|org_migration\.|public\.auth_org_id\()/,
    /^default privileges of \S+ in (tenancy|org_migration) /,
    /^comment on [a-z ]+ (tenancy\b|org_migration\b|public\.organizations\b|public\.auth_org_id\()/,
  ];
  return entries.filter((entry) => !remainders.some((remainder) => remainder.test(entry)));
}

/** The same without our trigger on auth.users, which goes with the schema tenancy. */
export const ofTheApplication = (entries: string[]): string[] =>
  withoutRemainders(entries).filter((entry) => !/^trigger .* ON auth\.users .* EXECUTE FUNCTION tenancy\./.test(entry));
