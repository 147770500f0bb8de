begin;
set local role postgres;
set local search_path = public, extensions;
select plan(9);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

select is_empty(
    $$ select * from tenancy.push_findings where severity = 'stops' $$,
    'on a migrated database nothing stops a push'
);

create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (id integer primary key, ship_id integer references harbour.ships (id));
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'docks', 'org', 'secondary');
select is_empty($$ select * from tenancy.push_findings $$, 'nor do two plain tables that come');

create function pg_temp.touch()
returns trigger
language plpgsql
as $function$ begin return new; end $function$;

-- What the tables are, and what happens when their rows are written.
create table harbour.tugs () inherits (harbour.ships);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'tugs', 'org', 'secondary');
create table harbour.crews (ship harbour.ships);
insert into tenancy.registry (schema_name, table_name, scope, reason)
values ('harbour', 'crews', 'excluded', 'a test');
create rule ships_are_kept as on delete to harbour.ships do instead nothing;
create trigger touch before update on harbour.docks for each row execute function pg_temp.touch();
alter table harbour.docks enable always trigger touch;
select bag_eq(
    $$ select code, severity, object, table_name from tenancy.push_findings $$,
    $$
        values
            ('inherits', 'stops', 'harbour.tugs', 'harbour.tugs'),
            ('inherited_from', 'stops', 'harbour.ships', 'harbour.ships'),
            ('row_type_in_use', 'stops', 'harbour.crews', 'harbour.ships'),
            ('rule', 'stops', 'ships_are_kept', 'harbour.ships'),
            ('always_trigger', 'stops', 'touch', 'harbour.docks')
    $$,
    'a table that these migrations do not handle is a finding, by what it is or does'
);
drop table harbour.tugs, harbour.crews;
delete from tenancy.registry where (schema_name, table_name) in (('harbour', 'tugs'), ('harbour', 'crews'));
drop rule ships_are_kept on harbour.ships;
drop trigger touch on harbour.docks;

-- What a registration says, and what of org_id is there already.
update tenancy.registry set org_from = '{captain_id}' where (schema_name, table_name) = ('harbour', 'ships');
update tenancy.registry set org_from = '{ship_id,id}' where (schema_name, table_name) = ('harbour', 'docks');
alter table harbour.docks add column org_id uuid default gen_random_uuid() references public.organizations (id);
select bag_eq(
    $$ select code, table_name from tenancy.push_findings $$,
    $$
        values
            ('org_from_without_source', 'harbour.ships'),
            ('org_from_without_source', 'harbour.docks'),
            ('org_id_default', 'harbour.docks'),
            ('org_id_foreign_key', 'harbour.docks')
    $$,
    'so is a registration that the table does not fit, and an org_id that is another thing'
);
update tenancy.registry set org_from = null where schema_name = 'harbour';
alter table harbour.docks drop column org_id;

-- What has the name of something of ours.
alter table harbour.ships add constraint fk_ships_org_id check (id > 0), add constraint ships_org_id_not_null unique (user_id);
create index idx_ships_org_id on harbour.ships (user_id);
create trigger org_id_immutable_ships before insert on harbour.ships for each row execute function pg_temp.touch();
select bag_eq(
    $$ select code, object from tenancy.push_findings $$,
    $$
        values
            ('constraint_name_taken', 'fk_ships_org_id'),
            ('constraint_name_taken', 'ships_org_id_not_null'),
            ('index_name_taken', 'idx_ships_org_id'),
            ('trigger_name_taken', 'org_id_immutable_ships')
    $$,
    'so is a name that is taken'
);
drop index harbour.idx_ships_org_id;
drop trigger org_id_immutable_ships on harbour.ships;
alter table harbour.ships drop constraint fk_ships_org_id, drop constraint ships_org_id_not_null;

-- Rows that an update would fail on.
insert into harbour.ships (id) values (-1), (1);
alter table harbour.ships add constraint positive check (id > 0) not valid;
select results_eq(
    $$ select code, object collate "default" from tenancy.push_findings $$,
    $$ values ('rows_break_check', 'positive') $$,
    'so are rows that cannot be updated'
);
select throws_matching(
    $$ select tenancy.assert_registry() $$,
    'harbour\.ships has 1 rows? that cannot be updated: [^\n]+ \[rows_break_check\]$',
    'and the push says how many they are'
);
delete from harbour.ships where id < 0;
select lives_ok($$ select tenancy.assert_registry() $$, 'without them it goes on, the check being as it is');

create publication of_ships for table harbour.ships where (user_id is not null);
select results_eq(
    $$ select code, object collate "default" from tenancy.push_findings $$,
    $$ values ('publication_beyond_identity', 'of_ships') $$,
    'a publication that refuses updates is a finding'
);

select * from finish();
rollback;
