begin;
set local role postgres;
set local search_path = public, extensions;
select plan(55);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.user_orgs;
create function pg_temp.org(number integer)
returns uuid
language sql
as $function$
    select format('f0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into public.organizations (id, name)
select pg_temp.org(number), 'Organization ' || number
from generate_series(1, 5) as number
on conflict do nothing;
-- As a migration calls it, without the commits.
create function pg_temp.delete_organization(number integer, leave_users boolean default false, application_triggers boolean default true)
returns integer
language plpgsql
as $function$
declare
    calls integer := 1;
begin
    while tenancy.delete_organization(pg_temp.org(number), leave_users, application_triggers) loop
        calls := calls + 1;
    end loop;
    return calls;
end
$function$;

-- Tables that reference each other in every way.
create schema harbour;
create table harbour.ports (id integer primary key, main_ship_id integer, user_id uuid);
create table harbour.ships (id integer primary key, port_id integer, flagship_id integer, user_id uuid);
create table harbour.crew (id integer primary key, ship_id integer, user_id uuid);
create table harbour.voyages (id integer, ship_id integer, at date, user_id uuid, primary key (id, at)) partition by range (at);
create table harbour.voyages_old partition of harbour.voyages for values from (minvalue) to ('2025-01-01');
create table harbour.voyages_new partition of harbour.voyages default;
create table harbour.history (id bigint generated always as identity, ship_id integer, user_id uuid);
create table harbour.berths (id integer primary key, ship_id integer);
create table harbour.notes (id integer primary key, berth_id integer, ship_id integer);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ports', 'org', 'secondary', null), ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'crew', 'org', 'secondary', null), ('harbour', 'voyages', 'org', 'secondary', null),
    ('harbour', 'history', 'org', 'secondary', null), ('harbour', 'berths', 'excluded', null, 'a test'),
    ('harbour', 'notes', 'excluded', null, 'a test');
select tenancy.onboard(format('harbour.%I', name)::regclass)
from unnest(array['ports', 'ships', 'crew', 'voyages', 'history']) as name;
alter table harbour.ports add constraint main_ship foreign key (main_ship_id) references harbour.ships (id);
alter table harbour.ships
    add constraint port foreign key (port_id) references harbour.ports (id),
    add constraint flagship foreign key (flagship_id) references harbour.ships (id);
alter table harbour.crew add constraint ship foreign key (ship_id) references harbour.ships (id) on delete restrict;
alter table harbour.voyages add constraint of_ship foreign key (ship_id) references harbour.ships (id) on delete cascade;
alter table harbour.berths add constraint berth_of_ship foreign key (ship_id) references harbour.ships (id) on delete cascade;
alter table harbour.notes
    add constraint note_of_ship foreign key (ship_id) references harbour.ships (id),
    add constraint note_of_berth foreign key (berth_id) references harbour.berths (id) on delete cascade;
create function harbour.note_end()
returns trigger
language plpgsql
as $function$
begin
    insert into harbour.history (ship_id, org_id) values (old.id, old.org_id);
    return null;
end
$function$;

-- Numbers from 100 on are of the first organization, from 200 on of the second, and so on.
create function pg_temp.fill(number integer)
returns void
language sql
as $function$
    insert into harbour.ports (id, org_id) select number * 100 + n, pg_temp.org(number) from generate_series(1, 5) as n;
    insert into harbour.ships (id, port_id, flagship_id, org_id)
    select number * 100 + n, number * 100 + 1 + n % 5, number * 100 + n / 2, pg_temp.org(number)
    from generate_series(2, 40) as n where n > 3 union all select number * 100 + n, null, null, pg_temp.org(number) from generate_series(1, 3) as n;
    update harbour.ports set main_ship_id = id + 1 where org_id = pg_temp.org(number);
    insert into harbour.crew (id, ship_id, org_id) select number * 100 + n, number * 100 + 40 - n, pg_temp.org(number) from generate_series(1, 20) as n;
    insert into harbour.voyages (id, ship_id, at, org_id)
    select number * 100 + n, number * 100 + n, '2024-12-20'::date + n, pg_temp.org(number) from generate_series(1, 30) as n
$function$;
select pg_temp.fill(number) from generate_series(1, 5) as number;
create function pg_temp.rows_of(number integer)
returns text
language sql
as $function$
    select concat_ws(
        ' ',
        (select count(*) from harbour.ports where org_id = pg_temp.org(number)), (select count(*) from harbour.ships where org_id = pg_temp.org(number)),
        (select count(*) from harbour.crew where org_id = pg_temp.org(number)), (select count(*) from harbour.voyages where org_id = pg_temp.org(number)),
        (select count(*) from public.organizations where id = pg_temp.org(number))
    )
$function$;

-- The review.
create function pg_temp.found()
returns text
language sql
as $function$
    select string_agg(format('%s %s %s', severity, object, table_name), ', ' order by object collate "C")
    from tenancy.review
    where code = 'trigger_stops_organization_delete' and object like 'harbour.%'
$function$;
create trigger note_end after insert on harbour.ships for each row execute function harbour.note_end();
select is(pg_temp.found(), null, 'a trigger that fires when rows come stops no deletion');
drop trigger note_end on harbour.ships;
create trigger note_end after delete on harbour.berths for each row execute function harbour.note_end();
select is(pg_temp.found(), 'breaks harbour.note_end() harbour.history', 'one of rows that go by way of others does');
drop trigger note_end on harbour.berths;
create trigger note_end after update of flagship_id on harbour.ships for each row execute function harbour.note_end();
select is(pg_temp.found(), null, 'one of an update that no key makes does not');
alter table harbour.ships drop constraint flagship, add constraint flagship foreign key (flagship_id) references harbour.ships (id) on delete set null;
select is(pg_temp.found(), 'breaks harbour.note_end() harbour.history', 'one of an update that a key makes does');
alter table harbour.ships drop constraint flagship, add constraint flagship foreign key (flagship_id) references harbour.ships (id);
drop trigger note_end on harbour.ships;
create trigger note_end after delete on harbour.ships for each row execute function harbour.note_end();
select is(pg_temp.found(), 'breaks harbour.note_end() harbour.history', 'one of rows that go does');
select throws_like(
    $$ delete from public.organizations where id = pg_temp.org(5) $$,
    '%violates foreign key constraint "fk_history_org_id"',
    'and then the organization cannot be deleted'
);
create or replace function harbour.note_end()
returns trigger
language plpgsql
as $function$
begin
    insert into harbour.history (ship_id, org_id) select old.id, old.org_id where exists (select from public.organizations where id = old.org_id);
    return null;
end
$function$;
select is(pg_temp.found(), null, 'one that looks for the organization does not');
select lives_ok($$ delete from public.organizations where id = pg_temp.org(5) $$, 'and then it can');
create or replace function harbour.note_end()
returns trigger
language plpgsql
as $function$
begin
    insert into harbour.history (ship_id, org_id) values (old.id, old.org_id);
    return null;
end
$function$;

-- What is refused.
select throws_ok(
    $$ select tenancy.delete_organization('f0000000-0000-4000-8000-00000000000f') $$,
    'P0002', 'there is no organization f0000000-0000-4000-8000-00000000000f', 'of an organization that there is not it says so'
);
select throws_like(
    $$ select tenancy.delete_organization((select default_org_id from tenancy.settings)) $$,
    '% is the default organization: %', 'the default organization stays'
);
insert into tenancy.user_orgs (user_id, org_id) values ('00000000-0000-4000-8000-000000000001', pg_temp.org(1));
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
values (
    '00000000-0000-0000-0000-000000000000', '00000000-0000-4000-8000-000000000001', 'authenticated', 'authenticated', 'deleted@example.com',
    format('{"org_id": "%s", "plan": "x"}', pg_temp.org(1))::jsonb
);
insert into harbour.crew (id, ship_id, org_id) values (999, 140, pg_temp.org(2));
insert into harbour.notes (id, ship_id) values (1, 139);
insert into harbour.berths (id, ship_id) values (1, 138), (2, 238);
select set_eq(
    $$ select table_name, row_count, what, refuses from tenancy.organization_rows(pg_temp.org(1)) $$,
    $$
        values
            ('harbour.crew', 20, 'go', false), ('harbour.voyages', 30, 'go', false), ('harbour.ships', 40, 'go', false), ('harbour.ports', 5, 'go', false),
            ('harbour.ships', 1, 'are referenced by rows of harbour.crew that do not belong to the organization (ship)', true),
            ('harbour.ships', 1, 'are referenced by rows of harbour.notes, which keeps them (note_of_ship)', true),
            ('harbour.ships', 1, 'take rows of harbour.berths along (berth_of_ship)', false),
            ('auth.users', 1, 'have it as their organization: leave_users => true leaves them in none', true)
    $$,
    'what would go is counted beforehand, and what would not let it'
);
select throws_like(
    $$ select tenancy.delete_organization(pg_temp.org(1)) $$,
    '%is not deleted, and nothing of it:%1 rows of auth.users have it%leave_users => true%crew%notes%',
    'all of that is said at once'
);
delete from harbour.crew where id = 999;
delete from harbour.notes;
select throws_like($$ select tenancy.delete_organization(pg_temp.org(1)) $$, '%1 rows of auth.users have it%', 'users alone are enough');
select is(pg_temp.rows_of(1), '5 40 20 30 1', 'and nothing is gone');

-- With the triggers.
select cmp_ok(pg_temp.delete_organization(1, leave_users => true), '>', 1, 'it goes in several calls');
select is(pg_temp.rows_of(1), '0 0 0 0 0', 'until all is gone, in circles and partitions too');
select is(pg_temp.rows_of(2), '5 40 20 30 1', 'what is another organization''s is there');
select is((select count(*) from harbour.history where ship_id between 100 and 199), 0::bigint, 'what triggers wrote meanwhile goes too');
select results_eq('select id from harbour.berths', 'values (2)', 'and so does what keys take along');
select is(tenancy.org_of('00000000-0000-4000-8000-000000000001'), null, 'its user is in none');
select is(
    (select raw_app_meta_data from auth.users where id = '00000000-0000-4000-8000-000000000001'), '{"plan": "x"}',
    'and the next token says so'
);

-- Without them.
select throws_like(
    $$ select tenancy.delete_organization(pg_temp.org(2), application_triggers => false) $$,
    '%take rows of harbour.berths along (berth_of_ship): without triggers it would reference nothing%',
    'without triggers nothing would take along what keys do, so it is refused'
);
delete from harbour.berths;
select lives_ok($$ select pg_temp.delete_organization(2, application_triggers => false) $$, 'else it goes without them');
select is(pg_temp.rows_of(2), '0 0 0 0 0', 'whole');
select is((select count(*) from harbour.history where ship_id between 200 and 299), 0::bigint, 'and they have not fired');
select is(current_setting('session_replication_role'), 'origin', 'from then on they do');
select is(pg_temp.rows_of(3), '5 40 20 30 1', 'what is another organization''s is there still');

-- What comes meanwhile.
update tenancy.settings set batch_target_ms = 1;
select ok(tenancy.delete_organization(pg_temp.org(3)), 'while it is being deleted');
insert into harbour.ships (id, org_id) values (399, pg_temp.org(3));
insert into harbour.crew (id, ship_id, org_id) values (499, 399, pg_temp.org(4));
select throws_like(
    $$ select pg_temp.delete_organization(3) $$,
    'rows of harbour.ships are referenced by rows of harbour.crew that do not go (ship): see tenancy.organization_rows(%)',
    'a row of another organization that references one of it is not taken along'
);
delete from harbour.crew where id = 499;
select lives_ok($$ select pg_temp.delete_organization(3) $$, 'and without it the same call goes on');
select is(pg_temp.rows_of(3), '0 0 0 0 0', 'to the end');

-- Triggers that would let it go on for ever.
create function harbour.keep()
returns trigger
language plpgsql
as $function$
begin
    return null;
end
$function$;
create trigger keep before delete on harbour.ships for each row execute function harbour.keep();
select throws_like(
    $$ select pg_temp.delete_organization(4) $$, 'a trigger of harbour.ships keeps its rows: %', 'a trigger that keeps rows is named'
);
drop trigger keep on harbour.ships;
create function harbour.double()
returns trigger
language plpgsql
as $function$
begin
    insert into harbour.history (ship_id, org_id) values (old.ship_id, old.org_id), (old.ship_id, old.org_id);
    return null;
end
$function$;
create trigger double after delete on harbour.history for each row execute function harbour.double();
select throws_like(
    $$ select pg_temp.delete_organization(4) $$, 'as many rows of the organization % come as go, into harbour.history: %', 'and so are those that write more than goes'
);
select lives_ok($$ select pg_temp.delete_organization(4, application_triggers => false) $$, 'without them it goes');
select is(pg_temp.rows_of(4), '0 0 0 0 0', 'whole again');

-- An organization of an organization.
insert into public.organizations (id, name) values (pg_temp.org(6), 'Group');
alter table public.organizations add column group_id uuid references public.organizations (id) on delete cascade;
insert into public.organizations (id, name, group_id) values (pg_temp.org(7), 'Member of it', pg_temp.org(6));
select throws_like(
    $$ select tenancy.delete_organization(pg_temp.org(6)) $$,
    '%1 rows of public.organizations are referenced by rows of public.organizations that do not belong to the organization (organizations_group_id_fkey)%',
    'another organization does not go with it'
);
select lives_ok($$ select pg_temp.delete_organization(7) $$, 'one that nothing references goes');
select lives_ok($$ select pg_temp.delete_organization(6) $$, 'and then that one');

-- What goes along may be held by what goes along as well.
create table harbour.workspaces (id integer primary key, default_page_id integer, user_id uuid);
create table harbour.folders (id integer primary key, workspace_id integer, user_id uuid);
create table harbour.pages (id integer primary key, folder_id integer, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'workspaces', 'org', 'secondary'), ('harbour', 'folders', 'org', 'secondary'), ('harbour', 'pages', 'org', 'secondary');
select tenancy.onboard(format('harbour.%I', name)::regclass)
from unnest(array['workspaces', 'folders', 'pages']) as name;
alter table harbour.folders add constraint folder_of foreign key (workspace_id) references harbour.workspaces (id) on delete cascade;
alter table harbour.pages add constraint page_of foreign key (folder_id) references harbour.folders (id);
alter table harbour.workspaces add constraint default_page foreign key (default_page_id) references harbour.pages (id) on delete set null;
insert into public.organizations (id, name) values (pg_temp.org(6), 'Organization 6');
insert into harbour.workspaces (id, org_id) select number, pg_temp.org(6) from generate_series(1, 3) as number;
insert into harbour.folders (id, workspace_id, org_id) select number, number, pg_temp.org(6) from generate_series(1, 3) as number;
insert into harbour.pages (id, folder_id, org_id) select number, number, pg_temp.org(6) from generate_series(1, 3) as number;
update harbour.workspaces set default_page_id = id;
select is(pg_temp.delete_organization(6) > 0, true, 'rows that are held by others are not taken along before those');
select is(
    (select count(*) from harbour.pages) + (select count(*) from harbour.folders) + (select count(*) from harbour.workspaces), 0::bigint, 'and all go'
);

-- Rows that hold each other or take each other along: none of them could be first, and a trigger writes while the organization is there.
create table harbour.teams (id integer primary key, lead_id integer, office_id integer, user_id uuid);
create table harbour.members (id integer primary key, team_id integer, buddy_id integer, user_id uuid);
create table harbour.offices (id integer primary key, user_id uuid);
create table harbour.memories (id bigint generated always as identity primary key, member_id integer, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
select 'harbour', name, 'org', 'secondary'
from unnest(array['teams', 'members', 'offices', 'memories']) as name;
select tenancy.onboard(format('harbour.%I', name)::regclass)
from unnest(array['teams', 'members', 'offices', 'memories']) as name;
alter table harbour.teams
    add constraint lead foreign key (lead_id) references harbour.members (id),
    add constraint office foreign key (office_id) references harbour.offices (id) on delete cascade;
alter table harbour.members
    add constraint team foreign key (team_id) references harbour.teams (id) on delete restrict,
    add constraint buddy foreign key (buddy_id) references harbour.members (id) on delete cascade;
create function harbour.remember()
returns trigger
language plpgsql
as $function$
begin
    insert into harbour.memories (member_id, org_id) values (old.id, old.org_id);
    return null;
end
$function$;
create trigger remember after delete on harbour.members for each row execute function harbour.remember();
insert into public.organizations (id, name) values (pg_temp.org(7), 'Organization 7'), (pg_temp.org(8), 'Organization 8'), (pg_temp.org(9), 'Organization 9');
insert into harbour.offices (id, org_id) values (1, pg_temp.org(7)), (2, pg_temp.org(8));
insert into harbour.teams (id, office_id, org_id) values (1, 1, pg_temp.org(7)), (2, 2, pg_temp.org(8));
insert into harbour.members (id, team_id, org_id) select number, 1 + number % 2, pg_temp.org(7 + number % 2) from generate_series(1, 8) as number;
update harbour.members set buddy_id = case when id > 2 then id - 2 else id + 6 end;
update harbour.teams set lead_id = case when id = 1 then 2 else 1 end;
create function pg_temp.in_circles(number integer)
returns text
language sql
as $function$
    select concat_ws(
        ' ',
        (select count(*) from harbour.offices where org_id = pg_temp.org(number)), (select count(*) from harbour.teams where org_id = pg_temp.org(number)),
        (select count(*) from harbour.members where org_id = pg_temp.org(number)), (select count(*) from harbour.memories where org_id = pg_temp.org(number))
    )
$function$;
select is(pg_temp.in_circles(7), '1 1 4 0', 'rows that hold each other in a circle');
select cmp_ok(pg_temp.delete_organization(7), '>', 2, 'go at once, and then what a trigger wrote');
select is(pg_temp.in_circles(7), '0 0 0 0', 'all of them');
select is(pg_temp.in_circles(8), '1 1 4 0', 'and none of another organization');
insert into harbour.memories (org_id) values (pg_temp.org(8));
select ok(tenancy.delete_organization(pg_temp.org(8)), 'what nothing holds goes first');
insert into harbour.teams (id, lead_id, org_id) values (3, 1, pg_temp.org(9));
select throws_like(
    $$ select tenancy.delete_organization(pg_temp.org(8)) $$,
    'rows of harbour.members are referenced by rows of harbour.teams that do not go (lead): %',
    'a row of another organization that has come to hold one of a circle is not broken'
);
delete from harbour.teams where id = 3;
select lives_ok($$ select pg_temp.delete_organization(8) $$, 'and without it the circle goes');

-- Rows that hold each other within a table.
create table harbour.comments (id integer primary key, parent_id integer, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority) values ('harbour', 'comments', 'org', 'secondary');
select tenancy.onboard('harbour.comments');
create index on harbour.comments (parent_id);
alter table harbour.comments add constraint parent foreign key (parent_id) references harbour.comments (id);
insert into harbour.comments (id, parent_id, org_id) select number, nullif(number - 1, 0), pg_temp.org(9) from generate_series(1, 300) as number;
select is(pg_temp.delete_organization(9), 3, 'a chain goes at once, rather than one row by call');
select is((select count(*) from harbour.comments), 0::bigint, 'all of it');
insert into public.organizations (id, name) values (pg_temp.org(9), 'Organization 9');
insert into harbour.comments (id, parent_id, org_id) select number, case when number > 10 then number % 10 + 1 end, pg_temp.org(9) from generate_series(1, 6000) as number;
select cmp_ok(pg_temp.delete_organization(9), '<', 200, 'batches of a tree get no smaller than it is worth to look for them');
select is((select count(*) from harbour.comments), 0::bigint, 'and it goes whole');

-- Rows that would be changed go before those that they name, or their triggers would run on rows that go anyway.
create table harbour.policies (id integer primary key, user_id uuid);
create table harbour.cases (id integer primary key, policy_id integer, user_id uuid);
create table harbour.replies (id integer primary key, case_id integer, reply_to_id integer, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
select 'harbour', name, 'org', 'secondary'
from unnest(array['policies', 'cases', 'replies']) as name;
select tenancy.onboard(format('harbour.%I', name)::regclass)
from unnest(array['policies', 'cases', 'replies']) as name;
alter table harbour.cases add constraint policy foreign key (policy_id) references harbour.policies (id) on delete set null;
alter table harbour.replies
    add constraint of_case foreign key (case_id) references harbour.cases (id) on delete cascade,
    add constraint reply_to foreign key (reply_to_id) references harbour.replies (id) on delete cascade;
create function harbour.refuse()
returns trigger
language plpgsql
as $function$
begin
    raise exception 'case % is closed', old.id;
end
$function$;
create trigger refuse before update on harbour.cases for each row execute function harbour.refuse();
insert into public.organizations (id, name) values (pg_temp.org(9), 'Organization 9');
insert into harbour.policies (id, org_id) values (1, pg_temp.org(9));
insert into harbour.cases (id, policy_id, org_id) values (1, 1, pg_temp.org(9));
insert into harbour.replies (id, case_id, reply_to_id, org_id) values (1, 1, null, pg_temp.org(9)), (2, 1, 1, pg_temp.org(9));
select lives_ok($$ select pg_temp.delete_organization(9) $$, 'rows that a key would change are gone before it could');
select is((select count(*) from harbour.policies) + (select count(*) from harbour.cases), 0::bigint, 'and those that they name as well');

-- The company that the organization is goes with it, when triggers are on again.
create table harbour.companies (id uuid primary key references public.organizations (id) on delete cascade);
insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'companies', 'excluded', 'the organizations');
insert into public.organizations (id, name) values (pg_temp.org(9), 'Organization 9');
insert into harbour.companies values (pg_temp.org(9));
select lives_ok($$ select pg_temp.delete_organization(9, application_triggers => false) $$, 'without triggers a company goes as well');
select is((select count(*) from harbour.companies), 0::bigint, 'by its key');

select * from finish();
rollback;
