-- Purpose: what fails when an organization is deleted, triggers that write a row for each that goes; and rows that name another organization
--          than theirs.
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
),
-- Columns that say which organization a row is of: its key, or that of a table that has it, in the order in which they decide.
names_one as (
    select
        member.relation, member.attnum as org_id_attnum, child.qualified_name, link.attnums, link.column_names, link.parent_column_names,
        parent.qualified_name as parent_name, above.column_names[1] as organization_column,
        parent.relation is null or above.attnums = link.parent_attnums as is_key,
        row_number() over (
            partition by member.relation
            order by
                array_position(child.org_from, its.entry), parent.relation is not null, column_.attnotnull desc,
                array_position('{user_id,owner_id,created_by}'::text[], column_.attname::text), link.attnums
        ) as position,
        child.org_from[1:array_position(child.org_from, its.entry)] as entries_before
    from tenancy.application_tables as child
    join tenancy.org_id_columns as member
        on member.relation = child.relation
        and member.is_not_null
    join tenancy.references_between_tables as link on link.relation = child.relation
    cross join lateral (select array_to_string(link.column_names, ', ') as entry) as its
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = link.relation
        and column_.attnum = link.attnums[1]
    left join tenancy.application_tables as parent on parent.relation = link.parent
    left join tenancy.references_between_tables as above
        on above.relation = parent.relation
        and above.parent = to_regclass('public.organizations')
    where case
        when link.parent = to_regclass('public.organizations') then true
        else parent.scope = 'excluded' and above.relation is not null and (above.attnums = link.parent_attnums or its.entry = any (child.org_from))
    end
        and coalesce(its.entry = any (child.org_from), true)
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
group by code.name, mention.table_name
union all
select
    'other_organization_named', case when settings.fill_org_id then 'decide' else 'breaks' end, named.qualified_name, named.qualified_name,
    format(
        'may have rows whose org_id is another organization than the one that %s says: nothing holds the two equal%s', named.columns,
        case
            when settings.fill_org_id then ', and once the filler is off a row that comes without org_id gets that of the token'
            else ', and a row that comes without org_id gets that of the token'
        end
    ),
    named.remedy
from (
    select
        first_.relation, first_.qualified_name, first_.org_id_attnum, first_.attnums,
        case when first_.is_key then keys.list else array_to_string(first_.column_names, ', ') end as columns,
        case
            when first_.is_key then format(
                'alter table %1$s add constraint %2$I check (org_id = %3$s) not valid; alter table %1$s validate constraint %2$I',
                first_.qualified_name, 'org_id_is_' || first_.column_names[1],
                case when keys.number > 1 then format('coalesce(%s)', keys.list) else keys.list end
            )
            else format(
                'alter table %1$s add unique (%2$I, %3$s); alter table %4$s add constraint %5$I foreign key (org_id, %6$s) references %1$s'
                ' (%2$I, %3$s) not valid; alter table %4$s validate constraint %5$I', first_.parent_name, first_.organization_column,
                quoted.parent_columns, first_.qualified_name, 'org_id_is_of_' || first_.column_names[1], quoted.columns
            )
        end as remedy
    from names_one as first_
    cross join lateral (
        select string_agg(format('%I', each.name), ', ' order by each.position) as list, count(*) as number
        from (
            select names_one.column_names[1] as name, min(names_one.position) as position
            from names_one
            where names_one.relation = first_.relation
                and names_one.is_key
                and coalesce(cardinality(names_one.entries_before), names_one.position) <= names_one.position
            group by names_one.column_names[1]
        ) as each
    ) as keys
    cross join lateral (
        select
            string_agg(format('%I', pair.name), ', ' order by pair.position) as columns,
            string_agg(format('%I', pair.parent_name), ', ' order by pair.position) as parent_columns
        from unnest(first_.column_names, first_.parent_column_names) with ordinality as pair (name, parent_name, position)
    ) as quoted
    -- What another kind of column may decide before says nothing for sure.
    where first_.position = 1 and coalesce(cardinality(first_.entries_before) = 1, true)
) as named
cross join tenancy.settings
where not exists (
    select from pg_catalog.pg_constraint as holding
    where holding.conrelid = named.relation
        and holding.contype in ('c', 'f')
        and holding.conkey @> (named.org_id_attnum || named.attnums)
)
    -- Or a trigger that gives it the one that it names.
    and not exists (
        select from pg_catalog.pg_trigger as its
        join tenancy.application_functions as giving on giving.oid = its.tgfoid
        cross join unnest(named.attnums) as column_ (attnum)
        join pg_catalog.pg_attribute as read
            on read.attrelid = named.relation
            and read.attnum = column_.attnum
        where its.tgrelid = named.relation
            and its.tgtype & 7 = 7
            and its.tgenabled <> 'D'
            and giving.line ~* '\mnew ?\. ?org_id ?:?=[^=]'
            and giving.line ~* format('\mnew ?\. ?"?%s"?(?![\w$])', regexp_replace(read.attname, '(\W)', '\\\1', 'g'))
    );
comment on view tenancy.review_deletion is
'What makes the deletion of an organization fail, triggers of rows that go with it, which insert rows of an organization that is gone; and tables'
' of which a row may name another organization than its org_id. Columns as tenancy.review.';
