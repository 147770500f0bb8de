-- Purpose: what would go with an organization that is deleted, and what would not let it.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.key_condition(foreign_key oid)
returns text language sql stable security invoker set search_path = '' as $function$
    select string_agg(
        format(
            '{parent}.%I operator(%I.%s) {child}.%I%s', parent_column.attname, namespace.nspname, equality.oprname, child_column.attname,
            case
                when child_column.attcollation <> parent_column.attcollation and parent_column.attcollation <> 0
                    then format(' collate %s', parent_column.attcollation::regcollation)
            end
        ),
        ' and '
    )
    from pg_catalog.pg_constraint as its
    cross join unnest(its.conkey, its.confkey, its.conpfeqop) as pair (child_key, parent_key, equality)
    join pg_catalog.pg_attribute as child_column on child_column.attrelid = its.conrelid and child_column.attnum = pair.child_key
    join pg_catalog.pg_attribute as parent_column on parent_column.attrelid = its.confrelid and parent_column.attnum = pair.parent_key
    join pg_catalog.pg_operator as equality on equality.oid = pair.equality
    join pg_catalog.pg_namespace as namespace on namespace.oid = equality.oprnamespace
    where its.oid = key_condition.foreign_key
$function$;
comment on function tenancy.key_condition(oid) is
'The rows of a foreign key compared as the key itself compares them, with all its columns, for {parent} and {child} as these are named in a query.';

create or replace view tenancy.deletion_paths as
with recursive scoped as materialized (
    select table_members.relation, org_scoped_tables.relation as root
    from tenancy.org_scoped_tables
    join tenancy.table_members on table_members.root = org_scoped_tables.relation
    join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = org_scoped_tables.relation
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
),
reference as materialized (
    select
        its.oid, its.conname, its.conrelid as source,
        -- A key that would set to null what cannot be keeps what it references.
        case
            when its.confdeltype = 'n' and exists (
                select from pg_catalog.pg_attribute as changed
                where changed.attrelid = its.conrelid and changed.attnum = any (coalesce(its.confdelsetcols, its.conkey)) and changed.attnotnull
            ) then 'r'
            else its.confdeltype
        end as action,
        coalesce(child.root, its.conrelid) as child, coalesce(parent.root, its.confrelid) as parent,
        exists (
            select from pg_catalog.pg_index
            where pg_index.indrelid = its.conrelid and pg_index.indkey[0] = any (its.conkey) and pg_index.indpred is null
        ) as is_indexed,
        child.root is not null as is_scoped,
        exists (
            select from unnest(its.conkey, its.confkey) as pair (child_key, parent_key)
            join pg_catalog.pg_attribute as org_id
                on org_id.attrelid = its.conrelid and org_id.attnum = pair.child_key and org_id.attname = 'org_id'
            join pg_catalog.pg_attribute as its_org
                on its_org.attrelid = its.confrelid and its_org.attnum = pair.parent_key
                and its_org.attname = case when its.confrelid = 'public.organizations'::regclass then 'id' else 'org_id' end
        ) as has_org_id,
        tenancy.key_condition(its.oid) as condition
    from pg_catalog.pg_constraint as its
    left join scoped as child on child.relation = its.conrelid
    left join scoped as parent on parent.relation = its.confrelid
    where its.contype = 'f'
        and its.conparentid = 0
        -- Who is in the organization is taken out of it first.
        and its.connamespace not in (select namespace.oid from pg_catalog.pg_namespace as namespace where namespace.nspname in ('tenancy', 'org_migration'))
),
path (root, constraint_name, child, source, action, is_indexed, is_scoped, has_org_id, clause, upward, depth, keys, is_circle) as (
    select
        reference.parent, reference.conname, reference.child, reference.source, reference.action, reference.is_indexed, reference.is_scoped,
        reference.has_org_id, format('exists (select from %s as below1 where %s', reference.source::regclass, its.condition),
        format('exists (select from only {relation} as gone where gone.ctid = any ($2) and %s', its.condition),
        1, array[reference.oid], false
    from reference
    cross join lateral (select replace(replace(reference.condition, '{parent}', 'gone'), '{child}', 'below1') as condition) as its
    where reference.parent in (select scoped.root from scoped)
        or reference.parent = 'public.organizations'::regclass and not (reference.is_scoped and reference.has_org_id)
    union all
    -- Rows of other tables that go, too, take along what goes with them.
    select
        path.root, reference.conname, reference.child, reference.source, reference.action, path.is_indexed and reference.is_indexed, reference.is_scoped,
        false, format('%s and exists (select from %s as below%s where %s', path.clause, reference.source::regclass, path.depth + 1, its.condition),
        format('exists (select from %s as below%s where %s and %s', path.source::regclass, path.depth, its.condition, path.upward),
        path.depth + 1, path.keys || reference.oid, reference.oid = any (path.keys)
    from path
    join reference on reference.parent = path.child
    cross join lateral (
        select replace(replace(reference.condition, '{parent}', format('below%s', path.depth)), '{child}', format('below%s', path.depth + 1)) as condition
    ) as its
    where path.action = 'c'
        and not path.is_circle
        and not path.is_scoped
        and path.child <> 'public.organizations'::regclass
),
above (child, parent) as (
    select reference.child, reference.parent from reference where reference.is_scoped
    union
    select above.child, reference.parent
    from above
    join reference on reference.child = above.parent and reference.is_scoped
)
select
    path.root::regclass as root, path.constraint_name, path.child::regclass as child, found.kind, path.is_indexed, path.depth,
    concat(path.clause, format(found.more, path.depth), repeat(')', path.depth)) as clause,
    case
        when found.kind = 'goes' and holding.are_some then format(
            'select from %s as below%s where %s%s for update of below%2$s', path.source::regclass, path.depth, path.upward, repeat(')', path.depth)
        )
    end as lock
from path
cross join lateral (
    select exists (select from reference where reference.parent = path.child and (reference.is_scoped or reference.action in ('a', 'r'))) as are_some
) as holding
cross join lateral (
    select 'stranger' as kind, ' and below%s.org_id is distinct from $1' as more
    where path.is_scoped and not (path.has_org_id and path.depth = 1)
    union all
    select 'first', ' and below%1$s.org_id = $1 and (below%1$s.tableoid, below%1$s.ctid) <> (gone.tableoid, gone.ctid)'
    -- Those that go along as well, since others may hold them; and those that would be changed, and have triggers for that, unless in a circle.
    where path.is_scoped
        and (path.action in ('a', 'r', 'c') or not exists (select from above where (above.child, above.parent) = (path.root, path.child)))
    union all
    -- Further round it is not followed, and need not be where nothing else hangs on those rows.
    select 'deep', ''
    where path.is_circle and holding.are_some
    union all
    select its.kind, its.more
    from (values ('stranger', ' and below%s.id is distinct from $1'), ('itself', ' and below%s.id = $1')) as its (kind, more)
    where path.child = 'public.organizations'::regclass
        and (its.kind = 'stranger' or path.root <> 'public.organizations'::regclass and path.action not in ('n', 'd'))
    union all
    select case when path.action = 'c' then 'goes' when path.action in ('n', 'd') then 'changes' else 'holds' end, ''
    where not path.is_scoped and not path.is_circle and path.child <> 'public.organizations'::regclass
) as found;
comment on view tenancy.deletion_paths is
'Foreign keys by which rows of other tables meet the rows of an organization that go (root, public.organizations included), directly or through'
' tables that go with those. is_indexed: they are found without reading those tables in whole. kind: stranger, rows of another organization;'
' itself, the row of the organization; holds, goes and changes, rows of tables that are not org-scoped, by what the key does; deep, such rows that'
' a key of the same table takes along further than it is followed; first, rows of the organization itself that are to go first. clause: true of a'
' row, called gone, of the organization $1 that is so referenced. lock: of what goes, and others may reference, locks the rows for which those of'
' {relation} at the places $2 go.';

create or replace function tenancy.organization_rows(org_id uuid, application_triggers boolean default true)
returns table (table_name text, row_count bigint, what text, refuses boolean)
-- What has just been written is not in the statistics: a loop over rows that are thought few may read a table for each of many.
language plpgsql stable security invoker set search_path = '' set enable_nestloop = off set jit = off as $function$
declare
    counted record;
begin
    for counted in
        select
            tables.qualified_name as name, tables.position, format('select count(*) from %s as gone where gone.org_id = $1', tables.relation) as query,
            'go' as what, false as refuses
        from tenancy.org_scoped_tables as tables
        join tenancy.org_id_columns on org_id_columns.relation = tables.relation and org_id_columns.attnum is not null
        union all
        select
            path.root::text, null,
            format(
                'select count(*) from %s as gone where gone.%I = $1 and %s', path.root,
                case when path.root = 'public.organizations'::regclass then 'id' else 'org_id' end, path.clause
            ),
            format(
                case
                    when path.kind = 'stranger' then 'are referenced by rows of %s that do not belong to the organization (%s)'
                    when path.kind = 'itself' then 'are referenced by the organization itself, in %s (%s): let it reference nothing first'
                    when path.kind = 'deep' then
                        'take rows of %s along, and these others of it (%s), which is not followed further: give it an organization, or delete those first'
                    when path.kind = 'holds' then 'are referenced by rows of %s, which keeps them (%s)'
                    when path.kind = 'goes' then 'take rows of %s along (%s)'
                    else 'are referenced by rows of %s, which lose that (%s)'
                end || case
                    when path.kind in ('goes', 'changes') and is_without_triggers
                        then ': without triggers it would reference nothing'
                    else ''
                end, path.child, path.constraint_name
            ),
            path.kind in ('stranger', 'itself', 'holds', 'deep') or is_without_triggers
        from tenancy.deletion_paths as path
        -- They are on again when the organization itself goes.
        cross join lateral (
            select not organization_rows.application_triggers and path.root <> 'public.organizations'::regclass as is_without_triggers
        ) as its
        where path.kind <> 'first'
        union all
        select
            'auth.users', null, 'select count(*) from tenancy.placed_users where placed_users.org_id = $1', 'have it as their organization: leave_users => true leaves them in none', true
        order by 2 desc nulls last, 1, 4
    loop
        execute counted.query into row_count using org_id;
        if row_count > 0 then
            table_name := counted.name;
            what := counted.what;
            refuses := counted.refuses;
            return next;
        end if;
    end loop;
end
$function$;
comment on function tenancy.organization_rows(uuid, boolean) is
'What tenancy.delete_organization would do: the rows of each table that go, in the order in which they do, and those that rows of other'
' tables reference, by foreign key. refuses: it does not begin while there are such rows, or users whose organization this is.';
