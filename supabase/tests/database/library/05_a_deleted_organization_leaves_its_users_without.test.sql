begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into auth.users (
    instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('left%s@example.com', number), '', '', '', '', app_metadata::jsonb, '{}', now(), now()
from (
    values
        (1, '{"org_id": "b0000000-0000-4000-8000-000000000001"}'),
        (2, '{"org_id": "B0000000-0000-4000-8000-000000000001"}'),
        (3, '{}'),
        (4, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
        (5, '{}'),
        (6, '{"org_id": "b0000000-0000-4000-8000-000000000001"}')
) as users (number, app_metadata);
create function pg_temp.orgs(variadic numbers integer[])
returns text
language sql
as $function$
    select string_agg(coalesce(right(org_id::text, 1) || left(org_id::text, 1), '-'), ' ' order by position)
    from unnest(numbers) with ordinality as listed (number, position)
    cross join lateral tenancy.org_of(pg_temp.id_of(number)) as org_id
$function$;

-- Users 1 and 2 are in it by their claim alone.
select is(pg_temp.orgs(1, 2, 4, 5), '1b 1b 2b 1a', 'while it is there its users are in it');
grant select, delete on public.organizations to service_role;
set local role service_role;
select lives_ok(
    $$ delete from public.organizations where id = 'b0000000-0000-4000-8000-000000000001' $$,
    'whoever may delete an organization can'
);
set local role postgres;
select is(pg_temp.orgs(1, 2), '- -', 'then its users are in none, and not in the default one');
select is(pg_temp.orgs(4), '2b', 'those of others stay where they are');
select is(pg_temp.orgs(5), '1a', 'and who was in the default one is, since nobody has made a mapping');
select results_eq(
    $$
        select right(user_id::text, 1), obstacle
        from tenancy.users_without_org
        where user_id in (pg_temp.id_of(1), pg_temp.id_of(2), pg_temp.id_of(4))
        order by 1
    $$,
    $$ values ('1', 'unplaced'), ('2', 'unplaced') $$,
    'and are named'
);
select tenancy.enable_new_users('default');
select is(pg_temp.orgs(1, 2, 5), '- - 1a', 'they are not new users either');
insert into tenancy.user_orgs (user_id, org_id) values (pg_temp.id_of(4), 'b0000000-0000-4000-8000-000000000002');
select lives_ok($$ select tenancy.create_personal_organizations() $$, 'personal organizations are made');
select is(pg_temp.orgs(1, 2), '- -', 'and not for them');

-- By the mapping.
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000003', 'three');
insert into tenancy.user_orgs (user_id, org_id)
values (pg_temp.id_of(3), 'b0000000-0000-4000-8000-000000000003')
on conflict (user_id) do update set org_id = excluded.org_id;
select is(pg_temp.orgs(3), '3b', 'whom the mapping places is there');
delete from public.organizations where id = 'b0000000-0000-4000-8000-000000000003';
select is(pg_temp.orgs(3), '-', 'and in none once that is deleted');
update tenancy.user_orgs
set org_id = 'b0000000-0000-4000-8000-000000000002'
where user_id in (pg_temp.id_of(1), pg_temp.id_of(3));
select is(pg_temp.orgs(1, 3), '2b 2b', 'until somebody places them');

select * from finish();
rollback;
