-- Purpose: opt-in: users in several organizations, one of them active at a time, and the hook that puts that one into each token.
-- Touches: new objects in the schema tenancy only. Nothing is switched on: these functions are for you to call.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_memberships(), tenancy.disable_token_hook().

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.follow_membership()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
declare
    placed record;
begin
    for placed in
        with unplaced as materialized (
            select distinct on (joined.user_id) joined.user_id, joined.org_id
            from joined
            where not exists (select from tenancy.user_orgs where user_orgs.user_id = joined.user_id)
            order by joined.user_id, joined.created_at, joined.org_id
        )
        insert into tenancy.user_orgs (user_id, org_id, switched_at)
        select unplaced.user_id, unplaced.org_id, clock_timestamp()
        from unplaced
        cross join tenancy.fallback_organization
        left join tenancy.placed_users on placed_users.user_id = unplaced.user_id
        -- As tenancy.org_of has it, of all of them at once.
        where case when placed_users.user_id is null then fallback_organization.org_id else placed_users.org_id end is null
        -- Another session may have given the user another one meanwhile.
        on conflict do nothing
        returning user_orgs.user_id, user_orgs.org_id
    loop
        perform tenancy.store_claim(placed.user_id, placed.org_id);
    end loop;
    if tg_op = 'UPDATE' and (select settings.org_role from tenancy.settings) then
        update tenancy.user_orgs
        set switched_at = clock_timestamp()
        from joined
        join left_behind on (left_behind.user_id, left_behind.org_id) = (joined.user_id, joined.org_id)
        where (user_orgs.user_id, user_orgs.org_id) = (joined.user_id, joined.org_id)
            and left_behind.role is distinct from joined.role;
    end if;
    return null;
end
$function$;
comment on function tenancy.follow_membership() is
'Trigger function: a new membership moves nobody; it becomes the active one only of a user who has never been in any, of several the oldest. Notes when the role in the'
' next token changes, for tenancy.stale_sessions(). Security definer, because whoever changes memberships may neither write user_orgs nor'
' auth.users.';

create or replace function tenancy.follow_lost_membership()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
begin
    -- Also where app_metadata or nothing places the user. Of a row that another session has changed since, a snapshot that does not see it raises
    -- serialization_failure, so the row is tried whatever it has.
    insert into tenancy.user_orgs (user_id, org_id, switched_at)
    select users.id, null, clock_timestamp()
    from auth.users
    left join tenancy.user_orgs as placed on placed.user_id = users.id
    where users.id = old.user_id
        and (placed.user_id is not null or tenancy.org_of(users.id) = old.org_id)
        and not exists (select from tenancy.memberships where (memberships.user_id, memberships.org_id) = (old.user_id, old.org_id))
    on conflict (user_id) do update
    set org_id = null, switched_at = excluded.switched_at
    -- NULL: as the key of a deleted organization has left it.
    where user_orgs.org_id = old.org_id or user_orgs.org_id is null;
    if found then
        perform tenancy.store_claim(old.user_id, null);
    elsif current_setting('transaction_isolation') <> 'read committed' then
        -- Nor does it see the row of a first switch; beside that one it cannot insert another.
        insert into tenancy.user_orgs (user_id) values (old.user_id) on conflict do nothing;
        if found then
            delete from tenancy.user_orgs where user_orgs.user_id = old.user_id;
        end if;
    end if;
    return null;
end
$function$;
comment on function tenancy.follow_lost_membership() is
'Trigger function, at the end of the transaction, since many an application deletes its memberships and inserts them anew: who loses that of'
' the active organization is in none from then on, never in another by chance. Security definer, as tenancy.follow_membership.';

-- By statement, since a table of the application is copied as a whole.
create or replace trigger follow_membership
after insert on tenancy.memberships
referencing new table as joined for each statement execute function tenancy.follow_membership();

create or replace trigger follow_changed_membership
after update on tenancy.memberships
referencing old table as left_behind new table as joined for each statement execute function tenancy.follow_membership();

drop trigger if exists follow_lost_membership on tenancy.memberships;
create constraint trigger follow_lost_membership
after delete or update of user_id, org_id on tenancy.memberships deferrable initially deferred
for each row execute function tenancy.follow_lost_membership();

create or replace function tenancy.store_claim(user_id uuid, org_id uuid)
-- Not in SQL, which would be planned anew with each call.
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    update auth.users
    set raw_app_meta_data = case
        when store_claim.org_id is null then users.raw_app_meta_data - 'org_id'
        else coalesce(nullif(users.raw_app_meta_data, 'null'), '{}') || jsonb_build_object('org_id', store_claim.org_id)
    end
    where users.id = store_claim.user_id
        and coalesce(jsonb_typeof(users.raw_app_meta_data), 'null') in ('object', 'null')
        and (store_claim.org_id is not null or users.raw_app_meta_data ? 'org_id');
end
$function$;
comment on function tenancy.store_claim(uuid, uuid) is
'Writes a user''s app_metadata.org_id, NULL takes it away, so that the next token follows. With the token hook, too: tokens go by it again on the'
' day on which the hook is switched off.';

create or replace function tenancy.switch_organization(org_id uuid)
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    caller constant uuid := (select auth.uid());
begin
    -- Whoever takes the membership away waits, or this does; the organization first, as its deletion locks them.
    perform
    from public.organizations
    join tenancy.memberships on memberships.org_id = organizations.id
    where memberships.user_id = caller and memberships.org_id = switch_organization.org_id
    for key share;
    if not found then
        raise exception 'you are not a member of the organization %', coalesce(switch_organization.org_id::text, 'NULL')
        using errcode = 'insufficient_privilege';
    end if;

    insert into tenancy.user_orgs (user_id, org_id, switched_at)
    values (caller, switch_organization.org_id, clock_timestamp())
    on conflict (user_id) do update
    set org_id = excluded.org_id, switched_at = excluded.switched_at
    where user_orgs.org_id is distinct from excluded.org_id;
    if found then
        perform tenancy.store_claim(caller, switch_organization.org_id);
    end if;
end
$function$;
comment on function tenancy.switch_organization(uuid) is 'Makes one of the caller''s organizations the active one: the next token has it, after supabase.auth.refreshSession(). Raises'
' insufficient_privilege (42501) for any other, whether there is such an organization or not. Called through public.switch_organization.';

create or replace function tenancy.my_organizations()
returns table (org_id uuid, name text, role text, is_active boolean)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    return query
    select memberships.org_id, to_jsonb(organizations) ->> 'name', memberships.role, memberships.org_id is not distinct from active.org_id
    from tenancy.memberships
    join public.organizations on organizations.id = memberships.org_id
    cross join tenancy.org_of((select auth.uid())) as active (org_id)
    where memberships.user_id = (select auth.uid())
    order by memberships.created_at, memberships.org_id;
end
$function$;
comment on function tenancy.my_organizations() is
'The organizations that the caller is in, with their names, the caller''s role, and which of them is active. Called through public.my_organizations.';

create or replace function tenancy.copy_memberships(
    source regclass, user_column name, org_column name, role_column name, of_user text default null, of_org text default null
)
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    -- In the types of the columns, so that indexes are of use.
    of_source constant text := (
        select string_agg(
            format(
                ' and found.%I operator(pg_catalog.=) %s', its.attname,
                format(case its.attname when user_column then '$1::%s' else '$2::%s' end, format_type(its.atttypid, its.atttypmod))
            ), ''
        )
        from pg_attribute as its
        where its.attrelid = source and its.attname in (user_column, org_column) and of_user is not null
    );
    rows_of constant text := format(
        'select distinct on (1, 2) found.%1$I::uuid as user_id, found.%2$I::uuid as org_id, %3$s as role from %4$s as found'
        ' join public.organizations on organizations.id = found.%2$I::uuid'
        ' where found.%1$I is not null%5$s order by 1, 2, 3',
        user_column, org_column, coalesce('found.' || quote_ident(role_column) || '::text', 'null::text'), source, of_source
    );
    nestloop constant text := current_setting('enable_nestloop');
begin
    -- Of two sessions that each take away one of several rows, the second one has to see what the first one did.
    perform
    from tenancy.memberships
    where memberships.user_id = of_user::uuid and memberships.org_id = of_org::uuid
    for update;
    -- As a whole, nothing of which the planner knows how large it is.
    perform set_config('enable_nestloop', case when of_user is null then 'off' else nestloop end, true);
    execute format(
        'with source as materialized (%s),'
        ' gone as ('
        'delete from tenancy.memberships where %s'
        ' not exists (select from source where (source.user_id, source.org_id) = (memberships.user_id, memberships.org_id))'
        ')'
        ' insert into tenancy.memberships (user_id, org_id, role) select source.user_id, source.org_id, source.role from source'
        ' left join tenancy.memberships as there on (there.user_id, there.org_id) = (source.user_id, source.org_id)'
        ' where there.user_id is null or there.role is distinct from source.role'
        ' on conflict (user_id, org_id) do update set role = excluded.role',
        rows_of, case when of_user is not null then 'user_id = $1::uuid and org_id = $2::uuid and' end
    )
    using of_user, of_org;
    perform set_config('enable_nestloop', nestloop, true);
end
$function$;
comment on function tenancy.copy_memberships(regclass, name, name, name, text, text) is
'Makes tenancy.memberships what a table of the application says, in whole or for one user and organization. Rows whose organization is not in'
' public.organizations are left out.';

create or replace function tenancy.copy_membership()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
declare
    source constant regclass := coalesce(pg_partition_root(tg_relid), tg_relid);
    -- User, organization, role: as they are called now.
    columns name[];
    changed jsonb;
begin
    if tg_level = 'STATEMENT' and tg_op = 'UPDATE' then
        return null;
    end if;
    select array_agg(its.attname order by listed.position)
    into columns
    from pg_trigger
    cross join unnest(tgattr) with ordinality as listed (attnum, position)
    join pg_attribute as its on its.attrelid = tgrelid and its.attnum = listed.attnum
    where tgrelid = source and tgfoid = 'tenancy.copy_membership()'::regprocedure and tgattr::text <> '';
    if tg_op = 'TRUNCATE' then
        perform tenancy.copy_memberships(source, columns[1], columns[2], columns[3]);
        return null;
    end if;
    -- Of an insert there is no old row, of a delete no new one.
    for changed in select row_of from (values (to_jsonb(old)), (to_jsonb(new))) as rows (row_of) where row_of ->> columns[1] is not null loop
        perform tenancy.copy_memberships(source, columns[1], columns[2], columns[3], changed ->> columns[1], changed ->> columns[2]);
    end loop;
    return null;
end
$function$;
comment on function tenancy.copy_membership() is
'Trigger function on the membership table of the application: keeps tenancy.memberships in step. The trigger tenancy_copy_memberships does'
' nothing after an update; it is one of the columns, so that they can be renamed, and are not dropped unseen. Security definer, because'
' whoever changes that table may not write tenancy.';

create or replace function tenancy.create_api_function(signature text, returned text, options text, body text)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    existing constant regprocedure := to_regprocedure(format('public.%s', regexp_replace(signature, '\w+ (?=\w+\))', '')));
begin
    if (select prosrc from pg_catalog.pg_proc where oid = existing) <> body then
        raise exception 'public.% is there already and another function: rename it first', signature
        using errcode = 'duplicate_function';
    end if;
    execute format(
        'create or replace function public.%s returns %s language sql %s set search_path = pg_catalog, pg_temp as %L', signature, returned, options, body
    );
    execute format('revoke all on function public.%s from public, anon', signature);
    execute format('grant execute on function public.%s to authenticated', signature);
end
$function$;
comment on function tenancy.create_api_function(text, text, text, text) is 'Creates a function in public that authenticated may call. Raises duplicate_function where another one has its name and parameters.';

create or replace function tenancy.enable_memberships(
    source regclass default null, user_column name default 'user_id', org_column name default 'org_id', role_column name default null
)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    followed constant regclass := (
        select min(its.tgrelid)::regclass from pg_catalog.pg_trigger as its
        where its.tgfoid = 'tenancy.copy_membership()'::regprocedure and its.tgparentid = 0 and its.tgrelid <> source
    );
begin
    if followed is not null then
        raise exception 'memberships follow % already: first select tenancy.disable_memberships(), which moves nobody', followed
        using errcode = 'object_not_in_prerequisite_state';
    end if;
    perform tenancy.place_who_is_there();
    if source is not null then
        perform tenancy.copy_memberships(source, user_column, org_column, role_column);
        execute format(
            'create or replace trigger tenancy_copy_membership after insert or update or delete on %1$s'
            ' for each row execute function tenancy.copy_membership();'
            ' create or replace trigger tenancy_copy_memberships after truncate or update of %2$I, %3$I%4$s on %1$s'
            ' for each statement execute function tenancy.copy_membership()',
            source, user_column, org_column, ', ' || quote_ident(role_column)
        );
        update tenancy.settings set memberships_followed = true where not memberships_followed;
        -- Nobody writes to it from here on: what came meanwhile.
        perform tenancy.copy_memberships(source, user_column, org_column, role_column);
    end if;
    perform tenancy.create_api_function(
        'switch_organization(org_id uuid)', 'void', 'volatile security definer', 'select tenancy.switch_organization(org_id)'
    );
    perform tenancy.create_api_function(
        'my_organizations()', 'table (org_id uuid, name text, role text, is_active boolean)', 'stable security definer',
        'select * from tenancy.my_organizations()'
    );
    perform tenancy.create_api_function(
        'auth_org_role()', 'text', 'stable parallel safe security invoker',
        'select nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb #>> ''{app_metadata,org_role}'''
    );
end
$function$;
comment on function tenancy.enable_memberships(regclass, name, name, name) is
'Opt-in: lets users be in several organizations and switch between them: public.switch_organization(org_id), public.my_organizations() and'
' public.auth_org_role(), for supabase.rpc and for policies. source: the membership table of the application, which tenancy.memberships is filled'
' from and kept in step with; NULL: you write tenancy.memberships yourself. While the mapping is empty it is begun with everyone where they are. Writes to that table wait for the end of the transaction only from when its triggers are made, after its rows are copied. Raises duplicate_function where public has others of these names.';

create or replace function tenancy.disable_memberships()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    ours record;
begin
    for ours in
        select its.tgrelid::regclass as source, its.tgname as name
        from pg_catalog.pg_trigger as its
        where its.tgfoid = 'tenancy.copy_membership()'::regprocedure and its.tgparentid = 0
    loop
        execute format('drop trigger %I on %s', ours.name, ours.source);
    end loop;
    for ours in
        select its.oid::regprocedure as name from pg_catalog.pg_proc as its
        where its.oid in (to_regprocedure('public.switch_organization(uuid)'), to_regprocedure('public.my_organizations()'))
            and its.prosrc ~ '^select .*\mtenancy\.(switch_organization|my_organizations)\('
    loop
        execute format('drop function %s', ours.name);
    end loop;
    update tenancy.settings set memberships_followed = false where memberships_followed;
    -- Which nobody loses: no trigger of a row fires.
    truncate tenancy.memberships;
end
$function$;
comment on function tenancy.disable_memberships() is
'Undo of enable_memberships: everyone stays in the organization that is active. public.auth_org_role() stays, since policies may use it.';

create or replace function tenancy.add_org_id_to_token(event jsonb)
returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $function$
declare
    metadata jsonb := coalesce(nullif(event #> '{claims,app_metadata}', 'null'), '{}');
    placed record;
begin
    select
        user_orgs.org_id,
        (
            select memberships.role
            from tenancy.memberships
            -- Without it nothing is looked up.
            where (select settings.org_role from tenancy.settings)
                and (memberships.user_id, memberships.org_id) = (user_orgs.user_id, user_orgs.org_id)
        ) as role
    into placed
    from tenancy.user_orgs
    where user_orgs.user_id = (event ->> 'user_id')::uuid;
    if not found then
        return event;
    end if;

    metadata := metadata - 'org_id' - 'org_role';
    if placed.org_id is not null then
        metadata := metadata || jsonb_build_object('org_id', placed.org_id)
            || case when placed.role is not null then jsonb_build_object('org_role', placed.role) else '{}' end;
    end if;
    return jsonb_set(event, '{claims,app_metadata}', metadata);
exception
    when others then
        raise log 'tenancy.add_org_id_to_token: %, so the token of user % has no organization', sqlerrm, event ->> 'user_id';
        if jsonb_typeof(event #> '{claims,app_metadata}') = 'object' then
            event := event #- '{claims,app_metadata,org_id}' #- '{claims,app_metadata,org_role}';
        end if;
        return event;
end
$function$;
comment on function tenancy.add_org_id_to_token(jsonb) is
'The custom access token hook: puts the organization of tenancy.user_orgs into app_metadata.org_id of each token as it is issued, and the role'
' of its membership into org_role, if settings.org_role is on. Of a user who is not in user_orgs it keeps what is stored; of one who is in none'
' it takes the claim away. It adds no default organization, waits for no lock over 50 ms, and never fails: after an error the token has no'
' organization, and the log a line. A hook of your own can call it. Security definer, because the Auth server may not read tenancy.';

create or replace function tenancy.enable_token_hook()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    grant usage on schema tenancy to supabase_auth_admin;
    grant execute on function tenancy.add_org_id_to_token(jsonb) to supabase_auth_admin;
    update tenancy.settings set token_hook = true;
end
$function$;
comment on function tenancy.enable_token_hook() is
'Opt-in: lets the Auth server call tenancy.add_org_id_to_token; then switch it on in config.toml or on the dashboard, as'
' pg-functions://postgres/tenancy/add_org_id_to_token. From then on tenancy.verify() looks whether it can be called: while it cannot, nobody'
' signs in.';

create or replace function tenancy.disable_token_hook()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update tenancy.settings set token_hook = false;
    if to_regprocedure('tenancy.add_org_id_to_token(jsonb)') is not null then
        revoke execute on function tenancy.add_org_id_to_token(jsonb) from supabase_auth_admin;
    end if;
    revoke usage on schema tenancy from supabase_auth_admin;
end
$function$;
comment on function tenancy.disable_token_hook() is
'Undo of enable_token_hook. First switch the hook off in config.toml or on the dashboard: a hook that cannot be called stops every sign-in.';
