begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);
-- Its own tables are not for the guard against unclassified ones, where that is on.
select tenancy.stop_guarding_new_tables();

select isnt_empty(
    $$ select from tenancy.registry where scope = 'org' $$,
    'the registry names org-scoped tables'
);
select is_empty(
    $$ select * from tenancy.registry_problems $$,
    'every table that holds users'' rows is in the registry, and every table of the registry exists'
);
select lives_ok(
    $$ select tenancy.assert_registry() $$,
    'the check that stops the push lets this database pass'
);

create schema harbour;
create table harbour.ships (id uuid primary key, user_id uuid);
create table harbour.cargo (id uuid primary key, ship_id uuid references harbour.ships (id));
create table harbour.crews (id uuid primary key, captain_id uuid references auth.users (id));
create table harbour.ports (id uuid primary key, name text);

select results_eq(
    $$
        select table_name, suggested_scope, reason
        from tenancy.unclassified_tables
        where schema_name = 'harbour'
        order by table_name
    $$,
    $$
        values
            ('cargo', 'org', 'references harbour.ships'),
            ('crews', 'org', 'references auth.users in captain_id'),
            ('ports', 'excluded', 'has nothing that says whose its rows are'),
            ('ships', 'org', 'has the column user_id')
    $$,
    'every table that is not registered is unclassified, with what speaks for an organization'
);
select throws_ok(
    $$ select tenancy.assert_registry() $$,
    '55000',
    'the registry does not fit the database: 4 of its tables stop the push',
    'unclassified tables stop the push'
);

insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'cargo', 'excluded', null, 'a test'),
    ('harbour', 'crews', 'excluded', null, 'a test'),
    ('harbour', 'ports', 'excluded', null, 'a test');
select lives_ok(
    $$ select tenancy.assert_registry() $$,
    'once each is classified, as org-scoped or as excluded, the check lets them pass'
);

insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'tugs', 'org', 'secondary');
select results_eq(
    $$ select table_name, problem from tenancy.registry_problems $$,
    $$ values ('tugs', 'is registered and does not exist') $$,
    'a registered table that does not exist is a problem'
);
delete from tenancy.registry where table_name = 'tugs';

drop table harbour.cargo;
alter table harbour.ships add column org_id text;
select results_eq(
    $$ select table_name, problem from tenancy.registry_problems where table_name = 'ships' $$,
    $$ values ('ships', 'has an org_id already that is text and not a plain uuid') $$,
    'an org_id of another type is a problem, not a skip'
);

select * from finish();
rollback;
