-- pg-delta: transaction=false
-- Purpose: phase 3: every existing row gets the organization of its owner, else of the row it references, else the default.
-- Touches: org_id of rows where it is NULL, in batches that commit; nothing where phase 2 put the value into the catalog.
-- Locks:   rows of one batch, for about a tenth of a second; rows that others hold are skipped and come last.
-- Undo:    none of its own: the values go with the column, see tenancy.drop_org_id(regclass).

set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

create table if not exists tenancy.backfills (
    relation regclass primary key,
    state text not null check (state in ('catalog', 'waiting', 'running', 'stuck', 'finished')),
    blocks bigint not null,
    passes integer not null,
    pass integer not null default 1,
    group_start bigint not null default 0,
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
    decision text,
    decided_by_pid integer,
    started_at timestamptz,
    last_batch_at timestamptz,
    next_batch_at timestamptz,
    last_written_at timestamptz,
    stuck_at timestamptz,
    finished_at timestamptz
);
comment on table tenancy.backfills is
'The state of each table''s backfill, written with each batch; tenancy.backfill_progress shows it. Groups of blocks are gone'
' through in strided passes, each touching a fraction of every page''s rows; after the last group, sweeps find what is left.';
comment on column tenancy.backfills.state is
'catalog: phase 2 stored the value for all rows in the catalog, no row is touched. waiting: for the parents'' tables. stuck: what is'
' left references rows without organization; when those are all there are, it is finished, and phase 4 decides them.';
comment on column tenancy.backfills.rows_undecided is 'Of the current sweep: rows whose parent has no organization yet.';
comment on column tenancy.backfills.rows_skipped is 'Of the current sweep: rows left alone because others held them.';
comment on column tenancy.backfills.orphans is 'Rows that got the default organization because neither an owner nor a parent says another.';
comment on column tenancy.backfills.conflicts is 'Rows whose owner and parents name different organizations: the first in the order decided, see tenancy.backfill_conflicts.';
comment on column tenancy.backfills.triggers_fired is 'Whether the application''s triggers fired, because session_replication_role could not be set.';
comment on column tenancy.backfills.next_batch_at is 'Not before then, so that the WAL stays within settings.wal_mb_per_second.';
comment on column tenancy.backfills.decision is 'The query of tenancy.decision_query, kept for the session that runs the backfill.';

create table if not exists tenancy.backfill_conflicts (
    id bigint generated always as identity primary key,
    relation regclass not null,
    row_key jsonb not null,
    org_id uuid not null,
    candidates jsonb not null,
    decided_at timestamptz not null default clock_timestamp()
);
create index if not exists backfill_conflicts_relation_idx on tenancy.backfill_conflicts (relation);
comment on table tenancy.backfill_conflicts is
'Rows whose owner and parents name different organizations: the primary key, what was chosen, and what each column says.';

create or replace function tenancy.group_blocks(group_start bigint, blocks bigint)
returns bigint
language sql
immutable
security invoker
set search_path = ''
as $function$
    select least(16384, blocks - group_start)
$function$;
comment on function tenancy.group_blocks(bigint, bigint) is
'How many blocks are gone through together in strided passes: 128 MB, so that they are still in memory for the next pass and each'
' is written to disk once, and yet enough that the batch before is out of every short transaction''s sight.';

create or replace view tenancy.backfill_progress as
select
    backfills.relation,
    backfills.state,
    backfills.pass,
    backfills.passes,
    backfills.sweep,
    done.blocks as blocks_done,
    backfills.blocks as blocks_total,
    backfills.rows_updated,
    round(backfills.rows_updated / nullif(spent.seconds, 0)) as rows_per_second,
    case
        when backfills.state = 'running' and done.blocks > 0 then
            make_interval(secs => round(spent.seconds * (backfills.blocks - done.blocks) / done.blocks))
    end as time_left,
    backfills.orphans,
    backfills.conflicts,
    backfills.triggers_fired,
    backfills.started_at,
    backfills.finished_at
from tenancy.backfills
cross join lateral (
    select case
        when backfills.state in ('catalog', 'finished') then backfills.blocks
        when backfills.sweep > 0 then backfills.next_block
        else backfills.group_start + (
            (backfills.pass - 1) * tenancy.group_blocks(backfills.group_start, backfills.blocks)
            + backfills.next_block - backfills.group_start
        ) / backfills.passes
    end as blocks
) as done
cross join lateral (
    select extract(epoch from backfills.last_batch_at - backfills.started_at)::double precision as seconds
) as spent;
comment on view tenancy.backfill_progress is
'How far each table''s backfill is, current after every batch: blocks of 8 kB done and in all (of a sweep, once sweep > 0), rows'
' written, rows a second since the start, and the time left at that pace. NULL where there is nothing to tell yet.';

create or replace function tenancy.org_id_rules(
    target regclass,
    last_resort boolean,
    out org_id text,
    out is_orphan text,
    out is_conflict text,
    out candidates text,
    out joins text
)
language plpgsql
stable
security invoker
set search_path = ''
as $function$
declare
    source record;
    condition text;
    conditions text[] := '{}';
    rules text := '';
    sources text[] := '{}';
    labeled_sources text[] := '{}';
begin
    joins := '';
    for source in
        select
            org_id_sources.*,
            format('source_%s.org_id', org_id_sources.ordinal) as org_id
        from tenancy.org_id_sources(target)
        order by org_id_sources.ordinal
    loop
        condition := case
            when source.ordinal = 0 or last_resort then source.org_id || ' is not null'
            else format('source_%s.ctid is not null', source.ordinal)
        end;
        joins := joins || E'\n' || source.join_clause;
        conditions := conditions || condition;
        rules := rules || format(E'\nwhen %s then %s', condition, source.org_id);
        sources := sources || source.org_id;
        labeled_sources := labeled_sources || format('%L, %s', source.column_name, source.org_id);
    end loop;

    org_id := format(
        'case when false then null %s else %L::uuid end',
        rules,
        (select settings.default_org_id from tenancy.settings)
    );
    is_orphan := format('not (%s)', array_to_string(array['false'] || conditions, ' or '));
    is_conflict := case
        when cardinality(sources) < 2 then 'false'
        else format('least(%1$s) <> greatest(%1$s)', array_to_string(sources, ', '))
    end;
    candidates := format('jsonb_build_object(%s)', array_to_string(labeled_sources, ', '));
end
$function$;
comment on function tenancy.org_id_rules(regclass, boolean) is
'The rules that decide a row''s organization as SQL expressions over the row, named todo, and its joins. A row whose parent is'
' there but has no organization yet stays undecided (org_id NULL), unless last_resort passes such parents over.';

create or replace function tenancy.fill_row_org_id()
returns trigger
language plpgsql
security definer
set search_path = ''
as $function$
begin
    execute tg_argv[0]
    into new.org_id
    using new;
    return new;
end
$function$;
comment on function tenancy.fill_row_org_id() is
'Trigger function: sets org_id by the query in its argument. Security definer, because whoever inserts a row may neither read'
' tenancy.user_orgs nor see the parent row; it decides from the row alone and returns nothing else of what it reads.';

create or replace function tenancy.stop_filling_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    filler constant name := (
        select existing.tgname
        from pg_catalog.pg_trigger as existing
        where existing.tgrelid = target
            and existing.tgfoid = 'tenancy.fill_row_org_id()'::regprocedure
    );
begin
    if filler is null then
        return false;
    end if;
    perform tenancy.change_table(target, format('drop trigger %I on %s', filler, target));
    return true;
end
$function$;
comment on function tenancy.stop_filling_org_id(regclass) is
'Undo of fill_missing_org_id: drops the trigger. Returns whether it had to.';

create or replace function tenancy.fill_missing_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    rules record;
    query text;
begin
    if not (select settings.fill_org_id from tenancy.settings) then
        return tenancy.stop_filling_org_id(target);
    end if;

    rules := tenancy.org_id_rules(target, false);
    query := format('select %s from (select ($1::%s).*) as todo %s', rules.org_id, target, rules.joins);

    if exists (
        select
        from pg_catalog.pg_trigger as existing
        where existing.tgrelid = target
            and existing.tgfoid = 'tenancy.fill_row_org_id()'::regprocedure
            and existing.tgargs = convert_to(query, 'utf8') || '\x00'::bytea
            and existing.tgenabled = 'O'
    ) then
        return false;
    end if;

    perform tenancy.change_table(
        target,
        format(
            $ddl$
                create or replace trigger %I
                before insert on %s
                for each row
                when (new.org_id is null)
                execute function tenancy.fill_row_org_id(%L)
            $ddl$,
            tenancy.name_of('filler', target),
            target,
            query
        )
    );
    return true;
end
$function$;
comment on function tenancy.fill_missing_org_id(regclass) is
'Step: has a trigger fill org_id of rows that come without, while settings.fill_org_id is on, and drops it when it is off. Its'
' name sorts last, so that it sees the row as other triggers leave it. Returns whether it had to.';

create or replace function tenancy.key_of(target regclass, row_name text)
returns text
language sql
stable
security invoker
set search_path = ''
as $function$
    select format(
        'jsonb_build_object(%s)',
        string_agg(format('%1$L, %2$I.%1$I', key_column.attname, row_name), ', ' order by key_column.attnum)
    )
    from pg_catalog.pg_index as primary_key
    join pg_catalog.pg_attribute as key_column
        on key_column.attrelid = primary_key.indrelid
        and key_column.attnum = any (primary_key.indkey)
    where primary_key.indrelid = target
        and primary_key.indisprimary
$function$;
comment on function tenancy.key_of(regclass, text) is
'The primary key of a row, named so in a query, as an SQL expression of type jsonb; an empty object where there is no primary key.';

create or replace function tenancy.decision_query(target regclass, last_resort boolean)
returns text
language sql
stable
security invoker
set search_path = ''
as $function$
    select format(
        $sql$
            select
                todo.ctid as row_id,
                %1$s as org_id,
                %2$s as is_orphan,
                case when %3$s then %4$s end as conflict_key,
                case when %3$s then %5$s end as candidates
            from %6$s as todo %7$s
        $sql$,
        rules.org_id,
        rules.is_orphan,
        rules.is_conflict,
        tenancy.key_of(target, 'todo'),
        rules.candidates,
        target,
        rules.joins
    )
    from tenancy.org_id_rules(target, last_resort) as rules
$function$;
comment on function tenancy.decision_query(regclass, boolean) is
'The query that decides rows: row_id, org_id, is_orphan, conflict_key (the primary key), candidates; a where clause is to follow.';

create or replace function tenancy.backfill_rows(
    target regclass,
    decision text,
    row_filter text,
    skip_locked boolean default false,
    out updated bigint,
    out undecided bigint,
    out orphans bigint,
    out conflicts bigint,
    out triggers_fired boolean
)
language plpgsql
volatile
security invoker
set search_path = ''
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
as $function$
declare
    vanished_organizations bigint;
begin
    triggers_fired := false;
    begin
        set local session_replication_role = replica;
    exception
        when insufficient_privilege then
            triggers_fired := true;
    end;

    perform set_config('lock_timeout', (select format('%sms', settings.lock_timeout_ms) from tenancy.settings), true);

    execute format(
        $dml$
            with decision as materialized (%1$s where %2$s %3$s),
            named_organization as materialized (
                select distinct decision.org_id
                from decision
                where decision.org_id is not null
            ),
            locked_organization as materialized (
                select organizations.id
                from public.organizations
                where organizations.id in (select named_organization.org_id from named_organization)
                for key share
            ),
            written as (
                update %4$s as todo
                set org_id = decision.org_id
                from decision
                -- Where the row has changed meanwhile, PostgreSQL before 17.7 looks at its new version without asking for its
                -- ctid again, unless in words that it does not take for a scan key.
                where todo.ctid = decision.row_id
                    and (todo.ctid <> decision.row_id) is not true
                    and todo.org_id is null
                    and decision.org_id is not null
                returning
                    decision.org_id,
                    decision.is_orphan,
                    decision.conflict_key,
                    decision.candidates
            ),
            reported as (
                insert into tenancy.backfill_conflicts (relation, row_key, org_id, candidates)
                select
                    %4$L::regclass,
                    written.conflict_key,
                    written.org_id,
                    written.candidates
                from written
                where written.conflict_key is not null
                returning true
            )
            select
                (select count(*) from written),
                (select count(*) from decision where decision.org_id is null),
                (select count(*) from written where written.is_orphan),
                (select count(*) from reported),
                (select count(*) from named_organization) - (select count(*) from locked_organization)
        $dml$,
        decision,
        row_filter,
        case when skip_locked then 'for no key update of todo skip locked' end,
        target
    )
    into
        updated,
        undecided,
        orphans,
        conflicts,
        vanished_organizations;

    if vanished_organizations > 0 then
        raise exception 'an organization was deleted while rows of % were given to it', target
        using errcode = 'serialization_failure';
    end if;

    if not triggers_fired then
        set local session_replication_role = origin;
    end if;
end
$function$;
comment on function tenancy.backfill_rows(regclass, text, text, boolean) is
'Fills org_id of the rows that row_filter names, which must say that they have none, without firing the application''s triggers; decision is a'
' query of tenancy.decision_query. Returns how many rows it wrote, left undecided, wrote as orphans, and reported as conflicts.'
' Foreign keys do not fire either, so it holds the organizations it gives rows to, and raises serialization_failure when one of'
' them is gone.';

create or replace function tenancy.start_backfill(target regclass)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    block_count constant bigint := pg_relation_size(target) / current_setting('block_size')::bigint;
    in_catalog constant boolean := coalesce(
        (
            select org_id.attmissingval::text = format('{%s}', settings.default_org_id)
            from pg_catalog.pg_attribute as org_id
            cross join tenancy.settings
            where org_id.attrelid = target
                and org_id.attname = 'org_id'
                and org_id.atthasmissing
        ),
        false
    );
    strided constant boolean := block_count >= 1000 and not in_catalog;
begin
    insert into tenancy.backfills (relation, state, blocks, passes, sweep, finished_at)
    values (
        target,
        case when in_catalog then 'catalog' else 'waiting' end,
        block_count,
        case when strided then 10 else 0 end,
        case when strided then 0 else 1 end,
        case when in_catalog then clock_timestamp() end
    );
end
$function$;
comment on function tenancy.start_backfill(regclass) is
'Opens the table''s row. A table of fewer than 1000 blocks (8 MB) is swept at once; a larger one gets ten strided passes first.';

create or replace function tenancy.backfill_turn(target regclass)
returns text
language sql
stable
security invoker
set search_path = ''
as $function$
    with progress as materialized (
        select
            leaf as relation,
            org_scoped_tables.relation as root,
            org_scoped_tables.position,
            coalesce(backfills.state, 'waiting') as state,
            backfills.last_written_at,
            backfills.stuck_at
        from tenancy.org_scoped_tables
        cross join lateral tenancy.leaves(org_scoped_tables.relation) as leaf
        left join tenancy.backfills
            on backfills.relation = leaf
    ),
    parents as materialized (
        select
            child.relation as child,
            parent.*
        from progress as child
        cross join lateral tenancy.org_id_sources(child.relation) as source
        join progress as parent
            on parent.root = source.parent
            and parent.root <> child.root
        where child.relation = target
            or child.state = 'stuck'
    ),
    freed as (
        select stuck.relation
        from progress as stuck
        join parents
            on parents.child = stuck.relation
        where stuck.state = 'stuck'
            and parents.last_written_at > stuck.stuck_at
    )
    select case
        when own.state = 'waiting' and not exists (
            select
            from parents
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
comment on function tenancy.backfill_turn(regclass) is
'What a table that waits or is stuck may do now: running, when its parents are done, or have written rows since it got stuck;'
' finished, when every other table is done or stuck for good; NULL: wait on.';

create or replace function tenancy.backfill_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    backfill tenancy.backfills;
    batch record;
    end_of_group bigint;
    end_block bigint;
    row_range text;
    row_filter text;
    was_locked boolean := false;
    remaining bigint;
    began timestamptz;
    wal_before pg_lsn;
begin
    if tenancy.is_partitioned(target) then
        return tenancy.work_on_leaves('backfill_org_id', target);
    end if;

    select backfills.*
    into backfill
    from tenancy.backfills
    where backfills.relation = target;

    if not found then
        perform tenancy.start_backfill(target);
        return true;
    end if;

    if backfill.state in ('catalog', 'finished') then
        return false;
    end if;

    if backfill.state in ('waiting', 'stuck') then
        backfill.state := tenancy.backfill_turn(target);
        if backfill.state is null then
            return false;
        end if;
        -- Rows whose parents came without organization meanwhile, or that reference one another in a circle: phase 4 has them,
        -- where no more such parents can come.
        if backfill.state = 'finished' then
            update tenancy.backfills
            set
                state = 'finished',
                finished_at = clock_timestamp()
            where backfills.relation = target;
            return true;
        end if;
        backfill.decided_by_pid := null;
    end if;

    if backfill.decided_by_pid is distinct from pg_backend_pid() then
        backfill.decision := tenancy.decision_query(target, false);
        backfill.decided_by_pid := pg_backend_pid();
    end if;

    end_of_group := case
        when backfill.sweep > 0 then backfill.blocks
        else backfill.group_start + tenancy.group_blocks(backfill.group_start, backfill.blocks)
    end;
    end_block := least(backfill.next_block + backfill.batch_blocks, end_of_group);
    row_range := format($sql$todo.ctid >= '(%s,0)' and todo.ctid < '(%s,0)'$sql$, backfill.next_block, end_block);
    row_filter := case
        when backfill.sweep > 0 then format('%s and todo.org_id is null', row_range)
        -- A case, so that the rows of other passes are not even unpacked.
        else format(
            '%s and case when get_byte(tidsend(todo.ctid), 5) %% %s = %s then todo.org_id is null end',
            row_range,
            backfill.passes,
            backfill.pass - 1
        )
    end;

    perform pg_sleep(extract(epoch from backfill.next_batch_at - clock_timestamp()))
    where backfill.next_batch_at > clock_timestamp();
    began := clock_timestamp();
    wal_before := pg_current_wal_insert_lsn();

    begin
        batch := tenancy.backfill_rows(target, backfill.decision, row_filter);
    exception
        when lock_not_available or deadlock_detected then
            if backfill.sweep > 1 then
                raise;
            end if;
            was_locked := true;
            batch := tenancy.backfill_rows(target, backfill.decision, row_filter, true);
    end;

    backfill.batch_blocks := tenancy.next_batch_blocks(backfill.batch_blocks, began);
    backfill.next_block := end_block;
    backfill.rows_updated := backfill.rows_updated + batch.updated;
    backfill.orphans := backfill.orphans + batch.orphans;
    backfill.conflicts := backfill.conflicts + batch.conflicts;
    backfill.triggers_fired := backfill.triggers_fired or batch.triggers_fired;
    backfill.started_at := coalesce(backfill.started_at, began);
    backfill.last_batch_at := clock_timestamp();
    backfill.next_batch_at := tenancy.next_batch_at(began, wal_before);
    if batch.updated > 0 then
        backfill.last_written_at := backfill.last_batch_at;
    end if;

    if backfill.sweep > 0 then
        backfill.rows_updated_in_sweep := backfill.rows_updated_in_sweep + batch.updated;
        backfill.rows_undecided := backfill.rows_undecided + batch.undecided;
        if was_locked then
            execute format('select count(*) from %s as todo where todo.org_id is null and %s', target, row_range)
            into remaining;
            backfill.rows_skipped := backfill.rows_skipped + greatest(remaining - batch.undecided, 0);
        end if;
    end if;

    if end_block = end_of_group then
        backfill := tenancy.end_of_blocks(backfill);
    end if;

    delete from tenancy.backfills
    where backfills.relation = target;
    insert into tenancy.backfills
    select backfill.*;
    return true;
end
$function$;
comment on function tenancy.backfill_org_id(regclass) is
'Step: one batch of the table''s backfill with its progress, in one transaction. Returns false when the table is done or has to'
' wait for its parents. Batches are ranges of blocks, so they need no key; passes are strided, so the new versions of a page''s'
' rows find room on it (HOT) and the table does not double. A partitioned table goes partition by partition.';

create or replace function tenancy.next_batch_blocks(batch_blocks integer, began timestamptz)
returns integer
language sql
volatile
security invoker
set search_path = ''
as $function$
    select greatest(
        1,
        least(
            100000,
            batch_blocks * least(
                2,
                greatest(
                    0.5,
                    settings.batch_target_ms / greatest(1000 * extract(epoch from clock_timestamp() - began), 1)
                )
            )
        )
    )::integer
    from tenancy.settings
$function$;
comment on function tenancy.next_batch_blocks(integer, timestamptz) is
'The size of the next batch after one of this size that began then: towards settings.batch_target_ms, by half or double at most.';

create or replace function tenancy.end_of_blocks(backfill tenancy.backfills)
returns tenancy.backfills
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    if backfill.sweep = 0 and backfill.pass < backfill.passes then
        backfill.pass := backfill.pass + 1;
        backfill.next_block := backfill.group_start;
    elsif backfill.sweep = 0 and backfill.next_block < backfill.blocks then
        backfill.pass := 1;
        backfill.group_start := backfill.next_block;
    elsif backfill.sweep > 0
        and backfill.rows_undecided = 0
        and (backfill.rows_skipped = 0 or backfill.sweep > 2)
    then
        backfill.state := 'finished';
        backfill.finished_at := clock_timestamp();
    else
        if backfill.sweep > 0 and backfill.rows_skipped = 0 and backfill.rows_updated_in_sweep = 0 then
            backfill.state := 'stuck';
            backfill.stuck_at := clock_timestamp();
        end if;
        backfill.sweep := backfill.sweep + 1;
        backfill.blocks := pg_relation_size(backfill.relation) / current_setting('block_size')::bigint;
        backfill.next_block := 0;
        backfill.rows_updated_in_sweep := 0;
        backfill.rows_undecided := 0;
        backfill.rows_skipped := 0;
    end if;
    return backfill;
end
$function$;
comment on function tenancy.end_of_blocks(tenancy.backfills) is
'What comes after the last block of a group or sweep: the next pass, the next group, a sweep, or the end. A sweep that left'
' undecided rows and wrote none is stuck; rows that others hold are waited for from the second sweep on.';

create or replace function tenancy.next_batch_at(began timestamptz, wal_before pg_lsn)
returns timestamptz
language sql
volatile
security invoker
set search_path = ''
as $function$
    select began + make_interval(
        secs => (
            pg_wal_lsn_diff(pg_current_wal_insert_lsn(), wal_before) / (settings.wal_mb_per_second * 1000000)
        )::double precision
    )
    from tenancy.settings
$function$;
comment on function tenancy.next_batch_at(timestamptz, pg_lsn) is
'When the WAL written since a batch began, by whomever, is within settings.wal_mb_per_second; NULL where there is no budget.';

create or replace function tenancy.forget_backfill(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    delete from tenancy.backfill_conflicts
    where backfill_conflicts.relation in (select tenancy.leaves(target));

    delete from tenancy.backfills
    where backfills.relation in (select tenancy.leaves(target));
    return found;
end
$function$;
comment on function tenancy.forget_backfill(regclass) is
'Undo of backfill_org_id: forgets its progress, so that it starts over; the values go with the column. Returns whether it had to.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;

do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{fill_missing_org_id}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;

do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{backfill_org_id}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;
