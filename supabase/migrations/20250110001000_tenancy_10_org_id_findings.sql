-- Purpose: what an org-scoped table has already that does not go with org_id: registration, column, rows.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view org_migration.source_findings as
with candidate as (
    select application_tables.*, org_id.attnotnull as is_not_null
    from tenancy.application_tables
    left join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = application_tables.relation
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
    where application_tables.scope = 'org'
),
-- Keys of excluded tables whose rows could be the organizations.
parent_of_organizations as (
    select
        reference.relation, reference.constraint_oid,
        format(
            'if each row of %1$s is an organization: alter table %1$s add foreign key (%2$I) references public.organizations (id) not valid',
            parent.qualified_name, key_column.attname
        ) as remedy
    from tenancy.references_between_tables as reference
    join tenancy.application_tables as parent on parent.relation = reference.parent and parent.scope = 'excluded'
    join pg_catalog.pg_attribute as key_column
        on key_column.attrelid = reference.parent
        and array[key_column.attnum] = reference.parent_attnums
        and key_column.atttypid = 'uuid'::regtype
)
select found.code, 'stops' as severity, found.table_name as object, found.table_name, found.problem, found.remedy
from (
    select
        'org_from_without_source' as code, candidate.qualified_name as table_name,
        format('names %L in org_from, which decides nothing: it %s', candidate.entry, why.problem) as problem,
        coalesce(
            nullif(concat_ws('; ', why.remedy, 'what would do: ' || possible.entries), ''),
            'take it out, or say ''{}'': all rows belong to the default organization'
        ) as remedy
    from (
        select named.*, unnamed.entry
        from candidate as named
        cross join lateral unnest(named.org_from) as unnamed (entry)
        where unnamed.entry is null
            or not exists (
                select from tenancy.sources
                where sources.root = named.relation and sources.entry = unnamed.entry
            )
        offset 0
    ) as candidate
    left join pg_catalog.pg_attribute as named_column
        on named_column.attrelid = candidate.relation
        and named_column.attname = candidate.entry
        and named_column.attnum > 0
        and not named_column.attisdropped
    left join lateral (
        select reference.parent::text as parent, reference.is_period, parent.scope, parent_of_organizations.remedy as way_to_organizations
        from tenancy.references_between_tables as reference
        left join tenancy.application_tables as parent on parent.relation = reference.parent
        left join parent_of_organizations on parent_of_organizations.constraint_oid = reference.constraint_oid
        where reference.relation = candidate.relation and array_to_string(reference.column_names, ', ') = candidate.entry
        limit 1
    ) as key on true
    cross join lateral (
        select
            case
                when key.is_period then 'is part of a key of a period, which may lead to rows of several organizations'
                when key.parent is not null and key.scope is null then format('references %s, which is not classified', key.parent)
                when key.parent is not null then format('references %s, which is excluded and from which no foreign key leads to a user', key.parent)
                when named_column.attnum is null then 'is no column or foreign key of it'
                else format('is %s without a foreign key', format_type(named_column.atttypid, null))
            end as problem,
            case
                when key.is_period then 'take it out'
                when key.parent is not null then format(
                    'register %1$s as org, or say whose its rows are: alter table %1$s add foreign key (…) references auth.users (id) not valid%2$s',
                    key.parent, '; ' || key.way_to_organizations
                )
                when named_column.attnum is not null then format(
                    'alter table %s add foreign key (%I) references … not valid, to the table that it means', candidate.qualified_name, candidate.entry
                )
            end as remedy
    ) as why
    cross join lateral (
        select string_agg(distinct would_do.entry, ', ') as entries
        from (
            select source_paths.entry
            from org_migration.source_paths
            where source_paths.root = candidate.relation
            union all
            select array_to_string(org_references.column_names, ', ')
            from tenancy.org_references
            where org_references.relation = candidate.relation and not org_references.is_period
        ) as would_do
        where array_position(candidate.org_from, would_do.entry) is null
    ) as possible
    union all
    select
        'no_source', candidate.qualified_name,
        concat_ws('; it ', 'has nothing that says whose its rows are, and there is a mapping', hint.reasons),
        format(
            'add the foreign key that is missing (not valid will do), or the column, such as created_by; name a column in org_from%s; or say'
            ' org_from ''{}'': all of it belongs to the default organization',
            (
                select '; ' || string_agg(distinct parent_of_organizations.remedy, '; ')
                from parent_of_organizations
                where parent_of_organizations.relation = candidate.relation
            )
        )
    from candidate
    cross join lateral (
        select string_agg(hinted_columns.reason, '; it ' order by hinted_columns.attnum, hinted_columns.parent_name) as reasons
        from tenancy.hinted_columns
        where hinted_columns.relation = candidate.relation
    ) as hint
    where candidate.org_from is null
        and (select mapping_state.is_filled from tenancy.mapping_state)
        -- What has an organization in every row already needs no source.
        and not coalesce(candidate.is_not_null, false)
        and candidate.relation not in (select sources.root from tenancy.sources)
    union all
    select
        'org_from_without_organization', candidate.qualified_name,
        format('says org_from %L, without %s, which names the organization of a row itself', candidate.org_from::text, array_to_string(left_out.names, ', ')),
        format('put it first: %L; or last, if the others are to decide where they can', (left_out.names || candidate.org_from)::text)
    from candidate
    cross join lateral (
        select array(
            select distinct source_paths.entry
            from org_migration.source_paths
            where source_paths.root = candidate.relation and source_paths.kind = 'organization' and source_paths.is_identity
                and source_paths.entry <> all (candidate.org_from)
        ) as names
    ) as left_out
    where candidate.org_from <> '{}' and left_out.names <> '{}'
    union all
    select
        'period_foreign_key', candidate.qualified_name,
        format('has the foreign key %I of a period, which may lead to rows of several organizations', reference.constraint_name),
        'name the columns that decide instead in org_from'
    from (select found.* from tenancy.references_between_tables as found where found.is_period offset 0) as reference
    join candidate on candidate.relation = reference.relation
    join tenancy.application_tables as parent
        on parent.relation = reference.parent
        and parent.scope = 'org'
    where candidate.org_from is null
    union all
    select
        'generated_source', candidate.qualified_name,
        format('is decided by %s, which is generated: an insert does not have it yet when the filler looks', sources.entry),
        'name other columns in org_from'
    from candidate
    join tenancy.sources on sources.root = candidate.relation
    join pg_catalog.pg_attribute as generated_column
        on generated_column.attrelid = sources.root
        and generated_column.attnum = any (sources.attnums)
        and generated_column.attgenerated <> ''
    union all
    select
        'organizations_without_users', candidate.qualified_name,
        format('names organizations in %s, and no user is in any that a row names', userless_organizations.entries),
        'say in the mapping who belongs to them; if the rows of public.organizations are no tenants, but customers for example, rename it first: the'
        ' migrations then make another one'
    from org_migration.userless_organizations
    join candidate on candidate.relation = userless_organizations.root
) as found;
comment on view org_migration.source_findings is
'What a registration says that decides nothing, or what nothing decides.';

create or replace view tenancy.org_id_findings as
with candidate as (
    select
        application_tables.*, org_id.attnum,
        format_type(org_id.atttypid, org_id.atttypmod) as type_name,
        org_id.atttypid = 'uuid'::regtype and org_id.attgenerated = '' as is_plain_uuid,
        org_id.attgenerated <> '' as is_generated,
        pg_get_expr(its_default.adbin, its_default.adrelid) as default_expression
    from tenancy.application_tables
    left join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = application_tables.relation
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
    left join pg_catalog.pg_attrdef as its_default
        on its_default.adrelid = application_tables.relation
        and its_default.adnum = org_id.attnum
        and org_id.attgenerated = ''
    where application_tables.scope = 'org'
)
select found.code, 'stops' as severity, found.table_name as object, found.table_name, found.problem, found.remedy
from (
    select
        'org_id_type' as code, candidate.qualified_name as table_name,
        format('has an org_id already that is %s%s and not a plain uuid', candidate.type_name, case when candidate.is_generated then ', generated,' end) as problem,
        'rename that column, or make it uuid' as remedy
    from candidate
    where not candidate.is_plain_uuid
    union all
    select distinct
        'org_id_renamed', candidate.qualified_name, format('has its organizations in %I: org_id was renamed', renamed.attname),
        format('alter table %s rename column %I to org_id', candidate.qualified_name, renamed.attname)
    from candidate
    join pg_catalog.pg_trigger as guard
        on guard.tgrelid = candidate.relation
        and guard.tgfoid = to_regprocedure('tenancy.refuse_org_id_change()')
    join pg_catalog.pg_depend as dependency
        on (dependency.classid, dependency.objid) = ('pg_catalog.pg_trigger'::regclass, guard.oid)
        and (dependency.refclassid, dependency.refobjid) = ('pg_catalog.pg_class'::regclass, guard.tgrelid)
    join pg_catalog.pg_attribute as renamed on (renamed.attrelid, renamed.attnum) = (guard.tgrelid, dependency.refobjsubid)
    where candidate.attnum is null
    union all
    select
        'org_id_default', candidate.qualified_name,
        format('has an org_id already whose default is %s', candidate.default_expression),
        format('alter table %s alter column org_id drop default: rows would get an organization that nobody chose', candidate.qualified_name)
    from candidate
    where candidate.default_expression !~ '^(public\.)?auth_org_id\(\)$'
    union all
    select
        'partitioned_with_org_id', candidate.qualified_name, 'is partitioned and has org_id already',
        'drop that column, or register it as excluded and do it by hand'
    from candidate
    where candidate.relkind = 'p'
        and candidate.attnum is not null
        and candidate.default_expression is null
    union all
    select
        'org_id_foreign_key', candidate.qualified_name,
        format('has a foreign key %I from org_id that is not to public.organizations (id) on delete cascade', stranger.conname),
        format('alter table %s drop constraint %I', candidate.qualified_name, stranger.conname)
    from candidate
    join pg_catalog.pg_constraint as stranger
        on stranger.conrelid = candidate.relation
        and stranger.contype = 'f'
        and stranger.conkey = array[candidate.attnum]
    cross join lateral (select pg_get_constraintdef(stranger.oid)) as its (definition)
    where stranger.confdeltype <> 'c' or its.definition ~ 'NOT ENFORCED'
        -- Where that is gone or has no id, it is what is to be put right.
        or exists (select from pg_catalog.pg_attribute where attrelid = to_regclass('public.organizations') and attname = 'id')
            and (stranger.confrelid <> to_regclass('public.organizations') or its.definition !~ 'organizations\(id\)')
        -- Before the first push there is none.
        or to_regclass('public.organizations') is null
            and stranger.confrelid in (select registered_tables.relation from tenancy.registered_tables)
) as found;
comment on view tenancy.org_id_findings is 'What a table has of org_id already that is not what it should be.';

create or replace view org_migration.doubtful_checks as
with held as (
    select
        member.root, member.relation, member.qualified_name, checked.conname as name, checked.conbin::text as node, 'check' as kind,
        checked.convalidated as is_valid, pg_get_expr(checked.conbin, checked.conrelid) as expression
    from tenancy.table_members as member
    join pg_catalog.pg_constraint as checked
        on checked.conrelid = member.relation
        and checked.contype = 'c'
    where member.scope = 'org' and member.relkind = 'r' and pg_has_role(current_user, member.relowner, 'usage')
    union all
    -- Which never says no, but may raise.
    select
        member.root, member.relation, member.qualified_name, class.relname, concat(index.indexprs::text, index.indpred::text), 'index', true,
        format(
            'coalesce((row(%s) is null)::text, '''') is not null',
            concat_ws(', ', pg_get_expr(index.indexprs, index.indrelid), pg_get_expr(index.indpred, index.indrelid))
        )
    from tenancy.table_members as member
    join pg_catalog.pg_index as index
        on index.indrelid = member.relation
        and index.indislive
        and (index.indexprs is not null or index.indpred is not null)
    join pg_catalog.pg_class as class on class.oid = index.indexrelid
    where member.scope = 'org' and member.relkind = 'r' and pg_has_role(current_user, member.relowner, 'usage')
    union all
    -- Computed again with every update of any column, if a trigger may change the row before, be it off.
    select
        member.root, member.relation, member.qualified_name, generated.attname, its_default.adbin::text, 'generated column', true,
        format('%I::text is not distinct from (%s)::text', generated.attname, pg_get_expr(its_default.adbin, its_default.adrelid))
    from tenancy.table_members as member
    join pg_catalog.pg_attribute as generated
        on generated.attrelid = member.relation
        and generated.attgenerated = 's'
    join pg_catalog.pg_attrdef as its_default
        on its_default.adrelid = member.relation
        and its_default.adnum = generated.attnum
    where member.scope = 'org' and member.relkind = 'r' and pg_has_role(current_user, member.relowner, 'usage')
        and exists (select from pg_catalog.pg_trigger where tgrelid = member.relation and tgtype::integer & 19 = 19)
)
select held.root, held.relation, held.qualified_name, held.name, held.kind, held.is_valid, held.expression, judged.cannot_fail
from held
cross join lateral (
    select
        not exists (
            select from regexp_matches(held.node, '\{([A-Z_]+)', 'g') as node (kind)
            where node.kind[1] not in ('OPEXPR', 'SCALARARRAYOPEXPR', 'BOOLEXPR', 'NULLTEST', 'BOOLEANTEST', 'RELABELTYPE', 'VAR', 'CONST')
        )
        and held.node !~ ':varattno 0 '
        and not exists (
            select from regexp_matches(held.node, ':opfuncid (\d+)', 'g') as called (function)
            left join pg_catalog.pg_proc as function on function.oid = called.function[1]::oid
            where not coalesce(function.proleakproof and function.pronamespace = 'pg_catalog'::regnamespace, false)
        ) as cannot_fail,
        -- What it asks may have changed since: the time, a setting, or whatever the application's own functions look at.
        held.node ~ '\{SQLVALUEFUNCTION '
        or exists (
            select from regexp_matches(held.node, ':(?:opfuncid|funcid) (\d+)', 'g') as called (function)
            join pg_catalog.pg_proc as function on function.oid = called.function[1]::oid
            where function.provolatile <> 'i'
                or function.pronamespace <> 'pg_catalog'::regnamespace
                and not exists (
                    select from pg_catalog.pg_depend as dependency
                    where dependency.classid = 'pg_catalog.pg_proc'::regclass
                        and dependency.objid = function.oid
                        and dependency.deptype = 'e'
                )
        ) as may_have_changed
) as judged
where held.expression <> '(org_id IS NOT NULL)'
    and (not held.is_valid or judged.may_have_changed);
comment on view org_migration.doubtful_checks is
'The checks of org-scoped tables, and the expressions of their indexes and generated columns, that may keep a row from being updated, or change it:'
' checks that are not valid, and what asks a function that may say something else today. cannot_fail: true if it can be tried in any query: nothing but comparisons of columns'
' that PostgreSQL knows to be leakproof, and so to raise nothing.';

create or replace view org_migration.row_findings as
select
    suspicion.code, 'stops' as severity, suspicion.object, suspicion.table_name,
    concat('has ', counted.row_count, suspicion.problem) as problem,
    suspicion.remedy
from (
    select
        'org_id_of_no_organization' as code, org_id.qualified_name as object,
        org_id.qualified_name as table_name, ' rows whose org_id is no organization' as problem,
        format('insert those organizations, or update %s set org_id = null where that is so', org_id.qualified_name) as remedy,
        org_id.qualified_name as counted_table,
        'held.org_id is not null and not exists (select from public.organizations where organizations.id = held.org_id)' as condition,
        org_id.relation
    from tenancy.org_id_columns as org_id
    where org_id.is_root
        and org_id.is_plain_uuid
        and exists (select from tenancy.organizations_id)
        and not exists (
            select from pg_catalog.pg_constraint as reference
            where reference.conrelid = org_id.relation
                and reference.contype = 'f'
                and reference.convalidated
                and reference.conkey = array[org_id.attnum]
        )
    union all
    select
        'null_org_id_under_constraint', looking.name, org_id.qualified_name,
        format(' rows without org_id, and %I, which filling them in could break', looking.name),
        format('fill org_id of %s in by hand, or drop %I until the push is over', org_id.qualified_name, looking.name),
        org_id.qualified_name, 'held.org_id is null', org_id.relation
    from tenancy.org_id_columns as org_id
    join lateral (
        select looking_constraint.conname as name
        from pg_catalog.pg_constraint as looking_constraint
        where looking_constraint.conrelid = org_id.relation
            and looking_constraint.contype in ('f', 'c', 'x')
            and org_id.attnum = any (looking_constraint.conkey)
            and not (looking_constraint.contype = 'f' and cardinality(looking_constraint.conkey) = 1)
            and pg_get_expr(looking_constraint.conbin, looking_constraint.conrelid) is distinct from '(org_id IS NOT NULL)'
        union all
        select looking_class.relname
        from pg_catalog.pg_index as looking_index
        join pg_catalog.pg_class as looking_class on looking_class.oid = looking_index.indexrelid
        where looking_index.indrelid = org_id.relation
            and looking_index.indisunique
            and org_id.attnum = any (looking_index.indkey)
    ) as looking on true
    where org_id.is_root and org_id.is_plain_uuid
    union all
    select
        'rows_break_check', doubtful_checks.name, root.qualified_name,
        format(' rows that cannot be updated: they break the check %I, which is not valid', doubtful_checks.name),
        format('correct those rows of %s, or drop that check until the push is over', doubtful_checks.qualified_name),
        doubtful_checks.qualified_name,
        format('not (%s)', doubtful_checks.expression),
        doubtful_checks.relation
    from org_migration.doubtful_checks
    join tenancy.application_tables as root on root.relation = doubtful_checks.root
    where doubtful_checks.cannot_fail and not doubtful_checks.is_valid
) as suspicion
join pg_catalog.pg_class as counted_class
    on counted_class.oid = suspicion.relation
    and counted_class.relkind = 'r'
    and pg_has_role(current_user, counted_class.relowner, 'usage')
cross join lateral (
    select (
        xpath(
            '/row/count/text()',
            query_to_xml(
                format('select count(*) from only %s as held where %s', suspicion.counted_table, suspicion.condition),
                false, true, ''
            )
        )
    )[1]::text as row_count
) as counted
where counted.row_count <> '0';
comment on view org_migration.row_findings is
'Rows that the backfill could not update or could break, counted in the table. Tables of other roles are not looked at.';
