-- Purpose: the backfill of one batch: which organization each row gets, and the UPDATE that gives it.
-- Touches: new objects in the schema org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists org_migration.backfill_conflicts (
    id bigint generated always as identity primary key,
    relation regclass not null,
    row_key jsonb not null,
    org_id uuid not null,
    candidates jsonb not null,
    decided_at timestamptz not null default clock_timestamp()
);
create index if not exists backfill_conflicts_relation_idx on org_migration.backfill_conflicts (relation);
comment on table org_migration.backfill_conflicts is
'Rows whose sources name different organizations: the primary key, what was chosen, and what each column says.';

create or replace function org_migration.note_following()
returns void language sql volatile security invoker set search_path = '' as $function$
    select set_config('tenancy.following', array(select following_tables.relation::oid from org_migration.following_tables)::text, false)
$function$;
comment on function org_migration.note_following() is
'Notes org_migration.following_tables in a setting of the session, for count_rows, which asks for each table: the view looks at all of them.';

create or replace function org_migration.count_rows(target regclass)
returns boolean
language plpgsql volatile security invoker set search_path = '' set plan_cache_mode = force_generic_plan as $function$
declare
    began constant timestamptz := clock_timestamp();
    statement constant text := format('select count(*) from %s', target);
    parts text[] := '{}';
    counted bigint;
begin
    if exists (select from org_migration.tables_before where tables_before.relation = target) then
        return false;
    end if;

    execute statement
    into counted;

    -- Mostly there is nothing of the kind yet.
    if exists (select from pg_catalog.pg_attribute where attrelid = target and attname = 'org_id' and not attisdropped) then
        parts := array(
            select format('%s %s', found.part, found.name)
            from tenancy.parts(target) as found
            where found.present
        );
    end if;

    insert into org_migration.tables_before (relation, row_count, rows_inserted, rows_deleted, storage, follows_org_id, parts)
    values (
        target, counted,
        org_migration.rows_inserted(target),
        org_migration.rows_deleted(target),
        org_migration.storage_of(target),
        target::oid = any (current_setting('tenancy.following')::oid[]),
        parts
    );
    insert into tenancy.log (part, table_name, statement, began, seconds, rows)
    values ('count', target::text, statement, began, round(extract(epoch from clock_timestamp() - began), 3), counted);
    return true;
end
$function$;
comment on function org_migration.count_rows(regclass) is
'The step count: notes the table''s rows, the parts that it has already, and if it follows an organization, as org_migration.note_following()'
' has found, once. Returns true if it did.';

create or replace function org_migration.rows_inserted(target regclass)
returns bigint language sql volatile security invoker set search_path = '' as $function$
    select coalesce(sum(pg_stat_get_tuples_inserted(leaf)), 0)::bigint
    from tenancy.leaves(target) as leaf
$function$;
comment on function org_migration.rows_inserted(regclass) is 'How many rows were ever inserted into the table, as the statistics count them.';

create or replace function org_migration.rows_deleted(target regclass)
returns bigint language sql volatile security invoker set search_path = '' as $function$
    select coalesce(sum(pg_stat_get_tuples_deleted(leaf)), 0)::bigint
    from tenancy.leaves(target) as leaf
$function$;
comment on function org_migration.rows_deleted(regclass) is 'How many rows were ever deleted from the table, as the statistics count them.';

create or replace function org_migration.storage_of(target regclass)
returns text language sql volatile security invoker set search_path = '' as $function$
    select concat_ws(
        ' since ',
        string_agg(pg_relation_filenode(leaf)::text, ', ' order by leaf),
        coalesce(pg_stat_get_db_stat_reset_time((select oid from pg_catalog.pg_database where datname = current_database()))::text, 'ever'),
        -- A crash, after which nothing is known of the time before, sets this anew.
        (select stats_reset::text from pg_catalog.pg_stat_wal)
    )
    from tenancy.leaves(target) as leaf
$function$;
comment on function org_migration.storage_of(regclass) is
'The files of the table and its partitions, and since when rows are counted: after a truncate, a rewrite, a partition more or less, or a'
' reset of the statistics these do not tell how many rows went.';

create table if not exists org_migration.rules (
    root regclass primary key,
    org_id text not null,
    last_org_id text not null,
    is_orphan text not null,
    is_last_orphan text not null,
    is_conflict text not null,
    candidates text,
    joins text not null,
    in_words text not null,
    parents regclass[] not null,
    org_from text[],
    position bigint not null
);
comment on table org_migration.rules is
'org_migration.decision_rules and tenancy.decisions as they were when a loop began that decides rows: each batch of each table asks for its own.';

create or replace function org_migration.note_rules(target regclass default null)
returns void
-- A plan that does not know whether it is one table or all expects one, and looks at all tables again for each.
language plpgsql volatile security invoker set search_path = '' set plan_cache_mode = force_custom_plan as $function$
begin
    delete from org_migration.rules
    where target is null or rules.root = target;

    insert into org_migration.rules
    -- Each view once, and not once per row of another.
    with rule as materialized (
        select decision_rules.*
        from org_migration.decision_rules
        where (target is null or decision_rules.root = target)
            and decision_rules.by_memberships = exists (select from tenancy.memberships)
    ),
    decision as materialized (
        select decisions.root, decisions.in_words
        from tenancy.decisions
        where target is null or decisions.root = target
    ),
    place as materialized (
        select org_scoped_tables.relation, org_scoped_tables.position
        from tenancy.org_scoped_tables
    ),
    parent as materialized (
        select sources.root, array_agg(sources.parent) filter (where sources.parent is not null) as relations
        from tenancy.sources
        where target is null or sources.root = target
        group by sources.root
    )
    select
        rule.root, rule.org_id, rule.last_org_id, rule.is_orphan, rule.is_last_orphan, rule.is_conflict, rule.candidates, rule.joins,
        decision.in_words, coalesce(parent.relations, '{}'), application_tables.org_from, place.position
    from rule
    join decision on decision.root = rule.root
    join place on place.relation = rule.root
    join tenancy.application_tables on application_tables.relation = rule.root
    left join parent on parent.root = rule.root;
end
$function$;
comment on function org_migration.note_rules(regclass) is 'Notes the rules of a table, or of all (NULL), as they are now.';

create or replace function org_migration.decision_query(target regclass, last_resort boolean)
returns text language sql stable security invoker set search_path = '' as $function$
    select tenancy.with_names(format(
        $sql$
            select
                todo.ctid as row_id,
                %1$s as org_id,
                %2$s as is_orphan,
                case when %3$s then pg_catalog.jsonb_build_array(%4$s, %5$s) end as conflict
            from %6$s as todo %7$s
        $sql$,
        case when last_resort then rules.last_org_id else rules.org_id end,
        case when last_resort then rules.is_last_orphan else rules.is_orphan end,
        rules.is_conflict,
        coalesce(tenancy.key_of(target, 'todo'), 'pg_catalog.jsonb_build_object()'),
        rules.candidates, format('@r%s@', target::oid), rules.joins
    ))
    from org_migration.rules
    where rules.root = coalesce(pg_partition_root(target), target)
$function$;
comment on function org_migration.decision_query(regclass, boolean) is
'The query that decides rows by org_migration.rules: row_id, org_id, is_orphan, conflict (the primary key, and what each source says; NULL where'
' they agree); a where clause is to follow.';

create or replace function tenancy.count_sources(target regclass)
returns table (entry text, rows bigint, conflicts bigint)
language plpgsql stable security invoker set search_path = '' as $function$
declare
    counting constant text := (
        select format(
            'select decided.ordinal, count(*) as rows, count(*) filter (where decided.is_conflict) as conflicts'
            ' from (select case when false then null::integer %s end as ordinal, %s as is_conflict from @r%s@ as todo %s) as decided'
            ' group by decided.ordinal order by decided.ordinal',
            (
                select string_agg(format(' when %s then %s', sources.condition, sources.ordinal), '' order by sources.ordinal)
                from tenancy.sources
                where sources.root = target
            ),
            rules.is_conflict, target::oid, rules.joins
        )
        from org_migration.decision_rules as rules
        where rules.root = target and rules.by_memberships = exists (select from tenancy.memberships)
    );
    counted record;
begin
    if counting is null then
        return;
    end if;
    for counted in execute tenancy.with_names(counting) loop
        entry := (select sources.entry from tenancy.sources where sources.root = target and sources.ordinal = counted.ordinal);
        rows := counted.rows;
        conflicts := counted.conflicts;
        return next;
    end loop;
end
$function$;
comment on function tenancy.count_sources(regclass) is
'How many rows of an org-scoped table each source decides (entry, as in registry.org_from; NULL: nothing does), and in how many of them the'
' sources name several organizations. It reads the whole table and its parents'' rows. No row for any other table.';

create or replace function org_migration.find_rows(batch_rows text)
returns tid[] language plpgsql volatile security invoker set search_path = '' set enable_seqscan = off set jit = off as $function$
declare
    row_ids tid[];
begin
    execute format('select array(%s)', batch_rows)
    into row_ids;
    return row_ids;
end
$function$;
comment on function org_migration.find_rows(text) is 'What batch_rows, a query, returns: the ctid of each row of a batch.';

create or replace function org_migration.batch_statement(target regclass, decision text, skip_locked boolean)
returns text language sql stable security invoker set search_path = '' as $function$
    select format(
        $dml$
            with written as (
                update %3$s as todo
                set org_id = decision.org_id
                -- Not a CTE, of which each row would be stored, and stored again as a whole in case it has changed meanwhile.
                from (
                    %1$s
                    where todo.ctid operator(pg_catalog.=) any ($1)
                    %2$s
                ) as decision
                -- Where the row has changed meanwhile, PostgreSQL before 17.7 looks at its new version without asking for its
                -- ctid again, unless in words that it does not take for a scan key.
                where todo.ctid = decision.row_id
                    and (todo.ctid <> decision.row_id) is not true
                    and todo.org_id is null
                    and decision.org_id is not null
                returning decision.org_id, decision.is_orphan, decision.conflict
            ),
            reported as (
                insert into org_migration.backfill_conflicts (relation, row_key, org_id, candidates)
                select
                    %3$L::pg_catalog.regclass, written.conflict operator(pg_catalog.->) 0, written.org_id,
                    written.conflict operator(pg_catalog.->) 1
                from written
                where written.conflict is not null
                returning true
            ),
            named_organization as materialized (
                select written.org_id, pg_catalog.count(*) as rows, pg_catalog.count(*) filter (where written.is_orphan) as orphans
                from written
                group by written.org_id
            ),
            locked_organization as materialized (
                select organizations.id
                from public.organizations
                where organizations.id in (select named_organization.org_id from named_organization)
                for key share
            )
            select
                coalesce(pg_catalog.sum(named_organization.rows), 0),
                coalesce(pg_catalog.sum(named_organization.orphans), 0),
                (select pg_catalog.count(*) from reported),
                pg_catalog.count(*) - (select pg_catalog.count(*) from locked_organization)
            from named_organization
        $dml$,
        decision,
        case when skip_locked then 'for no key update of todo skip locked' end,
        target
    )
$function$;
comment on function org_migration.batch_statement(regclass, text, boolean) is
'The UPDATE of one batch, of the rows whose ctid is in $1, in words that mean the same under any search_path. Foreign keys do not fire, so it'
' holds the organizations that it gave rows to; its last number is how many of those are gone.';

-- Owners and parents come as a rule from memory, where a page costs what five of its rows do, and each row is a lookup by index or, for a parent
-- of fewer rows than about five times those of the batch, a hash table of it all, which takes half as long (as measured). The planner sees which if
-- these are its costs, if $1 tells it how many rows there are, and if it decides all of them before it meets the table again.
create or replace function org_migration.backfill_rows(
    target regclass, decision text, batch_rows text, skip_locked boolean default false,
    out updated bigint, out left_over bigint, out orphans bigint, out conflicts bigint, out triggers_fired boolean
)
language plpgsql volatile security invoker
set search_path = '' set seq_page_cost = 0.05 set random_page_cost = 0.05 set cpu_operator_cost = 0.0015
set from_collapse_limit = 1 set enable_mergejoin = off set jit = off as $function$
declare
    statement constant text := org_migration.batch_statement(target, decision, skip_locked);
    row_ids constant tid[] := org_migration.find_rows(batch_rows);
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

    -- Functions of the application, in its checks and indexes, look for their tables where its own sessions do.
    set local search_path to default;
    execute statement
    into updated, orphans, conflicts, vanished_organizations
    using row_ids;
    left_over := cardinality(row_ids) - updated;
    set local search_path = '';

    if vanished_organizations > 0 then
        raise exception 'an organization was deleted while rows of % were given to it', target
        using errcode = 'serialization_failure', schema = tenancy.schema_of(target), table = tenancy.table_of(target);
    end if;

    if not triggers_fired then
        set local session_replication_role = origin;
    end if;
end
$function$;
comment on function org_migration.backfill_rows(regclass, text, text, boolean) is
'Fills org_id of the rows whose ctid batch_rows, a query, returns: such as have none. The application''s triggers do not fire; decision'
' is a query of org_migration.decision_query. Returns how many rows it wrote, how many it found and did not write, and of those written'
' how many are orphans and how many are reported as conflicts. Raises serialization_failure where an organization that it gives rows to is gone.';

create or replace function org_migration.verify_row_count(target regclass, row_count bigint)
returns table (check_name text, passed boolean, detail text)
language plpgsql volatile security invoker set search_path = '' as $function$
declare
    before org_migration.tables_before;
    inserted bigint;
    deleted bigint;
    is_comparable boolean;
begin
    select tables_before.*
    into before
    from org_migration.tables_before
    where tables_before.relation = target;

    inserted := org_migration.rows_inserted(target) - before.rows_inserted;
    deleted := org_migration.rows_deleted(target) - before.rows_deleted;
    is_comparable := inserted >= 0 and deleted >= 0 and coalesce(before.storage = org_migration.storage_of(target), false);
    check_name := 'row_count';
    passed := not is_comparable or row_count >= before.row_count - deleted;
    detail := case
        when before.relation is null then format('%s now; not counted before phase 2', row_count)
        when not is_comparable then format(
            '%s before, %s now; truncated, rewritten, with other partitions or with other statistics since, so it is not known how many were deleted',
            before.row_count, row_count
        )
        else format('%s before, %s now; the application inserted %s and deleted %s', before.row_count, row_count, inserted, deleted)
    end;
    return next;
end
$function$;
comment on function org_migration.verify_row_count(regclass, bigint) is
'The check that no row of a table was lost, as far as the statistics can tell; row_count: how many there are now.';
