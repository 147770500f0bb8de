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
            end,
            (
                select 'auth.identities.identity_data that is no JSON object: the Auth server cannot read the user'
                from auth.identities
                where identities.user_id = users.id
                having bool_or(jsonb_typeof(identities.identity_data) not in ('object', 'null'))
            )
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
        case when users.updated_at is null then 'updated_at' end,
        -- It reads a user with their identities and factors. Aggregates, since of EXISTS a page of users would read the whole table.
        (
            select concat_ws(
                ', ',
                case when bool_or(identities.created_at is null) then 'auth.identities.created_at' end,
                case when bool_or(identities.updated_at is null) then 'auth.identities.updated_at' end
            )
            from auth.identities
            where identities.user_id = users.id
            having bool_or(identities.created_at is null or identities.updated_at is null)
        ),
        (
            select concat_ws(
                ', ',
                case when bool_or(mfa_factors.friendly_name is null) then 'auth.mfa_factors.friendly_name' end,
                case when bool_or(mfa_factors.secret is null) then 'auth.mfa_factors.secret' end
            )
            from auth.mfa_factors
            where mfa_factors.user_id = users.id
            having bool_or(mfa_factors.friendly_name is null or mfa_factors.secret is null)
        )
    ) as columns
) as unreadable
where users.deleted_at is null;
comment on view tenancy.auth_users is
'Every user, and why the Auth server''s admin API cannot update them; NULL: it can. Without soft-deleted ones: the Auth server has emptied their'
' app_metadata, and nobody signs in as one of them again.';

create or replace view tenancy.user_preflight as
select auth_users.user_id, auth_users.unreachable as reason
from tenancy.auth_users
where auth_users.unreachable is not null
union all
select
    auth_users.user_id,
    format(
        'app_metadata has %s, which the Auth server does not keep exactly when it writes the user: make it text',
        string_agg(distinct left(number.value::text, 30), ', ')
    )
from tenancy.auth_users
cross join lateral jsonb_path_query(auth_users.raw_app_meta_data, '$.** ? (@.type() == "number")') as number (value)
-- It keeps numbers as doubles, and writes the shortest text of each. No double is as long as that.
where case when length(number.value::text) > 300 then true else number.value::float8::text::numeric <> number.value::numeric end
group by auth_users.user_id
union all
select
    auth_users.user_id,
    format(
        'app_metadata.providers lacks %s of auth.identities: a sign-in lost its change to an update at the same moment; the next sign-in through a'
        ' provider puts it back', string_agg(distinct identities.provider, ', ')
    )
from tenancy.auth_users
join auth.identities on identities.user_id = auth_users.user_id
where jsonb_typeof(auth_users.raw_app_meta_data -> 'providers') = 'array'
    and not auth_users.raw_app_meta_data -> 'providers' ? identities.provider
group by auth_users.user_id;
comment on view tenancy.user_preflight is
'Users to look at before a run and after it, and why. Whom the Auth server''s admin API cannot update: rows that were inserted by hand or by an'
' import; nobody can sign in as one of them either; fix the named columns (text: an empty string; a time: now(); identity_data: an object) and'
' they count. Whose app_metadata has numbers that a double does not hold: the Auth server rounds them with every update, and a revert does not'
' give them back. Whose sign-in lost its entry in app_metadata.providers.';

create or replace view tenancy.users_without_org as
select
    lacking.user_id, lacking.current_value, lacking.org_id, lacking.obstacle,
    case lacking.obstacle
        when 'unreachable' then lacking.unreachable
        else concat_ws(
            ', ',
            case
                when lacking.claim is null then 'has no organization in app_metadata'
                when lacking.claimed_org_id is null then format('has organization %s, which does not exist', lacking.claim)
                else format('has organization %s', lacking.claim)
            end,
            case
                when lacking.org_id is null then 'is in none'
                when lacking.org_id = lacking.default_org_id then format('should have the default one, %s', lacking.org_id)
                else format('should have %s', lacking.org_id)
            end
        )
    end as reason,
    lacking.is_anonymous,
    lacking.org_id is null and lacking.obstacle = 'unplaced'
    and (
        lacking.is_anonymous or mapping_state.is_filled
        or exists (select from tenancy.user_orgs where user_orgs.user_id = lacking.user_id)
    ) as on_purpose
from (
    select
        auth_users.user_id, auth_users.raw_app_meta_data -> 'org_id' as current_value, auth_users.unreachable,
        placed_users.org_id, placed_users.is_anonymous, its.claim, its.claimed_org_id, settings.default_org_id,
        case
            when placed_users.org_id is null and its.claimed_org_id is null then 'unplaced'
            when auth_users.unreachable is not null then 'unreachable'
            when its.claimed_org_id is not null or its.claim is not null and placed_users.org_id = settings.default_org_id then 'conflict'
        end as obstacle
    from tenancy.auth_users
    join tenancy.placed_users on placed_users.user_id = auth_users.user_id
    cross join tenancy.settings
    cross join lateral (
        select
            nullif(btrim(auth_users.raw_app_meta_data ->> 'org_id'), '') as claim,
            case
                when auth_users.raw_app_meta_data ->> 'org_id' <> '' then tenancy.organization_named(auth_users.raw_app_meta_data ->> 'org_id')
            end as claimed_org_id
    ) as its
    where lower(its.claim) is distinct from placed_users.org_id::text
        or placed_users.org_id is null and not placed_users.is_anonymous
) as lacking
cross join tenancy.mapping_state;
comment on view tenancy.users_without_org is
'Users whose app_metadata.org_id is not the organization that tenancy.org_of gives them, or whom it gives none. obstacle NULL: an update fixes'
' it; conflict: it is another, kept unless the run overwrites, or any at all where tenancy.org_of gives the default one, kept unless the run also'
' moves users there; unplaced: in no organization, and a run leaves them alone; unreachable: see tenancy.user_preflight. on_purpose: the mapping'
' says so or leaves them out. Anonymous users in none are listed only where app_metadata names an organization.';

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
' failed: the last error is in error. deleted: gone, or soft-deleted, before it could be updated.';
comment on column tenancy.user_metadata_audit.previous_value is 'app_metadata.org_id before the run wrote it; NULL where there was none.';
comment on column tenancy.user_metadata_audit.attempts is 'Requests to the Auth server; none in the mode "sql".';
comment on column tenancy.user_metadata_audit.new_value is 'What the run gives app_metadata.org_id; NULL: it takes the key away.';

create or replace view tenancy.users_to_revert as
select
    audit.run_id, audit.user_id,
    auth_users.raw_app_meta_data -> 'org_id' as current_value,
    case when moved.user_id is null then audit.previous_value else to_jsonb(moved.org_id) end as new_value,
    case
        when auth_users.unreachable is not null then 'unreachable'
        when moved.user_id is not null and its.claim is not distinct from moved.org_id::text then 'conflict'
        when its.claim is distinct from audit.new_value #>> '{}' and its.claim is distinct from audit.previous_value #>> '{}' then 'conflict'
    end as obstacle,
    coalesce(
        auth_users.unreachable,
        format(
            'has %s now, %s',
            coalesce('organization ' || nullif(btrim(its.claim), ''), 'no organization'),
            case
                when moved.user_id is null then 'which is not what the run gave'
                else 'and has switched, lost one or got another role since the run began'
            end
        )
    ) as reason
from tenancy.user_metadata_audit as audit
join tenancy.user_metadata_runs as runs on runs.run_id = audit.run_id
join tenancy.auth_users on auth_users.user_id = audit.user_id
left join tenancy.user_orgs as moved on moved.user_id = audit.user_id and moved.switched_at >= runs.started_at
cross join lateral (select auth_users.raw_app_meta_data ->> 'org_id' as claim) as its
where audit.outcome = 'updated'
    and (
        its.claim is distinct from audit.previous_value #>> '{}'
        or moved.user_id is not null and its.claim is distinct from moved.org_id::text
    );
comment on view tenancy.users_to_revert is
'For each run, the users whom it changed and who have not their previous app_metadata.org_id back. obstacle NULL: a revert puts it back; conflict:'
' it has changed since the run, or a switch or a membership has, and is left alone; unreachable: see tenancy.user_preflight. Whom a switch or a'
' membership has given another one, and a run or its revert the old one too late, gets that of tenancy.user_orgs.';

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
'Sessions whose access token was issued before their user''s app_metadata.org_id changed, by a run, a switch, a lost membership or another role, and has not'
' expired: it has the organization of before, or none, until it is refreshed, at stale_until at the latest. jwt_expiry is the project''s, see config.toml or the dashboard.'
' No row: policies may rely on the token.';

