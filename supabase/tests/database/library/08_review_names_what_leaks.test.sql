begin;
set local role postgres;
set local search_path = public, extensions;
select plan(64);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
grant usage on schema harbour to anon, authenticated, service_role;
create table harbour.ships (id uuid primary key default gen_random_uuid(), user_id uuid, org_id uuid, name text, sunk boolean);
create table harbour.cargo (id uuid primary key default gen_random_uuid(), ship_id uuid references harbour.ships (id), org_id uuid);
create table harbour.logs (id bigint, user_id uuid, org_id uuid, at date) partition by range (at);
create table harbour.logs_2024 partition of harbour.logs for values from ('2024-01-01') to ('2025-01-01');
create table harbour.logs_2025 partition of harbour.logs for values from ('2025-01-01') to ('2026-01-01');
create table harbour.lighthouses (id uuid primary key default gen_random_uuid(), user_id uuid, name text);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'cargo', 'org', 'secondary', null),
    ('harbour', 'logs', 'org', 'secondary', null),
    ('harbour', 'lighthouses', 'excluded', null, 'a test');
alter table harbour.ships enable row level security;
alter table harbour.cargo enable row level security;
alter table harbour.logs enable row level security;
alter table harbour.logs_2024 enable row level security;

create function pg_temp.found(code text)
returns text
language sql
as $function$
    select string_agg(format('%s %s %s', severity, object, table_name), ', ' order by object collate "C", table_name collate "C")
    from tenancy.review_leaks as review
    where review.code = found.code and (table_name like 'harbour.%' or object = 'harbour')
$function$;
create function pg_temp.remedy(code text)
returns void
language plpgsql
as $function$
declare
    statement text;
begin
    for statement in select remedy from tenancy.review_leaks as review where review.code = remedy.code and (table_name like 'harbour.%' or object = 'harbour')
    loop
        execute statement;
    end loop;
end
$function$;
-- Rows of harbour.ships that a statement shows to a role.
create function pg_temp.shown(statement text, to_role text, claims text default '')
returns bigint
language plpgsql
as $function$
declare
    rows bigint;
begin
    perform set_config('role', to_role, true), set_config('request.jwt.claims', claims, true);
    execute format('select count(*) from (%s) as shown', statement) into rows;
    perform set_config('role', 'postgres', true), set_config('request.jwt.claims', '', true);
    return rows;
end
$function$;
insert into harbour.ships (name) values ('of another organization');

-- Row-level security.
select is(pg_temp.found('row_security_off'), null, 'a table that no role of the API has a privilege on leaks nothing');
alter table harbour.ships disable row level security;
grant select on harbour.ships, harbour.cargo, harbour.logs, harbour.logs_2024, harbour.lighthouses to anon, authenticated;
select is(pg_temp.found('row_security_off'), 'leaks harbour.ships harbour.ships', 'one that they have, without row-level security, does');
select lives_ok($$ select pg_temp.remedy('row_security_off') $$, 'the remedy runs');
select is(pg_temp.found('row_security_off'), null, 'and nothing is left');
select is(pg_temp.found('partition_reachable'), null, 'a partition that has row-level security, or no privilege, is not within reach');
grant select (id) on harbour.logs_2025 to authenticated;
select is(pg_temp.found('partition_reachable'), 'leaks harbour.logs_2025 harbour.logs', 'one that has neither is');
select lives_ok($$ select pg_temp.remedy('partition_reachable') $$, 'the remedy runs');
select is(pg_temp.found('partition_reachable'), null, 'and nothing is left');

-- Views.
create view harbour.fleet as select id, name from harbour.ships;
create view harbour.safe_fleet with (security_invoker = true) as select id, name from harbour.ships;
create view harbour.over_safe as select id from harbour.safe_fleet;
create view harbour.beacons as select id from harbour.lighthouses;
grant select on harbour.safe_fleet, harbour.over_safe, harbour.beacons to authenticated;
select is(pg_temp.found('view_without_security_invoker'), null, 'a view that nobody may read, or that reads as who asks, leaks nothing');
select is(pg_temp.shown('select * from harbour.over_safe', 'authenticated'), 0::bigint, 'also where another is read as its owner');
create view harbour.fleet_of_organization as select id from harbour.ships where org_id = (select public.auth_org_id());
create view harbour.own_fleet as select id from harbour.ships where user_id = auth.uid();
create view harbour.over_fleet as select id from harbour.fleet;
create view harbour.asking_fleet with (security_invoker = on) as select id from harbour.fleet;
grant select on harbour.asking_fleet to authenticated;
select is(pg_temp.found('view_without_security_invoker'), null, 'nor one below a view that reads it as who asks');
grant select on harbour.over_fleet to authenticated;
select is(pg_temp.found('view_without_security_invoker'), 'leaks harbour.fleet harbour.ships', 'one that is read through another does');
grant select on harbour.fleet_of_organization, harbour.own_fleet to authenticated;
select is(
    pg_temp.found('view_without_security_invoker'),
    'leaks harbour.fleet harbour.ships, decide harbour.own_fleet harbour.ships',
    'one that goes by organization does not, and one that goes by who asks is to be looked at'
);
select is(pg_temp.shown('select * from harbour.over_fleet', 'authenticated'), 1::bigint, 'it shows everything');
select lives_ok($$ select pg_temp.remedy('view_without_security_invoker') $$, 'the remedy runs');
select is(pg_temp.found('view_without_security_invoker'), null, 'and nothing is left');
select is(pg_temp.shown('select * from harbour.over_fleet', 'authenticated'), 0::bigint, 'it shows nothing');
create materialized view harbour.ship_count as select count(*) from harbour.safe_fleet;
create materialized view harbour.lighthouse_count as select count(*) from harbour.lighthouses;
grant select on harbour.lighthouse_count to authenticated;
select is(pg_temp.found('materialized_view'), null, 'a materialized view that nobody may read, or of another table, leaks nothing');
grant select on harbour.ship_count to public;
select is(pg_temp.found('materialized_view'), 'leaks harbour.ship_count harbour.ships', 'one that the API may read does, whatever it reads through');
select lives_ok($$ select pg_temp.remedy('materialized_view') $$, 'the remedy runs');
select is(pg_temp.found('materialized_view'), null, 'and nothing is left');
create materialized view harbour.ship_names as select query_to_xml('select name from harbour.lighthouses', true, false, '') as names;
grant select on harbour.ship_names to authenticated;
select is(pg_temp.found('materialized_view'), null, 'nor is a query of another table, which is given as text');
drop materialized view harbour.ship_names;
create materialized view harbour.ship_names as select query_to_xml('select name from harbour.ships', true, false, '') as names;
grant select on harbour.ship_names to authenticated;
select is(pg_temp.found('materialized_view'), 'leaks harbour.ship_names harbour.ships', 'one that is given as text is a query');
drop materialized view harbour.ship_names;
create function harbour.names_of_ships() returns setof text language sql set search_path = harbour as 'select name from ships';
create function harbour.all_names() returns setof text language plpgsql as 'begin return query select * from harbour.names_of_ships(); end';
create view harbour.ship_names_view as select * from harbour.all_names() as name;
grant select on harbour.ship_names_view to authenticated;
select is(pg_temp.found('view_without_security_invoker'), null, 'a function in a view runs as who asks: that leaks nothing');
create materialized view harbour.ship_names as select * from harbour.ship_names_view;
grant select on harbour.ship_names to authenticated;
select is(pg_temp.found('materialized_view'), 'leaks harbour.ship_names harbour.ships', 'in a materialized one it has run as who refreshed that');
drop materialized view harbour.ship_names;
create or replace function harbour.names_of_ships() returns setof text language sql set search_path = harbour as 'select name from lighthouses -- from ships';
create materialized view harbour.ship_names as select * from harbour.names_of_ships() as ships (name);
grant select on harbour.ship_names to authenticated;
select is(pg_temp.found('materialized_view'), null, 'unless it reads another table');
drop materialized view harbour.ship_names;
drop view harbour.ship_names_view;
drop function harbour.all_names(), harbour.names_of_ships();

-- Functions.
create function harbour.count_ships()
returns bigint
language sql
security definer
as $function$ select count(*) from harbour.safe_fleet $function$;
create function harbour.count_lighthouses()
returns bigint
language sql
security definer
as $function$ select count(*) from harbour.lighthouses -- from harbour.ships $function$;
create function harbour.count_as_caller()
returns bigint
language sql
as $function$ select count(*) from harbour.ships $function$;
revoke execute on function harbour.count_ships() from public;
select is(pg_temp.found('security_definer_function'), null, 'a function that nobody may call, that reads as who asks, or other tables, leaks nothing');
create function harbour.count_all()
returns bigint
language sql
security definer
as $function$ select harbour.count_ships() + harbour.count_lighthouses() $function$;
select is(
    pg_temp.found('security_definer_function'), 'leaks harbour.count_all() harbour.ships', 'one that calls one that reads through a view does'
);
select lives_ok($$ select pg_temp.remedy('security_definer_function') $$, 'the remedy runs');
select is(pg_temp.found('security_definer_function'), null, 'and nothing is left');
create function harbour.as_xml()
returns xml
language sql
security definer
as $function$ select query_to_xml('select * from harbour.lighthouses', true, false, $x$harbour.ships$x$) $function$;
select is(pg_temp.found('security_definer_function'), null, 'nor is text that is no query one');
create or replace function harbour.as_xml()
returns xml
language sql
security definer
as $function$ select query_to_xml('select name from harbour.ships', true, false, '') $function$;
select is(pg_temp.found('security_definer_function'), 'leaks harbour.as_xml() harbour.ships', 'a query that is given as text is read');
create or replace function harbour.as_xml()
returns xml
language sql
security definer
as $function$ select table_to_xml('harbour.ships', true, false, '') $function$;
select is(pg_temp.found('security_definer_function'), 'leaks harbour.as_xml() harbour.ships', 'and so is the name of a table');
drop function harbour.as_xml();
do $$
begin
    execute $body$
        create function harbour.is_mine(ship uuid)
        returns boolean
        language sql
        stable
        security definer
        begin atomic
            select exists (select from harbour.ships where ships.id = is_mine.ship and ships.user_id = auth.uid());
        end
    $body$;
end
$$;
select is(pg_temp.found('security_definer_function'), 'decide harbour.is_mine(uuid) harbour.ships', 'one that looks at who calls is to be looked at');
do $$
begin
    execute $body$
        create or replace function harbour.is_mine(ship uuid)
        returns boolean
        language sql
        stable
        security definer
        begin atomic
            select exists (select from harbour.ships where ships.id = is_mine.ship and ships.org_id = public.auth_org_id());
        end
    $body$;
end
$$;
select is(pg_temp.found('security_definer_function'), null, 'one that goes by organization is none');

-- Policies.
create policy "own ships" on harbour.ships to authenticated using (user_id = (select auth.uid()));
create policy "ships of own organization" on harbour.ships to authenticated using (org_id = (select public.auth_org_id()));
create policy "cargo of own ships" on harbour.cargo using (exists (select from harbour.ships where ships.id = ship_id));
create policy "mine" on harbour.cargo to authenticated using (harbour.is_mine(ship_id));
create policy "nothing" on harbour.logs using (false);
create policy "no wrecks" on harbour.ships as restrictive using (not sunk);
select is(pg_temp.found('policy_open'), null, 'a policy that says whose a row is, or only restricts, is not open');
select is(pg_temp.found('policy_without_to'), null, 'nor does anon pass it, where it goes by a user or another table');
create policy "all wrecks" on harbour.ships for select using (sunk);
create policy "signed in" on harbour.logs to authenticated using (user_id = auth.uid()) with check (auth.role() = 'authenticated');
create policy "all cargo" on harbour.cargo for select using ((select auth.uid()) is not null);
select is(
    pg_temp.found('policy_open'),
    'leaks "all cargo" harbour.cargo, leaks "all wrecks" harbour.ships',
    'one that looks at no column, or at none that says whose a row is, is open; for inserts alone only who may insert passes'
);
grant insert on harbour.logs to authenticated;
select matches(pg_temp.found('policy_open'), '"signed in" harbour.logs', 'and who may insert does');
select matches(
    (select problem from tenancy.review_leaks where code = 'policy_open' and object = '"all wrecks"'), 'probably', 'a guess is said to be one'
);
select is(
    pg_temp.found('policy_without_to'), 'leaks "all wrecks" harbour.ships, leaks "cargo of own ships" harbour.cargo',
    'without TO anon passes it too, and what is bound to the rows that it shows'
);
select lives_ok($$ select pg_temp.remedy('policy_open'), pg_temp.remedy('policy_without_to') $$, 'the remedies run');
select is(concat(pg_temp.found('policy_open'), pg_temp.found('policy_without_to')), '', 'and nothing is left');

create policy "of own tenant" on harbour.ships to authenticated using (org_id = (select (auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid));
select is(
    concat(pg_temp.found('policy_on_user_metadata'), pg_temp.found('policy_on_unset_claim')), '', 'app_metadata is what a policy may trust'
);
create policy "of claimed tenant" on harbour.ships to authenticated
using (org_id = (select (auth.jwt() -> 'user_metadata' ->> 'org_id')::uuid));
create policy "of top tenant" on harbour.cargo to authenticated
using (org_id = (auth.jwt() ->> 'org_id')::uuid and auth.jwt() ->> 'aal' = 'aal2');
select is(pg_temp.found('policy_on_user_metadata'), 'leaks "of claimed tenant" harbour.ships', 'user_metadata is not');
select lives_ok($$ select pg_temp.remedy('policy_on_user_metadata') $$, 'the remedy runs');
select is(pg_temp.found('policy_on_user_metadata'), null, 'and nothing is left');
create function harbour.tenant()
returns text
language sql
stable
as $function$ select auth.jwt() -> 'user_metadata' ->> 'org_id' -- what every user writes $function$;
create function harbour.other_tenant()
returns text
language sql
stable
as $function$ select auth.jwt() -> 'app_metadata' ->> 'org_id' -- never user_metadata $function$;
create policy "of function's tenant" on harbour.cargo to authenticated using (org_id::text = harbour.tenant());
create policy "of other function's tenant" on harbour.cargo to authenticated using (org_id::text = harbour.other_tenant());
select is(
    pg_temp.found('policy_on_user_metadata'), 'leaks "of function''s tenant" harbour.cargo', 'nor in a function that a policy asks'
);
select is(pg_temp.found('policy_on_unset_claim'), 'leaks "of top tenant" harbour.cargo', 'nor is a claim that nobody sets');
create policy "of officers" on harbour.cargo to authenticated using (auth.jwt() ->> 'user_role' = 'officer');
select is(
    (select remedy from tenancy.review_leaks where code = 'policy_on_unset_claim' and object = '"of officers"'),
    'take auth.jwt() -> ''app_metadata'' ->> ''user_role'' in its place, which no user writes; or let a token hook set it',
    'a role is no organization'
);
drop policy "of officers" on harbour.cargo;
create function harbour.add_claims(event jsonb)
returns jsonb
language sql
as $function$ select jsonb_set(event, '{claims,org_id}', '"x"') $function$;
select is(pg_temp.found('policy_on_unset_claim'), null, 'a hook may set it');

-- Isolation closes what is open to authenticated.
create policy "all of them" on harbour.ships using (true);
select is(
    concat(pg_temp.found('policy_open'), pg_temp.found('policy_without_to')),
    'leaks "all of them" harbour.shipsleaks "all of them" harbour.ships, leaks "cargo of own ships" harbour.cargo',
    'a policy without TO that is open leaks to both'
);
create policy org_isolation on harbour.ships as restrictive to authenticated
using (org_id = (select public.auth_org_id())) with check (org_id = (select public.auth_org_id()));
select is(pg_temp.found('policy_open'), null, 'isolation closes it to authenticated');
select is(
    pg_temp.found('policy_without_to'), 'leaks "all of them" harbour.ships, leaks "cargo of own ships" harbour.cargo', 'but not to anon'
);
drop policy "all of them" on harbour.ships;

-- Roles.
create role harbour_master;
create role harbour_auditor;
grant usage on schema harbour to harbour_master, harbour_auditor;
grant select on harbour.ships, harbour.cargo to harbour_master;
select is(
    pg_temp.found('role_beyond_authenticated'), 'leaks harbour_master harbour.cargo', 'a role that a policy lets in is not held by isolation'
);
grant authenticated to harbour_auditor;
grant select on harbour.logs to harbour_auditor;
select doesnt_match(pg_temp.found('role_beyond_authenticated'), 'auditor', 'one that is a member of authenticated is');
-- Before PostgreSQL 16 only a superuser lets a role pass it.
do $$
begin
    if current_setting('server_version_num')::integer >= 160000 then
        alter role harbour_auditor bypassrls;
    end if;
end
$$;
select is(
    coalesce(pg_temp.found('role_beyond_authenticated'), '') like '%leaks harbour_auditor harbour.logs%',
    (select rolbypassrls from pg_roles where rolname = 'harbour_auditor'),
    'unless it passes row-level security, which it may whatever it is a member of'
);
do $$
begin
    if current_setting('server_version_num')::integer >= 160000 then
        alter role harbour_auditor nobypassrls;
    end if;
end
$$;
create policy "for the public" on harbour.ships for select to anon, authenticated using (sunk is not null);
select is(
    pg_temp.found('role_beyond_authenticated'),
    'leaks anon harbour.ships, leaks harbour_master harbour.cargo',
    'anon is one where a policy lets it see rows'
);
select lives_ok($$ select pg_temp.remedy('role_beyond_authenticated') $$, 'the remedies run');
select is(pg_temp.found('role_beyond_authenticated'), null, 'and nothing is left');

-- Privileges that no policy holds.
select is(pg_temp.found('api_privileges'), null, 'select and insert are held by policies');
grant truncate on harbour.ships to service_role;
grant trigger on harbour.logs_2024 to authenticated;
grant trigger on harbour.lighthouses to anon;
select is(pg_temp.found('api_privileges'), 'leaks harbour ', 'TRIGGER and TRUNCATE are not: one finding per schema');
select lives_ok($$ select pg_temp.remedy('api_privileges') $$, 'the remedy runs');
select is(pg_temp.found('api_privileges'), null, 'and nothing is left');

select * from finish();
rollback;
