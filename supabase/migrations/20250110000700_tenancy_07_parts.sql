-- Purpose: the parts that a table gets in phase 2: column, default, filler, indexes. What is there, what makes it, what undoes it;
--          and what is in their way: names that something else has, publications that keep rows from being updated.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.coined_names as
select
    relation.oid::regclass as relation, coined.kind,
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
        ('guard_move', 'zzz_org_id_immutable_', ''),
        ('guard_statement', 'org_id_immutable_rows_', '')
) as coined (kind, prefix, suffix)
where relation.relkind in ('r', 'p');
comment on view tenancy.coined_names is
'What our objects of each table are called. Over the server''s 63 bytes the table''s part is cut and gets eight digits of its md5.';

create or replace view tenancy.column_parts as
select
    2 as phase, 2 as ordinal, 'column' as part, org_id.root, org_id.relation, org_id.qualified_name,
    'org_id'::name as name,
    org_id.attnum is not null as present,
    format(
        'alter table %s add column org_id uuid%s, alter column org_id set default public.auth_org_id()',
        org_id.qualified_name,
        case when not decisions.is_per_row then format(' default %L::uuid', settings.default_org_id) end
    ) as ddl,
    case when org_id.attnum is not null then format('alter table %s drop column org_id', org_id.qualified_name) end as undo,
    'ACCESS EXCLUSIVE' as lock
from tenancy.org_id_columns as org_id
join tenancy.decisions on decisions.root = org_id.root
cross join tenancy.settings
where org_id.is_root
union all
-- Of a column that was there before. Any other comes with its default.
select
    2, 3, 'default', org_id.root, org_id.relation, org_id.qualified_name, 'org_id',
    coalesce(org_id.default_expression ~ '^(public\.)?auth_org_id\(\)$', false),
    format('alter table %s alter column org_id set default public.auth_org_id()', org_id.qualified_name),
    case
        when org_id.default_expression is not null
            then format('alter table %s alter column org_id drop default', org_id.qualified_name)
    end,
    'ACCESS EXCLUSIVE'
from tenancy.org_id_columns as org_id
where org_id.is_root and org_id.attnum is not null
union all
-- Where the setting is off, a filler that is still there is what is wrong.
select
    2, 4, 'filler', org_id.root, org_id.relation, org_id.qualified_name,
    coalesce(existing.tgname, coined_names.name),
    settings.fill_org_id and coalesce(existing.intact, false),
    case
        when settings.fill_org_id then format(
            'create or replace trigger %I before insert on %s for each row%s execute function tenancy.fill_org_id(%s)%s',
            coalesce(existing.tgname, coined_names.name), org_id.qualified_name,
            case when names.an_organization is null then ' when (new.org_id is null)' end, names.an_organization,
            -- Who makes a partition makes its triggers.
            case
                when not org_id.is_leaf and table_class.relowner <> coalesce(fill.proowner, table_class.relowner)
                    then format('; grant execute on function tenancy.fill_org_id() to %I', pg_get_userbyid(table_class.relowner))
            end
        )
        else format('drop trigger %I on %s', existing.tgname, org_id.qualified_name)
    end,
    case when existing.tgname is not null then format('drop trigger %I on %s', existing.tgname, org_id.qualified_name) end,
    'SHARE ROW EXCLUSIVE'
from tenancy.org_id_columns as org_id
cross join tenancy.settings
join pg_catalog.pg_class as table_class on table_class.oid = org_id.relation
left join pg_catalog.pg_proc as fill on fill.oid = to_regprocedure('tenancy.fill_org_id()')
join tenancy.coined_names
    on coined_names.relation = org_id.relation
    and coined_names.kind = 'filler'
join tenancy.application_tables as listed on listed.relation = org_id.relation
-- Such a row is not of the token's organization, which is the default, but of the one that it names in one of these columns: by the same key
-- all the way, or, where org_from names the column, through tables that have the organization in another one.
cross join lateral (
    with recursive way (name, may_decide, parent, parent_key, hops) as (
        select entry.column_names[1], array_to_string(entry.column_names, ', ') = any (listed.org_from), key.confrelid, key.confkey, 0
        from pg_catalog.pg_constraint as key
        cross join lateral (
            select array_agg(column_.attname::text collate "default" order by named.position)
            from unnest(key.conkey) with ordinality as named (attnum, position)
            join pg_catalog.pg_attribute as column_
                on column_.attrelid = key.conrelid
                and column_.attnum = named.attnum
                and column_.attname <> 'org_id'
        ) as entry (column_names)
        where key.conrelid = org_id.relation and key.contype = 'f' and entry.column_names is not null
        union all
        select way.name, way.may_decide, above.confrelid, above.confkey, way.hops + 1
        from way
        join pg_catalog.pg_constraint as above
            on above.conrelid = way.parent
            and above.contype = 'f'
        where way.hops < 3
            and (
                above.conkey = way.parent_key
                or way.may_decide and not exists (
                    select from tenancy.registered_tables as passed where passed.relation = coalesce(pg_partition_root(way.parent), way.parent) and passed.scope = 'org'
                )
            )
    )
    select string_agg(distinct quote_literal(way.name), ', ' order by quote_literal(way.name)) as an_organization
    from way
    where way.parent = to_regclass('public.organizations')
) as names
left join lateral (
    select
        filler.tgname,
        filler.tgenabled = 'O'
            and filler.tgtype = 7
            and case
                when names.an_organization is not null
                    then filler.tgqual is null and right(pg_get_triggerdef(filler.oid), length(names.an_organization) + 2) = format('(%s)', names.an_organization)
                else pg_get_triggerdef(filler.oid) ~ 'WHEN \(\(new\.org_id IS NULL\)\)'
            end
            and (org_id.is_leaf or has_function_privilege(table_class.relowner, filler.tgfoid, 'execute')) as intact
    from pg_catalog.pg_trigger as filler
    where filler.tgrelid = org_id.relation
        and filler.tgfoid = (select to_regprocedure('tenancy.fill_org_id()'))
    limit 1
) as existing on true
where org_id.is_root
    and (settings.fill_org_id or existing.tgname is not null);
comment on view tenancy.column_parts is 'Of every org-scoped table: its column, its default, and its filler while that is on. Columns as tenancy.parts.';

create or replace view tenancy.index_parts as
-- An index that an interrupted build left invalid, which "if not exists" would take for done.
select
    2 as phase, 6 as ordinal, 'invalid_index' as part, org_id.root, org_id.relation, org_id.qualified_name,
    index_class.relname as name, false as present,
    format('drop index %I.%I', index_schema.nspname, index_class.relname) as ddl,
    null::text as undo, 'ACCESS EXCLUSIVE' as lock
from tenancy.org_id_columns as org_id
join pg_catalog.pg_index as invalid
    on invalid.indrelid = org_id.relation
    and invalid.indkey[0] = org_id.attnum
    and not invalid.indisvalid
join pg_catalog.pg_class as index_class on index_class.oid = invalid.indexrelid
join pg_catalog.pg_namespace as index_schema on index_schema.oid = index_class.relnamespace
where org_id.is_leaf
union all
select
    2,
    case when org_id.is_leaf then 7 else 8 end,
    case when org_id.is_leaf then 'index' else 'index_root' end,
    org_id.root, org_id.relation, org_id.qualified_name,
    coalesce(existing.name, free.name),
    existing.name is not null,
    case
        when org_id.is_leaf
            then format('create index concurrently if not exists %I on %s (org_id)', free.name, org_id.qualified_name)
        else format('create index %I on %s (org_id)', free.name, org_id.qualified_name)
    end,
    existing.undo,
    case when org_id.is_leaf then 'SHARE UPDATE EXCLUSIVE' else 'SHARE' end
from tenancy.org_id_columns as org_id
join tenancy.coined_names
    on coined_names.relation = org_id.relation
    and coined_names.kind = 'index'
cross join lateral (
    -- A table that had this one's name before has kept its index of that name.
    select case
        when exists (
            select from pg_catalog.pg_class as namesake
            join pg_catalog.pg_class as indexed on indexed.oid = org_id.relation and indexed.relnamespace = namesake.relnamespace
            join pg_catalog.pg_index as its_index on its_index.indexrelid = namesake.oid and its_index.indrelid <> org_id.relation
            join pg_catalog.pg_attribute as its_column
                on its_column.attrelid = its_index.indrelid
                and its_column.attnum = its_index.indkey[0]
                and its_column.attname = 'org_id'
            where namesake.relname = coined_names.name
        ) then (left(coined_names.name, 61) || '_2')::name
        else coined_names.name
    end as name
) as free
left join lateral (
    select
        index_class.relname as name,
        case
            when found.indnatts = 1
                and not found.indisunique
                and not index_class.relispartition
                then format('drop index %I.%I', index_schema.nspname, index_class.relname)
        end as undo
    from pg_catalog.pg_index as found
    join pg_catalog.pg_class as index_class on index_class.oid = found.indexrelid
    join pg_catalog.pg_namespace as index_schema on index_schema.oid = index_class.relnamespace
    where found.indrelid = org_id.relation
        and found.indkey[0] = org_id.attnum
        and index_class.relam = (select oid from pg_catalog.pg_am where amname = 'btree')
        and found.indpred is null
        and found.indisvalid
        and found.indisready
        -- That of a partitioned table takes in only those of its partitions that are the same.
        and (org_id.relation = org_id.root and org_id.is_leaf or found.indnatts = 1)
    order by index_class.relname = coined_names.name desc, found.indnatts, index_class.relname
    limit 1
) as existing on true
where org_id.is_leaf
    or org_id.is_root;
comment on view tenancy.index_parts is
'Of every org-scoped table: a valid index over all rows that starts with org_id, under whatever name, per leaf, and that of the'
' partitioned table, which takes them in and builds none. Columns as tenancy.parts.';

create or replace view tenancy.name_findings as
select found.code, 'stops' as severity, found.object, found.table_name, found.problem, found.remedy
from (
    select
        'constraint_name_taken' as code, namesake.conname::text as object, root.qualified_name as table_name,
        format('has a constraint %I, the name of the %s of org_id, that is none', namesake.conname, replace(coined.kind, '_', ' ')) as problem,
        format('alter table %s rename constraint %I to …', member.qualified_name, namesake.conname) as remedy
    from tenancy.org_id_columns as member
    join tenancy.application_tables as root on root.relation = member.root
    join tenancy.coined_names as coined on coined.relation = member.relation
    join pg_catalog.pg_constraint as namesake
        on namesake.conrelid = member.relation
        and namesake.conname = coined.name
    where namesake.contype <> 'n'
        and (
            (coined.kind = 'foreign_key' and (namesake.contype <> 'f' or namesake.conkey is distinct from array[member.attnum]))
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
        'index_name_taken', namesake.relname::text, root.qualified_name,
        format('cannot have the index %I: there is something else of that name', namesake.relname),
        format('rename %I.%I', namesake_schema.nspname, namesake.relname)
    from tenancy.org_id_columns as member
    join tenancy.application_tables as root on root.relation = member.root
    join pg_catalog.pg_class as member_class on member_class.oid = member.relation
    join tenancy.coined_names as coined
        on coined.relation = member.relation
        and coined.kind = 'index'
    join pg_catalog.pg_class as namesake
        on namesake.relnamespace = member_class.relnamespace
        and namesake.relname = coined.name
    join pg_catalog.pg_namespace as namesake_schema on namesake_schema.oid = namesake.relnamespace
    where not exists (
        select from pg_catalog.pg_index
        join pg_catalog.pg_attribute as its_column
            on its_column.attrelid = pg_index.indrelid
            and its_column.attnum = pg_index.indkey[0]
            and its_column.attname = 'org_id'
        where pg_index.indexrelid = namesake.oid
    )
    union all
    select
        'trigger_name_taken', namesake.tgname::text, root.qualified_name,
        format('has a trigger %I, the name of one that keeps org_id, that is none', namesake.tgname),
        format('alter trigger %I on %s rename to …', namesake.tgname, member.qualified_name)
    from tenancy.org_id_columns as member
    join tenancy.application_tables as root on root.relation = member.root
    join tenancy.coined_names as coined
        on coined.relation in (member.relation, member.root)
        and coined.kind in ('filler', 'guard', 'guard_move', 'guard_statement')
    join pg_catalog.pg_trigger as namesake
        on namesake.tgrelid = member.relation
        and namesake.tgname = coined.name
    join pg_catalog.pg_proc as function
        on function.oid = namesake.tgfoid
        and function.pronamespace is distinct from to_regnamespace('tenancy')
) as found;
comment on view tenancy.name_findings is 'What has the name of something of ours and is another thing.';

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
