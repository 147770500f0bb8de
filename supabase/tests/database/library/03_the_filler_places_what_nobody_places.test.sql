begin;
set local role postgres;
set local search_path = public, extensions;
select plan(21);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create schema harbour;
grant usage on schema harbour to authenticated;
create table harbour.ships (id integer primary key, user_id uuid, name text);
create table harbour.ports (id integer primary key, name text);
create table harbour.calls (id integer, ship_id integer references harbour.ships (id), user_id uuid, year integer, primary key (id, year))
partition by range (year);
create table harbour.calls_2024 partition of harbour.calls for values from (2024) to (2025);
create table harbour.calls_2025 (id integer not null, year integer not null, user_id uuid, ship_id integer references harbour.ships (id));
alter table harbour.calls attach partition harbour.calls_2025 for values from (2025) to (2026);
grant select, insert, update on all tables in schema harbour to authenticated;
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'ports', 'org', 'secondary'),
    ('harbour', 'calls', 'org', 'secondary');
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
create function pg_temp.org(target regclass, row_id integer)
returns text
language plpgsql
as $function$
declare
    org text;
begin
    execute format('select right(org_id::text, 1) || left(org_id::text, 1) from %s where id = $1', target) into org using row_id;
    return org;
end
$function$;

-- Without a mapping.
insert into harbour.ships (id, user_id) values (1, '00000000-0000-4000-8000-00000000dead'), (2, null);
insert into harbour.ports (id) values (1);
select is(pg_temp.org('harbour.ships', 2), '1a', 'without a mapping, a row that nothing places belongs to the default organization');
select is(pg_temp.org('harbour.ports', 1), '1a', 'so does one of a table without any source');

-- With one.
insert into tenancy.user_orgs (user_id, org_id)
values
    ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000002');
select throws_ok(
    $$ insert into harbour.ships (id, user_id) values (3, '00000000-0000-4000-8000-00000000dead') $$,
    '23502',
    'harbour.ships got a row without org_id, and nothing says whose it is: the statement did not send it, the token has no'
    ' app_metadata.org_id, and no organization follows from its user_id; send org_id, or place the user in tenancy.user_orgs, see'
    ' tenancy.enable_new_users for those who sign up',
    'with one it is refused, by table, column and the way out'
);
select throws_matching(
    $$ insert into harbour.ports (id) values (2) $$,
    'no organization follows from any of its columns; send org_id',
    'also where the table has no column that could say'
);
create function pg_temp.fields_of_refusal()
returns text
language plpgsql
as $function$
declare
    refused_schema text;
    refused_table text;
    refused_column text;
begin
    insert into harbour.ports (id) values (2);
    return 'none';
exception
    when not_null_violation then
        get stacked diagnostics refused_schema = schema_name, refused_table = table_name, refused_column = column_name;
        return concat_ws('.', refused_schema, refused_table, refused_column);
end
$function$;
select is(pg_temp.fields_of_refusal(), 'harbour.ports.org_id', 'in the fields of the error too');
insert into harbour.ports (id, org_id) values (3, 'b0000000-0000-4000-8000-000000000002');
select is(pg_temp.org('harbour.ports', 3), '2b', 'one that says its organization goes in');

-- With a token.
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "app_metadata": {"org_id": "B0000000-0000-4000-8000-000000000002"}}';
insert into harbour.ships (id, user_id) values (4, '00000000-0000-4000-8000-000000000001');
insert into harbour.ships (id, user_id, org_id) values (5, '00000000-0000-4000-8000-000000000001', null);
select is(pg_temp.org('harbour.ships', 4), '2b', 'the token''s organization comes before the owner''s');
select is(pg_temp.org('harbour.ships', 5), '2b', 'for a statement that sends NULL no less than for one that sends nothing');
set local request.jwt.claims = '{"role": "authenticated", "app_metadata": {"org_id": "b0000000-0000-4000-8000-00000000dead"}}';
insert into harbour.ships (id, user_id, org_id) values (6, '00000000-0000-4000-8000-000000000001', null);
select is(pg_temp.org('harbour.ships', 6), '1b', 'an organization that does not exist counts as none');
set local request.jwt.claims = '{"role": "authenticated", "app_metadata": {}, "user_metadata": {"org_id": "b0000000-0000-4000-8000-000000000002"}}';
insert into harbour.ships (id, user_id, org_id) values (7, '00000000-0000-4000-8000-000000000001', null);
select is(pg_temp.org('harbour.ships', 7), '1b', 'and so does one that the user wrote');
insert into harbour.ships (id, user_id, name) values (4, '00000000-0000-4000-8000-000000000001', 'Argo')
on conflict (id) do update set name = excluded.name;
select is(pg_temp.org('harbour.ships', 4), '2b', 'an upsert of a row that is there leaves it its organization');
select is((select name from harbour.ships where id = 4), 'Argo', 'and changes the rest');

-- Partitions.
set local request.jwt.claims = '';
insert into harbour.calls (id, year, ship_id) values (1, 2024, 4), (2, 2025, 7);
insert into harbour.calls_2025 (id, year, user_id) values (3, 2025, '00000000-0000-4000-8000-000000000002');
select is(
    pg_temp.org('harbour.calls', 1) || ' ' || pg_temp.org('harbour.calls', 2),
    '2b 1b',
    'a row that comes by the partitioned table is placed, whatever the order of the partition''s columns'
);
select is(pg_temp.org('harbour.calls', 3), '2b', 'and so is one that comes into the partition');

set local role postgres;
select results_eq(
    $$ select relation::text, rows from tenancy.filled_rows where relation::text like 'harbour.%' order by 1 $$,
    $$ values ('harbour.calls', 3::bigint), ('harbour.ports', 3), ('harbour.ships', 7) $$,
    'every row that was without organization is counted, those of refused statements too'
);
insert into harbour.ships (id, org_id) values (8, 'b0000000-0000-4000-8000-000000000002');
select is((select rows from tenancy.filled_rows where relation = 'harbour.ships'::regclass), 7::bigint, 'one that has its own is not');
select ok(
    not exists (select from tenancy.filled_rows where relation = 'harbour.calls_2024'::regclass),
    'partitions are counted with their table'
);

-- A token from before the push, and a row that names nobody.
insert into auth.users (id, email) values ('00000000-0000-4000-8000-000000000002', 'two@example.com');
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "00000000-0000-4000-8000-000000000002", "app_metadata": {}}';
insert into harbour.ports (id) values (10);
insert into harbour.ships (id, user_id) values (10, '00000000-0000-4000-8000-000000000001');
select is(pg_temp.org('harbour.ports', 10), '2b', 'a row that names nobody is in the organization of the caller');
select is(pg_temp.org('harbour.ships', 10), '1b', 'one that names somebody in theirs');
set local request.jwt.claims =
'{"user_metadata": {"sub": "00000000-0000-4000-8000-000000000002"}, "role": "authenticated", "sub": "00000000-0000-4000-8000-00000000dead"}';
select throws_ok('insert into harbour.ports (id) values (11)', '23502', null, 'and is refused where the caller is in none, whatever they wrote of themselves');
set local request.jwt.claims = '{"role": "authenticated", "sub": "nobody"}';
select throws_ok('insert into harbour.ports (id) values (12)', '23502', null, 'or is no user');

select * from finish();
rollback;
