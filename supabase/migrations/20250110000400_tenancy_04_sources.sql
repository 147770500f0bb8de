-- Purpose: where the organization of a table's rows comes from, in the order that decides.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.org_scoped_tables as
with recursive org_scoped as materialized (
    select application_tables.*
    from tenancy.application_tables
    where application_tables.scope = 'org'
),
reference as materialized (
    select distinct references_between_tables.relation, references_between_tables.parent
    from tenancy.references_between_tables
    join org_scoped as child on child.relation = references_between_tables.relation
    join org_scoped as parent
        on parent.relation = references_between_tables.parent
        and parent.relation <> child.relation
),
level (relation, depth) as (
    select org_scoped.relation, 0
    from org_scoped
    union
    select reference.relation, level.depth + 1
    from level
    join reference on reference.parent = level.relation
    where level.depth < (select count(*) from org_scoped)
)
select
    org_scoped.relation, org_scoped.schema_name, org_scoped.table_name, org_scoped.qualified_name,
    org_scoped.priority,
    row_number() over (order by deepest.depth, org_scoped.priority, org_scoped.qualified_name) as position
from org_scoped
join (
    select level.relation, max(level.depth) as depth
    from level
    group by level.relation
) as deepest
    using (relation);
comment on view tenancy.org_scoped_tables is
'The registered org-scoped tables that exist, parents before the tables that reference them.';

create or replace view tenancy.org_references as
select
    reference.*, parent.qualified_name as parent_name,
    row_number() over (
        partition by reference.relation
        order by reference.attnums, reference.constraint_name
    ) as position
from tenancy.references_between_tables as reference
join tenancy.application_tables as child
    on child.relation = reference.relation
    and child.scope = 'org'
join tenancy.application_tables as parent
    on parent.relation = reference.parent
    and parent.scope = 'org';
comment on view tenancy.org_references is
'The foreign keys from an org-scoped table to an org-scoped table, those of each table numbered in the order of their columns.';

create or replace view tenancy.owner_columns as
select
    application_tables.relation, column_.attnum, column_.attname::text collate "default" as column_name,
    column_.attnotnull as is_not_null, keyed.is_keyed, column_.atttypid::bigint as type_oid,
    case column_.attname when 'user_id' then 1 when 'owner_id' then 2 when 'created_by' then 3 else 4 end as rank,
    exists (
        select from tenancy.unique_columns
        where unique_columns.relation = application_tables.relation and unique_columns.attnum = column_.attnum
    ) as is_unique,
    case
        when base.type = 'uuid'::regtype and column_.atttypid = base.type then '{row}.@c%1$s.%2$s.%3$s@'
        when base.type = 'uuid'::regtype then '{row}.@c%1$s.%2$s.%3$s@::pg_catalog.uuid'
        else 'case when {row}.@c%1$s.%2$s.%3$s@::pg_catalog.text operator(pg_catalog.~*)'
            ' ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$''::pg_catalog.text'
            ' then {row}.@c%1$s.%2$s.%3$s@::pg_catalog.text::pg_catalog.uuid end'
    end as user_expression
from tenancy.application_tables
join pg_catalog.pg_attribute as column_
    on column_.attrelid = application_tables.relation
    and column_.attnum > 0
    and not column_.attisdropped
cross join lateral (
    with recursive domain (type, base) as (
        select type.oid, type.typbasetype
        from pg_catalog.pg_type as type
        where type.oid = column_.atttypid
        union all
        select type.oid, type.typbasetype
        from domain
        join pg_catalog.pg_type as type on type.oid = domain.base
    )
    select domain.type::regtype
    from domain
    where domain.base = 0
) as base (type)
cross join lateral (
    select exists (
        select from tenancy.references_between_tables as reference
        where reference.relation = application_tables.relation
            and reference.attnums = array[column_.attnum]
            and reference.parent = to_regclass('auth.users')
            and reference.parent_column_names = array['id']
    ) as is_keyed
) as keyed
where base.type in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
    and (keyed.is_keyed or column_.attname = 'user_id' or column_.attname = any (application_tables.org_from))
    and not exists (
        select from tenancy.references_between_tables as reference
        left join tenancy.application_tables as parent on parent.relation = reference.parent
        where reference.relation = application_tables.relation
            and reference.attnums = array[column_.attnum]
            and not keyed.is_keyed
            -- A key of something else is no user's id, unless its name says so.
            and (column_.attname <> 'user_id' or parent.scope = 'org' or reference.parent = to_regclass('public.organizations'))
    );
comment on view tenancy.owner_columns is
'The columns that hold users'' ids, uuid or text: those with a foreign key to auth.users (is_keyed), user_id, and those that'
' registry.org_from names. user_expression: the user''s id of {row}, as a form.';

create or replace view org_migration.source_paths as
with recursive step (root, entry, attnums, at, at_name, hops, visited, joins, row_name, key_attnums, is_identity) as (
    select
        application_tables.relation, null::text, null::smallint[], application_tables.relation, application_tables.qualified_name, 0,
        array[application_tables.relation], '', '{child}', null::smallint[], true
    from tenancy.application_tables
    where application_tables.scope = 'org'
    union all
    -- Through the keys of tables that are not org-scoped.
    select
        step.root, coalesce(step.entry, array_to_string(link.column_names, ', ')), coalesce(step.attnums, link.attnums),
        link.parent, via.qualified_name, step.hops + 1, step.visited || link.parent,
        concat(
            step.joins,
            format(
                E'\nleft join @r%s@ as {source}_%s on %s', link.parent::oid, step.hops + 1,
                replace(replace(link.condition, '{parent}', format('{source}_%s', step.hops + 1)), '{child}', step.row_name)
            )
        ),
        format('{source}_%s', step.hops + 1),
        link.parent_attnums,
        step.is_identity and (
            step.hops = 0
            or step.key_attnums = link.attnums
            or exists (
                select from tenancy.unique_columns
                where unique_columns.relation = step.at and array[unique_columns.attnum] = link.attnums
            )
        )
    from step
    join tenancy.references_between_tables as link
        on link.relation = step.at
        and not link.is_period
    join tenancy.application_tables as via
        on via.relation = link.parent
        and via.scope is distinct from 'org'
    -- A query on the table of another role runs that role's functions, in the conditions of its indexes.
    join pg_catalog.pg_class as via_class
        on via_class.oid = link.parent
        and pg_has_role(current_user, via_class.relowner, 'usage')
    where step.hops < 3
        and link.parent <> all (step.visited)
)
select
    'owner' as kind, step.root, coalesce(step.entry, owner_columns.column_name) as entry,
    coalesce(step.attnums, array[owner_columns.attnum]) as attnums, step.at_name, step.hops, step.joins,
    replace(format(owner_columns.user_expression, step.at::oid, owner_columns.attnum, owner_columns.type_oid), '{row}', step.row_name) as expression,
    owner_columns.is_keyed, owner_columns.rank,
    step.hops = 0 or step.is_identity and (
        step.key_attnums = array[owner_columns.attnum] or owner_columns.is_unique or owner_columns.rank < 3
    ) as is_identity,
    step.hops = 0 or step.is_identity and (step.key_attnums = array[owner_columns.attnum] or owner_columns.is_unique) as is_sure,
    owner_columns.is_not_null
from step
join tenancy.owner_columns on owner_columns.relation = step.at
union all
select
    'organization', step.root, coalesce(step.entry, array_to_string(link.column_names, ', ')),
    coalesce(step.attnums, link.attnums), step.at_name, step.hops,
    concat(
        step.joins,
        E'\nleft join public.organizations as {source} on ',
        replace(replace(link.condition, '{parent}', '{source}'), '{child}', step.row_name)
    ),
    '{source}.id', true, 1, step.hops = 0 or step.is_identity and step.key_attnums = link.attnums, true, true
from step
join tenancy.references_between_tables as link
    on link.relation = step.at
    and link.parent = to_regclass('public.organizations');
comment on view org_migration.source_paths is
'Every way from a row of an org-scoped table to a user or an organization: in a column of its own (hops 0), or through keys of tables that'
' are not org-scoped. is_identity: each row on the way stands for one user, as profiles (id) does, or one organization: it decides unnamed.';

create or replace view tenancy.possible_sources as
with candidate as (
    select distinct on (source_paths.root, source_paths.entry, source_paths.kind)
        source_paths.root, source_paths.entry, source_paths.attnums, source_paths.kind, null::regclass as parent, null::name as constraint_name,
        source_paths.joins, source_paths.expression, source_paths.hops,
        source_paths.is_identity as is_detected,
        case when source_paths.hops > 0 then format(' through %s', source_paths.at_name) end as way,
        -- The organization column, then owners, then parents, then users whom a row on the way only names.
        case when source_paths.kind = 'organization' then 1 when source_paths.is_sure then 2 else 4 end as place,
        first_column.attnotnull as is_not_null,
        case first_column.attname when 'user_id' then 1 when 'owner_id' then 2 when 'created_by' then 3 else 4 end as rank
    from org_migration.source_paths
    join pg_catalog.pg_attribute as first_column
        on first_column.attrelid = source_paths.root
        and first_column.attnum = source_paths.attnums[1]
    order by
        source_paths.root, source_paths.entry, source_paths.kind, source_paths.is_keyed and source_paths.is_identity desc,
        source_paths.hops, source_paths.is_keyed desc, source_paths.is_not_null desc, source_paths.rank, source_paths.joins
),
possible as (
    select candidate.*
    from candidate
    union all
    select
        org_references.relation, array_to_string(org_references.column_names, ', '), org_references.attnums, 'parent',
        org_references.parent, org_references.constraint_name,
        format(
            E'\nleft join @r%s@ as {source} on %s', org_references.parent::oid, replace(org_references.condition, '{parent}', '{source}')
        ),
        '{source}.org_id', 0, true, format('%s through ', org_references.parent_name), 3, null, null
    from tenancy.org_references
    where not org_references.is_period
),
ordered as (
    select
        possible.*, application_tables.org_from,
        row_number() over (
            partition by possible.root
            order by
                array_position(application_tables.org_from, possible.entry), possible.place, possible.hops > 0, possible.is_not_null desc,
                possible.rank,
                possible.attnums, possible.constraint_name
        ) as ordinal
    from possible
    join tenancy.application_tables on application_tables.relation = possible.root
    where case when application_tables.org_from is null then possible.is_detected else possible.entry = any (application_tables.org_from) end
)
select
    ordered.root, ordered.ordinal, ordered.entry, ordered.attnums, ordered.kind, ordered.parent,
    case ordered.kind
        when 'parent' then ordered.way || ordered.entry
        else format('the %s in %s%s', ordered.kind, ordered.entry, ordered.way)
    end as description,
    replace(ordered.joins, '{source}', named.alias) || case when ordered.kind = 'owner' then format(
        E'\nleft join tenancy.user_orgs as user_%1$s on user_%1$s.user_id operator(pg_catalog.=) %2$s'
        ' left join lateral ('
        'select organizations.id from auth.users join public.organizations as organizations on organizations.id operator(pg_catalog.=) case'
        ' when users.raw_app_meta_data operator(pg_catalog.->>) ''org_id''::pg_catalog.text operator(pg_catalog.~*)'
        ' ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$''::pg_catalog.text'
        ' then (users.raw_app_meta_data operator(pg_catalog.->>) ''org_id''::pg_catalog.text)::pg_catalog.uuid end'
        ' where users.id operator(pg_catalog.=) case when user_%1$s.user_id is null then %2$s end offset 0) as claim_%1$s on true',
        ordered.ordinal, replace(ordered.expression, '{source}', named.alias)
    ) else '' end as joins,
    case
        when ordered.kind = 'owner' then format('coalesce(user_%1$s.org_id, claim_%1$s.id)', ordered.ordinal)
        else replace(ordered.expression, '{source}', named.alias)
    end as org_id,
    case ordered.kind
        when 'owner' then format('coalesce(user_%1$s.org_id, claim_%1$s.id) is not null', ordered.ordinal)
        when 'organization' then format('source_%s.id is not null', ordered.ordinal)
        else format('source_%s.ctid is not null', ordered.ordinal)
    end as condition,
    case when ordered.kind = 'owner' then replace(ordered.expression, '{source}', named.alias) end as user_id
from ordered
cross join lateral (select format('source_%s', ordered.ordinal) as alias) as named;
comment on view tenancy.possible_sources is 'The query of tenancy.sources.';

create or replace function tenancy.find_sources()
returns setof tenancy.possible_sources language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    return query
    select possible_sources.*
    from tenancy.possible_sources;
end
$function$;
comment on function tenancy.find_sources() is 'The rows of tenancy.possible_sources, planned once per session, as tenancy.classify_tables.';

create or replace view tenancy.sources as
select sources.*
from tenancy.find_sources() as sources;
comment on view tenancy.sources is
'Where a row''s organization can come from, per org-scoped table in the order that decides: the entries of registry.org_from, or, without'
' those, what is detected: columns that name an organization, owners (of its own before those through other tables, NOT NULL first, then'
' user_id, owner_id, created_by), org-scoped parents in the order of their columns, and last users whom a table on the way names in a column'
' that is not unique. Of an owner who is in several organizations org_migration.source_rules lets a parent decide. joins, org_id, condition (it decides) and user_id are forms over the row, {child}.';

create or replace view org_migration.following_tables as
with recursive followed (relation) as (
    select org_id_columns.relation
    from tenancy.org_id_columns
    where org_id_columns.is_root and org_id_columns.attnum is not null
    union
    select sources.root
    from tenancy.sources
    where sources.kind = 'organization'
    union
    select org_references.relation
    from followed
    join tenancy.org_references on org_references.parent = followed.relation
),
following (relation) as (
    select org_references.relation
    from followed
    join tenancy.org_references
        on org_references.parent = followed.relation
        and org_references.parent <> org_references.relation
    union
    select sources.root
    from tenancy.sources
    where sources.kind = 'organization'
)
select following.relation
from following
-- Mostly there is nothing of the kind yet, and no view need look at all tables.
where exists (
    select from pg_catalog.pg_attribute as org_id
    join pg_catalog.pg_class as class on class.oid = org_id.attrelid
    where org_id.attname = 'org_id'
        and not org_id.attisdropped
        and class.relkind in ('r', 'p', 'f')
        and class.relnamespace::oid <> all (array_remove(array[to_regnamespace('tenancy'), to_regnamespace('org_migration')]::oid[], null))
) or exists (
    select from pg_catalog.pg_constraint as reference
    join pg_catalog.pg_class as class on class.oid = reference.conrelid
    where reference.confrelid = to_regclass('public.organizations')
        and class.relnamespace::oid <> all (array_remove(array[to_regnamespace('tenancy'), to_regnamespace('org_migration')]::oid[], null))
);
comment on view org_migration.following_tables is
'The org-scoped tables whose rows follow an organization that they name, or reference, directly or through others, a table that has org_id'
' or names one: their rows may belong to any organization.';

create or replace view org_migration.claimed_organizations as
select coalesce(
    (
        xpath(
            '/row/count/text()',
            query_to_xml(
                format(
                    'select count(*) from auth.users join public.organizations'
                    ' on organizations.id::text = lower(users.raw_app_meta_data ->> ''org_id'') where organizations.id <> %L',
                    (select settings.default_org_id from tenancy.settings)
                ),
                false, true, ''
            )
        )
    )[1]::text::bigint,
    0
) as row_count
where exists (select from tenancy.organizations_id);
comment on view org_migration.claimed_organizations is 'How many users have another organization than the default one in app_metadata. No row without organizations.';

create or replace function tenancy.cross_org_references(target regclass default null)
returns table (
    relation regclass,
    row_key jsonb,
    org_id uuid,
    constraint_name name,
    parent regclass,
    parent_org_id uuid
)
language plpgsql stable security invoker set search_path = '' as $function$
declare
    reference record;
begin
    for reference in
        select
            org_references.*,
            tenancy.with_names(replace(replace(org_references.condition, '{parent}', 'parent'), '{child}', 'child')) as named_condition
        from tenancy.org_references
        where org_references.relation = coalesce(target, org_references.relation)
            and 2 = (
                select count(distinct attrelid) from pg_catalog.pg_attribute
                where attrelid in (org_references.relation, org_references.parent) and attname = 'org_id' and not attisdropped
            ) + (org_references.relation = org_references.parent)::integer
        order by org_references.relation::text, org_references.position
    loop
        return query execute format(
            $sql$
                select %L::regclass, %s, child.org_id, %L::name, %L::regclass, parent.org_id
                from %s as child
                join %s as parent on %s
                where parent.org_id is distinct from child.org_id
            $sql$,
            reference.relation,
            coalesce(tenancy.with_names(tenancy.key_of(reference.relation, 'child')), 'to_jsonb(child)'),
            reference.constraint_name, reference.parent, reference.relation, reference.parent,
            reference.named_condition
        );
    end loop;
end
$function$;
comment on function tenancy.cross_org_references(regclass) is
'Rows that belong to another organization than a row they reference: of one table, or of all. row_key is the primary key, the whole'
' row where there is none. It reads every table that references another, so it takes as long as that.';
