-- Purpose: what fails when an organization is deleted: triggers that write a row for each that goes.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.review_deletion as
with recursive reference as materialized (
    select
        its.conrelid, its.confrelid, its.confdeltype,
        coalesce(nullif(its.confdelsetcols, '{}'), its.conkey) as set_attnums
    from pg_catalog.pg_constraint as its
    where its.contype = 'f' and its.confdeltype in ('c', 'n', 'd')
),
-- Tables whose rows go with an organization: its own, and what their keys take along.
gone (relation) as (
    select table_members.relation::oid
    from tenancy.table_members
    where table_members.scope = 'org'
    union
    select reference.conrelid
    from gone
    join reference
        on reference.confrelid = gone.relation
        and reference.confdeltype = 'c'
),
-- The triggers that then fire: of rows that go, and of rows that lose what they reference, which is before they go themselves.
fired as (
    select its.tgfoid as function, its.tgrelid as relation, 'deletes' as how
    from gone
    join pg_catalog.pg_trigger as its
        on its.tgrelid = gone.relation
        and its.tgtype & 8 <> 0
        and its.tgenabled <> 'D'
    union
    select its.tgfoid, its.tgrelid, 'updates'
    from gone
    join reference
        on reference.confrelid = gone.relation
        and reference.confdeltype in ('n', 'd')
    join pg_catalog.pg_trigger as its
        on its.tgrelid = reference.conrelid
        and its.tgtype & 16 <> 0
        and its.tgenabled <> 'D'
        and (its.tgattr = '' or its.tgattr::smallint[] && reference.set_attnums)
),
code as materialized (
    select application_functions.oid, application_functions.name, application_functions.source
    from tenancy.application_functions
    where application_functions.oid is not null
),
call as materialized (
    select function_calls.caller, function_calls.callee
    from tenancy.function_calls
),
-- One that looks for the organization knows what it does, and so does what it calls.
run (fired_function, function) as (
    select code.oid, code.oid
    from code
    where code.oid in (select fired.function from fired)
        and code.source !~* '\morganizations\M'
    union
    select run.fired_function, code.oid
    from run
    join call on call.caller = run.function
    join code
        on code.oid = call.callee
        and code.source !~* '\morganizations\M'
)
select
    'trigger_stops_organization_delete' as code, 'breaks' as severity, code.name as object, mention.table_name,
    format(
        'probably inserts into %s when a row of %s, also when it goes with its organization, which is no longer there then: no organization'
        ' that has such a row can be deleted',
        mention.table_name,
        string_agg(
            distinct format('%s is %s', fired.relation::regclass, case fired.how when 'deletes' then 'deleted' else 'updated' end), ' or of '
        )
    ) as problem,
    format(
        'in %s insert only where exists (select from public.organizations where organizations.id = old.org_id); or delete organizations with'
        ' tenancy.delete_organization alone, for which the row''s organization is still there', code.name
    ) as remedy
from run
join fired on fired.function = run.fired_function
join code on code.oid = run.fired_function
join tenancy.table_mentions as mention
    on mention.function = run.function
    and mention.inserts
group by code.name, mention.table_name;
comment on view tenancy.review_deletion is
'What makes the deletion of an organization fail: triggers of rows that go with it, which insert rows of an organization that is gone. Columns as'
' tenancy.review.';
