begin;
set local role postgres;
set local search_path = public, extensions;
select plan(26);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where jsonb_typeof(raw_app_meta_data) = 'object';
create schema harbour;
create table harbour.ships (id uuid primary key default gen_random_uuid(), user_id uuid, name text);
create table harbour.tugs (id uuid primary key default gen_random_uuid(), user_id uuid);
create table harbour.crews (id uuid primary key default gen_random_uuid(), user_id uuid);
create table harbour.members (user_id uuid, name text);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'tugs', 'org', 'secondary', null),
    ('harbour', 'crews', 'org', 'secondary', null),
    ('harbour', 'members', 'excluded', null, 'a test');
create function harbour.launch(of_user uuid)
returns void
language sql
as $function$ insert into harbour.ships (user_id) values (of_user) $function$;
create function harbour.welcome()
returns trigger
language plpgsql
as $function$ begin insert into harbour.members (user_id) values (new.id); return new; end $function$;
create function harbour.touch()
returns trigger
language plpgsql
as $function$ begin return new; end $function$;
create trigger welcome after insert on auth.users for each row execute function harbour.welcome();
create function pg_temp.writes()
returns text
language sql
as $function$
    select string_agg(format('%s %s', trigger_name, relation), ', ' order by trigger_name, relation::text)
    from org_migration.sign_up_writes
    where relation::text like 'harbour.%'
$function$;

select is(pg_temp.writes(), null, 'a trigger that writes to an excluded table alone is none');
create or replace function harbour.welcome()
returns trigger
language plpgsql
as $function$
begin
    -- insert into harbour.ships (user_id) values (new.id);
    perform 1 from harbour.ships;
    return new;
end
$function$;
select is(pg_temp.writes(), null, 'nor is one that reads, or that says it in a comment');
create or replace function harbour.welcome()
returns trigger
language plpgsql
as $function$ begin INSERT INTO "harbour" . "ships"(user_id) VALUES (new.id); return new; end $function$;
select is(pg_temp.writes(), 'welcome harbour.ships', 'one that inserts into an org-scoped table is one, in whatever spelling');
create or replace function harbour.welcome()
returns trigger
language plpgsql
as $function$ begin perform harbour.launch(new.id); return new; end $function$;
select is(pg_temp.writes(), 'welcome harbour.ships', 'also through a function that it calls');
create or replace function harbour.welcome()
returns trigger
language plpgsql
as $function$ begin insert into harbour.members (user_id) values (new.id); return new; end $function$;
create function harbour.follow()
returns trigger
language plpgsql
as $function$ begin insert into harbour.tugs (user_id) values (new.user_id); return new; end $function$;
create trigger follow after insert on harbour.members for each row execute function harbour.follow();
select is(pg_temp.writes(), 'welcome harbour.tugs', 'and through a trigger of a table that it writes to');
alter table harbour.members disable trigger follow;
create trigger on_update after update on harbour.members for each row execute function harbour.follow();
drop trigger follow on harbour.members;
select is(pg_temp.writes(), null, 'unless that is for updates');
create trigger follow after insert on harbour.members for each row execute function harbour.follow();
-- By EXECUTE, views, rules, and tables beside auth.users.
create function pg_temp.of_welcome(body text)
returns text
language plpgsql
as $function$
begin
    execute format('create or replace function harbour.welcome() returns trigger language plpgsql as %L', format('begin %s; return new; end', body));
    return (
        select string_agg(concat(relation, case when is_guess then ' probably' end), ', ' order by relation::text)
        from org_migration.sign_up_writes
        where trigger_name = 'welcome' and relation::text like 'harbour.%'
    );
end
$function$;
select is(
    pg_temp.of_welcome('execute ''insert into harbour.ships (user_id) values ($1)'' using new.id'), 'harbour.ships probably', 'what EXECUTE is given is read'
);
select is(
    pg_temp.of_welcome('execute format(''insert into %I.%I (user_id) values (%L)'', ''harbour'', ''ships'', new.id)'), 'harbour.ships probably',
    'also where the table is named beside it'
);
select is(
    pg_temp.of_welcome('execute format(''analyze %I.%I'', ''harbour'', ''ships'')'), null, 'unless that does not insert'
);
select is(
    pg_temp.of_welcome('raise notice ''insert into harbour.ships (user_id)'''), null, 'without EXECUTE text is text'
);
create view harbour.fleet as select id, user_id from harbour.ships;
select is(pg_temp.of_welcome('insert into harbour.fleet (user_id) values (new.id)'), 'harbour.ships probably', 'an insert into a view goes to its table');
create function harbour.instead()
returns trigger
language plpgsql
as $function$ begin insert into harbour.crews (user_id) values (new.user_id); return new; end $function$;
create trigger instead instead of insert on harbour.fleet for each row execute function harbour.instead();
select matches(
    pg_temp.of_welcome('insert into harbour.fleet (user_id) values (new.id)'), '^harbour.crews', 'or to where its INSTEAD OF trigger puts it'
);
drop trigger instead on harbour.fleet;
create rule instead as on insert to harbour.fleet do instead insert into harbour.tugs (user_id) values (new.user_id);
select matches(pg_temp.of_welcome('insert into harbour.fleet (user_id) values (new.id)'), 'harbour.tugs', 'or to where its rule does');
select is(pg_temp.of_welcome('perform from harbour.fleet'), null, 'reading a view writes nothing');
create function harbour.remember()
returns trigger
language plpgsql
as $function$ begin insert into harbour.crews (user_id) values (new.user_id); return new; end $function$;
create trigger remember after insert on auth.identities for each row execute function harbour.remember();
select is(pg_temp.writes(), 'remember harbour.crews', 'a trigger on auth.identities fires when somebody signs up, too');
create or replace function harbour.remember()
returns trigger
language plpgsql
as $function$ begin return new; end $function$;
create trigger on_update_too after update on harbour.members for each row execute function harbour.instead();
select is(
    pg_temp.of_welcome('update harbour.members set name = new.email'), 'harbour.crews, harbour.tugs', 'and those on what it updates, once it does that'
);
drop trigger on_update_too on harbour.members;
create or replace function harbour.welcome()
returns trigger
language plpgsql
as $function$ begin insert into harbour.members (user_id) values (new.id); return new; end $function$;
create trigger touch after update on auth.users for each row execute function harbour.follow();
create trigger before_all before insert on auth.users for each row execute function harbour.touch();
select is(
    pg_temp.writes(),
    'touch harbour.tugs, welcome harbour.tugs',
    'also one for updates of users, as some write when the address is confirmed; one that writes nothing is none'
);
create or replace function harbour.touch()
returns trigger
language plpgsql
as $function$
begin
    merge into harbour.crews using (select new.id) as source (id) on crews.user_id = source.id
    when not matched then insert (user_id) values (source.id);
    return new;
end
$function$;
select is(pg_temp.writes(), 'before_all harbour.crews, touch harbour.tugs, welcome harbour.tugs', 'a merge before the insert is one');

-- What follows from it.
create function pg_temp.found()
returns text
language sql
as $function$
    select string_agg(format('%s %s %s', code, severity, object), ', ' order by code, object)
    from org_migration.sign_up_findings
    where (table_name like 'harbour.%' or table_name is null) and code <> 'organizations_trigger_privilege'
$function$;
select is(pg_temp.found(), null, 'without a mapping all new users are in the default organization, and nothing is to be chosen');
insert into tenancy.user_orgs (user_id, org_id)
select '00000000-0000-4000-8000-000000000099', default_org_id
from tenancy.settings;
select is(
    pg_temp.found(),
    'new_users_unset stops before_all, new_users_unset stops touch, new_users_unset stops welcome',
    'with one the push stops until it is chosen which organization they are in'
);
select throws_matching(
    $$ select tenancy.assert_registry() $$,
    'harbour\.tugs gets a row from the trigger welcome when somebody signs up, [^\n]+enable_new_users[^\n]+\[new_users_unset\]',
    'and says where'
);
update tenancy.settings set new_users = 'default';
select is(
    (select count(*)::integer from tenancy.foundation_findings where code = 'new_users_without_trigger'),
    (
        select count(*)::integer
        from tenancy.settings
        where not exists (
            select from pg_trigger
            where tgrelid = 'auth.users'::regclass and tgfoid = 'tenancy.set_org_of_new_user'::regproc and tgenabled in ('O', 'A')
        )
    ),
    'a choice that no trigger carries out is a finding'
);
select tenancy.enable_new_users('personal');
select is(pg_temp.found(), null, 'once it is, nothing is left');
insert into auth.users (instance_id, id, aud, role, raw_app_meta_data, is_anonymous)
select
    '00000000-0000-0000-0000-000000000000', '00000000-0000-4000-8000-000000000001', 'authenticated', 'authenticated',
    jsonb_build_object('org_id', default_org_id), true
from tenancy.settings;
select is(
    pg_temp.found(),
    'anonymous_users_unset breaks before_all, anonymous_users_unset breaks touch, anonymous_users_unset breaks welcome',
    'anonymous users, where there are any, have to be thought of'
);
select tenancy.enable_new_users('personal', true);
select is(pg_temp.found(), null, 'and are');
select tenancy.enable_new_users('application');
select is(pg_temp.found(), null, 'where the application places them it answers for them too');

select * from finish();
rollback;
