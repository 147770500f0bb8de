-- Purpose: the checklist of the plan as rows, and a glance at every table.
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.findings as
select push_findings.* from tenancy.push_findings
union all
select
    'missing_' || table_parts.part,
    case when table_parts.phase > 4 then 'leaks' else 'breaks' end,
    table_parts.name::text, root.qualified_name,
    format('is not as it should be: %s %I', replace(table_parts.part, '_', ' '), table_parts.name),
    table_parts.ddl
from tenancy.table_parts
join tenancy.application_tables as root on root.relation = table_parts.root
-- That a push has begun with: after it there are none.
join tenancy.decisions on decisions.root = table_parts.root and decisions.has_begun
where not table_parts.present
union all
select filler_findings.* from tenancy.filler_findings
union all
select binding_findings.* from tenancy.binding_findings
union all
select privilege_findings.* from tenancy.privilege_findings
union all
select
    user_findings.code, user_findings.severity,
    format('%s users', count(*)),
    user_findings.table_name,
    concat(case when count(distinct user_findings.problem) > 1 then 'for example, one ' end, min(user_findings.problem)),
    'see tenancy.user_findings, a row per user'
from tenancy.user_findings
group by user_findings.code, user_findings.severity, user_findings.table_name;
comment on view tenancy.findings is
'Everything that is wrong, a row per finding: code (one per rule), severity (stops: a push stops at it; breaks: a user or an insert fails;'
' leaks: rows of another organization are within reach; decide: yours to decide), object, table_name, problem, remedy.';

create or replace view tenancy.part_checks as
select
    table_parts.root, table_parts.ordinal, table_parts.part as check_name,
    bool_and(table_parts.present) as passed,
    string_agg(
        case
            when table_parts.present then table_parts.name::text
            else format('%s is missing or not what it should be: %s', table_parts.name, table_parts.ddl)
        end,
        E'\n'
        order by table_parts.present, table_parts.name
    ) filter (where not table_parts.present or table_parts.relation = table_parts.root) as detail
from tenancy.table_parts
group by table_parts.root, table_parts.ordinal, table_parts.part;
comment on view tenancy.part_checks is
'tenancy.parts as checks, those of partitions with their table: one row per table and part, detail its name, or the statement that makes it.';

create or replace function tenancy.verify_table(target regclass)
returns table (check_name text, passed boolean, detail text)
language sql stable security invoker set search_path = '' as $function$
    select part_checks.check_name, part_checks.passed, part_checks.detail
    from tenancy.part_checks
    where part_checks.root = target
    order by part_checks.ordinal
$function$;
comment on function tenancy.verify_table(regclass) is
'The checks of one table''s definition, which need no look at its rows: tenancy.part_checks of it.';

create or replace function tenancy.verify_schema()
returns table (check_name text, table_name text, passed boolean, detail text)
-- plpgsql, whose plan of many views the session keeps.
language plpgsql volatile security invoker set search_path = '' as $function$
#variable_conflict use_column
begin
    return query
    select part_checks.check_name, application_tables.qualified_name, part_checks.passed, part_checks.detail
    from tenancy.part_checks
    join tenancy.application_tables on application_tables.relation = part_checks.root;

    return query
    select
        topic.name, null,
        count(findings.code) = 0 and topic.failed is null,
        coalesce(
            nullif(concat_ws(
                '; ', string_agg(format('%s %s [%s]', findings.object, findings.problem, findings.code), '; ') filter (where findings.code is not null),
                topic.failed
            ), ''),
            format('%s org-scoped tables, nothing found', (select count(*) from tenancy.application_tables where scope = 'org'))
        )
    from (
        values
            (
                'registry',
                case when not exists (select from tenancy.application_tables where scope = 'org') then 'no table is registered as org-scoped' end
            ),
            ('fillers', null),
            ('bound_keys', null),
            ('api_privileges', null),
            (
                'token_hook',
                (
                    select format(
                        'supabase_auth_admin cannot call tenancy.add_org_id_to_token, so nobody signs in: %s, or switch the hook off on the'
                        ' dashboard, then select tenancy.disable_token_hook()',
                        case when hook.name is null then 'it is gone or renamed, so make it again' else 'select tenancy.enable_token_hook()' end
                    )
                    from tenancy.settings
                    cross join to_regprocedure('tenancy.add_org_id_to_token(jsonb)') as hook (name)
                    where settings.token_hook
                        and not coalesce(
                            has_schema_privilege(to_regrole('supabase_auth_admin'), 'tenancy'::regnamespace, 'usage')
                            and has_function_privilege(to_regrole('supabase_auth_admin'), hook.name, 'execute'),
                            false
                        )
                )
            ),
            ('auth_org_id', 'public.auth_org_id() ' || nullif(array_to_string(tenancy.failed_probes(), ', '), ''))
    ) as topic (name, failed)
    left join (
        select
            case when push_findings.code like 'auth\_org\_id\_%' then 'auth_org_id' else 'registry' end as topic,
            push_findings.code, push_findings.object, push_findings.problem
        from tenancy.push_findings
        where push_findings.severity = 'stops'
        union all
        select 'fillers', filler_findings.code, filler_findings.object, filler_findings.problem
        from tenancy.filler_findings
        union all
        select 'bound_keys', binding_findings.code, binding_findings.object, binding_findings.problem
        from tenancy.binding_findings
        union all
        select
            'api_privileges', privilege_findings.code, privilege_findings.object,
            format('get past the isolation of %s tables, of %s first: see tenancy.enable_least_privilege', count(*), min(privilege_findings.table_name))
        from tenancy.privilege_findings
        group by privilege_findings.code, privilege_findings.object
    ) as findings
        on findings.topic = topic.name
    group by topic.name, topic.failed;
exception
    -- Whatever was renamed or dropped that nothing above looks for.
    when syntax_error_or_access_rule_violation then
        return query
        select 'schema', null, false, format('cannot be looked at to the end: %s', sqlerrm);
end
$function$;
comment on function tenancy.verify_schema() is
'tenancy.part_checks, and what needs no look at rows or users either, for the end of the push: one row per check and table; table_name'
' NULL: the whole.';

create or replace function tenancy.verify()
returns table (check_name text, table_name text, passed boolean, detail text)
language plpgsql volatile security invoker set search_path = '' as $function$
declare
    target record;
    row_count bigint;
    rows_without_org bigint;
    counts jsonb;
begin
    return query
    select verify_schema.*
    from tenancy.verify_schema();

    for target in
        select org_id.relation, org_id.qualified_name
        from tenancy.org_id_columns as org_id
        where org_id.is_root and org_id.attnum is not null
    loop
        execute format('select count(*), count(*) filter (where org_id is null) from %s', target.relation)
        into row_count, rows_without_org;
        return query
        select
            'no_nulls', target.qualified_name, rows_without_org = 0,
            format('%s of %s rows without organization', rows_without_org, row_count);
        if to_regnamespace('org_migration') is not null then
            return query
            select checks.check_name, target.qualified_name, checks.passed, checks.detail
            from org_migration.verify_row_count(target.relation, row_count) as checks;
        end if;
    end loop;

    counts := tenancy.user_counts();
    return query
    select
        'users', null,
        (counts ->> 'users_without_org')::bigint = 0,
        format(
            '%s of %s users without their organization in app_metadata (%s missing, %s conflicts, %s unplaced, %s unreachable);'
            ' %s in no organization on purpose',
            counts ->> 'users_without_org',
            counts ->> 'users',
            count(*) filter (where users_without_org.obstacle is null),
            count(*) filter (where users_without_org.obstacle = 'conflict'),
            count(*) filter (where users_without_org.obstacle = 'unplaced' and not users_without_org.on_purpose),
            count(*) filter (where users_without_org.obstacle = 'unreachable'),
            counts ->> 'users_in_no_org'
        )
    from tenancy.users_without_org;
exception
    when syntax_error_or_access_rule_violation then
        return query
        select 'rows_and_users', null, false, format('cannot be looked at to the end: %s', sqlerrm);
end
$function$;
comment on function tenancy.verify() is
'The plan''s checklist: verify_schema(), and for each table no NULL left and, until tenancy.finish(), no row lost, and for the users none'
' without organization, except those who are in none on purpose. One row per check and table. It counts every table, so it takes as long as that.';

create or replace function org_migration.failed_checks()
returns text[] language plpgsql volatile security invoker set search_path = '' as $function$
declare
    doubtful org_migration.doubtful_checks;
    broken bigint;
    problem text;
    problems text[] := '{}';
begin
    for doubtful in
        select doubtful_checks.*
        from org_migration.doubtful_checks
        join tenancy.decisions on decisions.root = doubtful_checks.root
        where not doubtful_checks.cannot_fail
            and (not doubtful_checks.is_valid or decisions.is_per_row and not decisions.has_begun)
        order by doubtful_checks.qualified_name, doubtful_checks.name
    loop
        -- A check may raise whatever it likes: that is the finding.
        begin
            set local search_path to default;
            execute format(
                'select count(*) from only %s %s where not (%s)', doubtful.qualified_name,
                -- Of what was valid once, in about 100 MB.
                case
                    when doubtful.is_valid
                        then format('tablesample system (%s)', least(100, 100 * 1e8 / greatest(pg_relation_size(doubtful.relation), 1)))
                end,
                doubtful.expression
            )
            into broken;
            problem := format(
                'has %s rows that %s %I, which %s', broken,
                case when doubtful.kind = 'check' then 'cannot be updated: they break the check' else 'an update would change in the ' || doubtful.kind end,
                doubtful.name, case when doubtful.is_valid then 'is valid, but asks functions that answer otherwise today' else 'is not valid' end
            );
        exception
            when others then
                broken := null;
                problem := format(
                    'has the %s %I, which %s raises: %s', doubtful.kind, doubtful.name,
                    case when doubtful.is_valid then 'asks a function that' else 'is not valid and' end, sqlerrm
                );
        end;
        set local search_path = '';
        if broken is distinct from 0 then
            problems := problems || format(
                '%s %s; correct that, or drop the %s until the push is over%s [rows_break_check]', doubtful.qualified_name, problem, doubtful.kind,
                case when doubtful.kind = 'generated column' then format(', or update %s set %I = default', doubtful.qualified_name, doubtful.name) end
            );
        end if;
    end loop;
    return problems;
end
$function$;
comment on function org_migration.failed_checks() is
'Tries what is in org_migration.doubtful_checks and a query cannot try, each by itself, under the search_path of the application''s own sessions;'
' what is valid only of tables whose rows are to be updated. Returns a line per check that rows break or column that changes, and per one that raises.';

create or replace function tenancy.assert_registry()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    tables text[];
    problems text[];
begin
    select
        array_agg(distinct coalesce(findings.table_name, findings.object)),
        array_agg(
            format('%s %s; %s [%s]', coalesce(findings.table_name, findings.object), findings.problem, findings.remedy, findings.code)
            order by findings.table_name, findings.code, findings.problem
        )
    into tables, problems
    from tenancy.push_findings as findings
    -- That one is fixed below.
    where findings.severity = 'stops' and findings.code <> 'new_users_without_trigger';

    problems := array_remove(problems || org_migration.failed_checks() || org_migration.find_changed_mapping(), null);
    if problems <> '{}' then
        raise exception E'the registry does not fit the database, findings that stop the push: %\n%',
            cardinality(problems), org_migration.list_findings(problems)
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = coalesce((parse_ident(tables[1], false))[1], ''), table = coalesce((parse_ident(tables[1], false))[2], '');
    end if;

    perform tenancy.note_tables();
    -- The queries of the steps join these small tables with the catalog.
    analyze tenancy.settings, tenancy.registry, tenancy.user_orgs;
    -- Last: who signs up waits for its triggers until this transaction ends.
    perform org_migration.follow_sign_ups();
end
$function$;
comment on function tenancy.assert_registry() is
'Raises object_not_in_prerequisite_state with every finding that stops the push in the message, a line each. Where there is none it makes the'
' triggers of tenancy.enable_new_users, if that was called and they are not there.';

create or replace function tenancy.assert_org_id_indexes()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    missing constant text := (
        select string_agg(table_parts.ddl || ';', E'\n' order by table_parts.qualified_name)
        from tenancy.index_parts as table_parts
        cross join tenancy.settings
        where table_parts.part = 'index'
            and not table_parts.present
            -- Those up to that size are indexed by the next step.
            and pg_relation_size(table_parts.relation) > settings.small_table_bytes
    );
begin
    if missing is not null then
        raise exception E'org_id is not indexed on org-scoped tables that are too large to be indexed while their writes wait: run these by hand,'
            ' each outside a transaction, then push again; or add them to the file ending in _EDIT_index_org_id.sql, those of tables that'
            ' a fresh database has too:\n%', missing
        using errcode = 'undefined_object';
    end if;

    insert into tenancy.log (part, table_name, statement, began)
    select table_parts.part, table_parts.qualified_name, table_parts.ddl, null
    from tenancy.index_parts as table_parts
    join org_migration.tables_before on tables_before.relation = table_parts.root
    join tenancy.application_tables on application_tables.relation = table_parts.root
    where table_parts.part = 'index'
        and table_parts.present
        and format('%s %s', table_parts.part, table_parts.name) <> all (tables_before.parts)
        and not exists (
            select from tenancy.log
            where log.table_name = table_parts.qualified_name
                and log.began > tables_before.counted_at
                and log.statement = regexp_replace(table_parts.ddl, '^create index concurrently', 'create index')
        )
        and not exists (
            select from tenancy.log
            where log.table_name = table_parts.qualified_name
                and log.statement = table_parts.ddl
                and log.id > (
                    select max(counted.id)
                    from tenancy.log as counted
                    where counted.part = 'count' and counted.table_name = application_tables.qualified_name
                )
        )
    order by application_tables.schema_name, application_tables.table_name, table_parts.qualified_name;
end
$function$;
comment on function tenancy.assert_org_id_indexes() is
'Raises undefined_object while an org-scoped table, or a partition of one, over settings.small_table_bytes has no valid index that starts with'
' org_id, with the lines to run in the message. Otherwise logs those that the index lines have built.';

create or replace function tenancy.assert_complete()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    failures constant text := org_migration.list_findings(array(
        select concat_ws(' ', failed.table_name, failed.check_name || ':', failed.detail)
        from tenancy.verify_schema() as failed
        where not failed.passed
    ));
begin
    if failures is not null then
        raise exception E'the migration is not complete:\n%', failures
        using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$function$;
comment on function tenancy.assert_complete() is
'Raises object_not_in_prerequisite_state with the checks of tenancy.verify_schema() that fail in the message.';
