-- Purpose: the steps: the parts that are not present, queued and made one per transaction. tenancy.advance runs them.
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists org_migration.queue (
    loop_name text not null,
    number bigint not null,
    root regclass not null,
    relation regclass not null,
    step text not null,
    statement text,
    done_at timestamptz,
    primary key (loop_name, number)
);
comment on table org_migration.queue is
'What a running loop has to do: statements, read from the catalog when it begins, and again when it is through, until nothing is missing;'
' and steps that are no statement (statement NULL), once per table.';

create or replace function org_migration.fill_queue(
    loop_name text, steps text[], targets regclass[], undo_to integer default null, begins boolean default false
)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    again org_migration.queue;
    last_number constant bigint := coalesce(
        (select max(queue.number) from org_migration.queue where queue.loop_name = fill_queue.loop_name), 0
    );
begin
    insert into org_migration.queue (loop_name, number, root, relation, step, statement)
    select
        fill_queue.loop_name,
        last_number + row_number() over (
            order by array_position(targets, queued.root), queued.position, queued.ordinal, queued.qualified_name
        ),
        queued.root, queued.relation, queued.step, queued.statement
    from (
        select missing.*, coalesce(array_position(steps, missing.step), 0) as position
        from org_migration.missing_statements(steps, targets, undo_to) as missing
        where (steps <@ array['count', 'backfill', 'leftovers', 'last_resort']) is not true
        union all
        -- Once per loop: what is no statement.
        select target, target, null, null, named.step, null, null, null, named.position
        from unnest(targets) as target
        cross join unnest(steps) with ordinality as named (step, position)
        where begins and named.step in ('count', 'backfill', 'leftovers', 'last_resort')
    ) as queued;

    select done.*
    into again
    from org_migration.queue as done
    join org_migration.queue as missing using (loop_name, relation, step, statement)
    where done.loop_name = fill_queue.loop_name
        and missing.done_at is null
        and done.done_at >= least(statement_timestamp(), clock_timestamp() - interval '5 seconds')
    limit 1;
    if found then
        raise exception 'the % of % is not what it should be, although this ran: %; see tenancy.name_findings',
            again.step, again.relation, again.statement
        using
            errcode = 'internal_error',
            schema = tenancy.schema_of(again.relation), table = tenancy.table_of(again.relation);
    end if;

    delete from org_migration.queue
    where queue.loop_name = fill_queue.loop_name and queue.number <= last_number;
    return exists (select from org_migration.queue where queue.loop_name = fill_queue.loop_name);
end
$function$;
comment on function org_migration.fill_queue(text, text[], regclass[], integer, boolean) is
'Queues org_migration.missing_statements in the order of the tables, and when the loop begins also the steps that are no statement.'
' Returns true if there is anything. Raises internal_error for a statement that the loop has run and that is still to be run.';

create or replace function org_migration.run_queued(next org_migration.queue)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    worked boolean := true;
begin
    if not exists (select from pg_catalog.pg_class where pg_class.oid = next.relation) then
        worked := false;
    elsif next.statement is not null then
        if next.step = 'index' and next.statement like 'create%'
            and pg_relation_size(next.relation) > (select settings.small_table_bytes from tenancy.settings)
        then
            raise exception E'% is too large to be indexed while its writes wait; run this outside a transaction:\n%;',
                next.relation, next.statement
            using
                errcode = 'program_limit_exceeded',
                schema = tenancy.schema_of(next.relation),
                table = tenancy.table_of(next.relation);
        end if;
        perform tenancy.run_statement(
            next.relation, next.step,
            regexp_replace(next.statement, '^create index concurrently', 'create index')
        );
    else
        worked := case next.step
            when 'count' then org_migration.count_rows(next.root)
            when 'backfill' then org_migration.backfill(next.root)
            -- Fewer than it takes at once: it has caught up, and last_resort has those that come while it looks.
            when 'leftovers' then org_migration.fill_leftovers(next.root, false) >= 1000
            else org_migration.fill_last(next.root)
        end;
    end if;

    update org_migration.queue
    set done_at = clock_timestamp()
    where queue.loop_name = next.loop_name
        and queue.number = next.number
        and (next.statement is not null or not worked);
    if found then
        update org_migration.work
        set seconds = work.seconds + org_migration.count_time(), done_at = clock_timestamp()
        where work.part = next.step
            and work.relation = next.relation
            and work.done_at is null;
    end if;
    return worked;
end
$function$;
comment on function org_migration.run_queued(org_migration.queue) is
'Runs a row of the queue: true if it changed something, false if there is nothing left, NULL if it waits for another table. Raises'
' program_limit_exceeded for the index of a table over settings.small_table_bytes, since a function cannot build it concurrently.';

create or replace function org_migration.work_on(next org_migration.queue)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    waiting org_migration.lock_waits;
    last_entry bigint;
    worked boolean;
begin
    select lock_waits.*
    into waiting
    from org_migration.lock_waits
    where lock_waits.step = next.step
        and lock_waits.relation = next.root
        and lock_waits.session_pid = pg_backend_pid();

    if waiting.next_attempt_at > clock_timestamp() then
        return null;
    end if;

    last_entry := (select max(log.id) from tenancy.log);
    begin
        worked := org_migration.run_queued(next);
    exception
        when lock_not_available or deadlock_detected or serialization_failure then
            perform org_migration.wait_for_lock(next.step, next.root, waiting);
            perform org_migration.count_time();
            return null;
    end;

    if waiting.step is not null then
        update tenancy.log
        set
            seconds_waited = round(extract(epoch from log.began - waiting.blocked_since), 3),
            waited_for = waiting.blocked_by
        where log.id > last_entry;

        delete from org_migration.lock_waits
        where lock_waits.step = next.step and lock_waits.relation = next.root;
    end if;
    return worked;
end
$function$;
comment on function org_migration.work_on(org_migration.queue) is
'Runs a row of the queue under the lock rules. NULL also while the table''s lock is not to be had, which org_migration.lock_waits tells.';

create or replace function org_migration.claim(next org_migration.queue)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    -- Of a backfill each session claims a range, or a table.
    if next.statement is null then
        return true;
    end if;
    perform
    from org_migration.queue
    where queue.loop_name = next.loop_name and queue.number = next.number and queue.done_at is null
    for update skip locked;
    return found;
end
$function$;
comment on function org_migration.claim(org_migration.queue) is
'True if the row of the queue is this session''s until its transaction ends: no other one works on it, or has done it meanwhile.';

create or replace function org_migration.run_next(loop_name text)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    next org_migration.queue;
    waiting regclass[] := '{}';
    worked boolean;
    seconds double precision;
begin
    for next in
        select queue.*
        from org_migration.queue
        where queue.loop_name = run_next.loop_name and queue.done_at is null
        order by queue.number
    loop
        continue when next.root = any (waiting) or not org_migration.claim(next);
        worked := org_migration.work_on(next);
        if worked then
            return true;
        elsif worked is null then
            waiting := waiting || next.root;
        end if;
    end loop;

    seconds := (
        select extract(epoch from min(lock_waits.next_attempt_at) - clock_timestamp())
        from org_migration.lock_waits
        where lock_waits.relation = any (waiting) and lock_waits.session_pid = pg_backend_pid()
    );
    if seconds is not null then
        perform pg_sleep(greatest(seconds, 0));
        perform org_migration.count_time();
        return true;
    end if;
    -- What is left is being worked on by other sessions.
    perform org_migration.wait_for_others()
    from org_migration.queue
    where queue.loop_name = run_next.loop_name
        and queue.step in ('backfill', 'foreign_key_valid', 'check_valid')
        and queue.done_at is null
    limit 1;
    return found;
end
$function$;
comment on function org_migration.run_next(text) is
'Runs the next row of the queue that has something to do; a table that waits is passed over, and when all that are left wait for locks'
' or for other sessions, it sleeps until the first of them is to be asked for again. False when nothing is left.';

create or replace function org_migration.help()
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    next org_migration.queue;
    is_shared boolean := false;
begin
    for next in
        select queue.*
        from org_migration.push_session
        join org_migration.queue on queue.loop_name = push_session.loop_name
        cross join tenancy.settings
        where push_session.alive
            and push_session.in_loop
            -- Nothing that the application does waits for these, nor for those that wait for their locks.
            and push_session.loop_name in ('backfill', 'foreign_key_valid', 'check_valid')
            and queue.done_at is null
            and not settings.paused
        order by queue.number
    loop
        if not is_shared then
            perform set_config('synchronous_commit', 'off', true), org_migration.count_time();
            is_shared := true;
        end if;
        -- Where a lock was not to be had, the push asks again.
        continue when exists (
            select from org_migration.lock_waits
            join org_migration.push_session on push_session.pid = lock_waits.session_pid
            where lock_waits.step = next.step and lock_waits.relation = next.root
        ) or not org_migration.claim(next);
        if org_migration.run_queued(next) is not null then
            return true;
        end if;
    end loop;

    if is_shared then
        perform org_migration.wait_for_others();
    end if;
    return is_shared;
exception
    -- The application is in the way: something else, later.
    when lock_not_available or deadlock_detected or serialization_failure then
        return false;
end
$function$;
comment on function org_migration.help() is
'One batch, or validation, of the push that runs in another session: of what nobody works on. For connections beside it, each call in a'
' transaction of its own. False where there is nothing to share at this moment: no push is in such a loop, it is paused, or the application is in the way.';

create or replace function org_migration.begin_loop(loop_name text, steps text[])
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    settings tenancy.settings;
begin
    delete from org_migration.queue
    where queue.loop_name = begin_loop.loop_name;

    perform set_config('tenancy.counted_to', transaction_timestamp()::text, false);
    perform org_migration.note_work();
    perform org_migration.note_following() where 'count' = any (steps);

    select * into settings from tenancy.settings;
    if 'filler' = any (steps) and settings.fill_org_id then
        perform org_migration.prepare_fillers();
    end if;
    -- Who signed up after the mapping was made and before new users were placed.
    if 'backfill' = any (steps) and settings.new_users = 'personal' then
        perform tenancy.create_personal_organizations();
    end if;
    if 'backfill' = any (steps)
        or (steps && array['leftovers', 'last_resort'] and not exists (select from org_migration.rules))
    then
        perform org_migration.note_rules(), org_migration.note_mapping();
    end if;
end
$function$;
comment on function org_migration.begin_loop(text, text[]) is
'What a loop over these steps does before its first one: forgets a queue that was left, and notes what there is to do and how rows are decided.';

create or replace function org_migration.end_loop(steps text[], undo_to integer)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if 'filler' = any (steps) and (select not settings.fill_org_id from tenancy.settings) then
        perform org_migration.forget_fillers();
    end if;
    perform set_config('tenancy.cursor', '', false), org_migration.leave_loop(steps, undo_to);
end
$function$;
comment on function org_migration.end_loop(text[], integer) is
'What a loop over these steps does when nothing is missing any more: forgets the fillers where they are off, and notes that it is through.';

create or replace function org_migration.advance_loop(steps text[], undo_to integer default null)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    current_loop constant text := coalesce('undo to phase ' || undo_to, array_to_string(steps, ' '));
    begins constant boolean := current_setting('tenancy.cursor', true) is distinct from current_loop;
    relations regclass[];
begin
    if begins then
        perform org_migration.enter_loop(current_loop);
    end if;
    if (select settings.paused from tenancy.settings) then
        -- On a fresh database, in CI or a preview branch, there is nobody to wait for.
        if exists (
            select from tenancy.org_id_columns
            where org_id_columns.is_leaf and pg_relation_size(org_id_columns.relation) > 0
        ) then
            perform org_migration.wait_while_paused();
            return true;
        end if;
    end if;
    perform org_migration.end_pause();

    -- A crash may take the last steps with it, and what is noted of them: they are done again.
    perform set_config('synchronous_commit', 'off', true);
    -- One step at a time, whoever runs it; a second push waits for the first one's current step.
    perform set_config('lock_timeout', '0', true);
    perform pg_advisory_xact_lock(hashtext('org_migration.advance'));

    if not begins and org_migration.run_next(current_loop) then
        return true;
    end if;

    -- In the order of names; of the backfill parents first, so that it runs in the order of tenancy.plan.
    relations := case
        when steps = array['backfill'] then array(select relation from tenancy.org_scoped_tables order by position)
        else array(select relation from tenancy.application_tables where scope = 'org' order by schema_name, table_name)
    end;
    if begins then
        perform org_migration.begin_loop(current_loop, steps);
    end if;
    if not org_migration.fill_queue(current_loop, steps, relations, undo_to, begins) then
        perform org_migration.end_loop(steps, undo_to);
        return false;
    end if;
    perform set_config('tenancy.cursor', current_loop, false), org_migration.note_overhead(steps);
    return true;
end
$function$;
comment on function org_migration.advance_loop(text[], integer) is
'One turn of a loop over all org-scoped tables: of these steps, or of the undo of the phases after undo_to. True if there was something to'
' do. The session knows which loop it is in: the queue is filled when that begins, and again when it is through; false when nothing is'
' missing then.';

create or replace function tenancy.advance(variadic parts text[])
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    known constant text[] := array[
        'count', 'column', 'default', 'filler', 'backfill', 'invalid_index', 'index', 'index_root', 'foreign_key', 'foreign_key_valid',
        'foreign_key_root', 'leftovers', 'last_resort', 'check', 'check_valid', 'not_null', 'guard', 'guard_move', 'guard_statement', 'isolation',
        'binding', 'binding_valid', 'least_privilege'
    ];
    unknown constant text[] := array(select name from unnest(parts) as name where name is null or name <> all (known));
begin
    if unknown <> '{}' or coalesce(cardinality(parts), 0) = 0 then
        raise exception 'cannot advance %: the parts are %', coalesce(quote_literal(unknown[1]), 'NULL'), array_to_string(known, ', ')
        using errcode = 'invalid_parameter_value';
    end if;
    return org_migration.advance_loop(parts);
end
$function$;
comment on function tenancy.advance(text[]) is
'Makes the next part of these kinds that is not present on some org-scoped table, in this order per table; beside those of tenancy.parts'
' there are count (rows before), backfill, leftovers (rows that came since) and last_resort (also those whose parent has none).'
' One bounded change per call, to be committed: do $$ begin while tenancy.advance(''guard'') loop commit; end loop; end $$. Returns true while there'
' may be more to do, false when nothing is left: the first call of a loop only looks what there is. A run that was killed goes on where it stopped.'
' Raises invalid_parameter_value for any other name, lock_not_available when a lock was not to be had in settings.lock_attempts attempts.';
