begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);

select is_empty(
    $$
        select role, ours
        from unnest(array['public', 'anon', 'authenticated', 'service_role']) as role
        cross join unnest(array['tenancy', 'org_migration']) as ours
        where has_schema_privilege(role, ours, 'usage')
            or has_schema_privilege(role, ours, 'create')
    $$,
    'nobody but the owner can use the schemas tenancy and org_migration'
);
select is_empty(
    $$
        select role, relation.oid::regclass
        from unnest(array['anon', 'authenticated', 'service_role']) as role
        cross join pg_class as relation
        where relation.relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and relation.relkind in ('r', 'v')
            and has_table_privilege(role, relation.oid, 'select, insert, update, delete, truncate, references, trigger')
    $$,
    'nor any table or view in them'
);
select is_empty(
    $$
        select role, routine.oid::regprocedure
        from unnest(array['anon', 'authenticated', 'service_role']) as role
        cross join pg_proc as routine
        where routine.pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and has_function_privilege(role, routine.oid, 'execute')
    $$,
    'nor call any function in them'
);
select results_eq(
    $$
        select oid::regprocedure::text
        from pg_proc
        where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and prosecdef
        order by proname
    $$,
    $$
        values
            ('tenancy.add_org_id_to_token(jsonb)'),
            ('tenancy.check_new_tables()'),
            ('tenancy.copy_membership()'),
            ('tenancy.create_organization(text)'),
            ('tenancy.fill_org_id()'),
            ('tenancy.follow_lost_membership()'),
            ('tenancy.follow_membership()'),
            ('tenancy.keep_org_of_new_user()'),
            ('tenancy.leave_users_without_organization()'),
            ('tenancy.note_new_tables()'),
            ('tenancy.set_org_of_new_user()'),
            ('tenancy.skip_restored_row()')
    $$,
    'no function of ours runs with its owner''s rights except the triggers that have to read what their caller cannot, and what they call'
);
select is_empty(
    $$
        select oid::regprocedure
        from pg_proc
        where (pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace) or oid = 'public.auth_org_id()'::regprocedure)
            -- An empty path still looks for types among the temporary ones first: theirs names pg_temp last.
            and case
                when prosecdef
                    -- What those call runs with the same rights.
                    or proname in (
                        'organization_named', 'with_names', 'schema_of', 'table_of', 'prepare_fillers', 'create_counter', 'note_tables', 'follow_renames', 'follow_columns',
                        'refuse_row_without_organization', 'org_of_orphan', 'filler_query', 'org_of', 'store_claim', 'switch_organization', 'my_organizations',
                        'copy_memberships', 'classify_tables', 'find_sources'
                    )
                    then 'search_path=pg_catalog, pg_temp'
                else 'search_path=""'
            end <> all (coalesce(proconfig, '{}'))
    $$,
    'and each has a search_path of its own, on which nothing of its caller comes first'
);
select is_empty(
    $$
        select oid::regprocedure::text
        from pg_proc
        where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and obj_description(oid, 'pg_proc') is null

        union all

        select oid::regclass::text
        from pg_class
        where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
            and relkind in ('r', 'v')
            and obj_description(oid, 'pg_class') is null
    $$,
    'everything in them says what it is'
);

set local role service_role;
select throws_ok(
    $$ select * from tenancy.settings $$,
    '42501',
    'permission denied for schema tenancy',
    'service_role is told so'
);
select throws_ok(
    $$ select * from org_migration.tables_before $$,
    '42501',
    'permission denied for schema org_migration',
    'of the machinery too'
);

select * from finish();
rollback;
