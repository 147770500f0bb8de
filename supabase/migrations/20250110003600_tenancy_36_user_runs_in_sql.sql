-- Purpose: phase 5, for who asks for it: a run that writes app_metadata.org_id in the database, without the Auth server.
-- Touches: new objects in the schema tenancy only. Nothing is run: the edge function calls it in the mode "sql".
-- Locks:   none that anyone waits for. A run holds the users of a page, 500 rows, for milliseconds.
-- Undo:    as tenancy_01_foundation; a run's previous values are in the audit.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.write_users(run_id uuid, page_size integer)
returns table (claimed integer, settled integer, failed integer)
language plpgsql volatile security invoker set search_path = '' set lock_timeout = '2s' as $function$
declare
    page uuid[];
    -- What each of them had when they were claimed.
    found jsonb[];
    batch_start integer := 1;
    batch_size integer;
    errors jsonb := '{}';
begin
    select
        count(*), coalesce(array_agg(claim.user_id order by claim.user_id) filter (where claim.outcome = 'pending'), '{}'),
        array_agg(claim.current_value order by claim.user_id) filter (where claim.outcome = 'pending')
    into claimed, page, found
    from tenancy.claim_users(write_users.run_id, write_users.page_size) as claim;

    batch_size := cardinality(page);
    while batch_start <= cardinality(page) loop
        begin
            update auth.users
            set raw_app_meta_data = case
                when audit.new_value is null then users.raw_app_meta_data - 'org_id'
                else coalesce(nullif(users.raw_app_meta_data, 'null'), '{}') || jsonb_build_object('org_id', audit.new_value)
            end
            from unnest(page[batch_start : batch_start + batch_size - 1], found[batch_start : batch_start + batch_size - 1]) as batch (user_id, value)
            join tenancy.user_metadata_audit as audit on audit.run_id = write_users.run_id and audit.user_id = batch.user_id
            where users.id = batch.user_id
                -- Whoever has been given another value since is claimed again by the next round.
                and users.raw_app_meta_data -> 'org_id' is not distinct from batch.value
                and coalesce(jsonb_typeof(users.raw_app_meta_data), 'null') in ('object', 'null');
            batch_start := batch_start + batch_size;
        exception
            -- A user who is locked, or whom a trigger of the application refuses: then one by one, so that it is that user's error alone.
            when others then
                if batch_size = 1 then
                    errors := errors || jsonb_build_object(page[batch_start]::text, sqlerrm);
                    batch_start := batch_start + 1;
                end if;
                batch_size := 1;
                perform set_config('lock_timeout', '50ms', true);
        end;
    end loop;

    select claimed - cardinality(page) + count(*) filter (where result.outcome <> 'pending'), count(*) filter (where result.outcome = 'failed')
    into settled, failed
    from tenancy.settle_users(write_users.run_id, (
        select jsonb_agg(jsonb_build_object(
            'user_id', audit.user_id, 'attempts', 0, 'final', runs.pass = 3,
            'error', case
                when lower(users.raw_app_meta_data ->> 'org_id') is distinct from lower(audit.new_value #>> '{}')
                    then coalesce(errors ->> audit.user_id::text, 'not written: somebody else changed the organization, or a trigger on auth.users did')
            end
        ))
        from tenancy.user_metadata_audit as audit
        join tenancy.user_metadata_runs as runs on runs.run_id = audit.run_id
        left join auth.users on users.id = audit.user_id
        where audit.run_id = write_users.run_id and audit.user_id = any (page)
    )) as result;
    return next;
end
$function$;
comment on function tenancy.write_users(uuid, integer) is
'The mode "sql" of the edge function: claims the next page of users, writes their app_metadata.org_id by one update, and settles them, all in'
' one transaction. It changes no other key and no other column, and nobody whose organization has changed since it was claimed. It waits two'
' seconds at most for users whom others have locked; whom it cannot write fails in the third round. claimed 0: the round is over.';
