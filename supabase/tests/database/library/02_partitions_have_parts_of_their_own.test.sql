begin;
set local role postgres;
set local search_path = public, extensions;
select plan(11);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

update tenancy.settings set fill_org_id = false;
delete from tenancy.registry;
delete from tenancy.user_orgs;
create schema harbour;
create table harbour.voyages (id integer, year integer, user_id uuid) partition by list (year);
create table harbour.voyages_2024 partition of harbour.voyages for values in (2024);
create table harbour.voyages_2025 partition of harbour.voyages for values in (2025);
insert into harbour.voyages (id, year) values (1, 2024), (2, 2025);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'voyages', 'org', 'secondary');

select results_eq(
    $$ select part, relation::text collate "default" from tenancy.parts('harbour.voyages') $$,
    $$
        values
            ('column', 'harbour.voyages'),
            ('index', 'harbour.voyages_2024'),
            ('index', 'harbour.voyages_2025'),
            ('index_root', 'harbour.voyages'),
            ('foreign_key', 'harbour.voyages_2024'),
            ('foreign_key', 'harbour.voyages_2025'),
            ('foreign_key_valid', 'harbour.voyages_2024'),
            ('foreign_key_valid', 'harbour.voyages_2025'),
            ('foreign_key_root', 'harbour.voyages'),
            ('check', 'harbour.voyages_2024'),
            ('check', 'harbour.voyages_2025'),
            ('check_valid', 'harbour.voyages_2024'),
            ('check_valid', 'harbour.voyages_2025'),
            ('not_null', 'harbour.voyages'),
            ('guard', 'harbour.voyages'),
            ('guard_move', 'harbour.voyages'),
            ('guard_statement', 'harbour.voyages')
    $$,
    'what scans rows is made per partition, before that of the table, which takes it in'
);
select is_empty(
    $$ select * from tenancy.onboard('harbour.voyages') where not passed $$,
    'a partitioned table can have all of it'
);
select is_empty(
    $$ select * from tenancy.parts('harbour.voyages_2024') $$,
    'a partition has its parts with its table, and none of its own'
);
select is(
    (
        select count(*)::integer
        from pg_index
        where indrelid in ('harbour.voyages_2024'::regclass, 'harbour.voyages_2025'::regclass)
    ),
    2,
    'the table''s index has taken in those of its partitions and built none'
);
select is(
    (
        select count(*)::integer
        from pg_constraint
        where conrelid in ('harbour.voyages_2024'::regclass, 'harbour.voyages_2025'::regclass)
            and contype = 'f'
            and conparentid <> 0
    ),
    2,
    'and its foreign key theirs'
);

create table harbour.voyages_2026 partition of harbour.voyages for values in (2026);
select is_empty(
    $$ select * from tenancy.parts('harbour.voyages') where not present $$,
    'a partition that comes later has all of them from its table'
);
create table harbour.voyages_2027 (
    id integer,
    year integer,
    user_id uuid,
    org_id uuid not null
    constraint voyages_org_id_not_null check (org_id is not null)
);
alter table harbour.voyages attach partition harbour.voyages_2027 for values in (2027);
select is_empty(
    $$ select * from tenancy.parts('harbour.voyages') where not present $$,
    'and so has one that is attached'
);

alter table harbour.voyages_2025 disable trigger org_id_immutable_voyages;
select results_eq(
    $$ select part, relation::text collate "default" from tenancy.parts('harbour.voyages') where not present $$,
    $$ values ('guard', 'harbour.voyages') $$,
    'a guard that was disabled on one partition is missing'
);
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select is_empty(
    $$ select * from tenancy.parts('harbour.voyages') where not present $$,
    'and is enabled there again'
);

do $$ begin while tenancy.roll_back(1) loop null; end loop; end $$;
select is_empty(
    $$
        select attrelid::regclass
        from pg_attribute
        where attrelid in (select relid from pg_partition_tree('harbour.voyages'))
            and attname = 'org_id'
    $$,
    'a roll back takes the column from the table and its partitions'
);
select is_empty(
    $$
        select tgrelid::regclass, tgname
        from pg_trigger
        where tgrelid in (select relid from pg_partition_tree('harbour.voyages'))
    $$,
    'and leaves no trigger'
);

select * from finish();
rollback;
