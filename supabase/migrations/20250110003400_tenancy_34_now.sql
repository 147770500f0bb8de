-- Purpose: what the push is doing at this moment: which session, how far, how long still, and who is in its way (now).
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view org_migration.push_index_build as
select
    build.relid, build.phase, nullif(build.current_locker_pid, 0) as waits_for_pid,
    case
        when build.phase like 'building index%' then 0.6 * greatest(
            0.6 * build.blocks_done / nullif(build.blocks_total, 0),
            0.6 + 0.4 * build.tuples_done / nullif(build.tuples_total, 0)
        )
        when build.phase = 'waiting for writers before validation' then 0.6
        when build.phase = 'index validation: scanning table' then 0.7 + 0.29 * build.blocks_done / nullif(build.blocks_total, 0)
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
        tenancy.describe_session(
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
            -- It has no process, and is known by the lock on its own id.
            select from pg_catalog.pg_locks as held
            join pg_catalog.pg_locks as own_id using (virtualtransaction)
            where held.pid is null
                and held.relation = asked.relation
                and own_id.pid is null
                and own_id.transactionid = prepared.transaction
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
machine as materialized (
    -- How much longer than expected the small steps take, of which half a second's worth has to be done before they say much.
    select (coalesce(sum(work.seconds), 0) + 0.5) / (coalesce(sum(work.expected * work.done), 0) + 0.5) as slowness
    from work
    where work.kind = 'small' and work.seconds > 0
),
disk as materialized (
    -- What it takes to read a byte from disk, which the counts of large tables tell: as in the settings until they have read 4 MB.
    select
        (
            greatest(coalesce(sum(work.seconds - machine.slowness * work.expected), 0), 0)
            + 4 / settings.scan_mb_per_second::double precision
        ) / (coalesce(sum(work.bytes), 0) + 4e6) as seconds_per_byte
    from tenancy.settings
    cross join machine
    left join work on work.part = 'count' and work.kind = 'bytes' and work.seconds > 0
    group by settings.scan_mb_per_second
),
expectation as materialized (
    select work.*, machine.slowness * work.expected + disk.seconds_per_byte * work.bytes as usual_seconds
    from work
    cross join machine
    cross join disk
),
pace as materialized (
    -- How long what is like it took, and how long that usually takes.
    select
        expectation.kind,
        coalesce(sum(expectation.seconds) filter (where expectation.seconds > 0), 0) as seconds,
        coalesce(sum(expectation.usual_seconds * expectation.done) filter (where expectation.seconds > 0), 0) as usual_seconds
    from expectation
    group by expectation.kind
),
remaining as (
    select
        work.number,
        work.expected,
        greatest(work.done, coalesce(work.built, 0)) as done,
        case
            when work.done = 1 then 0
            when work.kind = 'rows' then (1 - work.done) * own.seconds / backfilling.sessions
            when work.built is not null then (1 - work.built) * paced.seconds
            -- A statement that says nothing until it is through.
            when work.is_current and push_session.state = 'active' and push_session.wait_event_type is distinct from 'Lock' then greatest(
                paced.seconds - extract(epoch from clock_timestamp() - push_session.xact_start),
                0.05 * paced.seconds
            )
            else paced.seconds
        end as seconds
    from expectation as work
    join pace on pace.kind = work.kind
    cross join lateral (
        -- How much longer than usual what is like it took, of which a fifth of a second's worth has to be done; and so without itself.
        select
            work.usual_seconds * (pace.seconds + 0.2) / (pace.usual_seconds + 0.2) as seconds,
            work.usual_seconds * (pace.seconds - work.seconds + 0.2)
            / (pace.usual_seconds - case when work.seconds > 0 then work.usual_seconds * work.done else 0 end + 0.2) as by_others
    ) as paced
    cross join lateral (
        -- By its own pace, the more it has of one. A table begins with its first pass, and how much longer that takes than the others differs
        -- by half from disk to disk: while less than a fifth is done, what deviates by less than a fifth says nothing.
        select
            paced.by_others * exp(
                sign(measured.deviation) * greatest(abs(measured.deviation) - greatest(0.2 - work.done, 0), 0)
            ) as seconds
        from (
            select ln((work.recent_seconds + 0.005 * paced.seconds) / (work.recently_done + 0.005) / paced.by_others) as deviation
        ) as measured
    ) as own
    cross join (
        select greatest(count(distinct backfills.session_pid), 1) as sessions
        from org_migration.backfills
        where backfills.state = 'running' and backfills.last_batch_at > clock_timestamp() - interval '2 seconds'
    ) as backfilling
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
        -- Before its first step it has not looked yet what there is to do.
        else round(least(100 * coalesce(judged.done, 0), 99.9)::numeric, 1)
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
