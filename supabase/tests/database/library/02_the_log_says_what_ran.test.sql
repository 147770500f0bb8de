begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- Two tables are enough: one that is decided by its owner, and one that follows it.
delete from tenancy.registry;
delete from tenancy.user_orgs;
update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (id integer primary key, ship_id integer references harbour.ships (id));
insert into harbour.ships (id, user_id)
values (1, '00000000-0000-4000-8000-000000000001'), (2, null), (3, null);
insert into harbour.docks (id, ship_id) values (1, 1), (2, 2);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'docks', 'org', 'secondary');
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001');
create temp table planned as
select * from tenancy.plan;
-- The log is kept: these are this file's lines.
create temp table kept as
select coalesce(max(id), 0) as id from tenancy.log;
create temp view logged as
select log.*
from tenancy.log
where log.id > (select kept.id from kept);

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
-- As the file of index lines has them, but for what cannot be done in a transaction.
create index idx_docks_org_id on harbour.docks (org_id);
create index idx_ships_org_id on harbour.ships (org_id);
select tenancy.assert_org_id_indexes();
do $$ begin while tenancy.advance('foreign_key') loop null; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key_valid') loop null; end loop; end $$;
do $$ begin while tenancy.advance('leftovers') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid') loop null; end loop; end $$;
do $$ begin while tenancy.advance('not_null') loop null; end loop; end $$;
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;

select isnt_empty($$ select * from planned where part = 'backfill' $$, 'a push of two tables and a mapping is planned');
select bag_eq(
    $$ select part, relation::text, statement from planned $$,
    $$ select part, table_name, statement from logged $$,
    'what the plan said is, statement by statement, what ran'
);
select results_eq(
    $$ select part, table_name, statement from logged where part <> 'backfill' order by id $$,
    $$
        select part, relation::text collate "default", statement collate "default"
        from planned
        where part <> 'backfill'
        order by number
    $$,
    'in its order'
);
select results_eq(
    $$ select table_name from logged where part = 'backfill' order by id $$,
    $$ values ('harbour.ships'), ('harbour.docks') $$,
    'except that the backfill takes parents first'
);
select results_eq(
    $$ select part, table_name, rows from logged where rows is not null order by part, table_name $$,
    $$
        values
            ('backfill', 'harbour.docks', 2::bigint),
            ('backfill', 'harbour.ships', 3::bigint),
            ('count', 'harbour.docks', 2::bigint),
            ('count', 'harbour.ships', 3::bigint)
    $$,
    'with the rows that it counted or wrote'
);
select is_empty(
    $$ select * from logged where (began is null or seconds is null) <> (part = 'index') $$,
    'when it began and how long it took, except of an index line, which no function sees'
);
select is_empty(
    $$ select * from logged where seconds_waited <> 0 or waited_for is not null $$,
    'nobody was waited for'
);

create temp table before_again as
select count(*) as lines from logged;
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default', 'filler', 'guard') loop null; end loop; end $$;
select tenancy.assert_org_id_indexes();
select is((select count(*) from logged), (select lines from before_again), 'a second push has nothing to log');

alter table harbour.ships disable trigger org_id_immutable_ships;
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select is(
    (select statement from logged order by id desc limit 1),
    'create or replace trigger org_id_immutable_ships after update on harbour.ships'
    ' for each row when (old.org_id is distinct from new.org_id) execute function tenancy.refuse_org_id_change();'
    ' alter table harbour.ships enable always trigger org_id_immutable_ships',
    'except what had to be made again'
);

create table harbour.tugs (id integer primary key, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'tugs', 'org', 'secondary');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default', 'filler', 'index') loop null; end loop; end $$;
select tenancy.assert_org_id_indexes();
select is(
    (select count(*)::integer from logged where part = 'index' and table_name = 'harbour.tugs'),
    1,
    'an index that a step has built is logged by it, and not once more as an index line'
);
drop table harbour.tugs;
delete from tenancy.registry where (schema_name, table_name) = ('harbour', 'tugs');

do $$ begin while tenancy.roll_back(5) loop null; end loop; end $$;
select results_eq(
    $$ select statement from logged order by id desc limit 2 $$,
    $$
        values
            ('drop trigger org_id_immutable_ships on harbour.ships'),
            ('drop trigger org_id_immutable_docks on harbour.docks')
    $$,
    'a roll back is logged as well'
);
do $$ begin while tenancy.roll_back(1) loop null; end loop; end $$;
select is(
    (select count(*)::integer from logged where part = 'count' and table_name in ('harbour.ships', 'harbour.docks')),
    2,
    'and takes nothing from the log'
);

select * from finish();
rollback;
