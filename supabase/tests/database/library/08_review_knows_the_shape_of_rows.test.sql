begin;
set local role postgres;
set local search_path = public, extensions;
select plan(70);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- Some of the functions would break at once.
set local check_function_bodies = off;
create schema harbour;
create table harbour.ships (id uuid, user_id uuid, name text);
create table harbour.tugs (id uuid, user_id uuid, name text);
create table harbour.ships_old (id uuid, user_id uuid, name text);
create table harbour.ships_log (id uuid, user_id uuid, name text, at timestamptz);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'tugs', 'org', 'secondary', null),
    ('harbour', 'ships_old', 'excluded', null, 'a test'),
    ('harbour', 'ships_log', 'excluded', null, 'a test');

create temporary table tried (what text, code text, returned text, language text, body text, events text, number integer generated always as identity);
insert into tried (what, code, returned, language, body)
values
    ('what EXECUTE is given copies whole rows', 'whole_rows_copied', 'void', 'plpgsql', 'begin execute ''insert into harbour.ships_log select *, now() from harbour.ships''; end'),
    ('or columns', null, 'void', 'plpgsql', 'begin execute ''insert into harbour.ships_log (id) select id from harbour.ships''; end'),
    ('RETURN QUERY EXECUTE answers with whole rows', 'function_row_shape', 'short', 'plpgsql', 'begin return query execute ''select * from harbour.ships''; end'),
    ('with format too', 'function_row_shape', 'short', 'plpgsql', 'begin return query execute format($x$select * from harbour.ships where name = %L$x$, ''x''); end'),
    ('or with columns', null, 'short', 'plpgsql', 'begin return query execute ''select id, user_id, name from harbour.ships''; end'),
    ('of which a row of the table has one more', 'function_row_shape', 'setof harbour.ships', 'plpgsql', 'begin return query execute ''select id, user_id, name from harbour.ships''; end'),
    ('UNION of a table and its archive has one column more on one side', 'function_row_shape', 'void', 'sql', 'select * from harbour.ships union all select * from harbour.ships_old'),
    ('on whichever side', 'function_row_shape', 'void', 'sql', 'select * from harbour.ships_old where name <> lower(name) union all select * from harbour.ships'),
    ('in a subquery, with EXCEPT', 'function_row_shape', 'bigint', 'sql', 'select count(*) from (select * from harbour.ships except select * from harbour.ships_old) as gone'),
    ('in a loop, with columns', 'function_row_shape', 'void', 'plpgsql', 'declare r record; begin for r in select * from harbour.ships union select id, user_id, name from harbour.ships_old loop null; end loop; end'),
    ('but two org-scoped tables get a column each', null, 'void', 'sql', 'select * from harbour.ships union all select * from harbour.tugs'),
    ('and columns that are named stay as many', null, 'void', 'sql', 'select id, name from harbour.ships union all select id, name from harbour.ships_old'),
    ('all columns of a subquery of all columns', 'function_row_shape', 'short', 'sql', 'select d.* from (select * from harbour.ships) as d'),
    ('with aliases', 'function_row_shape', 'short', 'sql', 'select d.* from (select s.* from harbour.ships s where s.name is not null) d'),
    ('or of a query under WITH', 'function_row_shape', 'short', 'sql', 'with d as (select * from harbour.ships) select d.* from d'),
    ('unless the subquery names them', null, 'short', 'sql', 'select d.* from (select id, user_id, name from harbour.ships) as d'),
    ('or the query under WITH, even with the table''s name', null, 'short', 'sql', 'with ships as (select id, user_id, name from harbour.ships) select * from ships'),
    ('also with a schema before that', null, 'short', 'sql', 'with ships as materialized (select id, user_id, name from ships) select ships.* from ships'),
    ('an archive gets whole rows', 'whole_rows_copied', 'void', 'sql', 'insert into harbour.ships_old select * from harbour.ships'),
    ('in parentheses', 'whole_rows_copied', 'void', 'sql', 'insert into harbour.ships_old (select * from harbour.ships)'),
    ('by TABLE', 'whole_rows_copied', 'void', 'sql', 'insert into harbour.ships_old table harbour.ships'),
    ('of one of two tables', 'whole_rows_copied', 'void', 'sql', 'insert into harbour.ships_old select s.* from harbour.ships s join harbour.tugs t using (id)'),
    ('but not by the other', null, 'void', 'sql', 'insert into harbour.ships_old select o.* from harbour.ships_old o join harbour.ships using (id)'),
    ('by a query under WITH', 'whole_rows_copied', 'void', 'sql', 'with s as (select * from harbour.ships) insert into harbour.ships_log select s.*, now() from s'),
    ('into columns that are listed', 'whole_rows_copied', 'void', 'sql', 'with s as (select * from harbour.ships) insert into harbour.ships_old (id, user_id, name) select * from s'),
    ('unless that names them', null, 'void', 'sql', 'with s as (select id, user_id, name from harbour.ships) insert into harbour.ships_old (id, user_id, name) select * from s'),
    ('by what is deleted', 'whole_rows_copied', 'void', 'sql', 'with gone as (delete from harbour.ships returning *) insert into harbour.ships_log select *, now() from gone'),
    ('by a table of the session', 'whole_rows_copied', 'void', 'plpgsql', 'begin create temp table kept on commit drop as select * from harbour.ships; insert into harbour.ships_old select * from kept; end'),
    ('which may have columns that are named', null, 'void', 'plpgsql', 'begin create temp table kept as select id, user_id, name from harbour.ships; insert into harbour.ships_old select * from kept; end'),
    ('by the record of a loop', 'whole_rows_copied', 'void', 'plpgsql', 'declare r record; begin for r in select * from harbour.ships loop insert into harbour.ships_old values (r.*); end loop; end'),
    ('of the table''s own type', 'whole_rows_copied', 'void', 'plpgsql', 'declare r harbour.ships; begin for r in select * from harbour.ships loop insert into harbour.ships_old values (r.*); end loop; end'),
    ('but not of another type', null, 'void', 'plpgsql', 'declare r harbour.ships_old; begin for r in select * from harbour.ships loop insert into harbour.ships_old values (r.*); end loop; end'),
    ('TABLE answers with whole rows', 'function_row_shape', 'short', 'sql', 'table harbour.ships'),
    ('also in plpgsql', 'function_row_shape', 'short', 'plpgsql', 'begin return query table harbour.ships; end'),
    ('a row that is made of columns lacks one', 'function_row_shape', 'setof harbour.ships', 'sql', 'select row(id, user_id, lower(name))::harbour.ships from harbour.ships_old'),
    ('when it is returned', 'function_row_shape', 'harbour.ships', 'plpgsql', 'begin return row(gen_random_uuid(), null, null)::harbour.ships; end'),
    ('unless it has org_id', null, 'harbour.ships', 'plpgsql', 'begin return row(gen_random_uuid(), null, null, org_id)::harbour.ships; end'),
    ('and of another table it lacks nothing', null, 'harbour.ships_old', 'plpgsql', 'begin return row(gen_random_uuid(), null, null)::harbour.ships_old; end'),
    ('a query under WITH of one of all columns has them all', 'function_row_shape', 'short', 'sql', 'with a as (select * from harbour.ships), b as (select * from a where name is not null) select * from b'),
    ('unless the second names them', null, 'short', 'sql', 'with a as (select * from harbour.ships), b as (select id, user_id, name from a) select * from b'),
    ('so does one that is joined LATERAL', 'function_row_shape', 'short', 'sql', 'select s.* from harbour.tugs as t cross join lateral (select * from harbour.ships where ships.id = t.id) as s'),
    ('whole rows as record are listed at the call', 'function_row_shape', 'setof record', 'sql', 'select * from harbour.ships'),
    ('also by RETURN QUERY', 'function_row_shape', 'setof record', 'plpgsql', 'begin return query select * from harbour.ships; end'),
    ('unless they are named', null, 'setof record', 'sql', 'select id, name from harbour.ships'),
    ('a variable gets a whole row and gives it to an archive', 'whole_rows_copied', 'void', 'plpgsql', 'declare r harbour.ships; begin select * into r from harbour.ships limit 1; insert into harbour.ships_old values (r.*); end'),
    ('with INTO at the end', 'whole_rows_copied', 'void', 'plpgsql', 'declare r record; begin select s.* from harbour.ships s where name is not null into strict r; insert into harbour.ships_old select r.*; end'),
    ('by RETURNING', 'whole_rows_copied', 'void', 'plpgsql', 'declare r harbour.ships; begin delete from harbour.ships where name = user_id::text returning * into r; insert into harbour.ships_log select r.*, now(); end'),
    ('unless its columns are named', null, 'void', 'plpgsql', 'declare r harbour.ships; begin select * into r from harbour.ships limit 1; insert into harbour.ships_old values (r.id, r.user_id, r.name); end'),
    ('a table of the session that is made like it gets the same', null, 'void', 'plpgsql', 'begin create temp table kept (like harbour.ships) on commit drop; insert into kept select * from harbour.ships; end'),
    ('a row that is made of JSON has all columns', 'function_row_shape', 'short', 'sql', 'select (jsonb_populate_record(null::harbour.ships, ''{}'')).*'),
    ('also by RETURN QUERY, of several', 'function_row_shape', 'short', 'plpgsql', 'begin return query select (json_populate_recordset(null::ships, ''[]'')).*; end'),
    ('with CAST', 'function_row_shape', 'short', 'sql', 'select (jsonb_populate_record(cast(null as harbour.ships), ''{}'')).*'),
    ('unless they are named', null, 'short', 'sql', 'select made.id, made.user_id, (jsonb_populate_record(null::harbour.ships, ''{}'')).name from jsonb_populate_record(null::harbour.ships, ''{}'') as made'),
    ('or it is one of a table without org_id', null, 'short', 'sql', 'select (jsonb_populate_record(null::harbour.ships_old, ''{}'')).*'),
    ('so has the row of a table in parentheses', 'function_row_shape', 'short', 'sql', 'select (s).* from harbour.ships as s'),
    ('or a variable', 'function_row_shape', 'short', 'plpgsql', 'declare r harbour.ships; begin select * into r from harbour.ships limit 1; return query select r.*; end'),
    ('unless it is one of another table', null, 'short', 'plpgsql', 'declare r harbour.ships_old; begin select * into r from harbour.ships_old limit 1; return query select (r).*; end'),
    ('but not one that is made like its archive', 'whole_rows_copied', 'void', 'plpgsql', 'begin create temp table kept (like harbour.ships_old) on commit drop; insert into kept select * from harbour.ships; end');
insert into tried (what, code, language, body, events)
values
    ('a trigger for statements has whole rows', 'whole_rows_copied', 'plpgsql', 'insert into harbour.ships_log select *, now() from gone', 'delete on harbour.ships referencing old table as gone'),
    ('also with an alias', 'whole_rows_copied', 'plpgsql', 'insert into harbour.ships_log select g.*, now() from gone as g', 'delete on harbour.ships referencing old table as gone'),
    ('of new rows', 'whole_rows_copied', 'plpgsql', 'insert into harbour.ships_old select * from come', 'insert on harbour.ships referencing new table as come'),
    ('a trigger that makes the new row column by column lacks one', 'function_row_shape', 'plpgsql', 'new := row(new.id, new.user_id, upper(coalesce(new.name, ''x'')))', 'insert on harbour.ships'),
    ('also without ROW', 'function_row_shape', 'plpgsql', 'new := (new.id, new.user_id, upper(new.name))::harbour.ships', 'update on harbour.ships'),
    ('unless it sets a column', null, 'plpgsql', 'new.name := (coalesce(new.name, ''x'') || new.id)', 'update on harbour.ships'),
    ('or is one of a table without org_id', null, 'plpgsql', 'new := (new.id, new.user_id, upper(new.name))', 'insert on harbour.ships_old'),
    ('unless it names the columns', null, 'plpgsql', 'insert into harbour.ships_log (id, at) select id, now() from gone', 'delete on harbour.ships referencing old table as gone'),
    ('or is one of a table without org_id', null, 'plpgsql', 'insert into harbour.ships_old select * from gone', 'delete on harbour.ships_old referencing old table as gone');

create function pg_temp.make(tried)
returns void
language plpgsql
as $function$
begin
    execute format(
        'create function harbour.tried_%s() returns %s language %s set search_path = harbour as %L', $1.number,
        case when $1.events is not null then 'trigger' else replace($1.returned, 'short', 'table (id uuid, user_id uuid, name text)') end, $1.language,
        case when $1.events is not null then format('begin %s; return null; end', $1.body) else $1.body end
    );
    if $1.events is not null then
        execute format('create trigger tried_%1$s after %2$s for each statement execute function harbour.tried_%1$s()', $1.number, $1.events);
    end if;
end
$function$;
select is(count(pg_temp.make(tried)), 67::bigint, 'the functions are there')
from tried;

create function harbour.all_of(s harbour.ships) returns table (id uuid, user_id uuid, name text) language sql as 'select s.*';
create function harbour.some_of(s harbour.ships) returns table (id uuid, user_id uuid, name text) language sql as 'select s.id, s.user_id, s.name';

create temporary table found as
select object, string_agg(distinct code, ', ') as codes, bool_and(problem like 'probably %') as is_probably
from tenancy.review_breaks
where object like 'harbour.%' and severity = 'breaks'
group by object;
select is(found.codes, tried.code, tried.what)
from tried
left join found on found.object = format('harbour.tried_%s()', tried.number)
order by tried.number;
select results_eq(
    $$ select object collate "default", codes collate "default" from found where object like '%_of(harbour.ships)' $$,
    $$ values ('harbour.all_of(harbour.ships)', 'function_row_shape') $$,
    'an argument that is a row has all columns, unless they are named'
);
select is_empty($$ select * from found where not is_probably $$, 'what is found in text is probably so');

select * from finish();
rollback;
