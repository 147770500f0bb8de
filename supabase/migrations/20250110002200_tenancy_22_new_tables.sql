-- Purpose: tables that come later: taken through all phases in one call, and refused while nobody classified them, on request.
-- Touches: new objects in the schema tenancy only. Nothing is switched on: these functions are for you to call.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_new_table_check(); what onboard does to a table, tenancy.roll_back undoes with the others.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.onboarding_problems(target regclass)
returns text[] language sql stable security invoker set search_path = '' as $function$
    select array(
        select concat(findings.object || ' ', findings.problem, '; ', findings.remedy, format(' [%s]', findings.code))
        from (
            select found.code, found.table_name, found.problem, found.remedy, case when found.table_name is null then found.object end as object
            from tenancy.push_findings as found
            where found.severity = 'stops'
        ) as findings
        left join tenancy.application_tables on application_tables.qualified_name = findings.table_name
        where (
                application_tables.relation = target
                or findings.code ~ '^auth_org_id_'
                or findings.code in (
                    'library_changed', 'settings_missing', 'organizations_missing', 'organizations_not_referable', 'organizations_of_another_role'
                )
            )
            -- Of an empty table there is nothing to decide.
            and (findings.code <> 'no_source' or (select sum(pg_relation_size(leaf)) > 0 from tenancy.leaves(target) as leaf))
    ) || array(
        select format(
            'references %s, which %s; onboard that first [parent_without_org_id]', parent.qualified_name,
            case
                when parent.scope is null then 'nobody has classified'
                else 'has no org_id yet'
            end
        )
        from tenancy.references_between_tables as reference
        join tenancy.application_tables as parent
            on parent.relation = reference.parent
            and parent.relation <> target
        left join pg_catalog.pg_attribute as org_id
            on org_id.attrelid = parent.relation
            and org_id.attname = 'org_id'
            and not org_id.attisdropped
        where reference.relation = target
            and parent.scope is distinct from 'excluded'
            and org_id.attnum is null
            -- Rows follow those of their parents only while something decides them.
            and to_regnamespace('org_migration') is not null
    )
$function$;
comment on function tenancy.onboarding_problems(regclass) is
'What keeps a registered table from being onboarded: its findings, and parents without org_id. Empty for nothing.';

create or replace function tenancy.assert_onboardable(target regclass)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    registered tenancy.application_tables;
    problem text;
    state text := 'object_not_in_prerequisite_state';
    bytes constant bigint := (select coalesce(sum(pg_table_size(leaf)), 0) from tenancy.leaves(target) as leaf);
    limit_bytes constant bigint := (select settings.small_table_bytes from tenancy.settings);
begin
    select application_tables.*
    into registered
    from tenancy.application_tables
    where application_tables.relation = target;

    if registered.scope is null then
        state := 'wrong_object_type';
        problem := 'is no table of the application: neither views, partitions (onboard their table), public.organizations nor the'
            ' platform''s tables get org_id';
    elsif registered.scope = 'excluded' then
        problem := format(
            'is registered as excluded: %s; change its row in tenancy.registry first, if it is to have org_id after all',
            (select registered_tables.reason from tenancy.registered_tables where registered_tables.relation = target)
        );
    elsif tenancy.onboarding_problems(target) <> '{}' then
        problem := E'cannot be onboarded:\n' || array_to_string(tenancy.onboarding_problems(target), E'\n');
    elsif bytes > limit_bytes and exists (select from tenancy.parts(target) as parts where not parts.present) then
        state := 'program_limit_exceeded';
        problem := format(
            'has %s, too much to hold its lock for while org_id is filled in, indexed and checked (the limit is %s): %s; or, where nobody uses'
            ' it, raise tenancy.settings.small_table_bytes',
            pg_size_pretty(bytes),
            pg_size_pretty(limit_bytes),
            case
                when to_regnamespace('org_migration') is not null
                    then 'copy docs/forgotten-table.sql to a migration of its own, which holds no lock for long'
                else format(
                    'add org_id, set it in every row, create index concurrently on %1$s (org_id), then do $$ begin while tenancy.build(%1$L,'
                    ' ''default'', ''foreign_key'', ''foreign_key_valid'', ''foreign_key_root'', ''check'', ''check_valid'', ''not_null'', ''guard'','
                    ' ''guard_move'', ''guard_statement'') loop commit; end loop; end $$', target::text
                )
            end
        );
    end if;

    if problem is not null then
        raise exception '% %', target, problem
        using errcode = state, schema = tenancy.schema_of(target), table = tenancy.table_of(target);
    end if;
end
$function$;
comment on function tenancy.assert_onboardable(regclass) is
'Raises wrong_object_type for what is no table of the application, object_not_in_prerequisite_state with the reasons for one that is'
' excluded, cannot be handled or comes before its parents, program_limit_exceeded above settings.small_table_bytes.';

create or replace function tenancy.onboard(target regclass)
returns table (check_name text, passed boolean, detail text)
language plpgsql volatile security invoker set search_path = '' as $function$
declare
    moves constant boolean := to_regnamespace('org_migration') is not null;
    rows_without_org bigint;
begin
    perform pg_advisory_xact_lock(hashtext('org_migration.advance'));

    perform tenancy.note_tables();
    insert into tenancy.registry (schema_name, table_name, scope, priority)
    select unclassified_tables.schema_name, unclassified_tables.table_name, 'org', 'secondary'
    from tenancy.unclassified_tables
    where unclassified_tables.relation = target;

    perform tenancy.assert_onboardable(target);

    perform tenancy.note_tables();
    if moves then
        perform org_migration.note_following();
        perform org_migration.count_rows(target);
        perform org_migration.prepare_fillers(target)
        from tenancy.settings
        where settings.fill_org_id;
    end if;
    while tenancy.build(target, 'column', 'default', 'filler') loop null; end loop;
    if moves then
        perform org_migration.note_rules(target);
        while org_migration.backfill(target) loop null; end loop;
    end if;
    while tenancy.build(
        target, 'invalid_index', 'index', 'index_root', 'foreign_key', 'foreign_key_valid', 'foreign_key_root'
    ) loop null; end loop;
    if moves then
        while org_migration.fill_last(target) loop null; end loop;
    else
        execute format('select count(*) from %s where org_id is null', target)
        into rows_without_org;
        if rows_without_org > 0 then
            raise exception '% has % rows without organization, and nothing decides them any more: add org_id yourself, set it in every row,'
                ' then call again', target, rows_without_org
            using errcode = 'not_null_violation', schema = tenancy.schema_of(target), table = tenancy.table_of(target), column = 'org_id';
        end if;
    end if;
    while tenancy.build(
        target, 'check', 'check_valid', 'not_null', 'guard', 'guard_move', 'guard_statement', 'isolation', 'binding', 'binding_valid',
        'least_privilege'
    ) loop null; end loop;

    return query
    select verify_table.*
    from tenancy.verify_table(target);
end
$function$;
comment on function tenancy.onboard(regclass) is
'Takes a new or forgotten table through all phases in one call and one transaction, and registers it as org-scoped if nobody has.'
' Returns tenancy.verify_table(target). A table that has all of it already is left as it is. Raises what'
' tenancy.assert_onboardable raises, lock_not_available where the table is in use, and, after tenancy.finish(), not_null_violation for rows'
' without org_id: nothing is done then, call it again.';

create table if not exists tenancy.new_tables (
    table_oid oid primary key
);
comment on table tenancy.new_tables is
'The tables that the transaction has created or attached, until tenancy.check_new_tables looks at them at its end.';

create or replace function tenancy.note_new_tables()
returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
begin
    -- What the check itself does to a partition is no new table.
    if current_setting('tenancy.checking_new_tables', true) = 'on' then
        return;
    end if;
    insert into tenancy.new_tables
    select distinct class.oid
    from pg_event_trigger_ddl_commands() as command
    join pg_class as class
        on command.classid = 'pg_class'::regclass
        and class.oid = command.objid
        and class.relkind in ('r', 'p', 'f')
        and class.relpersistence <> 't'
    -- Of ALTER TABLE only ATTACH PARTITION matters, which names the partitioned table.
    where tg_tag <> 'ALTER TABLE' or class.relkind = 'p'
    on conflict do nothing;
end
$function$;
comment on function tenancy.note_new_tables() is
'Event trigger function of the new-table check: notes what is to be looked at when the transaction ends. Security definer, because whoever'
' creates a table need not be able to write tenancy.';

create or replace view tenancy.partition_parts as
select parts.relation, parts.ddl
from (
    select isolation_parts.* from tenancy.isolation_parts
    union all
    select least_privilege_parts.* from tenancy.least_privilege_parts
    union all
    select guard_parts.*
    from tenancy.guard_parts
    where guard_parts.part = 'guard_statement'
        and guard_parts.root in (select guard_triggers.root from tenancy.guard_triggers)
) as parts
where not parts.present and parts.relation <> parts.root;
comment on view tenancy.partition_parts is
'What partitions lack of that which they do not have from their table: the policy, the privileges, and the guard of rows that move.';

create or replace function tenancy.check_new_tables()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $function$
declare
    noted oid[];
    unclassified tenancy.unclassified_tables;
    missing text;
begin
    -- The first of the transaction looks at all of them.
    if not exists (select from tenancy.new_tables where new_tables.table_oid = new.table_oid) then
        return null;
    end if;
    noted := array(select new_tables.table_oid from tenancy.new_tables);
    delete from tenancy.new_tables;
    if not exists (select from tenancy.settings) then
        raise exception 'tenancy.settings has no row, so that no new table can be checked: insert into tenancy.settings default values [settings_missing]'
        using errcode = 'object_not_in_prerequisite_state';
    end if;

    select unclassified_tables.*
    into unclassified
    from tenancy.unclassified_tables
    where unclassified_tables.relation = any (noted)
    limit 1;
    if found then
        raise exception 'table % is not classified: it %; in the transaction that creates it, insert into'
            ' tenancy.registry (schema_name, table_name, scope, priority, reason, org_from) values %, or %; and after it, where that is org,'
            ' select tenancy.onboard(%) [unclassified_table]', unclassified.relation, unclassified.reason,
            case unclassified.suggested_scope when 'excluded' then unclassified.excluded_row else unclassified.org_row end,
            case unclassified.suggested_scope when 'excluded' then unclassified.org_row else unclassified.excluded_row end,
            quote_literal(unclassified.relation::text)
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = unclassified.schema_name,
            table = unclassified.table_name;
    end if;

    perform set_config('tenancy.checking_new_tables', 'on', true);
    for missing in
        select partition_parts.ddl
        from tenancy.partition_parts
        where partition_parts.relation in (
            select tree.relid
            from pg_class as class
            cross join pg_partition_tree(class.oid) as tree
            where class.oid = any (noted)
        )
    loop
        -- A partition is not refused for want of these: tenancy.verify() finds it.
        begin
            execute missing;
        exception
            when lock_not_available then
                exit;
            when others then
                null;
        end;
    end loop;
    perform set_config('tenancy.checking_new_tables', '', true);
    return null;
end
$function$;
comment on function tenancy.check_new_tables() is
'Trigger function of the new-table check, at the end of a transaction: raises object_not_in_prerequisite_state for a new table without a row'
' in tenancy.registry that is there and no partition then, and makes tenancy.partition_parts of new partitions. Security definer, because whoever'
' creates a table need not be able to read tenancy; it returns nothing of what it reads but the table''s own name.';

do $do$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'tenancy.new_tables'::regclass and tgname = 'check_new_tables') then
        create constraint trigger check_new_tables
        after insert on tenancy.new_tables
        deferrable initially deferred
        for each row
        execute function tenancy.check_new_tables();
        -- In a replica session too.
        alter table tenancy.new_tables enable always trigger check_new_tables;
    end if;
end
$do$;

create or replace function tenancy.enable_new_table_check()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    drop event trigger if exists tenancy_new_table_check;
    create event trigger tenancy_new_table_check
    on ddl_command_end
    when tag in (
        'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA',
        'IMPORT FOREIGN SCHEMA', 'ALTER TABLE'
    )
    execute function tenancy.note_new_tables();
    alter event trigger tenancy_new_table_check enable always;
end
$function$;
comment on function tenancy.enable_new_table_check() is
'Opt-in: from here on a transaction is refused that ends with a new table without a row in tenancy.registry. Temporary tables, partitions,'
' also those that are made by LIKE and attached, extensions'' tables and those in settings.platform_schemas are not meant. A replica session does'
' not pass it by. New partitions of isolated tables are isolated. Raises insufficient_privilege where the caller may not create event triggers:'
' the platform lets postgres. Superusers and the platform''s own roles pass it by, and so does a table that is renamed or detached:'
' tenancy.verify() finds those.';

create or replace function tenancy.disable_new_table_check()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    drop event trigger if exists tenancy_new_table_check;
end
$function$;
comment on function tenancy.disable_new_table_check() is 'Undo of tenancy.enable_new_table_check().';
