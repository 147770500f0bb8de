begin;
set local role postgres;
set local search_path = public, extensions;
select plan(67);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
create schema dock;
grant usage on schema harbour, dock to anon, authenticated, service_role;
create table harbour.ships (id uuid primary key, user_id uuid, org_id uuid, name text);
create table harbour.cargo (id uuid primary key, user_id uuid, org_id uuid);
create table harbour.lighthouses (id uuid primary key, user_id uuid, name text);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'cargo', 'org', 'secondary', null),
    ('harbour', 'lighthouses', 'excluded', null, 'a test');
alter table harbour.ships enable row level security;
alter table harbour.cargo enable row level security;

-- What the review says of a view by its query.
create function pg_temp.of_view(query text)
returns text
language plpgsql
as $function$
declare
    found text;
begin
    execute 'create view harbour.tried as ' || query;
    grant select on harbour.tried to authenticated;
    select string_agg(concat_ws(' ', review.severity, review.table_name), ', ' order by review.table_name)
    into found
    from tenancy.review_leaks as review
    where review.object = 'harbour.tried';
    drop view harbour.tried;
    return found;
end
$function$;
select is(pg_temp.of_view('select id from harbour.ships where user_id = auth.uid()'), 'decide harbour.ships', 'a view whose rows who asks decides is to be looked at');
select is(pg_temp.of_view('select id, auth.uid() as me from harbour.ships'), 'leaks harbour.ships', 'one that only shows who asks leaks');
select is(pg_temp.of_view('select id from harbour.ships where user_id <> auth.uid()'), 'leaks harbour.ships', 'so does one of everybody else''s rows');
select is(pg_temp.of_view('select id from harbour.ships where user_id <> (select auth.uid())'), 'leaks harbour.ships', 'in a subquery too');
select is(pg_temp.of_view('select id from harbour.ships where user_id is distinct from auth.uid()'), 'leaks harbour.ships', 'however it says so');
select is(
    pg_temp.of_view('select id, exists (select from harbour.lighthouses as own where own.user_id = auth.uid()) as own from harbour.ships'),
    'leaks harbour.ships', 'also in a query of a column'
);
select is(pg_temp.of_view('select id from harbour.ships where auth.uid() is not null and (name is not null)'), 'leaks harbour.ships', 'or asks for any user');
select is(
    pg_temp.of_view('select id from harbour.ships where user_id = auth.uid() and (name is not null)'), 'decide harbour.ships',
    'which is something else than a column that is not null'
);
select is(
    pg_temp.of_view('select id from harbour.ships where user_id = auth.uid() union select id from harbour.cargo'),
    'leaks harbour.cargo, leaks harbour.ships', 'or in one query of a union'
);
select is(
    pg_temp.of_view('select ships.id from harbour.ships join harbour.cargo on cargo.user_id = (select auth.uid())'),
    'decide harbour.cargo, decide harbour.ships', 'a join chooses rows too'
);
select is(
    pg_temp.of_view('select ships.id from harbour.ships left join harbour.lighthouses as own on own.user_id = auth.uid()'),
    'leaks harbour.ships', 'an outer join does not'
);
select is(
    pg_temp.of_view('select ships.id from harbour.ships left join harbour.lighthouses as lit on lit.id = ships.id where ships.user_id = auth.uid()'),
    'decide harbour.ships', 'whatever is asked after it'
);
select is(pg_temp.of_view('select id from harbour.ships where user_id = auth.uid() or name is null'), 'leaks harbour.ships', 'nor does one arm of an OR');
select is(pg_temp.of_view('with own as (select id from harbour.ships where user_id = auth.uid()) select id from own'), 'decide harbour.ships', 'and a query under WITH');
select is(pg_temp.of_view('select id from harbour.ships where org_id = (select public.auth_org_id())'), null, 'by organization it is right');

select is_empty($$ select from tenancy.review where code = 'auth_org_id_reads_more' $$, 'the shipped auth_org_id() reads the token alone');
create or replace function public.auth_org_id() returns uuid language sql stable as
$$ select coalesce(current_setting('request.jwt.claims', true)::jsonb #>> '{app_metadata,org_id}', current_setting('app.org', true))::uuid $$;
select isnt_empty($$ select from tenancy.review where code = 'auth_org_id_reads_more' and severity = 'leaks' $$, 'one that reads another setting is named');

select is(pg_temp.of_view('select id from harbour.ships where public.auth_org_id() = org_id'), null, 'in either order');
select is(pg_temp.of_view('select id, public.auth_org_id() as org from harbour.ships'), 'leaks harbour.ships', 'but not if it only shows the organization');

-- What it says of a function.
create function pg_temp.of_function(body text, options text default '')
returns text
language plpgsql
as $function$
declare
    found text;
begin
    execute format('create function harbour.tried(what uuid) returns setof uuid language plpgsql security definer %s as %L', options, body);
    select string_agg(concat_ws(' ', review.severity, review.table_name), ' and ' order by review.table_name)
    into found
    from tenancy.review_leaks as review
    where review.object = 'harbour.tried(uuid)';
    drop function harbour.tried(uuid);
    return found;
end
$function$;
select is(pg_temp.of_function('begin return query select id from harbour.lighthouses; end'), null, 'a function of other tables is none');
select is(
    pg_temp.of_function('begin return query select ships.id from harbour.ships, harbour.cargo; end'), 'leaks harbour.cargo, harbour.ships',
    'one that reads several tables is one finding'
);
select is(pg_temp.of_function('begin return query select id from harbour.ships where user_id = auth.uid(); end'), 'decide harbour.ships', 'whose rows who asks decides is to be looked at');
select is(
    pg_temp.of_function('declare me constant uuid := auth.uid(); begin return query select id from harbour.ships where user_id = me; end'), 'decide harbour.ships',
    'by a variable too'
);
select is(
    pg_temp.of_function('declare me uuid; begin select auth.uid() into me; return query select id from harbour.ships where me = user_id; end'),
    'decide harbour.ships', 'however it is set'
);
select is(
    pg_temp.of_function('begin if not exists (select from harbour.ships where id = what and user_id = (select auth.uid())) then return; end if; delete from harbour.ships where id = what; end'),
    'decide harbour.ships', 'or before it writes'
);
select is(
    pg_temp.of_function('begin if auth.uid() is null then return; end if; delete from harbour.ships where id = what; end'), 'leaks harbour.ships',
    'that somebody asks is not enough'
);
select is(
    pg_temp.of_function('begin insert into harbour.lighthouses (id, user_id) values (what, auth.uid()); return query select id from harbour.ships; end'),
    'leaks harbour.ships', 'nor is what it writes elsewhere'
);
select is(pg_temp.of_function('begin return query select auth.uid() from harbour.ships; end'), 'leaks harbour.ships', 'or shows');
create function harbour.may_see(by_whom uuid)
returns boolean
language sql
as $function$ select true $function$;
create function harbour.note(by_whom uuid)
returns void
language sql
as $function$ select null $function$;
select is(
    pg_temp.of_function('begin if harbour.may_see(auth.uid()) then return query select id from harbour.ships; end if; end'), 'decide harbour.ships',
    'a function that says true or false may be the check'
);
select is(
    pg_temp.of_function('begin perform harbour.note(auth.uid()); return query select id from harbour.ships; end'), 'leaks harbour.ships', 'another is none'
);
create function harbour.is_captain(ship uuid)
returns boolean
language sql
as $function$ select exists (select from harbour.lighthouses where id = ship and user_id = auth.uid()) $function$;
create function harbour.assert_captain(ship uuid)
returns void
language plpgsql
as $function$ begin if not harbour.is_captain(ship) then raise exception 'no captain'; end if; end $function$;
create function harbour.note_captain(ship uuid)
returns void
language sql
as $function$ insert into harbour.lighthouses (id) select ship where ship <> auth.uid() $function$;
create function harbour.assert_user()
returns void
language plpgsql
as $function$ begin if auth.uid() is null then raise exception 'sign in'; end if; end $function$;
select is(
    pg_temp.of_function('begin if not harbour.is_captain(what) then return; end if; return query select id from harbour.ships; end'), 'decide harbour.ships',
    'one that looks at who calls by itself too'
);
select is(
    pg_temp.of_view('select id from harbour.ships where harbour.is_captain(id)'), 'decide harbour.ships', 'a view may ask it too'
);
select is(
    pg_temp.of_view('select id, harbour.is_captain(id) as mine from harbour.ships'), 'leaks harbour.ships', 'but not only show what it says'
);
select is(
    pg_temp.of_view('select id from harbour.ships where harbour.is_captain(id) or name = ''x'''), 'leaks harbour.ships', 'nor in an arm of an OR'
);
select is(
    pg_temp.of_function('begin perform harbour.assert_captain(what); return query select id from harbour.ships; end'), 'decide harbour.ships',
    'or one that raises, by another'
);
select is(
    pg_temp.of_function('begin perform harbour.note_captain(what); return query select id from harbour.ships; end'), 'leaks harbour.ships', 'one that only writes is none'
);
select is(
    pg_temp.of_function('begin perform harbour.assert_user(); return query select id from harbour.ships; end'), 'leaks harbour.ships',
    'nor one that lets every user pass'
);
select is(
    pg_temp.of_function('begin return query select id from harbour.ships where user_id = any (array[auth.uid()]); end'), 'decide harbour.ships', 'a list is a comparison'
);
select is(
    pg_temp.of_function('begin return query select id from harbour.ships where user_id = nullif(current_setting(''request.jwt.claim.sub'', true), '''')::uuid; end'),
    'decide harbour.ships', 'the token says who calls, however it is read'
);
select is(
    pg_temp.of_function('begin return query select id from harbour.ships where name = current_setting(''harbour.name'', true); end'), 'leaks harbour.ships',
    'another setting does not'
);
select is(pg_temp.of_function('begin return query select id from harbour.ships where org_id = public.auth_org_id(); end'), null, 'by organization it is right');
select is(
    pg_temp.of_function('declare org uuid := public.auth_org_id(); begin return query select id from harbour.ships where org_id = org; end'), null,
    'by a variable too'
);
select is(pg_temp.of_function('begin insert into harbour.ships (id, org_id) values (what, public.auth_org_id()); end'), null, 'and where it only adds rows of it');
select is(pg_temp.of_function('begin return query select public.auth_org_id() from harbour.ships; end'), 'leaks harbour.ships', 'but not if it shows it');

select is(
    pg_temp.of_function('begin if auth.jwt() ->> ''email'' <> ''a@b.c'' then return; end if; return query select id from harbour.ships; end'), 'decide harbour.ships',
    'a claim may be the check'
);
select is(
    pg_temp.of_function('begin if auth.role() <> ''service_role'' then return; end if; return query select id from harbour.ships; end'), 'decide harbour.ships',
    'or the role of the service'
);
select is(
    pg_temp.of_function('begin if auth.role() <> ''authenticated'' then return; end if; return query select id from harbour.ships; end'), 'leaks harbour.ships',
    'which is not every role'
);

-- What it reaches.
create function dock.load()
returns void
language sql
as $function$ delete from harbour.cargo $function$;
create function harbour.load()
returns void
language sql
as $function$ delete from harbour.lighthouses $function$;
select is(pg_temp.of_function('begin perform harbour.load(); end'), null, 'a call is of the function in its schema');
select is(pg_temp.of_function('begin perform dock.load(); end'), 'leaks harbour.cargo', 'not of one in another that bears its name');
select is(pg_temp.of_function('begin perform load(); end', 'set search_path = harbour'), null, 'without schema of the one on the path');
select is(pg_temp.of_function('begin perform load(); end', 'set search_path = dock'), 'leaks harbour.cargo', 'which may be the other');
select is(
    pg_temp.of_function('begin return query with ships as (select id from harbour.lighthouses) select id from ships; end', 'set search_path = harbour'),
    null, 'a query under WITH that bears a table''s name is not the table'
);
select is(
    pg_temp.of_function('begin return query with ships as (select id from ships where true) select id from ships; end', 'set search_path = harbour'),
    'leaks harbour.ships', 'unless it reads that itself'
);
select is(
    pg_temp.of_function('begin return query select l.id from lighthouses as l, ships where true; end', 'set search_path = harbour'),
    'leaks harbour.ships', 'a table may follow a comma'
);
select is(
    pg_temp.of_function('begin return query select l.id from lighthouses as l order by l.name, ships; end', 'set search_path = harbour'),
    null, 'what follows one elsewhere is none'
);

select is(
    pg_temp.of_function('begin return query execute ''select id from harbour.ships where name = $1'' using what; end'), 'leaks harbour.ships', 'what EXECUTE is given is read'
);
select is(pg_temp.of_function('begin raise notice ''select id from harbour.ships''; execute ''select 1''; end'), null, 'other text is not');
select is(pg_temp.of_function('begin return query execute what::text; end'), 'leaks', 'what is put together at run time may read any table: given as it is');
select is(pg_temp.of_function('begin return query execute format(''select id from harbour.%I'', what); end'), 'leaks', 'or with a name to fill in');
select is(pg_temp.of_function('begin return query execute ''select id from harbour.'' || what; end'), 'leaks', 'or to append');
select is(
    pg_temp.of_function('begin return query execute format(''select id from harbour.%I where user_id = auth.uid()'', what) using auth.uid(); perform 1 where what = auth.uid(); end'), 'decide',
    'which is to be looked at where it asks who calls'
);
select is(
    pg_temp.of_function('begin return query execute format(''select id from harbour.%I where org_id = $1'', what) using public.auth_org_id(); end'), null,
    'and passes where it asks for the organization'
);
select is(
    pg_temp.of_function('begin return query execute format(''select id from harbour.lighthouses where name = %L'', what); execute ''grant execute on function f() to anon''; end'), null,
    'a value that is filled in names no table'
);

-- Whose rights it has.
create role harbour_clerk;
grant harbour_clerk to postgres;
grant usage, create on schema harbour to harbour_clerk;
grant select on harbour.ships to harbour_clerk;
create function harbour.of_clerk()
returns bigint
language sql
security definer
as $function$ select count(*) from harbour.ships $function$;
create function pg_temp.of_clerk()
returns text
language sql
as $function$ select string_agg(severity, ', ') from tenancy.review_leaks where object = 'harbour.of_clerk()' $function$;
select is(pg_temp.of_clerk(), 'leaks', 'with the rights of who gets past row-level security it leaks');
alter function harbour.of_clerk() owner to harbour_clerk;
select is(pg_temp.of_clerk(), null, 'with those of a role that does not it leaks nothing');
alter table harbour.ships owner to harbour_clerk;
select is(pg_temp.of_clerk(), 'leaks', 'the owner of the table does');
alter table harbour.ships force row level security;
select is(pg_temp.of_clerk(), null, 'unless that is forced');

select * from finish();
rollback;
