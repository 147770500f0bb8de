-- Purpose: phase 5: which users lack their organization in app_metadata, and the record of what the edge function does to them.
-- Touches: new objects in tenancy. Users are changed by the edge function update-user-org-metadata alone, through the Auth server.
-- Locks:   none that anyone waits for.
-- Undo:    none needed: app_metadata.org_id is one more key; a run's previous values are in tenancy.user_metadata_audit.

set lock_timeout = '1s';
set statement_timeout = '1min';

create or replace view tenancy.auth_users as
select
    users.id as user_id,
    users.raw_app_meta_data,
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
select
    auth_users.user_id,
    auth_users.unreachable as reason
from tenancy.auth_users
where auth_users.unreachable is not null;
comment on view tenancy.user_preflight is
'Users whom the Auth server''s admin API cannot update, and why: rows that were inserted by hand or by an import. Nobody can'
' sign in as one of them either. Mend the named columns (token columns: an empty string) and they count.';

create or replace view tenancy.users_without_org as
select
    auth_users.user_id,
    auth_users.raw_app_meta_data -> 'org_id' as current_value,
    mapped.org_id,
    case
        when auth_users.unreachable is not null then 'unreachable'
        when auth_users.raw_app_meta_data ->> 'org_id' is not null then 'conflict'
    end as obstacle,
    coalesce(
        auth_users.unreachable,
        format('has organization %s already', auth_users.raw_app_meta_data ->> 'org_id')
    ) as reason
from tenancy.auth_users
left join tenancy.user_orgs
    on user_orgs.user_id = auth_users.user_id
cross join lateral (
    -- As tenancy.org_of has it, without a call for every user.
    select coalesce(user_orgs.org_id, (select settings.default_org_id from tenancy.settings)) as org_id
) as mapped
where lower(auth_users.raw_app_meta_data ->> 'org_id') is distinct from mapped.org_id::text;
comment on view tenancy.users_without_org is
'Users whose app_metadata.org_id is not the organization that tenancy.org_of gives them. obstacle NULL: missing, an update mends'
' it; conflict: it is another, kept unless the run overwrites; unreachable: see tenancy.user_preflight.';

create table if not exists tenancy.user_metadata_runs (
    run_id uuid primary key default gen_random_uuid(),
    reverted_run_id uuid references tenancy.user_metadata_runs (run_id),
    only_org_id uuid,
    on_conflict text not null check (on_conflict in ('keep', 'overwrite')),
    pass smallint not null default 1,
    last_user_id uuid not null default '00000000-0000-0000-0000-000000000000',
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);
comment on table tenancy.user_metadata_runs is
'The runs of the edge function. One run may take several calls: the next call with the same request goes on where this one stopped.';
comment on column tenancy.user_metadata_runs.reverted_run_id is 'The run that this one puts back; NULL: it gives users their organization.';
comment on column tenancy.user_metadata_runs.only_org_id is 'Only the users of this organization; NULL: all.';
comment on column tenancy.user_metadata_runs.last_user_id is 'Users up to this id have been claimed in this pass.';

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
comment on column tenancy.user_metadata_audit.previous_value is 'app_metadata.org_id before the run; NULL where there was none.';
comment on column tenancy.user_metadata_audit.new_value is 'What the run gives app_metadata.org_id; NULL: it takes the key away.';

create or replace view tenancy.users_to_revert as
select
    audit.run_id,
    audit.user_id,
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
            coalesce('organization ' || (auth_users.raw_app_meta_data ->> 'org_id'), 'no organization')
        )
    ) as reason
from tenancy.user_metadata_audit as audit
join tenancy.auth_users
    on auth_users.user_id = audit.user_id
where audit.outcome = 'updated'
    and auth_users.raw_app_meta_data ->> 'org_id' is distinct from audit.previous_value #>> '{}';
comment on view tenancy.users_to_revert is
'For each run, the users whom it changed and who have not their previous app_metadata.org_id back. obstacle NULL: a revert puts it'
' back; conflict: it has changed since the run and is left alone; unreachable: see tenancy.user_preflight.';

create or replace view tenancy.user_problems as
select
    audit.run_id,
    audit.user_id,
    audit.outcome,
    audit.error as reason
from tenancy.user_metadata_audit as audit
where audit.outcome in ('conflict', 'unreachable', 'failed');
comment on view tenancy.user_problems is 'For each run, the users whom it could not or must not update, and why.';

do $do$
begin
    create type tenancy.user_change as (
        user_id uuid,
        current_value jsonb,
        new_value jsonb,
        obstacle text,
        reason text
    );
    comment on type tenancy.user_change is 'A user of tenancy.users_without_org or users_to_revert, as tenancy.claim_users has them.';
exception
    when duplicate_object then null;
end
$do$;

create or replace function tenancy.start_user_run(
    only_org_id uuid default null,
    on_conflict text default 'keep',
    reverted_run_id uuid default null
)
returns uuid
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    run uuid;
begin
    if not pg_try_advisory_lock(hashtext('tenancy.user_metadata_runs')) then
        return null;
    end if;

    select runs.run_id
    into run
    from tenancy.user_metadata_runs as runs
    where runs.finished_at is null
        and runs.only_org_id is not distinct from start_user_run.only_org_id
        and runs.on_conflict = start_user_run.on_conflict
        and runs.reverted_run_id is not distinct from start_user_run.reverted_run_id
    order by runs.started_at desc
    limit 1;

    if found then
        perform tenancy.settle_users(run, jsonb_agg(jsonb_build_object('user_id', audit.user_id, 'attempts', 0)))
        from tenancy.user_metadata_audit as audit
        where audit.run_id = run
            and audit.outcome = 'pending';

        -- Back to the first whom the call before claimed and did not deal with.
        update tenancy.user_metadata_runs as runs
        set last_user_id = coalesce(
            (
                select audit.user_id
                from tenancy.user_metadata_audit as audit
                where audit.run_id = run
                    and audit.user_id < left_over.user_id
                order by audit.user_id desc
                limit 1
            ),
            '00000000-0000-0000-0000-000000000000'
        )
        from (
            select audit.user_id
            from tenancy.user_metadata_audit as audit
            where audit.run_id = run
                and audit.outcome = 'pending'
            order by audit.user_id
            limit 1
        ) as left_over
        where runs.run_id = run;
        return run;
    end if;

    insert into tenancy.user_metadata_runs (only_org_id, on_conflict, reverted_run_id)
    values (start_user_run.only_org_id, start_user_run.on_conflict, start_user_run.reverted_run_id)
    returning user_metadata_runs.run_id into run;
    return run;
end
$function$;
comment on function tenancy.start_user_run(uuid, text, uuid) is
'Takes the lock that keeps runs apart until this connection ends, and returns the unfinished run of the same request, or a new'
' one; with reverted_run_id, one that puts back what that run changed. Returns NULL while another connection has the lock.';

create or replace function tenancy.claim_users(run_id uuid, page_size integer)
returns table (
    user_id uuid,
    new_value jsonb,
    outcome text,
    attempts integer
)
language plpgsql
volatile
security invoker
set search_path = ''
-- A plan for each page: how far it is from the end of the list is a parameter.
set plan_cache_mode = force_custom_plan
as $function$
#variable_conflict use_column
declare
    run tenancy.user_metadata_runs;
    page tenancy.user_change[];
begin
    select runs.*
    into run
    from tenancy.user_metadata_runs as runs
    where runs.run_id = claim_users.run_id;

    -- Two queries and not one over both lists, or none of them would be read in order and only as far as the page goes.
    if run.reverted_run_id is null then
        page := array(
            select row(
                users_without_org.user_id,
                users_without_org.current_value,
                to_jsonb(users_without_org.org_id),
                users_without_org.obstacle,
                users_without_org.reason
            )::tenancy.user_change
            from tenancy.users_without_org
            where users_without_org.user_id > run.last_user_id
                and (run.only_org_id is null or users_without_org.org_id = run.only_org_id)
                and not exists (
                    select
                    from tenancy.user_problems
                    where user_problems.run_id = run.run_id
                        and user_problems.user_id = users_without_org.user_id
                )
            order by users_without_org.user_id
            limit page_size
        );
    else
        page := array(
            select row(
                users_to_revert.user_id,
                users_to_revert.current_value,
                users_to_revert.new_value,
                users_to_revert.obstacle,
                users_to_revert.reason
            )::tenancy.user_change
            from tenancy.users_to_revert
            where users_to_revert.run_id = run.reverted_run_id
                and users_to_revert.user_id > run.last_user_id
                and not exists (
                    select
                    from tenancy.user_problems
                    where user_problems.run_id = run.run_id
                        and user_problems.user_id = users_to_revert.user_id
                )
            order by users_to_revert.user_id
            limit page_size
        );
    end if;

    update tenancy.user_metadata_runs as runs
    set last_user_id = page[cardinality(page)].user_id
    where runs.run_id = run.run_id
        and page <> '{}';

    return query
    insert into tenancy.user_metadata_audit as audit (run_id, user_id, outcome, previous_value, new_value, error)
    select
        run.run_id,
        claimed.user_id,
        claimed.outcome,
        claimed.current_value,
        claimed.new_value,
        case when claimed.outcome <> 'pending' then claimed.reason end
    from (
        select
            candidate.*,
            case
                when candidate.obstacle = 'conflict' and run.on_conflict = 'overwrite' then 'pending'
                else coalesce(candidate.obstacle, 'pending')
            end as outcome
        from unnest(page) as candidate
    ) as claimed
    on conflict on constraint user_metadata_audit_pkey do update
    set
        outcome = excluded.outcome,
        new_value = excluded.new_value,
        error = excluded.error,
        recorded_at = excluded.recorded_at
    returning
        audit.user_id,
        audit.new_value,
        audit.outcome,
        audit.attempts;
end
$function$;
comment on function tenancy.claim_users(uuid, integer) is
'The next page of users that lack their organization, each with its audit row, by'
' id, never by OFFSET. Conflicts and unreachable users come settled. No row: the pass is over.';

create or replace function tenancy.settle_users(run_id uuid, results jsonb)
returns table (
    user_id uuid,
    outcome text
)
language sql
volatile
security invoker
set search_path = ''
as $function$
    update tenancy.user_metadata_audit as audit
    set
        outcome = case
            when users.id is null then 'deleted'
            when lower(users.raw_app_meta_data ->> 'org_id') is not distinct from lower(audit.new_value #>> '{}') then 'updated'
            when result.error is not null and result.final then 'failed'
            else 'pending'
        end,
        attempts = audit.attempts + result.attempts,
        error = result.error,
        recorded_at = clock_timestamp()
    from jsonb_to_recordset(results) as result (user_id uuid, attempts integer, error text, final boolean)
    left join auth.users
        on users.id = result.user_id
    where audit.run_id = settle_users.run_id
        and audit.user_id = result.user_id
    returning
        audit.user_id,
        audit.outcome
$function$;
comment on function tenancy.settle_users(uuid, jsonb) is
'Settles claimed users by what auth.users holds now, and returns them with their outcome; results: [{user_id, attempts, error or'
' null, final}]. An error that is not final leaves the user pending, its attempts counted. Pending without an error is one whom the'
' Auth server said it updated and who is not: a 200 does not prove a write, and another write can undo ours.';

create or replace function tenancy.end_user_pass(run_id uuid)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    update tenancy.user_metadata_runs as runs
    set
        pass = runs.pass + 1,
        last_user_id = default
    where runs.run_id = end_user_pass.run_id
        and runs.pass < 3
        and tenancy.users_remaining(runs.run_id) > 0;

    if found then
        return false;
    end if;

    update tenancy.user_metadata_runs as runs
    set finished_at = clock_timestamp()
    where runs.run_id = end_user_pass.run_id;
    return true;
end
$function$;
comment on function tenancy.end_user_pass(uuid) is
'Called when claim_users returns nothing: starts another pass while there are users to try (who signed up, or whose update was'
' lost, behind the run), three passes in all; else ends the run. Returns whether it ended.';

create or replace function tenancy.users_remaining(run_id uuid)
returns bigint
language sql
stable
security invoker
set search_path = ''
as $function$
    select count(*)
    from tenancy.user_metadata_runs as run
    cross join lateral (
        select users_without_org.user_id
        from tenancy.users_without_org
        where run.reverted_run_id is null
            and (run.only_org_id is null or users_without_org.org_id = run.only_org_id)

        union all

        select users_to_revert.user_id
        from tenancy.users_to_revert
        where users_to_revert.run_id = run.reverted_run_id
    ) as candidate
    left join tenancy.user_metadata_audit as audit
        on audit.run_id = run.run_id
        and audit.user_id = candidate.user_id
    where run.run_id = users_remaining.run_id
        and coalesce(audit.outcome, 'pending') not in ('conflict', 'unreachable', 'failed')
$function$;
comment on function tenancy.users_remaining(uuid) is 'How many users the run has still to try.';

create or replace function tenancy.user_run_summary(run_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $function$
    select jsonb_build_object(
        'run_id', run.run_id,
        'done', run.finished_at is not null,
        'remaining', tenancy.users_remaining(run.run_id),
        'updated', count(*) filter (where audit.outcome = 'updated'),
        'conflicts', count(*) filter (where audit.outcome = 'conflict'),
        'unreachable', count(*) filter (where audit.outcome = 'unreachable'),
        'failed', count(*) filter (where audit.outcome = 'failed'),
        'deleted', count(*) filter (where audit.outcome = 'deleted'),
        'users', (select count(*) from auth.users),
        'users_without_org', (select count(*) from tenancy.users_without_org),
        'problems', coalesce(
            (
                select jsonb_agg(to_jsonb(problem))
                from (
                    select
                        user_problems.user_id,
                        user_problems.outcome,
                        user_problems.reason
                    from tenancy.user_problems
                    where user_problems.run_id = run.run_id
                    order by user_problems.user_id
                    limit 20
                ) as problem
            ),
            '[]'
        )
    )
    from tenancy.user_metadata_runs as run
    left join tenancy.user_metadata_audit as audit
        using (run_id)
    where run.run_id = user_run_summary.run_id
    group by run.run_id
$function$;
comment on function tenancy.user_run_summary(uuid) is
'The run so far, over all its calls: counts by outcome, and the first 20 users that it cannot or must not update, with the reason.';

create or replace function tenancy.user_run_preview(
    only_org_id uuid default null,
    on_conflict text default 'keep',
    reverted_run_id uuid default null
)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $function$
    select jsonb_build_object(
        'would_update', count(*) filter (where preview.outcome = 'pending'),
        'conflicts', count(*) filter (where preview.outcome = 'conflict'),
        'unreachable', count(*) filter (where preview.outcome = 'unreachable'),
        'users', (select count(*) from auth.users),
        'users_without_org', (select count(*) from tenancy.users_without_org)
    )
    from (
        select case
            when users_without_org.obstacle = 'conflict' and user_run_preview.on_conflict = 'overwrite' then 'pending'
            else coalesce(users_without_org.obstacle, 'pending')
        end as outcome
        from tenancy.users_without_org
        where user_run_preview.reverted_run_id is null
            and (only_org_id is null or users_without_org.org_id = only_org_id)

        union all

        select coalesce(users_to_revert.obstacle, 'pending')
        from tenancy.users_to_revert
        where users_to_revert.run_id = user_run_preview.reverted_run_id
    ) as preview
$function$;
comment on function tenancy.user_run_preview(uuid, text, uuid) is 'What a run of this request would do now; writes nothing.';

-- After the run -------------------------------------------------------------------------------------------------------

create or replace function tenancy.stale_sessions(jwt_expiry interval default '1 hour')
returns table (
    user_id uuid,
    session_id uuid,
    token_issued_at timestamptz,
    stale_until timestamptz
)
language sql
stable
security invoker
set search_path = ''
as $function$
    select
        sessions.user_id,
        sessions.id,
        token.issued_at,
        token.issued_at + jwt_expiry
    from auth.sessions
    join (
        select
            audit.user_id,
            max(audit.recorded_at) as at
        from tenancy.user_metadata_audit as audit
        where audit.outcome = 'updated'
        group by audit.user_id
    ) as changed
        on changed.user_id = sessions.user_id
    cross join lateral (
        -- The Auth server keeps refreshed_at in UTC, without saying so.
        select coalesce(sessions.refreshed_at at time zone 'utc', sessions.created_at) as issued_at
    ) as token
    where token.issued_at < changed.at
        and token.issued_at + jwt_expiry > now()
$function$;
comment on function tenancy.stale_sessions(interval) is
'Sessions whose access token was issued before their user''s app_metadata.org_id changed and has not expired: it lacks the'
' organization until it is refreshed, at stale_until at the latest. jwt_expiry is the project''s, see config.toml or the dashboard.'
' No row: policies may rely on the token.';

create or replace function tenancy.set_org_of_new_user()
returns trigger
language plpgsql
security definer
set search_path = ''
as $function$
begin
    if (select settings.assign_org_to_new_users from tenancy.settings)
        and coalesce(new.raw_app_meta_data ->> 'org_id', '') = ''
    then
        new.raw_app_meta_data := coalesce(nullif(new.raw_app_meta_data, 'null'), '{}')
            || jsonb_build_object('org_id', tenancy.org_of(new.id));
    end if;
    return new;
end
$function$;
comment on function tenancy.set_org_of_new_user() is
'Trigger function: gives a new user the organization of tenancy.org_of, while the setting is on. Security definer, because the Auth server inserts users'
' and may not read tenancy.';

create or replace function tenancy.assign_org_to_new_users()
returns void
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '1s'
as $function$
begin
    update tenancy.settings
    set assign_org_to_new_users = true;

    create or replace trigger assign_org_to_new_user
    before insert on auth.users
    for each row
    execute function tenancy.set_org_of_new_user();
end
$function$;
comment on function tenancy.assign_org_to_new_users() is
'Opt-in: from now on everyone who signs up gets the organization of tenancy.org_of, which is the default organization unless'
' tenancy.user_orgs has the user before. The risk: anyone who can sign up is then a member of it and sees its rows. Without this'
' trigger a new user has no organization and sees nothing. A sign-up fails if the trigger does. A user whom an administrator creates'
' with app_metadata has that, and no more. Locks auth.users for a moment, waiting a second at most.';

create or replace function tenancy.stop_assigning_org_to_new_users()
returns void
language sql
volatile
security invoker
set search_path = ''
as $function$
    update tenancy.settings
    set assign_org_to_new_users = false
$function$;
comment on function tenancy.stop_assigning_org_to_new_users() is
'Undo of assign_org_to_new_users. The trigger stays and does nothing, since dropping it takes the owner of auth.users.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;
