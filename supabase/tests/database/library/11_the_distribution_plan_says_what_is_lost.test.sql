begin;
set local role postgres;
set local search_path = public, extensions;
select plan(32);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
create schema harbour;
create extension btree_gist schema extensions;
alter default privileges in schema harbour grant select on tables to authenticated, service_role;
alter default privileges in schema harbour grant insert on tables to service_role with grant option;

create table harbour.flags (code text primary key);
create table harbour.ports (id integer primary key, flag text references harbour.flags (code), pilot uuid references auth.users (id) on delete cascade);
create table harbour.diaries (id integer primary key, user_id uuid references auth.users (id), port_id integer references harbour.ports (id));
create table harbour.ships (
    id bigint generated always as identity primary key,
    user_id uuid references auth.users (id) on delete cascade,
    port_id integer constraint its_port references harbour.ports (id) on delete set null,
    call_sign text constraint its_sign unique nulls not distinct,
    hull text,
    length numeric,
    half numeric generated always as (length / 2) stored,
    constraint its_hull unique (hull) include (length) deferrable
);
create unique index ships_by_lower_sign on harbour.ships (lower(call_sign)) where length > 0;
create index ships_by_half on harbour.ships (half);
create table harbour.voyages (
    number text primary key,
    user_id uuid,
    ship_id bigint constraint its_ship references harbour.ships (id) on delete set null,
    next_ship_id bigint constraint its_next_ship references harbour.ships (id) on delete cascade,
    renamed_ship_id bigint constraint its_renamed_ship references harbour.ships (id) on update cascade,
    berth integer,
    during tstzrange,
    constraint its_berth exclude using gist (berth with =, during with &&)
);
create table harbour.pets (id integer primary key, user_id uuid, ship_id bigint constraint its_home references harbour.ships (id) on delete cascade);
create table harbour.tides (id integer, user_id uuid, year integer, primary key (id, year)) partition by list (year);
create table harbour.tides_2024 partition of harbour.tides for values in (2024);
create unique index its_own_index on harbour.tides_2024 (id);

insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'voyages', 'org', 'secondary', null),
    ('harbour', 'tides', 'org', 'secondary', null),
    ('harbour', 'flags', 'excluded', null, 'global'),
    ('harbour', 'ports', 'excluded', null, 'global'),
    ('harbour', 'diaries', 'excluded', null, 'personal'),
    ('harbour', 'pets', 'excluded', null, 'personal');
do $$
declare
    target regclass;
begin
    foreach target in array array['harbour.ships', 'harbour.voyages', 'harbour.tides']::regclass[] loop
        perform tenancy.onboard(target);
    end loop;
end $$;
create unique index its_own_org on harbour.ships (org_id, hull);

create function harbour.note() returns trigger language plpgsql as $$ begin insert into harbour.pets (id) values (1); return new; end $$;
create function harbour.touch() returns trigger language plpgsql as $$ begin new.hull := upper(new.hull); return new; end $$;
create trigger note_insert after insert on harbour.ships for each row execute function harbour.note();
alter table harbour.ships enable always trigger note_insert;
create trigger note_update after update on harbour.ships for each row execute function harbour.note();
create trigger touch before update on harbour.ships for each row execute function harbour.touch();

create policy own on harbour.ships to authenticated using (user_id = (select auth.uid())) with check (user_id = auth.uid());
create policy everyone on harbour.ships for select using (call_sign = 'public');
create policy backend on harbour.ships to service_role using (true);
create policy mine on harbour.ships for insert to authenticated with check (org_id = (select public.auth_org_id()));
create policy claim on harbour.voyages to authenticated using (number = (select auth.jwt() ->> 'number') or number = coalesce((select auth.role()), 'x'));
create policy of_ship on harbour.voyages to authenticated using (exists (select from harbour.ships where ships.id = ship_id));
create policy partition on harbour.tides_2024 to authenticated using (true);
create policy lookup on harbour.ports to authenticated using (pilot = (select auth.uid()));
create policy diary on harbour.diaries to authenticated using (user_id = (select auth.uid()));

create temp table printed as
select * from tenancy.distribution_plan();
create temp view of_harbour as
select * from printed where table_name like 'harbour.%';

select results_eq(
    $$ select table_name, statement, decision is null from printed where statement like 'select create_%' order by ordinal $$,
    $$
        values
            ('harbour.flags', 'select create_reference_table(''harbour.flags'')', false),
            ('harbour.ports', 'select create_reference_table(''harbour.ports'')', false),
            ('public.organizations', 'select create_distributed_table(''public.organizations'', ''id'')', true),
            ('harbour.ships', 'select create_distributed_table(''harbour.ships'', ''org_id'', colocate_with => ''public.organizations'')', true),
            ('harbour.tides', 'select create_distributed_table(''harbour.tides'', ''org_id'', colocate_with => ''public.organizations'')', true),
            ('harbour.voyages', 'select create_distributed_table(''harbour.voyages'', ''org_id'', colocate_with => ''public.organizations'')', true)
    $$,
    'organizations and the org-scoped tables are distributed together, a partitioned one with its partitions; what they look up, and what that does, is copied'
);
select is_empty(
    $$ select * from of_harbour where table_name = 'harbour.diaries' and step not like 'reference%' $$,
    'a table that they do not reference stays as it is'
);
select is(
    (select count(distinct statement) from tenancy.distribution_plan(concurrent => true) where statement like 'select create_distributed_table_concurrently(%'), 4::bigint,
    'each by the concurrent form where that is asked for'
);
select is_empty(
    $$ select * from tenancy.distribution_plan(concurrent => true) where statement like '%create_distributed_table(%' or step = 'old rows' $$,
    'and by no other; it leaves no rows behind'
);

-- Policies
select results_eq(
    $$ select statement, decision is null from of_harbour where step = 'policy' and table_name = 'harbour.ships' order by ordinal $$,
    $$
        values
            (
                'alter policy everyone on harbour.ships using (org_id = public.auth_org_id() and (call_sign = ''public''::text))', false
            ),
            ('alter policy mine on harbour.ships with check ((org_id = public.auth_org_id()))', true),
            (
                'alter policy own on harbour.ships using (org_id = public.auth_org_id() and (user_id = auth.uid()))'
                ' with check (org_id = public.auth_org_id() and (user_id = auth.uid()))', true
            )
    $$,
    'a policy gets the organization where it has none, without a subquery; that it is for everyone is for you to decide, and service_role''s stays'
);
select results_eq(
    $$ select statement, decision is null from of_harbour where step = 'policy' and table_name <> 'harbour.ships' order by statement $$,
    $$
        values
            ('alter policy claim on harbour.voyages using (org_id = public.auth_org_id() and ((number = (auth.jwt() ->> ''number''::text)) OR (number = COALESCE(auth.role(), ''x''::text))))', true),
            ('alter policy lookup on harbour.ports using ((pilot = auth.uid()))', true),
            ('alter policy partition on harbour.tides_2024 using (org_id = public.auth_org_id() and true)', true),
            ('drop policy of_ship on harbour.voyages', false)
    $$,
    'one of a partition too; of what is copied only the subquery goes; one that looks into another table goes itself, which is said'
);

-- Keys
select results_eq(
    $$ select statement, decision is null from of_harbour where step = 'unique' and table_name = 'harbour.ships' order by statement $$,
    $$
        values
            ('alter table harbour.ships drop constraint its_hull, add constraint its_hull UNIQUE (org_id, hull) INCLUDE (length) DEFERRABLE', false),
            ('alter table harbour.ships drop constraint its_sign, add constraint its_sign UNIQUE NULLS NOT DISTINCT (org_id, call_sign)', false),
            ('alter table harbour.ships drop constraint ships_pkey, add constraint ships_pkey PRIMARY KEY (org_id, id)', true),
            (
                'drop index harbour.ships_by_lower_sign; CREATE UNIQUE INDEX ships_by_lower_sign ON harbour.ships USING btree'
                ' (org_id, lower(call_sign)) WHERE (length > (0)::numeric)', false
            )
    $$,
    'every unique without org_id gets it, with all that it says, and is a decision; a generated key is none, and one with org_id stays'
);
select results_eq(
    $$ select statement, decision is null from of_harbour where step = 'unique' and table_name = 'harbour.voyages' order by statement $$,
    $$
        values
            ('alter table harbour.voyages drop constraint its_berth, add constraint its_berth EXCLUDE USING gist (org_id WITH =, berth WITH =, during WITH &&)', false),
            ('alter table harbour.voyages drop constraint voyages_pkey, add constraint voyages_pkey PRIMARY KEY (org_id, number)', false)
    $$,
    'an exclusion constraint and a key that somebody chooses are decisions too'
);
select results_eq(
    $$ select statement from of_harbour where step = 'unique' and table_name like 'harbour.tides%' order by statement $$,
    $$
        values
            ('alter table harbour.tides drop constraint tides_pkey, add constraint tides_pkey PRIMARY KEY (org_id, id, year)'),
            ('drop index harbour.its_own_index; CREATE UNIQUE INDEX its_own_index ON harbour.tides_2024 USING btree (org_id, id)')
    $$,
    'the key of a partitioned table brings those of its partitions, except one that a partition has for itself'
);
select is_empty(
    $$ select * from of_harbour where step = 'unique' and table_name in ('harbour.ports', 'harbour.flags', 'harbour.pets') $$,
    'what is not distributed stays as unique as it is'
);

-- References
select results_eq(
    $$ select statement, decision is null from of_harbour where step = 'reference back' and table_name = 'harbour.voyages' order by statement $$,
    $$
        values
            ('alter table harbour.voyages add constraint fk_voyages_org_id FOREIGN KEY (org_id) REFERENCES public.organizations(id) ON DELETE CASCADE', true),
            (
                'alter table harbour.voyages add constraint its_next_ship foreign key (org_id, next_ship_id) references harbour.ships (org_id, id)'
                ' on update no action on delete cascade', true
            ),
            ('alter table harbour.voyages add constraint its_renamed_ship foreign key (org_id, renamed_ship_id) references harbour.ships (org_id, id) on delete no action', false),
            ('alter table harbour.voyages add constraint its_ship foreign key (org_id, ship_id) references harbour.ships (org_id, id) on update no action', false)
    $$,
    'set null between org-scoped tables is a decision, and so is on update cascade; delete cascade comes back as it is'
);
select results_eq(
    $$ select statement, decision is null from of_harbour where step = 'reference back' and table_name = 'harbour.ships' order by statement $$,
    $$
        values
            ('alter table harbour.ships add constraint fk_ships_org_id FOREIGN KEY (org_id) REFERENCES public.organizations(id) ON DELETE CASCADE', true),
            ('alter table harbour.ships add constraint its_port FOREIGN KEY (port_id) REFERENCES harbour.ports(id) ON DELETE SET NULL', true)
    $$,
    'set null of a key to a table that is copied stays'
);
select results_eq(
    $$ select table_name, statement from printed where step = 'reference away' and decision is not null and table_name !~ '^public' order by statement collate "C" $$,
    $$
        values
            ('harbour.diaries', 'alter table harbour.diaries drop constraint diaries_port_id_fkey'),
            ('harbour.pets', 'alter table harbour.pets drop constraint its_home'),
            ('harbour.ports', 'alter table harbour.ports drop constraint ports_pilot_fkey'),
            ('harbour.ships', 'alter table harbour.ships drop constraint ships_user_id_fkey'),
            ('tenancy.memberships', 'alter table tenancy.memberships drop constraint memberships_org_id_fkey'),
            ('tenancy.user_orgs', 'alter table tenancy.user_orgs drop constraint user_orgs_org_id_fkey')
    $$,
    'a key from or to a table that stays goes for good, which is a decision'
);
select is_empty(
    $$
        select statement from printed where step = 'reference away' and decision is null
        except
        select regexp_replace(statement, ' add (constraint \S+) .*', ' drop \1') from printed where step = 'reference back'
    $$,
    'every other comes back'
);
select matches(
    (select decision from printed where statement like '%drop constraint ships_user_id_fkey'), 'auth\.users.*its own rows stay', 'that a user''s rows stay is said'
);

-- Triggers
select results_eq(
    $$
        select step, statement, decision is null from printed
        where step like 'trigger%' and table_name = 'harbour.ships' and statement is distinct from 'drop trigger zzz_fill_org_id_ships on harbour.ships'
        order by ordinal
    $$,
    $$
        values
            ('trigger', 'alter table harbour.ships disable trigger note_insert', false),
            ('trigger', null, false),
            ('trigger back', 'alter table harbour.ships enable always trigger note_insert', true)
    $$,
    'a trigger that an insert fires is off while rows are copied; one that touches tables on update is a decision; one that does not is nobody''s concern'
);
select set_has(
    $$ select statement from printed where step = 'trigger' $$,
    $$
        values
            ('update tenancy.settings set fill_org_id = false'),
            ('drop trigger zzz_fill_org_id_ships on harbour.ships'),
            ('drop trigger zzz_fill_org_id_tides on harbour.tides'),
            ('drop trigger tenancy_leave_users_without_organization on public.organizations')
    $$,
    'ours that read tables which stay go'
);
select is_empty($$ select * from printed where statement like '%org_id_immutable%' $$, 'and the guards stay');

-- Privileges
select bag_eq(
    $$ select statement from printed where statement like '%default privileges%schema harbour%' $$,
    $$
        values
            ('alter default privileges for role postgres in schema harbour revoke all on tables from authenticated, service_role'),
            ('alter default privileges for role postgres in schema harbour grant select on tables to authenticated'),
            ('alter default privileges for role postgres in schema harbour grant select on tables to service_role'),
            ('alter default privileges for role postgres in schema harbour grant insert on tables to service_role with grant option')
    $$,
    'default privileges are withdrawn, and given back as they were'
);
select is(
    (select array_agg(distinct step order by step) from printed where ordinal > (select max(ordinal) from printed where step = 'default privileges away')
        and ordinal < (select min(ordinal) from printed where step = 'default privileges back')),
    array['distribute'],
    'while tables are distributed'
);
select results_eq(
    $$ select distinct table_name from of_harbour where step = 'privileges compared' order by 1 $$,
    $$ values ('harbour.flags'), ('harbour.ports'), ('harbour.ships'), ('harbour.tides'), ('harbour.tides_2024'), ('harbour.voyages') $$,
    'and those of each table, and each partition, are compared'
);
create function pg_temp.compare() returns void language plpgsql as $$
declare
    query text;
begin
    for query in select statement from printed where step = 'privileges compared' order by ordinal loop
        execute query;
    end loop;
end $$;
select lives_ok('select pg_temp.compare()', 'which passes while they are what they were');
grant select (hull) on harbour.ships to anon;
select throws_ok('select pg_temp.compare()', 'P0001', 'harbour.ships: privileges are not those from before', 'and not with another one, of a column too');
revoke select (hull) on harbour.ships from anon;
alter table harbour.tides_2024 disable row level security;
alter table harbour.ships enable row level security;
select throws_ok('select pg_temp.compare()', 'P0001', 'harbour.ships: privileges are not those from before', 'nor with row-level security changed');
alter table harbour.ships disable row level security;

-- What is left of it
select results_eq(
    $$ select table_name from of_harbour where step = 'replica identity' $$,
    $$ values (null::text) limit 0 $$,
    'a table with a primary key can be moved as it is'
);
alter table harbour.voyages drop constraint voyages_pkey;
alter table harbour.ships alter hull set not null, replica identity using index its_own_org;
select results_eq(
    $$ select statement from tenancy.distribution_plan() where step = 'replica identity' $$,
    $$ values ('alter table harbour.voyages replica identity full') $$,
    'one without gets an identity, and one that has it keeps it'
);
create unique index its_identity on harbour.voyages (number);
alter table harbour.voyages alter number set not null, replica identity using index its_identity;
select matches(
    (select statement from tenancy.distribution_plan() where statement like 'drop index harbour.its_identity;%'),
    'ON harbour\.voyages USING btree \(org_id, number\); alter table harbour\.voyages replica identity using index its_identity$',
    'also where it is by an index that is made anew'
);
alter table harbour.ships drop constraint ships_pkey cascade;
alter table harbour.ships add primary key (id);
create unique index its_wide_key on harbour.ships (org_id, id);
select is(
    (select statement from tenancy.distribution_plan() where statement like '%ships_pkey%'),
    'alter table harbour.ships drop constraint ships_pkey, add constraint ships_pkey primary key using index its_wide_key',
    'an index from binding becomes the key'
);
create unique index by_name on public.organizations (name);
select results_eq(
    $$ select statement, decision is null from tenancy.distribution_plan() where step = 'unique' and table_name = 'public.organizations' $$,
    $$ values ('drop index public.by_name', false) $$,
    'organizations keep their key, and lose every other'
);
do $$
declare
    query text;
begin
    for query in select statement from tenancy.distribution_plan() where step in ('policy', 'trigger') and statement is not null order by ordinal loop
        execute query;
    end loop;
end $$;
select is_empty($$ select * from tenancy.distribution_plan() where step = 'policy' $$, 'policies that were changed so are not changed again');
select results_eq(
    $$ select table_name, statement from tenancy.distribution_plan() where step = 'trigger' $$,
    $$ values ('harbour.ships', null::text) $$,
    'nor are triggers'
);
select is_empty(
    $$ select * from pg_policy where pg_get_expr(polqual, polrelid) ~ 'SELECT' and polrelid = any (array['harbour.ships', 'harbour.voyages']::regclass[]) $$,
    'none of theirs looks into another table'
);

select * from finish();
rollback;
