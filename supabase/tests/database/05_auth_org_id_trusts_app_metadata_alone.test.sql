begin;
set local role postgres;
set local search_path = public, extensions;
select plan(11);

select has_function('public', 'auth_org_id', '{}'::name[], 'public.auth_org_id() exists');
select function_returns('public', 'auth_org_id', '{}'::name[], 'uuid', 'it returns uuid');
select is(
    tenancy.auth_org_id_problem(),
    null,
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
select matches(
    tenancy.auth_org_id_problem(),
    'reads user_metadata',
    'a function that falls back to user_metadata is found'
);
select throws_ok(
    $$ select tenancy.assert_registry() $$,
    '42P13',
    null,
    'and stops the push'
);

select * from finish();
rollback;
