begin;
set local role postgres;
set local search_path = public, extensions;
select plan(17);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
update tenancy.settings set fill_org_id = false;
create schema harbour;
grant usage on schema harbour to authenticated;
create table harbour.voyages (id integer, year integer, user_id uuid) partition by list (year);
create table harbour.voyages_2024 partition of harbour.voyages for values in (2024);
insert into harbour.voyages (id, year) values (1, 2024);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'voyages', 'org', 'secondary');

select throws_ok(
    $$ select tenancy.enable_org_isolation('harbour.voyages') $$,
    '55000',
    null,
    'a table that has not been migrated cannot be isolated'
);
select is_empty(
    $$ select * from tenancy.onboard('harbour.voyages') where not passed $$,
    'one that has all of its parts can'
);
select is_empty(
    $$ select * from tenancy.parts('harbour.voyages') where part = 'isolation' $$,
    'though it is not to be unless that is asked for'
);

grant select, insert on harbour.voyages, harbour.voyages_2024 to authenticated;
alter table harbour.voyages enable row level security;
alter table harbour.voyages_2024 enable row level security;
create policy everyone on harbour.voyages using (true) with check (true);
create policy everyone on harbour.voyages_2024 using (true) with check (true);
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into harbour.voyages (id, year, org_id)
values
    (11, 2024, 'b0000000-0000-4000-8000-000000000001'),
    (12, 2024, 'b0000000-0000-4000-8000-000000000002');

-- As enable_org_isolation does it; that asks first that no user be locked out, which is not for this file.
update tenancy.registry set isolated = true;
select results_eq(
    $$ select part, relation::text collate "default", present from tenancy.parts('harbour.voyages') where part = 'isolation' $$,
    $$ values ('isolation', 'harbour.voyages', false), ('isolation', 'harbour.voyages_2024', false) $$,
    'then it and each of its partitions is to have a policy'
);
select set_eq(
    $$ select code, severity, object, table_name from tenancy.findings where code = 'missing_isolation' $$,
    $$ values ('missing_isolation', 'leaks', 'org_isolation', 'harbour.voyages') $$,
    'and rows leak while it has not'
);
do $$ begin while tenancy.advance('isolation') loop null; end loop; end $$;
select is((select isolated from tenancy.status), true, 'when both have it, tenancy.status says so');

set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "app_metadata": {"org_id": "b0000000-0000-4000-8000-000000000001"}}';
select results_eq(
    $$ select id from harbour.voyages $$,
    $$ values (11) $$,
    'whatever other policies let through, a user sees the rows of one organization'
);
select results_eq(
    $$ select id from harbour.voyages_2024 $$,
    $$ values (11) $$,
    'also in the partition itself'
);
select throws_ok(
    $$ insert into harbour.voyages (id, year, org_id) values (13, 2024, 'b0000000-0000-4000-8000-000000000002') $$,
    '42501',
    null,
    'and can add none to another'
);
select lives_ok($$ insert into harbour.voyages (id, year) values (13, 2024) $$, 'but to that one');
set local role postgres;

create table harbour.voyages_2025 partition of harbour.voyages for values in (2025);
select is((select isolated from tenancy.status), false, 'a partition that comes later is not isolated yet');
alter table harbour.voyages_2025 enable row level security;
do $$ begin while tenancy.advance('isolation') loop null; end loop; end $$;
select is((select isolated from tenancy.status), true, 'and is with the next step');

drop policy org_isolation on harbour.voyages_2024;
select set_eq(
    $$ select check_name, table_name from tenancy.verify_schema() where not passed and table_name is not null $$,
    $$ values ('isolation', 'harbour.voyages') $$,
    'a policy that somebody drops is missed by verify'
);
do $$ begin while tenancy.advance('isolation') loop null; end loop; end $$;

do $$ begin while tenancy.disable_org_isolation('harbour.voyages') loop null; end loop; end $$;
select is_empty(
    $$ select * from pg_policy where polname = 'org_isolation' and polrelid in (select relid from pg_partition_tree('harbour.voyages')) $$,
    'the undo takes the policies of all partitions'
);
select is_empty($$ select * from tenancy.registry where isolated $$, 'and forgets that they were asked for');
select is_empty(
    $$ select * from tenancy.parts('harbour.voyages') where not present $$,
    'so that nothing is missed'
);

create policy of_the_application on harbour.voyages as restrictive for all to authenticated
using (org_id = (select public.auth_org_id()))
with check (org_id = (select public.auth_org_id()));
do $$ begin while tenancy.roll_back(5) loop null; end loop; end $$;
select isnt_empty(
    $$ select * from pg_policy where polname = 'of_the_application' $$,
    'a policy of the application that does the same, and that nobody asked us for, is none of a roll back''s'
);

select * from finish();
rollback;
