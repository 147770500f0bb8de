-- Purpose: the inventory: every table of the application, its partitions, its foreign keys, and columns that look like one.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.table_inventory as
select
    relation.oid::regclass as relation,
    namespace.nspname::text collate "default" as schema_name,
    relation.relname::text collate "default" as table_name,
    format('%I.%I', namespace.nspname, relation.relname) as qualified_name,
    relation.relkind
from pg_catalog.pg_class as relation
join pg_catalog.pg_namespace as namespace on namespace.oid = relation.relnamespace
where relation.relkind in ('r', 'p', 'f')
    and not relation.relispartition
    and relation.relpersistence <> 't'
    and namespace.nspname <> all ((select settings.platform_schemas from tenancy.settings)::text[])
    and namespace.nspname not like 'pg\_%'
    and namespace.nspname <> 'information_schema'
    and relation.oid is distinct from to_regclass('public.organizations')
    and not exists (
        select from pg_catalog.pg_depend as dependency
        where dependency.classid = 'pg_catalog.pg_class'::regclass
            and dependency.objid = relation.oid
            and dependency.deptype = 'e'
    );
comment on view tenancy.table_inventory is 'Every table of the application. Partitions stand behind their root.';

create or replace view tenancy.registered_tables as
select
    registry.schema_name, registry.table_name, registry.scope, registry.priority, registry.reason, registry.org_from, registry.isolated,
    registry.privileges_before,
    coalesce(noted.oid, named.oid)::regclass as relation,
    noted.oid is null and named.oid is null and registry.home_oid = 'tenancy.registry'::regclass as is_dropped
from tenancy.registry
left join pg_catalog.pg_class as noted
    on noted.oid = registry.table_oid
    and registry.home_oid = 'tenancy.registry'::regclass
left join pg_catalog.pg_class as named
    on noted.oid is null
    and named.oid = to_regclass(format('%I.%I', registry.schema_name, registry.table_name))
    -- Another table that has come to this name has a row of its own.
    and not exists (
        select from tenancy.registry as other
        where other.table_oid = named.oid and other.home_oid = 'tenancy.registry'::regclass
    );
comment on view tenancy.registered_tables is
'The registry with the table that each row means: the one that tenancy.note_tables saw, whatever it is called now, else the one of its'
' name; relation NULL where there is none. is_dropped: there was one.';

create or replace view tenancy.classified_tables as
select
    table_inventory.relation, table_inventory.schema_name, table_inventory.table_name,
    table_inventory.qualified_name, table_inventory.relkind, registered_tables.scope, registered_tables.priority,
    registered_tables.isolated, registered_tables.privileges_before, registered_tables.org_from
from tenancy.table_inventory
left join tenancy.registered_tables on registered_tables.relation = table_inventory.relation;
comment on view tenancy.classified_tables is 'The query of tenancy.application_tables.';

create or replace function tenancy.classify_tables()
returns setof tenancy.classified_tables language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    return query
    select classified_tables.*
    from tenancy.classified_tables;
end
$function$;
comment on function tenancy.classify_tables() is
'The rows of tenancy.classified_tables. Planned once per session, and not with each of the dozens of views that read them.';

create or replace view tenancy.application_tables as
select application_tables.*
from tenancy.classify_tables() as application_tables;
comment on view tenancy.application_tables is 'tenancy.table_inventory with each table''s classification, if it has one.';

create or replace view tenancy.table_members as
select
    application_tables.relation as root, member.oid::regclass as relation,
    format('%I.%I', namespace.nspname, member.relname) as qualified_name,
    member.relname, member.relnamespace, member.relowner, member.relkind, member.reltuples,
    application_tables.scope
from tenancy.application_tables
left join lateral pg_partition_tree(application_tables.relation) as tree
    on application_tables.relkind = 'p'
join pg_catalog.pg_class as member on member.oid = coalesce(tree.relid, application_tables.relation)
join pg_catalog.pg_namespace as namespace on namespace.oid = member.relnamespace;
comment on view tenancy.table_members is
'Every table of the application with itself and, where it is partitioned, its partitions of all levels.';

create or replace view tenancy.org_id_columns as
select
    table_members.root, table_members.relation, table_members.qualified_name, table_members.relname,
    table_members.relkind,
    table_members.relation = table_members.root as is_root,
    table_members.relkind <> 'p' as is_leaf,
    org_id.attnum, org_id.attnotnull as has_not_null,
    org_id.attnotnull and not exists (
        select from pg_catalog.pg_constraint as not_null
        where not_null.conrelid = table_members.relation
            and not_null.contype = 'n'
            and not_null.conkey = array[org_id.attnum]
            and not not_null.convalidated
    ) as is_not_null,
    org_id.atttypid = 'uuid'::regtype and org_id.attgenerated = '' as is_plain_uuid,
    org_id.attmissingval::text as missing_value,
    pg_get_expr(its_default.adbin, its_default.adrelid) as default_expression
from tenancy.table_members
left join pg_catalog.pg_attribute as org_id
    on org_id.attrelid = table_members.relation
    and org_id.attname = 'org_id'
    and not org_id.attisdropped
left join pg_catalog.pg_attrdef as its_default
    on its_default.adrelid = table_members.relation
    and its_default.adnum = org_id.attnum
    and org_id.attgenerated = ''
where table_members.scope = 'org';
comment on view tenancy.org_id_columns is
'Every org-scoped table and each of its partitions, with its column org_id as the catalog has it; attnum NULL without one.';

create or replace view tenancy.unique_columns as
select pg_index.indrelid::regclass as relation, pg_index.indkey[0] as attnum
from pg_catalog.pg_index
where pg_index.indisunique
    and pg_index.indnkeyatts = 1
    and pg_index.indpred is null;
comment on view tenancy.unique_columns is 'The columns of which each value stands in one row at the most; 0 stands for an expression.';

create or replace view tenancy.references_between_tables as
select
    reference.oid as constraint_oid, reference.conrelid::regclass as relation,
    reference.confrelid::regclass as parent, reference.conname as constraint_name, referencing.column_names,
    referencing.parent_column_names, referencing.attnums, referencing.parent_attnums, referencing.condition,
    coalesce((to_jsonb(reference) ->> 'conperiod')::boolean, false) as is_period
from pg_catalog.pg_constraint as reference
cross join lateral (
    select
        array_agg(child_column.attname::text collate "default" order by pair.position) as column_names,
        array_agg(parent_column.attname::text collate "default" order by pair.position) as parent_column_names,
        array_agg(child_column.attnum order by pair.position) as attnums,
        array_agg(parent_column.attnum order by pair.position) as parent_attnums,
        string_agg(
            format(
                '{parent}.@c%s.%s.%s@%s @o%s@ {child}.@c%s.%s.%s@%s%s',
                reference.confrelid, parent_column.attnum, parent_column.atttypid::bigint,
                case when operand.left_type <> parent_column.atttypid then format('::@t%s@', operand.left_type) end,
                pair.equality, reference.conrelid, child_column.attnum, child_column.atttypid::bigint,
                case when operand.right_type <> child_column.atttypid then format('::@t%s@', operand.right_type) end,
                case
                    when child_column.attcollation <> parent_column.attcollation and parent_column.attcollation <> 0
                        then format(' collate @l%s@', parent_column.attcollation)
                end
            ),
            ' and '
            order by pair.position
        ) as condition
    from unnest(reference.conkey, reference.confkey, reference.conpfeqop)
        with ordinality as pair (child_key, parent_key, equality, position)
    join pg_catalog.pg_attribute as child_column
        on child_column.attrelid = reference.conrelid
        and child_column.attnum = pair.child_key
    join pg_catalog.pg_attribute as parent_column
        on parent_column.attrelid = reference.confrelid
        and parent_column.attnum = pair.parent_key
    cross join lateral (
        -- Of a pseudo-type, such as anyenum, the operator takes what it gets.
        select
            coalesce(left_operand.oid, parent_column.atttypid) as left_type,
            coalesce(right_operand.oid, child_column.atttypid) as right_type
        from pg_catalog.pg_operator as equality
        left join pg_catalog.pg_type as left_operand on left_operand.oid = equality.oprleft and left_operand.typtype <> 'p'
        left join pg_catalog.pg_type as right_operand on right_operand.oid = equality.oprright and right_operand.typtype <> 'p'
        where equality.oid = pair.equality
    ) as operand
    where child_column.attname <> 'org_id'
) as referencing
where reference.contype = 'f'
    and reference.conparentid = 0
    and referencing.column_names is not null;
comment on view tenancy.references_between_tables is
'Every foreign key, once, with the columns that say which row is meant: org_id, which may stand beside them, is left out. condition: the'
' rows compared as the key itself compares them, by its operators, types and collations, for {parent} and {child} as these are named in a'
' query, in the form of tenancy.with_names. is_period: a key of PostgreSQL 18 that may lead to several rows at once.';

create or replace view tenancy.hinted_columns as
with named as materialized (
    select
        class.oid::regclass as relation, format('%I.%I', namespace.nspname, class.relname) as qualified_name, class.relnamespace,
        lower(regexp_replace(class.relname, '([a-z0-9])([A-Z])', '\1_\2', 'g')) as word, type.typcategory as category, key_column.attnum
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    left join pg_catalog.pg_index as key
        on key.indrelid = class.oid
        and key.indisprimary
        and key.indnkeyatts = 1
    left join pg_catalog.pg_attribute as key_column
        on key_column.attrelid = class.oid
        and key_column.attnum = key.indkey[0]
    left join pg_catalog.pg_type as type on type.oid = key_column.atttypid
    where class.oid in (select table_inventory.relation from tenancy.table_inventory)
        or class.oid = to_regclass('public.organizations')
),
unkeyed as materialized (
    select
        named.relation, named.qualified_name, column_.attnum, column_.attname::text collate "default" as column_name, type.typcategory as category,
        coalesce(nullif(type.typbasetype, 0), type.oid) in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) as may_hold_users,
        coalesce(nullif(type.typbasetype, 0), type.oid) = 'uuid'::regtype as is_uuid,
        lower(regexp_replace(column_.attname, '([a-z0-9])([A-Z])', '\1_\2', 'g')) as word,
        column_.attnum is not distinct from named.attnum
        and named.word ~ '^((app|public)_)?(users?|(user_)?profiles?)$'
        -- Unless another column, of which a user has one row, says which user it is.
        and not exists (
            select from tenancy.unique_columns
            join pg_catalog.pg_attribute as its
                on its.attrelid = unique_columns.relation
                and its.attnum = unique_columns.attnum
            where unique_columns.relation = named.relation
                and (
                    its.attname = 'user_id'
                    or exists (
                        select from pg_catalog.pg_constraint as reference
                        where reference.conrelid = named.relation
                            and reference.confrelid = to_regclass('auth.users')
                            and reference.conkey = array[its.attnum]
                    )
                )
        ) as is_user_key
    from named
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = named.relation
        and column_.attnum > 0
        and not column_.attisdropped
    join pg_catalog.pg_type as type on type.oid = column_.atttypid
    where column_.attname not in ('user_id', 'org_id')
        and named.relation is distinct from to_regclass('public.organizations')
        and not exists (
            select from pg_catalog.pg_constraint as reference
            where reference.conrelid = named.relation and reference.contype = 'f' and column_.attnum = any (reference.conkey)
        )
)
select
    unkeyed.relation, unkeyed.attnum, unkeyed.column_name, to_regclass('auth.users') as parent, 'auth.users' as parent_name,
    format(
        'has %s, probably users'' ids: if so, name it in org_from, or first alter table %s add foreign key (%I) references auth.users (id)'
        ' not valid', unkeyed.column_name, unkeyed.qualified_name, unkeyed.column_name
    ) as reason
from unkeyed
where unkeyed.may_hold_users
    and (
        unkeyed.word ~ '^(uid|((auth|supabase|app)_)?(user|owner|author|creator|uploader)(_?(id|uid|uuid))?|(auth|supabase)_(id|uid|uuid)|(created|owned|added|uploaded|submitted|posted)_by(_(user|id|uid|uuid|user_id))?)$'
        or unkeyed.is_uuid and (unkeyed.is_user_key or unkeyed.word ~ '_(user|owner|author|creator)(_id)?$')
    )
union all
select
    unkeyed.relation, unkeyed.attnum, unkeyed.column_name, named.relation, named.qualified_name,
    format(
        'has %s, which looks like the key of %s: if it is, first alter table %s add foreign key (%I) references %2$s not valid', unkeyed.column_name,
        named.qualified_name, unkeyed.qualified_name, unkeyed.column_name
    )
from unkeyed
cross join lateral (select regexp_replace(unkeyed.word, '_?(id|uuid)$', '') as word) as meant
join named
    on named.relation <> unkeyed.relation
    and named.word in (meant.word, meant.word || 's', meant.word || 'es', regexp_replace(meant.word, 'y$', 'ies'))
    and coalesce(named.category = unkeyed.category, true)
where unkeyed.word ~ '_(id|uuid)$' or unkeyed.is_uuid
union all
-- What nothing can be joined by.
select
    unkeyed.relation, unkeyed.attnum, unkeyed.column_name, null, null,
    format(
        'has %s, which may say whose a row is%s: if it does, first add a column with the user''s id and a foreign key', unkeyed.column_name,
        case when unkeyed.category = 'S' then ' by address' when unkeyed.category = 'A' then ' for several users' end
    )
from unkeyed
where unkeyed.category = 'S' and unkeyed.word ~ '^((user|owner|author|creator)_?e?mail|(created|owned)_by_e?mail)$'
    or unkeyed.category = 'A' and unkeyed.word ~ '^(users?|owners?|members?|participants?)(_?u?u?ids?)?$';
comment on view tenancy.hinted_columns is
'Columns that by their names hold users'' ids (parent auth.users), the keys of another table, or users as nothing can join them (parent NULL),'
' and have no foreign key.';

create or replace function tenancy.with_names(form text)
returns text language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    return (
        select case
            when bool_and(named.name is not null) and sum(length(token.part[1])) = length(form || '@z@')
                then string_agg(token.part[2] || named.name, '' order by token.position)
        end
        -- part: the whole, the text before, what it is, and its numbers.
        from regexp_matches(form || '@z@', '(([^@]*)@([a-z])(\d*)\.?(\d*)\.?(\d*)@)', 'g') with ordinality as token (part, position)
        cross join lateral (
            select case token.part[3]
                when 'r' then (
                    select format('%I.%I', namespace.nspname, class.relname)
                    from pg_catalog.pg_class as class
                    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
                    where class.oid = token.part[4]::oid
                )
                when 'c' then (
                    select quote_ident(attribute.attname)
                    from pg_catalog.pg_attribute as attribute
                    where attribute.attrelid = token.part[4]::oid
                        and attribute.attnum = token.part[5]::smallint
                        and attribute.atttypid::text = coalesce(nullif(token.part[6], ''), attribute.atttypid::text)
                        and not attribute.attisdropped
                )
                when 'n' then (
                    select quote_literal(attribute.attname)
                    from pg_catalog.pg_attribute as attribute
                    where attribute.attrelid = token.part[4]::oid and attribute.attnum = token.part[5]::smallint
                )
                when 'o' then (
                    select format('operator(%I.%s)', namespace.nspname, operator.oprname)
                    from pg_catalog.pg_operator as operator
                    join pg_catalog.pg_namespace as namespace on namespace.oid = operator.oprnamespace
                    where operator.oid = token.part[4]::oid
                )
                when 't' then (
                    select format('%I.%I', namespace.nspname, type.typname)
                    from pg_catalog.pg_type as type
                    join pg_catalog.pg_namespace as namespace on namespace.oid = type.typnamespace
                    where type.oid = token.part[4]::oid
                )
                when 'l' then (
                    select format('%I.%I', namespace.nspname, collation_.collname)
                    from pg_catalog.pg_collation as collation_
                    join pg_catalog.pg_namespace as namespace on namespace.oid = collation_.collnamespace
                    where collation_.oid = token.part[4]::oid
                )
                else ''
            end as name
        ) as named
    );
end
$function$;
comment on function tenancy.with_names(text) is
'A form of SQL with the names that things have now: @r1@ is the table of that oid, @c1.2@ its second column, @c1.2.3@ the same while it is of the type 3, @n1.2@ the name of that as text, @o1@ an operator, @t1@ a type,'
' @l1@ a collation. So a form means the same after anything was renamed. NULL where one of them is gone, or where the text has anything else between @.';

create or replace function tenancy.schema_of(target regclass)
returns name language sql stable security invoker set search_path = pg_catalog, pg_temp as $function$
    select namespace.nspname
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    where class.oid = target
$function$;
comment on function tenancy.schema_of(regclass) is 'The table''s schema, as the field schema of an error has it.';

create or replace function tenancy.table_of(target regclass)
returns name language sql stable security invoker set search_path = pg_catalog, pg_temp as $function$
    select class.relname
    from pg_catalog.pg_class as class
    where class.oid = target
$function$;
comment on function tenancy.table_of(regclass) is 'The table''s name without its schema, as the field table of an error has it.';

create or replace function tenancy.key_of(target regclass, row_name text)
returns text language sql stable security invoker set search_path = '' as $function$
    select format(
        'pg_catalog.jsonb_build_object(%s)',
        string_agg(format('@n%1$s.%2$s@, %3$I.@c%1$s.%2$s@', target::oid, key_column.attnum, row_name), ', ' order by key_column.attnum)
    )
    from pg_catalog.pg_index as primary_key
    join pg_catalog.pg_attribute as key_column
        on key_column.attrelid = primary_key.indrelid
        and key_column.attnum = any (primary_key.indkey)
    where primary_key.indrelid = target and primary_key.indisprimary
    having count(*) > 0
$function$;
comment on function tenancy.key_of(regclass, text) is
'The primary key of a row, named so in a query, as a form of an SQL expression of type jsonb; NULL where there is no primary key.';

-- What a step asks of each table is plpgsql, whose plans a session keeps.

create or replace function tenancy.leaves(target regclass)
returns setof regclass language plpgsql stable security invoker set search_path = '' as $function$
begin
    return query
    select members.member
    from (
        select target as member
        union
        select tree.relid
        from pg_partition_tree(target) as tree
    ) as members
    -- One by one: a join reads pg_class as a whole, for each table again.
    where (select class.relkind from pg_catalog.pg_class as class where class.oid = members.member) <> 'p'
    order by members.member::oid;
end
$function$;
comment on function tenancy.leaves(regclass) is
'The tables that hold the table''s rows: itself, or, where it is partitioned, the partitions that are not partitioned again.';
