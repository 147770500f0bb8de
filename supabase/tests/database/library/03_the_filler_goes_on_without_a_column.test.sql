begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, captain_id uuid);
create table harbour.cargo (id integer primary key, ship_id integer references harbour.ships (id));
create table harbour.crates (id integer primary key, packed_by uuid, cargo_id integer references harbour.cargo (id));
insert into tenancy.registry (schema_name, table_name, scope, priority, org_from)
values
    ('harbour', 'ships', 'org', 'secondary', '{captain_id}'),
    ('harbour', 'cargo', 'org', 'secondary', null),
    ('harbour', 'crates', 'org', 'secondary', '{packed_by,cargo_id}');
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
insert into harbour.cargo (id, ship_id) values (1, 1);

-- A column that decides is dropped.
select is(
    pg_temp.org_of_new($$ insert into harbour.crates (id, packed_by, cargo_id) values (1, '00000000-0000-4000-8000-000000000002', 1) $$),
    '2',
    'an owner places its row'
);
alter table harbour.crates drop column packed_by;
select is(
    pg_temp.org_of_new('insert into harbour.crates (id, cargo_id) values (2, 1)'),
    '1',
    'once its column is dropped the parent does, and no insert fails'
);
select throws_ok(
    $$ insert into harbour.crates (id) values (3) $$,
    '23502',
    null,
    'where there is one'
);
select matches(
    (select problem from org_migration.source_findings where table_name = 'harbour.crates'),
    '^names ''packed_by'' in org_from, which decides nothing',
    'the entry that is left in the registry is a finding'
);
alter table harbour.ships drop column captain_id;
select throws_ok(
    $$ insert into harbour.ships (id, user_id) values (3, '00000000-0000-4000-8000-000000000001') $$,
    '23502',
    null,
    'an owner that org_from does not name does not take the place of one that was dropped'
);
update tenancy.registry set org_from = null where table_name = 'ships';
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is(
    pg_temp.org_of_new('insert into harbour.ships (id, user_id) values (3, ''00000000-0000-4000-8000-000000000001'')'),
    '1',
    'until the registry says so'
);

-- A rename of which the registry does not know, and a new table that is registered by the old name.
alter table harbour.crates rename to boxes;
create table harbour.crates (id integer primary key, user_id uuid);
select tenancy.note_tables();
insert into tenancy.registry (schema_name, table_name, scope, priority) values ('harbour', 'crates', 'org', 'secondary');
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is(
    pg_temp.org_of_new('insert into harbour.crates (id, user_id) values (1, ''00000000-0000-4000-8000-000000000002'')'),
    '2',
    'a new table of an old name has a filler of its own'
);
select is(
    pg_temp.org_of_new('insert into harbour.boxes (id, cargo_id) values (4, 1)'),
    '1',
    'and the one that had the name keeps its own'
);

select * from finish();
rollback;
