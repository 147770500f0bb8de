-- Purpose: every part of every table as rows; what of it is still to be done (plan), what was done (log), what each table has
--          (status), and what the push has to do, and which session does.
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.push_parts as
select column_parts.* from tenancy.column_parts
union all
select index_parts.* from tenancy.index_parts
union all
select constraint_parts.* from tenancy.constraint_parts
union all
select guard_parts.* from tenancy.guard_parts;
comment on view tenancy.push_parts is 'What the push gives every org-scoped table. Columns as tenancy.parts.';

create or replace view tenancy.table_parts as
select push_parts.* from tenancy.push_parts
union all
select isolation_parts.* from tenancy.isolation_parts
union all
select binding_parts.* from tenancy.binding_parts
union all
select least_privilege_parts.* from tenancy.least_privilege_parts;
comment on view tenancy.table_parts is
'What every org-scoped table is to have, the one place where that is said: made, found, verified, undone and listed from here.'
' Columns as tenancy.parts.';

create or replace function tenancy.parts(target regclass)
returns table (
    phase integer,
    ordinal integer,
    part text,
    relation regclass,
    name name,
    present boolean,
    ddl text,
    undo text,
    lock text
)
language plpgsql stable security invoker set search_path = '' set plan_cache_mode = force_generic_plan as $function$
#variable_conflict use_column
begin
    -- One plan per session.
    return query
    select
        table_parts.phase, table_parts.ordinal, table_parts.part, table_parts.relation, table_parts.name,
        table_parts.present, table_parts.ddl, table_parts.undo, table_parts.lock
    from tenancy.table_parts
    where table_parts.root = target
    order by table_parts.ordinal, table_parts.qualified_name;
end
$function$;
comment on function tenancy.parts(regclass) is
'What an org-scoped table is to have because of org_id, one row per object of it and of its partitions, in the order in which they are'
' made. present: it is there, by its definition in the catalog, under whatever name. ddl: the statement that makes it. undo: the one that'
' takes it back, NULL where nothing is to be taken back. lock: what ddl takes on the table. No row for any other table.';

create or replace view org_migration.missing_parts as
select missing.phase, missing.ordinal, missing.step as part, missing.relation, missing.statement as ddl, missing.lock
from org_migration.missing_statements(
    null, array(select tables.relation from tenancy.application_tables as tables where tables.scope = 'org'), null
) as missing;
comment on view org_migration.missing_parts is
'The parts of tenancy.table_parts that are not present, by the query of which the loops of the push have the plan already.';

create or replace view tenancy.plan as
with size as materialized (
    select
        org_id_columns.*, root.schema_name, root.table_name,
        case when org_id_columns.is_leaf then pg_relation_size(org_id_columns.relation) else 0 end as bytes,
        nullif(class.reltuples, -1)::bigint as estimated_rows
    from tenancy.org_id_columns
    join tenancy.application_tables as root on root.relation = org_id_columns.root
    join pg_catalog.pg_class as class on class.oid = org_id_columns.relation
),
missing as materialized (
    select missing_parts.*
    from org_migration.missing_parts
),
steps as (
    select
        2 as phase, 1 as ordinal, 'count' as part, root.relation,
        format('select count(*) from %s', root.qualified_name) as statement,
        'ACCESS SHARE' as lock,
        sum(size.bytes)::bigint as bytes,
        sum(size.estimated_rows)::bigint as estimated_rows
    from size as root
    join size on size.root = root.relation
    where root.is_root
        and root.relation not in (select tables_before.relation from org_migration.tables_before)
    group by root.relation, root.qualified_name
    union all
    select
        3, 5, 'backfill', size.relation,
        format('update %s: org_id of %s', size.qualified_name, decisions.in_words),
        'ROW EXCLUSIVE, and the rows of one batch', size.bytes, size.estimated_rows
    from size
    join tenancy.decisions on decisions.root = size.root
    left join org_migration.backfills on backfills.relation = size.relation and backfills.number = 0
    cross join tenancy.settings
    where size.is_leaf
        and coalesce(backfills.state not in ('catalog', 'finished'), true)
        and case
            when size.attnum is null then decisions.is_per_row
            else not size.is_not_null and size.missing_value is distinct from format('{%s}', settings.default_org_id)
        end
    union all
    select
        missing.phase, missing.ordinal, missing.part, missing.relation, missing.ddl, missing.lock,
        case when missing.part in ('index', 'foreign_key_valid', 'check_valid') then size.bytes else 0 end,
        size.estimated_rows
    from missing
    join size on size.relation = missing.relation
)
select
    row_number() over (
        order by
            steps.ordinal,
            case when steps.part = 'backfill' then tables.position end,
            size.schema_name,
            size.table_name,
            size.qualified_name
    ) as number,
    steps.phase, steps.part, steps.relation, steps.statement, steps.lock, steps.bytes, steps.estimated_rows,
    round(
        case
            when steps.part = 'backfill' then steps.estimated_rows::numeric / settings.backfill_rows_per_second
            else steps.bytes / (settings.scan_mb_per_second * 1e6)
        end,
        1
    ) as seconds
from steps
join size on size.relation = steps.relation
join tenancy.org_scoped_tables as tables on tables.relation = size.root
cross join tenancy.settings
order by 1;
comment on view tenancy.plan is
'Every statement that is still to run, literally and in order (by tables'' names, the backfill parents first), with its lock. An index line is yours to have in the file ending in'
' _EDIT_index_org_id.sql; a backfill is its decision in words, and runs in batches. bytes: what it reads, or rewrites. seconds: by'
' settings.scan_mb_per_second and backfill_rows_per_second. estimated_rows: of the statistics, NULL where the table was never analyzed.';

create table if not exists tenancy.log (
    id bigint generated always as identity primary key,
    part text not null,
    table_name text not null,
    statement text not null,
    began timestamptz default clock_timestamp(),
    seconds numeric,
    seconds_waited numeric not null default 0,
    waited_for text,
    rows bigint
);
comment on table tenancy.log is
'Every statement that ran on a table: of tenancy.plan, of tenancy.roll_back and of the opt-ins; as part objection, what spoke against isolating'
' a table that was isolated in spite of it. It is kept until you drop it.';
comment on column tenancy.log.began is 'NULL for an index line, which runs outside of any function; likewise seconds. An index that a function built is logged as it was built.';
comment on column tenancy.log.seconds is 'How long it took, its last wait for a lock included; a backfill from its first batch to its last.';
comment on column tenancy.log.seconds_waited is 'How long its lock was asked for in vain before.';
comment on column tenancy.log.waited_for is 'Who held that lock, when it was asked for last.';
comment on column tenancy.log.rows is 'Rows that it counted or updated; NULL for DDL.';

create or replace view tenancy.status as
select
    org_scoped_tables.relation, org_scoped_tables.priority,
    coalesce(own.type_name, 'missing') as org_id,
    own.indexed, own.references_organizations, own.checked, own.not_null,
    own.immutable, isolation.row_security, isolation.isolated, own.missing_parts
from tenancy.org_scoped_tables
join lateral (
    select
        max(format_type(org_id.atttypid, org_id.atttypmod)) as type_name,
        bool_and(table_parts.present) filter (where table_parts.part in ('index', 'index_root')) as indexed,
        bool_and(table_parts.present) filter (where table_parts.part like 'foreign_key%') as references_organizations,
        bool_and(table_parts.present) filter (where table_parts.part like 'check%') as checked,
        bool_and(table_parts.present) filter (where table_parts.part = 'not_null') as not_null,
        bool_and(table_parts.present) filter (where table_parts.part like 'guard%') as immutable,
        string_agg(distinct table_parts.part, ', ') filter (where not table_parts.present) as missing_parts
    from tenancy.table_parts
    left join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = table_parts.root
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
    where table_parts.root = org_scoped_tables.relation
) as own on true
cross join lateral (
    select bool_and(policies.row_security) as row_security, bool_and(coalesce(policies.isolated, false)) as isolated
    from tenancy.isolation_policies as policies
    where policies.root = org_scoped_tables.relation
) as isolation;
comment on view tenancy.status is
'Every org-scoped table, one row: what it has, which parts are missing, and whether row-level security is on and'
' tenancy.enable_org_isolation done (for all of its partitions, where it has any). How far a push is: tenancy.now.';

-- What a push has to do of it, and which session does ----------------------------------------------------------------------

create or replace view org_migration.push_session as
select
    noted.pid, noted.began, noted.loop_name, noted.in_loop, noted.noted_at, noted.works_since, noted.paused_since, noted.wal_start,
    session.pid is not null as alive,
    session.state, session.state_change, session.wait_event_type, session.xact_start, session.query_start
from org_migration.sessions as noted
left join pg_catalog.pg_stat_activity as session
    on session.pid = noted.pid
    -- Who may not look into another role's session sees its process id alone.
    and coalesce(session.backend_start = noted.began, true)
order by session.pid is not null desc, noted.noted_at desc
limit 1;
comment on view org_migration.push_session is
'The session that pushes, or else the one that did last, and what PostgreSQL says of it; alive: it is still there. No row before a push.';

create or replace function org_migration.enter_loop(loop_name text)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    insert into org_migration.sessions (pid, began, loop_name, in_loop, noted_at, wal_start)
    select session.pid, session.backend_start, enter_loop.loop_name, true, clock_timestamp(), pg_current_wal_insert_lsn()
    from pg_catalog.pg_stat_activity as session
    where session.pid = pg_backend_pid()
    on conflict (pid) do update
    set
        began = excluded.began,
        loop_name = excluded.loop_name,
        in_loop = true,
        noted_at = excluded.noted_at,
        works_since = case when sessions.began = excluded.began then sessions.works_since end,
        paused_since = case when sessions.began = excluded.began then sessions.paused_since end,
        wal_start = case when sessions.began = excluded.began then sessions.wal_start else excluded.wal_start end;
end
$function$;
comment on function org_migration.enter_loop(text) is 'Notes that this session is in a loop, before it waits for anything.';

create or replace view org_migration.push_work as
select
    work.number, work.phase, work.part, work.relation, work.expected, work.bytes, work.done_at,
    case
        when work.bytes > 8000000 then 'bytes'
        when work.part = 'backfill' and work.expected > 0.1 then 'rows'
        else 'small'
    end as kind,
    work.seconds + coalesce(backfill.seconds, 0) as seconds,
    case
        when work.done_at is not null then 1
        when work.part = 'backfill' then coalesce(backfill.done, 0)
        when work.part = 'index' and exists (
            select from pg_catalog.pg_index
            join pg_catalog.pg_attribute as org_id
                on org_id.attrelid = pg_index.indrelid
                and org_id.attnum = pg_index.indkey[0]
            where pg_index.indrelid = work.relation
                and org_id.attname = 'org_id'
                and pg_index.indisvalid
                and pg_index.indpred is null
        ) then 1
        else 0
    end as done,
    coalesce(backfill.recent_seconds, 0) as recent_seconds, coalesce(backfill.recently_done, 0) as recently_done
from org_migration.work
left join org_migration.backfill_progress as backfill
    on work.part = 'backfill'
    and backfill.relation = work.relation;
comment on view org_migration.push_work is
'What the push has to do, and how much of each is done, from 0 to 1; kind: by what the time it takes is expected.';

create or replace function org_migration.expected_seconds(part text, rows double precision)
returns double precision language sql stable security invoker set search_path = '' as $function$
    -- As measured: on small tables, with the look at what is missing before and after, and then per row in memory.
    select case part
        when 'backfill' then 0.022 + rows / settings.backfill_rows_per_second
        when 'count' then 0.004 + rows * 0.05e-6
        when 'index' then 0.008 + rows * 0.6e-6
        when 'foreign_key_valid' then 0.0015 + rows * 0.2e-6
        when 'check_valid' then 0.0015 + rows * 0.13e-6
        else 0.0015
    end
    from tenancy.settings
$function$;
comment on function org_migration.expected_seconds(text, double precision) is
'Seconds that a step is expected to take on a table of so many rows, without those that it waits for its disk.';

create or replace function org_migration.note_work()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update org_migration.sessions
    set works_since = clock_timestamp()
    where sessions.pid = pg_backend_pid()
        and sessions.works_since is null;
    if not found then
        return;
    end if;

    delete from org_migration.sessions
    where sessions.pid in (
        select noted.pid
        from org_migration.sessions as noted
        where not exists (
            select from pg_catalog.pg_stat_activity as session
            where session.pid = noted.pid and coalesce(session.backend_start = noted.began, true)
        )
        for update skip locked
    );

    update org_migration.work
    set done_at = clock_timestamp()
    where work.done_at is null
        and work.number in (select push_work.number from org_migration.push_work where push_work.done = 1);
    -- Where all of it is done, what comes is a push of its own.
    delete from org_migration.work
    where not exists (select from org_migration.work as left_over where left_over.done_at is null);

    with missing as materialized (
        select
            plan.number, plan.phase, plan.part, plan.relation,
            coalesce(counted.row_count, plan.estimated_rows, plan.bytes / 100) as rows,
            plan.bytes * case plan.part when 'backfill' then 0 when 'index' then 2 else 1 end as bytes
        from tenancy.plan
        left join org_migration.tables_before as counted on counted.relation = plan.relation
        where plan.phase <= 6
            and plan.part not in ('isolation', 'binding', 'binding_valid', 'least_privilege')
    ),
    -- What is noted stays as it is, or the share that is done would be another one in each session.
    gone as (
        delete from org_migration.work
        where work.done_at is null
            and (work.part, work.relation) not in (select missing.part, missing.relation from missing)
    )
    insert into org_migration.work (number, phase, part, relation, expected, bytes)
    select
        missing.number + (select coalesce(max(work.number), 0) from org_migration.work),
        missing.phase, missing.part, missing.relation, org_migration.expected_seconds(missing.part, missing.rows), missing.bytes
    from missing
    where (missing.part, missing.relation) not in (
        select noted.part, noted.relation
        from org_migration.work as noted
        where noted.done_at is null
    );
end
$function$;
comment on function org_migration.note_work() is
'Notes what this session has to do, once, before its first step. What a session before it has noted of the same push stays, done or not.';

create or replace function org_migration.note_overhead(steps text[])
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update org_migration.work
    set seconds = work.seconds + org_migration.count_time()
    where work.number = (
        select smallest.number
        from org_migration.work as smallest
        where smallest.part = any (steps)
        order by smallest.expected, smallest.number
        limit 1
    );
    perform org_migration.count_time();
end
$function$;
comment on function org_migration.note_overhead(text[]) is
'Notes what it took to look what is missing of these steps, with the smallest of them: it tells nothing of the speed of a large one.';

create or replace function org_migration.leave_loop(steps text[], undo_to integer)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update org_migration.sessions
    set in_loop = false
    where sessions.pid = pg_backend_pid();

    if undo_to is not null then
        delete from org_migration.work;
        delete from org_migration.sessions
        where sessions.pid = pg_backend_pid();
    end if;

    update org_migration.work
    set done_at = clock_timestamp()
    where work.part = any (steps)
        and work.done_at is null;
    perform org_migration.note_overhead(steps);

    -- By now the rows are known, and were a guess where a table had no statistics.
    update org_migration.work
    set expected = org_migration.expected_seconds(work.part, counted.row_count)
    from org_migration.tables_before as counted
    where 'count' = any (steps)
        and counted.relation = work.relation
        and work.done_at is null;
end
$function$;
comment on function org_migration.leave_loop(text[], integer) is
'Notes that this session is through with a loop: nothing is missing of its steps. After an undo nothing is noted any more.';
