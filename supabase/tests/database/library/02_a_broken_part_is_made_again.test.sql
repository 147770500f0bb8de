begin;
set local role postgres;
set local search_path = public, extensions;
select plan(27);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

update tenancy.settings set fill_org_id = true;
delete from tenancy.registry;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
create function pg_temp.missing()
returns text
language sql
as $function$
    select string_agg(part, ' ' order by ordinal)
    from tenancy.parts('harbour.ships')
    where not present
$function$;
select is_empty(
    $$ select * from tenancy.onboard('harbour.ships') where not passed $$,
    'a table that was onboarded has all of its parts'
);

alter table harbour.ships alter column org_id drop default;
select is(pg_temp.missing(), 'default', 'a default that was dropped is missing');
do $$ begin while tenancy.advance('default') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and is made again');
select ok(not tenancy.advance('default'), 'then there is nothing to do');
do $$ begin while tenancy.advance('default') loop null; end loop; end $$;
select is(
    (select count(*)::integer from tenancy.log where part = 'default' and table_name = 'harbour.ships'),
    1,
    'and it is made once'
);

alter table harbour.ships disable trigger zzz_fill_org_id_ships;
select is(pg_temp.missing(), 'filler', 'a filler that was disabled is missing');
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and made again');
drop trigger zzz_fill_org_id_ships on harbour.ships;
select is(pg_temp.missing(), 'filler', 'so is one that was dropped');
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and made again');

drop index harbour.idx_ships_org_id;
select is(pg_temp.missing(), 'index', 'an index that was dropped is missing');
do $$ begin while tenancy.advance('index') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and built again, where the table is small');
drop index harbour.idx_ships_org_id;
insert into harbour.ships (id, org_id)
select 1, default_org_id
from tenancy.settings;
update tenancy.settings set small_table_bytes = 0;
select throws_ok(
    $$ do $do$ begin while tenancy.advance('index') loop null; end loop; end $do$ $$,
    '54000',
    E'harbour.ships is too large to be indexed while its writes wait; run this outside a transaction:\n'
    'create index concurrently if not exists idx_ships_org_id on harbour.ships (org_id);',
    'where it is not, the message has the line that builds it while writes go on'
);
update tenancy.settings set small_table_bytes = default;
do $$ begin while tenancy.advance('index') loop null; end loop; end $$;

alter table harbour.ships drop constraint fk_ships_org_id;
select is(pg_temp.missing(), 'foreign_key foreign_key_valid', 'a foreign key that was dropped is missing, and so is its validation');
do $$ begin while tenancy.advance('foreign_key') loop null; end loop; end $$;
select is(pg_temp.missing(), 'foreign_key_valid', 'the first is one step, which scans nothing');
do $$ begin while tenancy.advance('foreign_key_valid') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'the second is another');

drop trigger org_id_immutable_ships on harbour.ships;
select is(pg_temp.missing(), 'guard', 'a guard that was dropped is missing');
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and made again');

alter table harbour.ships
alter column org_id drop not null,
drop constraint ships_org_id_not_null;
drop trigger org_id_immutable_ships on harbour.ships;
select is(pg_temp.missing(), 'check check_valid not_null guard', 'a column that is nullable again lacks its check and its NOT NULL');
alter table harbour.ships disable trigger zzz_fill_org_id_ships;
insert into harbour.ships (id) values (2);
alter table harbour.ships enable trigger zzz_fill_org_id_ships;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid') loop null; end loop; end $$;
select is(pg_temp.missing(), 'not_null guard', 'the check comes first, and is valid before anything relies on it');
select is(
    (select org_id from harbour.ships where id = 2),
    (select default_org_id from tenancy.settings),
    'and a row that came without organization meanwhile has one'
);
do $$ begin while tenancy.advance('not_null') loop null; end loop; end $$;
select is(pg_temp.missing(), 'guard', 'then NOT NULL');
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and the guard last');

select throws_ok(
    $$ select tenancy.advance('guards') $$,
    '22023',
    null,
    'a name that is no part is refused'
);
select throws_ok(
    $$ select tenancy.advance('guard', null) $$,
    '22023',
    null,
    'so is NULL'
);
select throws_ok(
    $$ select tenancy.advance(variadic '{}') $$,
    '22023',
    null,
    'so is no name at all'
);
alter table harbour.ships disable trigger org_id_immutable_ships;
update tenancy.settings set paused = true;
select ok(tenancy.advance('guard') and tenancy.advance('guard'), 'while the push is paused, a step waits');
select is(pg_temp.missing(), 'guard', 'and makes nothing');

select * from finish();
rollback;
