begin;
set local role postgres;
set local search_path = public, extensions;
select plan(6);

create table public.ports (id integer primary key, user_id uuid);
create table public.buoys (id integer primary key, user_id uuid);
create table public.hulls (
    id integer primary key, user_id uuid, port_id integer references public.ports, buoy_id integer references public.buoys
);
insert into public.ports (id) select number from generate_series(1, 500) as number;
insert into public.buoys (id) select number from generate_series(1, 150000) as number;
insert into public.hulls (id, port_id, buoy_id)
select number, 1 + number % 500, 1 + number % 150000 from generate_series(1, 100000) as number;
analyze public.ports, public.buoys, public.hulls;
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('public', 'ports', 'org', 'secondary'), ('public', 'buoys', 'org', 'secondary'), ('public', 'hulls', 'org', 'secondary');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
select org_migration.note_rules();

-- The plan of a batch of so many rows, with the settings that the batches run with.
create function pg_temp.plan_of(rows integer) returns text language plpgsql as $$
declare
    line text;
    lines text := '';
begin
    perform set_config(split_part(setting, '=', 1), split_part(setting, '=', 2), true)
    from pg_catalog.pg_proc
    cross join lateral unnest(pg_proc.proconfig) as setting
    where pg_proc.oid = 'org_migration.backfill_rows(regclass, text, text, boolean)'::regprocedure
        and setting not like 'search_path=%';
    for line in
        execute 'explain (costs off) ' || replace(
            org_migration.batch_statement('public.hulls', org_migration.decision_query('public.hulls', false), false), '$1',
            quote_literal(org_migration.find_rows(format('select ctid from public.hulls limit %s', rows))) || '::tid[]'
        )
    loop
        lines := lines || trim(line) || E'\n';
    end loop;
    return lines;
end
$$;

create temporary table plans as select pg_temp.plan_of(10) as of_few, pg_temp.plan_of(5000) as of_many;
select ok(of_many ~ 'Seq Scan on ports', 'a parent of fewer rows than the batch is read once') from plans;
select ok(of_many ~ 'Index Scan using buoys_pkey', 'one of many more is looked up row by row') from plans;
select ok(of_few ~ 'Index Scan using ports_pkey', 'by a small batch, each is') from plans;
select ok(of_many !~ 'Seq Scan on hulls|using hulls', 'the table itself is never read beyond the rows of the batch') from plans;
select is(
    (select count(*)::integer from plans, regexp_matches(of_many, 'Tid Scan on hulls', 'g')), 2,
    'but each of them by its place, to decide it and to write it'
) from plans;
select ok(
    of_many ~ 'Index Scan using users_pkey' and of_few ~ 'Index Scan using users_pkey',
    'the metadata of users is read where an owner has no organization, and not of all users'
) from plans;

select * from finish();
rollback;
