-- Purpose: a data-only dump of a pushed database is a seed for another one, which has rows of its own already.
-- Touches: a trigger on each table of ours that the migrations write to, and one on public.organizations for the default one. They fire in
--          replica sessions alone, as a restore is.
-- Locks:   SHARE ROW EXCLUSIVE on organizations for a millisecond.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.skip_restored_row()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
declare
    is_here boolean;
begin
    execute (
        select format(
            'select exists (select from %s as held where (%s) = (%s))', tg_relid::regclass,
            string_agg(format('held.%I', key_column.attname), ', ' order by key.position),
            string_agg(format('($1).%I', key_column.attname), ', ' order by key.position)
        )
        from pg_index as primary_key
        cross join unnest(primary_key.indkey::smallint[]) with ordinality as key (attnum, position)
        join pg_attribute as key_column
            on key_column.attrelid = tg_relid
            and key_column.attnum = key.attnum
        where primary_key.indrelid = tg_relid and primary_key.indisprimary
    )
    into is_here
    using new;

    -- What is noted by numbers of tables, which are others here, is noted anew.
    if tg_relid = to_regclass('org_migration.fillers') then
        is_here := true;
    elsif tg_relid = 'tenancy.registry'::regclass then
        new.home_oid := null;
    elsif tg_relid = 'public.organizations'::regclass then
        is_here := is_here and new.id = (select settings.default_org_id from tenancy.settings);
    end if;
    return case when not is_here then new end;
end
$function$;
comment on function tenancy.skip_restored_row() is
'Trigger function: in a replica session, as a restore is, leaves out a row whose key is there already; of organizations only the default one.'
' Security definer, because it looks into tables that whoever restores may not read.';

do $do$
declare
    restored regclass;
begin
    foreach restored in array array[
        'public.organizations', 'tenancy.settings', 'tenancy.registry', 'tenancy.user_orgs', 'tenancy.memberships', 'org_migration.fillers', 'tenancy.log',
        'tenancy.bound_references', 'org_migration.tables_before', 'org_migration.rules', 'org_migration.backfills', 'org_migration.queue',
        'org_migration.lock_waits', 'org_migration.sessions', 'org_migration.work', 'org_migration.mapping_before'
    ]::regclass[]
    loop
        execute format(
            'create or replace trigger tenancy_skip_restored_row before insert on %1$s for each row execute function tenancy.skip_restored_row();'
            ' alter table %1$s enable replica trigger tenancy_skip_restored_row', restored
        );
    end loop;
end
$do$;
