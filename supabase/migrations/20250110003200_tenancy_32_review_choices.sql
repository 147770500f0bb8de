-- Purpose: what is yours to decide: what was per user and may be per organization; and the review as a whole.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.mapping as
select 'select user_orgs.user_id, user_orgs.org_id from tenancy.user_orgs' as query;
comment on view tenancy.mapping is 'The query that says which organization each user is in, as text. In the preflight it is what was pasted.';

create or replace view tenancy.review_choices as
with reference as materialized (select references_between_tables.* from tenancy.references_between_tables),
owner_column as materialized (select owner_columns.relation, owner_columns.attnum from tenancy.owner_columns),
user_column as materialized (
    -- Of any table: its own users' ids, and the keys of rows that stand for a user.
    select owner_column.relation, owner_column.attnum
    from owner_column
    union
    select reference.relation, reference.attnums[1]
    from reference
    join owner_column on (owner_column.relation, array[owner_column.attnum]) = (reference.parent, reference.parent_attnums)
),
-- The tables that a row follows: what it references, and what that does.
ancestor as materialized (
    select reference.relation, reference.parent
    from reference
    union
    select child.relation, parent.parent
    from reference as child
    join reference as parent on parent.relation = child.parent
    union
    select child.relation, grandparent.parent
    from reference as child
    join reference as parent on parent.relation = child.parent
    join reference as grandparent on grandparent.relation = parent.parent
),
-- What authenticated sees of a table, by the arms of its policies.
shown as materialized (
    select
        arms.name, arms.table_name, arms.relation,
        arms.is_of_user
            and not arms.has_org_id
            and not exists (
                select from unnest(arms.tables) as read (oid)
                where read.oid <> arms.relation
                    and not exists (
                        select from ancestor
                        where ancestor.relation = arms.relation and ancestor.parent = read.oid
                    )
            ) as is_own,
        arms.is_open, arms.is_everyones
    from tenancy.policy_arms as arms
    where arms.is_permissive
        and arms.kind = 'using'
        and arms.command in ('r', '*')
        and arms.relation = arms.root
        and not arms.is_false
        and exists (
            select from unnest(arms.roles) as for_role (oid)
            where for_role.oid = 0 or pg_has_role(to_regrole('authenticated'), for_role.oid, 'usage')
        )
),
org_column as materialized (
    select org_id_columns.relation, org_id_columns.root, org_id_columns.qualified_name, org_id_columns.attnum, org_id_columns.is_not_null, org_id_columns.is_root
    from tenancy.org_id_columns
),
application as materialized (
    select application_tables.relation, application_tables.qualified_name, application_tables.org_from
    from tenancy.application_tables
),
org_root as materialized (
    select
        org_column.relation, org_column.qualified_name, coalesce(org_column.is_not_null, false) as is_not_null, class.relkind, class.relowner, class.relforcerowsecurity,
        pg_relation_size(class.oid) as bytes
    from org_column
    join pg_catalog.pg_class as class on class.oid = org_column.relation
    where org_column.is_root
),
-- Indexes and the constraints that they are of, with the text before their columns, of each, and after them.
defined as materialized (
    select
        index.indexrelid, index.indrelid as relation, index.indkey::smallint[] as attnums, index.indnkeyatts as columns,
        index.indisunique or index.indisexclusion as is_unique, index.indisprimary as is_primary, index.indisexclusion as is_exclusion,
        pg_get_expr(index.indpred, index.indrelid) as predicate, its.constraint_name, its.is_referenced, its.is_valued,
        split.head, split.elements, split.tail, class.relname as name
    from pg_catalog.pg_index as index
    join org_root on org_root.relation = index.indrelid
    join pg_catalog.pg_class as class on class.oid = index.indexrelid
    cross join lateral (
        select
            max(format('%I', own.conname)) filter (where own.contype in ('p', 'u', 'x')) as constraint_name,
            max(pg_get_constraintdef(own.oid)) filter (where own.contype in ('p', 'u', 'x')) as definition,
            coalesce(bool_or(own.contype = 'f'), false) as is_referenced,
            not coalesce((to_jsonb(index) ->> 'indnullsnotdistinct')::boolean, false) as is_valued
        from pg_catalog.pg_constraint as own
        where own.conindid = index.indexrelid
    ) as its
    cross join lateral (
        select coalesce(
            its.definition,
            substr(pg_get_indexdef(index.indexrelid), strpos(pg_get_indexdef(index.indexrelid), org_root.qualified_name || ' USING ') + length(org_root.qualified_name))
        )
    ) as said (text)
    cross join lateral (
        select
            coalesce(string_agg(placed.token, '' order by placed.position) filter (where placed.list = 0), '') as head,
            array(
                select trim(element.text)
                from string_to_table(string_agg(
                    case when placed.token = ',' and placed.depth = 1 then chr(31) else placed.token end, '' order by placed.position
                ) filter (where placed.list = 1 and placed.depth > 0 and placed.deep_position > 1), chr(31)) as element (text)
            ) as elements,
            coalesce(string_agg(placed.token, '' order by placed.position) filter (where placed.list > 1 or placed.list = 1 and placed.depth = 0), '') as tail
        from (
            select deep.*, row_number() over (partition by deep.list order by deep.position) as deep_position
            from (
                select
                    measured.*, count(*) filter (where measured.token = '(' and measured.depth = 1) over (order by measured.position) as list
                from (
                    select
                        part.token[1] as token, part.position,
                        sum(case part.token[1] when '(' then 1 when ')' then -1 else 0 end) over (order by part.position) as depth
                    from regexp_matches(said.text, $$'(?:[^']|'')*'|"(?:[^"]|"")*"|[(),]|[^'"(),]+$$, 'g') with ordinality as part (token, position)
                ) as measured
            ) as deep
        ) as placed
    ) as split
    where index.indisvalid
),
index_key as materialized (
    select
        defined.*, key.others, key.users, key.has_org_id, key.has_parent, key.is_made_up, key.is_plain, key.is_of_user, key.user_attnum,
        defined.attnums[0] in (select user_column.attnum from user_column where user_column.relation = defined.relation) as is_led_by_user,
        concat(
            defined.head, '(', concat_ws(', ', concat('org_id', key.user_suffix), key.others), defined.tail
        ) as definition_then
    from defined
    cross join lateral (
        select
            string_agg(defined.elements[part.position], ', ' order by part.position) filter (where user_column.attnum is null) as others,
            coalesce(
                min(substring(defined.elements[part.position] from ' WITH .*$')) filter (where user_column.attnum is not null),
                case when defined.head like 'EXCLUDE%' then ' WITH =' end
            ) as user_suffix,
            min(user_column.attnum) as user_attnum,
            count(user_column.attnum) as users,
            coalesce(bool_or(column_.attname = 'org_id'), false) as has_org_id,
            -- What it says is about a row that it references, whose organization is known.
            coalesce(bool_or(user_column.attnum is null and column_.attnum in (
                select unnest(reference.attnums)
                from reference
                where reference.relation = defined.relation
                    and (
                        reference.parent in (select org_root.relation from org_root)
                        -- Or that is one.
                        or reference.parent = to_regclass('public.organizations')
                        or exists (
                            select from reference as above
                            where above.relation = reference.parent
                                and above.attnums = reference.parent_attnums
                                and above.parent = to_regclass('public.organizations')
                        )
                    )
            )), false) as has_parent,
            coalesce(bool_and(type.typnamespace = 'pg_catalog'::regnamespace), false) and 0 <> all (defined.attnums) as is_plain,
            coalesce(bool_or(
                column_.attidentity <> '' or column_.atttypid = 'uuid'::regtype or pg_get_expr(made.adbin, made.adrelid) ~ '(nextval|random|uuid)'
            ), false) as is_made_up,
            -- One row per user, or per user and role, or one of a few values: it says something about them.
            bool_and(
                user_column.attnum is not null
                or coalesce(type.typtype = 'e' or type.oid = 'boolean'::regtype or column_.attname ~* '(^|_)(role|permission)s?(_|$)', false)
            ) as is_of_user
        from generate_series(1, defined.columns) as part (position)
        left join pg_catalog.pg_attribute as column_
            on column_.attrelid = defined.relation
            and column_.attnum = defined.attnums[part.position - 1]
            and column_.attnum > 0
        left join pg_catalog.pg_type as type on type.oid = column_.atttypid
        left join user_column
            on user_column.relation = defined.relation
            and user_column.attnum = column_.attnum
        left join pg_catalog.pg_attrdef as made
            on made.adrelid = defined.relation
            and made.adnum = column_.attnum
    ) as key
),
per_organization as materialized (
    select
        index_key.*, org_root.qualified_name, concat_ws(', ', 'org_id', index_key.others) as columns_then,
        -- Where it is soon counted, and runs no code of others: by the organizations that the rows have, or else that the mapping gives their users.
        case
            when index_key.users = 1 and index_key.is_plain and not index_key.is_exclusion and index_key.predicate is null and org_root.relkind = 'r'
                and org_root.bytes < 1e8 and pg_has_role(org_root.relowner, 'usage') and not org_root.relforcerowsecurity
                and mapping_state.is_filled and (org_root.is_not_null or its_user.attname is not null)
                then format(
                    'select pg_catalog.count(*) as number from (select from %s%s%s group by %s having pg_catalog.count(*) operator(pg_catalog.>) 1) as collision',
                    org_root.qualified_name,
                    case when not org_root.is_not_null then format(
                        ' left join (%s) as mapped (mapped_user_id, mapped_org_id) on mapped.mapped_user_id operator(pg_catalog.=) %I', mapping.query, its_user.attname
                    ) end,
                    ' where (' || case when index_key.is_valued then index_key.others end || ') is not null',
                    concat_ws(', ', coalesce(case when not org_root.is_not_null then 'mapped.mapped_org_id' end, 'org_id'), index_key.others)
                )
        end as counting,
        case
            when index_key.constraint_name is not null then format(
                'alter table %s drop constraint %s, add constraint %2$s %s', org_root.qualified_name, index_key.constraint_name, index_key.definition_then
            )
            else format(
                'create unique index%1$s on %2$s%3$s; drop index%1$s %4$s', case when org_root.relkind = 'r' and org_root.bytes > 1e7 then ' concurrently' end,
                org_root.qualified_name, index_key.definition_then, index_key.indexrelid::regclass
            )
        end as remedy
    from index_key
    join org_root on org_root.relation = index_key.relation
    cross join tenancy.mapping_state
    cross join tenancy.mapping
    left join owner_column
        on owner_column.relation = index_key.relation
        and owner_column.attnum = index_key.user_attnum
    left join pg_catalog.pg_attribute as its_user
        on its_user.attrelid = owner_column.relation
        and its_user.attnum = owner_column.attnum
        and its_user.atttypid = 'uuid'::regtype
    where index_key.is_unique
        and not index_key.has_org_id
        and not index_key.has_parent
        -- Whom two users are to each other is no matter of their organization.
        and index_key.users < 2
        and not index_key.is_referenced
        and (not index_key.is_primary or index_key.columns > 1)
        and (index_key.users > 0 or not index_key.is_made_up)
)
select found.code, 'decide' as severity, found.object, found.table_name, found.problem, found.remedy
from (
    select
        case when per_organization.users > 0 then 'unique_per_owner' else 'unique_global' end as code,
        format('%I', per_organization.name) as object, per_organization.qualified_name as table_name,
        format(
            'keeps (%1$s) of %2$s unique %3$s: is it (%4$s) from now on?%5$s%6$s', array_to_string(per_organization.elements, ', '),
            per_organization.qualified_name, case when per_organization.users > 0 then 'per user' else 'across all organizations' end, per_organization.columns_then,
            case when not per_organization.is_exclusion then format(' An upsert then says on conflict (%s).', per_organization.columns_then) end,
            ' Collisions: ' || nullif(counted.number, 0) || '.'
        ) as problem,
        case when per_organization.users > 0 and per_organization.is_of_user then 'leave it where a row is about its user, as a profile or a role is; or else: ' else '' end
            || per_organization.remedy as remedy
    from per_organization
    cross join lateral (
        select (xpath('/row/number/text()', query_to_xml(per_organization.counting, false, true, '')))[1]::text::bigint
    ) as counted (number)
    union all
    select
        'index_by_owner', format('%I', index_key.name), org_root.qualified_name,
        format(
            'is led by the user in %s, (%s): queries by organization need one led by org_id', org_root.qualified_name,
            array_to_string(index_key.elements, ', ')
        ),
        format(
            'create index%s on %s%s(%s%s', case when org_root.relkind = 'r' then ' concurrently' end, org_root.qualified_name, index_key.head,
            array_to_string(array['org_id'] || index_key.elements[2:], ', '), index_key.tail
        )
    from index_key
    join org_root on org_root.relation = index_key.relation
    where index_key.is_led_by_user
        and index_key.columns > 1
        and not index_key.is_unique
        and not exists (
            select from index_key as other
            where other.relation = index_key.relation
                and other.elements[1] ~ '^org_id( |$)'
                and other.elements[2:index_key.columns] = index_key.elements[2:]
                and other.predicate is not distinct from index_key.predicate
                and split_part(other.head, '(', 1) = split_part(index_key.head, '(', 1)
        )
    union all
    select
        'own_rows_policy', string_agg(distinct shown.name, ', ') filter (where shown.is_own), shown.table_name,
        format('shows rows of %s by user: colleagues in an organization do not see each other''s', shown.table_name),
        format(
            'create policy rows_of_own_organization on %s for select to authenticated using (org_id = (select public.auth_org_id()))',
            shown.table_name
        )
    from shown
    group by shown.table_name
    having bool_or(shown.is_own)
        -- One may know of teams, or show all to all.
        and not bool_or(not shown.is_own and shown.is_open = 'no' or shown.is_open = 'yes' and shown.is_everyones)
    union all
    select
        'realtime_table', 'supabase_realtime', root.qualified_name,
        format('sends changes of %s to whoever may read the row, and deletes, with the row''s key, to everyone subscribed', root.qualified_name),
        case when bool_or(member.attnum is not null and 'org_id' <> all (published.attnames)) then 'publish org_id, too, and ' else '' end
            || 'subscribe with the filter org_id=eq.…; row-level security has to hold for authenticated, as isolation does'
    from pg_catalog.pg_publication_tables as published
    join org_column as member on member.qualified_name = format('%I.%I', published.schemaname, published.tablename)
    join application as root on root.relation = member.root
    where published.pubname = 'supabase_realtime'
    group by root.qualified_name
    union all
    select
        'other_membership', application.qualified_name, application.qualified_name,
        format('says by %s too which organization a user is in: tenancy.user_orgs and the token do not follow it', string_agg(distinct format('%I', column_.attname), ', ')),
        format('fill the mapping from it, and then either keep both in step (of a table of memberships: tenancy.enable_memberships), or drop %s', string_agg(distinct format('%I', column_.attname), ', '))
    from application
    join user_column on user_column.relation = application.relation
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = application.relation
        and column_.attnum > 0
        and not column_.attisdropped
        and column_.attnum <> user_column.attnum
        and column_.attname <> 'org_id'
    where (
            column_.attname ~* '^(tenant|org|organi[sz]ation|company|team|workspace|account)_?(id|uuid)$'
            or exists (
                select from reference
                where reference.relation = application.relation
                    and reference.attnums = array[column_.attnum]
                    and reference.parent = to_regclass('public.organizations')
            )
        )
        and application.relation is distinct from to_regclass((select settings.memberships_of from tenancy.settings))
        -- One row per user, or per user and organization.
        and exists (
            select from pg_catalog.pg_index as index
            where index.indrelid = application.relation
                and index.indisunique
                and array[user_column.attnum, column_.attnum] @> index.indkey::smallint[]
                and user_column.attnum = any (index.indkey)
        )
    group by application.qualified_name
    union all
    -- Before the push: the table may have been excluded when its rows were decided.
    select
        'parent_left_out', child.qualified_name, child.qualified_name,
        format(
            'goes by %L alone, and references %s: a row of a user who is in another organization than that is parted from it', child.org_from::text,
            string_agg(format('%s (%s)', parent.qualified_name, keyed.entry), ', ' order by keyed.entry)
        ),
        format('say whose such a row is: org_from %L; or leave it, if it is its user''s', (array_agg(keyed.entry order by keyed.entry) || child.org_from)::text)
    from application as child
    join org_column on org_column.relation = child.relation and org_column.attnum is null
    join reference on reference.relation = child.relation and reference.parent <> child.relation
    join org_root as parent on parent.relation = reference.parent
    cross join lateral (select array_to_string(reference.column_names, ', ') as entry) as keyed
    cross join tenancy.mapping_state
    where child.org_from <> '{}'
        and mapping_state.is_filled
        -- Who names one of them has thought of the others.
        and not exists (
            select from reference as named
            where named.relation = child.relation
                and array_to_string(named.column_names, ', ') = any (child.org_from)
                and (named.parent in (select org_root.relation from org_root) or named.parent = to_regclass('public.organizations'))
        )
    group by child.qualified_name, child.org_from
    union all
    select
        'unbound_reference', child.qualified_name, child.qualified_name,
        format(
            'may have rows that reference one of another organization, whose deletion reaches them: nothing binds %s',
            string_agg(format('%I', reference.constraint_name), ', ' order by reference.attnums, reference.constraint_name)
        ),
        case
            when bool_and((
                select bool_or(class.relkind = 'p') from pg_catalog.pg_class as class where class.oid in (reference.relation, reference.parent)
            )) then 'a key of a partitioned table cannot be bound: compare the two in a trigger of yours'
            else format('do $$ begin while tenancy.enable_binding(%L) loop commit; end loop; end $$', child.qualified_name)
        end
    from reference
    join org_column as child on child.relation = reference.relation and child.is_root and child.is_not_null
    join org_column as parent on parent.relation = reference.parent and parent.is_root and parent.is_not_null
    join pg_catalog.pg_constraint as its on its.oid = reference.constraint_oid
    where child.attnum <> all (its.conkey)
    group by child.qualified_name
) as found;
comment on view tenancy.review_choices is 'What was per user and may be per organization from now on. Columns as tenancy.review.';

create or replace view tenancy.review as
with breaks as materialized (
    select review_breaks.* from tenancy.review_breaks
),
leaks as materialized (
    select review_leaks.* from tenancy.review_leaks
),
choices as materialized (
    select review_choices.* from tenancy.review_choices
)
select breaks.* from breaks
union all
select review_deletion.* from tenancy.review_deletion
union all
select leaks.* from leaks
union all
select choices.* from choices;
comment on view tenancy.review is
'What of the application around its tables is not right once they have org_id, a row per finding: code (one per rule), severity (breaks:'
' something fails; leaks: rows of another organization are within reach; decide: yours to decide), object, table_name, problem, and'
' remedy: the statement to run where there is one. What is found in the text of a function is "probably" so.';
