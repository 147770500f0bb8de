-- pg-delta: transaction=false
-- Purpose: phase 6: once a row has its organization, nothing changes it: one refusing trigger on every org-scoped table.
-- Touches: one trigger function and one trigger a table; no row.
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
begin
    raise exception 'org_id of %.% is immutable', quote_ident(tg_table_schema), quote_ident(tg_table_name)
    using
        errcode = 'restrict_violation',
        detail = format('A row of organization %s would go to %s.', old.org_id, coalesce(new.org_id::text, 'none')),
        schema = tg_table_schema,
        table = tg_table_name,
        column = 'org_id',
        constraint = tg_name;
end
$function$;
comment on function tenancy.refuse_org_id_change() is
'Trigger function: raises restrict_violation (23001) naming table, column and trigger. It fires only where org_id changed.';

create or replace function tenancy.org_id_trigger(target regclass)
returns pg_catalog.pg_trigger
language sql
stable
security invoker
set search_path = ''
as $function$
    select guard.*
    from pg_catalog.pg_trigger as guard
    where guard.tgrelid = target
        and guard.tgenabled = 'A'
        and pg_get_triggerdef(guard.oid) = format(
            'CREATE TRIGGER %I AFTER UPDATE ON %s FOR EACH ROW WHEN ((old.org_id IS DISTINCT FROM new.org_id))'
            ' EXECUTE FUNCTION tenancy.refuse_org_id_change()',
            guard.tgname,
            target
        )
$function$;
comment on function tenancy.org_id_trigger(regclass) is 'The table''s refusing trigger, whole and enabled ALWAYS; NULL without one.';

create or replace function tenancy.make_org_id_immutable(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    trigger_name constant name := tenancy.name_for('org_id_immutable_', target, '');
begin
    if (tenancy.org_id_trigger(target)).tgname is not null then
        return false;
    end if;

    if exists (
        select
        from pg_catalog.pg_trigger as stranger
        where stranger.tgrelid = target
            and stranger.tgname = trigger_name
            and stranger.tgfoid <> 'tenancy.refuse_org_id_change()'::regprocedure
    ) then
        raise exception 'the trigger % on % is not ours and has the name of the one that keeps org_id', trigger_name, target
        using
            errcode = 'duplicate_object',
            detail = 'Rename it (alter trigger … on … rename to …), then push again.';
    end if;

    perform tenancy.change_table(
        target,
        format(
            $ddl$
                create or replace trigger %I
                after update on %s
                for each row
                when (old.org_id is distinct from new.org_id)
                execute function tenancy.refuse_org_id_change()
            $ddl$,
            trigger_name,
            target
        )
    );
    perform tenancy.change_table(target, format('alter table %s enable always trigger %I', target, trigger_name));

    if (tenancy.org_id_trigger(target)).tgname is null then
        raise exception 'the trigger % on % was created and does not have the definition that it should have', trigger_name, target
        using errcode = 'internal_error';
    end if;
    return true;
end
$function$;
comment on function tenancy.make_org_id_immutable(regclass) is
'Step: creates org_id_immutable_<table>. AFTER, so that no other trigger can change the value behind it; ALWAYS, so that a'
' replica session cannot pass it by; with WHEN, so that other updates pay nothing. Returns whether it had to.';

create or replace function tenancy.allow_org_id_change(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    guard constant name := (
        select existing.tgname
        from pg_catalog.pg_trigger as existing
        where existing.tgrelid = target
            and existing.tgfoid = 'tenancy.refuse_org_id_change()'::regprocedure
        limit 1
    );
begin
    if guard is null then
        return false;
    end if;
    perform tenancy.change_table(target, format('drop trigger %I on %s', guard, target));
    return true;
end
$function$;
comment on function tenancy.allow_org_id_change(regclass) is
'Undo of make_org_id_immutable: drops the trigger. Returns whether it had to. On the platform DROP TRIGGER locks the auth'
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
