begin;
set local role postgres;
set local search_path = public, extensions;
select plan(5);

create function pg_temp.our_functions()
returns table (routine regprocedure, owner_rights boolean)
language sql
as $function$
    select
        pg_proc.oid::regprocedure,
        pg_proc.prosecdef
    from pg_proc
    where pg_proc.pronamespace = 'tenancy'::regnamespace
        or pg_proc.oid = 'public.auth_org_id()'::regprocedure
$function$;

select is_empty(
    $$
        select distinct
            role,
            pg_class.oid::regclass
        from pg_class
        join pg_attribute
            on attrelid = pg_class.oid
            and attnum > 0
            and not attisdropped
        cross join unnest(array['anon', 'authenticated', 'service_role']) as role
        where relnamespace = 'tenancy'::regnamespace
            and relkind in ('r', 'p', 'v', 'm', 'f')
            and has_column_privilege(role, pg_class.oid, attnum, 'select')
    $$,
    'nothing of tenancy would be in a GraphQL schema, not by one column'
);
select is_empty(
    $$
        select
            role,
            pg_class.oid::regclass
        from pg_class
        cross join unnest(array['anon', 'authenticated', 'service_role']) as role
        where relnamespace = 'tenancy'::regnamespace
            and case relkind when 'S' then has_sequence_privilege(role, pg_class.oid, 'usage, select, update') end
    $$,
    'no sequence of it can be read or moved'
);
select is_empty(
    $$
        select
            role,
            routine
        from pg_temp.our_functions()
        cross join unnest(array['anon', 'authenticated', 'service_role']) as role
        where owner_rights
            and has_function_privilege(role, routine::oid, 'execute')
    $$,
    'no function that runs with its owner''s rights can be called through the API, whichever schemas that exposes'
);
select is_empty(
    $$
        select
            nspname,
            defaclobjtype,
            item
        from pg_default_acl
        join pg_namespace
            on pg_namespace.oid = defaclnamespace
        cross join unnest(defaclacl) as item
        where nspname = 'tenancy'
            and item::text ~ '^(|anon|authenticated|service_role)='
    $$,
    'what is added to tenancy later is granted to nobody'
);
select is_empty(
    $$
        select
            polrelid::regclass,
            polname
        from pg_policy
        join pg_class
            on pg_class.oid = polrelid
        where coalesce(pg_get_expr(polqual, polrelid), '') || coalesce(pg_get_expr(polwithcheck, polrelid), '') ~ 'auth_org_id'
            and relnamespace in (
                select pg_namespace.oid
                from tenancy.settings
                join pg_namespace
                    on nspname = any (platform_schemas)
            )
    $$,
    'and no policy of ours is on a table of the platform'
);

select * from finish();
rollback;
