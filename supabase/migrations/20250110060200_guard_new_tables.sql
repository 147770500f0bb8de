-- Purpose: what keeps it true afterwards: take a new or forgotten table through all phases; refuse new tables that nobody classified.
-- Touches: new objects in tenancy. Nothing is switched on: tenancy.onboard and tenancy.guard_new_tables are for you to call.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.stop_guarding_new_tables(); what onboard does to a table, tenancy.roll_back undoes with the others.

set lock_timeout = '1s';
set statement_timeout = '1min';

create or replace function tenancy.assert_onboardable(target regclass)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    registered tenancy.registry;
    obstacles text;
    bytes bigint;
    limit_bytes constant bigint := (select settings.small_table_bytes from tenancy.settings);
begin
    select registry.*
    into registered
    from tenancy.registry
    join tenancy.application_tables
        using (schema_name, table_name)
    where application_tables.relation = target;

    if not found then
        raise exception '% is no table of the application', target
        using
            errcode = 'wrong_object_type',
            detail = 'Neither views, partitions (onboard their table), public.organizations nor the platform''s tables get org_id.';
    end if;

    if registered.scope = 'excluded' then
        raise exception '% is registered as excluded: %', target, registered.reason
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = 'Change its row in tenancy.registry first, if it is to have org_id after all.';
    end if;

    select string_agg(format('%s; %s', table_obstacles.problem, table_obstacles.remedy), E'\n')
    into obstacles
    from tenancy.table_obstacles
    where table_obstacles.relation = target;

    obstacles := concat_ws(
        E'\n',
        obstacles,
        (
            select string_agg(
                format(
                    'references %s, which %s; onboard that first',
                    parent.relation,
                    case
                        when parent.scope is null then 'nobody has classified'
                        else 'has no org_id yet'
                    end
                ),
                E'\n'
            )
            from tenancy.references_between_tables as reference
            join tenancy.application_tables as parent
                on parent.relation = reference.parent
                and parent.relation <> target
            where reference.relation = target
                and parent.scope is distinct from 'excluded'
                and (tenancy.org_id_column(parent.relation)).attnum is null
        )
    );
    if obstacles <> '' then
        raise exception '% cannot be onboarded', target
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = obstacles;
    end if;

    select coalesce(sum(pg_table_size(leaf)), 0)
    into bytes
    from tenancy.leaves(target) as leaf;

    if bytes > limit_bytes and exists (
        select
        from tenancy.verify_table(target) as checks
        where not checks.passed
    ) then
        raise exception '% has %, too much to hold its lock for while org_id is filled in, indexed and checked (the limit is %)',
            target,
            pg_size_pretty(bytes),
            pg_size_pretty(limit_bytes)
        using
            errcode = 'program_limit_exceeded',
            detail = 'Have the migrations do it, which hold no lock for long: add its row to the file ending in'
            ' _discover_org_scoped_tables.sql and its line to the one ending in _index_org_id.sql, then supabase migration repair'
            ' --status reverted those of the phases and push again. Or, where nobody uses it, raise tenancy.settings.small_table_bytes.';
    end if;
end
$function$;
comment on function tenancy.assert_onboardable(regclass) is
'Raises wrong_object_type for what is no table of the application, object_not_in_prerequisite_state with the reasons in the DETAIL for'
' one that is excluded, cannot be handled or comes before its parents, program_limit_exceeded above settings.small_table_bytes.';

create or replace function tenancy.onboard(target regclass)
returns table (
    check_name text,
    passed boolean,
    detail text
)
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    step text;
begin
    perform pg_advisory_xact_lock(hashtext('tenancy.work_on'));

    insert into tenancy.registry (schema_name, table_name, scope, priority)
    select
        unclassified_tables.schema_name,
        unclassified_tables.table_name,
        'org',
        'secondary'
    from tenancy.unclassified_tables
    where unclassified_tables.relation = target;

    perform tenancy.assert_onboardable(target);

    foreach step in array array[
        'record_table_before',
        'add_org_id',
        'fill_missing_org_id',
        'backfill_org_id',
        'drop_invalid_org_id_index',
        'create_org_id_index',
        'add_org_id_foreign_key',
        'refuse_null_org_id',
        'enforce_org_id',
        'make_org_id_immutable'
    ] loop
        while tenancy.run_step(step, target) loop
            null;
        end loop;
    end loop;

    return query
    select verify_table.*
    from tenancy.verify_table(target);
end
$function$;
comment on function tenancy.onboard(regclass) is
'Takes a new or forgotten table through all phases in one call and one transaction, and registers it as org-scoped if nobody has.'
' Returns tenancy.verify_table(target). A table that has all of it already is left as it is. Raises what'
' tenancy.assert_onboardable raises, and lock_not_available where the table is in use: nothing is done then, call it again.';

create or replace function tenancy.refuse_unclassified_table()
returns event_trigger
language plpgsql
security definer
set search_path = ''
as $function$
declare
    unclassified record;
begin
    select unclassified_tables.*
    into unclassified
    from pg_event_trigger_ddl_commands() as command
    join tenancy.unclassified_tables
        on command.classid = 'pg_catalog.pg_class'::regclass
        and unclassified_tables.relation = command.objid
    limit 1;

    if found then
        raise exception 'table % is in tenancy.registry neither as org nor as excluded: insert % or % first',
            unclassified.relation,
            unclassified.org_row,
            unclassified.excluded_row
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = format(
                'It %s. Before the table is created: insert into tenancy.registry (schema_name, table_name, scope, priority, reason)'
                ' values %s; and after it, where that is org: select tenancy.onboard(%L).',
                unclassified.reason,
                case unclassified.suggested_scope
                    when 'org' then unclassified.org_row
                    else unclassified.excluded_row
                end,
                unclassified.relation::text
            ),
            schema = unclassified.schema_name,
            table = unclassified.table_name;
    end if;
end
$function$;
comment on function tenancy.refuse_unclassified_table() is
'Event trigger function: raises object_not_in_prerequisite_state for a new table without a row in tenancy.registry. Security definer,'
' because whoever creates a table need not be able to read tenancy; it returns nothing of what it reads but the table''s own name.';

create or replace function tenancy.guard_new_tables()
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    drop event trigger if exists tenancy_guard_new_tables;
    create event trigger tenancy_guard_new_tables
    on ddl_command_end
    when tag in (
        'CREATE TABLE',
        'CREATE TABLE AS',
        'SELECT INTO',
        'CREATE FOREIGN TABLE',
        'CREATE SCHEMA',
        'IMPORT FOREIGN SCHEMA'
    )
    execute function tenancy.refuse_unclassified_table();
    alter event trigger tenancy_guard_new_tables enable always;
end
$function$;
comment on function tenancy.guard_new_tables() is
'Opt-in: from here on a new table is refused unless tenancy.registry has a row for it. Temporary tables, partitions and extensions'''
' tables are not meant. A replica session does not pass it by. Raises insufficient_privilege where the caller may not create event'
' triggers: the platform lets postgres. Superusers and the platform''s own roles pass it by, and so does a table that is renamed or detached: tenancy.verify() finds those.';

create or replace function tenancy.stop_guarding_new_tables()
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    drop event trigger if exists tenancy_guard_new_tables;
end
$function$;
comment on function tenancy.stop_guarding_new_tables() is 'Undo of tenancy.guard_new_tables().';

revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;
