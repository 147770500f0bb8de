begin;
set local role postgres;
set local search_path = public, extensions;
select plan(26);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
values (
    '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000001', 'authenticated', 'authenticated',
    'probe@example.com', '{}'
);
create schema harbour;
create table harbour.members (user_id uuid primary key, org_id uuid);
insert into harbour.members (user_id, org_id)
values ('00000000-0000-0000-0000-000000000001', 'b0000000-0000-4000-8000-000000000001');

create function pg_temp.problems(body text, language_name text default 'sql')
returns text
language plpgsql
as $function$
begin
    execute format(
        'create or replace function public.auth_org_id() returns uuid language %I stable set search_path = '''' as %L', language_name, body
    );
    return regexp_replace(array_to_string(tenancy.failed_probes(), ', '), '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'an organization', 'g');
end
$function$;
create function pg_temp.foundation()
returns text
language sql
as $function$
    select string_agg(code || ' ' || severity, ', ')
    from tenancy.foundation_findings
    where object = 'public.auth_org_id()'
$function$;

select is(tenancy.failed_probes(), '{}', 'the one that is there passes every probe');

-- Whom they trust.
select is(
    pg_temp.problems($$
        select coalesce(
            case when auth.jwt() #>> '{app_metadata,org_id}' ~ '^[0-9a-f-]{36}$' then auth.jwt() #>> '{app_metadata,org_id}' end,
            auth.jwt() #>> '{user_metadata,org_id}'
        )::uuid
    $$),
    'returns an organization for the organization in user_metadata',
    'a fallback to user_metadata is found'
);
select is(pg_temp.foundation(), 'auth_org_id_wrong stops', 'and stops the push');
select matches(
    pg_temp.problems($$ select nullif(auth.jwt() ->> 'org_id', '')::uuid $$),
    'returns an organization for the right claim.*returns an organization for the organization outside app_metadata',
    'a claim at the top is found'
);
select is(
    pg_temp.problems($$
        select coalesce(
            case when auth.jwt() #>> '{app_metadata,org_id}' ~ '^[0-9a-f-]{36}$' then auth.jwt() #>> '{app_metadata,org_id}' end,
            nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-org-id'
        )::uuid
    $$),
    'returns an organization for the organization in a request header',
    'a header is found where the claim is missing'
);
select matches(
    pg_temp.problems($$ select (nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-org-id')::uuid $$),
    'returns an organization for the right claim',
    'and where it is there'
);
select matches(
    pg_temp.problems($$ select 'a0000000-0000-0000-0000-000000000001'::uuid $$),
    'for an empty token.*for no token',
    'a constant is found'
);
select matches(
    pg_temp.problems($$ select members.org_id from harbour.members where members.user_id = auth.uid() $$),
    'returns an organization for the id of a user alone',
    'a look into a table of members is found, by the users that there are'
);
select is(
    pg_temp.problems($$
        select coalesce(
            case when auth.jwt() #>> '{app_metadata,org_id}' ~ '^[0-9a-f-]{36}$' then (auth.jwt() #>> '{app_metadata,org_id}')::uuid end,
            (select members.org_id from harbour.members where members.user_id::text = auth.jwt() ->> 'sub')
        )
    $$),
    'returns an organization for the id of a user alone',
    'also where it is the last resort'
);

-- What they raise.
select matches(
    pg_temp.problems($$ select nullif(auth.jwt() #>> '{app_metadata,org_id}', '')::uuid $$),
    '^raises "[^"]*"default"" for the claim "default", raises [^,]* for a claim that is no text$',
    'a cast that nobody guards is found by the claim "default"'
);
select is(pg_temp.foundation(), null, 'which no query can try');
select results_eq(
    $$ select passed, detail like '%raises%' from tenancy.verify_schema() where check_name = 'auth_org_id' $$,
    $$ values (false, true) $$,
    'and the last check of the push does'
);
select matches(
    pg_temp.problems($$
        select case
            when current_setting('request.jwt.claims', true)::jsonb #>> '{app_metadata,org_id}' ~ '^[0-9a-f-]{36}$'
                then (current_setting('request.jwt.claims', true)::jsonb #>> '{app_metadata,org_id}')::uuid
        end
    $$),
    '^raises "[^,]*" for no token$',
    'one without nullif is found by the missing token'
);
select matches(
    pg_temp.problems($$
        begin
            if auth.jwt() is null then
                raise exception 'sign in first';
            end if;
            return case when auth.jwt() #>> '{app_metadata,org_id}' ~ '^[0-9a-f-]{36}$' then (auth.jwt() #>> '{app_metadata,org_id}')::uuid end;
        end
    $$, 'plpgsql'),
    '^raises "sign in first" for no token$',
    'and so is one that raises on purpose'
);
select matches(
    pg_temp.problems($$
        declare org uuid;
        begin
            select members.org_id into strict org from harbour.members where members.user_id = auth.uid();
            return org;
        end
    $$, 'plpgsql'),
    'raises "query returned no rows" for an empty token', 'one that looks for a row that must be there raises without one'
);
select is(pg_temp.foundation(), null, 'no query tries that');
select throws_like(
    $$ select org_migration.assert_foundation() $$, '%public.auth_org_id() %raises "query returned no rows"%[auth\_org\_id\_wrong]', 'and the push names it'
);

-- Beside another one.
select pg_temp.problems($$ select null::uuid $$);
create function public.auth_org_id(claim text)
returns uuid
language sql
as $function$ select null::uuid $function$;
select is(pg_temp.foundation(), 'auth_org_id_wrong stops', 'one of the same name that needs an argument is told from it');
create function public.auth_org_id(claim text, variadic others text[] default '{}')
returns uuid
language sql
as $function$ select null::uuid $function$;
select is(pg_temp.foundation(), 'auth_org_id_wrong stops', 'also where the second one has a default');
drop function public.auth_org_id(text), public.auth_org_id(text, text[]);
create function public.auth_org_id(claim text default null)
returns uuid
language sql
as $function$ select null::uuid $function$;
select throws_ok('select public.auth_org_id()', '42725', null, 'with a default for it PostgreSQL does not know which one is meant');
select is(pg_temp.foundation(), 'auth_org_id_ambiguous stops', 'which stops the push');
select throws_like(
    $$ select org_migration.assert_foundation() $$, '%public.auth_org_id() %beside public.auth_org_id(text), %drop function%[auth\_org\_id\_ambiguous]', 'by name, and alone'
);
drop function public.auth_org_id(text);

-- What passes.
select is(
    pg_temp.problems($$
        select case when claim ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then claim::uuid end
        from (select nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{app_metadata,org_id}' as claim) as token
    $$),
    '',
    'one with nullif and a guarded cast passes'
);
select is(
    pg_temp.problems($$
        -- Never user_metadata, x-org-id or a table of members: users write user_metadata themselves.
        select case when claim ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then claim::uuid end
        from (select auth.jwt() #>> '{app_metadata,org_id}' as claim) as token
    $$),
    '',
    'and so does one whose comment says user_metadata'
);
select is(pg_temp.foundation(), null, 'for the words of a function say nothing about it');
set local request.jwt.claims = '{"sub": "1"}';
select tenancy.failed_probes();
select is(current_setting('request.jwt.claims'), '{"sub": "1"}', 'after the probes the request is what it was');

select * from finish();
rollback;
