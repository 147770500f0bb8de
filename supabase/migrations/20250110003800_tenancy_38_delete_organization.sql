-- Purpose: an organization of any size, deleted in batches.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

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
        select (select count(*) from stored), (select count(*) from left_alone) into found;
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

    return jsonb_build_object(
        'batch', 500, 'at_once', false, 'calls', 0, 'left', coalesce(found.going, 0), 'in_vain', 0
    ) || (
        select jsonb_build_object('targets', jsonb_agg(
            jsonb_build_object('relation', leaf.relation, 'root', tables.relation, 'paths', coalesce(its.paths, '[]'))
            order by tables.position desc, leaf.relation
        ))
        from tenancy.org_scoped_tables as tables
        join tenancy.org_id_columns on org_id_columns.relation = tables.relation and org_id_columns.attnum is not null
        cross join lateral tenancy.leaves(tables.relation) as leaf (relation)
        left join (
            select paths.root, jsonb_agg(to_jsonb(paths) - case when application_triggers then '' else 'lock' end order by paths.depth) as paths
            from tenancy.deletion_paths as paths
            where paths.kind in ('stranger', 'itself', 'deep')
                or case when application_triggers then paths.kind = 'first' or paths.lock is not null else paths.kind <> 'first' end
            group by paths.root
        ) as its
            on its.root = tables.relation
    );
end
$function$;
comment on function tenancy.begin_deletion(uuid, boolean, boolean) is
'Refuses what tenancy.delete_organization does, leaves the users without organization if that is asked for, and returns what a session keeps'
' while it deletes: rows per batch, or that all go at once, calls, how many rows were left when they were counted last, how often these were not'
' fewer than before, and the tables in their order, each with what to look for before rows go.';

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

    -- These rows are locked, and those that go with them before it is asked who references those: nobody can from now on.
    for path in select paths from jsonb_array_elements(target -> 'paths') as paths where paths ->> 'kind' <> 'first' and tids <> '{}' loop
        perform set_config('enable_nestloop', path ->> 'is_indexed', true);
        if path ->> 'lock' is not null then
            execute replace(path ->> 'lock', '{relation}', relation::text) using org_id, tids;
            continue;
        end if;
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

create or replace function tenancy.after_batch(state jsonb, org_id uuid, deleted bigint, took interval, found_in interval)
returns jsonb language plpgsql volatile security invoker set search_path = '' as $function$
declare
    batch constant bigint := state -> 'batch';
    calls constant bigint := (state -> 'calls')::bigint + 1;
    found_all constant boolean := deleted < batch or (state -> 'at_once')::boolean;
    in_vain bigint := state -> 'in_vain';
    remaining bigint := 0;
    relations text[] := '{}';
    relation text;
    counted bigint;
begin
    state := state || jsonb_build_object('calls', calls, 'at_once', false, 'batch', case
        when took > make_interval(secs => 0.001 * (select settings.batch_target_ms from tenancy.settings)) and found_in < took / 2
            then greatest(batch / 2, 10)
        else least(batch * 2, 50000)
    end);
    if not found_all and calls % 50 <> 0 then
        return state;
    end if;
    for relation in select its ->> 'relation' from jsonb_array_elements(state -> 'targets') as its loop
        execute format('select count(*) from only %s where org_id = $1', relation) into counted using org_id;
        remaining := remaining + counted;
        if counted > 0 then
            relations := relations || relation;
        end if;
    end loop;
    in_vain := case when remaining < (state -> 'left')::bigint then 0 else in_vain + 1 end;
    if in_vain > 10 then
        raise exception 'as many rows of the organization % come as go, into %: if triggers write them, application_triggers => false deletes without',
            org_id, array_to_string(relations, ', ')
        using errcode = 'object_in_use';
    end if;
    -- Rows that hold each other in a long chain: all at once, rather than all others read for each.
    return state || jsonb_build_object('left', remaining, 'in_vain', in_vain, 'at_once', found_all and deleted * 100 < remaining);
end
$function$;
comment on function tenancy.after_batch(jsonb, uuid, bigint, interval, interval) is
'What a session of tenancy.delete_organization keeps for its next call, after one that deleted so many rows, which took so long, and found them in'
' so long. Counts what is left after one that found fewer than a batch, and after every fiftieth. Raises object_in_use where eleven times in a row'
' that is not less than before.';

create or replace function tenancy.delete_organization(org_id uuid, leave_users boolean default false, application_triggers boolean default true)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    -- And the foreign keys: a migration may come while it goes on.
    parameters constant jsonb := jsonb_build_array(
        org_id, leave_users, application_triggers,
        (select md5(string_agg(its.oid::text, ' ' order by its.oid)) from pg_catalog.pg_constraint as its where its.contype = 'f')
    );
    role_before constant text := current_setting('session_replication_role');
    state jsonb := nullif(current_setting('tenancy.deletion', true), '');
    began timestamptz;
    target jsonb;
    done record;
    deleted bigint := 0;
    found_in interval := '0';
begin
    -- One session at a time, or two would wait for each other's rows.
    perform pg_advisory_xact_lock(hashtext('tenancy.delete_organization'), hashtext(org_id::text));
    if state -> 'parameters' is distinct from parameters then
        state := tenancy.begin_deletion(org_id, leave_users, application_triggers) || jsonb_build_object('parameters', parameters);
    end if;
    began := clock_timestamp();
    perform set_config('session_replication_role', 'replica', true) where not application_triggers;
    for target in select targets from jsonb_array_elements(state -> 'targets') as targets where not (state -> 'at_once')::boolean loop
        done := tenancy.delete_rows(jsonb_build_array(target), org_id, (state -> 'batch')::bigint - deleted);
        deleted := deleted + done.deleted;
        found_in := found_in + done.found_in;
        exit when deleted >= (state -> 'batch')::bigint;
    end loop;
    if deleted = 0 then
        -- Rows that hold each other, in a circle. Triggers may write about them while the organization is there.
        done := tenancy.delete_rows(state -> 'targets', org_id, null);
        deleted := done.deleted;
    end if;
    perform set_config('session_replication_role', role_before, true) where not application_triggers;

    if deleted = 0 then
        -- From now on nobody writes a row into it, which another could reference.
        perform from public.organizations where organizations.id = delete_organization.org_id for update;
        state := tenancy.begin_deletion(org_id, leave_users, application_triggers) || jsonb_build_object('parameters', parameters);
        if (state -> 'left')::bigint = 0 then
            set local search_path to default;
            delete from public.organizations where organizations.id operator(pg_catalog.=) delete_organization.org_id;
            set local search_path = '';
            perform set_config('tenancy.deletion', '', false);
            return false;
        end if;
    else
        state := tenancy.after_batch(state, org_id, deleted, clock_timestamp() - began, found_in);
    end if;
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
