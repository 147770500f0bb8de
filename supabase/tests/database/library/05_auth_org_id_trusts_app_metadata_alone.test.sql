begin;
set local role postgres;
set local search_path = public, extensions;
select plan(16);
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

select has_function('public', 'auth_org_id', '{}'::name[], 'public.auth_org_id() exists');
select function_returns('public', 'auth_org_id', '{}'::name[], 'uuid', 'it returns uuid');
select is_empty(
    $$ select * from tenancy.foundation_findings where object = 'public.auth_org_id()' $$,
    'it can be trusted'
);

set local role authenticated;
set local request.jwt.claims = '{"app_metadata": {"org_id": "b0000000-0000-4000-8000-000000000001"}}';
select is(
    public.auth_org_id(),
    'b0000000-0000-4000-8000-000000000001'::uuid,
    'a signed-in user gets the organization in app_metadata'
);
set local request.jwt.claims = '{"app_metadata": {}, "user_metadata": {"org_id": "b0000000-0000-4000-8000-000000000001"}}';
select is(
    public.auth_org_id(),
    null,
    'user_metadata, which users write themselves, gives none'
);
set local request.jwt.claims = '{"app_metadata": {"org_id": "everything"}}';
select is(public.auth_org_id(), null, 'a claim that is no uuid gives none');
set local request.jwt.claims = '{"app_metadata": "org_id"}';
select is(public.auth_org_id(), null, 'app_metadata that is no object gives none');
set local request.jwt.claims = '';
select is(public.auth_org_id(), null, 'no token gives none');
set local role anon;
select is(public.auth_org_id(), null, 'anon gets none');

set local role postgres;
create or replace function public.auth_org_id()
returns uuid
language sql
stable
set search_path = ''
as $function$
    select coalesce(
        auth.jwt() -> 'app_metadata' ->> 'org_id',
        auth.jwt() -> 'user_metadata' ->> 'org_id'
    )::uuid
$function$;
select results_eq(
    $$ select code, severity from tenancy.foundation_findings $$,
    $$ values ('auth_org_id_wrong', 'stops') $$,
    'a function that falls back to user_metadata is found'
);
select throws_ok(
    $$ select tenancy.assert_registry() $$,
    '55000',
    null,
    'and stops the push'
);
select throws_matching(
    $$ select tenancy.assert_registry() $$,
    '\npublic\.auth_org_id\(\) returns [^\n]* for the organization in user_metadata and not NULL; [^\n]*\[auth_org_id_wrong\]$',
    'which says so'
);

create or replace function public.auth_org_id()
returns uuid
language sql
stable
set search_path = ''
as $function$
    select (auth.jwt() ->> 'org_id')::uuid
$function$;
select results_eq(
    $$ select code from tenancy.foundation_findings $$,
    $$ values ('auth_org_id_wrong') $$,
    'a function that reads another claim is found by what it returns'
);
select results_eq(
    $$ select check_name, passed from tenancy.verify_schema() where table_name is null and not passed $$,
    $$ values ('auth_org_id', false) $$,
    'and the last check of the push has it too'
);

create or replace function public.auth_org_id()
returns uuid
language sql
stable
set search_path = ''
as $function$
    select case
        when auth.jwt() #>> '{app_metadata,org_id}' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            then (auth.jwt() #>> '{app_metadata,org_id}')::uuid
    end
$function$;
select is(tenancy.failed_probes(), '{}', 'one that gives an organization for no other claim, and an error for none, passes every probe');
select is_empty(
    $$ select * from tenancy.foundation_findings $$,
    'one of the application''s own that reads app_metadata alone is trusted'
);

select * from finish();
rollback;
