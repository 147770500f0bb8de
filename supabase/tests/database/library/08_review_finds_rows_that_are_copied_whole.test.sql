begin;
set local role postgres;
set local search_path = public, extensions;
select plan(55);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- Some of the functions would break at once.
set local check_function_bodies = off;
create schema harbour;
create table harbour.ships (id uuid, user_id uuid, name text);
create table harbour.ships_copy (id uuid, user_id uuid, name text);
create table harbour.ships_history (id uuid, user_id uuid, name text, at timestamptz);
create table harbour.ships_log (id uuid, user_id uuid, name text, at timestamptz, entry jsonb);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'ships_copy', 'org', 'secondary', null),
    ('harbour', 'ships_history', 'org', 'secondary', null),
    ('harbour', 'ships_log', 'excluded', null, 'a test');

create function pg_temp.of_trigger(body text)
returns text
language plpgsql
as $function$
declare
    found text;
begin
    execute format('create function harbour.tried() returns trigger language plpgsql as %L', format('begin %s; return old; end', body));
    create trigger tried after delete on harbour.ships for each row execute function harbour.tried();
    select string_agg(review.problem, ', ')
    into found
    from tenancy.review_breaks as review
    where review.object = 'harbour.tried()' and review.severity = 'breaks';
    drop function harbour.tried() cascade;
    return found;
end
$function$;
select is(pg_temp.of_trigger('insert into harbour.ships_log (id, at) values (old.id, now())'), null, 'a trigger that names the columns goes on');
select matches(
    pg_temp.of_trigger('insert into harbour.ships_log select old.*, now()'), 'org_id with them', 'one that copies whole rows has one column too many'
);
select matches(pg_temp.of_trigger('insert into harbour.ships_log values (old.*)'), 'org_id with them', 'as values');
select matches(pg_temp.of_trigger('insert into harbour.ships_log select (new).*'), 'org_id with them', 'in parentheses');
select matches(pg_temp.of_trigger('insert into harbour.ships_log (id, user_id, name) select old.*'), 'org_id with them', 'into columns that it names');
select matches(
    pg_temp.of_trigger('execute ''insert into harbour.ships_log select ($1).*'' using old'), 'org_id with them', 'by EXECUTE'
);
select matches(
    pg_temp.of_trigger('execute format(''insert into %I.%I values ($1.*)'', tg_table_schema, tg_argv[0]) using old'), 'a table that it names as it runs',
    'into whatever table'
);
select is(pg_temp.of_trigger('insert into harbour.ships_log (entry) values (to_jsonb(old.*))'), null, 'a row in one value has as many columns as it has');
select is(pg_temp.of_trigger('insert into harbour.ships_log (entry) select to_jsonb(old)'), null, 'however it is written');
select is(pg_temp.of_trigger('raise notice ''insert into harbour.ships_log select old.*'''), null, 'text that nothing runs is none');
select is(pg_temp.of_trigger('insert into harbour.ships_copy select old.*'), null, 'where both get org_id as their last column all goes on');
select matches(
    pg_temp.of_trigger('insert into harbour.ships_history select old.*, now()'), 'where that has another column', 'where another column follows it does not'
);
alter table harbour.ships add column org_id uuid;
alter table harbour.ships_history drop column at, add column org_id uuid, add column at timestamptz;
select is(pg_temp.of_trigger('insert into harbour.ships_history select old.*, now()'), null, 'unless both had it there before');
create function harbour.keep(ship harbour.ships)
returns void
language sql
as $function$ insert into harbour.ships_log select ($1).* $function$;
select matches(
    (select string_agg(problem, ', ') from tenancy.review_breaks where object = 'harbour.keep(harbour.ships)' and severity = 'breaks'), 'org_id with them',
    'a function that is given a row may copy it too'
);
drop function harbour.keep(harbour.ships);

select is(
    pg_temp.of_trigger('with gone as (delete from harbour.ships_copy returning *) insert into harbour.ships_log select *, now() from gone') ~ 'org_id with them', true,
    'what is deleted and kept elsewhere is copied'
);
select is(pg_temp.of_trigger('insert into harbour.ships_log (id, at) select count(*), now() from harbour.ships_copy'), null, 'a count is no row');
-- By MERGE, by EXECUTE of a table that is named elsewhere, and what is made of JSON or text.
alter table harbour.ships drop column org_id;
select matches(pg_temp.of_trigger(body), 'all columns of harbour\.ships_copy into harbour\.ships_log, org_id with them', body)
from unnest(array[
    'merge into harbour.ships_log as kept using harbour.ships_copy as c on kept.id = c.id when not matched then insert values (c.*)',
    'merge into harbour.ships_log using harbour.ships_copy on ships_log.id = ships_copy.id when not matched then insert values (ships_copy.*, now())',
    'merge into harbour.ships_log kept using (select * from harbour.ships_copy) c on kept.id = c.id when not matched then insert (id, user_id, name) values (c.*)',
    'insert into harbour.ships_log select * from jsonb_populate_recordset(null::harbour.ships_copy, old.name::jsonb)',
    'insert into harbour.ships_log select r.*, now() from json_populate_recordset(null::harbour.ships_copy, (old.name)::json) as r',
    'insert into harbour.ships_log select (jsonb_populate_record(null::harbour.ships_copy, old.name::jsonb)).*',
    'insert into harbour.ships_log values ((json_populate_record(null::harbour.ships_copy, old.name::json)).*)'
]) as body;
select is(pg_temp.of_trigger(body), null, body)
from unnest(array[
    'merge into harbour.ships_log l using harbour.ships_copy c on l.id = c.id when not matched then insert (id, user_id, name) values (c.id, c.user_id, c.name)',
    'merge into harbour.ships_copy l using harbour.ships c on l.id = c.id when not matched then insert values (c.*)',
    'merge into harbour.ships_log l using harbour.ships_copy c on l.id = c.id when matched then update set name = c.name',
    'insert into harbour.ships_log (id, name) select id, name from jsonb_populate_recordset(null::harbour.ships_copy, old.name::jsonb)',
    'insert into harbour.ships_log (id, entry) select id, to_jsonb(r.*) from jsonb_populate_recordset(null::harbour.ships_copy, old.name::jsonb) as r'
]) as body;
select matches(pg_temp.of_trigger(body), 'a table that it names as it runs, which may be harbour\.ships($|,)', body)
from unnest(array[
    'execute ''insert into harbour.ships_log select * from '' || ''harbour.ships''',
    'execute ''insert into harbour.ships_log select * from '' || tg_relid::regclass',
    'execute format(''insert into harbour.ships_log select *, now() from %I.%I'', tg_table_schema, tg_table_name)',
    'execute format(''insert into harbour.%I select * from harbour.%I'', tg_argv[0] || ''_log'', ''ships'')'
]) as body;
select is(pg_temp.of_trigger(body), null, body)
from unnest(array[
    'execute ''insert into harbour.ships_log (id, at) select id, now() from '' || ''harbour.ships''',
    'execute ''insert into harbour.ships_copy select * from '' || ''harbour.ships''',
    'execute format(''create table if not exists %1$I_log (like %1$I); insert into %1$I_log select * from %1$I'', ''ships'')',
    'execute ''insert into harbour.ships_log select * from '' || ''harbour.ships_log'''
]) as body;
select matches(pg_temp.of_trigger(body), 'of text or of a ROW', body)
from unnest(array[
    'old := ''(1,2,x)''::harbour.ships', 'old := cast(''(1,2,x)'' as harbour.ships)', 'old := format(''(%s,%s,x)'', 1, 2)::harbour.ships',
    'old := row(old.id, old.user_id, ''x'')::harbour.ships'
]) as body;
select is(pg_temp.of_trigger(body), null, body)
from unnest(array[
    'old := null::harbour.ships', 'old := row(old.*)::harbour.ships', 'old := row(old.id, old.user_id, ''x'', null)::harbour.ships_log',
    'insert into harbour.ships_log (name) select concat(old.name, ''x'') as ships'
]) as body;

-- What a function answers with.
create type harbour.short as (id uuid, user_id uuid, name text);
create type harbour.long as (id uuid, user_id uuid, name text, org_id uuid);
create function pg_temp.of_answer(body text, returned text default 'table (id uuid, user_id uuid, name text)')
returns text
language plpgsql
as $function$
declare
    found text;
begin
    execute format('create function harbour.tried() returns %s language sql as %L', returned, body);
    select string_agg(review.code, ', ')
    into found
    from tenancy.review_breaks as review
    where review.object = 'harbour.tried()' and review.severity = 'breaks';
    drop function harbour.tried();
    return found;
end
$function$;
select is(pg_temp.of_answer('delete from harbour.ships returning *'), 'function_row_shape', 'whole rows that are deleted are too many columns');
select is(pg_temp.of_answer('update harbour.ships set name = name returning *'), 'function_row_shape', 'or changed');
select is(pg_temp.of_answer('update harbour.ships set name = name returning id, user_id, name'), null, 'those that are named are not');
select is(pg_temp.of_answer('select * from harbour.ships', 'setof harbour.short'), 'function_row_shape', 'a type of its own has the columns that it has');
select is(pg_temp.of_answer('select * from harbour.ships', 'setof harbour.long'), null, 'org_id, if it has that');
select is(pg_temp.of_answer('with s as (select * from harbour.ships) select * from s'), 'function_row_shape', 'all columns of a query of all columns');
select is(pg_temp.of_answer('with s as (select id, user_id, name from harbour.ships) select * from s'), null, 'unless that names them');

-- Jobs.
create schema if not exists cron;
create table if not exists cron.job (jobid bigserial primary key, schedule text, command text, jobname text, username text default current_user);
create function harbour.inner_beat()
returns void
language sql
as $function$ insert into harbour.ships (name) values ('beat') $function$;
create function harbour.outer_beat()
returns void
language sql
as $function$ select harbour.inner_beat() $function$;
create function harbour.idle()
returns void
language sql
as $function$ select null $function$;
create function pg_temp.of_job(command text)
returns text
language plpgsql
as $function$
declare
    found text;
begin
    insert into cron.job (schedule, command, jobname) values ('@daily', command, 'harbour tried');
    select string_agg(review.problem, ', ') into found from tenancy.review_breaks as review where review.object = 'harbour tried';
    delete from cron.job where jobname = 'harbour tried';
    return found;
end
$function$;
select is(pg_temp.of_job('select harbour.idle()'), null, 'a job that calls what touches nothing is none');
select matches(pg_temp.of_job('select harbour.outer_beat()'), 'without org_id, by harbour\.inner_beat\(\)', 'what it calls may call what inserts');
select matches(pg_temp.of_job('do $x$ begin delete from harbour.ships; end $x$'), 'rows of all organizations', 'what DO runs is read');
select is(pg_temp.of_job('do $x$ begin perform $$ delete from harbour.ships $$; end $x$'), null, 'and text in that is text');

select * from finish();
rollback;
