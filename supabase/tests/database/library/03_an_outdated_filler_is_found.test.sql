begin;
set local role postgres;
set local search_path = public, extensions;
select plan(10);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.cargo (id integer primary key, ship_id integer, owner_id uuid);
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
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
insert into harbour.ships (id, user_id) values (1, '00000000-0000-4000-8000-000000000001');
create function pg_temp.fillers()
returns text
language sql
as $function$
    select concat_ws(' ', passed, substring(detail from '^\S+ has a filler that does not decide .*\[\w+\]'))
    from tenancy.verify_schema()
    where check_name = 'fillers'
$function$;

select is(pg_temp.fillers(), 't', 'a filler that decides as the backfill does passes');
select throws_ok($$ insert into harbour.cargo (id, ship_id) values (1, 1) $$, '23502', null, 'it knows the keys that there are');
alter table harbour.cargo add foreign key (ship_id) references harbour.ships (id);
select is(
    pg_temp.fillers(),
    'f harbour.cargo has a filler that does not decide as the backfill would, or does not count: the registry, a foreign key or a type has changed [filler_outdated]',
    'after a new key it is found'
);
select results_eq(
    $$ select code, severity, remedy collate "default" from tenancy.findings where table_name = 'harbour.cargo' and code like 'filler%' $$,
    $$ values ('filler_outdated', 'breaks', 'do $$ || '$$' || $$ begin while tenancy.advance(''filler'') loop commit; end loop; end $$ || '$$' || $$') $$,
    'with the statement that makes it again'
);
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is(pg_temp.fillers(), 't', 'which does');
insert into harbour.cargo (id, ship_id) values (1, 1);
select is(
    (select right(org_id::text, 1) from harbour.cargo where id = 1),
    '1',
    'and the row has its parent''s organization'
);

update tenancy.registry set org_from = '{owner_id,ship_id}' where table_name = 'cargo';
select matches(pg_temp.fillers(), '^f harbour\.cargo .*\[filler_outdated\]$', 'after a change of the registry it is found as well');
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
insert into harbour.cargo (id, ship_id, owner_id) values (2, 1, '00000000-0000-4000-8000-000000000002');
select is(
    (select right(org_id::text, 1) from harbour.cargo where id = 2),
    '2',
    'and made again'
);

alter table harbour.ships rename to vessels;
update tenancy.registry set table_name = 'vessels' where table_name = 'ships';
select is(pg_temp.fillers(), 't', 'a rename outdates no filler');
alter table harbour.cargo add column note text, alter column owner_id set default gen_random_uuid();
select is(pg_temp.fillers(), 't', 'nor does a column that decides nothing');

select * from finish();
rollback;
