begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id uuid primary key, user_id uuid references auth.users (id), name text);
create table harbour.logs (id bigint generated always as identity primary key, user_id uuid references auth.users (id), what text);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary'), ('harbour', 'logs', 'org', 'secondary');
delete from tenancy.user_orgs;
insert into tenancy.user_orgs (user_id, org_id) select gen_random_uuid(), default_org_id from tenancy.settings;

-- What the review says of a trigger that logs by this statement.
create function pg_temp.of_trigger(statement text, on_table text default 'harbour.ships')
returns text
language plpgsql
as $function$
declare
    found text;
begin
    execute format(
        'create function harbour.log() returns trigger language plpgsql security definer set search_path = '''' as %L', format('begin %s; return null; end', statement)
    );
    execute format('create trigger log after insert or update on %s for each row execute function harbour.log()', on_table);
    select string_agg(concat_ws(' ', review.severity, (regexp_match(review.problem, 'of nobody'))[1]), ', ')
    into found
    from tenancy.review_breaks as review
    where review.object = 'harbour.log()' and review.table_name = 'harbour.logs';
    drop function harbour.log() cascade;
    return found;
end
$function$;
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what) values (auth.uid(), new.name)'), 'breaks of nobody',
    'a row of who is signed in is one of nobody where that is a service'
);
select is(
    pg_temp.of_trigger('insert into harbour.logs (what) values (new.name)'), 'breaks of nobody', 'and so is a row that names nobody'
);
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what) values (new.user_id, new.name)'), 'decide', 'a row of the owner has an organization'
);
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what) values (coalesce(auth.uid(), new.user_id), new.name)'), 'decide', 'also where that is the last resort'
);
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what, org_id) values (auth.uid(), new.name, new.org_id)'), null, 'one that names org_id is right'
);
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what) values (auth.uid(), new.email)', 'auth.users'), 'decide', 'who signs up is somebody'
);
create function harbour.log_by_hand()
returns void
language sql
as $function$ insert into harbour.logs (user_id, what) values (auth.uid(), 'by hand') $function$;
select is(
    (select severity from tenancy.review_breaks where object = 'harbour.log_by_hand()'), 'decide', 'who calls a function may be signed in'
);
delete from tenancy.user_orgs;
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what) values (auth.uid(), new.name)'), 'decide', 'with one organization a row of nobody is of that'
);
insert into tenancy.user_orgs (user_id, org_id) select gen_random_uuid(), default_org_id from tenancy.settings;
alter table harbour.logs alter column user_id set not null;
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, what) values (auth.uid(), new.name)'), 'decide', 'where nobody is no owner nothing changes'
);
alter table harbour.logs alter column user_id drop not null, add column ship_id uuid references harbour.ships (id);
select is(
    pg_temp.of_trigger('insert into harbour.logs (user_id, ship_id) values (auth.uid(), new.id)'), 'decide', 'and a row that follows another has its organization'
);
alter table harbour.logs drop column ship_id;

-- It is so.
create function harbour.log()
returns trigger
language plpgsql
security definer
set search_path = ''
as $function$ begin insert into harbour.logs (user_id, what) values (auth.uid(), new.name); return null; end $function$;
create trigger log after insert on harbour.ships for each row execute function harbour.log();
select isnt_empty($$ select tenancy.onboard('harbour.ships'), tenancy.onboard('harbour.logs') $$, 'both get org_id');
select throws_ok(
    $$ insert into harbour.ships (id, org_id, name) select gen_random_uuid(), default_org_id, 'Argo' from tenancy.settings $$, '23502', null,
    'and what a service inserts is refused'
);

select * from finish();
rollback;
