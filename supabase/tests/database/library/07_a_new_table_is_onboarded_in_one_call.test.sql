begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.user_orgs;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (id integer primary key, ship_id integer references harbour.ships (id));
insert into harbour.ships (id) values (1), (2);

select throws_ok(
    $$ select tenancy.onboard('harbour.docks') $$,
    '55000',
    null,
    'a table cannot come before a parent that nobody has classified'
);
select is_empty(
    $$ select * from tenancy.registry where schema_name = 'harbour' $$,
    'and nothing is done then'
);
select is_empty(
    $$ select * from tenancy.onboard('harbour.ships') where not passed $$,
    'a new table is taken through all phases'
);
select results_eq(
    $$ select scope, priority from tenancy.registry where (schema_name, table_name) = ('harbour', 'ships') $$,
    $$ values ('org', 'secondary') $$,
    'and registered'
);
select is(
    (select count(*)::integer from harbour.ships where org_id = (select default_org_id from tenancy.settings)),
    2,
    'its rows have their organization'
);
select is_empty($$ select * from tenancy.onboard('harbour.docks') where not passed $$, 'then its child can follow');
select is_empty(
    $$ select * from tenancy.verify() where table_name like 'harbour.%' and not passed $$,
    'and verify finds nothing'
);
select is_empty($$ select * from tenancy.onboard('harbour.docks') where not passed $$, 'a second call changes nothing');

create table harbour.ports (id integer primary key);
insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'ports', 'excluded', 'a test');
select throws_ok($$ select tenancy.onboard('harbour.ports') $$, '55000', null, 'an excluded table is refused');
select throws_ok($$ select tenancy.onboard('public.organizations') $$, '42809', null, 'so are the organizations');
create table harbour.tugs (id integer primary key, user_id uuid);
insert into harbour.tugs (id) values (1);
update tenancy.settings set small_table_bytes = 0;
select throws_ok($$ select tenancy.onboard('harbour.tugs') $$, '54000', null, 'so is one too large to be locked for so long');
update tenancy.settings set small_table_bytes = default;
select is_empty($$ select * from tenancy.onboard('harbour.tugs') where not passed $$, 'which settings.small_table_bytes decides');

select * from finish();
rollback;
