-- Purpose: the tables that these migrations do not handle, by what they are, and rows that would get an organization that is not theirs.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

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
    )
union all
select
    'excluded_with_triggers', 'stops', table_inventory.qualified_name, table_inventory.qualified_name,
    'is excluded and keeps the triggers of org_id from when it was org-scoped, which nothing looks after any more',
    format(
        'register it as org again and undo that first, as in docs/operate.md; or %s; alter table %s drop column org_id',
        string_agg(format('drop trigger %I on %s', its_trigger.tgname, table_inventory.qualified_name), '; ' order by its_trigger.tgname),
        table_inventory.qualified_name
    ) collate "default"
from tenancy.registered_tables
join tenancy.table_inventory on table_inventory.relation = registered_tables.relation
join pg_catalog.pg_trigger as its_trigger
    on its_trigger.tgrelid = registered_tables.relation
    and its_trigger.tgfoid in (
        to_regprocedure('tenancy.fill_org_id()'), to_regprocedure('tenancy.refuse_org_id_change()')
    )
where registered_tables.scope = 'excluded'
group by table_inventory.qualified_name;
comment on view tenancy.registry_findings is
'What is wrong with the registry: tables that nobody classified, that do not exist, or that are none of the application''s.';

create or replace view tenancy.table_findings as
with member as (
    select
        table_members.*, root.qualified_name as root_name, root.relkind as root_kind,
        table_members.relation = table_members.root as is_root,
        class.reloftype, class.relnatts, class.relforcerowsecurity
    from tenancy.table_members
    join tenancy.application_tables as root on root.relation = table_members.root
    join pg_catalog.pg_class as class on class.oid = table_members.relation
    where table_members.scope = 'org'
)
select found.code, 'stops' as severity, found.object, found.table_name, found.problem, found.remedy
from (
    select
        case when member.is_root then 'foreign_table' else 'foreign_partition' end as code,
        member.qualified_name as object, member.root_name as table_name,
        case
            when member.is_root then 'is a foreign table, which takes neither foreign key nor trigger of ours'
            else format('has a foreign table among its partitions, %s', member.qualified_name)
        end as problem,
        'register it as excluded' as remedy
    from member
    where member.relkind = 'f'
    union all
    select
        case when member.is_root then 'table_of_another_role' else 'partition_of_another_role' end,
        member.qualified_name, member.root_name,
        case
            when member.is_root then format('belongs to %s, and only its owner can alter it', pg_get_userbyid(member.relowner))
            else format('has the partition %s, which belongs to %s', member.qualified_name, pg_get_userbyid(member.relowner))
        end,
        format('alter table %s owner to %I, as its owner', member.qualified_name, current_user)
    from member
    where not pg_has_role(current_user, member.relowner, 'usage')
    union all
    select
        unfit.code, member.qualified_name, member.root_name, unfit.problem,
        'change that, or register it as excluded'
    from member
    join pg_catalog.pg_roles as me on me.rolname = current_user
    cross join lateral (
        values
            ('typed_table', member.reloftype <> 0, format('is a typed table (of %s)', format_type(member.reloftype, null))),
            ('too_many_columns', member.relnatts >= 1600, 'has 1600 columns, with the dropped ones, and takes no more'),
            (
                'forced_row_security',
                member.relforcerowsecurity and not me.rolbypassrls and not me.rolsuper,
                format('hides its rows from %s: row-level security is forced on it', me.rolname)
            ),
            (
                'owner_without_privileges',
                not (has_table_privilege(member.relation, 'select') and has_table_privilege(member.relation, 'update')),
                format('no longer lets %s, its owner, read and update it: grant select, update on %s to %1$I', me.rolname, member.qualified_name)
            ),
            (
                'schema_without_create',
                not has_schema_privilege(member.relnamespace, 'create'),
                format('is in a schema in which %s may not create an index', me.rolname)
            )
    ) as unfit (code, holds, problem)
    where unfit.holds
    union all
    select
        case
            when inheritance.inhdetachpending then 'partition_being_detached'
            when inheritance.inhrelid = member.relation then 'inherits'
            else 'inherited_from'
        end,
        member.qualified_name, member.root_name,
        case
            when inheritance.inhdetachpending then 'has a partition that is being detached'
            when inheritance.inhrelid = member.relation then 'inherits from another table'
            else 'has tables that inherit from it'
        end,
        case
            when inheritance.inhdetachpending then 'alter table … detach partition … finalize'
            else 'register it as excluded and give it org_id by hand'
        end
    from member
    join pg_catalog.pg_inherits as inheritance
        on inheritance.inhparent = member.relation
        or (inheritance.inhrelid = member.relation and member.is_root)
    where inheritance.inhdetachpending
        or member.root_kind <> 'p'
    union all
    select
        'row_type_in_use',
        using_table.oid::regclass::text,
        member.root_name,
        format('has a row type that %s.%I uses', using_table.oid::regclass, using_column.attname),
        'add the column by hand, which PostgreSQL allows without a default, or register it as excluded'
    from member
    join pg_catalog.pg_type as row_type on row_type.typrelid = member.relation
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
    union all
    select
        'partition_foreign_key', reference.constraint_name, member.root_name,
        format(
            'has the foreign key %I of or to a partition alone: the rows that it references would not be looked at',
            reference.constraint_name
        ),
        'make it one of or to the whole partitioned table'
    from member
    join tenancy.references_between_tables as reference on reference.relation = member.relation
    join pg_catalog.pg_class as parent_class
        on parent_class.oid = reference.parent
        and (parent_class.relispartition or not member.is_root)
    join tenancy.application_tables as parent
        on parent.relation = coalesce(pg_partition_root(reference.parent), reference.parent)
        and parent.scope is distinct from 'excluded'
    union all
    select
        'rule', rule.rulename, member.root_name,
        format('has the rule %I, which rewrites what is written to it', rule.rulename),
        'replace the rule by a trigger, or register it as excluded'
    from member
    join pg_catalog.pg_rewrite as rule on rule.ev_class = member.relation
    union all
    select
        'always_trigger', unstoppable.tgname, member.root_name,
        format('has the trigger %I, which is enabled always or for replicas and would fire on the backfill', unstoppable.tgname),
        format('alter table %s enable trigger %I, until the push is over', member.qualified_name, unstoppable.tgname)
    from member
    join pg_catalog.pg_trigger as unstoppable
        on unstoppable.tgrelid = member.relation
        and unstoppable.tgenabled in ('A', 'R')
        and unstoppable.tgtype::integer & 16 > 0
    join pg_catalog.pg_proc as function
        on function.oid = unstoppable.tgfoid
        and function.pronamespace is distinct from to_regnamespace('tenancy')
) as found;
comment on view tenancy.table_findings is
'What stands in the way of giving an org-scoped table org_id: tables that these migrations do not handle. The push stops before it'
' touches anything while there is one.';

create or replace view org_migration.userless_organizations as
with naming as materialized (
    select
        source_paths.root, source_paths.entry,
        format('public.organizations as named join %s as todo on todo.%I = named.id', source_paths.root, source_paths.entry) as named
    from org_migration.source_paths
    join tenancy.sources
        on sources.root = source_paths.root
        and sources.entry = source_paths.entry
        and sources.kind = source_paths.kind
    where source_paths.kind = 'organization' and source_paths.hops = 0
        and exists (select from tenancy.organizations_id)
),
inhabited as materialized (
    select
        query_to_xml(
            format(
                $sql$
                    with inhabited (id) as (
                        select organizations.id from public.organizations where organizations.id = any (%1$L)
                        union
                        select organizations.id from public.organizations
                        join auth.users on lower(users.raw_app_meta_data ->> 'org_id') = organizations.id::text
                    )
                    -- The preflight does not know which organizations a mapping names.
                    select 1 as found
                    where %2$L and not exists (select from public.organizations where organizations.id = any (%1$L)) %3$s
                $sql$,
                (select coalesce(array_agg(distinct user_orgs.org_id), '{}') from tenancy.user_orgs),
                (select mapping_state.is_filled from tenancy.mapping_state),
                string_agg(format('or exists (select from %s where named.id in (select inhabited.id from inhabited))', naming.named), ' ')
            ),
            false, true, ''
        )::text <> '' as is_any
    from naming
    having count(*) > 0
)
select naming.root, string_agg(distinct naming.entry, ', ') as entries
from naming
cross join inhabited
where not inhabited.is_any
    and query_to_xml(
        format('select 1 as found from %s where named.id <> %L limit 1', naming.named, (select settings.default_org_id from tenancy.settings)),
        false, true, ''
    )::text <> ''
group by naming.root;
comment on view org_migration.userless_organizations is
'Tables whose rows name organizations in columns that are to decide, where no user is in any organization that a row names.';

create or replace view org_migration.value_findings as
with owned as materialized (
    select
        sources.root, array_agg(sources.entry) as entries,
        bool_and(not owner_columns.is_keyed and sources.description = format('the owner in %s', sources.entry)) is true as are_unkeyed
    from tenancy.sources
    left join tenancy.owner_columns
        on owner_columns.relation = sources.root
        and owner_columns.column_name = sources.entry
    group by sources.root
),
candidate as materialized (
    select
        application_tables.relation, application_tables.qualified_name, column_.attnum, column_.attname::text collate "default" as attname,
        coalesce(nullif(type.typbasetype, 0), type.oid) as base_type,
        coalesce(column_.attname = any (owned.entries), false) as decides
    from tenancy.application_tables
    join pg_catalog.pg_class as class on class.oid = application_tables.relation
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = application_tables.relation
        and column_.attnum > 0
        and not column_.attisdropped
        and column_.attgenerated <> 'v'
        and column_.attname <> 'org_id'
    join pg_catalog.pg_type as type on type.oid = column_.atttypid
    left join owned on owned.root = application_tables.relation
    where application_tables.scope = 'org'
        and application_tables.relkind in ('r', 'p')
        and not exists (
            select from pg_partition_tree(application_tables.relation) as tree
            join pg_catalog.pg_class as member on member.oid = tree.relid and member.relkind = 'f'
        )
        -- What is decided is past it.
        and application_tables.relation not in (select tables_before.relation from org_migration.tables_before where tables_before.relation is not null)
        and coalesce(nullif(type.typbasetype, 0), type.oid) in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
        and pg_has_role(class.relowner, 'usage')
        and has_table_privilege(class.oid, 'select')
        and not class.relforcerowsecurity
        and has_table_privilege(to_regclass('auth.users'), 'select')
        and case
            when column_.attname = any (owned.entries) then owned.are_unkeyed and (select mapping_state.is_filled from tenancy.mapping_state)
            else application_tables.org_from is null and not exists (
                select from tenancy.references_between_tables as reference
                where reference.relation = application_tables.relation and column_.attnum = any (reference.attnums)
            )
        end
),
looked_at as materialized (
    select asked.relation, counted.attnum, counted.filled, counted.users, counted.organizations
    from (
        select
            candidate.relation, candidate.qualified_name,
            string_agg(format('(%s, pg_catalog.left(looked_at.%I::pg_catalog.text collate pg_catalog."C", 40))', candidate.attnum, candidate.attname), ', ') as columns
        from candidate
        group by candidate.relation, candidate.qualified_name
    ) as asked
    cross join lateral query_to_xml(
        format(
            $sql$
                select
                    held.attnum, pg_catalog.count(*) as filled, pg_catalog.count(organizations.id) as organizations,
                    pg_catalog.count(*) filter (where users.id is not null or read.id operator(pg_catalog.=) any (%4$L)) as users
                from (select * from %1$s limit 500) as looked_at
                cross join lateral (values %2$s) as held (attnum, value)
                cross join lateral (
                    select case when held.value operator(pg_catalog.~*) %3$L::pg_catalog.text then held.value::pg_catalog.uuid end
                ) as read (id)
                left join auth.users as users on users.id operator(pg_catalog.=) read.id
                left join %5$s as organizations
                    on organizations.id operator(pg_catalog.=) read.id
                    and organizations.id operator(pg_catalog.<>) %6$L
                where held.value is not null
                group by held.attnum
            $sql$,
            asked.qualified_name, asked.columns, '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$',
            -- Whom the mapping places although they are gone.
            (select coalesce(array_agg(user_orgs.user_id), '{}') from tenancy.user_orgs where user_orgs.user_id not in (select users.id from auth.users)),
            case when exists (select from tenancy.organizations_id) then 'public.organizations' else '(select null::uuid as id where false)' end,
            (select settings.default_org_id from tenancy.settings)
        ),
        false, false, ''
    ) as answer (document)
    cross join lateral xmltable(
        '/table/row' passing answer.document
        columns attnum smallint path 'attnum', filled bigint path 'filled', users bigint path 'users', organizations bigint path 'organizations'
    ) as counted
)
select
    'owner_of_nobody' as code, 'stops' as severity, candidate.qualified_name as object, candidate.qualified_name as table_name,
    format(
        'is decided by %s alone, and of %s values that were looked at none is a user''s id: its rows would go to the default organization',
        string_agg(candidate.attname, ', ' order by candidate.attnum), sum(looked_at.filled)
    ) as problem,
    format(
        'if they are keys of a table: alter table %1$s add foreign key (…) references … not valid, and let a key lead from there to auth.users; if their users'
        ' are gone, place them in tenancy.user_orgs; or name other columns in org_from, or ''{}'': all of it belongs to the default organization',
        candidate.qualified_name
    ) as remedy
from candidate
join looked_at using (relation, attnum)
where candidate.decides
group by candidate.qualified_name
having sum(looked_at.filled) > 0 and sum(looked_at.users) = 0
union all
select
    'organization_without_key', 'stops', candidate.qualified_name, candidate.qualified_name,
    format('has organizations'' ids in %s, without a foreign key (%s of %s), and they do not decide', candidate.attname, looked_at.organizations, looked_at.filled),
    format(
        'alter table %s %sadd foreign key (%I) references public.organizations (id) not valid; or name what decides instead in org_from',
        candidate.qualified_name,
        case when candidate.base_type <> 'uuid'::regtype then format('alter column %1$I type uuid using %1$I::uuid, ', candidate.attname) end, candidate.attname
    )
from candidate
join looked_at using (relation, attnum)
where not candidate.decides
    and looked_at.organizations = looked_at.filled
    and looked_at.filled > 0;
comment on view org_migration.value_findings is
'What a look at 500 rows of each table that is not decided yet says against how it is to be decided: with a mapping, owners of whom none is a user;'
' and organizations'' ids without a foreign key. Tables of other roles are not looked at.';
