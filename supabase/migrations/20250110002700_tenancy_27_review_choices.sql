-- Purpose: what is yours to decide: what was per user and may be per organization; and the review as a whole.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.review_choices as
with reference as materialized (
    select references_between_tables.relation, references_between_tables.parent, references_between_tables.attnums, references_between_tables.parent_attnums
    from tenancy.references_between_tables
),
user_column as materialized (
    -- Of any table: its own users' ids, and the keys of rows that stand for a user.
    select owner_columns.relation, owner_columns.attnum
    from tenancy.owner_columns
    union
    select reference.relation, reference.attnums[1]
    from reference
    join tenancy.owner_columns
        on owner_columns.relation = reference.parent
        and array[owner_columns.attnum] = reference.parent_attnums
),
clause as materialized (
    select policy_clauses.*
    from tenancy.policy_clauses
),
index_key as materialized (
    select
        index.indexrelid, index.indrelid as relation, root.qualified_name, root.relkind, format('%I', class.relname) as name,
        index.indisunique as is_unique, index.indisprimary as is_primary, index.indkey[0] as first_attnum, index.indnkeyatts as columns,
        own.constraint_name, own.is_referenced, pg_get_indexdef(index.indexrelid) as definition, pg_get_expr(index.indpred, index.indrelid) as predicate,
        key.names, key.others, key.users, key.has_org_id, key.has_parent, key.is_made_up,
        -- How many organizations have rows that are the same but for the user: where that is soon counted, and runs no code of others.
        case
            when key.users > 0 and key.is_plain and index.indisunique and index.indpred is null and table_.relkind = 'r'
                and pg_relation_size(table_.oid) < 1e8 and pg_has_role(table_.relowner, 'usage') and not table_.relforcerowsecurity
                and mapping_state.is_filled and org_id.is_not_null
                then format(
                    'select pg_catalog.count(*) as number from (select from %s where (%s) is not null group by %2$s'
                    ' having pg_catalog.count(*) operator(pg_catalog.>) 1) as collision',
                    root.qualified_name, concat_ws(', ', 'org_id', key.others)
                )
        end as counting
    from pg_catalog.pg_index as index
    join pg_catalog.pg_class as class on class.oid = index.indexrelid
    join tenancy.application_tables as root
        on root.relation = index.indrelid
        and root.scope = 'org'
    join pg_catalog.pg_class as table_ on table_.oid = index.indrelid
    join tenancy.org_id_columns as org_id on org_id.relation = index.indrelid
    cross join tenancy.mapping_state
    cross join lateral (
        select
            max(format('%I', its.conname)) filter (where its.contype in ('p', 'u')) as constraint_name,
            coalesce(bool_or(its.contype = 'f'), false) as is_referenced
        from pg_catalog.pg_constraint as its
        where its.conindid = index.indexrelid
    ) as own
    cross join lateral (
        select
            string_agg(part.definition, ', ' order by part.position) as names,
            string_agg(part.definition, ', ' order by part.position) filter (where user_column.attnum is null) as others,
            count(user_column.attnum) as users,
            coalesce(bool_or(column_.attname = 'org_id'), false) as has_org_id,
            coalesce(bool_or(parent.is_parent), false) as has_parent,
            coalesce(bool_and(type.typnamespace = 'pg_catalog'::regnamespace), false) and 0 <> all (index.indkey) as is_plain,
            coalesce(bool_or(column_.attidentity <> '' or column_.atttypid = 'uuid'::regtype or made.expression ~ 'nextval'), false) as is_made_up
        from (
            select position, index.indkey[position - 1] as attnum, pg_get_indexdef(index.indexrelid, position, true) as definition
            from generate_series(1, index.indnkeyatts) as position
        ) as part
        left join pg_catalog.pg_attribute as column_
            on column_.attrelid = index.indrelid
            and column_.attnum = part.attnum
            and part.attnum > 0
        left join pg_catalog.pg_type as type on type.oid = column_.atttypid
        left join user_column
            on user_column.relation = index.indrelid
            and user_column.attnum = part.attnum
        left join lateral (
            select pg_get_expr(pg_attrdef.adbin, pg_attrdef.adrelid)
            from pg_catalog.pg_attrdef
            where pg_attrdef.adrelid = index.indrelid and pg_attrdef.adnum = part.attnum
        ) as made (expression)
            on true
        cross join lateral (
            -- What it says is about that row, whose organization is known.
            select exists (
                select from reference
                where reference.relation = index.indrelid
                    and part.attnum = any (reference.attnums)
                    and user_column.attnum is null
            ) as is_parent
        ) as parent
    ) as key
    where index.indisvalid
),
per_organization as (
    select
        index_key.*, concat_ws(', ', 'org_id', index_key.others) as columns_then,
        case
            when index_key.constraint_name is not null then format(
                'alter table %s drop constraint %s, add %s (%s)', index_key.qualified_name, index_key.constraint_name,
                case when index_key.is_primary then 'primary key' else 'unique' end, concat_ws(', ', 'org_id', index_key.others)
            )
            when index_key.relkind = 'p' then format('drop index, and create unique index on %s (%s)', index_key.qualified_name, concat_ws(', ', 'org_id', index_key.others))
            else format(
                'create unique index concurrently on %s (%s)%s; drop index concurrently %s', index_key.qualified_name,
                concat_ws(', ', 'org_id', index_key.others), ' where ' || index_key.predicate, index_key.indexrelid::regclass
            )
        end as remedy
    from index_key
    where index_key.is_unique
        and not index_key.has_org_id
        and not index_key.has_parent
        and not index_key.is_referenced
        and (not index_key.is_primary or index_key.columns > 1)
)
select found.code, 'decide' as severity, found.object, found.table_name, found.problem, found.remedy
from (
    select
        case when per_organization.users > 0 then 'unique_per_owner' else 'unique_global' end as code,
        per_organization.name as object, per_organization.qualified_name as table_name,
        format(
            'keeps (%s) of %s unique %s: is it (%s) from now on?%s', per_organization.names, per_organization.qualified_name,
            case when per_organization.users > 0 then 'per user' else 'across all organizations' end, per_organization.columns_then,
            ' Collisions: ' || nullif(counted.number, 0) || '.'
        ) as problem,
        per_organization.remedy
    from per_organization
    cross join lateral (
        select (xpath('/row/number/text()', query_to_xml(per_organization.counting, false, true, '')))[1]::text::bigint
    ) as counted (number)
    where per_organization.users > 0
        or not per_organization.is_made_up
    union all
    select
        'index_by_owner', index_key.name, index_key.qualified_name,
        format('is led by the user in %s, (%s): queries by organization need one led by org_id', index_key.qualified_name, index_key.names),
        case
            when index_key.relkind = 'p' then format('per partition, then on %s: create index (org_id, %s)', index_key.qualified_name, index_key.others)
            else format('create index concurrently on %s%s', index_key.qualified_name, twin.definition)
        end
    from index_key
    join user_column
        on user_column.relation = index_key.relation
        and user_column.attnum = index_key.first_attnum
    cross join lateral (
        select replace(
            substr(index_key.definition, strpos(index_key.definition, ' USING ')),
            format(' (%s, ', split_part(index_key.names, ', ', 1)), ' (org_id, '
        ) as definition
    ) as twin
    where index_key.columns > 1
        and not index_key.is_unique
        and not exists (
            select from index_key as other
            where other.relation = index_key.relation
                and substr(other.definition, strpos(other.definition, ' USING ')) = twin.definition
        )
    union all
    select
        'own_rows_policy', string_agg(distinct clause.name, ', '), clause.table_name,
        format('shows a row of %s only to the users in it: colleagues in an organization do not see each other''s', clause.table_name),
        format(
            'create policy rows_of_own_organization on %s for select to authenticated using (org_id = (select public.auth_org_id()))',
            clause.table_name
        )
    from clause
    where clause.is_permissive
        and clause.kind = 'using'
        and clause.command in ('r', '*')
        and clause.relation = clause.root
        and clause.expression ~ '\muid\(\)'
        and clause.expression !~ '\mauth_org_id\('
        -- One may know of teams.
        and not clause.has_functions
        and (
            clause.has_user
            or (not clause.has_tables and clause.is_open = 'no')
            -- Or to the user in the row that it references.
            or exists (
                select from pg_catalog.pg_depend as dependency
                join user_column
                    on user_column.relation = dependency.refobjid
                    and user_column.attnum = dependency.refobjsubid
                join reference
                    on reference.parent = dependency.refobjid
                    and reference.relation = clause.relation
                where dependency.classid = 'pg_catalog.pg_policy'::regclass
                    and dependency.objid = clause.policy_oid
                    and dependency.refclassid = 'pg_catalog.pg_class'::regclass
            )
        )
        and not exists (
            select from clause as wider
            where wider.relation = clause.relation
                and wider.is_permissive
                and wider.kind = 'using'
                and wider.command in ('r', '*')
                and (wider.has_org_id or wider.is_open <> 'no')
        )
    group by clause.table_name
    union all
    select
        'storage_policy', format('%I', policy.polname), 'storage.objects',
        case
            when said.expression ~ '\m(uid|owner|owner_id)\M'
                then 'is a policy of storage.objects that goes by user: colleagues in an organization do not see each other''s files'
            else 'is a policy of storage.objects that goes by bucket alone: it lets users of every organization pass'
        end,
        'keep files under a folder per organization: (storage.foldername(name))[1] = (select public.auth_org_id())::text'
    from pg_catalog.pg_policy as policy
    cross join lateral (
        select concat_ws(' ', pg_get_expr(policy.polqual, policy.polrelid), pg_get_expr(policy.polwithcheck, policy.polrelid))
    ) as said (expression)
    where policy.polrelid = to_regclass('storage.objects')
        and policy.polpermissive
        and said.expression !~ '\mauth_org_id\M'
    union all
    select
        'realtime_table', 'supabase_realtime', root.qualified_name,
        format('sends changes of %s to whoever may read the row, and deletes, with the row''s key, to everyone subscribed', root.qualified_name),
        'subscribe with the filter org_id=eq.…; row-level security has to hold for authenticated, as isolation does'
    from pg_catalog.pg_publication_tables as published
    join pg_catalog.pg_namespace as namespace on namespace.nspname = published.schemaname
    join tenancy.table_members as member
        on member.relnamespace = namespace.oid
        and member.relname = published.tablename
        and member.scope = 'org'
    join tenancy.application_tables as root on root.relation = member.root
    where published.pubname = 'supabase_realtime'
    group by root.qualified_name
    union all
    select
        'other_membership', application_tables.qualified_name, application_tables.qualified_name,
        format('says by %s too which organization a user is in: tenancy.user_orgs and the token do not follow it', string_agg(distinct format('%I', column_.attname), ', ')),
        format('fill the mapping from it, and then either keep both in step by a trigger, or drop %s', string_agg(distinct format('%I', column_.attname), ', '))
    from tenancy.application_tables
    join user_column on user_column.relation = application_tables.relation
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = application_tables.relation
        and column_.attnum > 0
        and not column_.attisdropped
        and column_.attnum <> user_column.attnum
        and column_.attname <> 'org_id'
    where (
            column_.attname ~* '^(tenant|org|organi[sz]ation|company|team|workspace|account)_?(id|uuid)$'
            or exists (
                select from reference
                where reference.relation = application_tables.relation
                    and reference.attnums = array[column_.attnum]
                    and reference.parent = to_regclass('public.organizations')
            )
        )
        -- One row per user, or per user and organization.
        and exists (
            select from pg_catalog.pg_index as index
            where index.indrelid = application_tables.relation
                and index.indisunique
                and array[user_column.attnum, column_.attnum] @> index.indkey::smallint[]
                and user_column.attnum = any (index.indkey)
        )
    group by application_tables.qualified_name
    union all
    select
        'unbound_reference', child.qualified_name, child.qualified_name,
        format(
            'may have rows that reference one of another organization, whose deletion reaches them: nothing binds %s',
            string_agg(format('%I', org_references.constraint_name), ', ' order by org_references.position)
        ),
        format('do $$ begin while tenancy.enable_binding(%L) loop commit; end loop; end $$', child.qualified_name)
    from tenancy.org_references
    join tenancy.org_id_columns as child
        on child.relation = org_references.relation
        and child.is_not_null
    join tenancy.org_id_columns as parent
        on parent.relation = org_references.parent
        and parent.is_not_null
    join pg_catalog.pg_constraint as its on its.oid = org_references.constraint_oid
    where child.attnum <> all (its.conkey)
    group by child.qualified_name
) as found;
comment on view tenancy.review_choices is
'What was per user and may be per organization from now on. Columns as tenancy.review.';

create or replace view tenancy.review as
select review_breaks.* from tenancy.review_breaks
union all
select review_leaks.* from tenancy.review_leaks
union all
select review_choices.* from tenancy.review_choices;
comment on view tenancy.review is
'What of the application around its tables is not right once they have org_id, a row per finding: code (one per rule), severity (breaks:'
' something fails; leaks: rows of another organization are within reach; decide: yours to decide), object, table_name, problem, and'
' remedy: the statement to run where there is one. What is found in the text of a function is "probably" so.';
