begin;
set local role postgres;
set local search_path = public, extensions;
select plan(16);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
grant usage on schema harbour to authenticated;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.cargo (id integer primary key, ship_id integer references harbour.ships (id));
grant insert on harbour.cargo to authenticated;
delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
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

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
select col_default_is('tenancy', 'settings', 'fill_org_id', 'true', 'it is on unless the operator decides otherwise');
update tenancy.settings set fill_org_id = false;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is_empty(
    $$ select tgname from pg_trigger where tgrelid = 'harbour.ships'::regclass and not tgisinternal $$,
    'then nothing is installed'
);

update tenancy.settings set fill_org_id = true;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select ok(not tenancy.advance('filler'), 'then there is nothing left to do');
select ok(
    (select present from tenancy.parts('harbour.ships') where part = 'filler'),
    'the filler is one of the table''s parts'
);

insert into harbour.ships (id, user_id) values (1, '00000000-0000-4000-8000-000000000001');
select is(
    (select right(org_id::text, 1) from harbour.ships where id = 1),
    '1',
    'a row that comes without organization gets its owner''s'
);
select throws_ok(
    $$ insert into harbour.ships (id, user_id) values (2, null) $$,
    '23502',
    'harbour.ships got a row without org_id, and nothing says whose it is: the statement did not send it, the token has no'
    ' app_metadata.org_id, and no organization follows from its user_id; send org_id, or place the user in tenancy.user_orgs, see'
    ' tenancy.enable_new_users for those who sign up',
    'or is refused where nobody owns it, since the mapping is a promise'
);
insert into harbour.ships (id, user_id, org_id)
values (3, '00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000002');
select is(
    (select right(org_id::text, 1) from harbour.ships where id = 3),
    '2',
    'a row that says its organization keeps it'
);

set local role authenticated;
create function pg_temp.runs_as(value pg_catalog.uuid) returns boolean language plpgsql as
$function$ begin raise exception 'run as %', current_user; end $function$;
create domain pg_temp.uuid as pg_catalog.uuid check (pg_temp.runs_as(value));
select lives_ok(
    $$ insert into harbour.cargo (id, ship_id) values (9, 1) $$,
    'a temporary type of whoever inserts is not taken for one of PostgreSQL''s'
);
drop domain pg_temp.uuid;
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

alter table harbour.cargo add column user_id uuid;
select results_eq(
    $$ select code, severity, table_name collate "default" from tenancy.filler_findings $$,
    $$ values ('filler_outdated', 'breaks', 'harbour.cargo') $$,
    'a filler that does not know all that decides is not what it should be'
);
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is_empty($$ select * from tenancy.filler_findings $$, 'until it is made again');
insert into harbour.cargo (id, ship_id, user_id) values (2, 1, '00000000-0000-4000-8000-000000000002');
select is(
    (select right(org_id::text, 1) from harbour.cargo where id = 2),
    '2',
    'and then decides by that as well'
);

update tenancy.settings set fill_org_id = false;
select ok(
    not (select present from tenancy.parts('harbour.ships') where part = 'filler'),
    'while it is not to be there, a filler that is still there is what is wrong'
);
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
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
