begin;
set local role postgres;
set local search_path = public, extensions;
select plan(14);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
select is_empty($$ select * from tenancy.onboard('harbour.ships') where not passed $$, 'a table has all of its parts');
select is_empty($$ select * from org_migration.dependent_findings $$, 'none of which is in the way of a roll back');

savepoint renamed;
alter table harbour.ships rename column org_id to organization_id;
select results_eq(
    $$ select problem collate "default", remedy collate "default" from tenancy.org_id_findings $$,
    $$ values ('has its organizations in organization_id: org_id was renamed', 'alter table harbour.ships rename column organization_id to org_id') $$,
    'an org_id that was renamed is found, with the name that it has now'
);
select throws_matching(
    $$ select tenancy.roll_back(1) $$,
    '^cannot roll back while org_id has another name, and nothing has been rolled back: alter table harbour\.ships rename',
    'and a roll back does not pass it over'
);
select is_empty($$ select * from tenancy.cross_org_references() $$, 'nor does a look at the references raise');
rollback to savepoint renamed;

savepoint generated;
alter table harbour.ships add column org_text text generated always as (org_id::text) stored;
select throws_ok($$ select tenancy.roll_back(1) $$, '2BP01', null, 'a column that is generated from org_id is in the way');
rollback to savepoint generated;
create policy mine on harbour.ships as restrictive for all to authenticated
using (org_id = (select public.auth_org_id()))
with check (org_id = (select public.auth_org_id()));
select throws_ok($$ select tenancy.roll_back(1) $$, '2BP01', null, 'and so is a policy of the owner''s that reads like ours');
drop policy mine on harbour.ships;

create view harbour.fleet as
select id, org_id from harbour.ships;
create policy own_ships on harbour.ships using (org_id is not null);
create index ships_by_org on harbour.ships (org_id, user_id);
select set_eq(
    $$ select code, severity, object, table_name from org_migration.dependent_findings $$,
    $$
        values
            ('uses_org_id', 'stops', 'rule _RETURN on view harbour.fleet', 'harbour.ships'),
            ('uses_org_id', 'stops', 'policy own_ships on table harbour.ships', 'harbour.ships')
    $$,
    'what of the application uses org_id is a finding, except an index, which holds nothing that is not in its table'
);
select throws_ok(
    $$ select tenancy.roll_back(1) $$,
    '2BP01',
    null,
    'it stops a roll back that would drop org_id'
);
select throws_matching(
    $$ select tenancy.roll_back(1) $$,
    '^cannot roll back to phase 1: other objects use org_id, and nothing has been rolled back yet:\n'
    'harbour\.ships: policy own_ships [^\n]+\[uses_org_id\]\n'
    'harbour\.ships: rule _RETURN on view [^\n]+\[uses_org_id\]$',
    'whose message has a line for each'
);
select is_empty(
    $$ select * from tenancy.parts('harbour.ships') where not present $$,
    'before anything is undone'
);
select ok(tenancy.roll_back(5), 'a roll back that keeps org_id goes through');
select throws_ok(
    $$ select tenancy.roll_back(1) $$,
    '2BP01',
    null,
    'and does not open the way to phase 1 for the session that began it'
);

drop view harbour.fleet;
drop policy own_ships on harbour.ships;
do $$ begin while tenancy.roll_back(1) loop null; end loop; end $$;
select hasnt_column('harbour', 'ships', 'org_id', 'and so does one to phase 1 once they are gone');

select * from finish();
rollback;
