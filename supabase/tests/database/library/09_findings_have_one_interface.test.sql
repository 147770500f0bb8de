begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create temp view findings_views as
select
    oid::regclass as view_name,
    relname::text collate "default" as name,
    pg_get_viewdef(oid) as definition
from pg_class
where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
    and relkind = 'v'
    and (relname like '%findings' or relname in ('review', 'review_breaks', 'review_shapes', 'review_policies', 'review_leaks', 'review_deletion', 'review_choices'));

-- Every code there is, once. Who adds one adds it here, and to the documentation.
create temp table codes (view_name, code) as
values
    ('foundation_findings', 'old_postgresql'),
    ('foundation_findings', 'settings_missing'),
    ('foundation_findings', 'organizations_missing'),
    ('foundation_findings', 'organizations_without_trigger'),
    ('foundation_findings', 'organizations_not_referable'),
    ('foundation_findings', 'organizations_of_another_role'),
    ('foundation_findings', 'no_default_organization'),
    ('foundation_findings', 'auth_org_id_missing'),
    ('foundation_findings', 'auth_org_id_not_uuid'),
    ('foundation_findings', 'auth_org_id_not_callable'),
    ('foundation_findings', 'auth_org_id_wrong'),
    ('foundation_findings', 'auth_org_id_ambiguous'),
    ('library_findings', 'library_changed'),
    ('library_findings', 'auth_users_not_writable'),
    ('library_findings', 'personal_organizations_refused'),
    ('library_findings', 'memberships_not_followed'),
    ('registry_findings', 'unclassified_table'),
    ('registry_findings', 'missing_table'),
    ('registry_findings', 'dropped_table'),
    ('registry_findings', 'not_a_table'),
    ('registry_findings', 'excluded_with_triggers'),
    ('table_findings', 'foreign_table'),
    ('table_findings', 'foreign_partition'),
    ('table_findings', 'table_of_another_role'),
    ('table_findings', 'partition_of_another_role'),
    ('table_findings', 'typed_table'),
    ('table_findings', 'too_many_columns'),
    ('table_findings', 'forced_row_security'),
    ('table_findings', 'owner_without_privileges'),
    ('table_findings', 'schema_without_create'),
    ('table_findings', 'partition_being_detached'),
    ('table_findings', 'inherits'),
    ('table_findings', 'inherited_from'),
    ('table_findings', 'row_type_in_use'),
    ('table_findings', 'partition_foreign_key'),
    ('table_findings', 'rule'),
    ('table_findings', 'always_trigger'),
    ('publication_findings', 'generated_replica_identity'),
    ('publication_findings', 'no_replica_identity'),
    ('publication_findings', 'publication_beyond_identity'),
    ('value_findings', 'owner_of_nobody'),
    ('value_findings', 'organization_without_key'),
    ('source_findings', 'org_from_without_source'),
    ('source_findings', 'org_from_without_organization'),
    ('source_findings', 'no_source'),
    ('source_findings', 'organizations_without_users'),
    ('source_findings', 'period_foreign_key'),
    ('org_id_findings', 'org_id_type'),
    ('org_id_findings', 'org_id_renamed'),
    ('org_id_findings', 'org_id_default'),
    ('org_id_findings', 'partitioned_with_org_id'),
    ('org_id_findings', 'org_id_foreign_key'),
    ('row_findings', 'org_id_of_no_organization'),
    ('row_findings', 'null_org_id_under_constraint'),
    ('row_findings', 'rows_break_check'),
    ('name_findings', 'constraint_name_taken'),
    ('name_findings', 'index_name_taken'),
    ('name_findings', 'trigger_name_taken'),
    ('sign_up_findings', 'new_users_unset'),
    ('sign_up_findings', 'anonymous_users_unset'),
    ('foundation_findings', 'new_users_without_trigger'),
    ('mapping_findings', 'users_left_out'),
    ('source_findings', 'generated_source'),
    ('push_findings', 'unkeyed_owner'),
    ('push_findings', 'org_from_changed'),
    ('foundation_findings', 'auth_org_id_untried'),
    ('sign_up_findings', 'organizations_trigger_privilege'),
    ('push_findings', 'untried_check'),
    ('filler_findings', 'filler_outdated'),
    ('user_findings', 'user_without_org'),
    ('user_findings', 'user_conflict'),
    ('user_findings', 'user_unplaced'),
    ('user_findings', 'user_unreachable'),
    ('binding_findings', 'bound_key_gone'),
    ('privilege_findings', 'isolation_passed_by'),
    ('dependent_findings', 'uses_org_id'),
    ('review_breaks', 'function_without_org_id'),
    ('review_breaks', 'trigger_without_org_id'),
    ('review_breaks', 'insert_by_position'),
    ('review_shapes', 'whole_rows_copied'),
    ('review_shapes', 'function_row_shape'),
    ('review_breaks', 'partition_without_org_id'),
    ('review_breaks', 'cron_job'),
    ('review_breaks', 'column_grants'),
    ('review_breaks', 'published'),
    ('review_breaks', 'reference_sets_org_id_null'),
    ('review_deletion', 'trigger_stops_organization_delete'),
    ('review_deletion', 'other_organization_named'),
    ('review_deletion', 'company_passed_over'),
    ('review_deletion', 'company_of_a_user'),
    ('review_deletion', 'owner_of_several_kinds'),
    ('review_leaks', 'view_without_security_invoker'),
    ('review_leaks', 'materialized_view'),
    ('review_policies', 'row_security_off'),
    ('review_policies', 'partition_reachable'),
    ('review_policies', 'policy_open'),
    ('review_policies', 'policy_without_to'),
    ('review_policies', 'policy_on_user_metadata'),
    ('review_policies', 'auth_org_id_reads_more'),
    ('review_policies', 'policy_on_unset_claim'),
    ('review_policies', 'role_beyond_authenticated'),
    ('review_leaks', 'security_definer_function'),
    ('review_leaks', 'api_privileges'),
    ('review_choices', 'unique_per_owner'),
    ('review_choices', 'parent_left_out'),
    ('review_choices', 'unique_global'),
    ('review_choices', 'index_by_owner'),
    ('review_choices', 'own_rows_policy'),
    ('review_policies', 'role_passes_policies'),
    ('review_policies', 'storage_policy'),
    ('review_policies', 'realtime_policy'),
    ('review_policies', 'public_bucket'),
    ('review_choices', 'realtime_table'),
    ('review_choices', 'other_membership'),
    ('review_choices', 'unbound_reference');

select isnt_empty($$ select from findings_views $$, 'there are views of findings');
select is_empty(
    $$
        select
            name,
            columns.list
        from findings_views
        cross join lateral (
            select array_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod)) order by attnum) as list
            from pg_attribute
            where attrelid = view_name
                and attnum > 0
        ) as columns
        where columns.list <> '{code text,severity text,object text,table_name text,problem text,remedy text}'
    $$,
    'each has the same six columns'
);
select is_empty(
    $$
        select name
        from findings_views
        where name not in (select view_name from codes)
            and name not in ('findings', 'review')
    $$,
    'each has codes of its own, except the unions and the parts, whose codes are missing_ and the part'
);
select is_empty(
    $$
        select codes.*
        from codes
        left join findings_views
            on findings_views.name = codes.view_name
        where strpos(coalesce(definition, ''), quote_literal(code) || '::text') = 0
    $$,
    'every code is in its view'
);
select is_empty(
    $$
        select
            codes.*,
            findings_views.name as also_in
        from codes
        join findings_views
            on findings_views.name <> codes.view_name
        where strpos(definition, quote_literal(code) || '::text') > 0
    $$,
    'and in no other'
);
select is_empty(
    $$
        select
            name,
            listed.code
        from findings_views
        cross join lateral (
            -- The first column of a select, or of a row of VALUES, or what a CASE makes of it.
            select literal[1] as code
            from regexp_matches(definition, '(?:SELECT|THEN|ELSE| [(])\s*''([a-z]+(?:_[a-z]+)+)''::text', 'g') as literal
        ) as listed
        where listed.code not in (select codes.code from codes)
            and listed.code not in (select kind from tenancy.coined_names)
    $$,
    'no view has a code that is not listed here'
);
select is_empty(
    $$
        select
            name,
            literal[1]
        from findings_views
        cross join lateral regexp_matches(definition, '(?:''([a-z]+)''::text|(?:THEN|ELSE) ''([a-z]+)''::text\s+END) AS severity', 'g') as literal
        where coalesce(literal[1], literal[2]) not in ('stops', 'breaks', 'leaks', 'decide')
    $$,
    'a severity is one of four'
);

-- One finding of each severity.
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.tugs (id integer primary key, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
alter table harbour.ships enable row level security;
alter table harbour.ships add constraint named check (lower(id::text) <> '') not valid;
update tenancy.registry set isolated = true where (schema_name, table_name) = ('harbour', 'ships');
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
values (
    '00000000-0000-0000-0000-000000000000', '00000000-0000-4000-8000-000000000001', 'authenticated', 'authenticated',
    'finding@example.com', '{}'
);
select bag_eq(
    $$
        select distinct code, severity, table_name
        from tenancy.findings
        where table_name like 'harbour.%'
            and code not like 'missing\_%'
            or code = 'user_unreachable'
    $$,
    $$
        values
            ('unclassified_table', 'stops', 'harbour.tugs'),
            ('untried_check', 'decide', 'harbour.ships'),
            ('user_unreachable', 'breaks', 'auth.users')
    $$,
    'tenancy.findings has those of every view'
);
select is_empty(
    $$ select * from tenancy.findings where table_name = 'harbour.ships' and code like 'missing\_%' $$,
    'a part that no push has begun to make is not missing yet'
);
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
select set_eq(
    $$ select code, severity from tenancy.findings where table_name = 'harbour.ships' and code like 'missing\_%' $$,
    $$
        select 'missing_' || part, case when phase > 4 then 'leaks' else 'breaks' end
        from tenancy.parts('harbour.ships')
        where not present
    $$,
    'one that is missing then is a finding, and leaks where it keeps organizations apart'
);
select is_empty(
    $$
        select *
        from tenancy.findings
        where code is null
            or severity is null
            or object is null
            or problem is null
            or remedy is null
    $$,
    'a finding says what it is of, what is wrong and what to do'
);
select is_empty(
    $$
        select *
        from tenancy.findings
        where severity not in ('stops', 'breaks', 'leaks', 'decide')
    $$,
    'and how bad it is'
);

select * from finish();
rollback;
