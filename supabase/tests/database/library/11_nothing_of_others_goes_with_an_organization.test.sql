begin;
set local role postgres;
set local search_path = public, extensions;
select plan(24);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.user_orgs;
create function pg_temp.org(number integer)
returns uuid
language sql
as $function$
    select format('f0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into public.organizations (id, name) select pg_temp.org(number), 'Organization ' || number from generate_series(1, 2) as number;
create function pg_temp.delete_organization(number integer, leave_users boolean default false)
returns integer
language plpgsql
as $function$
declare
    calls integer := 1;
begin
    while tenancy.delete_organization(pg_temp.org(number), leave_users) loop
        calls := calls + 1;
    end loop;
    return calls;
end
$function$;
create schema fleet;
-- Tables of organizations, and others.
create function pg_temp.list(variadic names text[])
returns void
language plpgsql
as $function$
begin
    insert into tenancy.registry (schema_name, table_name, scope, priority) select 'fleet', name, 'org', 'secondary' from unnest(names) as name;
    perform tenancy.onboard(format('fleet.%I', name)::regclass) from unnest(names) as name;
end
$function$;
create function pg_temp.list_excluded(name text)
returns void
language sql
as $function$
    insert into tenancy.registry (schema_name, table_name, scope, reason) values ('fleet', name, 'excluded', 'a test')
$function$;

-- A key whose org_id is not the organization of what it references.
create table fleet.deals (id integer primary key, partner_org_id uuid, user_id uuid, unique (partner_org_id, id));
create table fleet.tasks (id integer primary key, deal_id integer, user_id uuid);
select pg_temp.list('deals', 'tasks');
alter table fleet.tasks add constraint of_deal foreign key (org_id, deal_id) references fleet.deals (partner_org_id, id) on delete cascade;
insert into fleet.deals (id, partner_org_id, org_id) values (1, pg_temp.org(2), pg_temp.org(1));
insert into fleet.tasks (id, deal_id, org_id) values (1, 1, pg_temp.org(2));
select throws_like(
    $$ select pg_temp.delete_organization(1) $$,
    '%1 rows of fleet.deals are referenced by rows of fleet.tasks that do not belong to the organization (of_deal)%',
    'a partner''s row is not taken along'
);
update fleet.tasks set deal_id = null;

-- A table without organizations whose rows take each other along.
create table fleet.ships (id integer primary key, user_id uuid);
create table fleet.remarks (
    id integer primary key, ship_id integer references fleet.ships (id) on delete cascade, answers_id integer references fleet.remarks (id) on delete cascade
);
create table fleet.files (id integer primary key, remark_id integer, user_id uuid);
select pg_temp.list_excluded('remarks');
select pg_temp.list('ships', 'files');
insert into fleet.ships (id, org_id) values (1, pg_temp.org(1));
insert into fleet.remarks (id, ship_id, answers_id) values (1, 1, null), (2, null, 1), (3, null, 2);
select is(
    (select count(*) from tenancy.organization_rows(pg_temp.org(1)) where refuses), 0::bigint,
    'rows that take each other along do not matter where nothing else hangs on them'
);
alter table fleet.files add constraint of_remark foreign key (remark_id) references fleet.remarks (id) on delete cascade;
select set_eq(
    $$ select what from tenancy.organization_rows(pg_temp.org(1)) where refuses $$,
    $$
        values (
            'take rows of fleet.remarks along, and these others of it (remarks_answers_id_fkey), which is not followed further:'
            ' give it an organization, or delete those first'
        )
    $$,
    'but they do where something does, further down than one can see'
);
delete from fleet.remarks where id = 3;
insert into fleet.files (id, remark_id, org_id) values (1, 2, pg_temp.org(2));
select throws_like(
    $$ select pg_temp.delete_organization(1) $$,
    '%1 rows of fleet.ships are referenced by rows of fleet.files that do not belong to the organization (of_remark)%',
    'nearer it is seen'
);
delete from fleet.files;

-- What goes along by a table without organizations may be held as well.
create table fleet.stamps (id integer primary key, file_id integer, over_id integer references fleet.stamps (id), user_id uuid);
select pg_temp.list('stamps');
alter table fleet.stamps add constraint of_file foreign key (file_id) references fleet.files (id);
insert into fleet.files (id, remark_id, org_id) values (1, 1, pg_temp.org(1));
insert into fleet.stamps (id, file_id, over_id, org_id) values (1, 1, null, pg_temp.org(1)), (2, 1, 1, pg_temp.org(1));
select ok(
    (select position from tenancy.org_scoped_tables where relation = 'fleet.ships'::regclass)
    > (select position from tenancy.org_scoped_tables where relation = 'fleet.files'::regclass),
    'no key leads from files to ships but by way of remarks, so the ships'' turn comes first'
);
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'rows that would go along by way of others go before');
select is((select count(*) from fleet.stamps) + (select count(*) from fleet.remarks), 0::bigint, 'with those');

-- Keys that would set to null what cannot be.
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.ships (id, org_id) values (1, pg_temp.org(1));
create table fleet.tags (ship_id integer not null references fleet.ships (id) on delete set null);
select pg_temp.list_excluded('tags');
insert into fleet.tags values (1);
select throws_like($$ select pg_temp.delete_organization(1) $$, '%referenced by rows of fleet.tags, which keeps them (tags_ship_id_fkey)%', 'of a table without organizations');
drop table fleet.tags;
alter table fleet.ships add column flagship_id integer, add unique (org_id, id);
alter table fleet.ships add constraint flagship foreign key (org_id, flagship_id) references fleet.ships (org_id, id) on delete set null;
insert into fleet.ships (id, flagship_id, org_id) select number, number - 1, pg_temp.org(1) from generate_series(2, 4) as number;
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'of a table of organizations');
alter table fleet.ships drop constraint flagship, drop column flagship_id;

-- The organization that references a row of its own.
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.ships (id, org_id) values (1, pg_temp.org(1));
alter table public.organizations add column ship_id integer constraint main_ship references fleet.ships (id);
update public.organizations set ship_id = 1 where id = pg_temp.org(1);
select throws_like(
    $$ select pg_temp.delete_organization(1) $$,
    '%referenced by the organization itself, in public.organizations (main_ship): let it reference nothing first%', 'is told to let go'
);
update public.organizations set ship_id = null;
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'and then it goes');
alter table public.organizations drop column ship_id;

-- A key of one partition.
create table fleet.trips (id integer, ship_id integer, user_id uuid, primary key (id)) partition by list (id);
create table fleet.trips_1 partition of fleet.trips for values in (1);
create table fleet.trips_2 partition of fleet.trips for values in (2);
select pg_temp.list('trips');
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.ships (id, org_id) values (1, pg_temp.org(1));
insert into fleet.trips (id, ship_id, org_id) values (1, 1, pg_temp.org(1)), (2, 1, pg_temp.org(2));
alter table fleet.trips_1 add constraint of_ship foreign key (ship_id) references fleet.ships (id) on delete cascade;
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'is not one of the others');
select is((select count(*) from fleet.trips), 1::bigint, 'whose rows stay');

-- A table that comes while it is being deleted.
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.ships (id, org_id) values (1, pg_temp.org(1));
insert into fleet.files (id, org_id) values (1, pg_temp.org(1));
select ok(tenancy.delete_organization(pg_temp.org(1)), 'while it is being deleted');
insert into fleet.ships (id, org_id) values (2, pg_temp.org(1));
create table fleet.ropes (id integer primary key, ship_id integer, user_id uuid);
select pg_temp.list('ropes');
alter table fleet.ropes add constraint of_ship foreign key (ship_id) references fleet.ships (id) on delete cascade;
insert into fleet.ropes (id, ship_id, org_id) values (1, 2, pg_temp.org(2));
select throws_like($$ select pg_temp.delete_organization(1) $$, '%rows of fleet.ropes that do not belong to the organization (of_ship)%', 'a new table is seen');
drop table fleet.ropes;
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'and that one is gone, too');

-- What triggers write about rows that hold each other in a chain.
create table fleet.events (id integer primary key, user_id uuid);
create table fleet.legs (id integer primary key, previous_id integer, user_id uuid);
create table fleet.history (id bigint generated always as identity primary key, user_id uuid);
select pg_temp.list('events', 'legs', 'history');
alter table fleet.legs add constraint previous foreign key (previous_id) references fleet.legs (id);
create index on fleet.legs (previous_id);
create function fleet.note()
returns trigger
language plpgsql
as $function$
begin
    insert into fleet.history (org_id) values (old.org_id);
    return null;
end
$function$;
create trigger note after delete on fleet.events for each row execute function fleet.note();
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.events (id, org_id) select number, pg_temp.org(1) from generate_series(1, 400) as number;
insert into fleet.legs (id, previous_id, org_id) select number, nullif(number - 1, 0), pg_temp.org(1) from generate_series(1, 400) as number;
select cmp_ok(pg_temp.delete_organization(1), '<', 10, 'a chain goes at once, whatever else is written meanwhile');
drop trigger note on fleet.events;
create or replace function fleet.note()
returns trigger
language plpgsql
as $function$
begin
    insert into fleet.events (id, org_id)
    select max(id) + 1, old.org_id from fleet.events where not exists (select from fleet.events where org_id = old.org_id);
    return null;
end
$function$;
create trigger note after delete on fleet.legs for each row execute function fleet.note();
create trigger keep_one after delete on fleet.events for each row execute function fleet.note();
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.events (id, org_id) values (1, pg_temp.org(2));
insert into fleet.legs (id, org_id) values (1, pg_temp.org(1));
select throws_like(
    $$ select pg_temp.delete_organization(1) $$, 'as many rows of the organization % come as go, into fleet.events: %',
    'a trigger that always keeps one row is noticed'
);
drop trigger keep_one on fleet.events;
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'and without it all goes');
drop trigger note on fleet.legs;

-- An audit of many rows for each.
create or replace function fleet.note()
returns trigger
language plpgsql
as $function$
begin
    insert into fleet.history (org_id) select old.org_id from generate_series(1, 30);
    return null;
end
$function$;
create trigger note after delete on fleet.events for each row execute function fleet.note();
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
insert into fleet.events (id, org_id) select number, pg_temp.org(1) from generate_series(2, 601) as number;
select lives_ok($$ select pg_temp.delete_organization(1) $$, 'however much is written, as long as it ends');
select is((select count(*) from fleet.history), 0::bigint, 'and that goes as well');

-- The setting that a session had.
insert into public.organizations (id, name) values (pg_temp.org(1), 'Organization 1');
set local session_replication_role = replica;
select is(tenancy.delete_organization(pg_temp.org(1), application_triggers => false), false, 'an organization without rows goes at once');
select is(current_setting('session_replication_role'), 'replica', 'and triggers stay off where they were');
set local session_replication_role = origin;
select is((select count(*) from fleet.tasks), 1::bigint, 'of the other organization all is there');

select * from finish();
rollback;
