-- Purpose: phase 5: which users lack their organization in app_metadata, and the record of what the edge function does to them.
-- Touches: new objects in tenancy. Users are changed by the edge function update-user-org-metadata alone, through the Auth server.
-- Locks:   none that anyone waits for.
-- Undo:    none needed: app_metadata.org_id is one more key; a run's previous values are in tenancy.user_metadata_audit.

set lock_timeout = '1s';
set statement_timeout = '1min';

create or replace view tenancy.user_preflight as
select
    users.id as user_id,
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
    ) as reason
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
) as unreadable
where users.instance_id is distinct from '00000000-0000-0000-0000-000000000000'
    or unreadable.columns <> ''
    or jsonb_typeof(users.raw_app_meta_data) not in ('object', 'null')
    or jsonb_typeof(users.raw_user_meta_data) not in ('object', 'null');
comment on view tenancy.user_preflight is
'Users whom the Auth server''s admin API cannot update, and why: rows that were inserted by hand or by an import. Nobody can'
' sign in as one of them either. Mend the named columns (token columns: an empty string) and they count.';

create or replace view tenancy.users_without_org as
select
    users.id as user_id,
    users.raw_app_meta_data -> 'org_id' as current_value,
    tenancy.org_of(users.id) as org_id,
    case
        when user_preflight.reason is not null then 'unreachable'
        when users.raw_app_meta_data ->> 'org_id' is not null then 'conflict'
    end as obstacle,
    coalesce(
        user_preflight.reason,
        format('has organization %s already', users.raw_app_meta_data ->> 'org_id')
    ) as reason
from auth.users
left join tenancy.user_preflight
    on user_preflight.user_id = users.id
where lower(users.raw_app_meta_data ->> 'org_id') is distinct from tenancy.org_of(users.id)::text;
comment on view tenancy.users_without_org is
'Users whose app_metadata.org_id is not the organization that tenancy.org_of gives them. obstacle NULL: missing, an update mends'
' it; conflict: it is another, kept unless the run overwrites; unreachable: see tenancy.user_preflight.';

create table if not exists tenancy.user_metadata_runs (
    run_id uuid primary key default gen_random_uuid(),
    only_org_id uuid,
    on_conflict text not null check (on_conflict in ('keep', 'overwrite')),
    pass smallint not null default 1,
    last_user_id uuid not null default '00000000-0000-0000-0000-000000000000',
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);
comment on table tenancy.user_metadata_runs is
'The runs of the edge function. One run may take several calls: the next call with the same request goes on where this one stopped.';
comment on column tenancy.user_metadata_runs.only_org_id is 'Only the users of this organization; NULL: all.';
comment on column tenancy.user_metadata_runs.last_user_id is 'Users up to this id have been claimed in this pass.';

create table if not exists tenancy.user_metadata_audit (
    run_id uuid not null references tenancy.user_metadata_runs (run_id),
    user_id uuid not null,
    outcome text not null check (outcome in ('pending', 'updated', 'conflict', 'unreachable', 'failed', 'deleted')),
    previous_value jsonb,
    org_id uuid not null,
    attempts integer not null default 0,
    error text,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (run_id, user_id)
);
create index if not exists user_metadata_audit_user_id_idx on tenancy.user_metadata_audit (user_id);
comment on table tenancy.user_metadata_audit is
'What each run did to each user. The row is written before the user is touched, as pending, and settled by what auth.users holds'
' afterwards, so it tells the truth also when the function is killed between the two.';
comment on column tenancy.user_metadata_audit.outcome is
'pending: claimed, not settled. conflict: has another organization and was left alone. unreachable: see user_preflight.'
' failed: the last error is in error. deleted: gone before it could be updated.';
comment on column tenancy.user_metadata_audit.previous_value is 'app_metadata.org_id before the run; NULL where there was none.';

create or replace function tenancy.start_user_run(only_org_id uuid default null, on_conflict text default 'keep')
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
    order by runs.started_at desc
    limit 1;

    if found then
        perform tenancy.settle_users(run, jsonb_agg(jsonb_build_object('user_id', audit.user_id, 'attempts', 0)))
        from tenancy.user_metadata_audit as audit
        where audit.run_id = run
            and audit.outcome = 'pending';
        return run;
    end if;

    insert into tenancy.user_metadata_runs (only_org_id, on_conflict)
    values (start_user_run.only_org_id, start_user_run.on_conflict)
    returning user_metadata_runs.run_id into run;
    return run;
end
$function$;
comment on function tenancy.start_user_run(uuid, text) is
'Takes the lock that keeps runs apart until this connection ends, and returns the unfinished run of the same request, or a new'
' one. Returns NULL while another connection has the lock.';

create or replace function tenancy.claim_outcome(obstacle text, on_conflict text)
returns text
language sql
immutable
security invoker
set search_path = ''
as $function$
    select case
        when obstacle = 'conflict' and on_conflict = 'overwrite' then 'pending'
        else coalesce(obstacle, 'pending')
    end
$function$;
comment on function tenancy.claim_outcome(text, text) is 'How a user of tenancy.users_without_org enters a run: pending, conflict or unreachable.';

create or replace function tenancy.claim_users(run_id uuid, page_size integer)
returns table (
    user_id uuid,
    org_id uuid,
    outcome text,
    attempts integer
)
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
#variable_conflict use_column
declare
    run tenancy.user_metadata_runs;
begin
    select runs.*
    into run
    from tenancy.user_metadata_runs as runs
    where runs.run_id = claim_users.run_id;

    return query
    select
        audit.user_id,
        audit.org_id,
        audit.outcome,
        audit.attempts
    from tenancy.user_metadata_audit as audit
    where audit.run_id = run.run_id
        and audit.outcome = 'pending'
    order by audit.user_id
    limit page_size;

    if found then
        return;
    end if;

    return query
    with page as (
        select users_without_org.*
        from tenancy.users_without_org
        where users_without_org.user_id > run.last_user_id
            and users_without_org.org_id = coalesce(run.only_org_id, users_without_org.org_id)
            and not exists (
                select
                from tenancy.user_metadata_audit as audit
                where audit.run_id = run.run_id
                    and audit.user_id = users_without_org.user_id
                    and audit.outcome in ('conflict', 'unreachable', 'failed')
            )
        order by users_without_org.user_id
        limit page_size
    ),
    advanced as (
        update tenancy.user_metadata_runs as runs
        set last_user_id = (select page.user_id from page order by page.user_id desc limit 1)
        where runs.run_id = run.run_id
            and exists (select from page)
    )
    insert into tenancy.user_metadata_audit as audit (run_id, user_id, outcome, previous_value, org_id, error)
    select
        run.run_id,
        page.user_id,
        claimed.outcome,
        page.current_value,
        page.org_id,
        case when claimed.outcome <> 'pending' then page.reason end
    from page
    cross join lateral (
        select tenancy.claim_outcome(page.obstacle, run.on_conflict) as outcome
    ) as claimed
    on conflict on constraint user_metadata_audit_pkey do update
    set
        outcome = excluded.outcome,
        attempts = excluded.attempts,
        error = excluded.error,
        recorded_at = excluded.recorded_at
    returning
        audit.user_id,
        audit.org_id,
        audit.outcome,
        audit.attempts;
end
$function$;
comment on function tenancy.claim_users(uuid, integer) is
'The next page of users that lack their organization, each with its audit row: first what an earlier call left pending, then by'
' id, never by OFFSET. Conflicts and unreachable users come settled. No row: the pass is over.';

create or replace function tenancy.settle_users(run_id uuid, results jsonb)
returns setof uuid
language sql
volatile
security invoker
set search_path = ''
as $function$
    with settled as (
        update tenancy.user_metadata_audit as audit
        set
            outcome = case
                when users.id is null then 'deleted'
                when lower(users.raw_app_meta_data ->> 'org_id') = audit.org_id::text then 'updated'
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
            audit.outcome,
            audit.error
    )
    select settled.user_id
    from settled
    where settled.outcome = 'pending'
        and settled.error is null
$function$;
comment on function tenancy.settle_users(uuid, jsonb) is
'Settles claimed users by what auth.users holds now; results: [{user_id, attempts, error or null, final}]. An error that is not'
' final leaves the user pending, its attempts counted. Returns those that the Auth server said it updated and that are not: a 200'
' does not prove a write, and another write can undo ours.';

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
    join tenancy.users_without_org
        on users_without_org.org_id = coalesce(run.only_org_id, users_without_org.org_id)
    left join tenancy.user_metadata_audit as audit
        on audit.run_id = run.run_id
        and audit.user_id = users_without_org.user_id
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
                        audit.user_id,
                        audit.outcome,
                        audit.error as reason
                    from tenancy.user_metadata_audit as audit
                    where audit.run_id = run.run_id
                        and audit.outcome in ('conflict', 'unreachable', 'failed')
                    order by audit.user_id
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

create or replace function tenancy.user_run_preview(only_org_id uuid default null, on_conflict text default 'keep')
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
        select tenancy.claim_outcome(users_without_org.obstacle, user_run_preview.on_conflict) as outcome
        from tenancy.users_without_org
        where users_without_org.org_id = coalesce(only_org_id, users_without_org.org_id)
    ) as preview
$function$;
comment on function tenancy.user_run_preview(uuid, text) is 'What a run of this request would do now; writes nothing.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;
