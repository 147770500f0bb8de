begin;
set local role postgres;
set local search_path = public, extensions;
select plan(9);

-- Far from what the machine, and others who write to its WAL, take meanwhile.
update tenancy.settings set batch_target_ms = 10000, batch_wal_mb = 1000000;

create function pg_temp.next_size(milliseconds integer, wal_bytes integer)
returns integer language sql volatile set search_path = '' as $$
    select org_migration.next_batch_blocks(
        100, clock_timestamp() - make_interval(secs => milliseconds / 1000.0), pg_current_wal_insert_lsn() - wal_bytes::numeric
    )
$$;
select is(pg_temp.next_size(0, 0), 200, 'after a batch that took no time and wrote little the next is twice as large');
select is(pg_temp.next_size(100000, 0), 50, 'after one that took too long it is half as large');
update tenancy.settings set batch_wal_mb = 4;
select is(pg_temp.next_size(0, 8000000), 50, 'after one that wrote too much WAL as well, however short it was');

-- One after the other, of a page of 47 rows that have 169 bytes and grow by 20.
select is(org_migration.pass_ends(47), '{8,14,19,24,28,32,35,38,41,43,45,47,49}', 'the passes of a page of 47 rows: 7 rows, then 6, 5, 5, 4 and less');
select ok(
    (
        select bool_and(ends[cardinality(ends)] > lines and cardinality(ends) <= 16)
        from generate_series(1, 291) as lines
        cross join lateral (select org_migration.pass_ends(lines) as ends) as passes
    ),
    'passes reach the last row of every page, and there are sixteen at most'
);

create table public.hulls (id integer primary key, user_id uuid, name text);
insert into public.hulls (id, name) select number, repeat('x', 60) from generate_series(1, 90000) as number;
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');
insert into tenancy.user_orgs (user_id, org_id) values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001');
insert into tenancy.registry (schema_name, table_name, scope, priority) values ('public', 'hulls', 'org', 'secondary');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
set local synchronous_commit = off;
select org_migration.note_rules();
update tenancy.settings set batch_wal_mb = 1000000;
select org_migration.backfill('public.hulls');
select org_migration.backfill('public.hulls');
select is(current_setting('synchronous_commit'), 'off', 'while the disk keeps up, the backfill does not wait for it');
-- Others may flush its WAL at any moment, so that less than nothing is allowed to be behind.
alter table tenancy.settings drop constraint settings_batch_wal_mb_check;
update tenancy.settings set batch_wal_mb = -1;
select org_migration.backfill('public.hulls');
select is(current_setting('synchronous_commit'), 'local', 'while it does not, the backfill waits and not the application');
update tenancy.settings set batch_wal_mb = default;

create function pg_temp.run() returns void language plpgsql as $$ begin while org_migration.backfill('public.hulls') loop null; end loop; end $$;
select pg_temp.run();
select is((select count(*) from public.hulls where org_id is null), 0::bigint, 'all rows of a table in passes have their organization');
select is(
    (select rows_updated from org_migration.backfill_progress where relation = 'public.hulls'::regclass),
    90000::bigint,
    'and each is written once'
);

select * from finish();
rollback;
