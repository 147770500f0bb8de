-- Purpose: the schema tenancy: settings, the registry of tables, who belongs to which organization, and the lock rules.
-- Touches: new objects in the new schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    drop schema tenancy cascade; after tenancy.roll_back, never before it.

set lock_timeout = '1s';
set statement_timeout = '1min';

create schema if not exists tenancy;
revoke all on schema tenancy from public, anon, authenticated, service_role;
alter default privileges in schema tenancy revoke all on tables from public, anon, authenticated, service_role;
alter default privileges in schema tenancy revoke all on functions from public, anon, authenticated, service_role;

comment on schema tenancy is
'The move from user_id to org_id: what it knows of the tables, what it did, and the functions that do, verify and undo it.'
' For the owner of the database only.';

-- Settings, registry, mapping -----------------------------------------------------------------------------------------

create table if not exists tenancy.settings (
    only_row boolean primary key default true check (only_row),
    default_org_id uuid not null default 'a0000000-0000-0000-0000-000000000001',
    lock_timeout_ms integer not null default 100 check (lock_timeout_ms between 1 and 10000),
    lock_attempts integer not null default 60 check (lock_attempts > 0),
    batch_target_ms integer not null default 100 check (batch_target_ms between 1 and 10000),
    wal_mb_per_second numeric check (wal_mb_per_second > 0),
    paused boolean not null default false,
    fill_org_id boolean not null default false,
    assign_org_to_new_users boolean not null default false,
    small_table_bytes bigint not null default 8388608 check (small_table_bytes >= 0),
    platform_schemas text[] not null default array[
        'auth',
        'cron',
        'extensions',
        'graphql',
        'graphql_public',
        'net',
        'pgbouncer',
        'pgmq',
        'pgsodium',
        'realtime',
        'storage',
        'supabase_functions',
        'supabase_migrations',
        'tenancy',
        'vault'
    ]
);
comment on table tenancy.settings is 'One row. A change counts from the next step or batch on, also while a push is running.';
comment on column tenancy.settings.default_org_id is 'The organization of everyone and everything that tenancy.user_orgs does not place.';
comment on column tenancy.settings.lock_timeout_ms is 'How long a change waits for its lock, and so the longest pause that it can cause.';
comment on column tenancy.settings.lock_attempts is 'How often a lock is asked for, with growing pauses up to 10 s, before the push gives up: 60 is about 6 minutes.';
comment on column tenancy.settings.batch_target_ms is 'How long one batch of the backfill should take.';
comment on column tenancy.settings.wal_mb_per_second is 'How much WAL the server may write while the backfill runs, for small disks. NULL: as much as it comes to.';
comment on column tenancy.settings.paused is 'While it is on, no step begins.';
comment on column tenancy.settings.fill_org_id is
'Whether rows that come without org_id get it from their owner or parent, by a trigger: for the time until the application sends it.'
' After a change run tenancy.next_step(''{fill_missing_org_id}'') until it is done.';
comment on column tenancy.settings.assign_org_to_new_users is 'Whether who signs up gets an organization, see tenancy.assign_org_to_new_users().';
comment on column tenancy.settings.small_table_bytes is 'Up to which size tenancy.onboard takes a table through all phases under one lock: 8 MB is about a second.';
comment on column tenancy.settings.platform_schemas is 'Schemas whose tables are not the application''s.';

insert into tenancy.settings default values
on conflict do nothing;

create table if not exists tenancy.registry (
    schema_name text not null default 'public',
    table_name text not null,
    scope text not null check (scope in ('org', 'excluded')),
    priority text check (priority in ('critical', 'secondary')),
    reason text,
    owner_column text,
    parent_column text,
    primary key (schema_name, table_name),
    constraint an_org_scoped_table_has_a_priority check ((scope = 'org') = (priority is not null)),
    constraint an_excluded_table_has_a_reason check ((scope = 'excluded') = (reason is not null)),
    constraint only_an_org_scoped_table_has_an_owner check (
        scope = 'org'
        or (owner_column is null and parent_column is null)
    )
);
comment on table tenancy.registry is 'Every table that has to do with users, once: scope org gets org_id, scope excluded stays as it is.';
comment on column tenancy.registry.owner_column is 'The column that holds the owning user''s id, uuid or text. NULL: user_id where the table has it.';
comment on column tenancy.registry.parent_column is 'The foreign key column whose org-scoped parent decides where the owner does not. NULL: every such key, in the order of its columns.';

create table if not exists tenancy.user_orgs (
    user_id uuid primary key,
    org_id uuid not null references public.organizations (id) on delete cascade
);
create index if not exists user_orgs_org_id_idx on tenancy.user_orgs (org_id);
comment on table tenancy.user_orgs is
'Which organization a user belongs to, for rows and for JWTs alike. Empty: everything belongs to the default organization.'
' No foreign key to auth.users, so that the rows of a user who is gone can still be placed.';

create or replace function tenancy.org_of(user_id uuid)
returns uuid
language sql
stable
security invoker
set search_path = ''
as $function$
    select coalesce(
        (select user_orgs.org_id from tenancy.user_orgs where user_orgs.user_id = org_of.user_id),
        (select settings.default_org_id from tenancy.settings)
    )
$function$;
comment on function tenancy.org_of(uuid) is 'The organization of a user: from tenancy.user_orgs, else the default organization. Never NULL.';

create or replace function tenancy.create_personal_organizations()
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    created bigint;
begin
    if to_regclass('tenancy.tables_before') is not null then
        if exists (select from tenancy.tables_before) and not exists (select from tenancy.user_orgs) then
            raise exception 'the rows belong to the default organization already: personal organizations must be created before phase 2'
            using
                errcode = 'object_not_in_prerequisite_state',
                detail = 'Roll back to phase 1 first, see tenancy.roll_back.';
        end if;
    end if;

    with personal as materialized (
        select
            users.id as user_id,
            gen_random_uuid() as org_id,
            coalesce(users.email, users.phone, users.id::text) as name
        from auth.users
        where users.id not in (select user_orgs.user_id from tenancy.user_orgs)
    ),
    organization as (
        insert into public.organizations (id, name)
        select
            personal.org_id,
            personal.name
        from personal
    )
    insert into tenancy.user_orgs (user_id, org_id)
    select
        personal.user_id,
        personal.org_id
    from personal;

    get diagnostics created = row_count;
    return created;
end
$function$;
comment on function tenancy.create_personal_organizations() is
'Gives every user who is in no organization one of its own, named by email, phone or id. Returns how many. To be called before'
' phase 2, and again whenever there are new users. Fails where public.organizations requires more than id and name.';

-- What the database holds ---------------------------------------------------------------------------------------------

create or replace view tenancy.application_tables as
select
    relation.oid::regclass as relation,
    namespace.nspname::text collate "default" as schema_name,
    relation.relname::text collate "default" as table_name,
    relation.relkind,
    registry.scope,
    registry.priority,
    registry.parent_column,
    registry.owner_column as registered_owner_column,
    owner.attname::text collate "default" as owner_column,
    owner.atttypid::regtype as owner_type
from pg_catalog.pg_class as relation
join pg_catalog.pg_namespace as namespace
    on namespace.oid = relation.relnamespace
cross join tenancy.settings
left join tenancy.registry
    on registry.schema_name = namespace.nspname
    and registry.table_name = relation.relname
left join pg_catalog.pg_attribute as owner
    on owner.attrelid = relation.oid
    and owner.attname = coalesce(registry.owner_column, 'user_id')
    and owner.attnum > 0
    and not owner.attisdropped
where relation.relkind in ('r', 'p', 'f')
    and not relation.relispartition
    and relation.relpersistence <> 't'
    and namespace.nspname <> all (settings.platform_schemas)
    and namespace.nspname not like 'pg\_%'
    and namespace.nspname <> 'information_schema'
    and relation.oid is distinct from to_regclass('public.organizations')
    and not exists (
        select
        from pg_catalog.pg_depend as dependency
        where dependency.classid = 'pg_catalog.pg_class'::regclass
            and dependency.objid = relation.oid
            and dependency.deptype = 'e'
    );
comment on view tenancy.application_tables is 'Every table of the application with its classification, if it has one. Partitions stand behind their root.';

create or replace view tenancy.table_members as
select
    application_tables.relation as root,
    coalesce(tree.relid, application_tables.relation) as relation
from tenancy.application_tables
left join lateral pg_partition_tree(application_tables.relation) as tree
    on true;
comment on view tenancy.table_members is 'Every table of the application with itself and, where it is partitioned, its partitions of all levels.';

create or replace view tenancy.references_between_tables as
select
    reference.conrelid::regclass as relation,
    reference.confrelid::regclass as parent,
    reference.conname as constraint_name,
    referencing.column_names,
    referencing.parent_column_names
from pg_catalog.pg_constraint as reference
cross join lateral (
    select
        array_agg(child_column.attname::text collate "default" order by pair.position) as column_names,
        array_agg(parent_column.attname::text collate "default" order by pair.position) as parent_column_names
    from unnest(reference.conkey, reference.confkey) with ordinality as pair (child_key, parent_key, position)
    join pg_catalog.pg_attribute as child_column
        on child_column.attrelid = reference.conrelid
        and child_column.attnum = pair.child_key
    join pg_catalog.pg_attribute as parent_column
        on parent_column.attrelid = reference.confrelid
        and parent_column.attnum = pair.parent_key
    where child_column.attname <> 'org_id'
) as referencing
where reference.contype = 'f'
    and reference.conparentid = 0
    and referencing.column_names is not null;
comment on view tenancy.references_between_tables is
'Every foreign key, once, with the columns that say which row is meant: org_id, which may stand beside them, is left out.';

create or replace view tenancy.unclassified_tables as
with recursive evident (relation, reason, owner_column) as (
    select
        candidate.relation,
        'has the column user_id',
        null::text
    from tenancy.application_tables as candidate
    where candidate.scope is null
        and candidate.owner_column is not null

    union

    select
        candidate.relation,
        'has the column org_id',
        null
    from tenancy.application_tables as candidate
    join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = candidate.relation
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
    where candidate.scope is null

    union

    select
        candidate.relation,
        format('references auth.users in %s', reference.column_names[1]),
        reference.column_names[1]
    from tenancy.application_tables as candidate
    join tenancy.references_between_tables as reference
        on reference.relation = candidate.relation
        and reference.parent = to_regclass('auth.users')
    where candidate.scope is null
        and candidate.owner_column is null

    union

    select
        candidate.relation,
        format('references %s', parent.relation),
        null
    from tenancy.references_between_tables as reference
    join tenancy.application_tables as candidate
        on candidate.relation = reference.relation
        and candidate.scope is null
    join (
        select org_scoped.relation
        from tenancy.application_tables as org_scoped
        where org_scoped.scope = 'org'

        union all

        select evident.relation
        from evident
    ) as parent
        on parent.relation = reference.parent
        and parent.relation <> candidate.relation
)
select
    application_tables.relation,
    application_tables.schema_name,
    application_tables.table_name,
    case when count(evident.relation) > 0 then 'org' else 'excluded' end as suggested_scope,
    min(evident.owner_column) as suggested_owner_column,
    coalesce(
        string_agg(distinct evident.reason, ', ' order by evident.reason),
        'has nothing that says whose its rows are'
    ) as reason,
    format('(%L, %L, ''org'', ''secondary'', null)', application_tables.schema_name, application_tables.table_name) as org_row,
    format('(%L, %L, ''excluded'', null, ''<why not>'')', application_tables.schema_name, application_tables.table_name) as excluded_row
from tenancy.application_tables
left join evident
    using (relation)
where application_tables.scope is null
group by
    application_tables.relation,
    application_tables.schema_name,
    application_tables.table_name;
comment on view tenancy.unclassified_tables is
'Tables that are in the registry neither as org nor as excluded, with what speaks for org, and the row to add for either. The push'
' stops while there is one: nothing but its owner''s word tells a table that has no organization from one that was forgotten.';

create or replace view tenancy.coined_names as
select
    relation.oid::regclass as relation,
    coined.kind,
    case
        when octet_length(coined.prefix || relation.relname || coined.suffix) <= 63
            then coined.prefix || relation.relname || coined.suffix
        else (
            select coined.prefix || left(relation.relname, kept) || digest || coined.suffix
            from (select '_' || left(md5(relation.relname), 8)) as shortened (digest)
            cross join generate_series(length(relation.relname), 0, -1) as kept
            where octet_length(coined.prefix || left(relation.relname, kept) || digest || coined.suffix) <= 63
            limit 1
        )
    end::name as name
from pg_catalog.pg_class as relation
cross join (
    values
        ('foreign_key', 'fk_', '_org_id'),
        ('index', 'idx_', '_org_id'),
        ('check', '', '_org_id_not_null'),
        ('other_check', '', '_org_id_not_null_check'),
        ('filler', 'zzz_fill_org_id_', ''),
        ('guard', 'org_id_immutable_', ''),
        ('early_guard', 'zzz_org_id_immutable_', ''),
        ('moving_guard', 'org_id_immutable_rows_', '')
) as coined (kind, prefix, suffix)
where relation.relkind in ('r', 'p');
comment on view tenancy.coined_names is
'What our objects of each table are called. Over the server''s 63 bytes the table''s part is cut and gets eight digits of its md5.';

-- What a step asks of each table is plpgsql, whose plans a session keeps.

create or replace function tenancy.name_of(kind text, target regclass)
returns name
language plpgsql
stable
security invoker
set search_path = ''
as $function$
begin
    return (
        select coined_names.name
        from tenancy.coined_names
        where coined_names.relation = target
            and coined_names.kind = name_of.kind
    );
end
$function$;
comment on function tenancy.name_of(text, regclass) is 'The name in tenancy.coined_names.';

create or replace function tenancy.members(target regclass)
returns setof regclass
language plpgsql
stable
security invoker
set search_path = ''
as $function$
begin
    return query
    select target

    union

    select tree.relid
    from pg_partition_tree(target) as tree;
end
$function$;
comment on function tenancy.members(regclass) is 'The table and, where it is partitioned, its partitions of all levels.';

create or replace function tenancy.leaves(target regclass)
returns setof regclass
language plpgsql
stable
security invoker
set search_path = ''
as $function$
begin
    return query
    select member
    from tenancy.members(target) as member
    join pg_catalog.pg_class
        on pg_class.oid = member
    where pg_class.relkind <> 'p'
    order by member;
end
$function$;
comment on function tenancy.leaves(regclass) is
'The tables that hold the table''s rows: itself, or, where it is partitioned, the partitions that are not partitioned again.';

create or replace function tenancy.root_of(target regclass)
returns regclass
language sql
stable
security invoker
set search_path = ''
as $function$
    select coalesce(pg_partition_root(target), target)
$function$;
comment on function tenancy.root_of(regclass) is 'The partitioned table that a partition belongs to; any other table itself.';

create or replace function tenancy.is_partitioned(target regclass)
returns boolean
language sql
stable
security invoker
set search_path = ''
as $function$
    select pg_class.relkind = 'p'
    from pg_catalog.pg_class
    where pg_class.oid = target
$function$;
comment on function tenancy.is_partitioned(regclass) is 'Whether the table is partitioned and so holds no row itself.';

create or replace view tenancy.org_scoped_tables as
with recursive org_scoped as materialized (
    select application_tables.*
    from tenancy.application_tables
    where application_tables.scope = 'org'
),
reference as materialized (
    select distinct
        references_between_tables.relation,
        references_between_tables.parent
    from tenancy.references_between_tables
    join org_scoped as child
        on child.relation = references_between_tables.relation
    join org_scoped as parent
        on parent.relation = references_between_tables.parent
        and parent.relation <> child.relation
),
level (relation, depth) as (
    select
        org_scoped.relation,
        0
    from org_scoped

    union

    select
        reference.relation,
        level.depth + 1
    from level
    join reference
        on reference.parent = level.relation
    where level.depth < (select count(*) from org_scoped)
)
select
    org_scoped.relation,
    org_scoped.schema_name,
    org_scoped.table_name,
    org_scoped.priority,
    org_scoped.owner_column,
    org_scoped.owner_type,
    org_scoped.parent_column,
    row_number() over (order by deepest.depth, org_scoped.priority, org_scoped.relation::text) as position
from org_scoped
join (
    select
        level.relation,
        max(level.depth) as depth
    from level
    group by level.relation
) as deepest
    using (relation);
comment on view tenancy.org_scoped_tables is
'The registered org-scoped tables that exist, parents before the tables that reference them.';

create or replace view tenancy.org_references as
select
    reference.*,
    row_number() over (
        partition by reference.relation
        order by
            (
                select array_agg(referencing.attnum order by array_position(reference.column_names, referencing.attname::text))
                from pg_catalog.pg_attribute as referencing
                where referencing.attrelid = reference.relation
                    and referencing.attname = any (reference.column_names)
            ),
            reference.constraint_name
    ) as position
from tenancy.references_between_tables as reference
join tenancy.application_tables as child
    on child.relation = reference.relation
    and child.scope = 'org'
join tenancy.application_tables as parent
    on parent.relation = reference.parent
    and parent.scope = 'org';
comment on view tenancy.org_references is
'The foreign keys from an org-scoped table to an org-scoped table, those of a table numbered in the order of their columns.';

create or replace function tenancy.follows_org_id(target regclass)
returns boolean
language plpgsql
stable
security invoker
set search_path = ''
as $function$
declare
    with_org_id constant regclass[] := array(
        select application_tables.relation
        from tenancy.application_tables
        join pg_catalog.pg_attribute as org_id
            on org_id.attrelid = application_tables.relation
            and org_id.attname = 'org_id'
            and not org_id.attisdropped
        where application_tables.scope = 'org'
            and application_tables.relation <> target
    );
begin
    return with_org_id <> '{}' and exists (
        with recursive ancestor (relation) as (
            select org_references.parent
            from tenancy.org_references
            where org_references.relation = target

            union

            select org_references.parent
            from ancestor
            join tenancy.org_references
                on org_references.relation = ancestor.relation
        )
        select
        from ancestor
        where ancestor.relation = any (with_org_id)
    );
end
$function$;
comment on function tenancy.follows_org_id(regclass) is
'Whether a table that this one references, directly or through others, has org_id now: its rows may belong to any organization, and'
' this one''s rows follow them.';

create or replace function tenancy.org_id_sources(target regclass)
returns table (
    ordinal bigint,
    column_name text,
    parent regclass,
    join_clause text
)
language sql
stable
security invoker
set search_path = ''
as $function$
    select
        0,
        owned.owner_column,
        null::regclass,
        format(
            case owned.owner_type
                when 'uuid'::regtype
                    then 'left join tenancy.user_orgs as source_0 on source_0.user_id = todo.%1$I'
                else
                    'left join tenancy.user_orgs as source_0 on source_0.user_id = case'
                    ' when todo.%1$I ~* ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'' then todo.%1$I::uuid end'
            end,
            owned.owner_column
        )
    from tenancy.application_tables as owned
    where owned.relation = tenancy.root_of(target)
        and owned.owner_column is not null

    union all

    select
        reference.position,
        array_to_string(reference.column_names, ', '),
        reference.parent,
        format(
            'left join %s as source_%s on %s',
            reference.parent,
            reference.position,
            (
                select string_agg(
                    format('source_%s.%I = todo.%I', reference.position, pair.parent_column, pair.child_column),
                    ' and '
                    order by pair.ordinal
                )
                from unnest(reference.column_names, reference.parent_column_names)
                    with ordinality as pair (child_column, parent_column, ordinal)
            )
        )
    from tenancy.org_references as reference
    join tenancy.application_tables as child
        on child.relation = reference.relation
    where reference.relation = tenancy.root_of(target)
        and (child.parent_column is null or reference.column_names = array[child.parent_column])
    order by 1
$function$;
comment on function tenancy.org_id_sources(regclass) is
'Where a row''s organization can come from, in the order that decides: ordinal 0 its owner, then each org-scoped parent.'
' A partition''s rows get theirs as those of its partitioned table.';

create or replace view tenancy.backfill_plan as
select
    org_scoped_tables.position,
    org_scoped_tables.relation,
    concat_ws(
        ', else ',
        (
            select string_agg(
                case
                    when source.parent is null then 'the owner in ' || source.column_name
                    else format('%s through %s', source.parent, source.column_name)
                end,
                ', else '
                order by source.ordinal
            )
            from tenancy.org_id_sources(org_scoped_tables.relation) as source
            where exists (select from tenancy.user_orgs)
                or tenancy.follows_org_id(org_scoped_tables.relation)
        ),
        'the default organization'
    ) as source,
    case
        when org_id.attnum is not null then 'batches, of the rows where org_id is NULL'
        when exists (select from tenancy.user_orgs) or tenancy.follows_org_id(org_scoped_tables.relation) then 'batches'
        else 'catalog: no row is touched'
    end as method,
    size.estimated_rows,
    size.table_bytes,
    size.index_bytes
from tenancy.org_scoped_tables
cross join lateral (
    select
        coalesce(sum(greatest(statistics.reltuples, 0)), 0)::bigint as estimated_rows,
        coalesce(sum(pg_relation_size(leaf)), 0)::bigint as table_bytes,
        coalesce(sum(pg_indexes_size(leaf)), 0)::bigint as index_bytes
    from tenancy.leaves(org_scoped_tables.relation) as leaf
    join pg_catalog.pg_class as statistics
        on statistics.oid = leaf
) as size
left join pg_catalog.pg_attribute as org_id
    on org_id.attrelid = org_scoped_tables.relation
    and org_id.attname = 'org_id'
    and not org_id.attisdropped
order by org_scoped_tables.position;
comment on view tenancy.backfill_plan is
'What phases 2 and 3 will do to each table, in this order: where its rows get their organization from, how, and how many there are.'
' Rows are the statistics'' estimate, sizes are bytes.';

create or replace view tenancy.table_obstacles as
select
    candidate.relation,
    candidate.schema_name,
    candidate.table_name,
    candidate.scope,
    obstacle.problem collate "default" as problem,
    obstacle.remedy collate "default" as remedy
from tenancy.application_tables as candidate
left join pg_catalog.pg_attribute as org_id
    on org_id.attrelid = candidate.relation
    and org_id.attname = 'org_id'
    and not org_id.attisdropped
cross join lateral (
    -- What it is --------------------------------------------------------------------------------------------------------

    select
        case
            when member_class.relkind <> 'f' then null
            when candidate.relkind = 'f' then 'is a foreign table, which takes neither foreign key nor trigger of ours'
            else format('has a foreign table among its partitions, %s', member.relation)
        end,
        'register it as excluded'
    from tenancy.table_members as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member.relation
    where member.root = candidate.relation

    union all

    select
        case
            when pg_has_role(current_user, member_class.relowner, 'usage') then null
            when member.relation = candidate.relation
                then format('belongs to %s, and only its owner can alter it', pg_get_userbyid(member_class.relowner))
            else format('has the partition %s, which belongs to %s', member.relation, pg_get_userbyid(member_class.relowner))
        end,
        format('alter table %s owner to %I, as its owner', member.relation, current_user)
    from tenancy.table_members as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member.relation
    where member.root = candidate.relation

    union all

    select
        case
            when member_class.reloftype <> 0 then format('is a typed table (of %s)', member_class.reloftype::regtype)
            when member_class.relnatts >= 1600 then 'has 1600 columns, with the dropped ones, and takes no more'
            when member_class.relforcerowsecurity and not me.rolbypassrls and not me.rolsuper
                then format('hides its rows from %s: row-level security is forced on it', me.rolname)
            when not has_schema_privilege(member_class.relnamespace, 'create')
                then format('is in a schema in which %s may not create an index', me.rolname)
        end,
        'change that, or register it as excluded'
    from tenancy.table_members as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member.relation
    join pg_catalog.pg_roles as me
        on me.rolname = current_user
    where member.root = candidate.relation

    union all

    select
        case
            when inheritance.inhdetachpending then 'has a partition that is being detached'
            when candidate.relkind = 'p' then null
            when inheritance.inhrelid = candidate.relation then 'inherits from another table'
            else 'has tables that inherit from it'
        end,
        case
            when inheritance.inhdetachpending then 'alter table … detach partition … finalize'
            else 'register it as excluded and give it org_id by hand'
        end
    from pg_catalog.pg_inherits as inheritance
    where inheritance.inhrelid = candidate.relation
        or inheritance.inhparent in (
            select member.relation
            from tenancy.table_members as member
            where member.root = candidate.relation
        )

    union all

    select
        format('has a row type that %s.%I uses', using_table.oid::regclass, using_column.attname),
        'add the column by hand, which PostgreSQL allows without a default, or register it as excluded'
    from tenancy.table_members as member
    join pg_catalog.pg_type as row_type
        on row_type.typrelid = member.relation
    cross join lateral unnest(array[row_type.oid, row_type.typarray]) as used_type
    join pg_catalog.pg_depend as usage
        on usage.refclassid = 'pg_catalog.pg_type'::regclass
        and usage.refobjid = used_type
        and usage.classid = 'pg_catalog.pg_class'::regclass
    join pg_catalog.pg_attribute as using_column
        on using_column.attrelid = usage.objid
        and using_column.attnum = usage.objsubid
        and using_column.attnum > 0
        and not using_column.attisdropped
    join pg_catalog.pg_class as using_table
        on using_table.oid = using_column.attrelid
        and using_table.relkind in ('r', 'p', 'm', 'f')
    where member.root = candidate.relation

    union all

    select
        format(
            'has the foreign key %I of or to a partition alone: the rows that it references would not be looked at',
            reference.constraint_name
        ),
        'make it one of or to the whole partitioned table'
    from tenancy.table_members as member
    join tenancy.references_between_tables as reference
        on reference.relation = member.relation
    join pg_catalog.pg_class as parent_class
        on parent_class.oid = reference.parent
        and (parent_class.relispartition or member.relation <> member.root)
    join tenancy.application_tables as parent
        on parent.relation = coalesce(pg_partition_root(reference.parent), reference.parent)
        and parent.scope is distinct from 'excluded'
    where member.root = candidate.relation

    union all

    -- What happens when its rows are written ----------------------------------------------------------------------------

    select
        format('has the rule %I, which rewrites what is written to it', rule.rulename),
        'replace the rule by a trigger, or register it as excluded'
    from tenancy.table_members as member
    join pg_catalog.pg_rewrite as rule
        on rule.ev_class = member.relation
    where member.root = candidate.relation

    union all

    select
        format('has the trigger %I, which is enabled always or for replicas and would fire on the backfill', unstoppable.tgname),
        format('alter table %s enable trigger %I, until the push is over', member.relation, unstoppable.tgname)
    from tenancy.table_members as member
    join pg_catalog.pg_trigger as unstoppable
        on unstoppable.tgrelid = member.relation
        and unstoppable.tgenabled in ('A', 'R')
        and unstoppable.tgtype::integer & 16 > 0
    join pg_catalog.pg_proc as function
        on function.oid = unstoppable.tgfoid
        and function.pronamespace is distinct from to_regnamespace('tenancy')
    where member.root = candidate.relation

    union all

    select
        format(
            'cannot be updated: %s publishes updates and has %s',
            member.relation,
            case
                when member_class.relreplident = 'f' then 'a generated column in its replica identity'
                else 'no replica identity'
            end
        ),
        format('give %s a primary key as its replica identity, or full where it has no generated column', member.relation)
    from tenancy.table_members as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member.relation
        and member_class.relkind = 'r'
    where member.root = candidate.relation
        and (
            member_class.relreplident = 'f'
            or pg_get_replica_identity_index(member.relation) is null
        )
        and exists (
            select
            from tenancy.table_members as published
            join pg_catalog.pg_class as published_class
                on published_class.oid = published.relation
            join pg_catalog.pg_publication_tables as published_table
                on published_table.schemaname = published_class.relnamespace::regnamespace::name
                and published_table.tablename = published_class.relname
            join pg_catalog.pg_publication as publication
                on publication.pubname = published_table.pubname
                and publication.pubupdate
            where published.root = candidate.relation
                and published.relation in (member.relation, candidate.relation)
                and (
                    member_class.relreplident <> 'f'
                    -- PostgreSQL 18 asks that the identity's generated columns be published.
                    or (
                        current_setting('server_version_num')::integer >= 180000
                        and exists (
                            select
                            from pg_catalog.pg_attribute as generated_column
                            where generated_column.attrelid = member.relation
                                and not generated_column.attisdropped
                                and generated_column.attgenerated <> ''
                                and not (
                                    generated_column.attgenerated = 's'
                                    and to_jsonb(publication) ->> 'pubgencols' is not distinct from 's'
                                )
                        )
                    )
                )
        )

    union all

    select
        format('cannot be updated: the publication %I looks at columns of %s beyond its replica identity', publication.pubname, member.relation),
        format('alter publication %I: filter by columns of the replica identity, and publish all of these', publication.pubname)
    from tenancy.table_members as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member.relation
    join pg_catalog.pg_publication_rel as published
        on published.prrelid = member.relation
    join pg_catalog.pg_publication as publication
        on publication.oid = published.prpubid
        and publication.pubupdate
    left join pg_catalog.pg_index as identity
        on identity.indexrelid = pg_get_replica_identity_index(member.relation)
    where member.root = candidate.relation
        and (
            (
                published.prattrs is not null
                and (
                    member_class.relreplident = 'f'
                    or not published.prattrs::smallint[] @> identity.indkey::smallint[]
                )
            )
            or (
                member_class.relreplident <> 'f'
                and exists (
                    select
                    from regexp_matches(published.prqual::text, ':varattno (\d+)', 'g') as filtering (attnum)
                    where filtering.attnum[1]::smallint <> all (identity.indkey)
                )
            )
        )

    union all

    -- What its registration says ----------------------------------------------------------------------------------------

    select
        case
            when candidate.owner_column is null and candidate.registered_owner_column is not null
                then format('has no column %s, its registered owner_column', candidate.registered_owner_column)
            when candidate.owner_type not in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype) then format(
                'keeps its owner in %s %s, which is neither uuid nor text',
                candidate.owner_column,
                candidate.owner_type
            )
        end,
        'name another owner_column in tenancy.registry'

    union all

    select
        format('has no foreign key from %s, its registered parent_column, to an org-scoped table', candidate.parent_column),
        'mend its row in tenancy.registry'
    where candidate.parent_column is not null
        and not exists (
            select
            from tenancy.references_between_tables as reference
            join tenancy.application_tables as parent
                on parent.relation = reference.parent
                and parent.scope = 'org'
            where reference.relation = candidate.relation
                and reference.column_names = array[candidate.parent_column]
        )

    union all

    -- What it has of org_id already -------------------------------------------------------------------------------------

    select
        case
            when org_id.atttypid <> 'uuid'::regtype or org_id.attgenerated <> '' then format(
                'has an org_id already that is %s%s and not a plain uuid',
                format_type(org_id.atttypid, org_id.atttypmod),
                case when org_id.attgenerated <> '' then ', generated,' end
            )
        end,
        'rename that column, or make it uuid'

    union all

    select
        format('has an org_id already whose default is %s', pg_get_expr(its_default.adbin, its_default.adrelid)),
        format('alter table %s alter column org_id drop default: rows would get an organization that nobody chose', candidate.relation)
    from pg_catalog.pg_attrdef as its_default
    where its_default.adrelid = candidate.relation
        and its_default.adnum = org_id.attnum
        and org_id.attgenerated = ''
        and pg_get_expr(its_default.adbin, its_default.adrelid) !~ '^(public\.)?auth_org_id\(\)$'

    union all

    select
        'is partitioned and has org_id already',
        'drop that column, or register it as excluded and do it by hand'
    where candidate.relkind = 'p'
        and org_id.attnum is not null
        and not exists (
            select
            from pg_catalog.pg_attrdef as its_default
            where its_default.adrelid = candidate.relation
                and its_default.adnum = org_id.attnum
        )

    union all

    select
        format(
            'has a foreign key %I from org_id that is not to public.organizations (id) on delete cascade',
            stranger.conname
        ),
        format('alter table %s drop constraint %I', candidate.relation, stranger.conname)
    from pg_catalog.pg_constraint as stranger
    where stranger.conrelid = candidate.relation
        and stranger.contype = 'f'
        and stranger.conkey = array[org_id.attnum]
        and (
            stranger.confrelid is distinct from to_regclass('public.organizations')
            or stranger.confdeltype <> 'c'
            or pg_get_constraintdef(stranger.oid) !~ 'organizations\(id\)'
            or pg_get_constraintdef(stranger.oid) ~ 'NOT ENFORCED'
        )

    union all

    -- Rows that it has, counted in the table -----------------------------------------------------------------------------

    select
        case when counted.row_count <> '0' then concat('has ', counted.row_count, suspicion.problem) end,
        suspicion.remedy
    from (
        select
            candidate.relation,
            ' rows whose org_id is no organization',
            format('insert those organizations, or update %s set org_id = null where that is so', candidate.relation),
            'org_id is not null and not exists (select from public.organizations where organizations.id = held.org_id)'
        where candidate.relkind = 'r'
            and org_id.atttypid = 'uuid'::regtype
            and to_regclass('public.organizations') is not null
            and not exists (
                select
                from pg_catalog.pg_constraint as reference
                where reference.conrelid = candidate.relation
                    and reference.contype = 'f'
                    and reference.convalidated
                    and reference.conkey = array[org_id.attnum]
            )

        union all

        select
            candidate.relation,
            format(' rows without org_id, and %I, which filling them in could break', looking.name),
            format('fill org_id of %s in by hand, or drop %I until the push is over', candidate.relation, looking.name),
            'org_id is null'
        from (
            select looking_constraint.conname as name
            from pg_catalog.pg_constraint as looking_constraint
            where looking_constraint.conrelid = candidate.relation
                and looking_constraint.contype in ('f', 'c', 'x')
                and org_id.attnum = any (looking_constraint.conkey)
                and not (looking_constraint.contype = 'f' and cardinality(looking_constraint.conkey) = 1)
                and pg_get_expr(looking_constraint.conbin, looking_constraint.conrelid) is distinct from '(org_id IS NOT NULL)'

            union all

            select looking_class.relname
            from pg_catalog.pg_index as looking_index
            join pg_catalog.pg_class as looking_class
                on looking_class.oid = looking_index.indexrelid
            where looking_index.indrelid = candidate.relation
                and looking_index.indisunique
                and org_id.attnum = any (looking_index.indkey)
        ) as looking
        where candidate.relkind = 'r'
            and org_id.atttypid = 'uuid'::regtype

        union all

        select
            leaf.relation,
            format(' rows that cannot be updated: they break the check %I, which is not valid', broken_check.conname),
            format('mend those rows of %s, or drop that check until the push is over', leaf.relation),
            format('not (%s)', pg_get_expr(broken_check.conbin, broken_check.conrelid))
        from tenancy.table_members as leaf
        join pg_catalog.pg_class as leaf_class
            on leaf_class.oid = leaf.relation
            and leaf_class.relkind = 'r'
        join pg_catalog.pg_constraint as broken_check
            on broken_check.conrelid = leaf.relation
            and broken_check.contype = 'c'
            and not broken_check.convalidated
            and pg_get_expr(broken_check.conbin, broken_check.conrelid) <> '(org_id IS NOT NULL)'
        where leaf.root = candidate.relation
    ) as suspicion (relation, problem, remedy, condition)
    cross join lateral (
        select (
            xpath(
                '/row/count/text()',
                query_to_xml(
                    format('select count(*) from %s as held where %s', suspicion.relation, suspicion.condition),
                    false,
                    true,
                    ''
                )
            )
        )[1]::text as row_count
    ) as counted

    union all

    -- What has the name of something of ours ----------------------------------------------------------------------------

    select
        format('has a constraint %I, the name of the %s of org_id, that is none', namesake.conname, replace(coined.kind, '_', ' ')),
        format('alter table %s rename constraint %I to …', member.relation, namesake.conname)
    from tenancy.table_members as member
    join tenancy.coined_names as coined
        on coined.relation = member.relation
    join pg_catalog.pg_constraint as namesake
        on namesake.conrelid = member.relation
        and namesake.conname = coined.name
    left join pg_catalog.pg_attribute as member_org_id
        on member_org_id.attrelid = member.relation
        and member_org_id.attname = 'org_id'
        and not member_org_id.attisdropped
    where member.root = candidate.relation
        and namesake.contype <> 'n'
        and (
            (coined.kind = 'foreign_key' and (namesake.contype <> 'f' or namesake.conkey is distinct from array[member_org_id.attnum]))
            or (
                coined.kind = 'check'
                and (
                    namesake.contype <> 'c'
                    or pg_get_expr(namesake.conbin, namesake.conrelid) is distinct from '(org_id IS NOT NULL)'
                )
            )
        )

    union all

    select
        format('cannot have the index %I: there is something else of that name', namesake.relname),
        format('rename %s', namesake.oid::regclass)
    from tenancy.table_members as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member.relation
    join tenancy.coined_names as coined
        on coined.relation = member.relation
        and coined.kind = 'index'
    join pg_catalog.pg_class as namesake
        on namesake.relnamespace = member_class.relnamespace
        and namesake.relname = coined.name
    where member.root = candidate.relation
        and not exists (
            select
            from pg_catalog.pg_index
            join pg_catalog.pg_attribute as first_column
                on first_column.attrelid = pg_index.indrelid
                and first_column.attnum = pg_index.indkey[0]
            where pg_index.indexrelid = namesake.oid
                and pg_index.indrelid = member.relation
                and first_column.attname = 'org_id'
        )

    union all

    select
        format('has a trigger %I, the name of one that keeps org_id, that is none', namesake.tgname),
        format('alter trigger %I on %s rename to …', namesake.tgname, member.relation)
    from tenancy.table_members as member
    join tenancy.coined_names as coined
        on coined.relation in (member.relation, candidate.relation)
        and coined.kind in ('filler', 'guard', 'early_guard', 'moving_guard')
    join pg_catalog.pg_trigger as namesake
        on namesake.tgrelid = member.relation
        and namesake.tgname = coined.name
    join pg_catalog.pg_proc as function
        on function.oid = namesake.tgfoid
        and function.pronamespace is distinct from to_regnamespace('tenancy')
    where member.root = candidate.relation
) as obstacle (problem, remedy)
where obstacle.problem is not null;
comment on view tenancy.table_obstacles is
'What stands in the way of giving a table org_id, whatever its registration: tables that these migrations do not handle, and what'
' they would collide with. The push stops before it touches anything while an org-scoped table has one.';

create or replace view tenancy.registry_problems as
select
    unclassified_tables.schema_name,
    unclassified_tables.table_name,
    format('is not classified: it %s', unclassified_tables.reason) as problem,
    case
        when unclassified_tables.suggested_scope = 'org' then concat(
            format(
                'add %s to the migration ending in _discover_org_scoped_tables.sql, or, if it is not to have org_id, %s',
                unclassified_tables.org_row,
                unclassified_tables.excluded_row
            ),
            case
                when unclassified_tables.suggested_owner_column is not null then format(
                    '; and if %1$s says who owns a row, below the list:'
                    ' update tenancy.registry set owner_column = %1$L where (schema_name, table_name) = (%2$L, %3$L);',
                    unclassified_tables.suggested_owner_column,
                    unclassified_tables.schema_name,
                    unclassified_tables.table_name
                )
            end
        )
        else format(
            'add %s to the migration ending in _discover_org_scoped_tables.sql, or, if its rows belong to organizations, %s',
            unclassified_tables.excluded_row,
            unclassified_tables.org_row
        )
    end as remedy
from tenancy.unclassified_tables

union all

select
    registry.schema_name,
    registry.table_name,
    'is registered and does not exist',
    'create it in an earlier migration, or take its row out of the one ending in _discover_org_scoped_tables.sql'
from tenancy.registry
where to_regclass(format('%I.%I', registry.schema_name, registry.table_name)) is null

union all

select
    registry.schema_name,
    registry.table_name,
    'is registered as org and is no table of the application',
    'take its row out of the migration ending in _discover_org_scoped_tables.sql; of a partition, register the partitioned table'
from tenancy.registry
left join tenancy.application_tables
    using (schema_name, table_name)
where registry.scope = 'org'
    and application_tables.relation is null
    and to_regclass(format('%I.%I', registry.schema_name, registry.table_name)) is not null

union all

select
    table_obstacles.schema_name,
    table_obstacles.table_name,
    table_obstacles.problem,
    table_obstacles.remedy
from tenancy.table_obstacles
where table_obstacles.scope = 'org'

union all

select
    'public',
    'organizations',
    format('belongs to %s, and foreign keys to it need its owner', pg_get_userbyid(organizations.relowner)) collate "default",
    format('alter table public.organizations owner to %I, as its owner', current_user) collate "default"
from pg_catalog.pg_class as organizations
where organizations.oid = to_regclass('public.organizations')
    and not pg_has_role(current_user, organizations.relowner, 'usage');
comment on view tenancy.registry_problems is
'What stops the push before it touches a table: tables that nobody classified, that do not exist, or that cannot be handled.';

create or replace function tenancy.auth_org_id_problem()
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    definition constant text := pg_get_functiondef(to_regprocedure('public.auth_org_id()'));
    claims_before constant text := coalesce(current_setting('request.jwt.claims', true), '');
    probe constant uuid := gen_random_uuid();
    answer uuid;
begin
    if definition is null then
        return 'does not exist';
    end if;
    if not has_function_privilege('authenticated', 'public.auth_org_id()', 'execute') then
        return 'cannot be called by authenticated, whose inserts need it as the default of org_id';
    end if;
    if regexp_replace(definition, '--[^\n]*', '', 'g') ~* 'user_meta_?data' then
        return 'reads user_metadata, which every user can write: one update of it and the user is in another organization';
    end if;

    perform set_config(
        'request.jwt.claims',
        jsonb_build_object(
            'app_metadata', jsonb_build_object('org_id', probe),
            'user_metadata', jsonb_build_object('org_id', gen_random_uuid())
        )::text,
        true
    );
    answer := public.auth_org_id();
    perform set_config('request.jwt.claims', claims_before, true);

    if answer is distinct from probe then
        return format('does not return app_metadata.org_id of the JWT, but %s', coalesce(answer::text, 'NULL'));
    end if;
    return null;
end
$function$;
comment on function tenancy.auth_org_id_problem() is 'What is wrong with public.auth_org_id(); NULL when it can be trusted.';

create or replace function tenancy.assert_registry()
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    default_org_id constant uuid := (select settings.default_org_id from tenancy.settings);
    problems text;
    first_table record;
begin
    if not exists (select from public.organizations where organizations.id = default_org_id) then
        raise exception 'the default organization % does not exist', default_org_id
        using
            errcode = 'foreign_key_violation',
            schema = 'tenancy',
            table = 'settings',
            column = 'default_org_id',
            detail = 'Insert it into public.organizations, or set tenancy.settings.default_org_id to one that exists.';
    end if;

    if tenancy.auth_org_id_problem() is not null then
        raise exception 'public.auth_org_id() %', tenancy.auth_org_id_problem()
        using
            errcode = 'invalid_function_definition',
            detail = 'It decides which rows a user sees. Replace it by one that reads app_metadata alone, then push again.';
    end if;

    select string_agg(
        format('%I.%I %s; %s', found.schema_name, found.table_name, found.problem, found.remedy),
        E'\n'
        order by found.schema_name, found.table_name, found.problem
    )
    into problems
    from tenancy.registry_problems as found;

    if problems is not null then
        select
            found.schema_name,
            found.table_name
        into first_table
        from tenancy.registry_problems as found
        order by found.schema_name, found.table_name
        limit 1;

        raise exception 'the registry does not fit the database: % of its tables stop the push', (
            select count(distinct (found.schema_name, found.table_name))
            from tenancy.registry_problems as found
        )
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = first_table.schema_name,
            table = first_table.table_name,
            detail = problems;
    end if;
end
$function$;
comment on function tenancy.assert_registry() is
'Raises object_not_in_prerequisite_state with every row of tenancy.registry_problems in the DETAIL, foreign_key_violation when'
' the default organization does not exist, and invalid_function_definition when public.auth_org_id() cannot be trusted.';

-- Lock rules ----------------------------------------------------------------------------------------------------------

create table if not exists tenancy.lock_waits (
    step text not null,
    relation regclass not null,
    session_pid integer not null,
    attempts integer not null,
    blocked_since timestamptz not null,
    next_attempt_at timestamptz not null,
    blocked_by text not null,
    primary key (step, relation)
);
comment on table tenancy.lock_waits is 'What a running push waits for at this moment: the table, and the sessions that hold it.';

create or replace function tenancy.lock_holders(target regclass)
returns text
language sql
stable
security invoker
set search_path = ''
as $function$
    select coalesce(string_agg(holder.description, E'\n' order by holder.xact_start), 'nobody any more')
    from (
        select
            coalesce(
                format(
                    'pid %s, %s for %s s: %s',
                    session.pid,
                    case session.backend_type
                        when 'client backend' then session.state
                        else session.backend_type
                    end,
                    round(extract(epoch from clock_timestamp() - session.xact_start), 1),
                    left(regexp_replace(session.query, '\s+', ' ', 'g'), 100)
                ),
                'a prepared transaction (pg_prepared_xacts)'
            ) as description,
            min(session.xact_start) as xact_start
        from pg_catalog.pg_locks as held
        left join pg_catalog.pg_stat_activity as session
            on session.pid = held.pid
        where held.locktype = 'relation'
            and held.database = (select oid from pg_catalog.pg_database where datname = current_database())
            and (
                held.relation = 'public.organizations'::regclass
                or held.relation in (select tenancy.members(target))
            )
            and held.granted
            and held.pid is distinct from pg_backend_pid()
        group by description
        order by xact_start
        limit 5
    ) as holder
$function$;
comment on function tenancy.lock_holders(regclass) is
'Who holds a lock on the table or on public.organizations now: pid, state, age of the transaction, query; oldest first, five at most.';

create or replace function tenancy.change_table(target regclass, statement text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    milliseconds constant integer := (select settings.lock_timeout_ms from tenancy.settings);
    tables constant integer := (select count(*) from tenancy.members(target));
begin
    perform set_config('lock_timeout', '1200ms', true);
    execute format('lock table %s in share update exclusive mode', target);
    perform set_config('lock_timeout', format('%sms', greatest(milliseconds / tables, 1)), true);
    execute statement;
end
$function$;
comment on function tenancy.change_table(regclass, text) is
'Runs one DDL statement on a table under the lock rules. First it takes the lock that autovacuum has and reads and writes do not'
' mind: a worker in the way is cancelled after deadlock_timeout (1 s) and cannot come back, and the application waits for none of'
' that. Only then it asks for the strong lock, for lock_timeout_ms, since the application queues behind that one; partitions, which'
' are locked one after the other, share that time. Raises lock_not_available when either wait is over.';

create or replace function tenancy.wait_for_lock(step text, target regclass, waiting tenancy.lock_waits)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    failed_attempts constant integer := coalesce(waiting.attempts, 0) + 1;
    pause_seconds constant double precision := least(0.05 * power(1.5, failed_attempts), 10) * (0.5 + random() / 2);
    holders constant text := tenancy.lock_holders(target);
begin
    if failed_attempts >= (select settings.lock_attempts from tenancy.settings) then
        raise exception '% got no lock on % in % attempts since %',
            step,
            target,
            failed_attempts,
            date_trunc('second', waiting.blocked_since)
        using
            errcode = 'lock_not_available',
            detail = format(
                E'Held by:\n%s\nNothing is lost: wait for them or end them (pg_terminate_backend), then push again.',
                holders
            );
    end if;

    insert into tenancy.lock_waits
    values (
        step,
        target,
        pg_backend_pid(),
        failed_attempts,
        coalesce(waiting.blocked_since, clock_timestamp()),
        clock_timestamp() + make_interval(secs => pause_seconds),
        holders
    )
    on conflict on constraint lock_waits_pkey do update
    set
        session_pid = excluded.session_pid,
        attempts = excluded.attempts,
        blocked_since = excluded.blocked_since,
        next_attempt_at = excluded.next_attempt_at,
        blocked_by = excluded.blocked_by;
end
$function$;
comment on function tenancy.wait_for_lock(text, regclass, tenancy.lock_waits) is
'Notes a lock that was not to be had and when to ask again: pauses grow from 50 ms to 10 s, with jitter.'
' Raises lock_not_available with the holders once settings.lock_attempts are used up.';

create or replace function tenancy.run_step(step text, target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    worked boolean;
begin
    execute format('select tenancy.%I($1)', step)
    into worked
    using target;
    return worked;
end
$function$;
comment on function tenancy.run_step(text, regclass) is
'Runs tenancy.<step>(regclass) once and returns what that does: whether it had something to do.';

create or replace function tenancy.work_on(step text, target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    waiting tenancy.lock_waits;
    worked boolean;
begin
    if (select settings.paused from tenancy.settings) then
        perform pg_sleep(0.5);
        return true;
    end if;

    select lock_waits.*
    into waiting
    from tenancy.lock_waits
    where lock_waits.step = work_on.step
        and lock_waits.relation = target
        and lock_waits.session_pid = pg_backend_pid();

    if waiting.next_attempt_at > clock_timestamp() then
        return false;
    end if;

    -- A crash may take the last steps with it, and what is noted of them: they are done again.
    perform set_config('synchronous_commit', 'off', true);

    -- One step at a time, whoever runs it; a second push waits for the first one's current step.
    perform set_config('lock_timeout', '0', true);
    perform pg_advisory_xact_lock(hashtext('tenancy.work_on'));

    begin
        worked := tenancy.run_step(step, target);
    exception
        when lock_not_available or deadlock_detected or serialization_failure then
            perform tenancy.wait_for_lock(step, target, waiting);
            return false;
    end;

    delete from tenancy.lock_waits
    where lock_waits.step = work_on.step
        and lock_waits.relation = target;
    return worked;
end
$function$;
comment on function tenancy.work_on(text, regclass) is
'Runs tenancy.<step>(regclass) once on one table: one bounded piece of work, to be committed by the caller. Returns whether it'
' worked, so that it should be called again; false also while the table''s lock is not to be had, which tenancy.lock_waits tells.';

create or replace function tenancy.work_on_leaves(step text, target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    leaf regclass;
begin
    for leaf in
        select tenancy.leaves(target)
    loop
        if tenancy.run_step(step, leaf) then
            return true;
        end if;
    end loop;
    return false;
end
$function$;
comment on function tenancy.work_on_leaves(text, regclass) is
'Runs tenancy.<step>(regclass) on the first partition of a partitioned table that needs it. Returns whether one did.';

create or replace function tenancy.next_step(steps text[], target regclass default null)
returns regclass
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    relations regclass[];
    behind integer;
    candidate regclass;
    step text;
    seconds double precision;
begin
    if target is not null then
        foreach step in array steps loop
            if tenancy.work_on(step, target) then
                return target;
            end if;
        end loop;
    end if;

    relations := array(
        select application_tables.relation
        from tenancy.application_tables
        where application_tables.scope = 'org'
        order by
            application_tables.schema_name,
            application_tables.table_name
    );
    behind := coalesce(array_position(relations, target), 0) + 1;
    foreach candidate in array relations[behind:] || relations[:behind - 1] loop
        foreach step in array steps loop
            if tenancy.work_on(step, candidate) then
                return candidate;
            end if;
        end loop;
    end loop;

    select
        lock_waits.relation,
        extract(epoch from lock_waits.next_attempt_at - clock_timestamp())
    into
        candidate,
        seconds
    from tenancy.lock_waits
    where lock_waits.step = any (steps)
        and lock_waits.session_pid = pg_backend_pid()
    order by lock_waits.next_attempt_at
    limit 1;

    perform pg_sleep(greatest(seconds, 0));
    return candidate;
end
$function$;
comment on function tenancy.next_step(text[], regclass) is
'work_on for the next org-scoped table that needs one of the steps: target, the one worked on last, then those behind it, then'
' those before it; last of all the tables whose lock was not to be had, when their pause is over. Returns the table, NULL when none'
' is left: loop target := tenancy.next_step(''{…}'', target); exit when target is null; commit; end loop. What a table needs is'
' read from its definition each time, so a run that was killed goes on where it stopped.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;
