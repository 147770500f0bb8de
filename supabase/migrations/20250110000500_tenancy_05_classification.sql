-- Purpose: which tables nobody has classified, with what speaks for an organization and the row to add; what is wrong with the registry;
--          and tables that were renamed.
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
user_tables as (
    select reference.relation
    from reference
    join tenancy.unique_columns on (unique_columns.relation, array[unique_columns.attnum]) = (reference.relation, reference.attnums)
    where reference.parent = to_regclass('auth.users')
),
-- What users are in: users' rows reference it, or rows whose key is a user and that.
joined as (
    select
        belonging.parent as relation, parent.qualified_name, min(holder.qualified_name) as holder_name, bool_or(key.atttypid = 'uuid'::regtype) as has_uuid
    from reference as belonging
    join pg_catalog.pg_attribute as key
        on key.attrelid = belonging.parent
        and array[key.attnum] = belonging.parent_attnums
        and key.atttypid in ('uuid'::regtype, 'integer'::regtype, 'bigint'::regtype)
    join classified as holder on holder.relation = belonging.relation
    join classified as parent
        on parent.relation = belonging.parent
        and parent.relation <> holder.relation
        and parent.scope is distinct from 'org'
        and parent.relation not in (select user_tables.relation from user_tables)
    where holder.relation in (select user_tables.relation from user_tables)
        or exists (
            select from pg_catalog.pg_index as index
            join reference as to_user
                on to_user.relation = index.indrelid
                and (to_user.parent = to_regclass('auth.users') or to_user.parent in (select user_tables.relation from user_tables))
            where index.indrelid = holder.relation
                and index.indisunique
                and index.indkey::smallint[] @> (to_user.attnums || belonging.attnums)
                and index.indkey::smallint[] <@ (to_user.attnums || belonging.attnums)
        )
    group by belonging.parent, parent.qualified_name
),
hanging (relation, reason, has_uuid) as (
    select
        candidate.relation, format('references %s, which users are in by %s', joined.qualified_name, joined.holder_name), joined.has_uuid
    from joined
    join reference on reference.parent = joined.relation
    join classified as candidate
        on candidate.relation = reference.relation
        and candidate.relation <> joined.relation
        and candidate.scope is null
    union
    select candidate.relation, format('references %s', parent.qualified_name), hanging.has_uuid
    from hanging
    join classified as parent on parent.relation = hanging.relation
    join reference on reference.parent = hanging.relation
    join classified as candidate
        on candidate.relation = reference.relation
        and candidate.relation <> hanging.relation
        and candidate.scope is null
),
-- Columns that look like a key and are none.
hint as (
    select
        candidate.relation, candidate.qualified_name, column_.attnum, column_.attname,
        lower(replace(regexp_replace(column_.attname, '(_id|Id)$', ''), '_', '')) as name,
        column_.attname ~ '(_id|Id)$' as is_id,
        column_.atttypid = 'uuid'::regtype as is_uuid,
        column_.atttypid in ('text'::regtype, 'varchar'::regtype) as is_text
    from classified as candidate
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = candidate.relation
        and column_.attnum > 0
        and not column_.attisdropped
    where candidate.scope is null
        and column_.attname <> 'org_id'
        and not exists (
            select from reference
            where reference.relation = candidate.relation and column_.attnum = any (reference.attnums)
        )
),
hinted as (
    select
        found.relation, string_agg(found.reason, '; ' order by found.attnum) as reason,
        quote_literal(array_agg(found.owner_column order by found.attnum) filter (where found.owner_column is not null)) as owner_columns
    from (
        select
            hint.relation, hint.attnum, null::text as owner_column,
            format(
                'has %s, which looks like the key of %s: if it is, first alter table %s add foreign key (%I) references %s not valid', hint.attname,
                named.qualified_name, hint.qualified_name, hint.attname, named.qualified_name
            ) as reason
        from hint
        join (
            select classified.relation, lower(replace(classified.table_name, '_', '')) as name, classified.qualified_name, classified.scope
            from classified
            union all
            select to_regclass('public.organizations'), 'organizations', 'public.organizations', null
            where to_regclass('public.organizations') is not null
        ) as named
            on named.scope is distinct from 'excluded'
            and named.relation <> hint.relation
            and named.name in (hint.name, hint.name || 's', hint.name || 'es', left(hint.name, -1) || 'ies')
        where hint.is_id
            and not (hint.attname = 'user_id' and named.relation in (select user_tables.relation from user_tables))
        union all
        select
            hint.relation, hint.attnum, hint.attname::text collate "default",
            format('has %s, which looks like a user''s id: if it is, org_from names it', hint.attname)
        from hint
        where hint.attname <> 'user_id'
            and (hint.is_uuid and hint.name ~ '(user|owner|author|creator|createdby)$' or hint.is_text and hint.is_id and hint.name ~ '(user|owner|author|creator)$')
    ) as found
    group by found.relation
)
select
    classified.relation, classified.schema_name, classified.table_name, classified.qualified_name,
    case when evidence.reasons is not null then 'org' when hinted.reason is null and held.has_uuid is not true then 'excluded' end as suggested_scope,
    coalesce(
        nullif(concat_ws('; but ', evidence.reasons, nullif(concat_ws('; ', hinted.reason, case when evidence.reasons is null then held.reasons end), '')), ''),
        case when joined.has_uuid then 'is what users are in by ' || joined.holder_name || ': each of its rows may be an organization' end,
        'has nothing that says whose its rows are'
    ) as reason,
    format(
        '(%L, %L, ''org'', ''secondary'', null, %s)', classified.schema_name, classified.table_name,
        coalesce(case when evidence.reasons is null then hinted.owner_columns end, 'null')
    ) as org_row,
    format('(%L, %L, ''excluded'', null, ''<why not>'', null)', classified.schema_name, classified.table_name) as excluded_row
from classified
left join hinted on hinted.relation = classified.relation
left join joined on joined.relation = classified.relation
cross join lateral (
    select string_agg(distinct evident.reason, ', ' order by evident.reason) as reasons
    from evident
    where evident.relation = classified.relation
) as evidence
cross join lateral (
    select string_agg(distinct hanging.reason, ', ' order by hanging.reason) as reasons, bool_or(hanging.has_uuid) as has_uuid
    from hanging
    where hanging.relation = classified.relation
) as held
where classified.scope is null;
comment on view tenancy.unclassified_tables is
'Tables that are in the registry neither as org nor as excluded, with what speaks for org, and the row to add for either. suggested_scope'
' NULL: it is open, since a column looks like the key of a table or a user''s id and has no foreign key, or since it references what users'
' are in, whose rows may be the organizations. The push stops while there is a table here:'
' nothing but its owner''s word tells a table that has no organization from one that was forgotten.';

create or replace view tenancy.registry_findings as
select
    'unclassified_table' as code, 'stops' as severity, unclassified_tables.qualified_name as object,
    unclassified_tables.qualified_name as table_name,
    format('is not classified: it %s', unclassified_tables.reason) as problem,
    case
        when unclassified_tables.suggested_scope = 'excluded' then format(
            'add %s to tenancy.registry, in the migration ending in _EDIT_list_of_tables.sql or in one of your own, or, if its rows belong to organizations, %s',
            unclassified_tables.excluded_row, unclassified_tables.org_row
        )
        else format(
            'add %s to tenancy.registry, in the migration ending in _EDIT_list_of_tables.sql or in one of your own, or, if it is not to have org_id, %s',
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

create or replace view tenancy.renamed_tables as
select class.oid as table_oid, namespace.nspname::text as schema_name, class.relname::text as table_name
from tenancy.registry
join pg_catalog.pg_class as class on class.oid = registry.table_oid
join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
where registry.home_oid = 'tenancy.registry'::regclass
    and (registry.schema_name, registry.table_name) is distinct from (namespace.nspname::text, class.relname::text);
comment on view tenancy.renamed_tables is 'Registered tables that have another name now, or are in another schema, with that.';

create or replace function tenancy.follow_renames()
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    moved oid[];
begin
    -- A row that the list has for the new name says how the table is classified from now on.
    update tenancy.registry
    set
        scope = listed.scope, priority = listed.priority, reason = listed.reason, org_from = listed.org_from,
        isolated = registry.isolated and listed.scope = 'org',
        privileges_before = case when listed.scope = 'org' then registry.privileges_before end
    from tenancy.renamed_tables
    join tenancy.registry as listed
        on listed.schema_name = renamed_tables.schema_name
        and listed.table_name = renamed_tables.table_name
        and (listed.table_oid is null or listed.home_oid <> 'tenancy.registry'::regclass)
    where registry.table_oid = renamed_tables.table_oid;
    delete from tenancy.registry as listed
    using tenancy.renamed_tables
    where (listed.schema_name, listed.table_name) = (renamed_tables.schema_name, renamed_tables.table_name)
        and listed.table_oid is distinct from renamed_tables.table_oid
        and not exists (select from tenancy.renamed_tables as other where other.table_oid = listed.table_oid);

    -- Out of each other's way first: tables may have changed names with one another.
    moved := array(select renamed_tables.table_oid from tenancy.renamed_tables);
    update tenancy.registry
    set
        former_names = array_append(registry.former_names, format('%I.%I', registry.schema_name, registry.table_name)),
        table_name = '@' || registry.table_oid
    where registry.table_oid = any (moved) and registry.home_oid = 'tenancy.registry'::regclass;
    update tenancy.registry
    set schema_name = namespace.nspname, table_name = class.relname
    from pg_class as class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    where registry.table_oid = any (moved)
        and registry.home_oid = 'tenancy.registry'::regclass
        and class.oid = registry.table_oid;
end
$function$;
comment on function tenancy.follow_renames() is
'Registers tables under the names that they have now. Where the list has a row for the new name already, that says how it is classified.';

create or replace function org_migration.follow_columns()
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    update tenancy.registry
    set org_from = renamed.new_from
    from tenancy.registered_tables
    join org_migration.fillers on fillers.table_oid = registered_tables.relation::oid and fillers.home_oid = 'org_migration.fillers'::regclass
    cross join lateral (
        select array_agg(coalesce(now_called.name, entry.name) order by entry.place) as new_from
        from unnest(registered_tables.org_from) with ordinality as entry (name, place)
        cross join lateral (
            select string_agg(attribute.attname::text, ', ' order by key.position) as name
            from jsonb_array_elements_text(fillers.entries -> entry.name) with ordinality as key (attnum, position)
            join pg_catalog.pg_attribute as attribute
                on attribute.attrelid = fillers.table_oid
                and attribute.attnum = key.attnum::smallint
                and not attribute.attisdropped
        ) as now_called
    ) as renamed
    where (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name)
        and registered_tables.org_from <> '{}'
        and renamed.new_from is distinct from registered_tables.org_from;
end
$function$;
comment on function org_migration.follow_columns() is
'Writes the columns of registry.org_from, of tables with a filler, under the names that they have now.';

create or replace function tenancy.note_tables()
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    if to_regclass('org_migration.fillers') is not null then
        perform org_migration.follow_columns();
    end if;
    perform tenancy.follow_renames();
    update tenancy.registry
    set table_oid = registered_tables.relation::oid, home_oid = 'tenancy.registry'::regclass
    from tenancy.registered_tables
    where (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name)
        and registered_tables.relation is not null
        and (registry.table_oid, registry.home_oid) is distinct from (registered_tables.relation::oid, 'tenancy.registry'::regclass::oid);
end
$function$;
comment on function tenancy.note_tables() is
'Notes which table each row of the registry means, and registers tables, and the columns of org_from where there is a filler, under the'
' names that they have now. Where a row has the new name already, that says how the table is classified.';

create or replace function tenancy.find_former_name()
returns trigger language plpgsql security invoker set search_path = '' as $function$
declare
    named constant regclass := to_regclass(format('%I.%I', new.schema_name, new.table_name));
    noted constant regclass := (
        select registered_tables.relation
        from tenancy.registered_tables
        where (registered_tables.schema_name, registered_tables.table_name) = (new.schema_name, new.table_name)
    );
begin
    if named is null then
        select coalesce(max(renamed.schema_name), new.schema_name), coalesce(max(renamed.table_name), new.table_name)
        into new.schema_name, new.table_name
        from tenancy.registry as renamed
        where format('%I.%I', new.schema_name, new.table_name) = any (renamed.former_names);
    elsif named <> noted then
        raise exception 'tenancy.registry has the row %.% for the table that is called % now: select tenancy.note_tables(), then insert again',
            quote_ident(new.schema_name), quote_ident(new.table_name), noted
        using errcode = 'object_not_in_prerequisite_state', schema = new.schema_name, table = new.table_name;
    end if;
    return new;
end
$function$;
comment on function tenancy.find_former_name() is
'Trigger function: a row of the registry with an old name that no table has any more means the table that had it. Raises'
' object_not_in_prerequisite_state where a renamed table has not given its name free for the one that has it now.';

create or replace trigger find_former_name
before insert on tenancy.registry
for each row
execute function tenancy.find_former_name();
