begin;
set local role postgres;
set local search_path = public, extensions;
select plan(61);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id uuid primary key default gen_random_uuid(), user_id uuid, name text);
create table harbour."Crew List" (id uuid primary key default gen_random_uuid(), user_id uuid, org_id uuid, name text);
create table harbour.logs (id bigint, user_id uuid, at date) partition by range (at);
create table harbour.logs_2024 partition of harbour.logs for values from ('2024-01-01') to ('2025-01-01');
create table harbour.ships_archive (id uuid, user_id uuid, name text);
create table harbour.lighthouses (id uuid primary key default gen_random_uuid(), user_id uuid, name text);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'Crew List', 'org', 'secondary', null),
    ('harbour', 'logs', 'org', 'secondary', null),
    ('harbour', 'ships_archive', 'excluded', null, 'a test'),
    ('harbour', 'lighthouses', 'excluded', null, 'a test');

create function pg_temp.found(code text)
returns text
language sql
as $function$
    select string_agg(format('%s %s %s', severity, object, table_name), ', ' order by object collate "C", table_name collate "C")
    from tenancy.review_breaks as review
    where review.code = found.code and table_name like 'harbour.%'
$function$;
create function pg_temp.said(code text)
returns text
language sql
as $function$
    select string_agg(problem, ', ' order by object collate "C", table_name collate "C")
    from tenancy.review_breaks as review
    where review.code = said.code and table_name like 'harbour.%'
$function$;
-- Runs the remedies, each of which is statements with semicolons between them.
create function pg_temp.remedy(code text)
returns void
language plpgsql
as $function$
declare
    statement text;
begin
    for statement in select remedy from tenancy.review_breaks as review where review.code = remedy.code and table_name like 'harbour.%'
    loop
        execute statement;
    end loop;
end
$function$;

-- Functions that insert. (What PostgreSQL keeps parsed is made by EXECUTE, as not every runner knows the semicolons in it.)
create function harbour.count_ships()
returns bigint
language sql
as $function$
    -- insert into harbour.ships (name) values ('it''s');
    select count(*) + length('insert into harbour.ships (name) values (1)') from harbour.ships
$function$;
create function harbour.mention()
returns text
language plpgsql
as $function$
/* insert into harbour.ships (name) */
begin
    insert into harbour.lighthouses (name) values (E'don\'t insert into harbour.ships (name) values (1)');
    return $text$ insert into harbour.ships (name) values (1) $text$;
end
$function$;
select is(pg_temp.found('function_without_org_id'), null, 'what stands in a comment or in text is not an insert, nor is one into another table');
create function harbour.launch(of_user uuid, called text)
returns void
language sql
as $function$ insert into harbour.ships (user_id, name) values (of_user, called) $function$;
select is(
    pg_temp.found('function_without_org_id'),
    'decide harbour.launch(uuid, text) harbour.ships',
    'a function that inserts without org_id is to be changed before the filler goes'
);
select matches(pg_temp.said('function_without_org_id'), '^probably inserts .* before you switch the filler off$', 'and the words say so');
update tenancy.settings set fill_org_id = false;
select is(pg_temp.found('function_without_org_id'), 'breaks harbour.launch(uuid, text) harbour.ships', 'without filler it breaks');
select is(
    (select severity from tenancy.review where object = 'harbour.launch(uuid, text)'), 'breaks', 'once in the review, however many views it is made of'
);
update tenancy.settings set fill_org_id = true;
-- Names are words of a language: quoted or not, with their schema or found on the path.
set local check_function_bodies = off;
create or replace function harbour.launch(of_user uuid, called text)
returns void
language sql
as $function$ insert into harbour.ships (user_id, name, org_id) values (of_user, called, null) $function$;
select is(pg_temp.found('function_without_org_id'), null, 'one that names org_id is none');
create or replace function harbour.launch(of_user uuid, called text)
returns void
language plpgsql
as $function$
begin
    INSERT   INTO "harbour" . "ships" AS s (user_id) VALUES (of_user);
    insert into harbour."Crew List" ("user_id", name) select of_user, called;
    insert into harbour.ships_archive (id) values (null);
    insert into harbour."crew list" (user_id) values (of_user);
end
$function$;
select is(
    pg_temp.found('function_without_org_id'),
    'decide harbour.launch(uuid, text) harbour."Crew List", decide harbour.launch(uuid, text) harbour.ships',
    'names are compared as PostgreSQL compares them'
);
create or replace function harbour.launch(of_user uuid, called text)
returns void
language sql
as $function$ insert into ships (user_id, name) values (of_user, called) $function$;
select is(pg_temp.found('function_without_org_id'), null, 'without schema it is a table of public');
alter function harbour.launch(uuid, text) set search_path = harbour, public;
select is(pg_temp.found('function_without_org_id'), 'decide harbour.launch(uuid, text) harbour.ships', 'or of the function''s search path');
alter function harbour.launch(uuid, text) set search_path = '';
select is(pg_temp.found('function_without_org_id'), null, 'and of none where that is empty');
create or replace function harbour.launch(of_user uuid, called text)
returns void
language sql
as $function$
    merge into harbour.ships using (select of_user) as new (id) on ships.user_id = new.id
    when matched then update set name = called
    when not matched then insert (user_id, name) values (new.id, called)
$function$;
select is(pg_temp.found('function_without_org_id'), 'decide harbour.launch(uuid, text) harbour.ships', 'a merge that inserts is one');
create or replace function harbour.launch(of_user uuid, called text)
returns void
language sql
as $function$
    merge into harbour.ships using (select of_user) as new (id) on ships.user_id = new.id
    when matched then update set name = called
$function$;
select is(pg_temp.found('function_without_org_id'), null, 'one that only updates is none');
create or replace function harbour.launch(of_user uuid, called text)
returns void
language sql
as $function$ insert into harbour.logs_2024 (user_id) values (of_user) $function$;
select is(pg_temp.found('function_without_org_id'), 'decide harbour.launch(uuid, text) harbour.logs', 'a partition counts as its table');
do $$
begin
    execute $body$
        create or replace function harbour.launch(of_user uuid, called text)
        returns void
        begin atomic
            insert into harbour.ships (user_id, name) values (of_user, called);
        end
    $body$;
end
$$;
select matches(pg_temp.said('function_without_org_id'), '^inserts into harbour\.ships without org_id', 'a body that is kept parsed is known, not guessed');
drop function harbour.launch(uuid, text);

create function harbour.log_ship()
returns trigger
language plpgsql
as $function$ begin insert into harbour.logs (user_id, at) values (new.user_id, now()); return new; end $function$;
create function harbour.log_lighthouse()
returns trigger
language plpgsql
as $function$ begin insert into harbour.ships_archive (user_id) values (new.user_id); return new; end $function$;
select is(pg_temp.found('trigger_without_org_id'), 'decide harbour.log_ship() harbour.logs', 'trigger functions have a code of their own');
select doesnt_match(pg_temp.said('trigger_without_org_id'), 'signs up', 'one of another table has nothing to do with signing up');
create trigger log_ship after insert on auth.users for each row execute function harbour.log_ship();
select matches(pg_temp.said('trigger_without_org_id'), 'when somebody signs up', 'one that runs then says so');
create or replace function harbour.log_ship()
returns trigger
language plpgsql
as $function$ begin insert into harbour.logs (user_id, at, org_id) values (new.user_id, now(), new.org_id); return new; end $function$;
select is(pg_temp.found('trigger_without_org_id'), null, 'one that names org_id is none');

-- With a mapping the filler refuses what nothing places.
create function harbour.log_mooring()
returns trigger
language plpgsql
as $function$ begin insert into harbour.ships (user_id) values (auth.uid()); return new; end $function$;
create trigger log_mooring after update on auth.users for each row execute function harbour.log_mooring();
update tenancy.registry set org_from = '{user_id}' where schema_name = 'harbour' and table_name = 'ships';
select is(pg_temp.found('trigger_without_org_id'), 'decide harbour.log_mooring() harbour.ships', 'without a mapping a row that nothing decides has the default organization');
select doesnt_match(pg_temp.said('trigger_without_org_id'), 'signs up', 'a trigger on UPDATE is no sign-up');
insert into tenancy.user_orgs (user_id, org_id) values (gen_random_uuid(), 'a0000000-0000-0000-0000-000000000001');
select is(pg_temp.found('trigger_without_org_id'), 'breaks harbour.log_mooring() harbour.ships', 'with one it is refused, and what fires the trigger fails');
select matches(pg_temp.said('trigger_without_org_id'), 'of nobody where nobody is signed in', 'whose row that is is said');
alter table harbour.ships alter column user_id set not null;
select is(pg_temp.found('trigger_without_org_id'), 'decide harbour.log_mooring() harbour.ships', 'a column that is always there decides');
drop function harbour.log_mooring() cascade;
create function harbour.log_mooring()
returns trigger
language plpgsql
as $function$ begin insert into harbour.ships (user_id) values (new.id); return new; end $function$;
create trigger log_mooring after insert on auth.users for each row execute function harbour.log_mooring();
update tenancy.settings set new_users = 'application';
select matches(pg_temp.said('trigger_without_org_id'), 'when somebody signs up, which fails', 'nobody signs up whom the application does not place by then');
create function harbour.place()
returns trigger
language plpgsql
as $function$ begin insert into tenancy.user_orgs values (new.id, 'a0000000-0000-0000-0000-000000000001'); return new; end $function$;
create trigger a_place after insert on auth.users for each row execute function harbour.place();
select is(pg_temp.found('trigger_without_org_id'), 'decide harbour.log_mooring() harbour.ships', 'one that another trigger places does');
drop function harbour.place(), harbour.log_mooring() cascade;
update tenancy.settings set new_users = null;
update tenancy.registry set org_from = null where schema_name = 'harbour' and table_name = 'ships';
alter table harbour.ships alter column user_id drop not null;
delete from tenancy.user_orgs;

-- By position.
create function harbour.archive()
returns void
language sql
as $function$ insert into harbour.ships_archive (id, user_id, name) select id, user_id, name from harbour.ships $function$;
select is(pg_temp.found('insert_by_position'), null, 'an insert that lists its columns is not by position');
create or replace function harbour.archive()
returns void
language sql
as $function$ insert into harbour.ships_archive select * from harbour.ships $function$;
select is(pg_temp.found('whole_rows_copied'), 'breaks harbour.archive() harbour.ships', 'all columns into a table that has one fewer are too many');
create or replace function harbour.archive()
returns void
language sql
as $function$
    with gone as (delete from only harbour.ships where name < upper('b') returning *)
    insert into harbour.ships_archive select * from gone
$function$;
select is(pg_temp.found('whole_rows_copied'), 'breaks harbour.archive() harbour.ships', 'also by way of a delete');
create or replace function harbour.archive()
returns void
language sql
as $function$ insert into harbour.ships_archive select s.* from harbour.lighthouses as s $function$;
select is(pg_temp.found('whole_rows_copied'), null, 'those of a table that stays as it is are not');
create or replace function harbour.archive()
returns void
language sql
as $function$ insert into harbour.ships select entry.* from jsonb_populate_record(null::harbour.ships, '{}') as entry $function$;
select is(pg_temp.found('insert_by_position'), 'decide harbour.archive() harbour.ships', 'whole rows that come from elsewhere may have no org_id');
select is(pg_temp.found('function_without_org_id'), null, 'and are one finding');
drop function harbour.archive();

-- What a function returns.
create function harbour.list_ships()
returns table (id uuid, user_id uuid, name text)
language sql
stable
as $function$ select ships.id, ships.user_id, ships.name from harbour.ships $function$;
create function harbour.latest_ships()
returns setof harbour.ships
language sql
stable
as $function$ select * from harbour.ships order by id limit 1 $function$;
create function harbour.rename_ship()
returns harbour.ships
language sql
as $function$ update harbour.ships set name = upper(name) where id is null returning * $function$;
create function harbour.one_ship()
returns harbour.ships
language plpgsql
as $function$ declare ship harbour.ships; begin select id, user_id, name into ship from harbour.ships; return ship; end $function$;
create function harbour.counted()
returns table (of_user uuid, ships bigint)
language sql
as $function$ select user_id, count(*) from (select * from harbour.ships) as ships group by user_id $function$;
create function harbour.of_a_query()
returns table (id uuid, name text)
language sql
as $function$ with ships as (select id, name from harbour.ships) select * from ships $function$;
create function harbour.beside()
returns table (id uuid, user_id uuid, name text)
language sql
as $function$ select l.* from harbour.lighthouses as l join harbour.ships on true $function$;
select is(pg_temp.found('function_row_shape'), null, 'a function that names columns, or answers with whole rows, goes on');
create or replace function harbour.list_ships()
returns table (id uuid, user_id uuid, name text)
language sql
stable
as $function$ select * from harbour.ships $function$;
select is(pg_temp.found('function_row_shape'), 'breaks harbour.list_ships() harbour.ships', 'select * where it says the columns that it returns');
create or replace function harbour.list_ships()
returns table (id uuid, user_id uuid, name text)
language sql
stable
as $function$ select id, user_id, name from harbour.ships_archive union all select * from harbour.ships $function$;
select is(pg_temp.found('function_row_shape'), 'breaks harbour.list_ships() harbour.ships', 'in each query of a union');
create or replace function harbour.list_ships()
returns table (id uuid, user_id uuid, name text)
language plpgsql
as $function$ begin return query with s as (select 1) select ship.* from harbour.ships ship where true; end $function$;
create or replace function harbour.latest_ships()
returns setof harbour.ships
language sql
stable
as $function$ select id, user_id, coalesce(name, '*') from harbour.ships order by id limit 1 $function$;
create or replace function harbour.rename_ship()
returns harbour.ships
language plpgsql
as $function$ begin return query select id, user_id, name from harbour.ships; end $function$;
select is(
    pg_temp.found('function_row_shape'),
    'breaks harbour.latest_ships() harbour.ships, breaks harbour.list_ships() harbour.ships, breaks harbour.rename_ship() harbour.ships',
    'and columns where it returns rows of the table, in either language'
);
do $$
begin
    execute $body$
        create or replace function harbour.latest_ships()
        returns setof harbour.ships
        begin atomic
            select * from harbour.ships;
        end
    $body$;
end
$$;
select matches(
    (select problem from tenancy.review where object = 'harbour.latest_ships()'), '^returns too few columns', 'select * of a body that is kept parsed is the columns that there were'
);
alter table harbour.ships add column org_id uuid;
select throws_ok($$ select harbour.latest_ships() $$, '42P13', null, 'once there is org_id it does break');
drop function harbour.list_ships(), harbour.latest_ships(), harbour.rename_ship();
select is(pg_temp.found('function_row_shape'), null, 'nothing else is named');

-- Partitions.
create function harbour.make_partition(month text)
returns void
language plpgsql
as $function$
begin
    execute format('create table harbour.%I partition of harbour.logs for values from (%L) to (%L)', month, month, month);
end
$function$;
select is(pg_temp.found('partition_without_org_id'), null, 'a partition that is made as one gets everything');
create or replace function harbour.make_partition(month text)
returns void
language plpgsql
as $function$
begin
    execute format('create table harbour.%I (like harbour.logs including defaults)', month);
    execute format('alter table harbour.logs attach partition harbour.%I for values from (%L) to (%L)', month, month, month);
end
$function$;
select is(pg_temp.found('partition_without_org_id'), null, 'one that is made like its table, and then attached, too');
create or replace function harbour.make_partition(month text)
returns void
language plpgsql
as $function$
begin
    execute format('create table harbour.%I (id integer, at date)', month);
    execute format('alter table harbour.logs attach partition harbour.%I for values from (%L) to (%L)', month, month, month);
end
$function$;
select is(
    pg_temp.found('partition_without_org_id'), 'breaks harbour.make_partition(text) harbour.logs', 'one that is made column by column lacks it'
);
create function pg_temp.of_filling(filling text)
returns text
language plpgsql
as $function$
begin
    execute format(
        'create or replace function harbour.make_partition(month text) returns void language plpgsql as %L',
        format(
            $body$
                begin
                    execute format('create table if not exists harbour.%%I (like harbour.logs including defaults)', month);
                    %s;
                    execute format('alter table harbour.logs attach partition harbour.%%I for values from (%%L) to (%%L)', month, month, month);
                end
            $body$, filling
        )
    );
    return pg_temp.found('partition_without_org_id');
end
$function$;
select is(
    pg_temp.of_filling($$ execute format('insert into harbour.%I (id, at) values (1, %L)', month, month) $$),
    'breaks harbour.make_partition(text) harbour.logs', 'rows that come before it is attached have no filler'
);
select is(pg_temp.of_filling($$ execute format('insert into harbour.%I (id, at, org_id) values (1, %L, null)', month, month) $$), null, 'unless they say it');
select is(pg_temp.of_filling($$ execute format('insert into harbour.%I select * from harbour.logs_default', month) $$), null, 'or are whole rows of the table');
select is(pg_temp.of_filling($$ insert into harbour.made (month) values (month) $$), null, 'what is noted elsewhere is no row of it');
drop function harbour.make_partition(text);

-- Jobs.
create schema if not exists cron;
create table if not exists cron.job (
    jobid bigserial primary key,
    schedule text,
    command text,
    jobname text,
    username text default current_user
);
insert into cron.job (schedule, command, jobname)
values
    ('@daily', $$ delete from harbour.lighthouses where name = 'delete from harbour.ships' -- from harbour.ships $$, 'lighthouses'),
    ('@daily', E'delete from harbour.ships where name = \'\x01\'', 'old ships'),
    ('@daily', 'insert into harbour.logs (at) values (now())', 'heartbeat');
select is(
    pg_temp.found('cron_job'),
    'decide heartbeat harbour.logs, decide old ships harbour.ships',
    'a job works on rows of all organizations, or inserts without one'
);
create function harbour.beat()
returns void
language sql
as $function$ insert into harbour.logs (at) values (now()) $function$;
update cron.job set command = 'select harbour.beat()' where jobname = 'heartbeat';
update tenancy.settings set fill_org_id = false;
select is(
    pg_temp.found('cron_job'), 'breaks heartbeat harbour.logs, decide old ships harbour.ships', 'also by a function, which breaks without filler'
);
select matches(pg_temp.said('cron_job'), 'without org_id, by harbour\.beat\(\)', 'that is named');
update tenancy.settings set fill_org_id = true;
delete from cron.job where jobname in ('heartbeat', 'old ships');
select is(pg_temp.found('cron_job'), null, 'and nothing else is');

-- Privileges by column.
create role harbour_clerk;
grant select (id, user_id, name), update (name) on harbour.ships to harbour_clerk;
grant select (id, at) on harbour.logs to harbour_clerk;
grant select (id) on harbour.lighthouses to harbour_clerk;
grant insert (name) on harbour."Crew List" to harbour_clerk;
select is(
    pg_temp.found('column_grants'),
    'decide harbour_clerk harbour."Crew List", decide harbour_clerk harbour.logs, breaks harbour_clerk harbour.ships',
    'who may read all columns by name cannot select * any more, and who may read or insert some cannot ask for org_id, or say it'
);
select matches(
    (select remedy from tenancy.review_breaks where code = 'column_grants' and table_name = 'harbour.logs'), '^after the push: grant',
    'before there is the column its grant has to wait'
);
revoke select (id, at) on harbour.logs from harbour_clerk;
select lives_ok($$ select pg_temp.remedy('column_grants') $$, 'the remedy runs');
select is(pg_temp.found('column_grants'), null, 'and nothing is left');
revoke select (org_id) on harbour.ships from harbour_clerk;
grant select on harbour.ships to harbour_clerk;
select is(pg_temp.found('column_grants'), null, 'who may read the table may read every column');

-- Publications.
create publication harbour_all for table harbour.ships (id), harbour.lighthouses, harbour.logs;
select is(pg_temp.found('published'), 'decide harbour_all harbour.logs', 'a subscriber needs the column, unless it is sent a list of columns');
select is_empty(
    $$ select * from tenancy.review_breaks where code = 'published' and table_name like 'harbour.%' and problem not like '%missing replicated column "org_id"%' $$,
    'the words are those of the subscriber''s log'
);

-- Foreign keys that set org_id too.
create table harbour.teams (id uuid, org_id uuid, user_id uuid, primary key (org_id, id));
create table harbour.tasks (id uuid primary key, org_id uuid, team_id uuid, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'teams', 'org', 'secondary'), ('harbour', 'tasks', 'org', 'secondary');
alter table harbour.tasks
add constraint team foreign key (org_id, team_id) references harbour.teams (org_id, id) on delete set null (team_id),
add constraint other_team foreign key (org_id, team_id) references harbour.teams (org_id, id) on delete cascade;
select is(pg_temp.found('reference_sets_org_id_null'), null, 'a foreign key that leaves org_id alone is none');
alter table harbour.tasks
drop constraint team,
add constraint team foreign key (org_id, team_id) references harbour.teams (org_id, id) on update set null on delete set null deferrable;
select is(pg_temp.found('reference_sets_org_id_null'), 'breaks team harbour.tasks', 'one that sets org_id null breaks each delete');
select lives_ok($$ select pg_temp.remedy('reference_sets_org_id_null') $$, 'the remedy runs');
select is(
    (select pg_get_constraintdef(oid) from pg_constraint where conname = 'team' and conrelid = 'harbour.tasks'::regclass),
    'FOREIGN KEY (org_id, team_id) REFERENCES harbour.teams(org_id, id) ON DELETE SET NULL (team_id) DEFERRABLE',
    'it leaves org_id out, and everything else as it was'
);
select is(pg_temp.found('reference_sets_org_id_null'), null, 'and nothing is left');

select * from finish();
rollback;
