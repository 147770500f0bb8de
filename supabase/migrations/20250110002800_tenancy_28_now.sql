-- Purpose: what the push is doing at this moment: which session, how far, how long still, and who is in its way (now).
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

-- Which session, and what it has to do -------------------------------------------------------------------------------------

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
    work.number, work.phase, work.part, work.relation, work.expected, work.done_at,
    case
        when work.expected < 0.1 then 'small'
        when work.part = 'backfill' then 'rows'
        else 'bytes'
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
    where work.done_at is null
        or not exists (select from org_migration.work as left_over where left_over.done_at is null);

    insert into org_migration.work (number, phase, part, relation, expected)
    select
        plan.number + (select coalesce(max(work.number), 0) from org_migration.work),
        plan.phase, plan.part, plan.relation,
        0.01 + case
            when plan.part = 'backfill' then
                0.02 + coalesce(counted.row_count, plan.estimated_rows, plan.bytes / 100)::double precision / settings.backfill_rows_per_second
            else plan.bytes / (settings.scan_mb_per_second * 1e6) * case plan.part
                when 'index' then 4
                when 'foreign_key_valid' then 2
                else 1
            end
        end
    from tenancy.plan
    cross join tenancy.settings
    left join org_migration.tables_before as counted on counted.relation = plan.relation
    where plan.phase <= 6
        and plan.part not in ('isolation', 'binding', 'binding_valid', 'least_privilege');
end
$function$;
comment on function org_migration.note_work() is
'Notes what this session has to do, once, before its first step. What a session before it has done of the same push stays noted.';

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
    -- To see that nothing is missing took time as well.
    update org_migration.work
    set seconds = work.seconds + org_migration.count_time()
    where work.number = (select max(last.number) from org_migration.work as last where last.part = any (steps));
end
$function$;
comment on function org_migration.leave_loop(text[], integer) is
'Notes that this session is through with a loop: nothing is missing of its steps. After an undo nothing is noted any more.';

-- What it does at this moment, and who is in its way -----------------------------------------------------------------------

create or replace view org_migration.push_index_build as
select
    build.relid, build.phase, nullif(build.current_locker_pid, 0) as waits_for_pid,
    case
        when build.phase like 'building index%' then 0.6 * greatest(
            0.6 * build.blocks_done / nullif(build.blocks_total, 0),
            0.6 + 0.4 * build.tuples_done / nullif(build.tuples_total, 0)
        )
        when build.phase = 'waiting for writers before validation' then 0.6
        when build.phase = 'index validation: scanning table' then 0.7 + 0.3 * build.blocks_done / nullif(build.blocks_total, 0)
        when build.phase like 'index validation%' then 0.65
        when build.phase like 'waiting for old snapshots%' then 0.99
    end as done
from org_migration.push_session
join pg_catalog.pg_stat_progress_create_index as build on build.pid = push_session.pid
where push_session.alive;
comment on view org_migration.push_index_build is
'The index that an index line of the push is building: in which phase of PostgreSQL''s, for whom it waits, and how much is done, from 0 to 1.';

create or replace view org_migration.push_step as
select found.step, found.relation, found.number, found.count
from (
    select
        1 as rank, 'index' as step, build.relid::regclass as relation,
        (select count(*) from org_migration.push_work where push_work.part = 'index' and push_work.done = 1) + 1 as number,
        (select count(*) from org_migration.push_work where push_work.part = 'index') as count
    from org_migration.push_index_build as build
    union all
    (
        select
            2, queued.step, coalesce(backfill.relation, queued.relation),
            (
                select count(*)
                from org_migration.queue as done
                where done.loop_name = queued.loop_name and done.step = queued.step and done.done_at is not null
            ) + 1,
            (
                select count(*)
                from org_migration.queue as every
                where every.loop_name = queued.loop_name and every.step = queued.step
            )
        from org_migration.push_session
        join org_migration.queue as queued on queued.loop_name = push_session.loop_name
        left join org_migration.lock_waits
            on lock_waits.session_pid = push_session.pid
            and lock_waits.step = queued.step
            and lock_waits.relation = queued.root
        left join org_migration.backfill_progress as backfill
            on queued.step = 'backfill'
            and backfill.state = 'running'
            and backfill.relation in (select tenancy.leaves(queued.root))
        where queued.done_at is null and push_session.in_loop
        order by
            -- A table that waits is passed over while there is another.
            lock_waits.relation is not null, backfill.last_batch_at desc nulls last, queued.number
        limit 1
    )
) as found
order by found.rank
limit 1;
comment on view org_migration.push_step is
'What the push works on, or where it stopped: the step, the table, and the how manieth of how many it is. No row between two loops.';

create or replace view org_migration.push_blockers as
with session as materialized (
    select push_session.pid, push_session.wait_event_type
    from org_migration.push_session
    where push_session.alive
),
asked as (
    -- It waits at this moment,
    select blocker.pid, held.relation, held.transactionid, held.waitstart as since, build.phase as build_phase
    from session
    cross join lateral unnest(pg_blocking_pids(session.pid)) as blocker (pid)
    join pg_catalog.pg_locks as held on held.pid = session.pid and not held.granted
    left join org_migration.push_index_build as build on true
    where session.wait_event_type = 'Lock'
    union all
    -- or has asked in vain, and will ask again.
    select held.pid, lock_waits.relation, null, lock_waits.blocked_since, null
    from session
    join org_migration.lock_waits on lock_waits.session_pid = session.pid
    join pg_catalog.pg_locks as held
        on held.locktype = 'relation'
        and held.granted
        and held.pid is distinct from session.pid
        and held.database = (select oid from pg_catalog.pg_database where datname = current_database())
        and (
            held.relation in (lock_waits.relation, 'public.organizations'::regclass)
            or held.relation in (select tree.relid from pg_partition_tree(lock_waits.relation) as tree)
        )
)
select
    min(asked.since) as since,
    coalesce(
        'the index build, ' || min(asked.build_phase),
        'a lock on ' || string_agg(distinct asked.relation::regclass::text, ', '),
        'a lock'
    ) as waits_for,
    coalesce(
        org_migration.describe_session(
            activity.pid, activity.backend_type, activity.state, activity.xact_start, activity.query
        ),
        format('the prepared transaction %s', prepared.gid)
    ) as description,
    case
        when prepared.gid is not null then format('rollback prepared %L', prepared.gid)
        -- Autovacuum gives way by itself; only its owner may end it.
        when activity.backend_type <> 'autovacuum worker' then format('select pg_terminate_backend(%s)', activity.pid)
    end as unblock
from asked
left join pg_catalog.pg_stat_activity as activity on activity.pid = asked.pid
left join pg_catalog.pg_prepared_xacts as prepared
    on coalesce(asked.pid, 0) = 0
    and (
        prepared.transaction = asked.transactionid
        or exists (
            select from pg_catalog.pg_locks as held
            where held.pid is null
                and held.relation = asked.relation
                and split_part(held.virtualtransaction, '/', 2) = prepared.transaction::text
        )
    )
where activity.pid is not null or prepared.gid is not null
group by activity.pid, activity.backend_type, activity.state, activity.xact_start, activity.query, prepared.gid;
comment on view org_migration.push_blockers is
'Who is in the way of the push at this moment, one row each: since when, what for, who, and the statement that ends it.';

create or replace view org_migration.push_estimate as
with work as materialized (
    select
        push_work.*,
        push_step.step is not null as is_current,
        case when push_step.step is not null then build.done end as built
    from org_migration.push_work
    left join org_migration.push_step
        on push_step.step = push_work.part
        and push_step.relation = push_work.relation
    left join org_migration.push_index_build as build on build.relid = push_work.relation
),
pace as materialized (
    -- How much longer than expected it takes. A fifth of a second that went as expected keeps the first ones from saying too much.
    select work.kind, (sum(work.seconds) + 0.2) / (sum(work.expected * work.done) + 0.2) as factor
    from work
    where work.seconds > 0
    group by work.kind
),
remaining as (
    select
        work.number,
        work.expected,
        greatest(work.done, coalesce(work.built, 0)) as done,
        case
            when work.done = 1 then 0
            -- By its own pace, the more it has of one.
            when work.kind = 'rows' then
                (1 - work.done) * (work.recent_seconds + 0.003 * expectation.seconds) / (work.recently_done + 0.003)
            when work.built is not null then (1 - work.built) * expectation.seconds
            -- A statement that says nothing until it is through.
            when work.is_current and push_session.state = 'active' and push_session.wait_event_type is distinct from 'Lock' then greatest(
                expectation.seconds - extract(epoch from clock_timestamp() - push_session.xact_start),
                0.05 * expectation.seconds
            )
            else expectation.seconds
        end as seconds
    from work
    left join pace on pace.kind = work.kind
    cross join lateral (
        select work.expected * coalesce(pace.factor, 1) as seconds
    ) as expectation
    left join org_migration.push_session on true
)
select
    count(*) as steps,
    count(*) filter (where remaining.done < 1) as steps_left,
    sum(remaining.expected * remaining.done) / sum(remaining.expected) as done,
    sum(remaining.seconds) as seconds_left
from remaining;
comment on view org_migration.push_estimate is
'How much of the whole push is done, from 0 to 1, and the seconds of work that are left, without pauses and waits for locks: what it was'
' expected to take, by how much longer than expected took what is done.';

create or replace view tenancy.now as
with blockers as materialized (
    select
        min(blocker.since) as since,
        string_agg(distinct blocker.waits_for, '; ') as waits_for,
        string_agg(blocker.description, E'\n' order by blocker.since, blocker.description) as descriptions,
        string_agg(blocker.unblock || ';', E'\n' order by blocker.since, blocker.description) as unblock
    from org_migration.push_blockers as blocker
),
next_work as (
    select format('%s of %s', work.part, work.relation) as description
    from org_migration.push_work as work
    left join org_migration.push_step on true
    where work.done < 1
        and (work.part, work.relation) is distinct from (push_step.step, push_step.relation)
    order by work.number
    limit 1
),
judged as (
    select
        session.*, step.step, step.relation, step.number, step.count, estimate.done, estimate.steps_left, estimate.seconds_left,
        blockers.since as blocked_since, blockers.waits_for, blockers.descriptions, blockers.unblock,
        settings.paused,
        case
            when session.pid is null then 'not begun'
            when not session.in_loop and estimate.steps_left = 0 then 'done'
            when not session.alive then 'dead'
            when session.paused_since is not null then 'paused'
            when blockers.since < clock_timestamp() - interval '1 second' then 'blocked'
            when session.state like 'idle%' and session.state_change < clock_timestamp() - interval '5 seconds' then 'idle'
            else 'running'
        end as status
    from org_migration.push_estimate as estimate
    cross join blockers
    left join org_migration.push_session as session on true
    left join org_migration.push_step as step on true
    left join tenancy.settings on true
)
select
    judged.status,
    coalesce(judged.alive, false) as alive,
    judged.pid as session_pid,
    judged.began as session_began,
    judged.paused_since,
    case when judged.status <> 'done' then coalesce(work.phase, case when judged.step in ('leftovers', 'last_resort') then 4 end) end as phase,
    case when judged.status <> 'done' then judged.step end as step,
    case when judged.status <> 'done' then judged.relation end as relation,
    case when judged.status <> 'done' then judged.number end as table_number,
    case when judged.status <> 'done' then judged.count end as tables,
    case judged.status
        when 'done' then 100
        when 'not begun' then 0
        else round(least(100 * judged.done, 99.9)::numeric, 1)
    end as percent,
    case when judged.step = 'backfill' and judged.status <> 'done' then backfill.rows_per_second end as rows_per_second,
    case
        when judged.status in ('running', 'blocked', 'paused', 'idle') then make_interval(secs => round(judged.seconds_left::numeric, 1)::double precision)
    end as time_left,
    case when judged.alive then pg_wal_lsn_diff(pg_current_wal_insert_lsn(), judged.wal_start)::bigint end as wal_bytes,
    case when judged.status = 'blocked' then judged.blocked_since end as blocked_since,
    case when judged.status = 'blocked' then judged.waits_for end as waits_for,
    case when judged.status = 'blocked' then judged.descriptions end as blocked_by,
    case when judged.status = 'blocked' then judged.unblock end as unblock,
    case
        when judged.status = 'done' then 'select * from tenancy.findings'
        when judged.status in ('not begun', 'dead') then 'push' || case
            when judged.paused then ', after update tenancy.settings set paused = false'
            else ''
        end
        when judged.status = 'paused' then 'update tenancy.settings set paused = false'
        when judged.paused then 'a pause'
        else (select next_work.description from next_work)
    end as next
from judged
left join org_migration.push_work as work
    on work.part = judged.step
    and work.relation = judged.relation
left join org_migration.backfill_progress as backfill on backfill.relation = judged.relation;
comment on view tenancy.now is
'What the push is doing, one row, current at every step and batch.';
comment on column tenancy.now.status is
'not begun; running; paused; blocked: by whom, since more than a second; idle: its client has sent nothing for five seconds; dead: its session is gone and something is left'
' to do, and a push goes on from there; done.';
