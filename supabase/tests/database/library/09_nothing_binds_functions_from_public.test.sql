begin;
set local role postgres;
set local search_path = public, extensions;
select plan(5);

-- What a client may create in public, or has for itself there, must not come to run as the owner of the database: everything
-- of ours was created with an empty search_path, so all that it names is what it says.
create temp view of_public as
select
    'pg_proc'::regclass as catalog,
    oid,
    oid::regprocedure::text as name
from pg_proc
where pronamespace = 'public'::regnamespace
    and oid <> 'public.auth_org_id()'::regprocedure

union all

select
    'pg_class'::regclass,
    oid,
    oid::regclass::text
from pg_class
where relnamespace = 'public'::regnamespace
    and oid <> 'public.organizations'::regclass
    and oid not in (select indexrelid from pg_index where indrelid = 'public.organizations'::regclass)

union all

select
    'pg_type'::regclass,
    pg_type.oid,
    pg_type.oid::regtype::text
from pg_type
where typnamespace = 'public'::regnamespace
    and typrelid <> 'public.organizations'::regclass
    and typelem <> 'public.organizations'::regtype

union all

select
    'pg_operator'::regclass,
    oid,
    oid::regoperator::text
from pg_operator
where oprnamespace = 'public'::regnamespace

union all

select
    'pg_collation'::regclass,
    oid,
    collname
from pg_collation
where collnamespace = 'public'::regnamespace;

create temp view ours as
select oid, relname as name, 'pg_class'::regclass as catalog
from pg_class
where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)

union all

select oid, proname, 'pg_proc'::regclass
from pg_proc
where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)

union all

select pg_rewrite.oid, relname, 'pg_rewrite'::regclass
from pg_rewrite
join pg_class
    on pg_class.oid = ev_class
where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)

union all

select oid, conname, 'pg_constraint'::regclass
from pg_constraint
where connamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)

union all

select pg_attrdef.oid, relname, 'pg_attrdef'::regclass
from pg_attrdef
join pg_class
    on pg_class.oid = adrelid
where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)

union all

select oid, typname, 'pg_type'::regclass
from pg_type
where typnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace);

select is_empty(
    $$
        select
            ours.name,
            of_public.name
        from pg_depend
        join ours
            on ours.catalog = pg_depend.classid
            and ours.oid = pg_depend.objid
        join of_public
            on of_public.catalog = pg_depend.refclassid
            and of_public.oid = pg_depend.refobjid
    $$,
    'no view, table, type or function of ours depends on anything in public except the organizations and auth_org_id'
);
select is_empty(
    $$
        select
            pg_proc.oid::regprocedure,
            named[1]
        from pg_proc
        cross join lateral regexp_matches(prosrc, '\mpublic\.(\w+)', 'g') as named
        where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and named[1] not in ('organizations', 'auth_org_id', 'switch_organization', 'my_organizations', 'auth_org_role')
    $$,
    'no function of ours names anything else of it'
);
select is_empty(
    $$
        select pg_proc.oid::regprocedure
        from pg_proc
        where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and not coalesce(proconfig && array['search_path=""', 'search_path=pg_catalog, pg_temp'], false)
    $$,
    'nor looks for anything there'
);

-- Functions that match better than those of pg_catalog, for whoever has public in the search_path.
create function public.format(text, text, text)
returns text
language plpgsql
as $function$ begin raise exception 'public.format was called'; end $function$;
create function public.concat_ws(text, text, text)
returns text
language plpgsql
as $function$ begin raise exception 'public.concat_ws was called'; end $function$;
create function public.array_to_string(text[], text)
returns text
language plpgsql
as $function$ begin raise exception 'public.array_to_string was called'; end $function$;
set local search_path = public, pg_catalog, extensions;
select throws_ok(
    $$ select format('a'::text, 'b'::text, 'c'::text) $$,
    'P0001',
    'public.format was called',
    'functions of public can take the place of PostgreSQL''s own in a session'
);
select lives_ok(
    $$
        select from tenancy.findings;
        select from tenancy.plan;
        select from tenancy.verify_schema();
        select tenancy.assert_registry();
        select tenancy.advance('guard');
    $$,
    'and not in what is ours'
);

select * from finish();
rollback;
