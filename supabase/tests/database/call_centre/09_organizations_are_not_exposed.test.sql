begin;
set local role postgres;
set local search_path = public, extensions;
select plan(4);

select is_empty(
    $$
        select attname
        from pg_attribute
        where attrelid = 'public.organizations'::regclass
            and attnum > 0
            and not attisdropped
            and has_column_privilege('anon', attrelid, attnum, 'select')
    $$,
    'who is not signed in could not see the organizations in a GraphQL schema, not by one column'
);
select ok(
    (select relrowsecurity from pg_class where oid = 'public.organizations'::regclass),
    'policies filter the organizations for everyone else'
);
select results_eq(
    $$
        select format('%s: %s to %s', polname, polcmd, polroles::regrole[]) collate "default"
        from pg_policy
        where polrelid = 'public.organizations'::regclass
    $$,
    $$ values ('members read their organization: r to {authenticated}') $$,
    'of which there is one, to read'
);
select is_empty(
    $$
        select privilege
        from unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
        cross join unnest(array['anon', 'authenticated']) as role
        where has_table_privilege(role, 'public.organizations', privilege)
    $$,
    'nobody but the backend changes them'
);

select * from finish();
rollback;
