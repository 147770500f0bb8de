-- Purpose: the steps backfill, leftovers and last_resort: every row of every table, and those that came since.
-- Touches: new objects in the schema org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function org_migration.batch_rows(backfill org_migration.backfills, end_block bigint)
returns text language sql immutable security invoker set search_path = '' as $function$
    select case
        when backfill.sweep > 0 then format(
            $sql$
                select one.ctid
                from %1$s as one
                where one.ctid >= '(%2$s,0)'::pg_catalog.tid and one.ctid < '(%3$s,0)'::pg_catalog.tid and one.org_id is null
            $sql$,
            backfill.relation, backfill.next_block, end_block
        )
        -- Page by page, so that the rows of other passes are not even looked at.
        else format(
            $sql$
                select found.ctid
                from pg_catalog.generate_series(%2$s, %3$s) as page (block)
                cross join lateral (
                    select one.ctid
                    from %1$s as one
                    where one.ctid >= pg_catalog.format('(%%s,%4$s)', page.block)::pg_catalog.tid
                        and one.ctid < pg_catalog.format('(%%s,%5$s)', page.block)::pg_catalog.tid
                        and one.org_id is null
                    offset 0
                ) as found
            $sql$,
            backfill.relation, backfill.next_block, end_block - 1,
            coalesce(backfill.pass_ends[backfill.pass - 1], 1),
            -- What is on a page beyond the last one that was expected there goes with it.
            case when backfill.pass < backfill.passes then backfill.pass_ends[backfill.pass] else 65535 end
        )
    end
$function$;
comment on function org_migration.batch_rows(org_migration.backfills, bigint) is
'The query of the rows of a batch, their ctid: of a range of blocks, in a pass those between two places of every page, in a sweep all without org_id.';

create or replace function org_migration.count_skipped(decision text, batch_rows text)
returns bigint language plpgsql stable security invoker
set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off as $function$
declare
    skipped bigint;
begin
    execute format('select count(rest.org_id) from (%s where todo.ctid operator(pg_catalog.=) any ($1)) as rest', decision)
    into skipped
    using org_migration.find_rows(batch_rows);
    return skipped;
end
$function$;
comment on function org_migration.count_skipped(text, text) is
'How many rows of a batch of a sweep are still without org_id because others held them, and not because their parent has none.';

create or replace function org_migration.note_pace(
    backfill org_migration.backfills, done_before double precision, seconds double precision
)
returns org_migration.backfills language plpgsql immutable security invoker set search_path = '' as $function$
declare
    fading double precision;
begin
    backfill.seconds := backfill.seconds + seconds;
    fading := coalesce(exp(-2 * seconds / nullif(backfill.seconds, 0)), 1);
    backfill.recent_seconds := backfill.recent_seconds * fading + seconds;
    backfill.recently_done := backfill.recently_done * fading + org_migration.backfill_done(backfill) - done_before;
    return backfill;
end
$function$;
comment on function org_migration.note_pace(org_migration.backfills, double precision, double precision) is
'Adds the seconds of a batch, and what it did, to the row of its backfill. What was before fades.';

create or replace function org_migration.run_batch(backfill org_migration.backfills)
returns org_migration.backfills language plpgsql volatile security invoker set search_path = '' as $function$
declare
    -- Rows that reference one another, many levels deep, of which a batch decides one: those that it leaves mostly lie near the others.
    is_deep constant boolean := backfill.sweep > 3;
    end_block constant bigint := least(
        backfill.next_block + least(
            backfill.batch_blocks,
            case
                -- Four batches a pass, or others still see the rows that the pass before has replaced, and these keep their room on the page.
                when backfill.sweep = 0 then (backfill.end_block - backfill.first_block + 3) / 4
                when is_deep then greatest(8, backfill.end_block / 32)
            end
        ),
        backfill.end_block
    );
    batch_rows constant text := org_migration.batch_rows(backfill, end_block);
    began constant timestamptz := clock_timestamp();
    wal_before constant pg_lsn := pg_current_wal_insert_lsn();
    done_before constant double precision := org_migration.backfill_done(backfill);
    batch record;
    skipped bigint;
    is_again boolean;
begin
    begin
        batch := org_migration.backfill_rows(backfill.relation, backfill.decision, batch_rows);
    exception
        when lock_not_available or deadlock_detected then
            if backfill.sweep > 1 then
                raise;
            end if;
            batch := org_migration.backfill_rows(backfill.relation, backfill.decision, batch_rows, true);
            if backfill.sweep > 0 then
                skipped := org_migration.count_skipped(backfill.decision, batch_rows);
                backfill.rows_skipped := backfill.rows_skipped + skipped;
                batch.left_over := greatest(batch.left_over - skipped, 0);
            end if;
    end;

    backfill.batch_blocks := org_migration.next_batch_blocks(backfill.batch_blocks, began, wal_before);
    is_again := is_deep and batch.updated > 0 and batch.left_over > 0;
    backfill.next_block := case when is_again then backfill.next_block else end_block end;
    backfill.rows_updated := backfill.rows_updated + batch.updated;
    backfill.orphans := backfill.orphans + batch.orphans;
    backfill.conflicts := backfill.conflicts + batch.conflicts;
    backfill.triggers_fired := backfill.triggers_fired or batch.triggers_fired;
    backfill.started_at := coalesce(backfill.started_at, began);
    backfill.last_batch_at := clock_timestamp();
    backfill.next_batch_at := org_migration.next_batch_at(began, wal_before);
    if batch.updated > 0 then
        backfill.last_written_at := backfill.last_batch_at;
    end if;
    if backfill.sweep > 0 then
        backfill.rows_updated_in_sweep := backfill.rows_updated_in_sweep + batch.updated;
        backfill.rows_undecided := backfill.rows_undecided + case when is_again then 0 else batch.left_over end;
    end if;
    if backfill.next_block = backfill.end_block then
        backfill := org_migration.end_of_blocks(backfill);
    end if;
    return org_migration.note_pace(backfill, done_before, org_migration.count_time());
end
$function$;
comment on function org_migration.run_batch(org_migration.backfills) is
'One batch of a table''s backfill; returns its row as it is then. Batches are ranges of blocks, so they need no key; a pass takes a few'
' rows of every page, so their new versions find room on it (HOT) and the table does not double.';

create or replace function org_migration.share_range(backfill org_migration.backfills)
returns org_migration.backfills language plpgsql volatile security invoker set search_path = '' as $function$
declare
    middle constant bigint := (backfill.first_block + backfill.end_block) / 2;
    second_half constant boolean := backfill.next_block <= middle;
    length_before constant bigint := backfill.end_block - backfill.first_block;
begin
    if backfill.state <> 'running' or backfill.sweep > 0
        -- Of the last pass what is done is done.
        or (backfill.pass = backfill.passes and not second_half)
        or middle - backfill.first_block < (case when backfill.passes > 1 then 512 else 64 end)
        or not exists (
            select from pg_catalog.pg_locks as waiting
            where waiting.locktype = 'advisory'
                and waiting.database = (select oid from pg_catalog.pg_database where datname = current_database())
                and waiting.classid = hashtext('org_migration')::oid
                and waiting.objid = hashtext('waits for others')::oid
        )
        -- Who waits has something to take already.
        or org_migration.has_free_range()
    then
        return backfill;
    end if;

    insert into org_migration.backfills (
        relation, number, state, first_block, next_block, end_block, passes, pass_ends, pass, batch_blocks, next_batch_at
    )
    select
        backfill.relation, max(range.number) + 1, 'running', half.first_block, half.first_block, half.end_block,
        backfill.passes, backfill.pass_ends, half.pass, backfill.batch_blocks, backfill.next_batch_at
    from org_migration.backfills as range
    cross join (
        select
            case when second_half then middle else backfill.first_block end as first_block,
            case when second_half then backfill.end_block else middle end as end_block,
            case when second_half then backfill.pass else backfill.pass + 1 end as pass
    ) as half
    where range.relation = backfill.relation
    group by half.first_block, half.end_block, half.pass
    on conflict on constraint backfills_pkey do nothing;
    if found then
        backfill.first_block := case when second_half then backfill.first_block else middle end;
        backfill.end_block := case when second_half then middle else backfill.end_block end;
        -- Of 1, which is less now.
        backfill.recently_done := backfill.recently_done * length_before / (backfill.end_block - backfill.first_block);
    end if;
    return backfill;
end
$function$;
comment on function org_migration.share_range(org_migration.backfills) is
'Between two batches of a range: where a session waits for others, it gets a half of its blocks, the one that is further from the next batch,'
' with the passes that these have still to come. Returns the row of the range, of the other half then.';

create or replace function org_migration.backfill_part(backfill org_migration.backfills)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if backfill.state in ('waiting', 'stuck') then
        backfill.state := org_migration.backfill_turn(backfill.relation);
        if backfill.state is null then
            return null;
        end if;
        -- Rows whose parents came without organization meanwhile, or that reference one another in a circle: phase 4 has them,
        -- where no more such parents can come.
        if backfill.state = 'finished' then
            perform org_migration.finish_backfill(backfill.relation);
            return true;
        end if;
        backfill.session_pid := null;
    end if;

    if backfill.session_pid is distinct from pg_backend_pid() then
        backfill.decision := org_migration.decision_query(backfill.relation, false);
        backfill.session_pid := pg_backend_pid();
    end if;

    perform pg_sleep(extract(epoch from backfill.next_batch_at - clock_timestamp()))
    where backfill.next_batch_at > clock_timestamp();
    backfill := org_migration.share_range(org_migration.run_batch(backfill));
    -- A commit of the application waits until the disk has all that was written before it. Where the disk does not keep up, the backfill waits first.
    if pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn()) > (select settings.batch_wal_mb * 1000000 from tenancy.settings) then
        perform set_config('synchronous_commit', 'local', true);
    end if;

    delete from org_migration.backfills
    where backfills.relation = backfill.relation and backfills.number = backfill.number;
    insert into org_migration.backfills
    select backfill.*;
    if backfill.state = 'finished' and backfill.number = 0 then
        perform org_migration.finish_backfill(backfill.relation);
    end if;
    return true;
end
$function$;
comment on function org_migration.backfill_part(org_migration.backfills) is
'One batch of a range, or of a sweep, with its progress, in one transaction. Returns NULL when it has to wait for other tables.';

create or replace function org_migration.backfill(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    leaf regclass;
    part org_migration.backfills;
    is_done boolean := true;
begin
    for leaf in
        select tenancy.leaves(target)
    loop
        if not exists (select from org_migration.backfills where backfills.relation = leaf) then
            perform org_migration.start_backfill(leaf);
            return true;
        end if;

        select unfinished.*
        into part
        from org_migration.backfills as unfinished
        where unfinished.relation = leaf
            and unfinished.state not in ('catalog', 'finished')
            and (
                unfinished.number > 0
                or not exists (
                    select from org_migration.backfills as range
                    where range.relation = leaf and range.number > 0 and range.state <> 'finished'
                )
            )
            -- Between two batches it is still that session's, unless it is gone.
            and (
                coalesce(unfinished.session_pid, pg_backend_pid()) = pg_backend_pid()
                or unfinished.last_batch_at < clock_timestamp() - interval '5 seconds'
                or not exists (select from pg_catalog.pg_stat_activity as session where session.pid = unfinished.session_pid)
            )
        order by unfinished.session_pid is distinct from pg_backend_pid(), unfinished.number
        limit 1
        -- Who works on it holds it.
        for update of unfinished skip locked;
        if found and org_migration.backfill_part(part) then
            return true;
        end if;
        is_done := is_done and not exists (
            select from org_migration.backfills
            where backfills.relation = leaf and backfills.state not in ('catalog', 'finished')
        );
    end loop;
    return case when is_done then false end;
end
$function$;
comment on function org_migration.backfill(regclass) is
'The step backfill: one batch of the table, or of its first partition that needs one, of a range that no other session works on. Returns true'
' if it did something, false when all is done, NULL when it has to wait for other tables or sessions.';

-- Rows that came without organization since the backfill --------------------------------------------------------------------

create or replace function org_migration.has_null_org_id(target regclass)
returns boolean language plpgsql stable security invoker set search_path = '' as $function$
declare
    found_one boolean;
begin
    execute format('select exists (select from %s where org_id is null)', target)
    into found_one;
    return found_one;
end
$function$;
comment on function org_migration.has_null_org_id(regclass) is 'True if a row of the table has no organization.';

create or replace function org_migration.fill_leftovers(target regclass, last_resort boolean)
returns bigint language plpgsql volatile security invoker set search_path = '' as $function$
declare
    leaf regclass;
    began constant timestamptz := clock_timestamp();
    batch record;
    updated bigint := 0;
begin
    for leaf in
        select member
        from tenancy.leaves(target) as member
        where org_migration.has_null_org_id(member)
    loop
        batch := org_migration.backfill_rows(
            leaf,
            org_migration.decision_query(leaf, last_resort),
            format('select ctid from %s where org_id is null limit 1000', leaf)
        );

        update org_migration.backfills
        set
            rows_updated = backfills.rows_updated + batch.updated,
            orphans = backfills.orphans + batch.orphans,
            conflicts = backfills.conflicts + batch.conflicts,
            triggers_fired = backfills.triggers_fired or batch.triggers_fired,
            last_written_at = clock_timestamp()
        where backfills.relation = leaf and backfills.number = 0;
        updated := updated + batch.updated;
    end loop;

    if updated > 0 then
        insert into tenancy.log (part, table_name, statement, began, seconds, rows)
        select
            case when last_resort then 'last_resort' else 'leftovers' end,
            target::text,
            format('update %s: org_id of %s, of rows that came since', target, rules.in_words),
            began,
            round(extract(epoch from clock_timestamp() - began), 3),
            updated
        from org_migration.rules
        where rules.root = target;
    end if;
    return updated;
end
$function$;
comment on function org_migration.fill_leftovers(regclass, boolean) is
'Fills up to 1000 rows, per partition, that came without organization since the backfill, found by the index; with last_resort also those'
' whose parent has none. Returns how many. Raises lock_not_available where another session holds one of them.';

create or replace function org_migration.fill_last(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if not org_migration.has_null_org_id(target) then
        return false;
    end if;
    if org_migration.fill_leftovers(target, false) > 0 then
        return true;
    end if;

    if exists (
        select from org_migration.rules
        join tenancy.org_scoped_tables as parent on parent.relation = any (rules.parents)
        join tenancy.org_scoped_tables as own
            on own.relation = rules.root
            and own.position > parent.position
        where rules.root = target
            and (
                exists (select from tenancy.constraint_parts where root = parent.relation and part = 'check' and not present)
                or org_migration.has_null_org_id(parent.relation)
            )
    ) then
        return null;
    end if;
    return org_migration.fill_leftovers(target, true) > 0;
end
$function$;
comment on function org_migration.fill_last(regclass) is
'The step last_resort: fills rows that came since the backfill, and when a table''s parents refuse NULL also those whose parent has no'
' organization. Returns true if it did, NULL while the parents may still have such rows.';
