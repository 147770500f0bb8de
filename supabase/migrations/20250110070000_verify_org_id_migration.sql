-- Purpose: the checklist of the plan as rows, a glance at every table, and the way back. The push fails if a schema check does.
-- Touches: new objects in tenancy.
-- Locks:   none that anyone waits for.
-- Undo:    none needed.

set lock_timeout = '1s';
set statement_timeout = '1min';

create or replace view tenancy.status as
select
    org_scoped_tables.relation,
    org_scoped_tables.priority,
    coalesce(format_type(org_id.atttypid, org_id.atttypmod), 'missing') as org_id,
    coalesce(backfill.state, 'not started') as backfill,
    backfill.rows_updated,
    (tenancy.org_id_index(org_scoped_tables.relation)).indexrelid is not null as indexed,
    coalesce((tenancy.org_id_foreign_key(org_scoped_tables.relation)).convalidated, false) as references_organizations,
    coalesce((tenancy.org_id_check(org_scoped_tables.relation)).convalidated, false) as checked,
    coalesce(org_id.attnotnull, false) as not_null,
    (select bool_and(guards.intact) from tenancy.org_id_guards(org_scoped_tables.relation) as guards) as immutable,
    isolation.row_security,
    isolation.isolated,
    (
        select string_agg(lock_waits.blocked_by, E'\n')
        from tenancy.lock_waits
        join pg_catalog.pg_stat_activity as waiting_session
            on waiting_session.pid = lock_waits.session_pid
        where lock_waits.relation = org_scoped_tables.relation
    ) as blocked_by
from tenancy.org_scoped_tables
left join lateral tenancy.org_id_column(org_scoped_tables.relation) as org_id
    on true
cross join lateral (
    select
        string_agg(
            distinct backfill_progress.state
                || case
                    when backfill_progress.state = 'running' then format(
                        ', %s of %s blocks, %s left',
                        backfill_progress.blocks_done,
                        backfill_progress.blocks_total,
                        backfill_progress.time_left
                    )
                    else ''
                end,
            '; '
        ) as state,
        sum(backfill_progress.rows_updated)::bigint as rows_updated
    from tenancy.leaves(org_scoped_tables.relation) as leaf
    join tenancy.backfill_progress
        on backfill_progress.relation = leaf
) as backfill
cross join lateral (
    select
        bool_and(member.row_security) as row_security,
        bool_and(member.isolated) as isolated
    from tenancy.org_isolation(org_scoped_tables.relation) as member
) as isolation;
comment on view tenancy.status is
'Every org-scoped table, one row: how far it is, whether row-level security is on and tenancy.enable_org_isolation done (for all of its'
' partitions, where it has any), and whom it waits for.';

create or replace function tenancy.verify_table(target regclass)
returns table (
    check_name text,
    passed boolean,
    detail text
)
language plpgsql
stable
security invoker
set search_path = ''
as $function$
begin
    return query
    select
        checks.check_name,
        coalesce(checks.passed, false),
        case
            when checks.passed then checks.found
            else checks.missing
        end
    from tenancy.org_id_column(target) as org_id
    left join lateral tenancy.org_id_foreign_key(target) as foreign_key
        on true
    left join lateral tenancy.org_id_index(target) as org_id_index
        on true
    left join lateral tenancy.org_id_check(target) as not_null_check
        on true
    cross join lateral (
        select
            string_agg(guards.trigger_name, ', ' order by guards.trigger_name) filter (where guards.intact) as intact,
            string_agg(
                format('%s on %s', guards.trigger_name, guards.relation),
                ', '
                order by guards.trigger_name
            ) filter (where not guards.intact) as broken
        from tenancy.org_id_guards(target) as guards
    ) as guard
    cross join lateral (
        values
            (1, 'column', org_id.attnum is not null, 'org_id', 'no column org_id'),
            (
                2,
                'type',
                org_id.atttypid = 'uuid'::regtype,
                'uuid',
                coalesce(format_type(org_id.atttypid, org_id.atttypmod) || ', not uuid', 'no column')
            ),
            (
                3,
                'foreign_key',
                foreign_key.convalidated,
                format('%s: to organizations, on delete cascade, valid', foreign_key.conname),
                coalesce(
                    foreign_key.conname || ' is not validated',
                    'no foreign key from org_id to organizations (id) on delete cascade'
                )
            ),
            (
                4,
                'index',
                org_id_index.indexrelid is not null,
                format('%s: valid', (select relname from pg_catalog.pg_class where oid = org_id_index.indexrelid)),
                'no valid index that starts with org_id'
            ),
            (
                5,
                'check',
                not_null_check.convalidated,
                format('%s: org_id is not null, valid', not_null_check.conname),
                coalesce(not_null_check.conname || ' is not validated', 'no check (org_id is not null)')
            ),
            (6, 'not_null', org_id.attnotnull, 'not null', 'the column is nullable'),
            (
                7,
                'immutable',
                guard.broken is null,
                format('%s: enabled always', guard.intact),
                format('missing, changed or not enabled always: %s', guard.broken)
            )
    ) as checks (ordinal, check_name, passed, found, missing);
end
$function$;
comment on function tenancy.verify_table(regclass) is
'The checks of one table''s definition, which need no look at its rows: one row a check.';

create or replace function tenancy.verify_schema()
returns table (
    check_name text,
    table_name text,
    passed boolean,
    detail text
)
language sql
volatile
security invoker
set search_path = ''
as $function$
    select
        checks.check_name,
        org_scoped_tables.relation::text,
        checks.passed,
        checks.detail
    from tenancy.org_scoped_tables
    cross join lateral tenancy.verify_table(org_scoped_tables.relation) as checks

    union all

    select
        'registry',
        null,
        problems.text is null,
        coalesce(problems.text, format('%s org-scoped, %s excluded, none unclassified', registered.org, registered.excluded))
    from (
        select string_agg(
            format('%I.%I %s', registry_problems.schema_name, registry_problems.table_name, registry_problems.problem),
            '; '
        ) as text
        from tenancy.registry_problems
    ) as problems
    cross join (
        select
            count(*) filter (where registry.scope = 'org') as org,
            count(*) filter (where registry.scope = 'excluded') as excluded
        from tenancy.registry
    ) as registered

    union all

    select
        'auth_org_id',
        null,
        problem is null,
        coalesce('public.auth_org_id() ' || problem, 'public.auth_org_id() returns app_metadata.org_id and ignores user_metadata')
    from tenancy.auth_org_id_problem() as problem
$function$;
comment on function tenancy.verify_schema() is
'verify_table of every org-scoped table, and what needs no look at rows or users either, for the end of the push: one row a check'
' and table; table_name NULL: the whole.';

create or replace function tenancy.verify()
returns table (
    check_name text,
    table_name text,
    passed boolean,
    detail text
)
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    target regclass;
    before tenancy.tables_before;
    row_count bigint;
    rows_without_org bigint;
    inserted bigint;
    deleted bigint;
begin
    return query
    select verify_schema.*
    from tenancy.verify_schema();

    for target in
        select org_scoped_tables.relation
        from tenancy.org_scoped_tables
        where (tenancy.org_id_column(org_scoped_tables.relation)).attnum is not null
        order by org_scoped_tables.position
    loop
        execute format('select count(*) from %s', target)
        into row_count;
        execute format('select count(*) from %s where org_id is null', target)
        into rows_without_org;

        table_name := target;
        check_name := 'no_nulls';
        passed := rows_without_org = 0;
        detail := format('%s of %s rows without organization', rows_without_org, row_count);
        return next;

        select tables_before.*
        into before
        from tenancy.tables_before
        where tables_before.relation = target;

        inserted := tenancy.rows_inserted(target) - before.rows_inserted;
        deleted := tenancy.rows_deleted(target) - before.rows_deleted;
        check_name := 'row_count';
        passed := coalesce(row_count >= before.row_count - greatest(deleted, 0), false);
        detail := case
            when before.relation is null then 'not counted before phase 2'
            when inserted < 0 or deleted < 0 then format(
                '%s before, %s now; the statistics were reset between',
                before.row_count,
                row_count
            )
            else format(
                '%s before, %s now; the application inserted %s and deleted %s',
                before.row_count,
                row_count,
                inserted,
                deleted
            )
        end;
        return next;
    end loop;

    return query
    select
        'users',
        null::text,
        count(users_without_org.user_id) = 0,
        format(
            '%s of %s users without their organization in app_metadata (%s missing, %s conflicts, %s unreachable)',
            count(users_without_org.user_id),
            count(*),
            count(users_without_org.user_id) filter (where users_without_org.obstacle is null),
            count(*) filter (where users_without_org.obstacle = 'conflict'),
            count(*) filter (where users_without_org.obstacle = 'unreachable')
        )
    from auth.users
    left join tenancy.users_without_org
        on users_without_org.user_id = users.id;
end
$function$;
comment on function tenancy.verify() is
'The plan''s checklist: verify_schema(), and for each table no NULL left and no row lost, and for the users none without organization.'
' One row a check and table. It counts every table, so it takes as long as that.';

create or replace view tenancy.org_id_dependents as
select
    org_scoped_tables.relation,
    pg_describe_object(dependency.classid, dependency.objid, dependency.objsubid) as dependent
from tenancy.org_scoped_tables
join tenancy.tables_before
    on tables_before.relation = org_scoped_tables.relation
    and not tables_before.had_org_id
cross join lateral tenancy.members(org_scoped_tables.relation) as member
join lateral tenancy.org_id_column(member) as org_id
    on org_id.attnum is not null
join pg_catalog.pg_depend as dependency
    on dependency.refclassid = 'pg_catalog.pg_class'::regclass
    and dependency.refobjid = member
    and dependency.refobjsubid = org_id.attnum
left join pg_catalog.pg_constraint as its_constraint
    on dependency.classid = 'pg_catalog.pg_constraint'::regclass
    and its_constraint.oid = dependency.objid
left join pg_catalog.pg_trigger as its_trigger
    on dependency.classid = 'pg_catalog.pg_trigger'::regclass
    and its_trigger.oid = dependency.objid
left join pg_catalog.pg_policy as its_policy
    on dependency.classid = 'pg_catalog.pg_policy'::regclass
    and its_policy.oid = dependency.objid
where dependency.classid <> 'pg_catalog.pg_attrdef'::regclass
    -- An index holds nothing that is not in its table; those of a constraint depend on that.
    and not (dependency.classid = 'pg_catalog.pg_class'::regclass and dependency.objsubid = 0)
    and its_trigger.tgfoid is distinct from to_regprocedure('tenancy.refuse_org_id_change()')
    and its_trigger.tgfoid is distinct from to_regprocedure('tenancy.fill_row_org_id()')
    and its_policy.polname is distinct from 'org_isolation'
    and not coalesce(
        its_constraint.contype = 'n'
        or its_constraint.oid = (tenancy.org_id_check(member)).oid
        or its_constraint.oid = (tenancy.org_id_foreign_key(member)).oid
        or (
            its_constraint.contype = 'f'
            and (
                its_constraint.conname = tenancy.foreign_key_substitute(its_constraint.conrelid)
                or exists (
                    select
                    from tenancy.bound_references
                    where bound_references.relation in (its_constraint.conrelid, its_constraint.confrelid)
                        and bound_references.constraint_name = its_constraint.conname
                )
            )
        ),
        false
    );
comment on view tenancy.org_id_dependents is
'What of yours uses an org_id that a roll back to phase 1 would drop: views, policies, triggers, constraints, publications. Change'
' those first. Indexes are not among them: they go with the column.';

create or replace function tenancy.roll_back(to_phase integer, target regclass default null)
returns regclass
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    dependents text;
    undone regclass;
begin
    if to_phase is null or to_phase not between 1 and 6 then
        raise exception 'cannot roll back to phase %: it is 1 (discovery), 2 (columns), 3 (backfill), 4 (not null), 5 (identity)'
            ' or 6 (immutability)',
            coalesce(to_phase::text, 'NULL')
        using errcode = 'invalid_parameter_value';
    end if;

    if to_phase = 1 and target is null then
        dependents := (
            select string_agg(
                format('%s: %s', org_id_dependents.relation, org_id_dependents.dependent),
                E'\n'
                order by org_id_dependents.relation::text, org_id_dependents.dependent
            )
            from tenancy.org_id_dependents
        );
        if dependents is not null then
            raise exception 'cannot roll back to phase 1: other objects use org_id'
            using
                errcode = 'dependent_objects_still_exist',
                detail = E'Drop or change these first; nothing has been rolled back yet:\n' || dependents;
        end if;
    end if;

    -- What was opted into goes first, on all tables: a bound foreign key holds on to the org_id of two.
    if exists (select from tenancy.bound_references)
        or exists (select from pg_catalog.pg_constraint where conname ~ '^org_id_substitute_')
        or exists (select from pg_catalog.pg_policy where polname = 'org_isolation')
    then
        undone := tenancy.next_step('{disable_org_isolation,unbind_from_parent}', target);
        if undone is not null then
            return undone;
        end if;
    end if;

    return tenancy.next_step(
        array(
            select undo.step
            from (
                values
                    (6, 1, 'allow_org_id_change'),
                    (4, 2, 'allow_null_org_id'),
                    (2, 3, 'drop_org_id_foreign_key'),
                    (2, 4, 'drop_org_id_index'),
                    (3, 5, 'stop_filling_org_id'),
                    (3, 6, 'forget_backfill'),
                    (2, 7, 'drop_org_id')
            ) as undo (phase, ordinal, step)
            where undo.phase > to_phase
            order by undo.ordinal
        ),
        target
    );
end
$function$;
comment on function tenancy.roll_back(integer, regclass) is
'Undoes the phases after to_phase, isolation and bound foreign keys before all, one change of one table a call; returns the table,'
' NULL when nothing is left to undo. To be looped over and committed like tenancy.next_step: do $$ declare target regclass; begin loop'
' target := tenancy.roll_back(1, target); exit when target is null; commit; end loop; end $$.'
' What cannot be undone: to 1 the organizations of all rows are gone with the column, and where the column was there before, the values'
' that the backfill filled in stay, and constraints that were not valid stay validated. Users keep app_metadata.org_id, which is one'
' more key to them. Raises dependent_objects_still_exist, before anything is undone, with tenancy.org_id_dependents in the DETAIL.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;

do $do$
declare
    failures text := (
        select string_agg(concat_ws(' ', failed.table_name, failed.check_name || ':', failed.detail), E'\n')
        from tenancy.verify_schema() as failed
        where not failed.passed
    );
begin
    if failures is not null then
        raise exception 'the migration is not complete'
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = failures;
    end if;
end
$do$;
