-- Purpose: what the migrations will do to this database, and what they will not, before any of them is pushed.
-- Touches: nothing: one query, which runs in a read-only transaction as well.
-- Locks:   none but those of reading. Of tables over 100 MB it reads a sample where it counts rows.
-- Run:     npx supabase db query --remote --read-only -f supabase/preflight.sql -o csv; or psql -xf; or paste it into the SQL editor.

select found.*
from pg_catalog.set_config('search_path', '', true) as nobodys_path (is_empty),
lateral pg_catalog.query_to_xml(pg_catalog.concat(nobodys_path.is_empty, $preflight$
with recursive listed (schema_name, table_name, scope, priority, reason) as (
    values
        -- The rows of your list in the file ending in _EDIT_list_of_tables.sql, each with its comma, once you have written it: from
        -- here to here. Without them every table is unclassified, and those that speak for org are looked at as if they were.
        (null::text, null::text, null::text, null::text, null::text)
),
named (schema_name, table_name, owner_column, parent_column) as (
    values
        -- And what you say below that list of their columns, as ('public', 'contacts', 'owner_id', null),
        (null::text, null::text, null::text, null::text)
),
user_orgs (user_id, org_id) as (
    -- Your mapping, if you have one: the select that fills tenancy.user_orgs, without its semicolon, in place of this line.
    select null::uuid, null::uuid where false
),
-- begin of what is packed
-- What the migrations keep, as it is before them.
settings as (
    select
        {{default_org_id}}::uuid as default_org_id,
        {{platform_schemas}} as platform_schemas,
        {{scan_mb_per_second}} as scan_mb_per_second,
        {{backfill_rows_per_second}} as backfill_rows_per_second,
        false as fill_org_id
),
tables_before (relation, follows_org_id) as (select null::regclass, null::boolean where false),
backfills (relation, state) as (select null::regclass, null::text where false),
listed_registry as (
    select
        listed.schema_name,
        listed.table_name,
        listed.scope,
        listed.priority,
        columns.owner_column,
        columns.parent_column,
        false as isolated
    from listed
    cross join lateral (
        select
            max(named.owner_column) as owner_column,
            max(named.parent_column) as parent_column
        from named
        where named.schema_name = listed.schema_name
            and named.table_name = listed.table_name
    ) as columns
    where listed.table_name is not null
),
{{views: table_inventory references_between_tables}}
{{views with listed_registry for registry: unclassified_tables registry_findings}}
registry as (
    select listed_registry.* from listed_registry
    union all
    -- What looks like an org-scoped table is looked at as if it were one.
    select
        unclassified_tables.schema_name,
        unclassified_tables.table_name,
        'org',
        'secondary',
        unclassified_tables.suggested_owner_column,
        null,
        false
    from unclassified_tables
    where unclassified_tables.suggested_scope = 'org'
),
{{views: application_tables table_members org_id_columns coined_names org_scoped_tables org_references following_tables}}
table_sizes as (select
    org_id_columns.root,
    count(*) as leaves,
    -- -1 where nobody has counted yet.
    case when bool_and(leaf.reltuples >= 0) then sum(leaf.reltuples)::bigint end as estimated_rows,
    coalesce(sum(pg_relation_size(leaf.oid)), 0)::bigint as table_bytes,
    coalesce(sum(pg_indexes_size(leaf.oid)), 0)::bigint as index_bytes
from org_id_columns
join pg_catalog.pg_class as leaf on leaf.oid = org_id_columns.relation
where org_id_columns.is_leaf
group by org_id_columns.root),
{{views: sources decisions decision_rules column_parts index_parts constraint_parts guard_forms guard_triggers guard_parts push_parts}}
table_parts as materialized (select push_parts.* from push_parts),
{{views: plan foundation_findings table_findings publication_findings org_id_findings unvalidated_checks row_findings name_findings}}
{{views: push_findings}}
blockers as (
    select
        format('pid %s', session.pid) as object,
        format(
            '%s %s for %s s%s: %s',
            coalesce(session.usename, session.backend_type),
            coalesce(session.state, 'working'),
            round(extract(epoch from clock_timestamp() - session.xact_start)),
            (
                select format(', holds %s', string_agg(distinct member.qualified_name, ', '))
                from pg_catalog.pg_locks as held
                join table_members as member
                    on member.relation = held.relation
                where held.pid = session.pid
                    and held.locktype = 'relation'
                    and held.granted
                having count(*) > 0
            ),
            left(regexp_replace(session.query, '\s+', ' ', 'g'), 60)
        ) as finding,
        'index builds wait for its end; the tables that it holds, or vacuums against wraparound, are asked for again and again' as to_do
    from pg_catalog.pg_stat_activity as session
    where session.datname = current_database()
        and session.pid <> pg_backend_pid()
        and session.xact_start < clock_timestamp() - interval '5 seconds'

    union all

    select
        format('prepared transaction %s', prepared.gid),
        format('is open since %s', date_trunc('second', prepared.prepared)),
        'commit prepared or rollback prepared: index builds wait for its end'
    from pg_catalog.pg_prepared_xacts as prepared
    where prepared.database = current_database()
),
candidates as (
    select
        application_tables.*,
        table_sizes.leaves,
        table_sizes.estimated_rows,
        table_sizes.table_bytes,
        table_sizes.index_bytes,
        listed_registry.table_name is null as is_guess,
        decisions.is_per_row,
        decisions.in_words,
        least(100, 100 * 1e8::double precision / greatest(table_sizes.table_bytes, 1)) as percent
    from application_tables
    join table_sizes
        on table_sizes.root = application_tables.relation
    join decisions
        on decisions.root = application_tables.relation
    left join listed_registry
        on listed_registry.schema_name = application_tables.schema_name
        and listed_registry.table_name = application_tables.table_name
    where application_tables.qualified_name not in (
        select push_findings.table_name
        from push_findings
        where push_findings.severity = 'stops'
            and push_findings.code <> 'unclassified_table'
            and push_findings.table_name is not null
    )
),
orphans as (
    select
        candidates.relation,
        round(coalesce(counted.row_count, '0')::numeric * 100 / candidates.percent::numeric) as row_count
    from candidates
    cross join lateral (
        select (
            xpath(
                '/row/count/text()',
                query_to_xml(
                    format(
                        'select count(*) from %s as held tablesample system (%s) where not exists (select from auth.users where %s)',
                        candidates.qualified_name,
                        candidates.percent,
                        case candidates.owner_type
                            when 'uuid'::regtype then format('users.id = held.%I', candidates.owner_column)
                            else format('users.id::text = lower(held.%I)', candidates.owner_column)
                        end
                    ),
                    false,
                    true,
                    ''
                )
            )
        )[1]::text as row_count
    ) as counted
    where candidates.owner_type in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype)
),
table_plans as (
    select
        coalesce(pg_partition_root(plan.relation), plan.relation) as root,
        count(*) as statements,
        sum(plan.seconds) as seconds
    from plan
    group by 1
),
rows (ordinal, topic, code, object, finding, to_do) as (
    select
        1,
        'refused',
        push_findings.code,
        coalesce(push_findings.table_name, push_findings.object),
        push_findings.problem,
        push_findings.remedy
    from push_findings
    where push_findings.severity = 'stops'
        and push_findings.code <> 'unclassified_table'

    union all

    select
        2,
        'to classify',
        'unclassified_table',
        unclassified_tables.qualified_name,
        concat(
            unclassified_tables.reason,
            '; if ' || quote_ident(unclassified_tables.suggested_owner_column) || ' says who owns a row, name it below the list'
        ),
        case unclassified_tables.suggested_scope
            when 'org' then unclassified_tables.org_row
            else unclassified_tables.excluded_row
        end || ','
    from unclassified_tables

    union all

    select
        3,
        'to decide',
        push_findings.code,
        coalesce(push_findings.table_name, push_findings.object),
        push_findings.problem,
        push_findings.remedy
    from push_findings
    where push_findings.severity <> 'stops'

    union all

    select
        4,
        'in the way now',
        'blocker',
        blockers.object,
        blockers.finding,
        blockers.to_do
    from blockers

    union all

    select
        5,
        case when candidates.is_guess then 'would get org_id' else 'gets org_id' end,
        'table',
        candidates.qualified_name,
        concat_ws(
            '; ',
            format(
                '%s, %s and %s of indexes',
                coalesce(to_char(candidates.estimated_rows, 'FM999,999,999,999" rows"'), 'rows never counted (analyze)'),
                pg_size_pretty(candidates.table_bytes),
                pg_size_pretty(candidates.index_bytes)
            ),
            case when candidates.relkind = 'p' then format('%s partitions', candidates.leaves) end,
            case
                when orphans.row_count is not null then format(
                    '%s%s rows whose %s is no user',
                    case when candidates.percent < 100 then 'about ' end,
                    orphans.row_count,
                    candidates.owner_column
                )
                when candidates.in_words = 'the default organization'
                    then 'no user_id and no org-scoped parent: name its owner_column, or all of it goes to the default organization'
            end
        ),
        concat_ws(
            '; ',
            'org_id of ' || case when length(candidates.in_words) > 110 then left(candidates.in_words, 109) || '…' else candidates.in_words end,
            case
                when candidates.is_per_row then format(
                    'in batches, about %s of WAL',
                    coalesce(pg_size_pretty(candidates.estimated_rows * 600), '600 bytes per row')
                )
                else 'no row is touched'
            end,
            format('%s statements, about %s s', table_plans.statements, table_plans.seconds)
        )
    from candidates
    left join orphans
        on orphans.relation = candidates.relation
    left join table_plans
        on table_plans.root = candidates.relation

    union all

    select
        6,
        'good to know',
        'users',
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
        6,
        'good to know',
        'column_grants',
        candidates.qualified_name,
        format(
            'columns are granted to %s one by one: who may read all of them today cannot select * any more',
            string_agg(distinct column_privileges.grantee, ', ')
        ),
        format('grant select (org_id) on %s to …, after phase 2', candidates.qualified_name)
    from candidates
    join information_schema.column_privileges
        on column_privileges.table_schema = candidates.schema_name
        and column_privileges.table_name = candidates.table_name
        and column_privileges.privilege_type = 'SELECT'
        and column_privileges.grantee <> 'PUBLIC'
    where not has_table_privilege(column_privileges.grantee, candidates.relation, 'select')
    group by candidates.qualified_name

    union all

    select
        6,
        'good to know',
        'published',
        candidates.qualified_name,
        format('is published by %s', string_agg(distinct published.pubname, ', ')),
        'with several organizations each row that is filled in is a change there; with one there is none'
    from candidates
    join table_members as member
        on member.root = candidates.relation
    join pg_catalog.pg_namespace as member_schema
        on member_schema.oid = member.relnamespace
    join pg_catalog.pg_publication_tables as published
        on published.schemaname = member_schema.nspname
        and published.tablename = member.relname
    group by candidates.qualified_name

    union all

    select
        6,
        'good to know',
        'materialized_view',
        viewed.oid::regclass::text,
        format(
            'is a materialized view of %s: it gets no org_id, and no policy can hold its rows apart',
            string_agg(distinct candidates.qualified_name, ', ')
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

    union all

    select
        6 + plan.number,
        'plan',
        plan.part,
        plan.relation::text,
        concat_ws(
            '; ',
            format('phase %s', plan.phase),
            plan.lock,
            case when plan.bytes > 0 then pg_size_pretty(plan.bytes) end,
            case when plan.part in ('count', 'backfill') then plan.estimated_rows || ' rows' end,
            format('%s s', plan.seconds)
        ),
        plan.statement
    from plan
)
select jsonb_agg(to_jsonb(rows) order by rows.ordinal, rows.object, rows.finding) as answer
from rows
-- end of what is packed
$preflight$), false, true, '') as document,
lateral xmltable('/row' passing document columns answer text path 'answer') as answered,
lateral pg_catalog.jsonb_to_recordset(answered.answer::pg_catalog.jsonb)
    as found (topic text, code text, object text, finding text, to_do text);
