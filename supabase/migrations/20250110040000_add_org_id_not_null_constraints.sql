-- pg-delta: transaction=false
-- Purpose: phase 4: org_id is NOT NULL on every org-scoped table, by a validated CHECK and by the column itself.
-- Touches: the last rows without organization, then two constraints a table.
-- Locks:   ACCESS EXCLUSIVE for a millisecond, twice a table; the validation between lets reads and writes go on.
-- Undo:    tenancy.allow_null_org_id(regclass), or tenancy.roll_back(3) for all.

set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

create or replace function tenancy.has_null_org_id(target regclass)
returns boolean
language plpgsql
stable
security invoker
set search_path = ''
as $function$
declare
    found_one boolean;
begin
    execute format('select exists (select from %s where org_id is null)', target)
    into found_one;
    return found_one;
end
$function$;
comment on function tenancy.has_null_org_id(regclass) is 'Whether a row of the table has no organization.';

create or replace function tenancy.fill_leftovers(target regclass, last_resort boolean)
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    leaf regclass;
    batch record;
    updated bigint := 0;
begin
    for leaf in
        select member
        from tenancy.leaves(target) as member
        where tenancy.has_null_org_id(member)
    loop
        batch := tenancy.backfill_rows(
            leaf,
            tenancy.decision_query(leaf, last_resort),
            format('todo.ctid = any (array(select ctid from %s where org_id is null limit 1000))', leaf)
        );

        update tenancy.backfills
        set
            rows_updated = backfills.rows_updated + batch.updated,
            orphans = backfills.orphans + batch.orphans,
            conflicts = backfills.conflicts + batch.conflicts,
            triggers_fired = backfills.triggers_fired or batch.triggers_fired,
            last_written_at = clock_timestamp()
        where backfills.relation = leaf;
        updated := updated + batch.updated;
    end loop;
    return updated;
end
$function$;
comment on function tenancy.fill_leftovers(regclass, boolean) is
'Fills up to 1000 rows, of each partition, that came without organization since the backfill, found by the index; with last_resort'
' also those whose parent has none. Returns how many. Raises lock_not_available where another session holds one of them.';

create or replace function tenancy.backfill_leftovers(target regclass)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $function$
    select tenancy.fill_leftovers(target, false) > 0
$function$;
comment on function tenancy.backfill_leftovers(regclass) is
'Step: fills rows that came without organization since the backfill, but for those whose parent has none yet. Returns whether it did.';

create or replace function tenancy.awaits_parents(target regclass)
returns boolean
language sql
stable
security invoker
set search_path = ''
as $function$
    select exists (
        select
        from tenancy.org_id_sources(target) as source
        join tenancy.org_scoped_tables as parent
            on parent.relation = source.parent
        join tenancy.org_scoped_tables as own
            on own.relation = target
            and own.position > parent.position
        where (tenancy.org_id_check(parent.relation)).conname is null
            or tenancy.has_null_org_id(parent.relation)
    )
$function$;
comment on function tenancy.awaits_parents(regclass) is
'Whether a table that this one references, and that comes before it in tenancy.org_scoped_tables, may still have rows without'
' organization: its own rows are not to be decided before.';

create or replace function tenancy.refuse_null_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    existing constant pg_catalog.pg_constraint := tenancy.org_id_check(target);
    check_name name := tenancy.name_of('check', target);
begin
    if existing.convalidated then
        return false;
    end if;

    if tenancy.backfill_leftovers(target) then
        return true;
    end if;

    if tenancy.has_null_org_id(target) then
        if tenancy.awaits_parents(target) then
            return false;
        end if;
        perform tenancy.fill_leftovers(target, true);
        return true;
    end if;

    if existing.conname is not null then
        return false;
    end if;

    -- PostgreSQL 18 gives this name to the NOT NULL of a column that had it before.
    if exists (
        select
        from pg_catalog.pg_constraint as namesake
        where namesake.conrelid = target
            and namesake.conname = check_name
    ) then
        check_name := tenancy.name_of('other_check', target);
    end if;

    perform tenancy.change_table(
        target,
        format('alter table %s add constraint %I check (org_id is not null) not valid', target, check_name)
    );
    if (tenancy.org_id_check(target)).conname is null then
        raise exception 'the check on org_id of % was created and does not have the definition that it should have', target
        using errcode = 'internal_error';
    end if;
    return true;
end
$function$;
comment on function tenancy.refuse_null_org_id(regclass) is
'Step: leftovers, CHECK not valid (no new NULL from here on), the leftovers of the moment between: one of them a call, one a'
' transaction. A table whose rows depend on those of its parents waits for them. Returns whether it had to.';

create or replace function tenancy.enforce_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    existing constant pg_catalog.pg_constraint := tenancy.org_id_check(target);
begin
    if not existing.convalidated then
        perform tenancy.change_table(target, format('alter table %s validate constraint %I', target, existing.conname));
    elsif not (tenancy.org_id_column(target)).attnotnull then
        perform tenancy.change_table(target, format('alter table %s alter column org_id set not null', target));
    else
        return false;
    end if;
    return true;
end
$function$;
comment on function tenancy.enforce_org_id(regclass) is
'Step: validates the CHECK, then SET NOT NULL, which finds the valid CHECK and scans nothing: two calls, two transactions.'
' Returns whether it had to.';

create or replace function tenancy.allow_null_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    existing constant name := (tenancy.org_id_check(target)).conname;
    before tenancy.tables_before;
begin
    select tables_before.*
    into before
    from tenancy.tables_before
    where tables_before.relation = target;

    if not found then
        return false;
    end if;

    if (tenancy.org_id_column(target)).attnotnull and not before.had_not_null then
        perform tenancy.change_table(target, format('alter table %s alter column org_id drop not null', target));
    elsif existing is distinct from before.check_constraint then
        perform tenancy.change_table(target, format('alter table %s drop constraint %I', target, existing));
    else
        return false;
    end if;
    return true;
end
$function$;
comment on function tenancy.allow_null_org_id(regclass) is
'Undo of enforce_org_id and refuse_null_org_id: drops NOT NULL, then the CHECK, unless they were there before. Returns whether it had to.';

revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;

-- All tables refuse NULL within a second or so before the first long validation: a trigger that copies org_id from one table to
-- another would otherwise meet rows without it for as long as that takes.
do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{backfill_leftovers}', target);
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
        target := tenancy.next_step('{refuse_null_org_id}', target);
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
        target := tenancy.next_step('{enforce_org_id}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;
