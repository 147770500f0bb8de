-- Purpose: what tables, policies, keys and references are on more than one server, with Citus.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.distribution_tables as
with recursive looked_up (relation) as (
    -- What rows that are distributed look up, and what these look up in turn.
    select application_tables.relation
    from pg_catalog.pg_constraint as reference
    join tenancy.application_tables
        on application_tables.relation = reference.confrelid
        and application_tables.scope is distinct from 'org'
    where reference.contype = 'f'
        and (
            reference.conrelid = to_regclass('public.organizations')
            or reference.conrelid in (select org_scoped_tables.relation from tenancy.org_scoped_tables)
        )
    union
    select application_tables.relation
    from looked_up
    join pg_catalog.pg_constraint as reference
        on reference.conrelid = looked_up.relation
        and reference.contype = 'f'
    join tenancy.application_tables
        on application_tables.relation = reference.confrelid
        and application_tables.scope is distinct from 'org'
)
select
    to_regclass('public.organizations') as root, to_regclass('public.organizations') as relation, 'public.organizations' as qualified_name,
    'distributed' as kind, 'id'::name as key_column, 0::bigint as position
where to_regclass('public.organizations') is not null
union all
select table_members.root, table_members.relation, table_members.qualified_name, 'distributed', 'org_id', org_scoped_tables.position
from tenancy.table_members
join tenancy.org_scoped_tables on org_scoped_tables.relation = table_members.root
union all
select application_tables.relation, application_tables.relation, application_tables.qualified_name, 'reference', null, null
from looked_up
join tenancy.application_tables on application_tables.relation = looked_up.relation;
comment on view tenancy.distribution_tables is
'What each table becomes on Citus: distributed, by key_column (organizations and the org-scoped tables, in the order of position, with their'
' partitions), or reference, a copy on every node (what those reference, directly or not). All others stay on the coordinator.';

create or replace view tenancy.distribution_policies as
select
    policy.polrelid::regclass as relation, policy.polname as name,
    case
        when rewritten.is_refused then format('drop policy %I on %s', policy.polname, tables.qualified_name)
        else format('alter policy %I on %s %s', policy.polname, tables.qualified_name, rewritten.clauses)
    end as statement,
    case
        when rewritten.is_refused
            then 'it looks into other rows, which Citus does not take: it goes, and nobody reaches rows by it; write it over columns of the row'
        when rewritten.folds and 0 = any (policy.polroles)
            then 'it is for everyone: who has no organization in the token, as anon, reaches nothing by it any more; if they are to, split it by role first'
    end as decision
from tenancy.distribution_tables as tables
join pg_catalog.pg_policy as policy on policy.polrelid = tables.relation and policy.polpermissive
cross join lateral (
    select
        tables.key_column = 'org_id' and exists (
            select from unnest(policy.polroles) as role (oid)
            where role.oid = 0 or pg_has_role(to_regrole('authenticated'), role.oid, 'usage')
        ) as for_members
) as applied
cross join lateral (
    select
        bool_or(without.expression ~ '\mSELECT\M') as is_refused,
        bool_or(folded.is_needed) as folds,
        bool_or(folded.is_needed or without.expression <> written.expression) as changes,
        string_agg(
            format(
                '%s (%s%s)', side.clause, case when folded.is_needed then 'org_id = public.auth_org_id() and ' end, without.expression
            ),
            ' ' order by side.clause
        ) as clauses
    from (values ('using', policy.polqual), ('with check', policy.polwithcheck)) as side (clause, tree)
    cross join lateral (select pg_get_expr(side.tree, policy.polrelid) as expression) as written
    -- (select auth.uid()) is auth.uid(), to three levels of parentheses within; once more for one within another.
    cross join lateral (
        select regexp_replace(
            regexp_replace(written.expression, scalar.subquery, '\1', 'g'), scalar.subquery, '\1', 'g'
        ) as expression
        from (
            -- A FROM would stand on another line.
            values ('\( SELECT ((?:[^()\n]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*?)(?: AS (?:"[^"]+"|\w+))?\)')
        ) as scalar (subquery)
    ) as without
    cross join lateral (
        select applied.for_members
            and without.expression !~ '^\(\(org_id = (public\.)?auth_org_id\(\)\) AND '
            and without.expression !~ '^\(org_id = (public\.)?auth_org_id\(\)\)$' as is_needed
    ) as folded
    where side.tree is not null
) as rewritten
where rewritten.changes or rewritten.is_refused;
comment on view tenancy.distribution_policies is
'Every permissive policy that Citus needs otherwise: without subqueries, which it refuses, and, where it applies to authenticated on an'
' org-scoped table, with org_id = public.auth_org_id() in it, since it makes a restrictive policy permissive.';

create or replace view tenancy.distribution_uniques as
with found as (
    select
        tables.relation, tables.qualified_name, tables.key_column, index_class.oid, index_class.relname as name, its.conname, its.contype,
        pg_index.indisreplident, pg_get_constraintdef(its.oid) as constraint_definition,
        regexp_replace(pg_get_indexdef(index_class.oid), ' ON ONLY ', ' ON ') as index_definition,
        format('%I.%I', index_schema.nspname, index_class.relname) as index_name,
        -- A key of one column that PostgreSQL fills by itself is unique however it is checked.
        coalesce(its.contype = 'p' and pg_index.indnkeyatts = 1 and (first_column.atthasdef or first_column.attidentity <> ''), false) as is_generated,
        (
            select format('%I', other_class.relname)
            from pg_catalog.pg_index as other
            join pg_catalog.pg_class as other_class on other_class.oid = other.indexrelid
            where other.indrelid = tables.relation
                and other.indisunique and other.indisvalid and other.indimmediate and other.indpred is null and other.indexprs is null
                and other.indnatts = other.indnkeyatts
                and other.indkey::smallint[] operator(pg_catalog.=) (key_column.attnum || pg_index.indkey::smallint[])
                and pg_get_constraintdef(its.oid) ~ '^(PRIMARY KEY|UNIQUE) \([^()]*\)$'
                and not exists (select from pg_catalog.pg_constraint as taken where taken.conindid = other.indexrelid and taken.contype in ('p', 'u'))
                and table_class.relkind = 'r'
            limit 1
        ) as ready_index
    from tenancy.distribution_tables as tables
    join pg_catalog.pg_class as table_class on table_class.oid = tables.relation
    join pg_catalog.pg_attribute as key_column on key_column.attrelid = tables.relation and key_column.attname = tables.key_column
    join pg_catalog.pg_index on pg_index.indrelid = tables.relation
    join pg_catalog.pg_class as index_class on index_class.oid = pg_index.indexrelid and not index_class.relispartition
    join pg_catalog.pg_namespace as index_schema on index_schema.oid = index_class.relnamespace
    left join pg_catalog.pg_attribute as first_column on first_column.attrelid = tables.relation and first_column.attnum = pg_index.indkey[0]
    left join pg_catalog.pg_constraint as its on its.conindid = pg_index.indexrelid and its.contype in ('p', 'u', 'x')
    where (pg_index.indisunique or pg_index.indisexclusion)
        and key_column.attnum <> all ((pg_index.indkey::smallint[])[0:pg_index.indnkeyatts - 1])
)
select
    found.relation, found.name,
    concat_ws(
        '; ',
        case
            when found.conname is null then concat_ws(
                '; ', format('drop index %s', found.index_name),
                case when found.key_column = 'org_id' then regexp_replace(found.index_definition, ' USING (\w+) \(', ' USING \1 (org_id, ') end
            )
            when found.key_column <> 'org_id' then format('alter table %s drop constraint %I', found.qualified_name, found.conname)
            else format(
                'alter table %s drop constraint %I, add constraint %2$I %s', found.qualified_name, found.conname,
                case
                    when found.ready_index is not null
                        then format('%s using index %s', case found.contype when 'p' then 'primary key' else 'unique' end, found.ready_index)
                    else regexp_replace(
                        found.constraint_definition, '\(', case found.contype when 'x' then '(org_id WITH =, ' else '(org_id, ' end
                    )
                end
            )
        end,
        case
            when found.indisreplident and found.key_column = 'org_id'
                then format('alter table %s replica identity using index %I', found.qualified_name, found.name)
        end
    ) as statement,
    case
        when found.key_column <> 'org_id' then 'nothing keeps it unique any more: rows of organizations are spread by id alone'
        when found.contype = 'x' then 'it excludes within an organization only; uuid in an index of gist takes the extension btree_gist'
        when not found.is_generated
            then 'it is unique within an organization only: two may have the same, and what looks a row up by it alone has to ask every node'
    end as decision
from found;
comment on view tenancy.distribution_uniques is
'Every primary key, unique or exclusion constraint and unique index that lacks the column by which its table is distributed, and what it'
' becomes: with org_id first; of organizations it goes.';

create or replace view tenancy.distribution_references as
with tables as materialized (
    select distribution_tables.*
    from tenancy.distribution_tables
),
bound_definition as materialized (
    select bound_definitions.*
    from tenancy.bound_definitions
),
found as (
    select
        reference.conrelid::regclass as relation, reference.conname as name, format('%I.%I', child_schema.nspname, child_class.relname) as qualified_name,
        format('%I.%I', parent_schema.nspname, parent_class.relname) as parent_name, reference.confdeltype, reference.confupdtype,
        pg_get_constraintdef(reference.oid) as definition, obj_description(reference.oid, 'pg_constraint') as comment,
        child.kind as child_kind, parent.kind as parent_kind, bound.form as bound_form, bound.columns_to_set, bound.is_special, bound.column_names,
        coalesce(
            array_position(reference.conkey, (
                select key_column.attnum from pg_catalog.pg_attribute as key_column
                where key_column.attrelid = reference.conrelid and key_column.attname = child.key_column
            )) = array_position(reference.confkey, (
                select key_column.attnum from pg_catalog.pg_attribute as key_column
                where key_column.attrelid = reference.confrelid and key_column.attname = parent.key_column
            )),
            false
        ) as has_keys
    from pg_catalog.pg_constraint as reference
    join pg_catalog.pg_class as child_class on child_class.oid = reference.conrelid
    join pg_catalog.pg_namespace as child_schema on child_schema.oid = child_class.relnamespace
    join pg_catalog.pg_class as parent_class on parent_class.oid = reference.confrelid
    join pg_catalog.pg_namespace as parent_schema on parent_schema.oid = parent_class.relnamespace
    left join tables as child on child.relation = reference.conrelid
    left join tables as parent on parent.relation = reference.confrelid
    left join bound_definition as bound
        on bound.relation = reference.conrelid
        and bound.constraint_name = reference.conname
    where reference.contype = 'f'
        and reference.conparentid = 0
        and (child.kind is not null or parent.kind is not null)
),
again as (
    select
        found.*,
        regexp_replace(
            case
                when found.child_kind = 'distributed' and found.parent_kind = 'distributed' and found.has_keys then found.definition
                when not found.is_special then format(found.bound_form, 'org_id, ', 'org_id, ', found.columns_to_set)
                when found.child_kind is not null and found.parent_kind = 'reference' then found.definition
            end,
            case
                when found.parent_kind = 'distributed'
                    then '(on delete set (?:null|default)(?: \([^)]*\))?|on update (?:cascade|set null|set default)) *'
                else '(?!)'
            end,
            '', 'gi'
        ) as definition_again
    from found
)
select
    again.relation, again.name, again.qualified_name,
    format('alter table %s drop constraint %I', again.qualified_name, again.name) as away,
    case
        when again.definition_again is not null then concat_ws(
            '; ', format('alter table %s add constraint %I %s', again.qualified_name, again.name, btrim(again.definition_again)),
            case
                when again.comment is not null
                    then format('comment on constraint %I on %s is %L', again.name, again.qualified_name, again.comment)
            end
        )
    end as back,
    case
        when again.definition_again is null then format(
            'Citus has no foreign key from the one to the other: nothing keeps it from naming a row of %s that is gone%s', again.parent_name,
            case again.confdeltype
                when 'c' then ', and where that is deleted, its own rows stay'
                when 'a' then ''
                when 'r' then ''
                else ', and where that is deleted, it goes on naming it'
            end
        )
        when again.parent_kind = 'distributed' and again.confdeltype in ('n', 'd') then format(
            'Citus has no on delete set %s for it: a row of %s cannot be deleted while one references it; empty %s first',
            case again.confdeltype when 'n' then 'null' else 'default' end, again.parent_name, array_to_string(again.column_names, ', ')
        )
        when again.parent_kind = 'distributed' and again.confupdtype in ('c', 'n', 'd')
            then format('Citus has no such on update for it: the key of a row of %s cannot change while one references it', again.parent_name)
    end as decision
from again;
comment on view tenancy.distribution_references is
'Every foreign key of or to what tenancy.distribution_tables has: what drops it, and what makes it again once both tables are where they go,'
' with org_id on both sides between org-scoped ones; back NULL where Citus has no foreign key between the two.';
