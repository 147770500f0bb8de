begin;
set local role postgres;
set local search_path = public, extensions;
select plan(29);
select tenancy.disable_new_table_check();
delete from tenancy.user_orgs;

insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'), ('00000000-0000-4000-8000-000000000002', null);
insert into tenancy.memberships (user_id, org_id, role)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001', 'admin');

-- What the Auth server sends, and the claims that it gets.
create function pg_temp.token(number integer, metadata jsonb) returns jsonb language sql as $function$
    select tenancy.add_org_id_to_token(jsonb_build_object(
        'user_id', format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0')), 'authentication_method', 'password',
        'claims', jsonb_build_object('sub', number, 'app_metadata', metadata, 'of_another_hook', true)
    )) -> 'claims'
$function$;
create function pg_temp.callable() returns boolean language sql as $function$
    select has_schema_privilege('supabase_auth_admin', 'tenancy', 'usage')
        and has_function_privilege('supabase_auth_admin', 'tenancy.add_org_id_to_token(jsonb)', 'execute')
$function$;

select is(pg_temp.callable(), false, 'nobody calls it until it is enabled');
select is((select passed from tenancy.verify_schema() where check_name = 'token_hook'), true, 'which is as it should be then');
select tenancy.enable_token_hook();
select is(pg_temp.callable(), true, 'the Auth server does then');
select is(
    pg_temp.token(1, '{"provider": "email"}'),
    '{"sub": 1, "of_another_hook": true, "app_metadata": {"provider": "email", "org_id": "b0000000-0000-4000-8000-000000000001"}}',
    'it puts the organization into the token, beside all other claims'
);
select is(
    pg_temp.token(1, '{"org_id": "c0000000-0000-4000-8000-000000000009"}') #>> '{app_metadata,org_id}', 'b0000000-0000-4000-8000-000000000001',
    'instead of another that is stored'
);
select is(pg_temp.token(2, '{"org_id": "b0000000-0000-4000-8000-000000000001", "a": 1}') -> 'app_metadata', '{"a": 1}', 'takes it from who is in none');
select is(
    pg_temp.token(3, '{"org_id": "b0000000-0000-4000-8000-000000000001"}') #>> '{app_metadata,org_id}', 'b0000000-0000-4000-8000-000000000001',
    'keeps what is stored of who is not in user_orgs'
);
select is(pg_temp.token(3, '{}') -> 'app_metadata', '{}', 'and adds no default organization');
select is(pg_temp.token(1, null) #>> '{app_metadata,org_id}', 'b0000000-0000-4000-8000-000000000001', 'whatever app_metadata was');

update tenancy.settings set org_role = true;
select is(pg_temp.token(1, '{"org_role": "owner"}') #>> '{app_metadata,org_role}', 'admin', 'with the role, where that is wanted');
select is(pg_temp.token(2, '{"org_role": "owner"}') -> 'app_metadata', '{}', 'which goes with the organization');

alter table tenancy.memberships rename column role to position;
select is(
    pg_temp.token(1, '{"org_id": "b0000000-0000-4000-8000-000000000001", "a": 1}') -> 'app_metadata', '{"a": 1}',
    'an error inside gives the token without the claim, and fails nothing'
);
select is(pg_temp.token(1, '["a"]'), '{"sub": 1, "app_metadata": ["a"], "of_another_hook": true}', 'whatever app_metadata is');
alter table tenancy.memberships rename column position to role;

create temp table settings_before as select * from tenancy.settings;
delete from tenancy.settings;
select is(
    pg_temp.token(2, '{"org_id": "b0000000-0000-4000-8000-000000000001", "a": 1}') -> 'app_metadata', '{"a": 1}',
    'without the row of settings it still gives nobody what is stored'
);
insert into tenancy.settings select * from settings_before;

set local role authenticated;
select throws_ok($$ select tenancy.add_org_id_to_token('{}') $$, '42501', null, 'users cannot call it');
set local role postgres;

-- Hazards: while the hook is on, the Auth server calls it whatever became of it.
create function pg_temp.verified() returns boolean language sql as
$$ select passed from tenancy.verify_schema() where check_name = 'token_hook' $$;
select is(pg_temp.verified(), true, 'a hook that can be called is as it should be');
revoke execute on function tenancy.add_org_id_to_token(jsonb) from supabase_auth_admin;
select is(pg_temp.verified(), false, 'one that is revoked is found');
select matches(
    (select detail from tenancy.verify_schema() where check_name = 'token_hook'), 'so nobody signs in: select tenancy.enable_token_hook\(\), or',
    'with what to do'
);
select throws_like(
    $$ select org_migration.assert_finishable(true, true) $$, '%token_hook: supabase_auth_admin cannot call%', 'and the last step refuses'
);
select tenancy.enable_token_hook();
select is(pg_temp.verified(), true, 'enable_token_hook() puts it right');
revoke usage on schema tenancy from supabase_auth_admin;
select is(pg_temp.verified(), false, 'one whose schema is closed is found');
select tenancy.enable_token_hook();
alter function tenancy.add_org_id_to_token(jsonb) rename to add_it;
select is(pg_temp.verified(), false, 'one that is renamed is found');
select matches(
    (select detail from tenancy.verify_schema() where check_name = 'token_hook'), 'it is gone or renamed, so make it again, or',
    'with what to do'
);
alter function tenancy.add_it(jsonb) rename to add_org_id_to_token;
select is(pg_temp.verified(), true, 'and renamed back it is as it was');

select throws_like($$ select tenancy.roll_back(1) $$, 'cannot roll back to phase 1 while tokens get their organization%', 'roll_back refuses while it is on');
drop function tenancy.add_org_id_to_token(jsonb);
select is(pg_temp.verified(), false, 'one that is dropped is found');
select throws_like($$ select tenancy.roll_back(1) $$, 'cannot roll back to phase 1 while tokens get their organization%', 'roll_back refuses then, too');
select tenancy.disable_token_hook();
select is(pg_temp.verified(), true, 'until it is off');
select is(
    has_schema_privilege('supabase_auth_admin', 'tenancy', 'usage'), false, 'which also works without the function, and closes the schema'
);

select * from finish();
rollback;
