-- Purpose: the way back: the undo of each part that was not there before the push, in reverse order.
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view org_migration.dependent_findings as
select distinct
    'uses_org_id' as code, 'stops' as severity,
    pg_describe_object(dependency.classid, dependency.objid, dependency.objsubid) as object,
    root.qualified_name as table_name, 'uses org_id, which a roll back to phase 1 would drop' as problem,
    'drop or change it first' as remedy
from tenancy.org_id_columns as org_id
join tenancy.application_tables as root on root.relation = org_id.root
join org_migration.tables_before
    on tables_before.relation = org_id.root
    and 'column org_id' <> all (tables_before.parts)
join pg_catalog.pg_depend as dependency
    on dependency.refclassid = 'pg_catalog.pg_class'::regclass
    and dependency.refobjid = org_id.relation
    and dependency.refobjsubid = org_id.attnum
left join pg_catalog.pg_constraint as its_constraint
    on dependency.classid = 'pg_catalog.pg_constraint'::regclass
    and its_constraint.oid = dependency.objid
left join pg_catalog.pg_trigger as its_trigger
    on dependency.classid = 'pg_catalog.pg_trigger'::regclass
    and its_trigger.oid = dependency.objid
left join pg_catalog.pg_policy as its_policy
    on dependency.classid = 'pg_catalog.pg_policy'::regclass
    and its_policy.oid = dependency.objid
left join pg_catalog.pg_attrdef as its_default
    on dependency.classid = 'pg_catalog.pg_attrdef'::regclass
    and its_default.oid = dependency.objid
where its_default.adnum is distinct from org_id.attnum
    -- An index holds nothing that is not in its table; those of a constraint depend on that.
    and not (dependency.classid = 'pg_catalog.pg_class'::regclass and dependency.objsubid = 0)
    and its_trigger.tgfoid is distinct from to_regprocedure('tenancy.refuse_org_id_change()')
    and its_trigger.tgfoid is distinct from to_regprocedure('tenancy.fill_org_id()')
    and its_constraint.contype is distinct from 'n'
    and its_constraint.conislocal is distinct from false
    and not exists (
        select from tenancy.isolation_parts
        where isolation_parts.relation = its_policy.polrelid
            and isolation_parts.name = its_policy.polname
            and isolation_parts.undo is not null
    )
    and not exists (
        select from tenancy.constraint_parts
        where constraint_parts.relation = its_constraint.conrelid
            and constraint_parts.name = its_constraint.conname
            and constraint_parts.present
    )
    and not exists (
        select from tenancy.bound_keys
        where bound_keys.relation = its_constraint.conrelid
            and bound_keys.constraint_name = its_constraint.conname
    );
comment on view org_migration.dependent_findings is
'What of yours uses an org_id that a roll back to phase 1 would drop: views, policies, triggers, constraints, publications. Indexes are'
' not among them: they go with the column.';

create or replace function org_migration.forget(to_phase integer)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update tenancy.registry
    set isolated = false, privileges_before = null
    from tenancy.registered_tables as tables
    where (registry.schema_name, registry.table_name) = (tables.schema_name, tables.table_name)
        and (registry.isolated or registry.privileges_before is not null)
        and not exists (
            select from tenancy.isolation_parts
            where isolation_parts.root = tables.relation and isolation_parts.undo is not null
        );

    delete from tenancy.bound_references as bound
    where not exists (
        select from tenancy.bound_keys
        where bound_keys.relation = bound.relation and bound_keys.noted_name = bound.constraint_name and bound_keys.is_bound
    );

    if to_phase < 3 then
        delete from org_migration.backfill_conflicts
        where backfill_conflicts.relation in (select org_id_columns.relation from tenancy.org_id_columns);

        delete from org_migration.backfills
        where backfills.relation in (select org_id_columns.relation from tenancy.org_id_columns);
    end if;
    if to_phase < 2 then
        perform org_migration.forget_fillers();
        perform tenancy.disable_new_users();
        update tenancy.settings
        set fill_org_id = default;

        delete from org_migration.tables_before
        where tables_before.relation in (select org_id_columns.relation from tenancy.org_id_columns);
    end if;
end
$function$;
comment on function org_migration.forget(integer) is
'Forgets what was noted of the tables once their parts after to_phase are gone: opt-ins, the backfill, what was there before.';

create or replace function org_migration.assert_registered()
returns void language plpgsql stable security invoker set search_path = '' as $function$
declare
    forgotten constant text := (
        select string_agg(distinct found.root::text, ', ' order by found.root::text)
        from pg_catalog.pg_trigger as its_trigger
        cross join lateral (select coalesce(pg_partition_root(its_trigger.tgrelid), its_trigger.tgrelid)::regclass) as found (root)
        where its_trigger.tgfoid in (to_regprocedure('tenancy.fill_org_id()'), to_regprocedure('tenancy.refuse_org_id_change()'))
    );
    renamed constant text := (
        select string_agg(org_id_findings.remedy, '; ' order by org_id_findings.object)
        from tenancy.org_id_findings
        where org_id_findings.code = 'org_id_renamed'
    );
begin
    if renamed is not null then
        raise exception 'cannot roll back while org_id has another name, and nothing has been rolled back: %', renamed
        using errcode = 'object_not_in_prerequisite_state';
    end if;
    if forgotten is not null and not exists (select from tenancy.application_tables where application_tables.scope = 'org') then
        raise exception 'cannot roll back: tenancy.registry has no org-scoped table any more, and nothing has been rolled back: % would stay'
            ' as the push has made them; insert their rows again', forgotten
        using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$function$;
comment on function org_migration.assert_registered() is
'Raises object_not_in_prerequisite_state with the tables that have triggers of ours where none is registered as org, or with those whose'
' org_id was renamed: a roll back would say that it is done.';

create or replace function tenancy.roll_back(to_phase integer)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    dependents text;
    loop_to integer;
begin
    if to_phase is null or to_phase not between 1 and 6 then
        raise exception 'cannot roll back to phase %: it is 1 (discovery), 2 (columns), 3 (backfill), 4 (not null), 5 (identity)'
            ' or 6 (immutability)',
            coalesce(to_phase::text, 'NULL')
        using errcode = 'invalid_parameter_value';
    end if;

    if to_phase = 1 and (select settings.token_hook from tenancy.settings) then
        raise exception 'cannot roll back to phase 1 while tokens get their organization from tenancy.add_org_id_to_token: switch the hook off on'
            ' the dashboard or in config.toml, then select tenancy.disable_token_hook()'
        using errcode = 'object_not_in_prerequisite_state';
    end if;

    -- What was opted into goes first, on all tables: a bound foreign key holds on to the org_id of two.
    loop_to := case
        when exists (select from tenancy.registry where registry.isolated or registry.privileges_before is not null)
            or exists (select from tenancy.bound_references)
            then 6
        else to_phase
    end;

    -- Once, before anything is undone: a roll back that has begun is not to stop half-way.
    if coalesce(current_setting('tenancy.rolling_back', true), '') <> 'to phase ' || to_phase then
        perform org_migration.assert_registered();
        dependents := org_migration.list_findings(array(
            select format('%s: %s; %s [%s]', findings.table_name, findings.object, findings.remedy, findings.code)
            from org_migration.dependent_findings as findings
            where to_phase = 1
            order by findings.table_name, findings.object
        ));
        if dependents is not null then
            raise exception E'cannot roll back to phase 1: other objects use org_id, and nothing has been rolled back yet:\n%', dependents
            using errcode = 'dependent_objects_still_exist';
        end if;
    end if;

    if org_migration.advance_loop(null, loop_to) then
        perform set_config('tenancy.rolling_back', 'to phase ' || to_phase, false);
        return true;
    end if;
    perform org_migration.forget(loop_to);
    if loop_to = to_phase then
        perform set_config('tenancy.rolling_back', '', false);
    end if;
    return loop_to <> to_phase;
end
$function$;
comment on function tenancy.roll_back(integer) is
'Undoes the phases after to_phase, isolation and binding before all, one change of one table per call, to be committed:'
' do $$ begin while tenancy.roll_back(1) loop commit; end loop; end $$. Returns true if it changed something or waits, false when nothing'
' is left to undo. To 2 and to 3 is the same, and to 4 and to 5: the backfill and the users have no parts. What cannot be undone: to 1 the'
' organizations of all rows are gone with the column, and where the column was there before, the values that the backfill filled in stay, and constraints that were not valid stay validated. Users keep'
' app_metadata.org_id, which is one more key to them. Raises dependent_objects_still_exist, before anything is undone, with the rows of'
' org_migration.dependent_findings in the message.';
