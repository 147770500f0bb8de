begin;
set local role postgres;
set local search_path = public, extensions;
select plan(15);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
create schema harbour;
create table harbour.ports (id integer primary key, name text);
create table harbour.ships (id integer primary key, user_id uuid, captain_id uuid);
create table harbour.docks (
    id integer primary key, user_id uuid, length integer,
    port_id integer references harbour.ports (id), ship_id integer, tug_id integer references harbour.ships (id)
);
create table harbour.rates (id integer primary key, amount integer);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ports', 'excluded', null, 'a test'),
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'docks', 'org', 'secondary', null),
    ('harbour', 'rates', 'org', 'secondary', null);
create function pg_temp.found(entries text[])
returns text
language sql
as $function$
    update tenancy.registry set org_from = entries where (schema_name, table_name) = ('harbour', 'docks');
    select string_agg(concat_ws(' ', problem || ';', remedy, format('[%s]', code)), E'\n' order by problem)
    from org_migration.source_findings
    where table_name = 'harbour.docks'
$function$;

select is(pg_temp.found('{tug_id,user_id}'), null, 'a parent and an owner decide');
select is(
    pg_temp.found('{user_id,owner_id}'),
    'names ''owner_id'' in org_from, which decides nothing: it is no column or foreign key of it; what would do: tug_id'
    ' [org_from_without_source]',
    'a column that is not there decides nothing, and what would do is said'
);
select is(
    pg_temp.found('{tug_id,length}'),
    'names ''length'' in org_from, which decides nothing: it is integer without a foreign key; alter table harbour.docks add foreign key'
    ' (length) references … not valid, to the table that it means; what would do: user_id [org_from_without_source]',
    'a column that is no key decides nothing, and the way out is the key'
);
select is(
    pg_temp.found('{user_id,port_id}'),
    'names ''port_id'' in org_from, which decides nothing: it references harbour.ports, which is excluded and from which no foreign key leads'
    ' to a user; register harbour.ports as org, or say whose its rows are: alter table harbour.ports add foreign key (…) references auth.users'
    ' (id) not valid; what would do: tug_id [org_from_without_source]',
    'a key of a table that leads to nobody decides nothing, and the way out is the link that is missing'
);
alter table harbour.ports add column opened_by uuid;
alter table harbour.ports add foreign key (opened_by) references auth.users (id) not valid;
select is(pg_temp.found('{user_id,port_id}'), null, 'with it, the key decides');
select is(
    (select description from tenancy.sources where root = 'harbour.docks'::regclass and entry = 'port_id'),
    'the owner in port_id through harbour.ports',
    'through that table'
);
select matches(pg_temp.found('{user_id,ship_id}'), '^names ''ship_id''[^\n]*\[org_from_without_source\]$', 'nor does a column named as a key is');
alter table harbour.docks add foreign key (ship_id) references harbour.ships (id) not valid;
select is(pg_temp.found('{user_id,ship_id}'), null, 'until it is one, valid or not');
select is(
    (select count(*)::integer from org_migration.source_findings where table_name = 'harbour.ships'),
    0,
    'a column that holds users'' ids needs no key'
);
update tenancy.registry set org_from = '{captain_id}' where (schema_name, table_name) = ('harbour', 'ships');
select is_empty(
    $$ select * from org_migration.source_findings where table_name = 'harbour.ships' $$,
    'whatever its name, where it is named'
);

-- With a mapping, a table that nothing can decide would be a promise that is not kept.
select is_empty(
    $$ select * from org_migration.source_findings where table_name = 'harbour.rates' $$,
    'without a mapping a table may have no source'
);
insert into tenancy.user_orgs (user_id, org_id)
select '00000000-0000-4000-8000-000000000001', default_org_id
from tenancy.settings;
select results_eq(
    $$ select code collate "default", severity from org_migration.source_findings where table_name = 'harbour.rates' $$,
    $$ values ('no_source', 'stops') $$,
    'with one it stops the push'
);
update tenancy.registry set org_from = '{}' where (schema_name, table_name) = ('harbour', 'rates');
select is_empty(
    $$ select * from org_migration.source_findings where table_name = 'harbour.rates' $$,
    'unless it says so'
);

update tenancy.registry set org_from = '{nothing}' where (schema_name, table_name) = ('harbour', 'rates');
select is(
    (select string_agg(remedy, '|') from org_migration.source_findings where table_name = 'harbour.rates'),
    'take it out, or say ''{}'': all rows belong to the default organization',
    'where nothing would do, that is said as well'
);
select matches(pg_temp.found('{user_id,NULL}'), '^names NULL in org_from, .*; what would do: .*tug_id', 'NULL names nothing, and hides nothing');

select * from finish();
rollback;
