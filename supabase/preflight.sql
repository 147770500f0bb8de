-- Purpose: what the migrations will do to this database, and what they will not, before any of them is pushed.
-- Touches: nothing: one query, which runs in a read-only transaction as well.
-- Locks:   none but those of reading. Of tables over 100 MB it reads a sample where it counts rows.
-- Run:     npx supabase db query --remote --read-only -f supabase/preflight.sql; or psql -xf; or paste it into the SQL editor.

with recursive listed (schema_name, table_name, scope, priority, reason) as (
    values
        -- The rows of your list in _discover_org_scoped_tables.sql, each with its comma, once you have written it: from here
        -- to here. Without them every table is unclassified, and those that speak for org are looked at as if they were.
        (null::text, null::text, null::text, null::text, null::text)
),
named (schema_name, table_name, owner_column, parent_column) as (
    values
        -- And what you say below that list of their columns, as ('public', 'contacts', 'owner_id', null),
        (null::text, null::text, null::text, null::text)
),
registry as (
    select
        listed.*,
        named.owner_column,
        named.parent_column
    from listed
    left join named
        on named.schema_name = listed.schema_name
        and named.table_name = listed.table_name
    where listed.table_name is not null
),
-- The views of _create_tenancy_registry.sql, word for word: begin.
settings as (
    select
        'a0000000-0000-0000-0000-000000000001'::uuid as default_org_id,
        array[
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
        ] as platform_schemas
),
application_tables as (
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
    cross join settings
    left join registry
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
        )
),
table_members as (
    select
        application_tables.relation as root,
        coalesce(tree.relid, application_tables.relation) as relation
    from application_tables
    left join lateral pg_partition_tree(application_tables.relation) as tree
        on true
),
references_between_tables as (
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
        and referencing.column_names is not null
),
unclassified_tables as (
    with recursive evident (relation, reason, owner_column) as (
        select
            candidate.relation,
            'has the column user_id',
            null::text
        from application_tables as candidate
        where candidate.scope is null
            and candidate.owner_column is not null

        union

        select
            candidate.relation,
            'has the column org_id',
            null
        from application_tables as candidate
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
        from application_tables as candidate
        join references_between_tables as reference
            on reference.relation = candidate.relation
            and reference.parent = to_regclass('auth.users')
        where candidate.scope is null
            and candidate.owner_column is null

        union

        select
            candidate.relation,
            format('references %s', parent.relation),
            null
        from references_between_tables as reference
        join application_tables as candidate
            on candidate.relation = reference.relation
            and candidate.scope is null
        join (
            select org_scoped.relation
            from application_tables as org_scoped
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
    from application_tables
    left join evident
        using (relation)
    where application_tables.scope is null
    group by
        application_tables.relation,
        application_tables.schema_name,
        application_tables.table_name
),
coined_names as (
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
    where relation.relkind in ('r', 'p')
),
table_obstacles as (
    select
        candidate.relation,
        candidate.schema_name,
        candidate.table_name,
        candidate.scope,
        obstacle.problem collate "default" as problem,
        obstacle.remedy collate "default" as remedy
    from application_tables as candidate
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
        from table_members as member
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
        from table_members as member
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
        from table_members as member
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
                from table_members as member
                where member.root = candidate.relation
            )

        union all

        select
            format('has a row type that %s.%I uses', using_table.oid::regclass, using_column.attname),
            'add the column by hand, which PostgreSQL allows without a default, or register it as excluded'
        from table_members as member
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
        from table_members as member
        join references_between_tables as reference
            on reference.relation = member.relation
        join pg_catalog.pg_class as parent_class
            on parent_class.oid = reference.parent
            and (parent_class.relispartition or member.relation <> member.root)
        join application_tables as parent
            on parent.relation = coalesce(pg_partition_root(reference.parent), reference.parent)
            and parent.scope is distinct from 'excluded'
        where member.root = candidate.relation

        union all

        -- What happens when its rows are written ----------------------------------------------------------------------------

        select
            format('has the rule %I, which rewrites what is written to it', rule.rulename),
            'replace the rule by a trigger, or register it as excluded'
        from table_members as member
        join pg_catalog.pg_rewrite as rule
            on rule.ev_class = member.relation
        where member.root = candidate.relation

        union all

        select
            format('has the trigger %I, which is enabled always or for replicas and would fire on the backfill', unstoppable.tgname),
            format('alter table %s enable trigger %I, until the push is over', member.relation, unstoppable.tgname)
        from table_members as member
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
        from table_members as member
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
                from table_members as published
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
        from table_members as member
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
                from references_between_tables as reference
                join application_tables as parent
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
            from table_members as leaf
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
        from table_members as member
        join coined_names as coined
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
        from table_members as member
        join pg_catalog.pg_class as member_class
            on member_class.oid = member.relation
        join coined_names as coined
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
        from table_members as member
        join coined_names as coined
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
    where obstacle.problem is not null
),
registry_problems as (
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
    from unclassified_tables

    union all

    select
        registry.schema_name,
        registry.table_name,
        'is registered and does not exist',
        'create it in an earlier migration, or take its row out of the one ending in _discover_org_scoped_tables.sql'
    from registry
    where to_regclass(format('%I.%I', registry.schema_name, registry.table_name)) is null

    union all

    select
        registry.schema_name,
        registry.table_name,
        'is registered as org and is no table of the application',
        'take its row out of the migration ending in _discover_org_scoped_tables.sql; of a partition, register the partitioned table'
    from registry
    left join application_tables
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
    from table_obstacles
    where table_obstacles.scope = 'org'

    union all

    select
        'public',
        'organizations',
        format('belongs to %s, and foreign keys to it need its owner', pg_get_userbyid(organizations.relowner)) collate "default",
        format('alter table public.organizations owner to %I, as its owner', current_user) collate "default"
    from pg_catalog.pg_class as organizations
    where organizations.oid = to_regclass('public.organizations')
        and not pg_has_role(current_user, organizations.relowner, 'usage')
),
-- The views of _create_tenancy_registry.sql, word for word: end.
candidates as (
    select
        application_tables.relation,
        application_tables.relkind,
        application_tables.owner_column,
        application_tables.owner_type,
        application_tables.scope is null as is_guess,
        size.leaves,
        size.row_count,
        size.table_bytes,
        size.index_bytes,
        exists (
            select
            from references_between_tables as reference
            join application_tables as parent
                on parent.relation = reference.parent
            left join unclassified_tables as unclassified_parent
                on unclassified_parent.relation = reference.parent
            where reference.relation = application_tables.relation
                and 'org' in (parent.scope, unclassified_parent.suggested_scope)
        ) as has_parent,
        exists (
            select
            from pg_catalog.pg_attribute as org_id
            where org_id.attrelid = application_tables.relation
                and org_id.attname = 'org_id'
                and not org_id.attisdropped
        ) as has_org_id,
        exists (
            select
            from table_obstacles
            where table_obstacles.relation = application_tables.relation
        ) as is_refused
    from application_tables
    left join unclassified_tables
        on unclassified_tables.relation = application_tables.relation
    cross join lateral (
        select
            count(*) as leaves,
            -- -1 where nobody has counted yet.
            case when bool_and(leaf.reltuples >= 0) then sum(leaf.reltuples)::bigint end as row_count,
            coalesce(sum(pg_relation_size(leaf.oid)), 0)::bigint as table_bytes,
            coalesce(sum(pg_indexes_size(leaf.oid)), 0)::bigint as index_bytes
        from table_members as member
        join pg_catalog.pg_class as leaf
            on leaf.oid = member.relation
            and leaf.relkind = 'r'
        where member.root = application_tables.relation
    ) as size
    where 'org' in (application_tables.scope, unclassified_tables.suggested_scope)
),
followers (relation) as (
    select candidates.relation
    from candidates
    where candidates.has_org_id

    union

    select reference.relation
    from followers
    join references_between_tables as reference
        on reference.parent = followers.relation
    join candidates
        on candidates.relation = reference.relation
),
organizations as (
    select relation.*
    from pg_catalog.pg_class as relation
    where relation.oid = to_regclass('public.organizations')
),
auth_org_id as (
    select
        function.*,
        pg_get_functiondef(function.oid) as definition
    from pg_catalog.pg_proc as function
    where function.oid = to_regprocedure('public.auth_org_id()')
),
findings (ordinal, topic, object, finding, to_do) as (
    -- Refused: the push stops at these, before it touches a table ---------------------------------------------------------

    select
        1,
        'refused',
        'PostgreSQL',
        format('is version %s', current_setting('server_version')),
        'upgrade to 15 or later'
    where current_setting('server_version_num')::integer < 150000

    union all

    select
        1,
        'refused',
        candidates.relation::text,
        table_obstacles.problem,
        table_obstacles.remedy
    from candidates
    join table_obstacles
        on table_obstacles.relation = candidates.relation

    union all

    select
        1,
        'refused',
        format('%I.%I', registry_problems.schema_name, registry_problems.table_name),
        registry_problems.problem,
        registry_problems.remedy
    from registry_problems
    left join application_tables
        on application_tables.schema_name = registry_problems.schema_name
        and application_tables.table_name = registry_problems.table_name
    -- Those of the application's tables stand above and below.
    where application_tables.relation is null

    union all

    select
        1,
        'refused',
        'public.organizations',
        'cannot be referenced: it must be a table with a unique column id of type uuid',
        'change that first'
    from organizations
    where organizations.relkind <> 'r'
        or not exists (
            select
            from pg_catalog.pg_attribute as id
            join pg_catalog.pg_index as unique_index
                on unique_index.indrelid = organizations.oid
                and unique_index.indkey[0] = id.attnum
                and unique_index.indnkeyatts = 1
                and unique_index.indisunique
                and unique_index.indimmediate
                and unique_index.indisvalid
                and unique_index.indpred is null
            where id.attrelid = organizations.oid
                and id.attname = 'id'
                and id.atttypid = 'uuid'::regtype
        )

    union all

    select
        1,
        'refused',
        'public.organizations',
        format('requires %s, so that the default organization cannot be created', required.column_names),
        format('insert it yourself, with id %L', settings.default_org_id)
    from organizations
    cross join settings
    cross join lateral (
        select string_agg(format('%I', attribute.attname), ', ' order by attribute.attnum) as column_names
        from pg_catalog.pg_attribute as attribute
        where attribute.attrelid = organizations.oid
            and attribute.attnum > 0
            and not attribute.attisdropped
            and attribute.attname not in ('id', 'name')
            and attribute.attnotnull
            and not attribute.atthasdef
            and attribute.attidentity = ''
    ) as required
    where required.column_names is not null
        and query_to_xml(
            format('select 1 as found from public.organizations where id::text = %L', settings.default_org_id),
            false,
            true,
            ''
        )::text = ''

    union all

    select
        1,
        'refused',
        'public.auth_org_id()',
        case
            when auth_org_id.prorettype <> 'uuid'::regtype then 'does not return uuid'
            when not has_function_privilege('authenticated', auth_org_id.oid, 'execute') then 'cannot be called by authenticated'
            else 'reads user_metadata, which every user can write'
        end,
        'replace it by one that reads app_metadata alone, and returns uuid to whoever asks'
    from auth_org_id
    where auth_org_id.prorettype <> 'uuid'::regtype
        or not has_function_privilege('authenticated', auth_org_id.oid, 'execute')
        or regexp_replace(auth_org_id.definition, '--[^\n]*', '', 'g') ~* 'user_meta_?data'

    union all

    select
        1,
        'refused',
        'public.auth_org_id()',
        'does not return app_metadata.org_id of the JWT',
        'replace it by one that does'
    from auth_org_id
    cross join settings
    where auth_org_id.prorettype = 'uuid'::regtype
        and query_to_xml(
            format(
                'select 1 as found from (select set_config(''request.jwt.claims'', %L, true) as text offset 0) as claims'
                -- The case has it called after the claims are set.
                ' where case when claims.text <> '''' then public.auth_org_id() end = %L',
                jsonb_build_object('app_metadata', jsonb_build_object('org_id', settings.default_org_id)),
                settings.default_org_id
            ),
            false,
            true,
            ''
        )::text = ''

    union all

    -- To classify -----------------------------------------------------------------------------------------------------

    select
        2,
        'to classify',
        unclassified_tables.relation::text,
        concat(
            unclassified_tables.reason,
            case
                when unclassified_tables.suggested_owner_column is not null then format(
                    '; if that is who owns a row, put below the list:'
                    ' update tenancy.registry set owner_column = %L where (schema_name, table_name) = (%L, %L);',
                    unclassified_tables.suggested_owner_column,
                    unclassified_tables.schema_name,
                    unclassified_tables.table_name
                )
            end
        ),
        case unclassified_tables.suggested_scope
            when 'org' then unclassified_tables.org_row
            else unclassified_tables.excluded_row
        end || ','
    from unclassified_tables

    union all

    -- In the way now ----------------------------------------------------------------------------------------------------

    select
        3,
        'in the way now',
        format('pid %s', session.pid),
        format(
            '%s %s for %s s%s: %s',
            coalesce(session.usename, session.backend_type),
            coalesce(session.state, 'working'),
            round(extract(epoch from clock_timestamp() - session.xact_start)),
            (
                select format(', holds %s', string_agg(distinct member.root::text, ', '))
                from pg_catalog.pg_locks as held
                join table_members as member
                    on member.relation = held.relation
                where held.pid = session.pid
                    and held.locktype = 'relation'
                    and held.granted
                having count(*) > 0
            ),
            left(regexp_replace(session.query, '\s+', ' ', 'g'), 100)
        ),
        'index builds wait for its end; the tables that it holds, or vacuums against wraparound, are asked for again and again'
    from pg_catalog.pg_stat_activity as session
    where session.datname = current_database()
        and session.pid <> pg_backend_pid()
        and session.xact_start < clock_timestamp() - interval '5 seconds'

    union all

    select
        3,
        'in the way now',
        format('prepared transaction %s', prepared.gid),
        format('is open since %s', date_trunc('second', prepared.prepared)),
        'commit prepared or rollback prepared: index builds wait for its end'
    from pg_catalog.pg_prepared_xacts as prepared
    where prepared.database = current_database()

    union all

    -- What happens to each table ----------------------------------------------------------------------------------------

    select
        4,
        case when candidates.is_guess then 'would get org_id' else 'gets org_id' end,
        candidates.relation::text,
        concat_ws(
            '; ',
            format(
                '%s, %s and %s of indexes',
                coalesce(to_char(candidates.row_count, 'FM999,999,999,999" rows"'), 'rows never counted (analyze)'),
                pg_size_pretty(candidates.table_bytes),
                pg_size_pretty(candidates.index_bytes)
            ),
            case when candidates.relkind = 'p' then format('in %s partitions', candidates.leaves) end,
            case when candidates.has_org_id then 'has org_id already, which is adopted' end,
            case
                when candidates.owner_column is not null then format(
                    '%s%s rows whose %s is no user: they go %s',
                    case when sample.percent < 100 then 'about ' end,
                    round(orphans.row_count::numeric * 100 / sample.percent::numeric),
                    candidates.owner_column,
                    case
                        when candidates.has_parent then 'with the rows that they reference, else to the default organization'
                        else 'to the default organization'
                    end
                )
                when candidates.has_parent then 'follows the rows that it references'
                else 'has no user_id and no org-scoped parent: name its owner_column, or all of it goes to the default organization'
            end
        ),
        concat_ws(
            '; ',
            case
                when candidates.has_org_id then 'batches, of the rows where org_id is NULL'
                when candidates.relation in (select followers.relation from followers) then format(
                    'all rows in batches, since they follow rows that have org_id: a fifth more table and about %s of WAL',
                    coalesce(pg_size_pretty(candidates.row_count * 600), '600 bytes a row')
                )
                else format(
                    'one organization: no row is touched; several: all rows in batches, a fifth more table and about %s of WAL',
                    coalesce(pg_size_pretty(candidates.row_count * 600), '600 bytes a row')
                )
            end,
            format(
                'one index build and two validations, each reading %s while reads and writes go on',
                pg_size_pretty(candidates.table_bytes)
            ),
            format(
                'ACCESS EXCLUSIVE three times and SHARE ROW EXCLUSIVE twice, for a millisecond each%s',
                case when candidates.relkind = 'p' then ', with all its partitions' end
            )
        )
    from candidates
    cross join lateral (
        select least(100, 100 * 1e8::double precision / greatest(candidates.table_bytes, 1)) as percent
    ) as sample
    cross join lateral (
        select coalesce(
            (
                xpath(
                    '/row/count/text()',
                    case
                        when candidates.is_refused then null
                        when candidates.owner_type = 'uuid'::regtype then query_to_xml(
                            format(
                                'select count(*) from %s as held tablesample system (%s) where not exists'
                                ' (select from auth.users where users.id = held.%I)',
                                candidates.relation,
                                sample.percent,
                                candidates.owner_column
                            ),
                            false,
                            true,
                            ''
                        )
                        when candidates.owner_type in ('text'::regtype, 'varchar'::regtype) then query_to_xml(
                            format(
                                'select count(*) from %s as held tablesample system (%s) where not exists'
                                ' (select from auth.users where users.id::text = lower(held.%I))',
                                candidates.relation,
                                sample.percent,
                                candidates.owner_column
                            ),
                            false,
                            true,
                            ''
                        )
                    end
                )
            )[1]::text,
            '0'
        )::bigint as row_count
    ) as orphans
    where not candidates.is_refused

    union all

    -- Good to know --------------------------------------------------------------------------------------------------------

    select
        5,
        'good to know',
        'auth.users',
        format(
            '%s users, %s of them without app_metadata.org_id',
            count(*),
            count(*) filter (where users.raw_app_meta_data ->> 'org_id' is null)
        ),
        'the function update-user-org-metadata gives it to them; tenancy.user_preflight tells whom it cannot reach'
    from auth.users

    union all

    select
        5,
        'good to know',
        candidates.relation::text,
        format(
            'columns are granted to %s one by one: who may read all of them today cannot select * any more',
            string_agg(distinct column_privileges.grantee, ', ')
        ),
        'grant select (org_id) after phase 2'
    from candidates
    join pg_catalog.pg_class as relation
        on relation.oid = candidates.relation
    join information_schema.column_privileges
        on column_privileges.table_schema = relation.relnamespace::regnamespace::text
        and column_privileges.table_name = relation.relname
        and column_privileges.privilege_type = 'SELECT'
        and column_privileges.grantee <> 'PUBLIC'
    where not has_table_privilege(column_privileges.grantee, candidates.relation, 'select')
    group by candidates.relation

    union all

    select
        5,
        'good to know',
        candidates.relation::text,
        format('is published by %s', string_agg(distinct published.pubname, ', ')),
        'with several organizations each row that is filled in is a change there; with one there is none'
    from candidates
    join table_members as member
        on member.root = candidates.relation
    join pg_catalog.pg_class as relation
        on relation.oid = member.relation
    join pg_catalog.pg_publication_tables as published
        on published.schemaname = relation.relnamespace::regnamespace::name
        and published.tablename = relation.relname
    group by candidates.relation

    union all

    select
        5,
        'good to know',
        viewed.oid::regclass::text,
        format(
            'is a materialized view of %s: it gets no org_id, and no policy can hold its rows apart',
            string_agg(distinct candidates.relation::text, ', ')
        ),
        'keep it from the API''s roles, or add org_id to its query after the push'
    from candidates
    join pg_catalog.pg_depend as dependency
        on dependency.refclassid = 'pg_catalog.pg_class'::regclass
        and dependency.refobjid = candidates.relation
        and dependency.classid = 'pg_catalog.pg_rewrite'::regclass
    join pg_catalog.pg_rewrite as rule
        on rule.oid = dependency.objid
    join pg_catalog.pg_class as viewed
        on viewed.oid = rule.ev_class
        and viewed.relkind = 'm'
    group by viewed.oid
)
select
    findings.topic,
    findings.object,
    findings.finding,
    findings.to_do
from findings
order by
    findings.ordinal,
    findings.object,
    findings.finding;
