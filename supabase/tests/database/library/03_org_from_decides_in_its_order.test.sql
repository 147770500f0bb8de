begin;
set local role postgres;
set local search_path = public, extensions;
select plan(15);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('order%s@example.com', number), '{}'
from generate_series(1, 3) as number;

create schema harbour;
create table harbour.profiles (id uuid primary key references auth.users (id), full_name text);
create table harbour.sales (id bigint primary key, user_id uuid not null references auth.users (id));
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (company integer, number integer, user_id uuid, primary key (company, number));
create table harbour.detected (id integer primary key, user_id uuid, ship_id integer references harbour.ships (id));
create table harbour.parent_first (like harbour.detected, foreign key (ship_id) references harbour.ships (id));
create table harbour.parent_only (like harbour.detected, foreign key (ship_id) references harbour.ships (id) not valid);
create table harbour.declared (like harbour.detected, foreign key (ship_id) references harbour.ships (id));
create table harbour.berths (
    id integer, user_id uuid, company integer, dock integer,
    foreign key (company, dock) references harbour.docks (company, number)
);
create table harbour.posts (id integer, author_id uuid references harbour.profiles (id));
create table harbour.deals (id integer, sales_id bigint references harbour.sales (id));
create table harbour.tenders (id integer, user_id uuid, company_id uuid references public.organizations (id));
create table harbour.notes (id integer, user_id text);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason, org_from)
values
    ('harbour', 'profiles', 'excluded', null, 'a test', null),
    ('harbour', 'sales', 'excluded', null, 'a test', null),
    ('harbour', 'ships', 'org', 'secondary', null, null),
    ('harbour', 'docks', 'org', 'secondary', null, null),
    ('harbour', 'detected', 'org', 'secondary', null, null),
    ('harbour', 'parent_first', 'org', 'secondary', null, '{ship_id,user_id}'),
    ('harbour', 'parent_only', 'org', 'secondary', null, '{ship_id}'),
    ('harbour', 'declared', 'org', 'secondary', null, '{}'),
    ('harbour', 'berths', 'org', 'secondary', null, '{"company, dock",user_id}'),
    ('harbour', 'posts', 'org', 'secondary', null, null),
    ('harbour', 'deals', 'org', 'secondary', null, null),
    ('harbour', 'tenders', 'org', 'secondary', null, null),
    ('harbour', 'notes', 'org', 'secondary', null, null);

insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values
    (pg_temp.id_of(1), 'b0000000-0000-4000-8000-000000000001'),
    (pg_temp.id_of(2), 'b0000000-0000-4000-8000-000000000002');
insert into harbour.profiles (id) values (pg_temp.id_of(1)), (pg_temp.id_of(2));
insert into harbour.sales (id, user_id) values (1, pg_temp.id_of(1)), (2, pg_temp.id_of(2));
insert into harbour.ships (id, user_id) values (1, pg_temp.id_of(1));
insert into harbour.docks (company, number, user_id) values (1, 1, pg_temp.id_of(1)), (1, 2, pg_temp.id_of(2));
create function pg_temp.insert_rows(first_id integer, is_backfill boolean)
returns void
language plpgsql
as $function$
declare
    target text;
begin
    foreach target in array array['detected', 'parent_first', 'parent_only', 'declared'] loop
        execute format('insert into harbour.%I (id, user_id, ship_id) values ($1, $2, 1)', target)
        using first_id, pg_temp.id_of(2);
        -- The filler refuses the row without the one parent that decides.
        if is_backfill or target <> 'parent_only' then
            execute format('insert into harbour.%I (id, user_id) values ($1, $2)', target)
            using first_id + 1, pg_temp.id_of(2);
        end if;
    end loop;
    insert into harbour.berths (id, user_id, company, dock)
    values (first_id, pg_temp.id_of(2), 1, 1), (first_id + 1, pg_temp.id_of(2), 1, null);
    insert into harbour.posts (id, author_id) values (first_id, pg_temp.id_of(1)), (first_id + 1, pg_temp.id_of(2));
    insert into harbour.deals (id, sales_id) values (first_id, 1), (first_id + 1, 2);
    insert into harbour.tenders (id, user_id, company_id)
    values (first_id, pg_temp.id_of(1), 'b0000000-0000-4000-8000-000000000002'), (first_id + 1, pg_temp.id_of(1), null);
    insert into harbour.notes (id, user_id)
    values (first_id, upper(pg_temp.id_of(1)::text)), (first_id + 1, pg_temp.id_of(2)::text);
end
$function$;
create function pg_temp.orgs(target regclass)
returns text
language plpgsql
as $function$
declare
    orgs text;
begin
    execute format('select string_agg(right(org_id::text, 1) || left(org_id::text, 1), '' '' order by id) from %s', target)
    into orgs;
    return orgs;
end
$function$;

select pg_temp.insert_rows(1, true);
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
select is_empty($$ select * from org_migration.source_findings $$, 'each of these entries decides something');
select is(pg_temp.orgs('harbour.detected'), '2b 2b', 'without org_from the owner decides');
select pg_temp.insert_rows(11, false);
select is(pg_temp.orgs('harbour.detected'), '2b 2b 2b 2b', 'of a row that comes later as well');
select is(pg_temp.orgs('harbour.parent_first'), '1b 2b 1b 2b', 'the parent can come first, and the owner where there is none');
select is(pg_temp.orgs('harbour.parent_only'), '1b 1a 1b', 'it can be the only one, also through a key that is not valid');
select throws_ok(
    $$ insert into harbour.parent_only (id, user_id) values (9, '00000000-0000-4000-8000-000000000001') $$,
    '23502',
    null,
    'then an owner, whom org_from does not name, places no row'
);
select is(pg_temp.orgs('harbour.declared'), '1a 1a 1a 1a', 'where nothing is to decide, every row belongs to the default organization');
select is(pg_temp.orgs('harbour.berths'), '1b 2b 1b 2b', 'a key of several columns is one entry');
select is(pg_temp.orgs('harbour.posts'), '1b 2b 1b 2b', 'an owner may be one through the key of a table that is not org-scoped');
select is(pg_temp.orgs('harbour.deals'), '1b 2b 1b 2b', 'whatever that table''s own key is');
select is(
    (select description from tenancy.sources where root = 'harbour.deals'::regclass),
    'the owner in sales_id through harbour.sales',
    'which the sources say'
);
select is(pg_temp.orgs('harbour.tenders'), '2b 1b 2b 1b', 'a column that references organizations comes before the owner, whatever its name');
select is(pg_temp.orgs('harbour.notes'), '1b 2b 1b 2b', 'a user_id that is text needs no key');
select ok(
    tenancy.org_of(pg_temp.id_of(3)) is null,
    'a user whom the mapping leaves out is in none'
);
select throws_ok(
    $$ insert into harbour.detected (id, user_id) values (9, '00000000-0000-4000-8000-000000000003') $$,
    '23502',
    null,
    'and neither is a row of theirs'
);

select * from finish();
rollback;
