-- Purpose: which tables nobody has classified, with what speaks for an organization and the row to add; what is wrong with the registry.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.unclassified_tables as
with recursive classified as (
    select table_inventory.*, registered_tables.scope
    from tenancy.table_inventory
    left join tenancy.registered_tables on registered_tables.relation = table_inventory.relation
),
reference as materialized (
    select references_between_tables.*
    from tenancy.references_between_tables
),
-- Tables whose rows stand for a user or an organization, although they get no org_id.
standing as (
    select classified.relation, classified.qualified_name
    from classified
    where classified.scope = 'excluded'
        and exists (
            select from reference
            where reference.relation = classified.relation
                and reference.parent = to_regclass('auth.users')
                and (
                    reference.column_names[1] in ('user_id', 'owner_id')
                    or exists (
                        select from tenancy.unique_columns
                        where unique_columns.relation = classified.relation and array[unique_columns.attnum] = reference.attnums
                    )
                )
        )
),
evident (relation, reason) as (
    select candidate.relation, format('has the column %s', evidence.attname)
    from classified as candidate
    join pg_catalog.pg_attribute as evidence
        on evidence.attrelid = candidate.relation
        and evidence.attname in ('user_id', 'org_id')
        and not evidence.attisdropped
    where candidate.scope is null
    union
    select candidate.relation, format('references %s in %s', known.name, reference.column_names[1])
    from classified as candidate
    join reference on reference.relation = candidate.relation
    join (
        select to_regclass('auth.users') as relation, 'auth.users' as name
        union all
        select to_regclass('public.organizations'), 'public.organizations'
        union all
        select standing.relation, format('%s, whose rows are users'',', standing.qualified_name)
        from standing
    ) as known on known.relation = reference.parent
    where candidate.scope is null
        and reference.column_names[1] <> 'user_id'
    union
    select candidate.relation, format('references %s', parent.qualified_name)
    from reference
    join classified as candidate
        on candidate.relation = reference.relation
        and candidate.scope is null
    join classified as parent
        on parent.relation = reference.parent
        and parent.relation <> candidate.relation
    join (
        select org_scoped.relation
        from classified as org_scoped
        where org_scoped.scope = 'org'
        union all
        select evident.relation
        from evident
    ) as org_scoped_or_evident on org_scoped_or_evident.relation = parent.relation
),
-- A column named after a table that has no foreign key to it.
hinted as (
    select
        candidate.relation,
        string_agg(
            format(
                'has %s, which looks like the key of %s: if it is, first alter table %s add foreign key (%I) references %s not valid', hint.attname,
                named.qualified_name, candidate.qualified_name, hint.attname, named.qualified_name
            ),
            '; '
            order by hint.attnum
        ) as reason
    from classified as candidate
    join pg_catalog.pg_attribute as hint
        on hint.attrelid = candidate.relation
        and hint.attnum > 0
        and not hint.attisdropped
        and hint.attname like '%\_id'
    join (
        select classified.relation, classified.table_name, classified.qualified_name, classified.scope
        from classified
        union all
        select to_regclass('public.organizations'), 'organizations', 'public.organizations', null
        where to_regclass('public.organizations') is not null
    ) as named
        on named.scope is distinct from 'excluded'
        and named.relation <> candidate.relation
        and named.table_name in (left(hint.attname, -3), left(hint.attname, -3) || 's', left(hint.attname, -3) || 'es', left(hint.attname, -4) || 'ies')
    where candidate.scope is null
        and not exists (
            select from reference
            where reference.relation = candidate.relation and hint.attnum = any (reference.attnums)
        )
    group by candidate.relation
)
select
    classified.relation, classified.schema_name, classified.table_name, classified.qualified_name,
    case when evidence.reasons is not null then 'org' when hinted.reason is null then 'excluded' end as suggested_scope,
    coalesce(nullif(concat_ws('; but ', evidence.reasons, hinted.reason), ''), 'has nothing that says whose its rows are') as reason,
    format('(%L, %L, ''org'', ''secondary'', null, null)', classified.schema_name, classified.table_name) as org_row,
    format('(%L, %L, ''excluded'', null, ''<why not>'', null)', classified.schema_name, classified.table_name) as excluded_row
from classified
left join hinted on hinted.relation = classified.relation
cross join lateral (
    select string_agg(distinct evident.reason, ', ' order by evident.reason) as reasons
    from evident
    where evident.relation = classified.relation
) as evidence
where classified.scope is null;
comment on view tenancy.unclassified_tables is
'Tables that are in the registry neither as org nor as excluded, with what speaks for org, and the row to add for either. suggested_scope'
' NULL: it is open, since a column is named after another table and has no foreign key. The push stops while there is a table here:'
' nothing but its owner''s word tells a table that has no organization from one that was forgotten.';

create or replace view tenancy.registry_findings as
select
    'unclassified_table' as code, 'stops' as severity, unclassified_tables.qualified_name as object,
    unclassified_tables.qualified_name as table_name,
    format('is not classified: it %s', unclassified_tables.reason) as problem,
    case
        when unclassified_tables.suggested_scope = 'excluded' then format(
            'add %s to the migration ending in _EDIT_list_of_tables.sql, or, if its rows belong to organizations, %s',
            unclassified_tables.excluded_row, unclassified_tables.org_row
        )
        else format(
            'add %s to the migration ending in _EDIT_list_of_tables.sql, or, if it is not to have org_id, %s',
            unclassified_tables.org_row, unclassified_tables.excluded_row
        )
    end as remedy
from tenancy.unclassified_tables
union all
select
    case
        when registered_tables.is_dropped then 'dropped_table'
        when registered_tables.relation is null then 'missing_table'
        else 'not_a_table'
    end,
    -- One that is to stay as it is may be missing: tools make tables where they run.
    case
        when registered_tables.is_dropped or registered_tables.relation is null and registered_tables.scope = 'excluded' then 'decide'
        else 'stops'
    end,
    named.qualified_name, named.qualified_name,
    case
        when registered_tables.is_dropped then 'is registered and was dropped'
        when registered_tables.relation is null then 'is registered and does not exist'
        else 'is registered as org and is no table of the application'
    end,
    case
        when registered_tables.is_dropped
            then format('delete from tenancy.registry where (schema_name, table_name) = (%L, %L)', registered_tables.schema_name, registered_tables.table_name)
        when registered_tables.relation is null
            then 'create it in an earlier migration, or take its row out of the one ending in _EDIT_list_of_tables.sql'
        else 'take its row out of the migration ending in _EDIT_list_of_tables.sql; of a partition, register the partitioned table'
    end
from tenancy.registered_tables
cross join lateral (
    select format('%I.%I', registered_tables.schema_name, registered_tables.table_name) as qualified_name
) as named
-- The migrations create public.organizations where there is none.
where registered_tables.relation is null and named.qualified_name <> 'public.organizations'
    or (
        registered_tables.scope = 'org'
        and registered_tables.relation is not null
        and registered_tables.relation not in (select table_inventory.relation from tenancy.table_inventory)
    );
comment on view tenancy.registry_findings is
'What is wrong with the registry: tables that nobody classified, that do not exist, or that are none of the application''s.';
