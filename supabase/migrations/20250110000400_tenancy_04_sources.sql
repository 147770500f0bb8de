-- Purpose: where the organization of a table's rows comes from, in the order that decides.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.org_scoped_tables as
with recursive org_scoped as materialized (
    select application_tables.*
    from tenancy.application_tables
    where application_tables.scope = 'org'
),
reference as materialized (
    select distinct references_between_tables.relation, references_between_tables.parent
    from tenancy.references_between_tables
    join org_scoped as child on child.relation = references_between_tables.relation
    join org_scoped as parent
        on parent.relation = references_between_tables.parent
        and parent.relation <> child.relation
),
level (relation, depth) as (
    select org_scoped.relation, 0
    from org_scoped
    union
    select reference.relation, level.depth + 1
    from level
    join reference on reference.parent = level.relation
    where level.depth < (select count(*) from org_scoped)
)
select
    org_scoped.relation, org_scoped.schema_name, org_scoped.table_name, org_scoped.qualified_name,
    org_scoped.priority, org_scoped.owner_column, org_scoped.owner_type, org_scoped.parent_column,
    row_number() over (order by deepest.depth, org_scoped.priority, org_scoped.qualified_name) as position
from org_scoped
join (
    select level.relation, max(level.depth) as depth
    from level
    group by level.relation
) as deepest
    using (relation);
comment on view tenancy.org_scoped_tables is
'The registered org-scoped tables that exist, parents before the tables that reference them.';

create or replace view tenancy.org_references as
select
    reference.*, parent.qualified_name as parent_name,
    row_number() over (
        partition by reference.relation
        order by reference.first_columns, reference.constraint_name
    ) as position
from tenancy.references_between_tables as reference
join tenancy.application_tables as child
    on child.relation = reference.relation
    and child.scope = 'org'
join tenancy.application_tables as parent
    on parent.relation = reference.parent
    and parent.scope = 'org';
comment on view tenancy.org_references is
'The foreign keys from an org-scoped table to an org-scoped table, those of each table numbered in the order of their columns.';

create or replace view tenancy.following_tables as
with recursive followed (relation) as (
    select org_id_columns.relation
    from tenancy.org_id_columns
    where org_id_columns.is_root and org_id_columns.attnum is not null
    union
    select org_references.relation
    from followed
    join tenancy.org_references on org_references.parent = followed.relation
)
select distinct org_references.relation
from followed
join tenancy.org_references
    on org_references.parent = followed.relation
    and org_references.parent <> org_references.relation;
comment on view tenancy.following_tables is
'The org-scoped tables that reference, directly or through others, one that has org_id now: its rows may belong to any organization,'
' and theirs follow them.';

create or replace view tenancy.sources as
select
    owned.relation as root, 0::bigint as ordinal, owned.owner_column as column_name, null::regclass as parent,
    format('the owner in %s', owned.owner_column) as description,
    format(
        'left join tenancy.user_orgs as source_0 on source_0.user_id operator(pg_catalog.=) %s',
        case owned.owner_type
            when 'uuid'::regtype then format('todo.%I', owned.owner_column)
            else format(
                'case when todo.%1$I::pg_catalog.text operator(pg_catalog.~*)'
                ' ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$''::pg_catalog.text'
                ' then todo.%1$I::pg_catalog.text::pg_catalog.uuid end', owned.owner_column
            )
        end
    ) as join_clause
from tenancy.application_tables as owned
where owned.scope = 'org' and owned.owner_column is not null
union all
select
    reference.relation, reference.position,
    array_to_string(reference.column_names, ', '),
    reference.parent,
    format('%s through %s', reference.parent_name, array_to_string(reference.column_names, ', ')),
    format(
        'left join %s as source_%s on %s', reference.parent_name, reference.position,
        (
            select string_agg(
                format('source_%s.%I %s todo.%I', reference.position, pair.parent_column, pair.equality, pair.child_column),
                ' and '
                order by pair.ordinal
            )
            from unnest(reference.column_names, reference.parent_column_names, reference.equalities)
                with ordinality as pair (child_column, parent_column, equality, ordinal)
        )
    )
from tenancy.org_references as reference
join tenancy.application_tables as child on child.relation = reference.relation
where child.parent_column is null
    or reference.column_names = array[child.parent_column];
comment on view tenancy.sources is
'Where a row''s organization can come from, per org-scoped table in the order that decides: ordinal 0 its owner, then each org-scoped'
' parent. A partition''s rows get theirs as those of its partitioned table. join_clause joins a source to the row, named todo.';

create or replace view tenancy.decisions as
select
    decided.relation as root,
    exists (select from tenancy.user_orgs)
        or coalesce(
            tables_before.follows_org_id,
            decided.relation in (select following_tables.relation from tenancy.following_tables)
        ) as is_per_row,
    concat_ws(
        ', else ',
        (
            select string_agg(sources.description, ', else ' order by sources.ordinal)
            from tenancy.sources
            where sources.root = decided.relation
        ),
        'the default organization'
    ) as in_words
from tenancy.application_tables as decided
left join org_migration.tables_before on tables_before.relation = decided.relation
where decided.scope = 'org';
comment on view tenancy.decisions is
'What decides each org-scoped table''s rows, in words. is_per_row: true while there is a mapping, or a row can follow one that had its'
' organization before; false: all rows belong to the default organization, and phase 2 says so in the catalog.';
