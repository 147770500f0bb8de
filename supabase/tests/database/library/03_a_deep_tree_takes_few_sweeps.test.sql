begin;
set local role postgres;
set local search_path = public, extensions;
select plan(4);

-- Two chains of 300 rows each, of which the first row alone has an owner: of one the rows lie after those that they reference, of the
-- other before them.
create table public.versions (id integer primary key, previous_id integer references public.versions (id), user_id uuid, note text);
create function pg_temp.user_of(number integer)
returns uuid
language sql
as $function$
    select format('f0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into public.versions (id, previous_id, user_id)
select number, case when number % 300 <> 1 then number - 1 end, case when number % 300 = 1 then pg_temp.user_of(number / 300) end
from generate_series(1, 600) as number
order by case when number > 300 then 900 - number else number end;
insert into public.organizations (id, name) values (pg_temp.user_of(0), 'Forward'), (pg_temp.user_of(1), 'Backward');
insert into tenancy.user_orgs (user_id, org_id) values (pg_temp.user_of(0), pg_temp.user_of(0)), (pg_temp.user_of(1), pg_temp.user_of(1));
insert into tenancy.registry (schema_name, table_name, scope, priority) values ('public', 'versions', 'org', 'secondary');
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
select org_migration.note_rules();
create function pg_temp.backfill()
returns void
language plpgsql
as $function$
begin
    for batch in 1 .. 2000 loop
        exit when org_migration.backfill('public.versions') is not true;
    end loop;
end
$function$;
select pg_temp.backfill();
select is(
    (select string_agg(format('%s %s', org_id, rows), ', ') from (select org_id, count(*) as rows from public.versions group by org_id order by org_id) as its),
    format('%s 300, %s 300', pg_temp.user_of(0), pg_temp.user_of(1)),
    'every row of a chain has the organization of the first'
);
select cmp_ok(
    (select sweep from org_migration.backfills where relation = 'public.versions'::regclass and number = 0), '<', 10,
    'a sweep decides many of its levels'
);
select is((select rows_updated from org_migration.backfill_progress where relation = 'public.versions'::regclass), 600::bigint, 'each row is written once');
select is((select state from org_migration.backfill_progress where relation = 'public.versions'::regclass), 'finished', 'and nothing is left');

select * from finish();
rollback;
