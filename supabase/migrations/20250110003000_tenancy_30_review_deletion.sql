-- Purpose: what fails when an organization is deleted, triggers that write a row for each that goes; and rows that name another organization
--          than theirs, or may.
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
        member.relation, member.attnum as org_id_attnum, child.qualified_name, child.relkind, link.attnums, link.column_names, link.parent_column_names,
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
        when above.attnums = link.parent_attnums then parent.scope = 'excluded'
        -- Where a user is, that may change.
        else parent.scope = 'excluded' and above.relation is not null and its.entry = any (child.org_from) and parent.relation not in (
            select of_user.relation
            from tenancy.owner_columns as of_user
            where of_user.is_unique
        )
    end
        and coalesce(its.entry = any (child.org_from), true)
),
-- Before the push, while something may still be said about it.
undecided as (
    select child.relation, child.qualified_name, child.org_from
    from tenancy.application_tables as child
    join tenancy.org_id_columns as member
        on member.relation = child.relation
        and member.attnum is null
    cross join tenancy.mapping_state
    where mapping_state.is_filled and child.org_from is distinct from '{}'
),
-- Tables that say which users are in what they reference.
membership as materialized (
    select distinct belonging.relation, holder.relname, belonging.parent, belonging.parent_attnums
    from tenancy.references_between_tables as belonging
    join pg_catalog.pg_class as holder on holder.oid = belonging.relation and holder.relname ~* 'member(ship)?s?$'
    join tenancy.owner_columns as of_user on of_user.relation = belonging.relation
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
                ' (%2$I, %3$s)%7$s', first_.parent_name, first_.organization_column, quoted.parent_columns, first_.qualified_name,
                'org_id_is_of_' || first_.column_names[1], quoted.columns,
                -- A partitioned table has no keys that are not valid.
                case when first_.relkind = 'r' then format(
                    ' not valid; alter table %s validate constraint %I', first_.qualified_name, 'org_id_is_of_' || first_.column_names[1]
                ) end
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
    )
union all
select distinct
    'company_passed_over', 'decide', undecided.qualified_name, undecided.qualified_name,
    format(
        'has %s, the key of %s, which decides nothing: if a row of that is a company, or what else users are in, a row of one company goes to the'
        ' organization of its user', its.entry, parent.qualified_name
    ),
    format(
        'let %1$s say which organization each of its rows is, see "Companies with another key" in docs/organizations.md, and say org_from %2$L; or leave'
        ' it, if a row is its user''s', parent.qualified_name, (array[its.entry] || coalesce(undecided.org_from, owners.entries))::text
    )
from undecided
join tenancy.references_between_tables as link on link.relation = undecided.relation
join tenancy.application_tables as parent
    on parent.relation = link.parent
    and parent.scope = 'excluded'
cross join lateral (select array_to_string(link.column_names, ', ') as entry) as its
cross join lateral (
    select array_agg(owner_columns.column_name order by owner_columns.is_not_null desc, owner_columns.rank, owner_columns.attnum) as entries
    from tenancy.owner_columns
    where owner_columns.relation = undecided.relation
) as owners
where array_position(undecided.org_from, its.entry) is null
    and (
        link.column_names[cardinality(link.column_names)] ~* '^(tenant|org|organi[sz]ation|company|team|workspace|account)_?(id|uuid|no|number|slug|code)?$'
        or exists (
            select from membership
            where (membership.parent, membership.parent_attnums) = (link.parent, link.parent_attnums)
                and membership.relation <> undecided.relation
        )
    )
    -- Rows that stand for users or organizations decide.
    and not exists (
        select from tenancy.references_between_tables as above
        where above.relation = link.parent
            and (
                above.parent = to_regclass('public.organizations') and above.attnums = link.parent_attnums
                or above.parent = to_regclass('auth.users') and exists (
                    select from tenancy.unique_columns
                    where unique_columns.relation = above.relation and array[unique_columns.attnum] = above.attnums
                )
            )
    )
union all
select
    'company_of_a_user', 'decide', undecided.qualified_name, undecided.qualified_name,
    format(
        'looks like the table that the organizations are, by its name and by who is in it (%s), and each of its rows goes to the organization of a user',
        string_agg(distinct membership.relname, ', ')
    ),
    'list it as excluded, and let its key say which organization a row is, see "Tables that are the organizations" in docs/adopt.md; or leave it, if an'
    ' organization has several of them'
from undecided
join pg_catalog.pg_class as its on its.oid = undecided.relation
join membership on membership.parent = undecided.relation and membership.relation <> undecided.relation
where its.relname ~* '^(tenant|org|organi[sz]ation|compan(y|ie)|team|workspace|account)s?$'
    -- One that names its organization is decided by that.
    and not exists (
        select from tenancy.references_between_tables as above
        where above.relation = undecided.relation and above.parent = to_regclass('public.organizations')
    )
group by undecided.qualified_name
union all
select
    'owner_of_several_kinds', 'decide', undecided.qualified_name, undecided.qualified_name,
    format('has %I, which is the key of whatever %I says: no foreign key leads there, so that it decides nothing', id.attname, kind.attname)
    || case when id.attname = any (undecided.org_from) then ' but rows of users' else '' end,
    'add a column for each kind, with a foreign key (not valid will do), fill them from it, and let these decide; or leave it, if what decides now is right'
from undecided
join pg_catalog.pg_attribute as id
    on id.attrelid = undecided.relation
    and id.attnum > 0
    and not id.attisdropped
    and id.attname ~* '^(owner|holder|creator|author|subject|entity|parent|target|resource|\w+able)_?id$'
join pg_catalog.pg_attribute as kind
    on kind.attrelid = undecided.relation
    and kind.attnum > 0
    and not kind.attisdropped
    and lower(kind.attname) in (regexp_replace(lower(id.attname), 'id$', 'type'), regexp_replace(lower(id.attname), 'id$', 'kind'))
where not exists (
        select from tenancy.references_between_tables as link
        where link.relation = undecided.relation and id.attnum = any (link.attnums)
    );
comment on view tenancy.review_deletion is
'What makes the deletion of an organization fail, triggers of rows that go with it, which insert rows of an organization that is gone; and tables'
' of which a row may name another organization than its org_id, or, before the push, names one that decides nothing. Columns as tenancy.review.';
