begin;
set local role postgres;
set local search_path = public, extensions;
select plan(20);

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values
    ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000010', null);

create function pg_temp.sign_up(number integer, app_metadata jsonb default '{"provider": "email"}', anonymous boolean default false)
returns text
language sql
as $function$
    insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data, is_anonymous)
    values (
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', case when not anonymous then format('new%s@example.com', number) end, app_metadata, anonymous
    )
    returning raw_app_meta_data ->> 'org_id'
$function$;

select is(pg_temp.sign_up(1), null, 'a new user has no organization unless the operator decides otherwise');
select throws_ok(
    $$ select tenancy.enable_new_users('everyone') $$,
    '22023',
    'new users cannot be ''everyone'': it is default (the default organization), personal (one of their own) or application (yours places'
    ' them)',
    'which is one of three'
);
select throws_ok($$ select tenancy.enable_new_users(null) $$, '22023', null, 'and has to be said');

-- The default organization.
select lives_ok($$ select tenancy.enable_new_users('default') $$, 'the operator can');
select lives_ok($$ select tenancy.enable_new_users('default') $$, 'and again, to no effect');
select is(
    pg_temp.sign_up(2),
    'b0000000-0000-4000-8000-000000000001',
    'then a new user gets the organization of the mapping'
);
select is(
    pg_temp.sign_up(3, null),
    (select default_org_id::text from tenancy.settings),
    'or the default organization, also without any metadata'
);
select is(
    pg_temp.sign_up(4, '{"org_id": "B0000000-0000-4000-8000-000000000002"}'),
    'B0000000-0000-4000-8000-000000000002',
    'and keeps one that came with the sign-up'
);
select is(
    pg_temp.sign_up(5, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}'),
    (select default_org_id::text from tenancy.settings),
    'unless there is none of that id'
);
select is(pg_temp.sign_up(6, '{"org_id": ""}'), (select default_org_id::text from tenancy.settings), 'or it is empty');
select is(pg_temp.sign_up(10), null, 'whom the mapping says to be in none is in none');
select is(pg_temp.sign_up(7, '{}', true), null, 'an anonymous user gets none');
select tenancy.enable_new_users('default', true);
select is(
    pg_temp.sign_up(8, '{}', true),
    (select default_org_id::text from tenancy.settings),
    'unless that is asked for'
);

-- One of their own.
select tenancy.enable_new_users('personal');
create temp table signed_up as
select pg_temp.sign_up(9) as org_id;
select is(
    (select org_id from signed_up),
    (select org_id::text from tenancy.user_orgs where user_id = '00000000-0000-4000-8000-000000000009'),
    'a new user gets a personal organization, in token and mapping alike'
);
select is(
    (
        select name::text
        from public.organizations
        join tenancy.user_orgs on user_orgs.org_id = organizations.id
        where user_orgs.user_id = '00000000-0000-4000-8000-000000000009'
    ),
    'new9@example.com',
    'which has their name'
);
select is(
    (select count(*)::integer from tenancy.user_orgs where org_id = (
        select org_id from tenancy.user_orgs where user_id = '00000000-0000-4000-8000-000000000009'
    )),
    1,
    'and nobody else'
);

-- What the application gives.
select tenancy.enable_new_users('application');
select is(pg_temp.sign_up(11), null, 'where the application places them, nothing else does');
select ok(
    tenancy.org_of('00000000-0000-4000-8000-000000000011') is null,
    'and they are in no organization until it has'
);

select tenancy.enable_new_users('default');
select lives_ok($$ select tenancy.disable_new_users() $$, 'the operator can take it back');
select is(pg_temp.sign_up(12), null, 'and new users have no organization again');

select * from finish();
rollback;
