begin;
set local role postgres;
set local search_path = public, extensions;
select plan(10);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
create schema harbour;
create table harbour.voyages (id integer, year integer, user_id uuid) partition by list (year);
create table harbour.voyages_2024 partition of harbour.voyages for values in (2024);
create table harbour.voyages_2025 partition of harbour.voyages for values in (2025);
insert into harbour.voyages (id, year) values (1, 2024), (2, 2024), (3, 2025);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'voyages', 'org', 'secondary');
select is_empty(
    $$ select * from tenancy.onboard('harbour.voyages') where not passed $$,
    'a partitioned table has its guards'
);
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');

select throws_ok(
    $$ update harbour.voyages set org_id = 'b0000000-0000-4000-8000-000000000001' where id = 1 $$,
    '23001',
    null,
    'a row that stays in its partition cannot go to another organization'
);
select throws_ok(
    $$ update harbour.voyages_2024 set org_id = 'b0000000-0000-4000-8000-000000000001' where id = 1 $$,
    '23001',
    null,
    'nor by an update of the partition'
);
select throws_ok(
    $$ update harbour.voyages set year = 2025, org_id = 'b0000000-0000-4000-8000-000000000001' where id = 1 $$,
    '23001',
    format(
        'org_id of harbour.voyages_2024 is immutable: a row of organization %s would go to b0000000-0000-4000-8000-000000000001',
        (select default_org_id from tenancy.settings)
    ),
    'nor can one that moves to another partition, which fires no row trigger of an update'
);
select throws_ok(
    $$
        merge into harbour.voyages as voyage
        using (values (1)) as source (id) on source.id = voyage.id
        when matched then update set year = 2025, org_id = 'b0000000-0000-4000-8000-000000000001'
    $$,
    '23001',
    null,
    'nor one that MERGE moves, which only a BEFORE trigger sees'
);
savepoint moved;
select lives_ok(
    $$
        merge into harbour.voyages as voyage
        using (values (1)) as source (id) on source.id = voyage.id
        when matched then update set year = 2025
    $$,
    'a MERGE that moves a row and leaves its organization goes through'
);
rollback to savepoint moved;

select throws_ok(
    $$
        update harbour.voyages
        set
            year = 2024 + id % 2,
            org_id = case when id = 2 then 'b0000000-0000-4000-8000-000000000001' else org_id end
    $$,
    '23001',
    null,
    'nor one among others'
);
select lives_ok($$ update harbour.voyages set year = 2024 + id % 2 $$, 'rows move as before');
select results_eq(
    $$ select id, tableoid::regclass::text collate "default" from harbour.voyages order by id $$,
    $$ values (1, 'harbour.voyages_2025'), (2, 'harbour.voyages_2024'), (3, 'harbour.voyages_2025') $$,
    'to where they belong'
);
set local session_replication_role = replica;
select throws_ok(
    $$ update harbour.voyages set year = 2024, org_id = 'b0000000-0000-4000-8000-000000000001' where id = 1 $$,
    '23001',
    null,
    'a replica session cannot pass that by either'
);
set local session_replication_role = origin;

select * from finish();
rollback;
