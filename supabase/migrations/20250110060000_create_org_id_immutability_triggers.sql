-- pg-delta: transaction=false
-- Purpose: phase 6: once a row has its organization, nothing changes it: refusing triggers on every org-scoped table.
-- Touches: one trigger function and two triggers a table, three where it is partitioned; no row.
-- Locks:   SHARE ROW EXCLUSIVE on one table at a time for a millisecond: reads go on, writes wait that long.
-- Undo:    tenancy.allow_org_id_change(regclass), or tenancy.roll_back(5) for all.

set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

create or replace function tenancy.refuse_org_id_change()
returns trigger
language plpgsql
security invoker
set search_path = ''
as $function$
declare
    org_id_before uuid;
    org_id_after uuid;
begin
    if tg_level = 'ROW' then
        org_id_before := old.org_id;
        org_id_after := new.org_id;
    else
        -- A row that moves between partitions stands in both tables at the same place, as every row does.
        select
            old_row.org_id,
            new_row.org_id
        into
            org_id_before,
            org_id_after
        from (select org_id, row_number() over () as place from old_rows) as old_row
        full join (select org_id, row_number() over () as place from new_rows) as new_row
            using (place)
        where old_row.org_id is distinct from new_row.org_id
        limit 1;

        if not found then
            return null;
        end if;
    end if;

    raise exception 'org_id of %.% is immutable', quote_ident(tg_table_schema), quote_ident(tg_table_name)
    using
        errcode = 'restrict_violation',
        detail = format('A row of organization %s would go to %s.', org_id_before, coalesce(org_id_after::text, 'none')),
        schema = tg_table_schema,
        table = tg_table_name,
        column = 'org_id',
        constraint = tg_name;
end
$function$;
comment on function tenancy.refuse_org_id_change() is
'Trigger function: raises restrict_violation (23001) naming table, column and trigger. For a row it fires only where org_id changed;'
' for a statement, on a partitioned table, it looks for such a row. One case it cannot see: a row that MERGE moves to another partition,'
' whose BEFORE INSERT trigger changes org_id; PostgreSQL shows it to no UPDATE trigger.';

create or replace function tenancy.org_id_guards(target regclass)
returns table (
    relation regclass,
    kind text,
    trigger_name name,
    definition text,
    intact boolean
)
language plpgsql
stable
security invoker
set search_path = ''
as $function$
begin
    return query
    select
        guard.*,
        exists (
            select
            from pg_catalog.pg_trigger as existing
            where existing.tgrelid = guard.relation
                and existing.tgname = guard.trigger_name
                and existing.tgenabled = 'A'
                and pg_get_triggerdef(existing.oid) = 'CREATE TRIGGER ' || guard.definition
        )
    from (
        select
            member,
            form.kind,
            named.trigger_name,
            format(
                '%I %s UPDATE ON %s %s EXECUTE FUNCTION tenancy.refuse_org_id_change()',
                named.trigger_name,
                form.timing,
                member,
                form.condition
            )
        from tenancy.members(target) as member
        cross join (
            values
                ('guard', 'AFTER', 'FOR EACH ROW WHEN ((old.org_id IS DISTINCT FROM new.org_id))'),
                ('early_guard', 'BEFORE', 'FOR EACH ROW WHEN ((old.org_id IS DISTINCT FROM new.org_id))'),
                ('moving_guard', 'AFTER', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT')
        ) as form (kind, timing, condition)
        cross join lateral (
            -- A partition's row triggers are its table's, and have their names.
            select tenancy.name_of(form.kind, case when form.kind = 'moving_guard' then member else target end) as trigger_name
        ) as named
        where form.kind <> 'moving_guard'
            or tenancy.is_partitioned(member)
    ) as guard (relation, kind, trigger_name, definition);
end
$function$;
comment on function tenancy.org_id_guards(regclass) is
'The triggers that a table and its partitions are to have, what each is in words of PostgreSQL, and whether it is there, whole and'
' enabled ALWAYS. guard: AFTER, so that no other trigger can change the value behind it. early_guard: BEFORE, sorted last, so that'
' the error is the same also where a constraint would speak first. moving_guard: for rows that move between partitions, which fire'
' no AFTER UPDATE trigger.';

create or replace function tenancy.make_org_id_immutable(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    guard record;
    worked boolean := false;
begin
    for guard in
        with guards as materialized (
            select org_id_guards.*
            from tenancy.org_id_guards(target)
        )
        select
            guards.relation,
            guards.trigger_name,
            guards.definition,
            exists (
                select
                from pg_catalog.pg_trigger as existing
                where existing.tgrelid = guards.relation
                    and existing.tgname = guards.trigger_name
                    and existing.tgfoid = 'tenancy.refuse_org_id_change()'::regprocedure
            ) as is_replaced
        from guards
        -- Those of the rows are made on the table, and come to its partitions from there.
        where case
            when guards.kind = 'moving_guard' then not guards.intact
            else guards.relation = target and exists (
                select
                from guards as broken
                where broken.kind = guards.kind
                    and not broken.intact
            )
        end
        order by guards.trigger_name
    loop
        perform tenancy.change_table(
            guard.relation,
            format('create %s trigger %s', case when guard.is_replaced then 'or replace' end, guard.definition)
        );
        perform tenancy.change_table(
            guard.relation,
            format('alter table %s enable always trigger %I', guard.relation, guard.trigger_name)
        );
        worked := true;
    end loop;
    return worked;
end
$function$;
comment on function tenancy.make_org_id_immutable(regclass) is
'Step: creates, or mends, those of tenancy.org_id_guards that are not whole. ALWAYS, so that a replica session cannot pass it by;'
' with WHEN, so that other updates do not call it. Returns whether it had to. Raises duplicate_object where a trigger of that name'
' is not ours.';

create or replace function tenancy.allow_org_id_change(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    guard record;
begin
    select
        existing.tgrelid::regclass as relation,
        existing.tgname as trigger_name
    into guard
    from tenancy.members(target) as member
    join pg_catalog.pg_trigger as existing
        on existing.tgrelid = member
        and existing.tgparentid = 0
    where existing.tgfoid = 'tenancy.refuse_org_id_change()'::regprocedure
    limit 1;

    if not found then
        return false;
    end if;
    perform tenancy.change_table(guard.relation, format('drop trigger %I on %s', guard.trigger_name, guard.relation));
    return true;
end
$function$;
comment on function tenancy.allow_org_id_change(regclass) is
'Undo of make_org_id_immutable: drops one of its triggers. Returns whether it had to. On the platform DROP TRIGGER locks the auth'
' tables exclusively until it commits, so commit after each call.';

revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;

do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{make_org_id_immutable}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;
