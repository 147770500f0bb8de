begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);

insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000001');

create function pg_temp.org_id_after_sign_up(number integer, app_metadata jsonb)
returns text
language sql
as $function$
    insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
    values (
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', format('new%s@example.com', number), app_metadata
    )
    returning raw_app_meta_data ->> 'org_id'
$function$;

select is(
    pg_temp.org_id_after_sign_up(1, '{"provider": "email"}'),
    null,
    'a new user has no organization unless the operator decides otherwise'
);
select lives_ok($$ select tenancy.enable_new_users() $$, 'the operator can');
select lives_ok($$ select tenancy.enable_new_users() $$, 'and again, to no effect');
select is(
    pg_temp.org_id_after_sign_up(2, '{"provider": "email"}'),
    'b0000000-0000-4000-8000-000000000001',
    'then a new user gets the organization of the mapping'
);
select is(
    pg_temp.org_id_after_sign_up(3, null),
    (select default_org_id::text from tenancy.settings),
    'or the default organization, also without any metadata'
);
select is(
    pg_temp.org_id_after_sign_up(4, '{"org_id": "b0000000-0000-4000-8000-000000000009"}'),
    'b0000000-0000-4000-8000-000000000009',
    'and keeps one that came with the sign-up'
);
select lives_ok($$ select tenancy.disable_new_users() $$, 'the operator can take it back');
select is(
    pg_temp.org_id_after_sign_up(5, '{"provider": "email"}'),
    null,
    'and new users have no organization again'
);

select * from finish();
rollback;
