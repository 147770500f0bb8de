begin;
set local role postgres;
set local search_path = public, extensions;
select plan(17);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create schema harbour;
-- One table is written before the user is there, and so has no key to it, and one after.
create table harbour.accounts (id uuid primary key, user_id uuid);
create table harbour.ships (id uuid primary key default gen_random_uuid(), owner_id uuid not null references auth.users (id) on delete cascade);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'accounts', 'org', 'secondary'),
    ('harbour', 'ships', 'org', 'secondary');
create function harbour.open_account()
returns trigger
language plpgsql security definer
as $function$ begin insert into harbour.accounts (id, user_id) values (new.id, new.id); return new; end $function$;
create function harbour.give_ship()
returns trigger
language plpgsql security definer
as $function$ begin insert into harbour.ships (owner_id) values (new.id); return new; end $function$;
create trigger give_ship after insert on auth.users for each row execute function harbour.give_ship();
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
create index on harbour.accounts (org_id);
create index on harbour.ships (org_id);
do $$ begin while tenancy.advance('foreign_key', 'foreign_key_valid', 'foreign_key_root') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid', 'not_null') loop null; end loop; end $$;
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');

create function pg_temp.sign_up(number integer, app_metadata jsonb default '{"provider": "email"}', anonymous boolean default false)
returns void
language sql
as $function$
    -- Each sign-up is a transaction of its own.
    select set_config('tenancy.org_of_sign_up', '', true);
    insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data, is_anonymous)
    values (
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', case when not anonymous then format('ship%s@example.com', number) end, app_metadata, anonymous
    )
$function$;
-- The user's rows and token: the default organization, the one that was sent, one of their own, or none.
create function pg_temp.orgs(number integer)
returns text
language sql
as $function$
    select string_agg(
        case
            when org_id is null then 'none'
            when org_id = (select default_org_id::text from tenancy.settings) then 'default'
            when org_id = 'b0000000-0000-4000-8000-000000000001' then 'one'
            when org_id in (select user_orgs.org_id::text from tenancy.user_orgs where user_orgs.user_id = users.id) then 'own'
            else org_id
        end,
        ' ' order by place
    )
    from auth.users
    cross join lateral (
        select 1, org_id::text from harbour.accounts where accounts.user_id = users.id
        union all
        select 2, org_id::text from harbour.ships where ships.owner_id = users.id
        union all
        select 3, raw_app_meta_data ->> 'org_id'
    ) as held (place, org_id)
    where users.id = format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;

-- Without a mapping.
select pg_temp.sign_up(1);
select is(pg_temp.orgs(1), 'default none', 'while there is one organization, the rows of who signs up are in it');
select pg_temp.sign_up(2, '{"org_id": "b0000000-0000-4000-8000-000000000001"}');
select is(pg_temp.orgs(2), 'one one', 'except of those who come with another');

-- With one.
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000020', 'b0000000-0000-4000-8000-000000000001');
select throws_ok($$ select pg_temp.sign_up(3) $$, '23502', null, 'with a mapping and nothing chosen, a sign-up that writes fails');
select lives_ok($$ select pg_temp.sign_up(20) $$, 'unless the mapping knows the user');
select is(pg_temp.orgs(20), 'one none', 'whose rows are then where it says');

select tenancy.enable_new_users('default');
select pg_temp.sign_up(4);
select is(pg_temp.orgs(4), 'default default', 'default: rows and token are in the default organization');
select tenancy.enable_new_users('application');
select throws_ok($$ select pg_temp.sign_up(5) $$, '23502', null, 'application: nobody else places the user');
select lives_ok($$ select pg_temp.sign_up(6, '{"org_id": "b0000000-0000-4000-8000-000000000001"}') $$, 'and the application can');
select is(pg_temp.orgs(6), 'one one', 'with the claim');

-- One of their own, before any trigger of the application writes.
select tenancy.enable_new_users('personal');
select pg_temp.sign_up(7);
select is(pg_temp.orgs(7), 'own own', 'personal: rows and token are in an organization of the user''s own');
create trigger open_account before insert on auth.users for each row execute function harbour.open_account();
select pg_temp.sign_up(8);
select is(pg_temp.orgs(8), 'own own own', 'also the rows that are written before the user is there');
select pg_temp.sign_up(10, '{"org_id": "b0000000-0000-4000-8000-000000000001"}');
select is(pg_temp.orgs(10), 'one one one', 'or in the one that the user comes with');
select tenancy.enable_new_users('default');
select pg_temp.sign_up(11);
select is(pg_temp.orgs(11), 'default default default', 'or in the default one');
insert into tenancy.user_orgs (user_id, org_id) values ('00000000-0000-4000-8000-000000000012', null);
select throws_ok($$ select pg_temp.sign_up(12) $$, '23502', null, 'not those of a user whom the mapping keeps out of all');
select tenancy.enable_new_users('personal');
select throws_ok($$ select pg_temp.sign_up(9, '{}', true) $$, '23502', null, 'an anonymous user gets none, and so no rows');
select tenancy.enable_new_users('personal', true);
select pg_temp.sign_up(9, '{}', true);
select is(pg_temp.orgs(9), 'own own own', 'unless that is asked for');
select set_config('tenancy.org_of_sign_up', '', true);
select throws_ok(
    $$ insert into harbour.accounts (id, user_id) values (gen_random_uuid(), gen_random_uuid()) $$,
    '23502',
    null,
    'a row of nobody is refused all the same'
);

select * from finish();
rollback;
