-- Purpose: which tables nobody has classified, with what speaks for an organization and the row to add; and tables that
--          were renamed.
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
-- What a look at some rows says of the columns of uuid or text that have no foreign key.
looked_at as materialized (
    select
        classified.relation, column_.attnum, column_.attname::text collate "default" as column_name, counted.value_count, counted.user_count,
        counted.id_count = 0 as has_no_ids
    from classified
    join pg_catalog.pg_class as class on class.oid = classified.relation
    cross join lateral (
        select string_agg(format('(%s, pg_catalog.left(looked_at.%I::pg_catalog.text, 40))', candidate.attnum, candidate.attname), ', ') as list
        from pg_catalog.pg_attribute as candidate
        join pg_catalog.pg_type as type on type.oid = candidate.atttypid
        where candidate.attrelid = classified.relation
            and candidate.attnum > 0
            and not candidate.attisdropped
            and candidate.attgenerated <> 'v'
            and candidate.attname <> 'user_id'
            and coalesce(nullif(type.typbasetype, 0), type.oid) in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
            and not exists (select from reference where reference.relation = classified.relation and candidate.attnum = any (reference.attnums))
    ) as columns
    cross join lateral query_to_xml(
        format(
            $sql$
                select
                    held.attnum, pg_catalog.count(*) as value_count, pg_catalog.count(users.id) as user_count,
                    pg_catalog.count(*) filter (where held.value operator(pg_catalog.~*) %1$L::pg_catalog.text) as id_count
                from (select * from %2$s limit 500) as looked_at
                cross join lateral (values %3$s) as held (attnum, value)
                left join auth.users as users on users.id operator(pg_catalog.=) case
                    when held.value operator(pg_catalog.~*) %1$L::pg_catalog.text then held.value::pg_catalog.uuid
                end
                where held.value is not null
                group by held.attnum
            $sql$,
            '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', classified.qualified_name, columns.list
        ),
        false, false, ''
    ) as answer (document)
    cross join lateral xmltable(
        '/table/row' passing answer.document
        columns attnum smallint path 'attnum', value_count bigint path 'value_count', user_count bigint path 'user_count', id_count bigint path 'id_count'
    ) as counted
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = classified.relation
        and column_.attnum = counted.attnum
    where classified.scope is null
        and classified.relkind in ('r', 'p')
        and columns.list is not null
        -- Of nobody else: a query runs the functions of a table's owner.
        and pg_has_role(class.relowner, 'usage')
        and not class.relforcerowsecurity
        and has_table_privilege(to_regclass('auth.users'), 'select')
),
-- By their names, unless their values say otherwise.
hinted as materialized (
    select hint.relation, hint.attnum, hint.column_name, hint.parent, hint.reason
    from tenancy.hinted_columns as hint
    left join looked_at
        on looked_at.relation = hint.relation
        and looked_at.attnum = hint.attnum
    left join classified as named on named.relation = hint.parent
    where named.scope is distinct from 'excluded'
        and not coalesce(looked_at.user_count > 0, false)
        and not coalesce(hint.parent = to_regclass('auth.users') and looked_at.has_no_ids, false)
),
evident (relation, reason, is_guess) as (
    select candidate.relation, format('has the column %s', evidence.attname), false
    from classified as candidate
    join pg_catalog.pg_attribute as evidence
        on evidence.attrelid = candidate.relation
        and evidence.attname in ('user_id', 'org_id')
        and not evidence.attisdropped
    where candidate.scope is null
    union
    select candidate.relation, format('references %s in %s', known.name, reference.column_names[1]), false
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
    select
        looked_at.relation,
        format('has users'' ids in %s, without a foreign key (%s of %s)', looked_at.column_name, looked_at.user_count, looked_at.value_count), false
    from looked_at
    where looked_at.user_count > 0
    union
    select hinted.relation, hinted.reason, true
    from hinted
    join classified as candidate
        on candidate.relation = hinted.relation
        and candidate.scope is null
    union
    -- What references a table that is open is open.
    select candidate.relation, format('references %s%s', parent.qualified_name, case when evident.is_guess then ', which may have one' end), evident.is_guess
    from reference
    join classified as candidate
        on candidate.relation = reference.relation
        and candidate.scope is null
    join classified as parent
        on parent.relation = reference.parent
        and parent.relation <> candidate.relation
    join (
        select org_scoped.relation, false as is_guess
        from classified as org_scoped
        where org_scoped.scope = 'org'
        union all
        select evident.relation, evident.is_guess
        from evident
    ) as evident on evident.relation = parent.relation
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
-- What a column org_id references.
named as (
    select reference.confrelid::regclass as relation, min(holder.qualified_name) as holder_name
    from pg_catalog.pg_constraint as reference
    join classified as holder on holder.relation = reference.conrelid
    join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = reference.conrelid
        and array[org_id.attnum] = reference.conkey
        and org_id.attname = 'org_id'
        and org_id.atttypid = 'uuid'::regtype
    where reference.contype = 'f' and reference.conrelid <> reference.confrelid
    group by reference.confrelid
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
)
select
    classified.relation, classified.schema_name, classified.table_name, classified.qualified_name,
    case
        when named.relation is not null then 'excluded'
        when evidence.reasons is not null then 'org'
        when evidence.guesses is null and held.has_uuid is not true then 'excluded'
    end as suggested_scope,
    coalesce(
        'is what org_id of ' || named.holder_name || ' references: each of its rows may be an organization',
        nullif(
            concat_ws('; but ', evidence.reasons, nullif(concat_ws('; ', evidence.guesses, case when evidence.reasons is null then held.reasons end), '')), ''
        ),
        case when joined.has_uuid then 'is what users are in by ' || joined.holder_name || ': each of its rows may be an organization' end,
        'has nothing that says whose its rows are'
    ) as reason,
    format('(%L, %L, ''org'', ''secondary'', null, %s)', classified.schema_name, classified.table_name, coalesce(quote_literal(own.entries::text), 'null')) as org_row,
    format('(%L, %L, ''excluded'', null, ''<why not>'', null)', classified.schema_name, classified.table_name) as excluded_row,
    coalesce(own.columns, '{}') as user_columns
from classified
left join joined on joined.relation = classified.relation
left join named on named.relation = classified.relation
cross join lateral (
    select string_agg(distinct hanging.reason, ', ' order by hanging.reason) as reasons, bool_or(hanging.has_uuid) as has_uuid
    from hanging
    where hanging.relation = classified.relation
) as held
cross join lateral (
    select
        string_agg(distinct evident.reason, ', ' order by evident.reason) filter (where not evident.is_guess) as reasons,
        string_agg(distinct evident.reason, '; ' order by evident.reason) filter (
            where evident.is_guess
                -- A parent that has one for sure.
                and not exists (
                    select from evident as sure
                    where sure.relation = evident.relation and not sure.is_guess and evident.reason = sure.reason || ', which may have one'
                )
        ) as guesses
    from evident
    where evident.relation = classified.relation
) as evidence
-- Without a foreign key nothing but org_from says that they decide; then it has to say what else does.
cross join lateral (
    select
        looked.columns,
        case
            when looked.columns is not null or evidence.reasons is null then looked.columns || hint.columns || case
                when looked.columns is not null then array(
                    select distinct array_to_string(reference.column_names, ', ')
                    from reference
                    left join classified as parent on parent.relation = reference.parent
                    where reference.relation = classified.relation
                        and not reference.is_period
                        and (parent.scope = 'org' or parent.relation in (select evident.relation from evident where not evident.is_guess) or reference.parent in (to_regclass('auth.users'), to_regclass('public.organizations')))
                )
            end
        end as entries
    from (
        select array_agg(looked_at.column_name order by looked_at.attnum) as columns
        from looked_at
        where looked_at.relation = classified.relation and looked_at.user_count > 0
    ) as looked
    cross join (
        select array_agg(hinted.column_name order by hinted.attnum) as columns
        from hinted
        where hinted.relation = classified.relation and hinted.parent = to_regclass('auth.users')
    ) as hint
) as own
where classified.scope is null;
comment on view tenancy.unclassified_tables is
'Tables that are in the registry neither as org nor as excluded, with what speaks for org, and the row to add for either. suggested_scope'
' NULL: it is open, since a column is named after users, or after another table, and has no foreign key, or since it references a table that'
' is open, or what users are in, whose rows may be the organizations. user_columns: those without a foreign key in which a look at 500 rows finds users'' ids. The push stops while there is a table here:'
' nothing but its owner''s word tells a table that has no organization from one that was forgotten.';

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
