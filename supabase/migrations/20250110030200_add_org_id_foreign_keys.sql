-- pg-delta: transaction=false
-- Purpose: phase 2, foreign keys: org_id references organizations (id) on delete cascade, on every org-scoped table.
--          And, before that, the index of each partitioned table, which takes in those of its partitions and builds none.
-- Touches: one constraint a table, first not valid, then validated; no row. After the backfill, which it would slow by half.
-- Locks:   SHARE ROW EXCLUSIVE on organizations and the table for a millisecond; the validation lets reads and writes go on.
-- Undo:    tenancy.drop_org_id_foreign_key(regclass), or tenancy.roll_back(1) for all.

set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

create or replace function tenancy.add_org_id_foreign_key(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    existing constant pg_catalog.pg_constraint := tenancy.org_id_foreign_key(target);
    partitioned constant boolean := tenancy.is_partitioned(target);
begin
    if existing.convalidated then
        return false;
    end if;

    if partitioned and tenancy.work_on_leaves('add_org_id_foreign_key', target) then
        return true;
    end if;

    if existing.conname is null then
        -- The constraint needs this lock too, and nobody but a writer of organizations minds it: first, therefore, so that
        -- the table's own is never held while waiting. To take in those of the partitions it needs it exclusively.
        perform set_config('lock_timeout', format('%sms', (select settings.lock_timeout_ms from tenancy.settings)), true);
        execute format(
            'lock table public.organizations in %s mode',
            case when partitioned then 'access exclusive' else 'share row exclusive' end
        );
        perform tenancy.change_table(
            target,
            format(
                $ddl$
                    alter table %s
                    add constraint %I foreign key (org_id) references public.organizations (id) on delete cascade %s
                $ddl$,
                target,
                tenancy.name_of('foreign_key', target),
                case when not partitioned then 'not valid' end
            )
        );
    else
        perform tenancy.change_table(target, format('alter table %s validate constraint %I', target, existing.conname));
    end if;

    if (tenancy.org_id_foreign_key(target)).conname is null then
        raise exception 'the foreign key from org_id of % was created and does not have the definition that it should have', target
        using errcode = 'internal_error';
    end if;
    return true;
end
$function$;
comment on function tenancy.add_org_id_foreign_key(regclass) is
'Step: adds fk_<table>_org_id not valid, or validates it: two calls, two transactions, so that no scan runs under the strong'
' lock. A partitioned table gets its own after its partitions have theirs, and takes those in without another scan. A foreign key'
' with that definition counts under any name. Returns whether it had to.';

create or replace function tenancy.drop_org_id_foreign_key(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    existing constant name := (tenancy.org_id_foreign_key(target)).conname;
begin
    if existing is null and tenancy.is_partitioned(target) then
        return tenancy.work_on_leaves('drop_org_id_foreign_key', target);
    end if;

    if existing is null or not exists (
        select
        from tenancy.tables_before
        where tables_before.relation = tenancy.root_of(target)
            and tables_before.foreign_key is distinct from existing
    ) then
        return false;
    end if;
    perform tenancy.change_table(target, format('alter table %s drop constraint %I', target, existing));
    return true;
end
$function$;
comment on function tenancy.drop_org_id_foreign_key(regclass) is
'Undo of add_org_id_foreign_key: drops the constraint unless it was there before. Returns whether it had to.'
' It locks organizations exclusively for a moment, as PostgreSQL does for every dropped foreign key.';

revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;

do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{index_partitioned_table}', target);
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
        target := tenancy.next_step('{add_org_id_foreign_key}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;
