-- Purpose: phase 5: which users lack their organization in app_metadata, and the record of what the edge function does to them.
-- Touches: new objects in the schema tenancy only. Users are changed by the edge function update-user-org-metadata alone.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation; app_metadata.org_id is one more key, and a run's previous values are in the audit.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.auth_users as
select
    users.id as user_id, users.raw_app_meta_data,
    nullif(
        concat_ws(
            '; ',
            case
                when users.instance_id is distinct from '00000000-0000-0000-0000-000000000000'
                    then 'instance_id is not the nil UUID: the Auth server does not find the user'
            end,
            case
                when unreadable.columns <> '' then unreadable.columns || ' NULL: the Auth server cannot read the user'
            end,
            case
                when jsonb_typeof(users.raw_app_meta_data) not in ('object', 'null')
                    or jsonb_typeof(users.raw_user_meta_data) not in ('object', 'null')
                    then 'metadata that is no JSON object: the Auth server cannot read the user'
            end
        ),
        ''
    ) as unreachable
from auth.users
cross join lateral (
    select concat_ws(
        ', ',
        case when users.aud is null then 'aud' end,
        case when users.role is null then 'role' end,
        case when users.confirmation_token is null then 'confirmation_token' end,
        case when users.recovery_token is null then 'recovery_token' end,
        case when users.email_change_token_new is null then 'email_change_token_new' end,
        case when users.email_change_token_current is null then 'email_change_token_current' end,
        case when users.email_change is null then 'email_change' end,
        case when users.email_change_confirm_status is null then 'email_change_confirm_status' end,
        case when users.phone_change is null then 'phone_change' end,
        case when users.phone_change_token is null then 'phone_change_token' end,
        case when users.reauthentication_token is null then 'reauthentication_token' end,
        case when users.created_at is null then 'created_at' end,
        case when users.updated_at is null then 'updated_at' end
    ) as columns
) as unreadable;
comment on view tenancy.auth_users is 'Every user, and why the Auth server''s admin API cannot update them; NULL: it can.';

create or replace view tenancy.user_preflight as
select auth_users.user_id, auth_users.unreachable as reason
from tenancy.auth_users
where auth_users.unreachable is not null;
comment on view tenancy.user_preflight is
'Users whom the Auth server''s admin API cannot update, and why: rows that were inserted by hand or by an import. Nobody can'
' sign in as one of them either. Fix the named columns (token columns: an empty string) and they count.';

create table if not exists tenancy.user_metadata_runs (
    run_id uuid primary key default gen_random_uuid(),
    reverted_run_id uuid references tenancy.user_metadata_runs (run_id),
    only_org_id uuid,
    on_conflict text not null check (on_conflict in ('keep', 'overwrite')),
    move_to_default boolean not null default false,
    anonymous text not null default 'include' check (anonymous in ('include', 'only', 'exclude')),
    pass smallint not null default 1,
    last_user_id uuid not null default '00000000-0000-0000-0000-000000000000',
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);
comment on table tenancy.user_metadata_runs is
'The runs of the edge function. One run may take several calls: the next call with the same request goes on where this one stopped.';
comment on column tenancy.user_metadata_runs.reverted_run_id is 'The run that this one puts back; NULL: it gives users their organization.';
comment on column tenancy.user_metadata_runs.only_org_id is 'Only the users of this organization; NULL: all.';
comment on column tenancy.user_metadata_runs.move_to_default is
'True: a run that overwrites also gives the default organization to users who have another one. False: they keep it.';
comment on column tenancy.user_metadata_runs.anonymous is 'Whether the run is for anonymous users as well, for them only, or not for them.';
comment on column tenancy.user_metadata_runs.last_user_id is 'Users up to this id have been claimed in this round.';

create table if not exists tenancy.user_metadata_audit (
    run_id uuid not null references tenancy.user_metadata_runs (run_id),
    user_id uuid not null,
    outcome text not null check (outcome in ('pending', 'updated', 'conflict', 'unreachable', 'failed', 'deleted')),
    previous_value jsonb,
    new_value jsonb,
    attempts integer not null default 0,
    error text,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (run_id, user_id)
)
-- Every row is inserted, and soon afterwards updated once: in its own page, if there is room, and in no index.
with (fillfactor = 50);
create index if not exists user_metadata_runs_reverted_run_id_idx on tenancy.user_metadata_runs (reverted_run_id);
comment on table tenancy.user_metadata_audit is
'What each run did to each user. The row is written before the user is touched, as pending, and settled by what auth.users holds'
' afterwards, so it tells the truth also when the function is killed between the two.';
comment on column tenancy.user_metadata_audit.outcome is
'pending: claimed, not settled. conflict: has another organization and was left alone. unreachable: see user_preflight.'
' failed: the last error is in error. deleted: gone before it could be updated.';
comment on column tenancy.user_metadata_audit.previous_value is 'app_metadata.org_id when the run last claimed the user; NULL where there was none.';
comment on column tenancy.user_metadata_audit.attempts is 'Requests to the Auth server; none in the mode "sql".';
comment on column tenancy.user_metadata_audit.new_value is 'What the run gives app_metadata.org_id; NULL: it takes the key away.';

create or replace view tenancy.users_to_revert as
select
    audit.run_id, audit.user_id,
    auth_users.raw_app_meta_data -> 'org_id' as current_value,
    audit.previous_value as new_value,
    case
        when auth_users.unreachable is not null then 'unreachable'
        when auth_users.raw_app_meta_data -> 'org_id' is distinct from audit.new_value then 'conflict'
    end as obstacle,
    coalesce(
        auth_users.unreachable,
        format(
            'has %s now, which is not what the run gave',
            coalesce('organization ' || nullif(auth_users.raw_app_meta_data ->> 'org_id', ''), 'no organization')
        )
    ) as reason
from tenancy.user_metadata_audit as audit
join tenancy.auth_users on auth_users.user_id = audit.user_id
where audit.outcome = 'updated'
    and auth_users.raw_app_meta_data ->> 'org_id' is distinct from audit.previous_value #>> '{}';
comment on view tenancy.users_to_revert is
'For each run, the users whom it changed and who have not their previous app_metadata.org_id back. obstacle NULL: a revert puts it'
' back; conflict: it has changed since the run and is left alone; unreachable: see tenancy.user_preflight.';

create or replace view tenancy.user_problems as
select audit.run_id, audit.user_id, audit.outcome, audit.error as reason
from tenancy.user_metadata_audit as audit
where audit.outcome in ('conflict', 'unreachable', 'failed');
comment on view tenancy.user_problems is 'For each run, the users whom it could not or must not update, and why.';

create or replace function tenancy.stale_sessions(jwt_expiry interval default '1 hour')
returns table (user_id uuid, session_id uuid, token_issued_at timestamptz, stale_until timestamptz)
language sql stable security invoker set search_path = '' as $function$
    select sessions.user_id, sessions.id, token.issued_at, token.issued_at + jwt_expiry
    from auth.sessions
    join (
        select change.user_id, max(change.at) as at
        from (
            select audit.user_id, audit.recorded_at
            from tenancy.user_metadata_audit as audit
            where audit.outcome = 'updated'
            union all
            select user_orgs.user_id, user_orgs.switched_at
            from tenancy.user_orgs
            where user_orgs.switched_at is not null
        ) as change (user_id, at)
        group by change.user_id
    ) as changed on changed.user_id = sessions.user_id
    cross join lateral (
        -- The Auth server keeps refreshed_at in UTC, without saying so.
        select coalesce(sessions.refreshed_at at time zone 'utc', sessions.created_at) as issued_at
    ) as token
    where token.issued_at < changed.at and token.issued_at + jwt_expiry > now()
$function$;
comment on function tenancy.stale_sessions(interval) is
'Sessions whose access token was issued before their user''s app_metadata.org_id changed, by a run, a switch or a lost membership, and has not'
' expired: it has the organization of before, or none, until it is refreshed, at stale_until at the latest. jwt_expiry is the project''s, see config.toml or the dashboard.'
' No row: policies may rely on the token.';

create or replace function tenancy.create_organization(organization_name text)
returns uuid language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $function$
declare
    new_id constant uuid := gen_random_uuid();
    -- Of varchar (n) the modifier is n + 4.
    name_modifier constant integer := (
        select attribute.atttypmod
        from pg_attribute as attribute
        where attribute.attrelid = to_regclass('public.organizations') and attribute.attname = 'name' and not attribute.attisdropped
    );
begin
    if name_modifier is null then
        insert into public.organizations (id) values (new_id);
        return new_id;
    end if;
    begin
        insert into public.organizations (id, name)
        values (new_id, left(organization_name, case when name_modifier > 4 then name_modifier - 4 else 255 end));
    exception
        when unique_violation then
            insert into public.organizations (id, name)
            values (new_id, left(new_id::text, case when name_modifier > 4 then name_modifier - 4 else 255 end));
    end;
    return new_id;
end
$function$;
comment on function tenancy.create_organization(text) is
'Inserts an organization of this name, where organizations have one, cut to its length, or of its id where the name is taken; returns its id. Security definer, because the Auth server calls'
' it through tenancy.set_org_of_new_user.';

create or replace function tenancy.create_personal_organizations()
returns bigint language plpgsql volatile security invoker set search_path = '' as $function$
declare
    org_scoped regclass;
    is_taken boolean;
    created bigint;
    decided_at timestamptz := (select settings.rows_decided_at from tenancy.settings);
begin
    if to_regnamespace('org_migration') is not null then
        select max(tables_before.counted_at)
        into decided_at
        from org_migration.tables_before
        where exists (select from org_migration.backfills);
    end if;
    if not (select mapping_state.is_filled from tenancy.mapping_state)
        and (select settings.new_users is distinct from 'personal' from tenancy.settings)
    then
        for org_scoped in
            select org_id_columns.relation
            from tenancy.org_id_columns
            where org_id_columns.is_root and org_id_columns.attnum is not null
        loop
            execute format('select exists (select from %s where org_id = $1)', org_scoped)
            into is_taken
            using (select settings.default_org_id from tenancy.settings);
            if is_taken then
                raise exception 'rows of % belong to the default organization already: personal organizations must be created before phase 2, or'
                    ' after tenancy.roll_back(1)', org_scoped
                using errcode = 'object_not_in_prerequisite_state';
            end if;
        end loop;
    end if;

    insert into tenancy.user_orgs (user_id, org_id)
    select users.id, tenancy.create_organization(coalesce(users.email, users.phone, users.id::text))
    from auth.users
    cross join tenancy.settings
    where (settings.new_users_anonymous or not users.is_anonymous)
        and users.id not in (select user_orgs.user_id from tenancy.user_orgs)
        -- Rows of who was there when rows were decided are in the default organization: they are to be placed by hand.
        and coalesce(users.created_at > decided_at, true)
        and tenancy.organization_named(users.raw_app_meta_data ->> 'org_id') is null;

    get diagnostics created = row_count;
    return created;
end
$function$;
comment on function tenancy.create_personal_organizations() is
'Gives every user who is in no organization one of its own, named by email, phone or id; not those whom app_metadata.org_id places, and'
' anonymous ones only with settings.new_users_anonymous. Returns how many. To be called before phase 2, and again whenever there are new'
' users. Raises object_not_in_prerequisite_state while the mapping is empty and rows belong to the default organization. Fails where'
' public.organizations requires more than id and name.';

create or replace function tenancy.set_org_of_new_user()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
declare
    settings tenancy.settings;
    claimed constant uuid := tenancy.organization_named(new.raw_app_meta_data ->> 'org_id');
    org_id uuid;
begin
    select * into settings from tenancy.settings;
    if settings.new_users is null then
        return new;
    end if;

    select user_orgs.org_id into org_id from tenancy.user_orgs where user_orgs.user_id = new.id;
    if not found then
        if claimed is not null then
            org_id := claimed;
        elsif settings.new_users = 'application' or new.is_anonymous and not settings.new_users_anonymous then
            org_id := null;
        elsif settings.new_users = 'default' then
            org_id := settings.default_org_id;
        else
            org_id := tenancy.create_organization(coalesce(new.email, new.phone, new.id::text));
            insert into tenancy.user_orgs (user_id, org_id) values (new.id, org_id);
        end if;
    end if;

    -- For rows that a trigger of the application writes before the user is there; of several users in a transaction none is meant.
    perform set_config(
        'tenancy.org_of_sign_up',
        case
            when coalesce(current_setting('tenancy.org_of_sign_up', true), '') in ('', org_id::text) then coalesce(org_id::text, 'none')
            else 'several'
        end,
        true
    );
    if org_id is not null and claimed is null then
        new.raw_app_meta_data := case when jsonb_typeof(new.raw_app_meta_data) = 'object' then new.raw_app_meta_data else '{}' end
            || jsonb_build_object('org_id', org_id);
    end if;
    return new;
end
$function$;
comment on function tenancy.set_org_of_new_user() is
'Trigger function: gives a new user the organization that settings.new_users says, before any trigger of the application writes rows of'
' theirs. Who comes with the id of an organization in app_metadata keeps it; the mapping counts first. Security definer, because the Auth'
' server inserts users and may not read tenancy.';

create or replace function tenancy.enable_new_users(mode text, anonymous boolean default false)
-- Longer than a second, after which autovacuum gives way.
returns void language plpgsql volatile security invoker set search_path = '' set lock_timeout = '1500ms' as $function$
declare
    required constant text := (select required_organization_columns.column_names from tenancy.required_organization_columns);
    rows_are_there boolean := (select settings.rows_decided_at is not null from tenancy.settings);
begin
    if mode is null or mode not in ('default', 'personal', 'application') then
        raise exception 'new users cannot be %: it is default (the default organization), personal (one of their own) or application (yours'
            ' places them)', coalesce(quote_literal(mode), 'NULL')
        using errcode = 'invalid_parameter_value';
    elsif mode = 'personal' and required is not null then
        raise exception 'public.organizations requires %, so no personal organization can be made when somebody signs up: give that a default,'
            ' or choose application and make it yourself', required
        using errcode = 'object_not_in_prerequisite_state';
    end if;

    if mode = 'personal' then
        begin
            perform tenancy.create_organization('a trial');
            raise exception using errcode = 'OKAY0';
        exception
            when sqlstate 'OKAY0' then
                null;
            when others then
                raise exception 'no personal organization can be made when somebody signs up: %; choose application and make it yourself', sqlerrm
                using errcode = 'object_not_in_prerequisite_state';
        end;
    end if;

    if to_regnamespace('org_migration') is not null then
        rows_are_there := exists (select from org_migration.tables_before);
    end if;
    -- Who is there already stays in the default organization, where their rows are.
    if mode <> 'default' and rows_are_there and not (select mapping_state.is_filled from tenancy.mapping_state) then
        insert into tenancy.user_orgs (user_id, org_id)
        select placed_users.user_id, placed_users.org_id
        from tenancy.placed_users
        where placed_users.org_id is not null
        on conflict do nothing;
    end if;

    update tenancy.settings
    set new_users = mode, new_users_anonymous = anonymous;

    -- The first of its kind: a trigger of the application may write rows of the user before the user is inserted.
    create or replace trigger "!assign_org_to_new_user"
    before insert on auth.users
    for each row
    execute function tenancy.set_org_of_new_user();
end
$function$;
comment on function tenancy.enable_new_users(text, boolean) is
'Opt-in: which organization everyone gets who signs up from now on. default: the default organization; the risk: anyone who can sign up is'
' then a member of it and sees its rows. personal: one of their own, in the transaction of the sign-up. application: yours sets'
' app_metadata.org_id or inserts into tenancy.user_orgs. anonymous: whether that counts for anonymous users. A user whom an administrator'
' creates with the org_id of an organization keeps that. While nothing is chosen, who signs up belongs to the default organization as long'
' as the mapping is empty, and otherwise to none. Raises invalid_parameter_value for any other mode, object_not_in_prerequisite_state where'
' organizations requires more columns than a personal one has. Locks auth.users for a moment, waiting 1.5 seconds at most.';

create or replace function tenancy.disable_new_users()
returns void language sql volatile security invoker set search_path = '' as $function$
    update tenancy.settings
    set new_users = null, new_users_anonymous = false
$function$;
comment on function tenancy.disable_new_users() is
'Undo of enable_new_users. The trigger stays and does nothing, since dropping it takes the owner of auth.users.';
