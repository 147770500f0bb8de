begin;
set local role postgres;
set local search_path = public, extensions;
select plan(37);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- One table to fill, with its owner's organization, and one that follows it; nothing of a push before.
delete from tenancy.registry;
delete from tenancy.user_orgs;
delete from org_migration.work;
delete from org_migration.sessions;
delete from org_migration.lock_waits;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (id integer primary key, ship_id integer references harbour.ships (id));
insert into harbour.ships (id, user_id) select n, '00000000-0000-4000-8000-000000000001' from generate_series(1, 20) as n;
insert into harbour.docks (id, ship_id) values (1, 1), (2, 2);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'docks', 'org', 'secondary');
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001');

select results_eq(
    $$ select status, alive, session_pid, percent, time_left, next from tenancy.now $$,
    $$ values ('not begun', false, null::integer, 0::numeric, null::interval, 'push') $$,
    'before a push there is one row, which says so'
);

update tenancy.settings set paused = true;
select tenancy.advance('count');
select results_eq(
    $$ select status, alive, percent, time_left from tenancy.now $$,
    $$ values ('paused', true, 0::numeric, null::interval) $$,
    'a push that is paused before its first step has done nothing'
);
update tenancy.settings set paused = false;
delete from org_migration.sessions;

-- This session is the push: what it has noted is what another session reads.
select ok(tenancy.advance('count'), 'a loop that begins has looked what there is to do');
select results_eq(
    $$ select status, alive, session_pid, phase, step, relation::text, table_number, tables from tenancy.now $$,
    $$ values ('running', true, pg_backend_pid(), 2, 'count', 'harbour.docks', 1::bigint, 2::bigint) $$,
    'a push that runs has a session that is there, a step, a table, and which of how many it is'
);
select is(
    (select session_began from tenancy.now),
    (select backend_start from pg_stat_activity where pid = pg_backend_pid()),
    'and tells when its session began, since process ids come again'
);
select ok((select time_left > interval '0' from tenancy.now), 'it has work left');
select ok((select wal_bytes >= 0 from tenancy.now), 'and has written WAL');
select is((select next from tenancy.now), 'count of harbour.ships', 'what comes next is named');
select tenancy.advance('count'), tenancy.advance('count');
select is((select relation::text from tenancy.now), 'harbour.ships', 'the next step is the next table');
select cmp_ok((select percent from tenancy.now), '>', 0::numeric, 'and some of it is done');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
select results_eq(
    $$ select status, step, next from tenancy.now $$,
    $$ values ('running', null, 'column of harbour.docks') $$,
    'between two loops it is in no step, and what comes next is known'
);

select is(
    (select expected from org_migration.work where part = 'backfill' and relation = 'harbour.ships'::regclass),
    (select org_migration.expected_seconds('backfill', 20)),
    'what a table takes is expected by its rows as they were counted, also where it has no statistics'
);

-- Paused.
update tenancy.settings set paused = true;
select is((select next from tenancy.now), 'a pause', 'a pause that is asked for comes next, after the step under way');
select ok(tenancy.advance('column', 'default'), 'the push waits');
select results_eq(
    $$ select status, alive, next from tenancy.now $$,
    $$ values ('paused', true, 'update tenancy.settings set paused = false') $$,
    'a push that is paused says so, and how it goes on'
);
select ok(
    (select paused_since between now() and clock_timestamp() and time_left > interval '0' from tenancy.now),
    'since when, and how much work is left'
);
create temp table pause as
select paused_since from tenancy.now;
select tenancy.advance('column', 'default');
select is((select paused_since from tenancy.now), (select paused_since from pause), 'which is when it began');
update tenancy.settings set paused = false;
select tenancy.advance('column', 'default');
select results_eq(
    $$ select status, paused_since from tenancy.now $$,
    $$ values ('running', null::timestamptz) $$,
    'and runs when it is over'
);

-- Blocked: by whom is what the locks say at this moment.
insert into org_migration.lock_waits (step, relation, session_pid, attempts, blocked_since, next_attempt_at, blocked_by)
values ('column', 'harbour.docks', pg_backend_pid(), 3, clock_timestamp() - interval '5 seconds', clock_timestamp(), 'somebody');
select results_eq(
    $$ select status, blocked_by from tenancy.now $$,
    $$ values ('running', null) $$,
    'a lock that nobody holds any more blocks nobody'
);
select is((select step from tenancy.now), 'column', 'and while one table waits');
select is((select relation::text from tenancy.now), 'harbour.ships', 'another one has its turn');
delete from org_migration.lock_waits;

-- Dead: what was noted is of a session that is gone, although its process id has come again.
update org_migration.sessions set began = began - interval '1 day';
select results_eq(
    $$ select status, alive, step, relation::text, time_left, wal_bytes, next from tenancy.now $$,
    $$ values ('dead', false, 'column', 'harbour.docks', null::interval, null::bigint, 'push') $$,
    'a push whose session is gone is dead, where it stopped, and has no time left'
);
update tenancy.settings set paused = true;
select is(
    (select next from tenancy.now),
    'push, after update tenancy.settings set paused = false',
    'a pause that would stop the next push is told'
);
update tenancy.settings set paused = false;
create temp table dead as
select percent from tenancy.now;

-- And goes on. Meanwhile other seconds are expected, one step is not missing any more, and another is.
update org_migration.sessions set began = began + interval '1 day', works_since = null;
select set_config('tenancy.cursor', '', false);
update tenancy.settings set backfill_rows_per_second = 1;
insert into org_migration.work (number, phase, part, relation, expected, bytes)
values (1000, 6, 'guard_move', 'harbour.docks', 100, 0);
delete from org_migration.work where part = 'guard' and relation = 'harbour.docks'::regclass;
select tenancy.advance('column', 'default');
select is((select percent from tenancy.now), (select percent from dead), 'with the next session it is as much done as before');
select results_eq(
    $$ select part, relation from org_migration.work where done_at is null order by part, relation::text $$,
    $$ select part, relation from tenancy.plan where phase <= 6 order by part, relation::text $$,
    'of what is missing'
);
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
select ok((select percent from tenancy.now) >= (select percent from dead), 'what a session before has done stays done');
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;

select tenancy.advance('backfill');
select tenancy.advance('backfill');
select results_eq(
    $$ select phase, step, relation::text, table_number, tables from tenancy.now $$,
    $$ values (3, 'backfill', 'harbour.ships', 1::bigint, 2::bigint) $$,
    'the backfill takes parents first'
);
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
create index idx_docks_org_id on harbour.docks (org_id);
create index idx_ships_org_id on harbour.ships (org_id);
select is((select next from tenancy.now), 'foreign_key of harbour.docks', 'an index that an index line has built is done');
do $$ begin while tenancy.advance('index') loop null; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key') loop null; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key_valid') loop null; end loop; end $$;
do $$ begin while tenancy.advance('leftovers') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid') loop null; end loop; end $$;
do $$ begin while tenancy.advance('not_null') loop null; end loop; end $$;
select is((select status from tenancy.now), 'running', 'a push is not done before its last step');
select cmp_ok((select percent from tenancy.now), '<', 100::numeric, 'nor at 100 percent');
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select results_eq(
    $$ select status, percent, step, time_left, next from tenancy.now $$,
    $$ values ('done', 100::numeric, null, null::interval, 'select * from tenancy.findings') $$,
    'with the last step it is done'
);
update org_migration.sessions set began = began - interval '1 day';
select results_eq(
    $$ select status, alive from tenancy.now $$,
    $$ values ('done', false) $$,
    'and stays so when its session is gone'
);
update org_migration.sessions set began = began + interval '1 day';

select tenancy.roll_back(5);
select is((select step from tenancy.now), 'guard', 'a roll back shows its steps');
select is((select status from tenancy.now), 'running', 'and runs');
do $$ begin while tenancy.roll_back(5) loop null; end loop; end $$;
select is((select status from tenancy.now), 'not begun', 'after it nothing of the push is noted');

-- The pace of a backfill, over sweeps and passes: what is done only grows.
select results_eq(
    $$
        select round(org_migration.backfill_done(backfill)::numeric, 3)
        from (
            values
                (1, 'running', 10000, 20000, 10, 1, 10000, 0),
                (2, 'running', 10000, 20000, 10, 2, 10000, 0),
                (3, 'running', 10000, 20000, 10, 10, 20000, 0),
                (4, 'finished', 10000, 20000, 10, 10, 20000, 0),
                (5, 'running', 0, 25000, 10, 1, 0, 1),
                (6, 'running', 0, 25000, 10, 1, 25000, 1),
                (7, 'running', 0, 25000, 10, 1, 0, 2),
                (8, 'finished', 0, 25000, 10, 1, 25000, 2)
        ) as moment (ordinal, state, first_block, end_block, passes, pass, next_block, sweep)
        cross join lateral jsonb_populate_record(null::org_migration.backfills, to_jsonb(moment) || '{"pass_ends": [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}') as backfill
        order by moment.ordinal
    $$,
    array[0, 0.268, 1.000, 1, 0.980, 1.000, 1.000, 1]::numeric[],
    'the sweep after the passes does not begin anew'
);
select results_eq(
    $$
        select round(org_migration.backfill_done(jsonb_populate_record(null::org_migration.backfills, to_jsonb(moment)))::numeric, 3)
        from (
            values
                (1, 'waiting', 100, 0, 0, 1),
                (2, 'running', 100, 0, 50, 1),
                (3, 'running', 100, 0, 0, 2),
                (4, 'running', 0, 0, 0, 1)
        ) as moment (ordinal, state, end_block, passes, next_block, sweep)
        order by moment.ordinal
    $$,
    array[0, 0.495, 0.990, 0]::numeric[],
    'nor does a table that is swept at once'
);

select * from finish();
rollback;
