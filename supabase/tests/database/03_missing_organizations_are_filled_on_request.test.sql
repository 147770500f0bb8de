begin;
set local role postgres;
set local search_path = public, extensions;
select plan(9);
-- Its own tables are not for the guard against unclassified ones, where that is on.
select tenancy.stop_guarding_new_tables();

create schema harbour;
grant usage on schema harbour to authenticated;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.cargo (id integer primary key, ship_id integer references harbour.ships (id));
grant insert on harbour.cargo to authenticated;
delete from tenancy.registry;
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'cargo', 'org', 'secondary');
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values
    ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000002');

create function pg_temp.run(step text)
returns void
language plpgsql
as $function$
begin
    while tenancy.next_step(array[step]) is not null loop
        null;
    end loop;
end
$function$;
select pg_temp.run('record_table_before');
select pg_temp.run('add_org_id');
select pg_temp.run('fill_missing_org_id');
select is_empty(
    $$ select tgname from pg_trigger where tgrelid = 'harbour.ships'::regclass and not tgisinternal $$,
    'nothing is installed unless it is asked for'
);

update tenancy.settings set fill_org_id = true;
select pg_temp.run('fill_missing_org_id');
select ok(tenancy.next_step('{fill_missing_org_id}') is null, 'a second run finds nothing to do');

insert into harbour.ships (id, user_id) values (1, '00000000-0000-4000-8000-000000000001');
select is(
    (select right(org_id::text, 1) from harbour.ships where id = 1),
    '1',
    'a row that comes without organization gets its owner''s'
);
insert into harbour.ships (id, user_id) values (2, null);
select is(
    (select org_id from harbour.ships where id = 2),
    (select default_org_id from tenancy.settings),
    'or the default where nobody owns it'
);
insert into harbour.ships (id, user_id, org_id)
values (3, '00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000002');
select is(
    (select right(org_id::text, 1) from harbour.ships where id = 3),
    '2',
    'a row that says its organization keeps it'
);

set local role authenticated;
select lives_ok(
    $$ insert into harbour.cargo (id, ship_id) values (1, 1) $$,
    'whoever inserts need not see the parent or the mapping'
);
set local role postgres;
select is(
    (select right(org_id::text, 1) from harbour.cargo where id = 1),
    '1',
    'a row without an owner gets its parent''s organization'
);

update tenancy.settings set fill_org_id = false;
select pg_temp.run('fill_missing_org_id');
select is_empty(
    $$ select tgname from pg_trigger where tgrelid in ('harbour.ships'::regclass, 'harbour.cargo'::regclass) and not tgisinternal $$,
    'switched off, it is gone'
);
insert into harbour.ships (id, user_id) values (4, '00000000-0000-4000-8000-000000000001');
select is(
    (select org_id from harbour.ships where id = 4),
    null,
    'and fills nothing'
);

select * from finish();
rollback;
