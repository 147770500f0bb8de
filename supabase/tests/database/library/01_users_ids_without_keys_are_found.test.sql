begin;
set local role postgres;
set local search_path = public, extensions;
select plan(19);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

insert into auth.users (id)
values ('00000000-0000-4000-8000-000000000001'), ('00000000-0000-4000-8000-000000000002');
create schema harbour;
create function pg_temp.found(target text)
returns text
language sql
as $function$
    select concat_ws(' ', coalesce(suggested_scope, 'open'), user_columns::text, regexp_replace(org_row, '^.*secondary'', null, ', ''))
    from tenancy.unclassified_tables
    where schema_name = 'harbour' and table_name = target
$function$;
create function pg_temp.reason(target text)
returns text
language sql
as $function$ select reason from tenancy.unclassified_tables where schema_name = 'harbour' and table_name = target $function$;

-- By their values.
create table harbour.crews (id integer primary key, skipper uuid, name text);
insert into harbour.crews (id, skipper)
values
    (1, '00000000-0000-4000-8000-000000000001'), (2, '00000000-0000-4000-8000-000000000002'),
    (3, '00000000-0000-4000-8000-000000000003');
select is(pg_temp.found('crews'), 'org {skipper} ''{skipper}'')', 'a column with users'' ids is found by its values, whatever its name');
select is(pg_temp.reason('crews'), 'has users'' ids in skipper, without a foreign key (2 of 3)', 'and how many of them are users is said');
create table harbour.logs (id integer primary key, "writtenBy" text);
insert into harbour.logs
values (1, '00000000-0000-4000-8000-00000000000' || '1'), (2, 'the harbour master');
select is(pg_temp.found('logs'), 'org {writtenBy} ''{writtenBy}'')', 'also as text, among others');
create table harbour.buoys (id uuid primary key default gen_random_uuid(), serial uuid, name text);
insert into harbour.buoys (serial, name)
values (gen_random_uuid(), 'north');
select is(pg_temp.found('buoys'), 'excluded {} null)', 'ids of something else are none');
create table harbour.users (id uuid primary key, name text);
insert into harbour.users
values ('00000000-0000-4000-8000-000000000001');
create table harbour.posts (id integer primary key, author uuid references harbour.users (id), written uuid);
select is(pg_temp.found('users'), 'org {id} ''{id}'')', 'a table that mirrors auth.users has users'' ids for its key');
select is(pg_temp.found('posts'), 'org {} null)', 'and what references it follows it');
insert into harbour.posts (id, author, written)
values (1, '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002');
select is(pg_temp.found('posts'), 'org {written} ''{written,author}'')', 'where there is a key besides, the row to add names both');

create schema pier;
create table pier.profiles (id uuid primary key default gen_random_uuid(), user_id uuid not null unique references auth.users (id));
create table pier.users (id uuid primary key, auth_user uuid unique references auth.users (id), name text);
create table pier.user_profiles (id uuid primary key, invited_by uuid references auth.users (id));
insert into pier.profiles (user_id)
values ('00000000-0000-4000-8000-000000000001');
select results_eq(
    $$
        select table_name collate "default", reason collate "default"
        from tenancy.unclassified_tables
        where schema_name = 'pier'
        order by table_name
    $$,
    $$
        values
            ('profiles', 'has the column user_id'),
            (
                'user_profiles', 'references auth.users in invited_by; but has id, probably users'' ids: if so, name it in org_from, or first alter table'
                ' pier.user_profiles add foreign key (id) references auth.users (id) not valid'
            ),
            ('users', 'references auth.users in auth_user')
    $$,
    'the key of a profile is a user only where no other column says which user it is'
);
drop schema pier cascade;
create table harbour.tugs (id integer primary key, user_id uuid, uid uuid);
create table harbour.tows (id integer primary key, tug_id integer references harbour.tugs (id));
select is(pg_temp.reason('tows'), 'references harbour.tugs', 'a table that has one for sure is not said to be one that may have one');

-- By their names, where there are no values.
create table harbour.notes (id integer primary key, uid uuid);
select is(pg_temp.found('notes'), 'open {} ''{uid}'')', 'the name of an empty column leaves it open');
create table harbour.stamps (id integer primary key, note_id integer references harbour.notes (id));
select is(pg_temp.found('stamps'), 'open {} null)', 'and what references that table is open with it');
create table harbour.flags (id integer primary key, created_by text);
select is(pg_temp.found('flags'), 'open {} ''{created_by}'')', 'of text too');
insert into harbour.flags
values (1, 'the harbour master');
select is(pg_temp.found('flags'), 'excluded {} null)', 'unless its values are no ids');

create table harbour.tickets (id integer primary key, owner_email text);
insert into harbour.tickets
values (1, 'a@example.com');
select is(pg_temp.found('tickets'), 'open {} null)', 'an owner by address leaves it open, and is no column that decides');
create table harbour.rooms (id integer primary key, participants uuid[]);
select matches(pg_temp.reason('rooms'), '^has participants, which may say whose a row is for several users: .* first add a column', 'and so do several in one value');
create table harbour.pilots (id integer primary key, email text, tags text[]);
select is(pg_temp.found('pilots'), 'excluded {} null)', 'an address of whomever does not');

-- And keys of other tables.
create table harbour."Ship" (id integer primary key);
create table harbour.decks (id integer primary key, "shipId" integer, ship_id text);
select matches(
    pg_temp.reason('decks'), '^has shipId, which looks like the key of harbour\."Ship": if it is, first alter table harbour\.decks add foreign key \("shipId"\)',
    'a column in camel case is read as one with an underscore'
);
select unalike(pg_temp.reason('decks'), '%has ship_id%', 'one of another kind of type is no key of it');

-- Once it is classified.
insert into tenancy.user_orgs (user_id, org_id)
select '00000000-0000-4000-8000-000000000001', default_org_id
from tenancy.settings;
create table harbour.fleets (id integer primary key, user_id uuid);
create table harbour.boats (id integer primary key, fleet_id integer references harbour.fleets (id), owner uuid);
create table harbour.sails (id integer primary key, fleet_id integer references harbour.fleets (id), owner uuid);
create table harbour.masts (id integer primary key, fleet_id integer references harbour.fleets (id), weight uuid);
create table harbour.oars (id integer primary key, owner uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority, org_from)
values
    ('harbour', 'fleets', 'org', 'secondary', null),
    ('harbour', 'boats', 'org', 'secondary', null),
    ('harbour', 'sails', 'org', 'secondary', '{fleet_id}'),
    ('harbour', 'masts', 'org', 'secondary', null),
    ('harbour', 'oars', 'org', 'secondary', null);
select results_eq(
    $$
        select code, object collate "default", problem ~ '\mhas owner, probably users'' ids' as is_named
        from tenancy.push_findings
        where object like 'harbour.%' and code <> 'unclassified_table'
        order by object
    $$,
    $$ values ('unkeyed_owner', 'harbour.boats', true), ('no_source', 'harbour.oars', true) $$,
    'with a mapping a column that is passed over is a finding, unless org_from says what decides; one without which nothing decides stops the push'
);

select * from finish();
rollback;
