begin;
set local role postgres;
set local search_path = public, extensions;
select plan(18);

delete from tenancy.user_orgs;
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values
    ('00000000-0000-4000-8000-000000000003', 'b0000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000004', null);

-- As the Auth server does: it inserts the user, then writes app_metadata from memory, and commits.
create function pg_temp.create_user(number integer, app_metadata jsonb)
returns jsonb
language plpgsql
as $function$
declare
    new_id constant uuid := format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'));
begin
    set constraints all deferred;
    insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
    values (
        '00000000-0000-0000-0000-000000000000', new_id, 'authenticated', 'authenticated', format('new%s@example.com', number),
        '{"provider": "email"}'
    );
    update auth.users
    set raw_app_meta_data = app_metadata
    where users.id = new_id;
    set constraints all immediate;
    return (select raw_app_meta_data from auth.users where users.id = new_id);
end
$function$;
create function pg_temp.default_org()
returns jsonb
language sql
as $function$
    select jsonb_build_object('org_id', default_org_id)
    from tenancy.settings
$function$;

-- The default organization.
select tenancy.enable_new_users('default');
select lives_ok($$ select tenancy.enable_new_users('default') $$, 'new users are switched on, and again, to no effect');
select is(pg_temp.create_user(1, '{}'), pg_temp.default_org(), 'a new user keeps the organization through an empty app_metadata');
select is(
    pg_temp.create_user(2, '{"plan": "pro", "org_id": ""}'),
    pg_temp.default_org() || '{"plan": "pro"}',
    'and through one with other keys, which stay'
);
select is(
    pg_temp.create_user(3, '{}'),
    '{"org_id": "b0000000-0000-4000-8000-000000000001"}',
    'whom the mapping places keeps that'
);
select is(pg_temp.create_user(4, '{}'), '{}', 'and whom it says to be in none is in none');
select is(
    pg_temp.create_user(5, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
    '{"org_id": "b0000000-0000-4000-8000-000000000002"}',
    'an organization that the administrator names counts'
);
select is(pg_temp.create_user(6, null), pg_temp.default_org(), 'no app_metadata at all is as good as an empty one');

-- One of their own.
select tenancy.enable_new_users('personal');
create temp table created as
select pg_temp.create_user(7, '{}') as app_metadata;
select is(
    (select app_metadata from created),
    jsonb_build_object('org_id', tenancy.org_of('00000000-0000-4000-8000-000000000007')),
    'a new user keeps the personal organization'
);
select isnt(tenancy.org_of('00000000-0000-4000-8000-000000000007'), null, 'which is the one of the mapping');
select is(
    pg_temp.create_user(8, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
    '{"org_id": "b0000000-0000-4000-8000-000000000002"}',
    'one that the administrator names counts here too'
);
select is(
    tenancy.org_of('00000000-0000-4000-8000-000000000008'),
    'b0000000-0000-4000-8000-000000000002',
    'and the mapping follows it'
);

-- What the application gives.
select tenancy.enable_new_users('application');
select is(pg_temp.create_user(9, '{}'), '{}', 'where the application places them, nothing else does');

-- Who was anonymous, in no organization, and is no longer. The Auth server writes app_metadata from memory here, too.
create function pg_temp.add_address(number integer)
returns jsonb
language plpgsql
as $function$
declare
    new_id constant uuid := format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'));
begin
    insert into auth.users (instance_id, id, aud, role, raw_app_meta_data, is_anonymous)
    values ('00000000-0000-0000-0000-000000000000', new_id, 'authenticated', 'authenticated', '{}', true);
    set constraints all immediate;
    set constraints all deferred;
    update auth.users
    set is_anonymous = false
    where users.id = new_id;
    update auth.users
    set raw_app_meta_data = '{"provider": "email"}'
    where users.id = new_id;
    set constraints all immediate;
    return (select raw_app_meta_data from auth.users where users.id = new_id);
end
$function$;
select is(pg_temp.add_address(20), '{"provider": "email"}', 'nobody places who adds an address either');
select tenancy.enable_new_users('default');
select is(
    pg_temp.add_address(21),
    pg_temp.default_org() || '{"provider": "email"}',
    'an anonymous user who adds an address gets the organization of new users'
);
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000022', null);
select is(pg_temp.add_address(22), '{"provider": "email"}', 'not one whom the mapping says to be in none');
select tenancy.enable_new_users('personal');
create temp table linked as
select pg_temp.add_address(23) as app_metadata;
select is(
    (select app_metadata ->> 'org_id' from linked),
    (select org_id::text from tenancy.user_orgs where user_id = '00000000-0000-4000-8000-000000000023'),
    'or the personal one'
);
update auth.users
set raw_app_meta_data = '{}', is_anonymous = false
where id = '00000000-0000-4000-8000-000000000021';
select is(
    (select raw_app_meta_data from auth.users where id = '00000000-0000-4000-8000-000000000021'),
    '{}',
    'who is not anonymous is not a new user'
);

select tenancy.disable_new_users();
select is(pg_temp.create_user(10, '{}'), '{}', 'and nothing at all once it is switched off');

select * from finish();
rollback;
