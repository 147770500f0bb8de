begin;
set local role postgres;
set local search_path = public, extensions;
select plan(18);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
update tenancy.settings set fill_org_id = false;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (
    id integer primary key,
    ship_id integer constraint its_ship references harbour.ships (id) on delete set null
);
comment on constraint its_ship on harbour.docks is 'who lies there';
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'docks', 'org', 'secondary');
select throws_ok(
    $$ select tenancy.enable_binding('harbour.docks') $$,
    '55000',
    null,
    'a foreign key of tables that have not been migrated cannot be bound'
);
select is_empty($$ select * from tenancy.onboard('harbour.ships') where not passed $$, 'a parent has all of its parts');
select is_empty($$ select * from tenancy.onboard('harbour.docks') where not passed $$, 'and its child');
create temp table before as
select pg_get_constraintdef(oid) as definition from pg_constraint where conname = 'its_ship';

insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into harbour.ships (id, org_id)
values
    (1, 'b0000000-0000-4000-8000-000000000001'),
    (2, 'b0000000-0000-4000-8000-000000000002');
insert into harbour.docks (id, ship_id, org_id) values (1, 2, 'b0000000-0000-4000-8000-000000000001');

select throws_ok(
    $$ select tenancy.enable_binding('harbour.docks') $$,
    '55000',
    E'harbour.docks has foreign keys that cannot be bound; all others of it are:\nits_ship: it needs indexes'
    '\nRun these, each outside a transaction, then call again; they are those of all tables:'
    '\ncreate index concurrently if not exists idx_docks_org_id_ship_id on harbour.docks (org_id, ship_id);'
    '\ncreate unique index concurrently if not exists idx_ships_org_id_id_key on harbour.ships (org_id, id);'
    '\nOnce a key is bound, supabase-js no longer embeds by its column, as call:call_id(*); call:calls(*) and call:calls!<foreign key>(*) go on.',
    'the message has the indexes that a bound foreign key needs'
);
create unique index on harbour.ships (org_id, id);
create index on harbour.docks (org_id, ship_id);
select throws_ok(
    $$ select tenancy.enable_binding('harbour.docks') $$,
    '23503',
    null,
    'a foreign key that rows cross with already cannot be bound'
);
select results_eq(
    $$ select row_key, constraint_name::text collate "default" from tenancy.cross_org_references() $$,
    $$ values ('{"id": 1}'::jsonb, 'its_ship') $$,
    'those rows can be listed'
);
select is_empty($$ select * from tenancy.bound_references $$, 'and nothing is noted of what was refused');
delete from harbour.docks;

do $$ begin while tenancy.enable_binding('harbour.docks') loop null; end loop; end $$;
select results_eq(
    $$ select part, present from tenancy.parts('harbour.docks') where part like 'binding%' $$,
    $$ values ('binding', true), ('binding_valid', true) $$,
    'without them it is bound and valid'
);
select throws_ok(
    $$ insert into harbour.docks (id, ship_id, org_id) values (1, 2, 'b0000000-0000-4000-8000-000000000001') $$,
    '23503',
    null,
    'then no row can reference one of another organization'
);
select lives_ok(
    $$ insert into harbour.docks (id, ship_id, org_id) values (1, 1, 'b0000000-0000-4000-8000-000000000001') $$,
    'and may one of its own'
);
delete from harbour.ships where id = 1;
select results_eq(
    $$ select ship_id, right(org_id::text, 1) from harbour.docks $$,
    $$ values (null::integer, '1') $$,
    'on delete set null takes the reference and leaves the organization'
);
select is(
    (select obj_description(oid, 'pg_constraint') from pg_constraint where conname = 'its_ship'),
    'who lies there',
    'its name and its comment stay'
);

alter table harbour.docks
drop constraint its_ship,
add constraint its_ship foreign key (ship_id) references harbour.ships (id) on delete set null;
select set_eq(
    $$ select code, table_name from tenancy.findings where code like 'missing\_%' $$,
    $$ values ('missing_binding', 'harbour.docks'), ('missing_binding_valid', 'harbour.docks') $$,
    'a binding that somebody takes away is a finding'
);
do $$ begin while tenancy.advance('binding', 'binding_valid') loop null; end loop; end $$;
select is_empty($$ select * from tenancy.parts('harbour.docks') where not present $$, 'and is made again');

savepoint bound;
alter table harbour.docks drop constraint its_ship;
select isnt_empty(
    $$ select * from tenancy.findings where table_name = 'harbour.docks' $$,
    'a bound foreign key that somebody drops is missed, since it is remembered that it was bound'
);
rollback to savepoint bound;

do $$ begin while tenancy.disable_binding('harbour.docks') loop null; end loop; end $$;
select is(
    (select pg_get_constraintdef(oid) from pg_constraint where conname = 'its_ship'),
    (select definition from before),
    'the undo makes it what it was, valid'
);
select is_empty($$ select * from tenancy.bound_references $$, 'and forgets it');
select is_empty($$ select * from tenancy.parts('harbour.docks') where not present $$, 'so that nothing is missed');

select * from finish();
rollback;
