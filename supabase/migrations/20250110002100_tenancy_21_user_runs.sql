-- Purpose: phase 5: what the edge function update-user-org-metadata calls: runs, pages of users, their outcome.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation; app_metadata.org_id is one more key, and a run's previous values are in the audit.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.user_counts()
returns jsonb language sql stable security invoker set search_path = '' as $function$
    select jsonb_build_object(
        'users', (select count(*) from auth.users where users.deleted_at is null),
        'users_without_org', count(*) filter (where not users_without_org.on_purpose),
        'users_in_no_org',
        (select count(*) from tenancy.placed_users where placed_users.is_anonymous and placed_users.org_id is null)
        + count(*) filter (where users_without_org.on_purpose and not users_without_org.is_anonymous)
        - count(*) filter (where users_without_org.is_anonymous and users_without_org.org_id is null and not users_without_org.on_purpose)
    )
    from tenancy.users_without_org
$function$;
comment on function tenancy.user_counts() is
'Users: how many, without their organization in app_metadata, and in none on purpose (anonymous, or left out by the mapping).';

create or replace view tenancy.user_findings as
select
    case users_without_org.obstacle
        when 'conflict' then 'user_conflict'
        when 'unplaced' then 'user_unplaced'
        when 'unreachable' then 'user_unreachable'
        else 'user_without_org'
    end as code,
    case when users_without_org.obstacle in ('conflict', 'unplaced') then 'decide' else 'breaks' end as severity,
    users_without_org.user_id::text as object, 'auth.users' as table_name,
    users_without_org.reason as problem,
    case
        when users_without_org.obstacle is null then 'call the function update-user-org-metadata'
        when users_without_org.obstacle = 'unplaced' then 'place the user in tenancy.user_orgs, or choose with tenancy.enable_new_users'
        when users_without_org.obstacle = 'conflict' then format(
            'call the function with "on_conflict": "overwrite"%s, or place the user in tenancy.user_orgs',
            case when users_without_org.org_id = (select settings.default_org_id from tenancy.settings) then ', "move_to_default": true' end
        )
        else 'fix the named columns of the user (text: an empty string; a time: now(); identity_data: an object), then call the function update-user-org-metadata'
    end as remedy
from tenancy.users_without_org;
comment on view tenancy.user_findings is 'The rows of tenancy.users_without_org as findings.';

create or replace function tenancy.start_user_run(
    only_org_id uuid default null,
    on_conflict text default 'keep',
    reverted_run_id uuid default null,
    move_to_default boolean default false,
    anonymous text default 'include'
)
returns uuid language plpgsql volatile security invoker set search_path = '' as $function$
declare
    run uuid;
begin
    if not pg_try_advisory_lock(hashtext('tenancy.user_metadata_runs')) then
        return null;
    end if;

    select runs.run_id into run
    from tenancy.user_metadata_runs as runs
    where runs.finished_at is null
        and runs.only_org_id is not distinct from start_user_run.only_org_id
        and runs.on_conflict = start_user_run.on_conflict
        and runs.move_to_default = start_user_run.move_to_default
        and runs.anonymous = start_user_run.anonymous
        and runs.reverted_run_id is not distinct from start_user_run.reverted_run_id
    order by runs.started_at desc
    limit 1;

    if found then
        perform tenancy.settle_users(run, jsonb_agg(jsonb_build_object('user_id', audit.user_id, 'attempts', 0)))
        from tenancy.user_metadata_audit as audit
        where audit.run_id = run and audit.outcome = 'pending';

        -- Back to the first whom the call before claimed and did not deal with.
        update tenancy.user_metadata_runs as runs
        set last_user_id = coalesce(
            (
                select audit.user_id
                from tenancy.user_metadata_audit as audit
                where audit.run_id = run and audit.user_id < left_over.user_id
                order by audit.user_id desc
                limit 1
            ),
            '00000000-0000-0000-0000-000000000000'
        )
        from (
            select audit.user_id
            from tenancy.user_metadata_audit as audit
            where audit.run_id = run and audit.outcome = 'pending'
            order by audit.user_id
            limit 1
        ) as left_over
        where runs.run_id = run;
        return run;
    end if;

    if start_user_run.reverted_run_id is null and start_user_run.only_org_id is null and (select settings.new_users = 'personal' from tenancy.settings) then
        perform tenancy.create_personal_organizations();
    end if;
    insert into tenancy.user_metadata_runs (only_org_id, on_conflict, reverted_run_id, move_to_default, anonymous)
    values ($1, $2, $3, $4, $5)
    returning user_metadata_runs.run_id into run;
    return run;
end
$function$;
comment on function tenancy.start_user_run(uuid, text, uuid, boolean, text) is
'Takes the lock that keeps runs apart until this connection ends, and returns the unfinished run of the same request, or a new'
' one; with reverted_run_id, one that puts back what that run changed. Returns NULL while another connection has the lock.';

create or replace function tenancy.next_users(run tenancy.user_metadata_runs, page_size integer)
returns table (user_id uuid, current_value jsonb, new_value jsonb, outcome text, reason text)
-- One plan for all pages, which takes longer to make than a page of 100 users to read. By indexes alone, in their order, and one user after the
-- other: no page reads a table as a whole, also where that was almost empty when the plan was made.
language plpgsql stable security invoker
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_hashjoin = off set enable_mergejoin = off set enable_sort = off set enable_seqscan = off set jit = off as $function$
#variable_conflict use_column
declare
    default_org_id constant uuid := (select settings.default_org_id from tenancy.settings);
begin
    -- Two queries and not one over both lists, or none of them would be read in order and only as far as the page goes.
    if run.reverted_run_id is null then
        return query
        select
            lacking.user_id, lacking.current_value, to_jsonb(lacking.org_id),
            case
                when lacking.obstacle = 'conflict' and (
                    run.on_conflict = 'overwrite' and (run.move_to_default or lacking.org_id is distinct from default_org_id) or before.state = 'too late'
                ) then 'pending'
                else coalesce(lacking.obstacle, 'pending')
            end,
            lacking.reason
        from auth.users
        cross join lateral (
            select users_without_org.*
            from tenancy.users_without_org
            where users_without_org.user_id = users.id
            offset 0
        ) as lacking
        cross join lateral (
            -- No join, or it is one by run alone as long as nothing is known of a table that was empty a moment ago.
            select (
                select case
                    -- To a user who has been removed, or has switched, since they were claimed.
                    when audit.outcome = 'updated' and audit.new_value = lacking.current_value then 'too late'
                    when audit.outcome in ('conflict', 'unreachable', 'failed') then 'settled'
                end
                from tenancy.user_metadata_audit as audit
                where (audit.run_id, audit.user_id) = (run.run_id, lacking.user_id)
            ) as state
        ) as before
        where users.id > run.last_user_id
            and (lacking.org_id is not null or lacking.obstacle = 'conflict')
            and (run.anonymous = 'include' or lacking.is_anonymous = (run.anonymous = 'only'))
            and before.state is distinct from 'settled'
            and (run.only_org_id is null or lacking.org_id = run.only_org_id or before.state = 'too late')
        order by users.id
        limit page_size;
        return;
    end if;
    return query
    select
        changed.user_id, changed.current_value, changed.new_value, coalesce(changed.obstacle, 'pending'), changed.reason
    from tenancy.user_metadata_audit as written
    cross join lateral (
        select users_to_revert.*
        from tenancy.users_to_revert
        where (users_to_revert.run_id, users_to_revert.user_id) = (written.run_id, written.user_id)
        offset 0
    ) as changed
    where written.run_id = run.reverted_run_id
        and written.user_id > run.last_user_id
        and (
            select audit.outcome in ('conflict', 'unreachable', 'failed')
            from tenancy.user_metadata_audit as audit
            where (audit.run_id, audit.user_id) = (run.run_id, written.user_id)
        ) is not true
    order by written.user_id
    limit page_size;
end
$function$;
comment on function tenancy.next_users(tenancy.user_metadata_runs, integer) is
'The users behind the last one that the run has claimed, by id, with what it would give each. outcome: pending, or why the run leaves the user'
' alone. What it wrote itself too late it puts right, also where it keeps what others wrote. page_size NULL: all of them.';

create or replace function tenancy.claim_users(run_id uuid, page_size integer)
returns table (user_id uuid, current_value jsonb, new_value jsonb, outcome text, attempts integer)
language plpgsql volatile security invoker set search_path = '' as $function$
#variable_conflict use_column
declare
    run tenancy.user_metadata_runs;
begin
    select runs.* into run
    from tenancy.user_metadata_runs as runs
    where runs.run_id = claim_users.run_id;

    return query
    with page as materialized (
        select next_users.*
        from tenancy.next_users(run, page_size)
    ),
    moved as (
        update tenancy.user_metadata_runs as runs
        set last_user_id = last.user_id
        from (select page.user_id from page order by page.user_id desc limit 1) as last
        where runs.run_id = run.run_id
    ),
    claimed as (
        insert into tenancy.user_metadata_audit as audit (run_id, user_id, outcome, previous_value, new_value, error)
        select
            run.run_id, page.user_id, page.outcome, page.current_value, page.new_value,
            case when page.outcome <> 'pending' then page.reason end
        from page
        on conflict on constraint user_metadata_audit_pkey do update
        set
            outcome = excluded.outcome, new_value = excluded.new_value, error = excluded.error, recorded_at = excluded.recorded_at,
            -- What the run wrote itself, too late, was nobody's.
            previous_value = case
                when audit.outcome = 'updated' and audit.new_value is not distinct from excluded.previous_value then audit.previous_value
                else excluded.previous_value
            end
        returning audit.user_id, audit.attempts
    )
    select page.user_id, page.current_value, page.new_value, page.outcome, claimed.attempts
    from page
    join claimed on claimed.user_id = page.user_id;
end
$function$;
comment on function tenancy.claim_users(uuid, integer) is
'The next page of users that lack their organization, each with its audit row, by id, never by OFFSET.'
' Conflicts and unreachable users come settled. No row: the round is over.';

create or replace function tenancy.settle_users(run_id uuid, results jsonb)
returns table (user_id uuid, outcome text) language sql volatile security invoker set search_path = '' as $function$
    update tenancy.user_metadata_audit as audit
    set
        outcome = case
            when users.id is null then 'deleted'
            when lower(users.raw_app_meta_data ->> 'org_id') is not distinct from lower(audit.new_value #>> '{}') then 'updated'
            when users.deleted_at is not null then 'deleted'
            when result.error is not null and result.final then 'failed'
            else 'pending'
        end,
        attempts = audit.attempts + result.attempts,
        error = result.error,
        recorded_at = clock_timestamp()
    from jsonb_to_recordset(results) as result (user_id uuid, attempts integer, error text, final boolean)
    left join auth.users on users.id = result.user_id
    where audit.run_id = settle_users.run_id and audit.user_id = result.user_id
    returning audit.user_id, audit.outcome
$function$;
comment on function tenancy.settle_users(uuid, jsonb) is
'Settles claimed users by what auth.users holds now, and returns them with their outcome; results: [{user_id, attempts, error or'
' null, final}]. An error that is not final leaves the user pending, its attempts counted. Pending without an error is one whom the'
' Auth server said it updated and who is not: a 200 does not prove a write, and another write can undo ours.';

create or replace function tenancy.end_user_pass(run_id uuid)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update tenancy.user_metadata_runs as runs
    set pass = runs.pass + 1, last_user_id = default
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
'Called when claim_users returns nothing: starts another round while there are users to try (who signed up, or whose update was'
' lost, behind the run), three rounds in all; else ends the run. Returns true if it ended.';

create or replace function tenancy.users_remaining(run_id uuid)
returns bigint language sql stable security invoker set search_path = '' as $function$
    select count(*)
    from tenancy.user_metadata_runs as run
    cross join lateral (
        select
            users_without_org.user_id, users_without_org.current_value,
            run.only_org_id is null or users_without_org.org_id = run.only_org_id
        from tenancy.users_without_org
        where run.reverted_run_id is null
            and (users_without_org.org_id is not null or users_without_org.obstacle = 'conflict')
            and (run.anonymous = 'include' or users_without_org.is_anonymous = (run.anonymous = 'only'))
        union all
        select users_to_revert.user_id, null, true
        from tenancy.users_to_revert
        where users_to_revert.run_id = run.reverted_run_id
    ) as candidate (user_id, current_value, is_meant)
    left join tenancy.user_metadata_audit as audit on (audit.run_id, audit.user_id) = (run.run_id, candidate.user_id)
    where run.run_id = users_remaining.run_id
        and (candidate.is_meant or audit.new_value = candidate.current_value)
        and coalesce(audit.outcome, 'pending') not in ('conflict', 'unreachable', 'failed')
$function$;
comment on function tenancy.users_remaining(uuid) is 'How many users the run has still to try.';

create or replace function tenancy.user_run_summary(run_id uuid)
returns jsonb language sql stable security invoker set search_path = '' as $function$
    select jsonb_build_object(
        'run_id', run.run_id,
        'done', run.finished_at is not null,
        'remaining', tenancy.users_remaining(run.run_id),
        'updated', count(*) filter (where audit.outcome = 'updated'),
        'conflicts', count(*) filter (where audit.outcome = 'conflict'),
        'conflicts_with_default', count(*) filter (
            where audit.outcome = 'conflict' and run.reverted_run_id is null
                and audit.new_value = (select to_jsonb(settings.default_org_id) from tenancy.settings)
        ),
        'unreachable', count(*) filter (where audit.outcome = 'unreachable'),
        'failed', count(*) filter (where audit.outcome = 'failed'),
        'deleted', count(*) filter (where audit.outcome = 'deleted'),
        'problems', coalesce(
            (
                select jsonb_agg(to_jsonb(problem))
                from (
                    select user_problems.user_id, user_problems.outcome, user_problems.reason
                    from tenancy.user_problems
                    where user_problems.run_id = run.run_id
                    order by user_problems.user_id
                    limit 20
                ) as problem
            ),
            '[]'
        )
    ) || tenancy.user_counts()
    from tenancy.user_metadata_runs as run
    left join tenancy.user_metadata_audit as audit using (run_id)
    where run.run_id = user_run_summary.run_id
    group by run.run_id
$function$;
comment on function tenancy.user_run_summary(uuid) is
'The run so far, over all its calls: counts by outcome, and the first 20 users that it cannot or must not update, with the reason.';

create or replace function tenancy.user_run_preview(
    only_org_id uuid default null,
    on_conflict text default 'keep',
    reverted_run_id uuid default null,
    move_to_default boolean default false,
    anonymous text default 'include'
)
returns jsonb language sql stable security invoker set search_path = '' as $function$
    select jsonb_build_object(
        'would_update', count(*) filter (where preview.outcome = 'pending'),
        'conflicts', count(*) filter (where preview.outcome = 'conflict'),
        'conflicts_with_default', count(*) filter (
            where preview.outcome = 'conflict' and run.reverted_run_id is null
                and preview.new_value = (select to_jsonb(settings.default_org_id) from tenancy.settings)
        ),
        'unreachable', count(*) filter (where preview.outcome = 'unreachable')
    ) || tenancy.user_counts()
    from jsonb_populate_record(
        null::tenancy.user_metadata_runs,
        jsonb_build_object(
            'last_user_id', '00000000-0000-0000-0000-000000000000', 'only_org_id', only_org_id, 'on_conflict', on_conflict,
            'move_to_default', move_to_default, 'anonymous', anonymous, 'reverted_run_id', reverted_run_id
        )
    ) as run
    cross join lateral tenancy.next_users(run, null) as preview
$function$;
comment on function tenancy.user_run_preview(uuid, text, uuid, boolean, text) is 'What a run of this request would do now; writes nothing.';
