begin;
set local role postgres;
set local search_path = public, extensions;
select plan(11);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, captain_id uuid);
create table harbour.cargo (id integer primary key, ship_id integer references harbour.ships (id));
insert into tenancy.registry (schema_name, table_name, scope, priority, org_from)
values
    ('harbour', 'ships', 'org', 'secondary', '{captain_id}'),
    ('harbour', 'cargo', 'org', 'secondary', null);
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values
    ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000002');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
insert into harbour.ships (id, captain_id) values (1, '00000000-0000-4000-8000-000000000001');
create function pg_temp.org_of_new(statement text)
returns text
language plpgsql
as $function$
declare
    org text;
begin
    execute statement || ' returning right(org_id::text, 1)' into org;
    return org;
end
$function$;

select is(pg_temp.org_of_new('insert into harbour.cargo (id, ship_id) values (1, 1)'), '1', 'a row is placed by its parent');
alter table harbour.cargo rename to freight;
select is(
    pg_temp.org_of_new('insert into harbour.freight (id, ship_id) values (2, 1)'),
    '1',
    'also after the table was renamed'
);
alter table harbour.ships rename to vessels;
select is(
    pg_temp.org_of_new('insert into harbour.freight (id, ship_id) values (3, 1)'),
    '1',
    'after the parent was'
);
alter table harbour.vessels rename column id to number;
alter table harbour.freight rename column ship_id to vessel_id;
select is(
    pg_temp.org_of_new('insert into harbour.freight (id, vessel_id) values (4, 1)'),
    '1',
    'after the columns of the key were, on either side'
);
alter table harbour.vessels rename column captain_id to skipper_id;
select is(
    pg_temp.org_of_new('insert into harbour.vessels (number, skipper_id) values (2, ''00000000-0000-4000-8000-000000000002'')'),
    '2',
    'after the owner column was'
);
create schema moored;
alter table harbour.vessels set schema moored;
select is(
    pg_temp.org_of_new('insert into harbour.freight (id, vessel_id) values (5, 2)'),
    '2',
    'and after the table went to another schema'
);

-- Another table takes the old name.
create table harbour.ships (id integer primary key, user_id uuid, captain_id uuid);
select is(
    pg_temp.org_of_new('insert into harbour.freight (id, vessel_id) values (6, 2)'),
    '2',
    'a new table of the old name is not taken for the parent'
);
select throws_ok(
    $$ insert into harbour.freight (id, vessel_id) values (7, null) $$,
    '23502',
    null,
    'nor does a row without a parent get what it does not have'
);
drop table harbour.ships;

-- The registry follows.
select tenancy.note_tables();
select results_eq(
    $$ select schema_name, table_name, org_from from tenancy.registry order by 2 $$,
    $$
        values
            ('harbour', 'freight', null::text[]),
            ('moored', 'vessels', '{skipper_id}')
    $$,
    'the registry can be made to follow, the columns of org_from too'
);
select org_migration.prepare_fillers();
select is_empty($$ select * from tenancy.filler_findings $$, 'and then the fillers are what they should be');
select is(
    (select rows from tenancy.filled_rows where relation = 'harbour.freight'::regclass),
    7::bigint,
    'what the table has counted under its other names is counted'
);

select * from finish();
rollback;
