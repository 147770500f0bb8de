begin;
set local role postgres;
set local search_path = public, extensions;
select plan(27);
select tenancy.disable_new_table_check();
select tenancy.disable_new_users();
delete from tenancy.user_orgs;

create function pg_temp.org(number integer) returns uuid language sql as
$$ select format('b0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
create function pg_temp.person(number integer) returns uuid language sql as
$$ select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
insert into public.organizations (id, name) select pg_temp.org(number), 'org ' || number from generate_series(1, 3) as number;
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.person(users.number), 'authenticated', 'authenticated', format('member%s@example.com', users.number),
    users.metadata
from (
    values
        -- Placed by the claim alone, by nothing but the default organization, and by the mapping.
        (1, jsonb_build_object('theme', 'dark', 'org_id', pg_temp.org(1))), (2, '{"theme": "dark"}'), (3, '{}'),
        -- As the Auth server writes no metadata at all, and as an import may.
        (4, 'null'), (5, null), (6, '["a"]'), (7, '{}')
) as users (number, metadata);
insert into auth.sessions (id, user_id, created_at)
select gen_random_uuid(), pg_temp.person(number), now() - interval '1 minute' from generate_series(1, 7) as number;
create function pg_temp.metadata(number integer) returns jsonb language sql as
$$ select raw_app_meta_data from auth.users where id = pg_temp.person(number) $$;
create function pg_temp.default_org() returns uuid language sql as $$ select default_org_id from tenancy.settings $$;
create function pg_temp.is_stale(number integer) returns boolean language sql as
$$ select exists (select from tenancy.stale_sessions() where user_id = pg_temp.person(number)) $$;
select tenancy.enable_memberships();

-- Who is not in the mapping, as those who come later.
delete from tenancy.user_orgs;
insert into tenancy.memberships (user_id, org_id)
values
    (pg_temp.person(1), pg_temp.org(1)), (pg_temp.person(1), pg_temp.org(2)), (pg_temp.person(2), pg_temp.default_org()),
    (pg_temp.person(7), pg_temp.org(1));
select set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.person(1))::text, true);
select is(
    (select string_agg(name, ', ') from public.my_organizations() where is_active), 'org 1', 'the organization of a claim is the active one'
);
delete from tenancy.memberships where (user_id, org_id) = (pg_temp.person(1), pg_temp.org(2));
set constraints all immediate;
select is(tenancy.org_of(pg_temp.person(1)), pg_temp.org(1), 'who loses another one stays in it');
delete from tenancy.memberships where (user_id, org_id) = (pg_temp.person(1), pg_temp.org(1));
select is(tenancy.org_of(pg_temp.person(1)), null, 'who loses the one of their claim is in none');
select is(pg_temp.metadata(1), '{"theme": "dark"}', 'and so is the next token');
select ok(pg_temp.is_stale(1), 'the session from before is stale');
select is(tenancy.org_of(pg_temp.person(2)), pg_temp.default_org(), 'somebody is in the default organization by nothing else');
delete from tenancy.memberships where user_id = pg_temp.person(2);
select is(tenancy.org_of(pg_temp.person(2)), null, 'and in none after losing that');
delete from tenancy.memberships where user_id = pg_temp.person(7);
select is(tenancy.org_of(pg_temp.person(7)), pg_temp.default_org(), 'who loses one in which they never were stays where they are');
insert into tenancy.memberships (user_id, org_id) values (pg_temp.person(99), pg_temp.default_org());
delete from tenancy.memberships where user_id = pg_temp.person(99);
select is_empty($$ select from tenancy.user_orgs where user_id = pg_temp.person(99) $$, 'a user who is gone is not noted');

-- A deleted organization.
insert into tenancy.user_orgs (user_id, org_id, switched_at) values (pg_temp.person(3), pg_temp.org(3), null);
insert into tenancy.memberships (user_id, org_id) values (pg_temp.person(3), pg_temp.org(3));
update auth.users set raw_app_meta_data = jsonb_build_object('a', 1, 'org_id', upper(pg_temp.org(3)::text)) where id in (pg_temp.person(3), pg_temp.person(7));
select ok(not pg_temp.is_stale(3), 'nothing has changed for a user');
delete from public.organizations where id = pg_temp.org(3);
select is(tenancy.org_of(pg_temp.person(3)), null, 'until their organization is deleted');
select is(pg_temp.metadata(3), '{"a": 1}', 'which takes the claim');
select ok(pg_temp.is_stale(3), 'and makes the session stale');
select is(pg_temp.metadata(7), '{"a": 1}', 'and the claim of who was in it by that alone');
select ok(pg_temp.is_stale(7), 'whose session is stale, too');
insert into public.organizations (id, name) values (pg_temp.org(3), 'again');
select is(tenancy.org_of(pg_temp.person(7)), null, 'another one of that id is not theirs');

-- With the hook alone app_metadata may have had no claim.
insert into tenancy.memberships (user_id, org_id) values (pg_temp.person(3), pg_temp.org(3));
update tenancy.user_orgs set org_id = pg_temp.org(3), switched_at = null where user_id = pg_temp.person(3);
delete from public.organizations where id = pg_temp.org(3);
select ok(pg_temp.is_stale(3), 'a session is stale also of a member without claim');

-- Whatever app_metadata is. With a mapping a first membership places somebody.
insert into tenancy.user_orgs (user_id, org_id) values (gen_random_uuid(), pg_temp.org(2));
delete from tenancy.user_orgs where user_id = pg_temp.person(2);
insert into tenancy.memberships (user_id, org_id)
select pg_temp.person(number), pg_temp.org(1) from generate_series(4, 6) as number;
select is(pg_temp.metadata(4), jsonb_build_object('org_id', pg_temp.org(1)), 'the JSON null becomes an object');
select is(pg_temp.metadata(5), jsonb_build_object('org_id', pg_temp.org(1)), 'as no metadata does');
select is(pg_temp.metadata(6), '["a"]', 'and what is no object is left as it is');
update auth.users set raw_app_meta_data = 'null' where id = pg_temp.person(4);
select lives_ok($$ delete from tenancy.memberships where org_id = pg_temp.org(1) $$, 'of all of which a membership can be taken away');
select is(pg_temp.metadata(4), 'null', 'and where there is no claim nothing is written');

-- What is not ours.
create table public.guests (user_id uuid, org_id uuid);
create table public.staff (user_id uuid, org_id uuid, position text);
select tenancy.enable_memberships('public.guests');
select throws_ok(
    $$ select tenancy.enable_memberships('public.staff') $$, '55000',
    'memberships follow public.guests already: first select tenancy.disable_memberships(), which moves nobody', 'one table is followed, not two'
);
select lives_ok($$ select tenancy.enable_memberships('public.guests') $$, 'the same one may be named again');
alter table public.guests rename column user_id to guest;
insert into public.guests values (pg_temp.person(5), pg_temp.org(1));
select isnt_empty($$ select from tenancy.memberships where user_id = pg_temp.person(5) $$, 'its columns may be renamed');
select throws_ok($$ alter table public.guests drop column org_id $$, '2BP01', null, 'and are not dropped unseen');
select tenancy.disable_memberships();
create function public.switch_organization(org_id uuid) returns integer language sql as 'select 1';
select tenancy.disable_memberships();
select isnt(to_regprocedure('public.switch_organization(uuid)'), null, 'disable_memberships() takes no function of the application away');

select * from finish();
rollback;
