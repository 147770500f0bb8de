begin;
set local role postgres;
set local search_path = public, extensions;
select plan(13);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, year integer);
alter table harbour.ships enable row level security;
insert into tenancy.registry (schema_name, table_name, scope, priority) values ('harbour', 'ships', 'org', 'secondary');

create function pg_temp.refusal() returns text language plpgsql as $$
begin
    perform tenancy.distribution_plan();
    return null;
exception
    when object_not_in_prerequisite_state then
        return sqlerrm;
end $$;

select matches(pg_temp.refusal(), 'harbour\.ships has no org_id that is never null', 'there is no plan before the push is over');
do $$ begin perform tenancy.onboard('harbour.ships'); end $$;
select is(pg_temp.refusal(), null, 'and there is one after');

update tenancy.registry set isolated = true;
do $$ begin while tenancy.advance('isolation') loop null; end loop; end $$;
select matches(
    pg_temp.refusal(), 'the policy org_isolation of harbour\.ships is restrictive.*disable isolation in one transaction with the step policy',
    'there is none while a table is isolated, since Citus would make its policy permissive'
);
do $$ begin while tenancy.disable_org_isolation('harbour.ships') loop null; end loop; end $$;
select is(pg_temp.refusal(), null, 'and one when it is not');

create policy sober on harbour.ships as restrictive using (year > 2000);
select matches(pg_temp.refusal(), 'the policy sober of harbour\.ships is restrictive.*put its condition into each permissive policy', 'nor with one of the application''s own');
drop policy sober on harbour.ships;
create policy sober on harbour.ships using (year > 2000);
select is(pg_temp.refusal(), null, 'with a permissive one there is');
create policy known on public.organizations as restrictive using (name <> '');
select matches(pg_temp.refusal(), 'the policy known of public\.organizations', 'organizations are distributed too');
drop policy known on public.organizations;

create table harbour.ports (id integer primary key);
create policy open on harbour.ports as restrictive using (id > 0);
select is(pg_temp.refusal(), null, 'a table that stays on the coordinator may have one');
alter table harbour.ships add column port_id integer references harbour.ports (id);
insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'ports', 'excluded', 'global');
select matches(pg_temp.refusal(), 'the policy open of harbour\.ports', 'one that is copied may not');
alter table harbour.ships drop column port_id;

create table harbour.tides (id integer, user_id uuid, year integer) partition by list (year);
create table harbour.tides_2024 partition of harbour.tides for values in (2024);
insert into tenancy.registry (schema_name, table_name, scope, priority) values ('harbour', 'tides', 'org', 'secondary');
do $$ begin perform tenancy.onboard('harbour.tides'); end $$;
select is(pg_temp.refusal(), null, 'a partitioned table can be distributed');
create table harbour.tides_2025 partition of harbour.tides for values in (2025) partition by range (id);
select matches(pg_temp.refusal(), 'the partition harbour\.tides_2025 is partitioned again', 'one whose partitions are partitioned cannot');
drop table harbour.tides_2025;

create table harbour.seas (id integer primary key) partition by list (id);
alter table harbour.ships add column sea_id integer references harbour.seas (id);
insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'seas', 'excluded', 'global');
select matches(pg_temp.refusal(), 'harbour\.seas is partitioned, and rows that are distributed reference it', 'nor can a partitioned one be copied');
alter table harbour.ships drop constraint ships_sea_id_fkey;
select is(pg_temp.refusal(), null, 'unless nothing references it');

select * from finish();
rollback;
