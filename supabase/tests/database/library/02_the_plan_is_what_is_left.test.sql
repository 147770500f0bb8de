begin;
set local role postgres;
set local search_path = public, extensions;
select plan(14);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

select is_empty($$ select * from tenancy.plan $$, 'on a migrated database nothing is left to do');

-- Two tables are enough, without the filler, and nobody in an organization of their own.
delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where raw_app_meta_data ? 'org_id';
update tenancy.settings set fill_org_id = false, scan_mb_per_second = 1, backfill_rows_per_second = 100;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (id integer primary key, ship_id integer references harbour.ships (id), note text);
insert into harbour.ships (id) select generate_series(1, 1000);
insert into harbour.docks (id, ship_id, note) select number, number, repeat('x', 2000) from generate_series(1, 1000) as number;
analyze harbour.ships;
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'docks', 'org', 'secondary');

select results_eq(
    $$ select number::integer, phase, part, relation::text collate "default" from tenancy.plan order by number $$,
    $$
        values
            (1, 2, 'count', 'harbour.docks'),
            (2, 2, 'count', 'harbour.ships'),
            (3, 2, 'column', 'harbour.docks'),
            (4, 2, 'column', 'harbour.ships'),
            (5, 2, 'index', 'harbour.docks'),
            (6, 2, 'index', 'harbour.ships'),
            (7, 2, 'foreign_key', 'harbour.docks'),
            (8, 2, 'foreign_key', 'harbour.ships'),
            (9, 2, 'foreign_key_valid', 'harbour.docks'),
            (10, 2, 'foreign_key_valid', 'harbour.ships'),
            (11, 4, 'check', 'harbour.docks'),
            (12, 4, 'check', 'harbour.ships'),
            (13, 4, 'check_valid', 'harbour.docks'),
            (14, 4, 'check_valid', 'harbour.ships'),
            (15, 4, 'not_null', 'harbour.docks'),
            (16, 4, 'not_null', 'harbour.ships'),
            (17, 6, 'guard', 'harbour.docks'),
            (18, 6, 'guard', 'harbour.ships')
    $$,
    'before a push the plan has every step of every table, in order'
);
select set_eq(
    $$ select part, statement, lock from tenancy.plan where relation = 'harbour.ships'::regclass and part <> 'count' $$,
    $$ select part, ddl, lock from tenancy.parts('harbour.ships') where not present $$,
    'literally what the parts that are not present say, with their locks'
);
select is(
    (select statement from tenancy.plan where part = 'column' and relation = 'harbour.ships'::regclass),
    format(
        'alter table harbour.ships add column org_id uuid default %L::uuid, alter column org_id set default public.auth_org_id()',
        (select default_org_id from tenancy.settings)
    ),
    'with one organization the column comes with the value of all rows, and no backfill is planned'
);
select set_eq(
    $$ select distinct part from tenancy.plan where bytes > 0 $$,
    $$ values ('count'), ('index'), ('foreign_key_valid'), ('check_valid') $$,
    'what reads a table says how much'
);
select results_eq(
    $$ select bytes, seconds from tenancy.plan where part = 'index' and relation = 'harbour.docks'::regclass $$,
    $$ values (pg_relation_size('harbour.docks'), round(pg_relation_size('harbour.docks') / 1e6, 1)) $$,
    'and how long that is to take, by settings.scan_mb_per_second'
);
select results_eq(
    $$ select relation::text collate "default", estimated_rows from tenancy.plan where part = 'count' order by number $$,
    $$ values ('harbour.docks', null), ('harbour.ships', 1000::bigint) $$,
    'rows are those of the statistics, unknown where the table was never analyzed'
);

insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001');
select results_eq(
    $$ select statement collate "default", seconds from tenancy.plan where part = 'backfill' and relation = 'harbour.ships'::regclass $$,
    $$ values ('update harbour.ships: org_id of the owner in user_id, else the default organization', 10.0) $$,
    'with a mapping each row is decided, and the plan says by what and how long, by settings.backfill_rows_per_second'
);
select is(
    (select statement from tenancy.plan where part = 'backfill' and relation = 'harbour.docks'::regclass),
    'update harbour.docks: org_id of harbour.ships through ship_id, else the default organization',
    'also of a table whose rows follow those of another'
);
select is(
    (select array_agg(part order by number) from tenancy.plan where relation = 'harbour.ships'::regclass),
    '{count,column,backfill,index,foreign_key,foreign_key_valid,check,check_valid,not_null,guard}',
    'which comes before the index, so that no index makes it dearer'
);

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
select is(
    (select array_agg(part order by number) from tenancy.plan where relation = 'harbour.ships'::regclass),
    '{backfill,index,foreign_key,foreign_key_valid,check,check_valid,not_null,guard}',
    'what was done is no longer in it'
);
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
do $$ begin while tenancy.advance('index') loop null; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key', 'foreign_key_valid', 'foreign_key_root') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid', 'not_null') loop null; end loop; end $$;
do $$ begin while tenancy.advance('guard', 'guard_statement') loop null; end loop; end $$;
select is_empty($$ select * from tenancy.plan $$, 'when all has run, the plan is empty');

alter table harbour.ships alter column org_id drop not null;
select results_eq(
    $$ select part, statement collate "default" from tenancy.plan $$,
    $$ values ('not_null', 'alter table harbour.ships alter column org_id set not null') $$,
    'what somebody takes away is planned again'
);
alter table harbour.ships alter column org_id set not null;
do $$ begin while tenancy.roll_back(1) loop null; end loop; end $$;
select is(
    (select count(*)::integer from tenancy.plan where part in ('count', 'column', 'backfill', 'guard')),
    8,
    'and after a roll back so is all of it'
);

select * from finish();
rollback;
