begin;
set local role postgres;
set local search_path = public, extensions;
select plan(14);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
values ('00000000-0000-0000-0000-000000000000', pg_temp.id_of(1), 'authenticated', 'authenticated', 'company1@example.com', '{}');
insert into public.organizations (id, name)
values (pg_temp.id_of(11), 'one'), (pg_temp.id_of(12), 'two');
-- Who is in several companies is in one organization.
insert into tenancy.user_orgs (user_id, org_id)
values (pg_temp.id_of(1), pg_temp.id_of(11));

create schema harbour;
create table harbour.companies (id uuid primary key, name text);
insert into harbour.companies (id, name)
values (pg_temp.id_of(11), 'one'), (pg_temp.id_of(12), 'two');
create table harbour.branches (id uuid primary key, company_id uuid references public.organizations (id));
create table harbour.deals (id integer primary key, user_id uuid, company_id uuid references harbour.companies (id));
create table harbour.balances (id integer primary key, company_id uuid references harbour.companies (id));
create table harbour.invoices (id integer primary key, deal_id integer references harbour.deals (id));
create table harbour.visits (id integer primary key, user_id uuid, branch_id uuid references harbour.branches (id));
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'companies', 'excluded', null, 'the organizations'),
    ('harbour', 'branches', 'excluded', null, 'a test'),
    ('harbour', 'deals', 'org', 'secondary', null),
    ('harbour', 'balances', 'org', 'secondary', null),
    ('harbour', 'invoices', 'org', 'secondary', null),
    ('harbour', 'visits', 'org', 'secondary', null);
insert into harbour.deals (id, user_id, company_id)
values (1, pg_temp.id_of(1), pg_temp.id_of(11)), (2, pg_temp.id_of(1), pg_temp.id_of(12)), (3, pg_temp.id_of(1), null);
insert into harbour.invoices (id, deal_id)
values (1, 1), (2, 2);
create function pg_temp.said(target regclass)
returns text
language sql
as $function$
    select decisions.in_words
    from tenancy.decisions
    where decisions.root = target
$function$;

select is(
    pg_temp.said('harbour.deals'),
    'the owner in user_id, else the default organization',
    'a table that is like the organizations decides nothing'
);
update tenancy.registry set org_from = '{company_id}' where table_name = 'deals';
select is(
    (select remedy from org_migration.source_findings where table_name = 'harbour.deals'),
    'register harbour.companies as org, or say whose its rows are: alter table harbour.companies add foreign key (…) references auth.users (id)'
    ' not valid; if each row of harbour.companies is an organization: alter table harbour.companies add foreign key (id) references'
    ' public.organizations (id) not valid; what would do: user_id',
    'the way out is said where it is to decide'
);
update tenancy.registry set org_from = null where table_name = 'deals';
select is(
    (select remedy from org_migration.source_findings where table_name = 'harbour.balances'),
    'add the foreign key that is missing (not valid will do), or the column, such as created_by; name a column in org_from;'
    ' if each row of harbour.companies is an organization: alter table harbour.companies add foreign key (id) references'
    ' public.organizations (id) not valid; or say org_from ''{}'': all of it belongs to the default organization',
    'and where nothing else decides'
);
alter table harbour.companies add foreign key (id) references public.organizations (id) not valid;
select is_empty(
    $$ select from org_migration.source_findings where table_name = 'harbour.balances' $$,
    'which is all that it takes'
);
select is(
    pg_temp.said('harbour.deals'),
    'the organization in company_id through harbour.companies, else the owner in user_id, else the default organization',
    'once its key says that each of its rows is one, it decides before the owner'
);
update tenancy.registry set org_from = '{user_id}' where table_name = 'deals';
select is(
    (select concat_ws('; ', problem, remedy) from org_migration.source_findings where table_name = 'harbour.deals'),
    'says org_from ''{user_id}'', without company_id, which names the organization of a row itself; put it first: ''{company_id,user_id}'';'
    ' or last, if the others are to decide where they can',
    'a list of columns that was written before does not leave it out in silence'
);
update tenancy.registry set org_from = '{user_id,company_id}' where table_name = 'deals';
select is_empty($$ select from org_migration.source_findings where table_name = 'harbour.deals' $$, 'it may be the last');
update tenancy.registry set org_from = '{}' where table_name = 'deals';
select is_empty($$ select from org_migration.source_findings where table_name = 'harbour.deals' $$, 'and where nothing is to decide it does not');
update tenancy.registry set org_from = null where table_name = 'deals';
select is(
    pg_temp.said('harbour.visits'),
    'the owner in user_id, else the default organization',
    'a table whose rows are no organizations, and only name one, does not'
);
update tenancy.registry set org_from = '{branch_id,user_id}' where table_name = 'visits';
select is(
    pg_temp.said('harbour.visits'),
    'the organization in branch_id through harbour.branches, else the owner in user_id, else the default organization',
    'unless it is named'
);

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
select results_eq(
    $$ select id, org_id from harbour.deals order by id $$,
    $$ values (1, pg_temp.id_of(11)), (2, pg_temp.id_of(12)), (3, pg_temp.id_of(11)) $$,
    'rows of somebody who is in two companies get the organization that each names'
);
select results_eq(
    $$ select id, org_id from harbour.invoices order by id $$,
    $$ values (1, pg_temp.id_of(11)), (2, pg_temp.id_of(12)) $$,
    'and what references them follows'
);
select is(
    (select candidates from org_migration.backfill_conflicts where relation = 'harbour.deals'::regclass),
    jsonb_build_object('company_id', pg_temp.id_of(12), 'user_id', pg_temp.id_of(11)),
    'that their owner is in another one is written down'
);
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
insert into harbour.deals (id, user_id, company_id)
values (4, pg_temp.id_of(1), pg_temp.id_of(12));
select is((select org_id from harbour.deals where id = 4), pg_temp.id_of(12), 'the filler decides so, too');

select * from finish();
rollback;
