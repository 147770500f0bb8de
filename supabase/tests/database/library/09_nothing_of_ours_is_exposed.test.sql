begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);

create function pg_temp.our_functions()
returns table (routine regprocedure, owner_rights boolean)
language sql
as $function$
    select
        pg_proc.oid::regprocedure,
        pg_proc.prosecdef
    from pg_proc
    where pg_proc.pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
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
        where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and relkind in ('r', 'p', 'v', 'm', 'f')
            and has_column_privilege(role, pg_class.oid, attnum, 'select')
    $$,
    'nothing of tenancy or org_migration would be in a GraphQL schema, not by one column'
);
select is_empty(
    $$
        select
            role,
            pg_class.oid::regclass
        from pg_class
        cross join unnest(array['anon', 'authenticated', 'service_role']) as role
        where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and case relkind when 'S' then has_sequence_privilege(role, pg_class.oid, 'usage, select, update') end
    $$,
    'no sequence of theirs can be read or moved'
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
        where nspname in ('tenancy', 'org_migration')
            and item::text ~ '^(|anon|authenticated|service_role)='
    $$,
    'what is added to them later is granted to nobody'
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

create table tenancy.later (id integer);
create function tenancy.later()
returns integer
language sql
as $function$ select 1 $function$;
grant select on tenancy.later to authenticated;
set local role authenticated;
select throws_ok(
    $$ select * from tenancy.later $$,
    '42501',
    'permission denied for schema tenancy',
    'a table of tenancy that somebody grants is not to be reached even so'
);
select throws_ok(
    $$ select tenancy.later() $$,
    '42501',
    'permission denied for schema tenancy',
    'nor is a function that everyone may execute'
);
select lives_ok($$ select public.auth_org_id() $$, 'while the default of every org_id can be called');
set local role postgres;

select * from finish();
rollback;
