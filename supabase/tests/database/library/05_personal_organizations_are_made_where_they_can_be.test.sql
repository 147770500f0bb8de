begin;
set local role postgres;
set local search_path = public, extensions;
select plan(15);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- An empty database: no table of the registry, and nobody to be given an organization.
delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users
set raw_app_meta_data = coalesce(raw_app_meta_data, '{}') || jsonb_build_object('org_id', (select default_org_id from tenancy.settings));
create function pg_temp.add_user(number integer, app_metadata jsonb, anonymous boolean default false)
returns void
language sql
as $function$
    insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data, is_anonymous)
    values (
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', case when not anonymous then format('own%s@example.com', number) end, app_metadata, anonymous
    )
$function$;
create function pg_temp.name_of(number integer)
returns text
language sql
as $function$
    select organizations.name::text
    from tenancy.user_orgs
    join public.organizations on organizations.id = user_orgs.org_id
    where user_orgs.user_id = format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;

select is(tenancy.create_personal_organizations(), 0::bigint, 'on an empty database there is nothing to do');
select is_empty($$ select from tenancy.user_orgs $$, 'and nothing is done');

-- The first users, as a seed inserts them.
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
select pg_temp.add_user(1, '{}');
select pg_temp.add_user(2, '{"org_id": "b0000000-0000-4000-8000-000000000001"}');
select pg_temp.add_user(3, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}');
select pg_temp.add_user(4, '{}', true);
select is(tenancy.create_personal_organizations(), 2::bigint, 'every user who is in none gets one');
select is(pg_temp.name_of(1), 'own1@example.com', 'which has their name');
select is(pg_temp.name_of(3), 'own3@example.com', 'also who comes with one that does not exist');
select is(pg_temp.name_of(2), null, 'not who is in one');
select is(pg_temp.name_of(4), null, 'nor an anonymous user');
select is(tenancy.create_personal_organizations(), 0::bigint, 'a second call finds nobody');
update tenancy.settings set new_users_anonymous = true;
select is(tenancy.create_personal_organizations(), 1::bigint, 'and anonymous users once they are asked for');

-- Where a row is in the default organization already, its owner cannot leave it.
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
insert into harbour.ships (id, user_id) values (1, '00000000-0000-4000-8000-000000000001');
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
delete from tenancy.user_orgs;
select lives_ok($$ select tenancy.create_personal_organizations() $$, 'before phase 2 there is no such row');
delete from tenancy.user_orgs;
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
update harbour.ships
set org_id = default_org_id
from tenancy.settings;
select throws_ok(
    $$ select tenancy.create_personal_organizations() $$,
    '55000',
    'rows of harbour.ships belong to the default organization already: personal organizations must be created before phase 2, or'
    ' after tenancy.roll_back(1)',
    'after it they are refused'
);

-- Who signed up after the mapping was made, and before new users were placed, gets theirs before the rows are decided.
update harbour.ships set org_id = null;
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000001');
select tenancy.enable_new_users('personal');
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
select results_eq(
    $$ select organizations.name::text from harbour.ships join public.organizations on organizations.id = ships.org_id $$,
    $$ values ('own1@example.com') $$,
    'the backfill finds nobody without one, where new users get their own'
);
select tenancy.disable_new_users();

-- Where organizations require more than a personal one has.
alter table public.organizations add column billing_email text not null default 'nobody@example.com';
select lives_ok($$ select tenancy.enable_new_users('personal') $$, 'a column that has a default is no obstacle');
alter table public.organizations alter column billing_email drop default;
select throws_ok(
    $$ select tenancy.enable_new_users('personal') $$,
    '55000',
    'public.organizations requires billing_email, so no personal organization can be made when somebody signs up: give that a default, or'
    ' choose application and make it yourself',
    'one that has none is, before anybody signs up'
);
select lives_ok($$ select tenancy.enable_new_users('application') $$, 'the application can make them itself');

select * from finish();
rollback;
