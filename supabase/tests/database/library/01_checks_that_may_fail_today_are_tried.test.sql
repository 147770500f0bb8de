begin;
set local role postgres;
set local search_path = public, extensions;
select plan(9);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where jsonb_typeof(raw_app_meta_data) = 'object';

create schema harbour;
create table harbour.closed (at date);
create function harbour.is_open()
returns boolean
language plpgsql
stable
as $function$ begin return not exists (select from harbour.closed); end $function$;
create function harbour.call_sign(name text)
returns text
language plpgsql
immutable
as $function$ begin if exists (select from harbour.closed) then raise exception 'no calls today'; end if; return upper(name); end $function$;
create table harbour.ships (
    id integer primary key,
    user_id uuid,
    name text,
    since timestamptz default now(),
    constraint long_enough check (length(name) < 20 and name <> ''),
    constraint in_the_past check (since <= now()),
    constraint while_open check (harbour.is_open())
);
create index call_signs on harbour.ships (harbour.call_sign(name));
create index names on harbour.ships (lower(name));
insert into harbour.ships (id, name)
values (1, 'Anna'), (2, 'Berta');
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values ('harbour', 'ships', 'org', 'secondary', null), ('harbour', 'closed', 'excluded', null, 'a test');
create function pg_temp.found()
returns text
language sql
as $function$
    select string_agg(object || ' ' || severity, ', ' order by object)
    from tenancy.push_findings
    where table_name = 'harbour.ships' and code = 'untried_check'
$function$;
create function pg_temp.failed()
returns text
language sql
as $function$ select string_agg(line, e'\n' order by line) from unnest(org_migration.failed_checks()) as line where line like 'harbour.%' $function$;

select is(pg_temp.found(), null, 'where no row is written again no check that held can fail');
insert into tenancy.user_orgs (user_id, org_id)
select '00000000-0000-4000-8000-000000000099', default_org_id
from tenancy.settings;
select is(
    pg_temp.found(), 'call_signs decide, in_the_past decide, while_open decide',
    'with a mapping those that ask the time or the application''s own functions are to be looked at, and those that cannot change are not'
);
select is(pg_temp.failed(), null, 'and stop nothing while they hold');
select lives_ok($$ select tenancy.assert_registry() $$, 'so that the push goes on');

insert into harbour.closed
values (current_date);
select matches(
    pg_temp.failed(), '\mharbour\.ships has 2 rows that cannot be updated: they break the check while_open, which is valid, but [^\n]+\[rows_break_check\]',
    'one that says no today stops the push'
);
select matches(
    pg_temp.failed(), '\mharbour\.ships has the index call_signs, which asks a function that raises: no calls today; [^\n]+\[rows_break_check\]',
    'and so does an index whose function raises'
);
select doesnt_match(pg_temp.failed(), '(in_the_past|long_enough|names)', 'the others do not');
select throws_matching($$ select tenancy.assert_registry() $$, 'while_open', 'before it touches anything');
delete from tenancy.user_orgs;
select is(pg_temp.failed(), null, 'without a mapping nothing of it matters');

select * from finish();
rollback;
