-- Purpose: what the plan takes for granted: public.organizations and public.auth_org_id(). The list's file adds the default organization.
-- Touches: creates what is missing; what the application has of them already stays as it is.
-- Locks:   none that last. The policy on a new table makes the platform lock its auth tables, so it waits 100 ms at most.
-- Undo:    tenancy.roll_back leaves these two; drop them by hand if nothing else uses them.

set search_path = '';

do $auth_org_id$
begin
    if to_regprocedure('public.auth_org_id()') is null then
        -- PostgreSQL 15 cannot tell text that is no JSON without an error. The types are qualified: with an empty search_path, pg_temp is
        -- looked at first.
        execute format(
            $create$
                create function public.auth_org_id()
                returns uuid language sql stable parallel safe security invoker set search_path = '' as $function$
                    select case
                        when claim ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then claim::pg_catalog.uuid
                    end
                    from (
                        select case when %s then nullif(claims, '')::pg_catalog.jsonb #>> '{app_metadata,org_id}' end
                        from (select current_setting('request.jwt.claims', true)) as request (claims)
                    ) as token (claim)
                $function$
            $create$,
            case when current_setting('server_version_num')::integer >= 160000 then $guard$pg_input_is_valid(claims, 'jsonb')$guard$ else 'true' end
        );

        comment on function public.auth_org_id() is
        'The organization of the request''s JWT, from app_metadata.org_id alone: users can write user_metadata themselves.'
        ' NULL without a token, without the claim, or when the claim is no uuid; NULL sees and inserts nothing.'
        ' It is the default of every org_id, evaluated as whoever inserts, so every role may call it.';

        revoke execute on function public.auth_org_id() from public;
        grant execute on function public.auth_org_id() to public;
    elsif (select prorettype <> 'uuid'::regtype from pg_catalog.pg_proc where oid = to_regprocedure('public.auth_org_id()')) then
        raise exception 'public.auth_org_id() cannot be the default of org_id: it must return uuid; replace it by one that returns uuid'
            ' [auth_org_id_not_uuid]'
        using errcode = 'datatype_mismatch';
    end if;
end
$auth_org_id$;

do $organizations$
declare
    attempt integer := 1;
begin
    if to_regclass('public.organizations') is null then
        create table public.organizations (
            id uuid primary key default gen_random_uuid(),
            name text not null,
            created_at timestamptz not null default now()
        );
        comment on table public.organizations is
        'The tenants. Every org-scoped row and every user belongs to one; deleting one deletes its rows.';

        alter table public.organizations enable row level security;
        revoke all on public.organizations from public, anon, authenticated, service_role;
        grant select on public.organizations to authenticated;
        grant select, insert, update, delete on public.organizations to service_role;

        perform set_config('lock_timeout', '100ms', true);
        loop
            begin
                create policy "members read their organization" on public.organizations
                for select
                to authenticated
                using (id = (select public.auth_org_id()));
                exit;
            exception
                when lock_not_available then
                    if attempt = 20 then
                        raise;
                    end if;
                    perform pg_sleep(0.1 * attempt * (0.5 + random()));
                    attempt := attempt + 1;
            end;
        end loop;
    end if;
end
$organizations$;
