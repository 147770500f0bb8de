begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where raw_app_meta_data ? 'org_id';
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
values ('00000000-0000-0000-0000-000000000000', pg_temp.id_of(1), 'authenticated', 'authenticated', 'customers1@example.com', '{}');
insert into public.organizations (id, name)
values (pg_temp.id_of(11), 'a tenant'), (pg_temp.id_of(21), 'a customer of a tenant');

create schema harbour;
create table harbour.deals (id integer primary key, user_id uuid, customer_id uuid references public.organizations (id));
create table harbour.visits (id integer primary key, user_id uuid, customer_id uuid references public.organizations (id));
create table harbour.ships (id integer primary key, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'deals', 'org', 'secondary'), ('harbour', 'visits', 'org', 'secondary'), ('harbour', 'ships', 'org', 'secondary');
create function pg_temp.found()
returns text
language sql
as $function$
    select string_agg(format('%s %s [%s] %s', object, problem, code, severity), E'\n' order by object)
    from org_migration.source_findings
    where code = 'organizations_without_users'
$function$;

select is(pg_temp.found(), null, 'where no row names an organization, none is without users');
insert into harbour.deals (id, user_id, customer_id)
values (1, pg_temp.id_of(1), (select default_org_id from tenancy.settings));
select is(pg_temp.found(), null, 'nor where they name the default one, in which all are');
insert into harbour.deals (id, user_id, customer_id)
values (2, pg_temp.id_of(1), pg_temp.id_of(21));
select is(
    pg_temp.found(),
    'harbour.deals names organizations in customer_id, and no user is in any that a row names [organizations_without_users] stops',
    'rows that name organizations in which nobody is stop the push'
);
insert into tenancy.user_orgs (user_id, org_id)
values (pg_temp.id_of(1), pg_temp.id_of(11));
select isnt(pg_temp.found(), null, 'whatever organizations a mapping adds to them');
update tenancy.registry set org_from = '{user_id}' where table_name = 'deals';
select is(pg_temp.found(), null, 'unless others are to decide');
update tenancy.registry set org_from = null where table_name = 'deals';

insert into harbour.visits (id, user_id, customer_id)
values (1, pg_temp.id_of(1), pg_temp.id_of(11));
select is(pg_temp.found(), null, 'a row of one in which somebody is says that they are tenants, and some may have lost their users');
delete from tenancy.user_orgs;
select isnt(pg_temp.found(), null, 'without the mapping nobody is');
update auth.users set raw_app_meta_data = jsonb_build_object('org_id', pg_temp.id_of(11)) where id = pg_temp.id_of(1);
select is(pg_temp.found(), null, 'until a token says so');

select * from finish();
rollback;
