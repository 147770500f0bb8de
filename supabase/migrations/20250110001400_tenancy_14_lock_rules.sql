-- Purpose: the lock rules that every change of a table goes by, the log of it, one part at a time, and the waits: of a pause, and for
--          another session.
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists org_migration.lock_waits (
    step text not null,
    relation regclass not null,
    session_pid integer not null,
    attempts integer not null,
    blocked_since timestamptz not null,
    next_attempt_at timestamptz not null,
    blocked_by text not null,
    primary key (step, relation)
);
comment on table org_migration.lock_waits is 'What a running push waits for at this moment: the table, and the sessions that hold it.';

create table if not exists org_migration.sessions (
    pid integer primary key,
    began timestamptz not null,
    loop_name text not null,
    in_loop boolean not null,
    noted_at timestamptz not null,
    works_since timestamptz,
    paused_since timestamptz,
    wal_start pg_lsn not null
);
comment on table org_migration.sessions is
'Which session pushes, or did last; tenancy.now looks whether it is still there. A process id comes again: began is the start of the session.';
comment on column org_migration.sessions.loop_name is 'The loop that it is in, or was in last.';
comment on column org_migration.sessions.works_since is 'NULL while it has not begun, because of a pause.';
comment on column org_migration.sessions.wal_start is 'Where the WAL was when it was noted.';

create table if not exists org_migration.work (
    number bigint primary key,
    phase integer not null,
    part text not null,
    relation regclass not null,
    expected double precision not null,
    bytes double precision not null,
    seconds double precision not null default 0,
    done_at timestamptz
);
create index if not exists work_relation_idx on org_migration.work (relation, part);
comment on table org_migration.work is
'What the push has to do, for tenancy.now to tell how far it is: tenancy.plan when its session began, after what one before it has noted.';
comment on column org_migration.work.expected is 'Seconds that it was expected to take where all that it reads is in memory.';
comment on column org_migration.work.bytes is 'What it reads; 0 for a backfill, whose own pace tells.';
comment on column org_migration.work.seconds is 'Seconds that it took, without pauses and waits for locks.';

create or replace function tenancy.describe_session(
    pid integer, backend_type text, state text, xact_start timestamptz, query text
)
returns text language sql stable security invoker set search_path = '' as $function$
    select case when pid is not null then format(
        'pid %s, %s for %s s: %s', pid,
        case backend_type
            when 'client backend' then state
            else backend_type
        end,
        round(extract(epoch from clock_timestamp() - xact_start), 1),
        left(regexp_replace(query, '\s+', ' ', 'g'), 100)
    ) end
$function$;
comment on function tenancy.describe_session(integer, text, text, timestamptz, text) is
'A session in words: pid, state, age of the transaction, query. NULL where there is none.';

create or replace function tenancy.lock_holders(target regclass)
returns text language sql stable security invoker set search_path = '' as $function$
    select coalesce(string_agg(holder.description, E'\n' order by holder.xact_start), 'nobody any more')
    from (
        select
            coalesce(
                tenancy.describe_session(
                    session.pid, session.backend_type, session.state, session.xact_start, session.query
                ),
                'a prepared transaction (pg_prepared_xacts)'
            ) as description,
            min(session.xact_start) as xact_start
        from pg_catalog.pg_locks as held
        left join pg_catalog.pg_stat_activity as session on session.pid = held.pid
        where held.locktype = 'relation'
            and held.database = (select oid from pg_catalog.pg_database where datname = current_database())
            and (
                held.relation in ('public.organizations'::regclass, target)
                or held.relation in (select tree.relid from pg_partition_tree(target) as tree)
            )
            and held.granted
            and held.pid is distinct from pg_backend_pid()
        group by description
        order by xact_start
        limit 5
    ) as holder
$function$;
comment on function tenancy.lock_holders(regclass) is
'Who holds a lock on the table or on public.organizations now: pid, state, age of the transaction, query; oldest first, five at most.';

create or replace function tenancy.run_statement(target regclass, part text, statement text)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    milliseconds constant integer := (select settings.lock_timeout_ms from tenancy.settings);
    tables constant integer := greatest((select count(*) from pg_partition_tree(target)), 1);
    began constant timestamptz := clock_timestamp();
begin
    -- Nothing is held yet that the application would wait for.
    perform set_config('lock_timeout', '1200ms', true);
    execute format('lock table %s in share update exclusive mode', target);

    if statement like 'alter table % add constraint % references public.organizations%' then
        -- The constraint needs this lock too, and nobody but a writer of organizations minds it: before the table's own, therefore,
        -- so that this is never held while waiting. To take in those of the partitions it needs it exclusively.
        perform set_config('lock_timeout', format('%sms', milliseconds), true);
        execute format(
            'lock table public.organizations in %s mode',
            case when part = 'foreign_key_root' then 'access exclusive' else 'share row exclusive' end
        );
    end if;
    perform set_config('lock_timeout', format('%sms', greatest(milliseconds / tables, 1)), true);
    execute statement;

    insert into tenancy.log (part, table_name, statement, began, seconds)
    values (
        part, target::text, statement, began,
        round(extract(epoch from clock_timestamp() - began), 3)
    );
end
$function$;
comment on function tenancy.run_statement(regclass, text, text) is
'Runs a statement of tenancy.parts under the lock rules, and logs it. First it takes the lock that autovacuum has and reads and writes do'
' not mind: a worker in the way is cancelled after deadlock_timeout (1 s) and cannot come back, and the application waits for none of that,'
' nor does who writes organizations. Only then it asks for the strong locks, for lock_timeout_ms, since the application queues behind those;'
' partitions, which are locked one after the other, share that time. Raises lock_not_available when a wait is over.';

create or replace function tenancy.run_at_once(target regclass, part text, statement text)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    perform tenancy.run_statement(target, part, statement);
exception
    when lock_not_available then
        raise exception E'% is in use, nothing is changed, call again; held by:\n%', target, tenancy.lock_holders(target)
        using
            errcode = 'lock_not_available',
            schema = tenancy.schema_of(target), table = tenancy.table_of(target);
end
$function$;
comment on function tenancy.run_at_once(regclass, text, text) is
'tenancy.run_statement for who does not wait: raises lock_not_available with the holders where the table is in use.';

create or replace function tenancy.build(target regclass, variadic parts text[])
-- One plan per session, of a query over many views.
returns boolean language plpgsql volatile security invoker set search_path = '' set plan_cache_mode = force_generic_plan as $function$
declare
    next record;
begin
    select table_parts.relation, table_parts.part, table_parts.ddl
    into next
    from tenancy.table_parts
    where table_parts.root = target
        and table_parts.part = any (parts)
        and not table_parts.present
    order by array_position(parts, table_parts.part), table_parts.ordinal, table_parts.qualified_name
    limit 1;
    if not found then
        return false;
    end if;

    perform tenancy.run_at_once(next.relation, next.part, regexp_replace(next.ddl, '^create index concurrently', 'create index'));
    if exists (
        select from tenancy.table_parts
        where table_parts.root = target
            and table_parts.part = next.part
            and table_parts.ddl = next.ddl
            and not table_parts.present
    ) then
        raise exception 'the % of % is not what it should be, although this ran: %; another object may have its name',
            next.part, next.relation, next.ddl
        using
            errcode = 'internal_error',
            schema = tenancy.schema_of(next.relation), table = tenancy.table_of(next.relation);
    end if;
    return true;
end
$function$;
comment on function tenancy.build(regclass, text[]) is
'Makes the next of these parts that is not present, of the table or one of its partitions. Returns false where all are present. Raises'
' lock_not_available where the table is in use, and internal_error where the part is not present afterwards.';

create or replace function tenancy.take_back(target regclass, variadic parts text[])
returns boolean language plpgsql volatile security invoker set search_path = '' set plan_cache_mode = force_generic_plan as $function$
declare
    next record;
begin
    select table_parts.relation, table_parts.part, table_parts.undo
    into next
    from tenancy.table_parts
    where table_parts.root = target
        and table_parts.part = any (parts)
        and table_parts.undo is not null
    order by array_position(parts, table_parts.part), table_parts.ordinal desc, table_parts.qualified_name
    limit 1;
    if not found then
        return false;
    end if;
    perform tenancy.run_at_once(next.relation, next.part, next.undo);
    return true;
end
$function$;
comment on function tenancy.take_back(regclass, text[]) is
'Undoes the last of these parts, which are those of an opt-in or of the guard. Returns false where there is none. Raises lock_not_available'
' where the table is in use.';

create or replace function org_migration.missing_statements(steps text[], targets regclass[], undo_to integer)
returns table (root regclass, relation regclass, qualified_name text, phase integer, step text, statement text, ordinal integer, lock text)
-- One plan per session, of a query over many views.
language plpgsql stable security invoker set search_path = '' set plan_cache_mode = force_generic_plan as $function$
#variable_conflict use_column
begin
    return query
    select
        table_parts.root, table_parts.relation, table_parts.qualified_name, table_parts.phase, table_parts.part,
        case when undo_to is null then table_parts.ddl else table_parts.undo end,
        case when undo_to is null then table_parts.ordinal else -table_parts.ordinal end, table_parts.lock
    from tenancy.table_parts
    left join org_migration.tables_before on tables_before.relation = table_parts.root
    where table_parts.root = any (targets)
        and (steps is null or table_parts.part = any (steps))
        and case
            when undo_to is null then not table_parts.present
            -- Nothing of a table that no push has counted is ours, nor what it had before.
            else table_parts.undo is not null
                and table_parts.phase > undo_to
                and (
                    table_parts.phase > 4
                    or not exists (
                        select from unnest(tables_before.parts) as part_before
                        where part_before = format('%s %s', table_parts.part, table_parts.name)
                            -- Of these a table has one, which may have been renamed since.
                            or (table_parts.part in ('foreign_key', 'check') and starts_with(part_before, table_parts.part || ' '))
                    ) and tables_before.relation is not null
                )
        end;
end
$function$;
comment on function org_migration.missing_statements(text[], regclass[], integer) is
'The statements that make what is missing of the parts among these steps (NULL: of all) on these tables; with undo_to those that undo the'
' phases after it.';

create or replace function org_migration.wait_for_lock(step text, target regclass, waiting org_migration.lock_waits)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    failed_attempts constant integer := coalesce(waiting.attempts, 0) + 1;
    pause_seconds constant double precision := least(0.05 * power(1.5, failed_attempts), 10) * (0.5 + random() / 2);
    holders constant text := tenancy.lock_holders(target);
begin
    if failed_attempts >= (select settings.lock_attempts from tenancy.settings)
        -- A timeout of the statement would end it without a word on the lock.
        or clock_timestamp() + make_interval(secs => pause_seconds + 2)
            > statement_timestamp() + nullif(current_setting('statement_timeout'), '0')::interval
    then
        raise exception E'% got no lock on % in % attempts since %, held by:\n%\nNothing is lost: wait for them or end them'
            ' (pg_terminate_backend), then run the same again.', step, target, failed_attempts,
            date_trunc('second', waiting.blocked_since),
            holders
        using errcode = 'lock_not_available', schema = tenancy.schema_of(target), table = tenancy.table_of(target);
    end if;

    insert into org_migration.lock_waits
    values (
        step, target,
        pg_backend_pid(),
        failed_attempts,
        coalesce(waiting.blocked_since, clock_timestamp()),
        clock_timestamp() + make_interval(secs => pause_seconds),
        holders
    )
    on conflict on constraint lock_waits_pkey do update
    set
        session_pid = excluded.session_pid,
        attempts = excluded.attempts,
        blocked_since = excluded.blocked_since,
        next_attempt_at = excluded.next_attempt_at,
        blocked_by = excluded.blocked_by;
end
$function$;
comment on function org_migration.wait_for_lock(text, regclass, org_migration.lock_waits) is
'Notes a lock that was not to be had and when to ask again: pauses grow from 50 ms to 10 s, with jitter.'
' Raises lock_not_available with the holders once settings.lock_attempts are used up, or statement_timeout is about to be.';

create or replace function org_migration.count_time()
returns double precision language plpgsql volatile security invoker set search_path = '' as $function$
declare
    counted_to constant timestamptz := nullif(current_setting('tenancy.counted_to', true), '')::timestamptz;
begin
    perform set_config('tenancy.counted_to', clock_timestamp()::text, false);
    return coalesce(extract(epoch from clock_timestamp() - counted_to), 0);
end
$function$;
comment on function org_migration.count_time() is
'Seconds since this session called it last, 0 the first time. The result goes to what took the time, and nowhere after a wait.';

create or replace function org_migration.wait_while_paused()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    since constant timestamptz := coalesce(nullif(current_setting('tenancy.paused_since', true), '')::timestamptz, clock_timestamp());
    minutes constant integer := (select settings.pause_limit_minutes from tenancy.settings);
begin
    if coalesce(current_setting('tenancy.paused_since', true), '') = '' then
        perform set_config('tenancy.paused_since', since::text, false);
        update org_migration.sessions
        set paused_since = since
        where sessions.pid = pg_backend_pid();
    end if;
    if clock_timestamp() > since + make_interval(mins => minutes) then
        perform set_config('tenancy.paused_since', '', false);
        raise exception 'tenancy.settings.paused is on for longer than pause_limit_minutes = %: nothing is lost; switch it off, or raise the'
            ' limit, and push again', minutes
        using errcode = 'query_canceled';
    end if;
    perform pg_sleep(0.5);
    perform org_migration.count_time();
end
$function$;
comment on function org_migration.wait_while_paused() is
'Waits half a second of a pause. Raises query_canceled when the session has waited for settings.pause_limit_minutes.';

create or replace function org_migration.end_pause()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if coalesce(current_setting('tenancy.paused_since', true), '') <> '' then
        perform set_config('tenancy.paused_since', '', false);
        update org_migration.sessions
        set paused_since = null
        where sessions.pid = pg_backend_pid();
    end if;
end
$function$;
comment on function org_migration.end_pause() is 'Notes that this session goes on after a pause, if it was in one.';

create or replace function org_migration.has_free_range()
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    return exists (select from org_migration.backfills where number > 0 and state = 'running' and session_pid is null);
end
$function$;
comment on function org_migration.has_free_range() is 'True if a range has been shared that nobody has taken yet.';

create or replace function org_migration.count_done()
returns bigint language plpgsql volatile security invoker set search_path = '' as $function$
begin
    return (select count(*) from org_migration.queue where done_at is not null)
        + (select count(*) from org_migration.backfills where state in ('finished', 'stuck'));
end
$function$;
comment on function org_migration.count_done() is 'A number that changes when a step is done, or when a table or range is through.';

create or replace function org_migration.wait_for_others()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    done_before constant bigint := org_migration.count_done();
begin
    perform pg_advisory_xact_lock_shared(hashtext('org_migration'), hashtext('waits for others'));
    for moment in 1 .. 10 loop
        perform pg_sleep(0.01);
        exit when org_migration.count_done() <> done_before or org_migration.has_free_range();
    end loop;
    perform org_migration.count_time();
end
$function$;
comment on function org_migration.wait_for_others() is
'Waits a tenth of a second for other sessions, less where one of them has done something: all that there is to do is being worked on.'
' They can see that it waits, by its lock.';
