begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

select isnt_empty(
    $$ select from tenancy.registry where scope = 'org' $$,
    'the registry names org-scoped tables'
);
select is_empty(
    $$ select * from tenancy.registry_findings $$,
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
        select table_name, suggested_scope, case when suggested_scope = 'org' then reason collate "default" end
        from tenancy.unclassified_tables
        where schema_name = 'harbour'
        order by table_name
    $$,
    $$
        values
            ('cargo', 'org', 'references harbour.ships'),
            ('crews', 'org', 'references auth.users in captain_id'),
            ('ports', 'excluded', null),
            ('ships', 'org', 'has the column user_id')
    $$,
    'every table that is not registered is unclassified, with what speaks for an organization'
);
select throws_ok(
    $$ select tenancy.assert_registry() $$,
    '55000',
    null,
    'unclassified tables stop the push'
);
select throws_matching(
    $$ select tenancy.assert_registry() $$,
    '^the registry does not fit the database, [^\n]*\m4\M[^\n]*\n'
    'harbour\.cargo [^\n]+\[unclassified_table\]\n'
    'harbour\.crews [^\n]+\[unclassified_table\]\n'
    'harbour\.ports [^\n]+\[unclassified_table\]\n'
    'harbour\.ships [^\n]+\[unclassified_table\]$',
    'and the message has a line for each, which ends in its code'
);
select is(
    (select remedy like '%(''harbour'', ''ports'', ''excluded'', null, %' from tenancy.registry_findings where object = 'harbour.ports'),
    true,
    'with the row that classifies it'
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
    $$ select code, object collate "default", severity from tenancy.registry_findings $$,
    $$ values ('missing_table', 'harbour.tugs', 'stops') $$,
    'a registered table that does not exist is a finding'
);
delete from tenancy.registry where (schema_name, table_name) = ('harbour', 'tugs');

create view harbour.fleet as
select id from harbour.ships;
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'fleet', 'org', 'secondary');
select results_eq(
    $$ select code, object collate "default" from tenancy.registry_findings $$,
    $$ values ('not_a_table', 'harbour.fleet') $$,
    'and so is one that is no table'
);
delete from tenancy.registry where (schema_name, table_name) = ('harbour', 'fleet');
drop view harbour.fleet;

drop table harbour.cargo;
alter table harbour.ships add column org_id text;
select results_eq(
    $$ select code from tenancy.push_findings where table_name = 'harbour.ships' $$,
    $$ values ('org_id_type') $$,
    'an org_id of another type is a finding, not a skip'
);
select results_eq(
    $$ select code, severity, remedy from tenancy.registry_findings $$,
    $$
        values (
            'dropped_table', 'decide', 'delete from tenancy.registry where (schema_name, table_name) = (''harbour'', ''cargo'')'
        )
    $$,
    'a table that was dropped since is named, and stops nothing'
);

select * from finish();
rollback;
