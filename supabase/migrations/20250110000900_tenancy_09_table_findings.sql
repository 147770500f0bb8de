-- Purpose: the tables that these migrations do not handle, by what they are and by what happens when their rows are written.
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
    );
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

create or replace view org_migration.publication_findings as
select
    case
        when member_class.relreplident = 'f' then 'generated_replica_identity'
        else 'no_replica_identity'
    end as code,
    'stops' as severity, member.qualified_name as object, root.qualified_name as table_name,
    format(
        'cannot be updated: %s publishes updates and has %s', member.qualified_name,
        case
            when member_class.relreplident = 'f' then 'a generated column in its replica identity'
            else 'no replica identity'
        end
    ) as problem,
    format('give %s a primary key as its replica identity, or full where it has no generated column', member.qualified_name) as remedy
from tenancy.table_members as member
join tenancy.application_tables as root on root.relation = member.root
join pg_catalog.pg_class as member_class
    on member_class.oid = member.relation
    and member_class.relkind = 'r'
where member.scope = 'org'
    and (
        member_class.relreplident = 'f'
        or pg_get_replica_identity_index(member.relation) is null
    )
    and exists (
        select from tenancy.table_members as published
        join pg_catalog.pg_class as published_class on published_class.oid = published.relation
        join pg_catalog.pg_namespace as published_schema
            on published_schema.oid = published_class.relnamespace
        join pg_catalog.pg_publication_tables as published_table
            on published_table.schemaname = published_schema.nspname
            and published_table.tablename = published_class.relname
        join pg_catalog.pg_publication as publication
            on publication.pubname = published_table.pubname
            and publication.pubupdate
        where published.root = member.root
            and published.relation in (member.relation, member.root)
            and (
                member_class.relreplident <> 'f'
                -- PostgreSQL 18 asks that the identity's generated columns be published.
                or (
                    current_setting('server_version_num')::integer >= 180000
                    and exists (
                        select from pg_catalog.pg_attribute as generated_column
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
    'publication_beyond_identity', 'stops', publication.pubname, root.qualified_name,
    format('cannot be updated: the publication %I looks at columns of %s beyond its replica identity', publication.pubname, member.qualified_name),
    format('alter publication %I: filter by columns of the replica identity, and publish all of these', publication.pubname)
from tenancy.table_members as member
join tenancy.application_tables as root on root.relation = member.root
join pg_catalog.pg_class as member_class on member_class.oid = member.relation
join pg_catalog.pg_publication_rel as published on published.prrelid = member.relation
join pg_catalog.pg_publication as publication
    on publication.oid = published.prpubid
    and publication.pubupdate
left join pg_catalog.pg_index as identity
    on identity.indexrelid = pg_get_replica_identity_index(member.relation)
where member.scope = 'org'
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
                select from regexp_matches(published.prqual::text, ':varattno (\d+)', 'g') as filtering (attnum)
                where filtering.attnum[1]::smallint <> all (identity.indkey)
            )
        )
    );
comment on view org_migration.publication_findings is
'Org-scoped tables whose rows cannot be updated because of a publication. The push stops while there is one.';

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
