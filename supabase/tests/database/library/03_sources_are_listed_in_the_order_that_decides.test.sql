begin;
set local role postgres;
set local search_path = public, extensions;
select plan(11);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where raw_app_meta_data ? 'org_id';
create schema harbour;
create table harbour.ships (id integer, company integer, user_id uuid, primary key (company, id));
create table harbour.captains (id integer primary key, account text);
create table harbour.ports (id integer primary key);
create table harbour.docks (
    id integer primary key,
    port_id integer references harbour.ports (id),
    captain_id integer references harbour.captains (id),
    company integer,
    ship_id integer,
    user_id uuid,
    foreign key (company, ship_id) references harbour.ships (company, id)
);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'captains', 'org', 'secondary', null),
    ('harbour', 'docks', 'org', 'secondary', null),
    ('harbour', 'ports', 'excluded', null, 'a test');

select results_eq(
    $$
        select ordinal, entry collate "default", description collate "default"
        from tenancy.sources
        where root = 'harbour.docks'::regclass
        order by ordinal
    $$,
    $$
        values
            (1::bigint, 'user_id', 'the owner in user_id'),
            (2, 'captain_id', 'harbour.captains through captain_id'),
            (3, 'company, ship_id', 'harbour.ships through company, ship_id')
    $$,
    'the owner is first, then every org-scoped parent in the order of its columns, and no excluded one'
);
select is(
    (select in_words from tenancy.decisions where root = 'harbour.docks'::regclass),
    'the owner in user_id, else harbour.captains through captain_id, else harbour.ships through company, ship_id,'
    ' else the default organization',
    'which can be read as a sentence'
);
select is(
    (select in_words from tenancy.decisions where root = 'harbour.captains'::regclass),
    'the default organization',
    'a table without owner and parent belongs to the default organization'
);

update tenancy.registry set org_from = '{account}' where table_name = 'captains';
select is(
    (select in_words from tenancy.decisions where root = 'harbour.captains'::regclass),
    'the owner in account, else the default organization',
    'the registry can name another owner'
);
update tenancy.registry set org_from = '{captain_id,user_id}' where table_name = 'docks';
select is(
    (select in_words from tenancy.decisions where root = 'harbour.docks'::regclass),
    'harbour.captains through captain_id, else the owner in user_id, else the default organization',
    'and the order in which they decide'
);
update tenancy.registry set org_from = '{captain_id}' where table_name = 'docks';
select is(
    (select in_words from tenancy.decisions where root = 'harbour.docks'::regclass),
    'harbour.captains through captain_id, else the default organization',
    'and the one parent that decides'
);

select ok(
    (select not bool_or(is_per_row) from tenancy.decisions),
    'without a mapping all rows belong to the default organization'
);
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001');
select ok((select bool_and(is_per_row) from tenancy.decisions), 'with one each is decided');

insert into harbour.captains (id, account)
values (1, '00000000-0000-4000-8000-000000000001'), (2, '00000000-0000-4000-8000-000000000001 '), (3, 'nobody'), (4, null);
insert into harbour.docks (id, captain_id) values (1, 1), (2, 3);
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
select results_eq(
    $$ select id from harbour.captains where org_id = 'b0000000-0000-4000-8000-000000000001' order by id $$,
    $$ values (1) $$,
    'an owner that is kept as text decides where it is a uuid'
);
select is(
    (select count(*)::integer from harbour.captains where org_id = (select default_org_id from tenancy.settings)),
    3,
    'and is an orphan, not an error, where it is none'
);
select results_eq(
    $$ select id from harbour.docks where org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    $$ values (1) $$,
    'a row follows its parent'
);

select * from finish();
rollback;
