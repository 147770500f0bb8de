begin;
set local role postgres;
set local search_path = public, extensions;
select plan(9);
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000009', 'nine');
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id_of(number), 'b0000000-0000-4000-8000-000000000001'::uuid
from generate_series(1, 5) as number
union all
select pg_temp.id_of(number), null
from generate_series(6, 7) as number;
insert into auth.users (
    instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('finding%s@example.com', number), token, '', '', '', app_metadata::jsonb, '{}', now(), now()
from (
    values
        (1, '{"provider": "email"}', ''),
        (2, '{"org_id": "b0000000-0000-4000-8000-000000000009"}', ''),
        (3, '{}', null),
        (4, '{"org_id": "B0000000-0000-4000-8000-000000000001"}', ''),
        (5, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}', ''),
        (6, '{"provider": "email"}', ''),
        (7, '{"org_id": "b0000000-0000-4000-8000-000000000009"}', '')
) as users (number, app_metadata, token);

select results_eq(
    $$
        select right(object, 1), code, severity, table_name
        from tenancy.user_findings
        where object like '00000000-0000-4000-8000-00000000000_'
        order by object
    $$,
    $$
        values
            ('1', 'user_without_org', 'breaks', 'auth.users'),
            ('2', 'user_conflict', 'decide', 'auth.users'),
            ('3', 'user_unreachable', 'breaks', 'auth.users'),
            ('5', 'user_without_org', 'breaks', 'auth.users'),
            ('6', 'user_unplaced', 'decide', 'auth.users'),
            ('7', 'user_conflict', 'decide', 'auth.users')
    $$,
    'a user without organization, with another, with none that exists, in none, or out of reach is a finding'
);
select matches(
    (select problem from tenancy.findings where code = 'user_without_org'), '^for example, one has (no )?organization',
    'a finding of several users who lack different ones says one of them for example'
);
select is_empty(
    $$ select * from tenancy.user_findings where object = '00000000-0000-4000-8000-000000000004' $$,
    'one who has theirs is none, in whatever case it is written'
);
select is(
    (select remedy from tenancy.user_findings where object = '00000000-0000-4000-8000-000000000006'),
    'place the user in tenancy.user_orgs, or choose with tenancy.enable_new_users',
    'who is in none is to be placed, and not to be updated'
);
select is(
    (select problem from tenancy.user_findings where object = '00000000-0000-4000-8000-000000000005'),
    'has organization b0000000-0000-4000-8000-00000000dead, which does not exist, should have b0000000-0000-4000-8000-000000000001',
    'of an organization that is gone the finding says so, and which one the user should have'
);
select is(
    (select problem from tenancy.user_findings where object = '00000000-0000-4000-8000-000000000001'),
    'has no organization in app_metadata, should have b0000000-0000-4000-8000-000000000001',
    'of none that is there as well'
);
select bag_eq(
    $$ select code, severity from tenancy.findings where code like 'user\_%' and table_name = 'auth.users' $$,
    $$ select distinct code, severity from tenancy.user_findings $$,
    'tenancy.findings has them with the others, a row per code'
);
select is_empty(
    $$ select * from tenancy.push_findings where table_name = 'auth.users' and severity = 'stops' $$,
    'they stop no push, since the function comes after it'
);
update auth.users
set raw_app_meta_data = raw_app_meta_data || '{"org_id": "b0000000-0000-4000-8000-000000000001"}'
where id = pg_temp.id_of(1);
select is_empty(
    $$ select * from tenancy.user_findings where object = '00000000-0000-4000-8000-000000000001' $$,
    'who gets theirs is none any more'
);

select * from finish();
rollback;
