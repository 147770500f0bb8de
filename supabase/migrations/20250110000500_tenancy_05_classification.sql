-- Purpose: which tables nobody has classified, with what speaks for an organization and the row to add; what is wrong with the registry.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.unclassified_tables as
with recursive classified as (
    select table_inventory.*, registry.scope
    from tenancy.table_inventory
    left join tenancy.registry
        on registry.schema_name = table_inventory.schema_name
        and registry.table_name = table_inventory.table_name
),
evident (relation, reason, owner_column) as (
    select candidate.relation, format('has the column %s', evidence.attname), null::text
    from classified as candidate
    join pg_catalog.pg_attribute as evidence
        on evidence.attrelid = candidate.relation
        and evidence.attname in ('user_id', 'org_id')
        and not evidence.attisdropped
    where candidate.scope is null
    union
    select
        candidate.relation,
        format('references auth.users in %s', reference.column_names[1]),
        reference.column_names[1]
    from classified as candidate
    join tenancy.references_between_tables as reference
        on reference.relation = candidate.relation
        and reference.parent = to_regclass('auth.users')
    where candidate.scope is null
        and not exists (
            select from pg_catalog.pg_attribute as owner
            where owner.attrelid = candidate.relation
                and owner.attname = 'user_id'
                and not owner.attisdropped
        )
    union
    select candidate.relation, format('references %s', parent.qualified_name), null
    from tenancy.references_between_tables as reference
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
)
select
    classified.relation, classified.schema_name, classified.table_name, classified.qualified_name,
    case when count(evident.relation) > 0 then 'org' else 'excluded' end as suggested_scope,
    min(evident.owner_column) as suggested_owner_column,
    coalesce(
        string_agg(distinct evident.reason, ', ' order by evident.reason),
        'has nothing that says whose its rows are'
    ) as reason,
    format('(%L, %L, ''org'', ''secondary'', null)', classified.schema_name, classified.table_name) as org_row,
    format('(%L, %L, ''excluded'', null, ''<why not>'')', classified.schema_name, classified.table_name) as excluded_row
from classified
left join evident on evident.relation = classified.relation
where classified.scope is null
group by classified.relation, classified.schema_name, classified.table_name, classified.qualified_name;
comment on view tenancy.unclassified_tables is
'Tables that are in the registry neither as org nor as excluded, with what speaks for org, and the row to add for either. The push'
' stops while there is one: nothing but its owner''s word tells a table that has no organization from one that was forgotten.';

create or replace view tenancy.registry_findings as
select
    'unclassified_table' as code, 'stops' as severity, unclassified_tables.qualified_name as object,
    unclassified_tables.qualified_name as table_name,
    format('is not classified: it %s', unclassified_tables.reason) as problem,
    concat(
        case
            when unclassified_tables.suggested_scope = 'org' then format(
                'add %s to the migration ending in _EDIT_list_of_tables.sql, or, if it is not to have org_id, %s',
                unclassified_tables.org_row, unclassified_tables.excluded_row
            )
            else format(
                'add %s to the migration ending in _EDIT_list_of_tables.sql, or, if its rows belong to organizations, %s',
                unclassified_tables.excluded_row, unclassified_tables.org_row
            )
        end,
        case
            when unclassified_tables.suggested_owner_column is not null then format(
                '; and if %1$s says who owns a row, below the list:'
                ' update tenancy.registry set owner_column = %1$L where (schema_name, table_name) = (%2$L, %3$L);',
                unclassified_tables.suggested_owner_column, unclassified_tables.schema_name,
                unclassified_tables.table_name
            )
        end
    ) as remedy
from tenancy.unclassified_tables
union all
select
    case when registered.is_missing then 'missing_table' else 'not_a_table' end,
    'stops', registered.qualified_name, registered.qualified_name,
    case
        when registered.is_missing then 'is registered and does not exist'
        else 'is registered as org and is no table of the application'
    end,
    case
        when registered.is_missing
            then 'create it in an earlier migration, or take its row out of the one ending in _EDIT_list_of_tables.sql'
        else 'take its row out of the migration ending in _EDIT_list_of_tables.sql; of a partition, register the partitioned table'
    end
from (
    select
        named.*,
        -- The migrations create public.organizations where there is none.
        to_regclass(named.qualified_name) is null and named.qualified_name <> 'public.organizations' as is_missing
    from (
        select registry.scope, format('%I.%I', registry.schema_name, registry.table_name) as qualified_name
        from tenancy.registry
    ) as named
) as registered
where registered.is_missing
    or (
        registered.scope = 'org'
        and registered.qualified_name not in (select table_inventory.qualified_name from tenancy.table_inventory)
    );
comment on view tenancy.registry_findings is
'What is wrong with the registry: tables that nobody classified, that do not exist, or that are none of the application''s.';
