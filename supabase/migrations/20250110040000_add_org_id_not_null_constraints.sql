-- pg-delta: transaction=false
-- Purpose: phase 4: org_id is NOT NULL on every org-scoped table, by a validated CHECK and by the column itself.
-- Touches: the last rows without organization, then two constraints a table.
-- Locks:   ACCESS EXCLUSIVE for a millisecond, twice a table; the validation between lets reads and writes go on.
-- Undo:    tenancy.allow_null_org_id(regclass), or tenancy.roll_back(3) for all.

set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

create or replace function tenancy.backfill_leftovers(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    leftovers boolean;
    row_filter constant text := format('todo.ctid = any (array(select ctid from %s where org_id is null limit 1000))', target);
    batch record;
begin
    execute format('select exists (select from %s where org_id is null)', target)
    into leftovers;
    if not leftovers then
        return false;
    end if;

    batch := tenancy.backfill_rows(target, tenancy.decision_query(target, false), row_filter);
    if batch.updated = 0 and batch.undecided > 0 then
        batch := tenancy.backfill_rows(target, tenancy.decision_query(target, true), row_filter);
    end if;

    update tenancy.backfills
    set
        rows_updated = backfills.rows_updated + batch.updated,
        orphans = backfills.orphans + batch.orphans,
        conflicts = backfills.conflicts + batch.conflicts,
        triggers_fired = backfills.triggers_fired or batch.triggers_fired,
        last_written_at = clock_timestamp()
    where backfills.relation = target;
    return true;
end
$function$;
comment on function tenancy.backfill_leftovers(regclass) is
'Step: fills up to 1000 rows that came without organization since the backfill, found by the index. Returns whether there were any.'
' Raises lock_not_available where another session holds one of them.';

create or replace function tenancy.refuse_null_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    existing constant pg_catalog.pg_constraint := tenancy.org_id_check(target);
    check_name name := tenancy.name_for('', target, '_org_id_not_null');
begin
    if existing.convalidated then
        return false;
    end if;

    if tenancy.backfill_leftovers(target) then
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
        check_name := tenancy.name_for('', target, '_org_id_not_null_check');
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
' transaction. Returns whether it had to.';

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
