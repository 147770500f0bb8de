-- Purpose: phase 5: what the edge function update-user-org-metadata calls: runs, pages of users, their outcome.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation; app_metadata.org_id is one more key, and a run's previous values are in the audit.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

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
returns uuid language plpgsql volatile security invoker set search_path = '' as $function$
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
    insert into tenancy.user_metadata_runs (only_org_id, on_conflict, reverted_run_id)
    values (start_user_run.only_org_id, start_user_run.on_conflict, start_user_run.reverted_run_id)
    returning user_metadata_runs.run_id into run;
    return run;
end
$function$;
comment on function tenancy.start_user_run(uuid, text, uuid) is
'Takes the lock that keeps runs apart until this connection ends, and returns the unfinished run of the same request, or a new'
' one; with reverted_run_id, one that puts back what that run changed. Returns NULL while another connection has the lock.';

create or replace function tenancy.next_users(run tenancy.user_metadata_runs, page_size integer)
returns tenancy.user_change[]
-- A plan for each page: how far it is from the end of the list is a parameter.
language plpgsql stable security invoker set search_path = '' set plan_cache_mode = force_custom_plan as $function$
begin
    -- Two queries and not one over both lists, or none of them would be read in order and only as far as the page goes.
    if run.reverted_run_id is null then
        return array(
            select row(
                users_without_org.user_id, users_without_org.current_value,
                to_jsonb(users_without_org.org_id),
                users_without_org.obstacle, users_without_org.reason
            )::tenancy.user_change
            from tenancy.users_without_org
            where users_without_org.user_id > run.last_user_id
                and users_without_org.org_id is not null
                and (run.only_org_id is null or users_without_org.org_id = run.only_org_id)
                and not exists (
                    select from tenancy.user_problems
                    where user_problems.run_id = run.run_id
                        and user_problems.user_id = users_without_org.user_id
                )
            order by users_without_org.user_id
            limit page_size
        );
    end if;
    return array(
        select row(
            users_to_revert.user_id, users_to_revert.current_value, users_to_revert.new_value,
            users_to_revert.obstacle, users_to_revert.reason
        )::tenancy.user_change
        from tenancy.users_to_revert
        where users_to_revert.run_id = run.reverted_run_id
            and users_to_revert.user_id > run.last_user_id
            and not exists (
                select from tenancy.user_problems
                where user_problems.run_id = run.run_id
                    and user_problems.user_id = users_to_revert.user_id
            )
        order by users_to_revert.user_id
        limit page_size
    );
end
$function$;
comment on function tenancy.next_users(tenancy.user_metadata_runs, integer) is
'The users behind the last one that the run has claimed, by id, with what it would give each.';

create or replace function tenancy.claim_users(run_id uuid, page_size integer)
returns table (user_id uuid, new_value jsonb, outcome text, attempts integer)
language plpgsql volatile security invoker set search_path = '' as $function$
#variable_conflict use_column
declare
    run tenancy.user_metadata_runs;
    page tenancy.user_change[];
begin
    select runs.*
    into run
    from tenancy.user_metadata_runs as runs
    where runs.run_id = claim_users.run_id;
    page := tenancy.next_users(run, page_size);

    update tenancy.user_metadata_runs as runs
    set last_user_id = page[cardinality(page)].user_id
    where runs.run_id = run.run_id and page <> '{}';

    return query
    insert into tenancy.user_metadata_audit as audit (run_id, user_id, outcome, previous_value, new_value, error)
    select
        run.run_id, claimed.user_id, claimed.outcome, claimed.current_value, claimed.new_value,
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
    returning audit.user_id, audit.new_value, audit.outcome, audit.attempts;
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
        select users_without_org.user_id
        from tenancy.users_without_org
        where run.reverted_run_id is null
            and users_without_org.org_id is not null
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
returns jsonb language sql stable security invoker set search_path = '' as $function$
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
                    select user_problems.user_id, user_problems.outcome, user_problems.reason
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
returns jsonb language sql stable security invoker set search_path = '' as $function$
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
            and users_without_org.org_id is not null
            and (only_org_id is null or users_without_org.org_id = only_org_id)
        union all
        select coalesce(users_to_revert.obstacle, 'pending')
        from tenancy.users_to_revert
        where users_to_revert.run_id = user_run_preview.reverted_run_id
    ) as preview
$function$;
comment on function tenancy.user_run_preview(uuid, text, uuid) is 'What a run of this request would do now; writes nothing.';
