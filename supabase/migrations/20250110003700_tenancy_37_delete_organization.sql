-- Purpose: an organization of any size, deleted in batches, and what would go with it, counted beforehand.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

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
        its.oid, its.conname, its.confdeltype as action,
        coalesce(child.root, its.conrelid) as child, coalesce(parent.root, its.confrelid) as parent,
        exists (
            select from pg_catalog.pg_index
            where pg_index.indrelid = its.conrelid and pg_index.indkey[0] = any (its.conkey) and pg_index.indpred is null
        ) as is_indexed,
        child.root is not null as is_scoped,
        exists (
            select from pg_catalog.pg_attribute as org_id
            where org_id.attrelid = its.conrelid and org_id.attname = 'org_id' and org_id.attnum = any (its.conkey)
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
path (root, constraint_name, child, action, is_indexed, is_scoped, has_org_id, clause, depth, keys) as (
    select
        reference.parent, reference.conname, reference.child, reference.action, reference.is_indexed, reference.is_scoped, reference.has_org_id,
        format(
            'exists (select from %s as below1 where %s', reference.child::regclass,
            replace(replace(reference.condition, '{parent}', 'gone'), '{child}', 'below1')
        ),
        1, array[reference.oid]
    from reference
    where reference.parent in (select scoped.root from scoped)
        or reference.parent = 'public.organizations'::regclass and not (reference.is_scoped and reference.has_org_id)
    union all
    -- Rows of other tables that go, too, take along what goes with them.
    select
        path.root, reference.conname, reference.child, reference.action, path.is_indexed and reference.is_indexed, reference.is_scoped, false,
        format(
            '%s and exists (select from %s as below%s where %s', path.clause, reference.child::regclass, path.depth + 1,
            replace(replace(reference.condition, '{parent}', format('below%s', path.depth)), '{child}', format('below%s', path.depth + 1))
        ),
        path.depth + 1, path.keys || reference.oid
    from path
    join reference
        on reference.parent = path.child
        and reference.oid <> all (path.keys)
    where path.action = 'c'
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
    path.root::regclass as root, path.constraint_name, path.child::regclass as child, found.kind, path.is_indexed,
    concat(path.clause, format(found.more, path.depth), repeat(')', path.depth)) as clause
from path
cross join lateral (
    select 'stranger' as kind, ' and below%s.org_id is distinct from $1' as more
    where path.is_scoped and not (path.has_org_id and path.depth = 1)
    union all
    select 'first', ' and below%1$s.org_id = $1 and (below%1$s.tableoid, below%1$s.ctid) <> (gone.tableoid, gone.ctid)'
    -- Those that go along as well, since others may hold them; and those that would be changed, and have triggers for that, unless in a circle.
    where path.is_scoped
        and path.depth = 1
        and (path.action in ('a', 'r', 'c') or not exists (select from above where (above.child, above.parent) = (path.root, path.child)))
    union all
    select 'stranger', case when path.action in ('n', 'd') then ' and below%s.id is distinct from $1' else '' end
    where path.child = 'public.organizations'::regclass
    union all
    select case when path.action = 'c' then 'goes' when path.action in ('n', 'd') then 'changes' else 'holds' end, ''
    where not path.is_scoped and path.child <> 'public.organizations'::regclass
) as found;
comment on view tenancy.deletion_paths is
'Foreign keys by which rows of other tables meet the rows of an organization that go (root, public.organizations included), directly or through'
' tables that go with those. is_indexed: they are found without reading those tables in whole. kind: stranger, rows of another organization, or the row of the organization itself; holds, goes and changes,'
' rows of tables that are not org-scoped, by what the key does; first, rows of the organization itself that are to go first. clause: true of a'
' row, called gone, of the organization $1 that is so referenced.';

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
                    when path.kind = 'holds' then 'are referenced by rows of %s, which keeps them (%s)'
                    when path.kind = 'goes' then 'take rows of %s along (%s)'
                    else 'are referenced by rows of %s, which lose that (%s)'
                end || case
                    when path.kind in ('goes', 'changes') and is_without_triggers
                        then ': without triggers it would reference nothing'
                    else ''
                end, path.child, path.constraint_name
            ),
            path.kind in ('stranger', 'holds') or is_without_triggers
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

create or replace function tenancy.begin_deletion(org_id uuid, leave_users boolean, application_triggers boolean)
returns jsonb language plpgsql volatile security invoker set search_path = '' as $function$
declare
    found record;
begin
    if not exists (select from public.organizations where organizations.id = begin_deletion.org_id) then
        raise exception 'there is no organization %', begin_deletion.org_id
        using errcode = 'no_data_found', schema = 'public', table = 'organizations';
    end if;
    if begin_deletion.org_id = (select settings.default_org_id from tenancy.settings) then
        raise exception '% is the default organization: make another one that, in tenancy.settings, first', begin_deletion.org_id
        using errcode = 'object_in_use', schema = 'public', table = 'organizations';
    end if;

    if leave_users then
        with own as (
            select placed_users.user_id
            from tenancy.placed_users
            where placed_users.org_id = begin_deletion.org_id
        ),
        stored as (
            select tenancy.store_claim(own.user_id, null) from own
        ),
        left_alone as (
            insert into tenancy.user_orgs (user_id, org_id, switched_at)
            select own.user_id, null, clock_timestamp() from own
            on conflict (user_id) do update
            set org_id = null, switched_at = excluded.switched_at
            returning true
        )
        select count(*) from stored, left_alone into found;
    end if;

    select
        sum(rows.row_count) filter (where rows.what = 'go') as going,
        string_agg(format('%s rows of %s %s', rows.row_count, rows.table_name, rows.what), E'\n') filter (where rows.refuses) as problems
    into found
    from tenancy.organization_rows(begin_deletion.org_id, begin_deletion.application_triggers) as rows;
    if found.problems is not null then
        raise exception E'the organization % is not deleted, and nothing of it:\n%', begin_deletion.org_id, found.problems
        using errcode = 'object_in_use', schema = 'public', table = 'organizations';
    end if;

    return jsonb_build_object('batch', 500, 'rows', coalesce(found.going, 0), 'deleted', 0) || (
        select jsonb_build_object('targets', jsonb_agg(
            jsonb_build_object('relation', leaf.relation, 'root', tables.relation, 'paths', coalesce(its.paths, '[]'))
            order by tables.position desc, leaf.relation
        ))
        from tenancy.org_scoped_tables as tables
        join tenancy.org_id_columns on org_id_columns.relation = tables.relation and org_id_columns.attnum is not null
        cross join lateral tenancy.leaves(tables.relation) as leaf (relation)
        left join (
            select paths.root, jsonb_agg(to_jsonb(paths)) as paths
            from tenancy.deletion_paths as paths
            where case paths.kind when 'stranger' then true when 'first' then application_triggers else not application_triggers end
            group by paths.root
        ) as its
            on its.root = tables.relation
    );
end
$function$;
comment on function tenancy.begin_deletion(uuid, boolean, boolean) is
'Refuses what tenancy.delete_organization does, leaves the users without organization if that is asked for, and returns what a session keeps'
' while it deletes: rows per batch, how many there are and have gone, and the tables in their order, each with what to look for before rows go.';

create or replace function tenancy.rows_to_delete(target jsonb, org_id uuid, at_most bigint)
returns pg_catalog.tid[] language plpgsql volatile security invoker set search_path = '' as $function$
declare
    relation constant regclass := target ->> 'relation';
    root constant regclass := target ->> 'root';
    tids pg_catalog.tid[];
    path jsonb;
    is_so boolean;
    seqscan constant text := current_setting('enable_seqscan');
    nestloop constant text := current_setting('enable_nestloop');
begin
    -- By the index on org_id: of a large organization a scan of the table would begin each time with the rows that are gone.
    perform set_config('enable_seqscan', 'off', true);
    perform set_config('enable_nestloop', (not target -> 'paths' @> '[{"kind": "first", "is_indexed": false}]')::text, true);
    execute (
        select format(
            'select array(select gone.ctid from only %s as gone where gone.org_id = $1%s limit $2 for update)', relation,
            coalesce(string_agg(format(' and not %s', its ->> 'clause'), ''), '')
        )
        from jsonb_array_elements(target -> 'paths') as its
        where its ->> 'kind' = 'first' and at_most is not null
    )
    into tids
    using org_id, at_most;
    perform set_config('enable_seqscan', seqscan, true);

    -- These rows are locked, so nobody can reference them from now on.
    for path in select paths from jsonb_array_elements(target -> 'paths') as paths where paths ->> 'kind' <> 'first' and tids <> '{}' loop
        perform set_config('enable_nestloop', path ->> 'is_indexed', true);
        execute format('select exists (select from only %s as gone where gone.ctid = any ($2) and %s)', relation, path ->> 'clause')
        into is_so
        using org_id, tids;
        if is_so then
            raise exception 'rows of % are referenced by rows of % that do not go (%): see tenancy.organization_rows(%)',
                root, path ->> 'child', path ->> 'constraint_name', quote_literal(org_id)
            using errcode = 'object_in_use', schema = tenancy.schema_of(root), table = tenancy.table_of(root);
        end if;
    end loop;
    perform set_config('enable_nestloop', nestloop, true);
    return tids;
end
$function$;
comment on function tenancy.rows_to_delete(jsonb, uuid, bigint) is
'Locks rows of an organization in one of the tables that tenancy.begin_deletion lists, and returns where they are: so many at the most of those'
' that no other row of it holds, or, with NULL, all. Raises object_in_use where rows that do not go reference them.';

create or replace function tenancy.delete_rows(targets jsonb, org_id uuid, at_most bigint, out deleted bigint, out found_in interval)
returns record language plpgsql volatile security invoker set search_path = '' as $function$
declare
    began constant timestamptz := clock_timestamp();
    target jsonb;
    tids pg_catalog.tid[];
    tids_of_each text[] := '{}';
    relations text[] := '{}';
begin
    for target in select its from jsonb_array_elements(targets) as its loop
        tids := tenancy.rows_to_delete(target, org_id, at_most);
        if tids <> '{}' then
            relations := relations || (target ->> 'relation');
            tids_of_each := tids_of_each || tids::text;
        end if;
    end loop;
    found_in := clock_timestamp() - began;
    deleted := 0;
    if relations = '{}' then
        return;
    end if;

    -- Triggers of the application look for their tables where its own sessions do.
    set local search_path to default;
    execute (
        select format(
            'with %s select pg_catalog.sum(deleted.rows) from (%s) as deleted',
            pg_catalog.string_agg(
                pg_catalog.format(
                    'of_%s as (delete from only %s where ctid operator(pg_catalog.=) any ($2[%1$s]::pg_catalog.tid[])'
                    ' and org_id operator(pg_catalog.=) $1 returning true)', its.number, its.relation
                ),
                ', '
            ),
            pg_catalog.string_agg(pg_catalog.format('select pg_catalog.count(*) as rows from of_%s', its.number), ' union all ')
        )
        from pg_catalog.unnest(relations) with ordinality as its (relation, number)
    )
    into deleted
    using org_id, tids_of_each;
    set local search_path = '';
    if deleted = 0 then
        raise exception 'a trigger of % keeps its rows: application_triggers => false deletes them without it', array_to_string(relations, ', ')
        using errcode = 'object_in_use', schema = tenancy.schema_of(relations[1]::regclass), table = tenancy.table_of(relations[1]::regclass);
    end if;
end
$function$;
comment on function tenancy.delete_rows(jsonb, uuid, bigint) is
'Deletes rows of an organization from tables that tenancy.begin_deletion lists, in one statement, at the end of which foreign keys are checked:'
' of each so many at the most as tenancy.rows_to_delete finds, or, with NULL, all. Returns how many, and how long it took to find them.';

create or replace function tenancy.delete_organization(org_id uuid, leave_users boolean default false, application_triggers boolean default true)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    parameters constant jsonb := jsonb_build_array(org_id, leave_users, application_triggers);
    state jsonb := nullif(current_setting('tenancy.deletion', true), '');
    began timestamptz;
    target jsonb;
    done record;
    batch bigint;
    deleted bigint := 0;
    found_in interval := '0';
    is_slow boolean;
begin
    if state -> 'parameters' is distinct from parameters then
        state := tenancy.begin_deletion(org_id, leave_users, application_triggers) || jsonb_build_object('parameters', parameters);
    end if;
    batch := state ->> 'batch';
    began := clock_timestamp();
    if not application_triggers then
        set local session_replication_role = replica;
    end if;
    for target in select targets from jsonb_array_elements(state -> 'targets') as targets where batch is not null loop
        done := tenancy.delete_rows(jsonb_build_array(target), org_id, batch - deleted);
        deleted := deleted + done.deleted;
        found_in := found_in + done.found_in;
        exit when deleted >= batch;
    end loop;
    if deleted = 0 then
        -- Rows that hold each other, in a circle. Triggers may write about them while the organization is there.
        done := tenancy.delete_rows(state -> 'targets', org_id, null);
        deleted := done.deleted;
    end if;
    if not application_triggers then
        set local session_replication_role = origin;
    end if;

    if deleted = 0 then
        perform tenancy.begin_deletion(org_id, leave_users, application_triggers);
        set local search_path to default;
        delete from public.organizations where organizations.id operator(pg_catalog.=) delete_organization.org_id;
        set local search_path = '';
        perform set_config('tenancy.deletion', '', false);
        return false;
    end if;

    state := state || jsonb_build_object('deleted', (state -> 'deleted')::bigint + deleted);
    if (state -> 'deleted')::bigint > (state -> 'rows')::bigint * 10 + 10000 then
        raise exception 'triggers write as many rows of the organization % as go: application_triggers => false deletes them without', org_id
        using errcode = 'object_in_use';
    end if;
    is_slow := clock_timestamp() - began > make_interval(secs => 0.001 * (select settings.batch_target_ms from tenancy.settings));
    state := state || jsonb_build_object('batch', case
        -- Rows that hold each other in a long chain: all at once, rather than all others read for each.
        when deleted < batch and deleted * 100 < (state -> 'rows')::bigint - (state -> 'deleted')::bigint then null
        when is_slow and found_in < (clock_timestamp() - began) / 2 then greatest(batch / 2, 10)
        else least(coalesce(batch, 250) * 2, 50000)
    end);
    perform set_config('tenancy.deletion', state::text, false);
    return true;
end
$function$;
comment on function tenancy.delete_organization(uuid, boolean, boolean) is
'Deletes an organization: its rows in batches, children before parents, and at last itself. One batch per call, to be called until it returns'
' false: do $$ begin while tenancy.delete_organization(''…'') loop commit; end loop; end $$. What was deleted when it is interrupted is, and the same'
' call goes on. It deletes no row of another organization, no user and no file. Raises object_in_use, before it deletes anything, for the'
' default organization, for what tenancy.organization_rows says refuses, and for users whose organization it is, unless leave_users, which leaves'
' them in none. application_triggers => false: without the triggers of the application and what its foreign keys do to other tables, so it'
' refuses where rows of those are referenced; needs the privilege to set session_replication_role. Raises no_data_found where there is none.';
