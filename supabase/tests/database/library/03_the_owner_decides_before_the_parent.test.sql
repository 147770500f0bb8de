begin;
set local role postgres;
set local search_path = public, extensions;
select plan(11);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, flagship_id integer references harbour.ships (id));
create table harbour.cargo (id integer primary key, ship_id integer references harbour.ships (id));
create table harbour.crates (id integer primary key, user_id uuid, cargo_id integer references harbour.cargo (id));
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'cargo', 'org', 'secondary'),
    ('harbour', 'crates', 'org', 'secondary');

insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values
    ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000002');

insert into harbour.ships (id, user_id, flagship_id)
values
    (1, '00000000-0000-4000-8000-000000000001', null),
    (2, '00000000-0000-4000-8000-000000000002', null),
    (3, '00000000-0000-4000-8000-00000000dead', null),
    (5, null, 4),
    (4, null, 1);
insert into harbour.cargo (id, ship_id) values (1, 1), (2, 2), (3, 3), (4, null), (5, 5);
insert into harbour.crates (id, user_id, cargo_id)
values
    (1, '00000000-0000-4000-8000-000000000002', 1),
    (2, null, 2),
    (3, '00000000-0000-4000-8000-00000000dead', 1),
    (4, '00000000-0000-4000-8000-00000000dead', null);

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;

select ok(
    (select bool_and(org_id is null) from harbour.ships),
    'with organizations to tell apart, phase 2 gives the existing rows none yet'
);

do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;

select results_eq(
    $$ select id, right(org_id::text, 1) from harbour.ships where org_id::text like 'b%' and id < 4 order by id $$,
    $$ values (1, '1'), (2, '2') $$,
    'a row belongs to the organization of its owner'
);
select is(
    (select org_id from harbour.ships where id = 3),
    (select default_org_id from tenancy.settings),
    'an orphan, whose owner nobody knows, goes to the default organization'
);
select results_eq(
    $$ select id, right(org_id::text, 1) from harbour.ships where id > 3 order by id $$,
    $$ values (4, '1'), (5, '1') $$,
    'rows that hang from rows of their own table follow them, in whatever order they lie'
);
select results_eq(
    $$ select id, right(org_id::text, 1) from harbour.cargo where id in (1, 2, 5) order by id $$,
    $$ values (1, '1'), (2, '2'), (5, '1') $$,
    'a row without an owner belongs to the organization of its parent'
);
select is(
    (select count(*)::integer from harbour.cargo where org_id = (select default_org_id from tenancy.settings)),
    2,
    'a row without owner and parent goes to the default organization, and so does the child of an orphan'
);
select results_eq(
    $$ select id, right(org_id::text, 1) from harbour.crates where id < 4 order by id $$,
    $$ values (1, '2'), (2, '2'), (3, '1') $$,
    'the owner decides before the parent, and the parent where nobody knows the owner'
);
select results_eq(
    $$
        select row_key ->> 'id', right(org_id::text, 1), candidates ->> 'cargo_id'
        from org_migration.backfill_conflicts
        where relation::text like 'harbour.%'
    $$,
    $$ values ('1', '2', 'b0000000-0000-4000-8000-000000000001') $$,
    'a row whose owner and parent name different organizations is reported'
);
select results_eq(
    $$
        select relation::text, rows_updated, orphans, conflicts
        from org_migration.backfill_progress
        where relation::text like 'harbour.%'
        order by 1
    $$,
    $$
        values
            ('harbour.cargo', 5::bigint, 1::bigint, 0::bigint),
            ('harbour.crates', 4::bigint, 1::bigint, 1::bigint),
            ('harbour.ships', 5::bigint, 1::bigint, 0::bigint)
    $$,
    'rows, orphans and conflicts are counted for each table'
);
select ok(
    (select bool_and(state = 'finished') from org_migration.backfill_progress where relation::text like 'harbour.%'),
    'every table is finished'
);
create temp table written as
select
    (select sum(rows_updated) from org_migration.backfill_progress) as rows,
    (select count(*) from tenancy.log) as lines;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
select results_eq(
    $$
        select
            (select sum(rows_updated) from org_migration.backfill_progress),
            (select count(*) from tenancy.log)
    $$,
    $$ select rows, lines from written $$,
    'a second run finds nothing to do'
);

select * from finish();
rollback;
