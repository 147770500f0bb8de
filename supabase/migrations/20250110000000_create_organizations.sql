-- Purpose: what the plan takes for granted: public.organizations, the default organization and public.auth_org_id().
-- Touches: creates what is missing; what the application has of them already stays as it is.
-- Locks:   none that last. The policy on a new table makes the platform lock its auth tables, so it waits 100 ms at most.
-- Undo:    tenancy.roll_back leaves these three; drop them by hand if nothing else uses them.

do $auth_org_id$
begin
    if to_regprocedure('public.auth_org_id()') is null then
        create function public.auth_org_id()
        returns uuid
        language sql
        stable
        security invoker
        set search_path = ''
        as $function$
            select case
                when claim ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then claim::uuid
            end
            from (
                select nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{app_metadata,org_id}'
            ) as token (claim)
        $function$;

        comment on function public.auth_org_id() is
        'The organization of the request''s JWT, from app_metadata.org_id alone: users can write user_metadata themselves.'
        ' NULL without a token, without the claim, or when the claim is no uuid; NULL sees and inserts nothing.'
        ' It is the default of every org_id, evaluated as whoever inserts, so every role may call it.';

        revoke execute on function public.auth_org_id() from public;
        grant execute on function public.auth_org_id() to public;
    elsif (
        select function.prorettype <> 'uuid'::regtype
        from pg_catalog.pg_proc as function
        where function.oid = to_regprocedure('public.auth_org_id()')
    ) then
        raise exception 'public.auth_org_id() cannot be the default of org_id: it must return uuid'
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

    if not exists (
        select
        from pg_catalog.pg_class as organizations
        join pg_catalog.pg_attribute as id
            on id.attrelid = organizations.oid
            and id.attname = 'id'
            and id.atttypid = 'uuid'::regtype
        join pg_catalog.pg_index as unique_index
            on unique_index.indrelid = organizations.oid
            and unique_index.indkey[0] = id.attnum
        where organizations.oid = to_regclass('public.organizations')
            and organizations.relkind = 'r'
            and unique_index.indnkeyatts = 1
            and unique_index.indisunique
            and unique_index.indimmediate
            and unique_index.indisvalid
            and unique_index.indpred is null
    ) then
        raise exception 'public.organizations cannot be referenced: it must be a table with a unique column id of type uuid'
        using
            errcode = 'invalid_foreign_key',
            schema = 'public',
            table = 'organizations',
            column = 'id';
    end if;
end
$organizations$;

do $default_organization$
declare
    default_org_id constant uuid := 'a0000000-0000-0000-0000-000000000001';
    named boolean;
    required_columns text;
begin
    if exists (select from public.organizations where id = default_org_id) then
        return;
    end if;

    select
        coalesce(bool_or(attribute.attname = 'name'), false),
        string_agg(format('%I', attribute.attname), ', ' order by attribute.attnum) filter (
            where attribute.attname not in ('id', 'name')
                and attribute.attnotnull
                and not attribute.atthasdef
                and attribute.attidentity = ''
        )
    into
        named,
        required_columns
    from pg_catalog.pg_attribute as attribute
    where attribute.attrelid = 'public.organizations'::regclass
        and attribute.attnum > 0
        and not attribute.attisdropped;

    if required_columns is not null then
        raise exception 'the default organization % cannot be created: public.organizations requires %',
            default_org_id,
            required_columns
        using
            errcode = 'not_null_violation',
            detail = format(
                'Insert it yourself, then push again: insert into public.organizations (id, %s%s) values (%L, …);',
                case when named then 'name, ' end,
                required_columns,
                default_org_id
            );
    end if;

    execute format(
        'insert into public.organizations (id%s) values ($1%s) on conflict do nothing',
        case when named then ', name' end,
        case when named then ', ''Default organization''' end
    )
    using default_org_id;
end
$default_organization$;
