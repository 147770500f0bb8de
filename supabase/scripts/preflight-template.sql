-- Purpose: what the migrations will do to this database, and what they will not, before any of them is pushed.
-- Touches: nothing: one query, which runs in a read-only transaction as well.
-- Locks:   none but those of reading. Of tables over 100 MB it reads a sample where it counts rows.
-- Run:     npx supabase db query --remote --read-only -f supabase/preflight.sql -o csv; or psql -xf; or paste it into the SQL editor.

select found.*
from pg_catalog.set_config('search_path', '', true) as nobodys_path (is_empty),
-- Of a thousand tables it would look at each as often as there are.
pg_catalog.set_config('enable_nestloop', 'off', true) as no_loops (are_on),
lateral (
    -- Where organizations have other ids, nothing else can be looked at.
    select pg_catalog.to_regclass('public.organizations') is not null and not exists (
        select from pg_catalog.pg_attribute as id
        where id.attrelid operator(pg_catalog.=) pg_catalog.to_regclass('public.organizations')
            and id.attname operator(pg_catalog.=) 'id'
            and id.atttypid operator(pg_catalog.=) 'pg_catalog.uuid'::pg_catalog.regtype
    )
) as organizations (are_others),
lateral pg_catalog.query_to_xml(case when organizations.are_others then $others$
    select jsonb_agg(to_jsonb(found)) as answer
    from (
        select 'refused' as topic, 'organizations_not_referable' as code, 'public.organizations' as object, {{others}}
    ) as found
$others$ else pg_catalog.concat(nobodys_path.is_empty, nullif(no_loops.are_on, 'off'), $preflight$
with recursive listed (schema_name, table_name, scope, priority, reason, org_from) as (
    values
        -- The rows of your list in the file ending in _EDIT_list_of_tables.sql, each with its comma, once you have written it: from
        -- here to here. Without them every table is unclassified, and those that speak for org are looked at as if they were.
        (null::text, null::text, null::text, null::text, null::text, null::text[])
),
mapping (query) as (
    -- Your mapping, if you have one: the select that fills tenancy.user_orgs, without its semicolon, in place of this line. Memberships
    -- are not known here: rows of who is in several organizations are counted as of the active one.
    select $mapping$
    select null::uuid, null::uuid where false
    $mapping$
),
chosen (new_users) as (
    -- And what the list's file calls tenancy.enable_new_users with, if it does: 'personal', 'default' or 'application'.
    select null::text
),
-- begin of what is packed
-- What the migrations keep, as it is before them.
settings as (
    select
        {{default_org_id}}::uuid as default_org_id,
        {{platform_schemas}} as platform_schemas,
        {{scan_mb_per_second}} as scan_mb_per_second,
        {{backfill_rows_per_second}} as backfill_rows_per_second,
        chosen.new_users,
        false as new_users_anonymous,
        true as fill_org_id,
        null::text as memberships_of
    from chosen
),
tables_before (relation, follows_org_id, org_from, joins) as (select null::regclass, null::boolean, null::text[], null::text where false),
backfills (relation, number, state) as (select null::regclass, null::integer, null::text where false),
fillers (table_oid, form) as (select null::oid, null::text where false),
-- None of them are known before the push.
memberships (user_id, org_id) as (select null::uuid, null::uuid where false),
-- Of the views each only asks whether there is one.
user_orgs (user_id, org_id) as (
    select gen_random_uuid(), gen_random_uuid()
    from mapping
    cross join lateral query_to_xml(format(
        'select 1 as found from (%s) as mapping (user_id, org_id) where org_id is not null limit 1', mapping.query
    ), false, true, '') as one (document)
    where one.document::text like '%found%'
),
listed_registry as (
    select
        listed.schema_name,
        listed.table_name,
        listed.scope,
        listed.priority,
        listed.org_from,
        false as isolated,
        null::jsonb as privileges_before,
        to_regclass(format('%I.%I', listed.schema_name, listed.table_name)) as relation,
        false as is_dropped
    from listed
    where listed.table_name is not null
),
{{views: organizations_id mapping_state table_inventory unique_columns references_between_tables hinted_columns}}
{{views with listed_registry for registered_tables: unclassified_tables registry_findings}}
registered_tables as (
    select listed_registry.* from listed_registry
    union all
    -- What looks like an org-scoped table is looked at as if it were one.
    select
        unclassified_tables.schema_name,
        unclassified_tables.table_name,
        'org',
        'secondary',
        null,
        false,
        null,
        unclassified_tables.relation,
        false
    from unclassified_tables
    where unclassified_tables.suggested_scope = 'org'
),
{{views: classified_tables}}
application_tables as (select * from classified_tables),
{{views: table_members org_id_columns coined_names org_scoped_tables org_references}}
-- With the columns that have users' ids by their values.
looked_at_tables as (
    select
        application_tables.relation,
        application_tables.scope,
        coalesce(application_tables.org_from, unclassified_tables.user_columns) as org_from
    from application_tables
    left join unclassified_tables
        on unclassified_tables.relation = application_tables.relation
),
{{views with looked_at_tables for application_tables: owner_columns}}
{{views: source_paths possible_sources}}
sources as (select * from possible_sources),
{{views: following_tables claimed_organizations}}
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
{{views: source_rules decisions decision_rules filler_forms column_parts index_parts constraint_parts guard_forms guard_triggers guard_parts push_parts}}
missing_parts as materialized (select push_parts.* from push_parts where not push_parts.present),
{{views: plan required_organization_columns auth_org_id_probes foundation_findings table_findings publication_findings org_id_findings userless_organizations source_findings doubtful_checks row_findings value_findings name_findings}}
-- Of what the push makes nothing is there yet.
library_findings as (select name_findings.* from name_findings where false),
counted_mapping as (
    select answered.*
    from mapping
    cross join settings
    cross join lateral query_to_xml(
        format(
            $sql$
                with mapping (user_id, org_id) as (%1$s)
                select
                    (select count(*) from mapping) as rows,
                    (select count(*) from mapping where user_id is null) as incomplete,
                    (select count(*) from (select from mapping group by user_id having count(*) > 1) as twice) as twice,
                    (
                        select count(*)
                        from auth.users
                        join mapping on mapping.user_id = users.id
                        where lower(users.raw_app_meta_data ->> 'org_id') <> mapping.org_id::text
                            and lower(users.raw_app_meta_data ->> 'org_id') in (
                                select organizations.id::text from %2$s as organizations
                                union all
                                select mapping.org_id::text from mapping
                            )
                    ) as elsewhere,
                    (
                        select count(*)
                        from auth.users
                        where not users.is_anonymous
                            and users.id not in (select mapping.user_id from mapping where mapping.user_id is not null)
                            and not exists (select from %2$s as organizations where organizations.id::text = lower(users.raw_app_meta_data ->> 'org_id'))
                    ) as left_out
            $sql$,
            mapping.query,
            case when to_regclass('public.organizations') is null then '(select null::uuid as id where false)' else 'public.organizations' end
        ),
        true,
        true,
        ''
    ) as counted (document)
    cross join lateral xmltable(
        '/row' passing counted.document columns rows bigint path 'rows', incomplete bigint path 'incomplete', twice bigint path 'twice',
        left_out bigint path 'left_out', elsewhere bigint path 'elsewhere'
    ) as answered
    where answered.rows > 0 or settings.new_users in ('personal', 'application')
),
mapping_findings as (
    select
        found.code,
        found.severity,
        'auth.users' as object,
        'auth.users' as table_name,
        format('has %s %s %s', found.number, found.what, found.problem) as problem,
        found.remedy
    from counted_mapping
    cross join settings
    cross join lateral (
        values
            (
                'users_left_out', case when counted_mapping.rows > 0 then 'decide' else 'stops' end, case when settings.new_users is distinct from 'default' then counted_mapping.left_out end, 'users',
                'in no organization: neither the mapping nor app_metadata.org_id says one',
                format(
                    '%s; rows of theirs that nothing else decides go to the default organization',
                    case
                        when settings.new_users = 'personal' then 'above the check in the list''s file: select tenancy.create_personal_organizations()'
                        else 'place them in the mapping, or choose with tenancy.enable_new_users'
                    end
                )
            ),
            (
                'user_conflict', 'decide', counted_mapping.elsewhere, 'users',
                'whose app_metadata.org_id is another organization than the mapping''s: their rows go by the mapping, their token stays',
                'leave them out of the mapping, and the claim decides; or call the function with "on_conflict": "overwrite"'
            ),
            (
                'mapping_incomplete', 'stops', counted_mapping.incomplete, 'rows', 'of the mapping without a user',
                'leave them out'
            ),
            (
                'mapping_ambiguous', 'stops', counted_mapping.twice, 'users', 'with more than one row in the mapping',
                'choose one each: select distinct on (user_id) … order by user_id, …'
            )
    ) as found (code, severity, number, what, problem, remedy)
    where found.number > 0
),
{{views: application_functions sign_up_writes sign_up_findings push_findings}}
{{views: isolation_policies api_privileges function_calls views_over_tables table_mentions api_roles review_shapes review_breaks policy_arms metadata_readers review_policies review_leaks review_deletion review_choices review}}
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
            and push_findings.code not in ('unclassified_table', 'new_users_unset')
            and push_findings.table_name is not null
    )
),
-- The joins of each table's sources as they are before there is any org_id: a parent's organization is what its own columns say.
direct as (
    select
        sources.root,
        string_agg(replace(replace(sources.joins, 'source_', 'above_'), '{child}', '{parent}'), '' order by sources.ordinal) as joins,
        string_agg(replace(sources.org_id, 'source_', 'above_'), ', ' order by sources.ordinal) as org_ids
    from sources
    where sources.kind <> 'parent'
    group by sources.root
),
looked_at as (
    select
        sources.root,
        string_agg(format(E'\nwhen %s then %s', sources.condition, sources.ordinal), '' order by sources.ordinal) as cases,
        string_agg(sources.org_id, ', ' order by sources.ordinal) as org_ids,
        string_agg(
            case
                when sources.kind = 'parent' then format(
                    E'\nleft join lateral (select source_%1$s.ctid, coalesce(%2$s) as org_id from @r%3$s@ as source_%1$s %4$s where %5$s) as source_%1$s on true',
                    sources.ordinal,
                    concat_ws(', ', case when parent.is_plain_uuid then format('source_%s.org_id', sources.ordinal) end, direct.org_ids, 'null::uuid'),
                    sources.parent::oid,
                    replace(direct.joins, '{parent}', format('source_%s', sources.ordinal)),
                    replace(
                        replace(sources.joins, format(E'\nleft join @r%s@ as source_%s on ', sources.parent::oid, sources.ordinal), ''), '{child}', 'todo'
                    )
                )
                else replace(sources.joins, '{child}', 'todo')
            end,
            ''
            order by sources.ordinal
        ) as joins
    from sources
    left join direct
        on direct.root = sources.parent
    left join org_id_columns as parent
        on parent.relation = sources.parent
    group by sources.root
),
decided as (
    select
        candidates.relation,
        answered.ordinal,
        answered.rows * 100 / candidates.percent::numeric as rows,
        answered.conflicts * 100 / candidates.percent::numeric as conflicts
    from candidates
    join looked_at
        on looked_at.root = candidates.relation
    cross join mapping
    cross join lateral (
        select format(
            E'select todo.decided as ordinal, count(*) as rows, count(*) filter (where todo.is_conflict) as conflicts from ('
            'select case when false then null %s else 0 end as decided, least(%s) <> greatest(%3$s) as is_conflict'
            ' from @r%4$s@ as todo tablesample system (%5$s) %6$s) as todo group by 1',
            looked_at.cases, looked_at.org_ids, looked_at.org_ids, candidates.relation::oid, candidates.percent, looked_at.joins
        ) as form
    ) as asked
    cross join lateral ({{body of with_names}}) as named (query)
    cross join lateral query_to_xml(
        replace(
            replace(
                named.query,
                ' join user_orgs as ',
                -- Without a mapping: as if everyone were in an organization of their own.
                format(
                    ' join (select * from (%s) as mapping (user_id, org_id)) as ',
                    case when exists (select from user_orgs) then mapping.query else 'select id, id from auth.users' end
                )
            ),
            'public.organizations',
            case when to_regclass('public.organizations') is null then '(select null::uuid as id where false)' else 'public.organizations' end
        ),
        false,
        false,
        ''
    ) as counted (document)
    cross join lateral xmltable(
        '/table/row' passing counted.document columns ordinal bigint path 'ordinal', rows numeric path 'rows', conflicts numeric path 'conflicts'
    ) as answered
),
decided_in_words as (
    select
        decided.relation,
        concat_ws(
            '; ',
            case when candidates.percent < 100 then 'of a sample' end,
            'nothing decides ' || round(sum(decided.rows) filter (where decided.ordinal = 0)),
            case
                when exists (select from user_orgs) and sum(decided.conflicts) > 0
                    then format('%s disagree', round(sum(decided.conflicts)))
            end,
            string_agg(format('%s decides %s', sources.entry, round(decided.rows)), ', ' order by decided.ordinal) filter (where decided.ordinal > 0)
        ) as words,
        jsonb_agg(
            jsonb_build_object('entry', sources.entry, 'rows', round(decided.rows), 'conflicts', round(decided.conflicts))
            order by nullif(decided.ordinal, 0)
        ) as decided_by
    from decided
    join candidates
        on candidates.relation = decided.relation
    left join sources
        on sources.root = decided.relation
        and sources.ordinal = decided.ordinal
    group by decided.relation, candidates.percent
),
detected as (
    select
        sources.root,
        format('%L', array_agg(distinct_entry.name order by distinct_entry.first)::text) as org_from
    from (
        select sources.root, sources.entry as name, min(sources.ordinal) as first
        from sources
        group by sources.root, sources.entry
    ) as distinct_entry
    join (select distinct sources.root from sources) as sources
        on sources.root = distinct_entry.root
    group by sources.root
),
-- Tables of which each row stands for a user.
user_tables as (
    select references_between_tables.relation
    from references_between_tables
    join unique_columns
        on unique_columns.relation = references_between_tables.relation
        and array[unique_columns.attnum] = references_between_tables.attnums
    where references_between_tables.parent = to_regclass('auth.users')
    union
    select unclassified_tables.relation
    from unclassified_tables
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = unclassified_tables.relation
        and column_.attname = any (unclassified_tables.user_columns)
    join unique_columns
        on unique_columns.relation = unclassified_tables.relation
        and unique_columns.attnum = column_.attnum
),
-- Tables of which each row says that a user is in something that gets no org_id: a key of a user and a key of that are its key.
membership_tables as (
    select index.indrelid as relation, min(other.qualified_name) as qualified_name
    from pg_catalog.pg_index as index
    join references_between_tables as to_user
        on to_user.relation = index.indrelid
        and to_user.attnums <@ index.indkey::smallint[]
        and (
            to_user.parent = to_regclass('auth.users')
            or to_user.parent in (select user_tables.relation from user_tables)
        )
    join references_between_tables as to_other
        on to_other.relation = index.indrelid
        and to_other.attnums <@ index.indkey::smallint[]
    join unclassified_tables as other
        on other.relation = to_other.parent
        and other.suggested_scope = 'excluded'
    where index.indisunique
        and index.indkey::smallint[] <@ (to_user.attnums || to_other.attnums)
    group by index.indrelid
),
-- What its owner has to decide about a table, if anything: the keys do not say it.
suggestions as (
    select
        unclassified_tables.qualified_name,
        unclassified_tables.reason,
        case unclassified_tables.suggested_scope
            when 'org' then regexp_replace(unclassified_tables.org_row, $re$(null|'([^']|'')*')\)$$re$, '') || coalesce(detected.org_from, 'null') || '),'
            when 'excluded' then replace(unclassified_tables.excluded_row, '''<why not>''', quote_literal(unclassified_tables.reason)) || ','
            else format('-- %s, or %s,', unclassified_tables.org_row, unclassified_tables.excluded_row)
        end as list_row,
        case
            when unclassified_tables.suggested_scope is null then 'org or excluded'
            when unclassified_tables.suggested_scope = 'excluded' then 'excluded, unless its rows belong to organizations'
            when unclassified_tables.relation in (select user_tables.relation from user_tables)
                then 'org, or excluded, if a user''s row is the same in whatever organization'
            when unclassified_tables.relation in (select membership_tables.relation from membership_tables)
                then 'org, or excluded, if it says who belongs to which organization'
            when unclassified_tables.qualified_name in (
                select review_choices.object from review_choices where review_choices.code = 'other_membership'
            )
                then 'org, or excluded, if it says who belongs to which organization'
            when detected.org_from like '%,%' then concat(
                'the order of org_from',
                ', whose columns name different users or organizations (rows: ' || nullif(round(counted.conflicts), 0) || ')'
            )
            when unclassified_tables.user_columns <> '{}' then format(
                'org, or excluded, if the users in %s do not say whose a row is', array_to_string(unclassified_tables.user_columns, ', ')
            )
            when exists (
                select from value_findings
                where value_findings.code = 'organization_without_key' and value_findings.table_name = unclassified_tables.qualified_name
            ) then 'whether its rows belong to the organizations that it names'
            when counted.undecided > 0 then format('whose the rows are that no column decides, %s of them', round(counted.undecided))
        end as decision
    from unclassified_tables
    left join detected
        on detected.root = unclassified_tables.relation
    left join (
        select
            decided.relation,
            sum(decided.conflicts) as conflicts,
            sum(decided.rows) filter (where decided.ordinal = 0) as undecided
        from decided
        group by decided.relation
    ) as counted
        on counted.relation = unclassified_tables.relation
),
table_plans as (
    select
        coalesce(pg_partition_root(plan.relation), plan.relation) as root,
        count(*) as statements,
        sum(plan.seconds) as seconds
    from plan
    group by 1
),
-- details is for npm run report, which wants numbers; the answer of this query leaves it out.
rows (ordinal, topic, code, object, finding, to_do, details) as (
    select
        1,
        'refused',
        push_findings.code,
        coalesce(push_findings.table_name, push_findings.object),
        push_findings.problem,
        push_findings.remedy,
        null::jsonb
    from push_findings
    where push_findings.severity = 'stops'
        and push_findings.code <> 'unclassified_table'

    union all

    select
        case when suggestions.decision is null then 3 else 2 end,
        'to classify',
        'unclassified_table',
        suggestions.qualified_name,
        coalesce('decide: ' || suggestions.decision || '; it ', '') || suggestions.reason,
        suggestions.list_row,
        null
    from suggestions

    union all

    select
        topics.ordinal,
        topics.topic,
        findings.code,
        findings.about,
        findings.problem,
        findings.remedy,
        null
    from (
        select
            push_findings.severity,
            push_findings.code,
            coalesce(push_findings.table_name, push_findings.object) as about,
            push_findings.problem,
            push_findings.remedy
        from push_findings

        union all

        select
            review.severity,
            review.code,
            review.object,
            review.problem,
            review.remedy
        from review
    ) as findings
    join (
        values
            (4, 'breaks', 'breaks'),
            (5, 'leaks', 'leaks'),
            (6, 'to decide', 'decide')
    ) as topics (ordinal, topic, severity)
        on topics.severity = findings.severity

    union all

    select
        7,
        'in the way now',
        'blocker',
        blockers.object,
        blockers.finding,
        blockers.to_do,
        null
    from blockers

    union all

    select
        8,
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
            coalesce(
                case when length(decided_in_words.words) > 120 then left(decided_in_words.words, 119) || '…' else decided_in_words.words end,
                case when candidates.in_words = 'the default organization' then 'nothing says whose its rows are' end
            )
        ),
        concat_ws(
            '; ',
            coalesce('org_from ' || detected.org_from, 'org_id of the default organization'),
            case
                when candidates.is_per_row then format(
                    'in batches, about %s of WAL',
                    coalesce(pg_size_pretty(candidates.estimated_rows * 600), '600 bytes per row')
                )
                else 'no row is touched'
            end,
            format('%s statements, about %s s', table_plans.statements, table_plans.seconds)
        ),
        jsonb_build_object(
            'rows', candidates.estimated_rows,
            'bytes', candidates.table_bytes + candidates.index_bytes,
            'is_per_row', candidates.is_per_row,
            'in_words', candidates.in_words,
            'is_sampled', candidates.percent < 100,
            'decided_by', decided_in_words.decided_by
        )
    from candidates
    left join decided_in_words
        on decided_in_words.relation = candidates.relation
    left join detected
        on detected.root = candidates.relation
    left join table_plans
        on table_plans.root = candidates.relation

    union all

    select
        9,
        'index line',
        'index',
        plan.relation::text,
        concat_ws(
            '; ',
            pg_size_pretty(plan.bytes),
            'partition of ' || nullif(pg_partition_root(plan.relation), plan.relation)::regclass
        ),
        plan.statement || ';',
        null
    from plan
    where plan.part = 'index'
        and plan.bytes > {{small_table_bytes}}

    union all

    select
        10,
        'good to know',
        'users',
        'auth.users',
        format(
            '%s users, %s of them without app_metadata.org_id',
            count(*),
            count(*) filter (where users.raw_app_meta_data ->> 'org_id' is null)
        ),
        'the function update-user-org-metadata gives it to them; tenancy.user_preflight tells whom it cannot reach',
        null
    from auth.users

    union all

    select
        10 + plan.number,
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
        plan.statement,
        jsonb_build_object(
            'root', coalesce(pg_partition_root(plan.relation), plan.relation)::text,
            'number', plan.number,
            'phase', plan.phase,
            'lock', plan.lock,
            'bytes', plan.bytes,
            'rows', plan.estimated_rows,
            'seconds', plan.seconds
        )
    from plan
)
select jsonb_agg(to_jsonb(rows) order by rows.ordinal, rows.object, rows.finding) as answer
from rows
-- end of what is packed
$preflight$) end, false, true, '') as document,
lateral xmltable('/row' passing document columns answer text path 'answer') as answered,
lateral pg_catalog.jsonb_to_recordset(answered.answer::pg_catalog.jsonb)
    as found (topic text, code text, object text, finding text, to_do text);
