-- Purpose: the step backfill: batch after batch through every table, parents first.
-- Touches: new objects in the schema org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists org_migration.backfills (
    relation regclass not null,
    number integer not null,
    state text not null check (state in ('catalog', 'waiting', 'running', 'stuck', 'finished')),
    first_block bigint not null default 0,
    end_block bigint not null,
    passes integer not null,
    pass_ends integer[] not null default '{}',
    pass integer not null default 1,
    next_block bigint not null default 0,
    batch_blocks integer not null default 64,
    sweep integer not null default 0,
    rows_updated_in_sweep bigint not null default 0,
    rows_undecided bigint not null default 0,
    rows_skipped bigint not null default 0,
    rows_updated bigint not null default 0,
    orphans bigint not null default 0,
    conflicts bigint not null default 0,
    triggers_fired boolean not null default false,
    seconds double precision not null default 0,
    recent_seconds double precision not null default 0,
    recently_done double precision not null default 0,
    decision text,
    session_pid integer,
    started_at timestamptz,
    last_batch_at timestamptz,
    next_batch_at timestamptz,
    last_written_at timestamptz,
    stuck_at timestamptz,
    finished_at timestamptz,
    primary key (relation, number)
);
comment on table org_migration.backfills is
'The state of each table''s backfill, written with each batch; org_migration.backfill_progress shows it. Ranges of blocks (number 1 and up)'
' are gone through in passes, each touching a few of every page''s rows; after the last of them sweeps of the whole table'
' (number 0) find what is left. A session that works on a row of this table holds its lock, so several of them can share a table.';
comment on column org_migration.backfills.state is
'catalog: phase 2 stored the value for all rows in the catalog, no row is touched. waiting: for the parents'' tables, number 0 also for its'
' ranges. stuck: what is left references rows without organization; when those are all there are, it is finished, and phase 4 decides them.';
comment on column org_migration.backfills.end_block is 'The block after its last one.';
comment on column org_migration.backfills.pass_ends is 'The line pointer of a page that each pass ends before: org_migration.pass_ends.';
comment on column org_migration.backfills.rows_undecided is 'Of the current sweep: rows whose parent has no organization yet, or that changed meanwhile.';
comment on column org_migration.backfills.rows_skipped is 'Of the current sweep: rows left alone because others held them.';
comment on column org_migration.backfills.orphans is 'Rows that got the default organization because neither an owner nor a parent says another.';
comment on column org_migration.backfills.conflicts is 'Rows whose owner and parents name different organizations: the first in the order decided, see org_migration.backfill_conflicts.';
comment on column org_migration.backfills.triggers_fired is 'True if the application''s triggers fired, because session_replication_role could not be set.';
comment on column org_migration.backfills.seconds is 'That its batches took, without pauses and waits for locks.';
comment on column org_migration.backfills.recent_seconds is 'The same, where a batch counts the less the longer ago it was: its last third is half of it.';
comment on column org_migration.backfills.recently_done is 'What was done in recent_seconds, of 1.';
comment on column org_migration.backfills.next_batch_at is 'Not before then, so that the WAL stays within settings.wal_mb_per_second.';
comment on column org_migration.backfills.decision is 'The query of org_migration.decision_query, kept for session_pid, which runs the backfill.';

create or replace function org_migration.backfill_done(backfill org_migration.backfills)
returns double precision language plpgsql immutable security invoker set search_path = '' as $function$
declare
    rows_of_first_pass constant double precision := backfill.pass_ends[1] - 1;
    rows_of_page constant double precision := backfill.pass_ends[backfill.passes] - 1;
    of_pass double precision;
    first_pass double precision;
begin
    if backfill.state in ('catalog', 'finished') then
        return 1;
    elsif backfill.sweep > 0 then
        return 1 - case when backfill.passes > 0 then 0.02 else 1 end * 0.01 ^ (backfill.sweep - 1)
            * (1 - coalesce(0.99 * backfill.next_block / nullif(backfill.end_block, 0), 0));
    end if;
    of_pass := (backfill.next_block - backfill.first_block)::double precision / (backfill.end_block - backfill.first_block);
    first_pass := 3.3 * rows_of_first_pass / (2.3 * rows_of_first_pass + rows_of_page);
    if backfill.pass = 1 then
        return of_pass * first_pass;
    end if;
    return first_pass + (1 - first_pass) * (
        backfill.pass_ends[backfill.pass - 1] - 1 - rows_of_first_pass
        + of_pass * (backfill.pass_ends[backfill.pass] - backfill.pass_ends[backfill.pass - 1])
    ) / (rows_of_page - rows_of_first_pass);
end
$function$;
comment on function org_migration.backfill_done(org_migration.backfills) is
'How much of a range is done, or by a sweep of the whole table, from 0 to 1, as shares of the time that it takes. The rows of the'
' first pass take 3.3 times as long as the others, since they go to other pages (as measured); the sweep after the passes looks at everything'
' and finds next to nothing.';

create or replace view org_migration.backfill_progress as
with part as (
    select
        backfills.*,
        org_migration.backfill_done(backfills.*) as done,
        case
            when backfills.number = 0 then 1
            else 0.98 * (backfills.end_block - backfills.first_block) / sum(backfills.end_block - backfills.first_block)
                filter (where backfills.number > 0) over (partition by backfills.relation)
        end as weight,
        coalesce(
            exp(
                -3 * extract(epoch from max(backfills.last_batch_at) over table_rows - backfills.last_batch_at)::double precision
                / nullif(extract(epoch from max(backfills.last_batch_at) over table_rows - min(backfills.started_at) over table_rows), 0)
            ),
            1
        ) as recency,
        backfills.state = 'running' and backfills.last_batch_at > clock_timestamp() - interval '2 seconds' as is_worked_on
    from org_migration.backfills
    window table_rows as (partition by backfills.relation)
)
select
    part.relation,
    case when bool_or(part.state = 'running') then 'running' else max(part.state) filter (where part.number = 0) end as state,
    case
        when bool_and(part.state in ('catalog', 'finished')) then 1
        -- What the passes do is not for the sweeps to do.
        else sum(part.weight * part.done - case when part.number = 0 and part.passes > 0 then 0.98 else 0 end)
    end as done,
    sum(part.rows_updated)::bigint as rows_updated,
    sum(part.seconds) as seconds,
    round(sum(part.rows_updated) / nullif(sum(part.seconds), 0)) * greatest(count(distinct part.session_pid) filter (where part.is_worked_on), 1) as rows_per_second,
    sum(part.recent_seconds * part.recency) as recent_seconds,
    sum(part.weight * part.recently_done * part.recency) as recently_done,
    sum(part.orphans)::bigint as orphans,
    sum(part.conflicts)::bigint as conflicts,
    bool_or(part.triggers_fired) as triggers_fired,
    min(part.started_at) as started_at,
    max(part.last_batch_at) as last_batch_at,
    max(part.finished_at) filter (where part.number = 0) as finished_at
from part
group by part.relation;
comment on view org_migration.backfill_progress is
'How far each table''s backfill is, one row per table, current after every batch: done from 0 to 1, which only grows, rows written, and the'
' seconds that the batches took, of all sessions together, without pauses and waits for locks. NULL where there is nothing to tell yet.';

create or replace function org_migration.backfill_turn(target regclass)
returns text language sql stable security invoker set search_path = '' as $function$
    with progress as materialized (
        -- Of the rules alone: whoever waits asks this of each table, again and again, and the views look at all tables each time.
        select
            leaf as relation, rules.root, rules.parents, rules.position,
            coalesce(whole.state, 'waiting') as state,
            (
                select max(part.last_written_at)
                from org_migration.backfills as part
                where part.relation = leaf
            ) as last_written_at,
            whole.stuck_at
        from org_migration.rules
        cross join lateral tenancy.leaves(rules.root) as leaf
        left join org_migration.backfills as whole
            on whole.relation = leaf
            and whole.number = 0
    ),
    parents as materialized (
        select child.relation as child, parent.*
        from progress as child
        join progress as parent
            on parent.root = any (child.parents)
            and parent.root <> child.root
        where child.relation = target
            or child.state = 'stuck'
    ),
    freed as (
        select stuck.relation
        from progress as stuck
        join parents on parents.child = stuck.relation
        where stuck.state = 'stuck' and parents.last_written_at > stuck.stuck_at
    )
    select case
        when own.state = 'waiting' and not exists (
            select from parents
            where parents.child = target
                and parents.position < own.position
                and parents.state in ('waiting', 'running')
        ) then 'running'
        when own.state = 'stuck' and target in (select freed.relation from freed) then 'running'
        when own.state = 'stuck'
            and not exists (select from freed)
            and not exists (select from progress where progress.state in ('waiting', 'running'))
            then 'finished'
    end
    from progress as own
    where own.relation = target
$function$;
comment on function org_migration.backfill_turn(regclass) is
'What a table that waits or is stuck may do now: running, when its parents are done, or have written rows since it got stuck;'
' finished, when every other table is done or stuck for good; NULL: wait on.';

create or replace function org_migration.next_batch_blocks(batch_blocks integer, began timestamptz, wal_before pg_lsn)
returns integer language sql volatile security invoker set search_path = '' as $function$
    select greatest(
        1,
        least(
            100000,
            batch_blocks * least(
                2,
                greatest(
                    0.5,
                    least(
                        settings.batch_target_ms / greatest(1000 * extract(epoch from clock_timestamp() - began), 1),
                        settings.batch_wal_mb * 1000000 / nullif(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), wal_before), 0)
                    )
                )
            )
        )
    )::integer
    from tenancy.settings
$function$;
comment on function org_migration.next_batch_blocks(integer, timestamptz, pg_lsn) is
'The size of the next batch after one of this size that began then: towards settings.batch_target_ms, and settings.batch_wal_mb, whichever is'
' reached first, by half or double at most.';

create or replace function org_migration.next_batch_at(began timestamptz, wal_before pg_lsn)
returns timestamptz language sql volatile security invoker set search_path = '' as $function$
    select began + make_interval(
        secs => (
            pg_wal_lsn_diff(pg_current_wal_insert_lsn(), wal_before) / (settings.wal_mb_per_second * 1000000)
        )::double precision
    )
    from tenancy.settings
$function$;
comment on function org_migration.next_batch_at(timestamptz, pg_lsn) is
'When the WAL written since a batch began, by whomever, is within settings.wal_mb_per_second; NULL where there is no budget.';

create or replace function org_migration.end_of_blocks(backfill org_migration.backfills)
returns org_migration.backfills language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if backfill.sweep = 0 and backfill.pass < backfill.passes then
        backfill.pass := backfill.pass + 1;
        backfill.next_block := backfill.first_block;
    elsif backfill.sweep = 0
        or (backfill.rows_undecided = 0 and (backfill.rows_skipped = 0 or backfill.sweep > 2))
    then
        backfill.state := 'finished';
        backfill.finished_at := clock_timestamp();
    else
        if backfill.rows_skipped = 0 and backfill.rows_updated_in_sweep = 0 then
            backfill.state := 'stuck';
            backfill.stuck_at := clock_timestamp();
        end if;
        backfill.sweep := backfill.sweep + 1;
        backfill.end_block := pg_relation_size(backfill.relation) / current_setting('block_size')::bigint;
        backfill.next_block := 0;
        backfill.rows_updated_in_sweep := 0;
        backfill.rows_undecided := 0;
        backfill.rows_skipped := 0;
    end if;
    return backfill;
end
$function$;
comment on function org_migration.end_of_blocks(org_migration.backfills) is
'What comes after the last block of a range or sweep: the next pass, another sweep, or the end. A sweep that left undecided rows and wrote'
' none is stuck; rows that others hold are waited for from the second sweep on.';

create or replace function org_migration.note_sources(target regclass)
returns void language sql volatile security invoker set search_path = '' as $function$
    update org_migration.tables_before
    set org_from = rules.org_from, joins = rules.joins
    from org_migration.rules
    where tables_before.relation = coalesce(pg_partition_root(note_sources.target), note_sources.target)
        and rules.root = tables_before.relation
$function$;
comment on function org_migration.note_sources(regclass) is
'Notes that a table''s rows are as org_migration.rules has decided them. Yours to call where a list that was changed since is for new rows alone.';

create or replace function org_migration.pass_ends(lines integer)
returns integer[] language plpgsql immutable security invoker set search_path = '' as $function$
declare
    most_passes constant integer := 16;
    -- A page of 8192 bytes has 24 of its own, and 4 for each line.
    row_bytes constant double precision := 8168.0 / lines - 4;
    -- org_id, and the line of the new version.
    growth constant integer := 20;
    room double precision;
    rows_of_pass integer;
    ends integer[];
begin
    for rows_of_first_pass in 1 .. lines loop
        rows_of_pass := rows_of_first_pass;
        room := rows_of_pass * row_bytes;
        ends := array[1 + rows_of_pass];
        while ends[cardinality(ends)] <= lines and cardinality(ends) <= most_passes loop
            rows_of_pass := greatest(floor(room / (row_bytes + growth)), 1);
            room := room - rows_of_pass * growth;
            ends := ends || ends[cardinality(ends)] + rows_of_pass;
        end loop;
        exit when cardinality(ends) <= most_passes;
    end loop;
    return ends;
end
$function$;
comment on function org_migration.pass_ends(integer) is
'How a full page of so many rows is filled: the rows of the first pass find no room on it and go to other pages; those of each later pass are as'
' many as there is room for, less each time, as every row grows. As few rows in the first pass as sixteen passes allow.';

create or replace function org_migration.lines_per_page(target regclass, block_count bigint)
returns integer language plpgsql stable security invoker set search_path = '' set enable_seqscan = off set jit = off as $function$
declare
    lines integer;
begin
    execute format(
        $sql$
            select percentile_disc(0.9) within group (order by page.lines)
            from generate_series(0, %2$s - 1, greatest(%2$s / 100, 1)) as sample (block)
            cross join lateral (
                select max(256 * get_byte(tidsend(one.ctid), 4) + get_byte(tidsend(one.ctid), 5)) as lines
                from %1$s as one
                where one.ctid >= format('(%%s,0)', sample.block)::tid and one.ctid < format('(%%s,0)', sample.block + 1)::tid
            ) as page
        $sql$,
        target, block_count
    )
    into lines;
    return coalesce(lines, 1);
end
$function$;
comment on function org_migration.lines_per_page(regclass, bigint) is
'The last line pointer in use on a page of the table: of a hundred pages the one that nine in ten do not exceed.';

create or replace function org_migration.start_backfill(target regclass)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    block_count constant bigint := pg_relation_size(target) / current_setting('block_size')::bigint;
    -- So that a range's pages are still in memory for the next pass and are written to disk once.
    blocks_in_memory constant bigint := least(greatest(pg_size_bytes(current_setting('shared_buffers')) / 4, 134217728), 268435456) / 8192;
    ranges integer := 0;
    ends integer[] := '{}';
    new_state text;
begin
    -- Asked of each table: as tenancy.org_id_columns, which looks at all of them.
    select case
        when org_id.attmissingval::text = format('{%s}', settings.default_org_id) then 'catalog'
        when org_id.attnotnull and not exists (
            select from pg_catalog.pg_constraint as not_null
            where not_null.conrelid = target
                and not_null.contype = 'n'
                and not_null.conkey = array[org_id.attnum]
                and not not_null.convalidated
        ) then 'finished'
        else 'waiting'
    end
    into new_state
    from pg_catalog.pg_attribute as org_id
    cross join tenancy.settings
    where org_id.attrelid = target and org_id.attname = 'org_id' and not org_id.attisdropped;

    if block_count >= 128 and new_state = 'waiting' then
        ranges := ceil(block_count / blocks_in_memory::numeric);
        -- On a small table passes cost more than they save.
        ends := case when block_count < 1000 then '{2}' else org_migration.pass_ends(org_migration.lines_per_page(target, block_count)) end;
    end if;
    insert into org_migration.backfills (relation, number, state, end_block, passes, sweep, finished_at)
    values (
        target, 0, new_state, block_count, cardinality(ends), 1,
        case when new_state <> 'waiting' then clock_timestamp() end
    )
    on conflict on constraint backfills_pkey do nothing;
    if found then
        insert into org_migration.backfills (relation, number, state, first_block, next_block, end_block, passes, pass_ends)
        select
            target, range.number, new_state, range.first_block, range.first_block, block_count * range.number / ranges,
            cardinality(ends), ends
        from (
            select number, block_count * (number - 1) / ranges as first_block
            from generate_series(1, ranges) as number
        ) as range;
    end if;
    if exists (
        select from org_migration.tables_before
        where tables_before.relation = coalesce(pg_partition_root(target), target) and tables_before.joins is null
    ) then
        perform org_migration.note_sources(target);
    end if;
end
$function$;
comment on function org_migration.start_backfill(regclass) is
'Opens the table''s rows. A table of fewer than 128 blocks (1 MB) is swept at once; a larger one gets ranges of one size first, of 256 MB at most and'
' no more than a quarter of shared_buffers, or 128 MB where that is more, and from 1000 blocks (8 MB) on the passes of org_migration.pass_ends.';

create or replace function org_migration.finish_backfill(target regclass)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update org_migration.backfills
    set state = 'finished', finished_at = clock_timestamp()
    where backfills.relation = target and backfills.number = 0;

    insert into tenancy.log (part, table_name, statement, began, seconds, rows)
    select
        'backfill', target::text,
        format('update %s: org_id of %s', target, rules.in_words),
        progress.started_at,
        round(extract(epoch from progress.last_batch_at - progress.started_at), 3),
        progress.rows_updated
    from org_migration.backfill_progress as progress
    join org_migration.rules on rules.root = coalesce(pg_partition_root(target), target)
    where progress.relation = target;
end
$function$;
comment on function org_migration.finish_backfill(regclass) is 'Closes the table, and logs what the backfill wrote.';
