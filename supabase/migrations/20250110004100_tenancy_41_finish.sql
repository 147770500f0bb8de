-- Purpose: the last step: the machinery of the move goes, and what the application keeps stays.
-- Touches: new objects in the schemas tenancy and org_migration only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view org_migration.outside_dependents as
with machinery as (
    select 'pg_catalog.pg_class'::regclass::oid as catalog, class.oid
    from pg_catalog.pg_class as class
    where class.relnamespace = 'org_migration'::regnamespace
        or class.oid in (
            'tenancy.plan'::regclass, 'tenancy.now'::regclass, 'tenancy.status'::regclass, 'tenancy.sources'::regclass, 'tenancy.filled_rows'::regclass
        )
    union all
    select 'pg_catalog.pg_proc'::regclass, function.oid
    from pg_catalog.pg_proc as function
    where function.pronamespace = 'org_migration'::regnamespace
    union all
    select 'pg_catalog.pg_type'::regclass, type.oid
    from pg_catalog.pg_type as type
    where type.typnamespace = 'org_migration'::regnamespace
)
select distinct
    pg_describe_object(dependency.classid, dependency.objid, dependency.objsubid) as dependent,
    pg_describe_object(dependency.refclassid, dependency.refobjid, 0) as used
from pg_catalog.pg_depend as dependency
join machinery on machinery.catalog = dependency.refclassid and machinery.oid = dependency.refobjid
cross join lateral pg_identify_object(dependency.classid, dependency.objid, 0) as identified
where dependency.deptype = 'n'
    and identified.identity !~ '(^| on | for )(tenancy|org_migration)\.';
comment on view org_migration.outside_dependents is
'What of yours uses something that tenancy.finish() drops, and would go with it: views, functions, columns of its types, foreign keys.';

create or replace function org_migration.assert_finishable(despite_findings boolean, with_fillers boolean)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    problems constant text[] := array(
        select format('%s still has its filler, see docs/last-step.sql', part.qualified_name)
        from tenancy.column_parts as part
        where part.part = 'filler' and part.undo is not null and not with_fillers
        order by part.qualified_name
    ) || array(
        select concat_ws(' ', failed.table_name, failed.check_name || ':', failed.detail)
        from tenancy.verify_schema() as failed
        where not failed.passed
            -- It can be given later as well; and that the fillers are there is not asked for.
            and failed.check_name not in ('api_privileges', 'fillers', 'filler')
    ) || array(
        select format('%s uses %s, which goes; drop or change it first', dependents.dependent, dependents.used)
        from org_migration.outside_dependents as dependents
        order by 1
    ) || array(
        select format('%s %s; or go on in spite of it: despite_findings => true [%s]', breaks.object, breaks.problem, breaks.code)
        from (
            select review_breaks.* from tenancy.review_breaks
            union all
            select review_deletion.* from tenancy.review_deletion
        ) as breaks
        where not despite_findings
            and breaks.code in (
                'trigger_without_org_id', 'function_without_org_id', 'insert_by_position', 'whole_rows_copied', 'cron_job', 'other_organization_named'
            )
        order by breaks.code, breaks.object
    );
begin
    if problems <> '{}' then
        raise exception E'the move is not over, so nothing of it is dropped:\n%', org_migration.list_findings(problems)
        using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$function$;
comment on function org_migration.assert_finishable(boolean, boolean) is
'Raises object_not_in_prerequisite_state with what speaks against tenancy.finish(): checks of tenancy.verify_schema() that fail, things of yours'
' that use what goes, and, unless despite_findings, what inserts without org_id, and what of a row may name another organization than its'
' org_id, as tenancy.review has it; and, unless with_fillers, fillers that are still there.';

create or replace function tenancy.finish(despite_findings boolean default false)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    kept regclass;
begin
    perform pg_advisory_xact_lock(hashtext('org_migration.advance'));
    perform tenancy.note_tables();
    perform org_migration.assert_finishable(despite_findings, with_fillers => false);

    update tenancy.settings
    set rows_decided_at = (select max(tables_before.counted_at) from org_migration.tables_before);
    update tenancy.registry
    set parts_before = tables_before.parts
    from tenancy.registered_tables
    join org_migration.tables_before on tables_before.relation = registered_tables.relation
    where (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name);

    -- What the views that stay ask of those that go.
    create or replace view tenancy.decisions as
    select application_tables.relation as root, true as is_per_row, null::text collate "C" as in_words, true as has_begun
    from tenancy.application_tables
    where application_tables.scope = 'org';
    create or replace view tenancy.push_findings as
    select foundation_findings.* from tenancy.foundation_findings
    union all
    select library_findings.* from tenancy.library_findings
    union all
    select registry_findings.* from tenancy.registry_findings
    union all
    select table_findings.* from tenancy.table_findings
    union all
    select org_id_findings.* from tenancy.org_id_findings
    union all
    select name_findings.* from tenancy.name_findings;
    create or replace view tenancy.filler_findings as
    select found.code, found.severity, found.object, found.table_name, found.problem collate "default" as problem,
        found.remedy collate "default" as remedy
    from tenancy.push_findings as found
    where false;

    -- There is no filler any more, and nothing to pace.
    alter table tenancy.settings
    alter column fill_org_id set default false,
    add constraint there_are_no_fillers check (not fill_org_id);

    -- With plan, now, status, sources and filled_rows, which read it.
    drop schema org_migration cascade;
    drop function
        tenancy.advance(text[]), tenancy.roll_back(integer), tenancy.count_sources(regclass), tenancy.assert_registry(),
        tenancy.assert_org_id_indexes(), tenancy.assert_complete(), tenancy.fill_org_id(), tenancy.finish(boolean);
    -- As a database has them that was made from tenancy.end_state(), so that no tool takes one for changed. What PostgreSQL writes of some
    -- reads as it was written only the second time.
    for kept in
        select class.oid
        from pg_catalog.pg_class as class
        cross join generate_series(1, 2)
        where class.relnamespace = 'tenancy'::regnamespace and class.relkind = 'v'
    loop
        execute format('create or replace view %s as %s', kept, pg_get_viewdef(kept, 120));
    end loop;
end
$function$;
comment on function tenancy.finish(boolean) is
'The last step of the move, in one transaction: drops org_migration and what of tenancy belongs to the move alone (plan, advance, roll_back,'
' sources, the fillers), itself included. What protects and serves the application stays: guards, isolation, binding, the new-table check,'
' tenancy.onboard, tenancy.verify(), tenancy.review, and what the edge function calls. There is no way back to user_id after it: save'
' org_migration.backfill_conflicts first, if you want to keep it. despite_findings: goes on where something still inserts without org_id. Raises'
' object_not_in_prerequisite_state, and drops nothing, as org_migration.assert_finishable says.';
