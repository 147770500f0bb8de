begin;
set local role postgres;
set local search_path = public, extensions;
select plan(43);
select tenancy.disable_new_table_check();
select tenancy.disable_new_users();
delete from tenancy.user_orgs;

create function pg_temp.org(number integer) returns uuid language sql as
$$ select format('b0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
create function pg_temp.person(number integer) returns uuid language sql as
$$ select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
insert into public.organizations (id, name)
select pg_temp.org(number), 'org ' || number from generate_series(1, 3) as number;
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
select '00000000-0000-0000-0000-000000000000', pg_temp.person(number), 'authenticated', 'authenticated', format('member%s@example.com', number), '{"theme": "dark"}'
from generate_series(1, 4) as number;
-- With a mapping nobody is put anywhere unasked.
insert into tenancy.user_orgs (user_id, org_id) values (pg_temp.person(1), pg_temp.org(1));

-- While there is none, everyone stays where they are, whoever switches first.
select set_config('test.default', default_org_id::text, true) from tenancy.settings;
truncate tenancy.user_orgs;
select tenancy.enable_memberships();
insert into tenancy.memberships (user_id, org_id) values (pg_temp.person(1), pg_temp.org(1));
select set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.person(1))::text, true);
select public.switch_organization(pg_temp.org(1));
create temp table switched as
select tenancy.org_of(pg_temp.person(number))::text as org from generate_series(1, 2) as number;
select results_eq(
    'select org from switched', $$ values (pg_temp.org(1)::text), (current_setting('test.default')) $$,
    'the first one to switch throws nobody out of the default organization'
);
select is((select count(*) from tenancy.user_orgs where org_id is null), 0::bigint, 'and nobody is put into none');
select tenancy.disable_memberships();
drop table pg_temp.switched;
delete from tenancy.user_orgs;
insert into tenancy.user_orgs (user_id, org_id) values (pg_temp.person(1), pg_temp.org(1));
update auth.users set raw_app_meta_data = '{"theme": "dark"}' where id in (select pg_temp.person(number) from generate_series(1, 4) as number);

create schema office;
create table office.members (member uuid, company uuid, position text);
insert into office.members
values
    (pg_temp.person(1), pg_temp.org(1), 'admin'), (pg_temp.person(1), pg_temp.org(2), 'guest'), (pg_temp.person(2), pg_temp.org(2), 'admin'),
    (pg_temp.person(2), gen_random_uuid(), 'of no organization'), (null, pg_temp.org(1), 'of nobody');
select tenancy.enable_memberships('office.members', 'member', 'company', 'position');

-- The actor, in four lines.
create function pg_temp.as_user(number integer, statement text) returns text language plpgsql as $function$
declare answer text; state text;
begin
    perform set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.person(number), 'role', 'authenticated')::text, true);
    set local role authenticated;
    begin execute statement into answer; exception when others then get stacked diagnostics state = returned_sqlstate; answer := state || ': ' || sqlerrm; end;
    set local role postgres;
    return answer;
end
$function$;

select bag_eq(
    $$ select user_id, org_id, role from tenancy.memberships $$,
    $$ values (pg_temp.person(1), pg_temp.org(1), 'admin'), (pg_temp.person(1), pg_temp.org(2), 'guest'), (pg_temp.person(2), pg_temp.org(2), 'admin') $$,
    'memberships are filled from the table of the application, those of an organization alone'
);
select is(tenancy.org_of(pg_temp.person(1)), pg_temp.org(1), 'a second membership moves nobody');
select is(tenancy.org_of(pg_temp.person(2)), pg_temp.org(2), 'the first one of a user who is in none becomes the active one');
select is(
    (select raw_app_meta_data from auth.users where id = pg_temp.person(2)),
    jsonb_build_object('theme', 'dark', 'org_id', pg_temp.org(2)), 'and the next token has it, beside what else there is'
);
insert into tenancy.memberships (user_id, org_id, created_at)
values
    (pg_temp.person(3), pg_temp.org(1), now()), (pg_temp.person(3), pg_temp.org(2), now() - interval '1 day'), (pg_temp.person(1), pg_temp.org(3), now());
select is(tenancy.org_of(pg_temp.person(3)), pg_temp.org(2), 'of several at once the oldest one does');
select is(tenancy.org_of(pg_temp.person(1)), pg_temp.org(1), 'and others in the same statement move nobody');
delete from tenancy.memberships where user_id = pg_temp.person(3) or (user_id, org_id) = (pg_temp.person(1), pg_temp.org(3));
delete from tenancy.user_orgs where user_id = pg_temp.person(3);
select is(
    pg_temp.as_user(1, 'select string_agg(concat_ws('' '', name, role, is_active), '', '' order by name) from public.my_organizations()'),
    'org 1 admin t, org 2 guest f', 'my_organizations() lists one''s own'
);
select is(pg_temp.as_user(4, 'select count(*) from public.my_organizations()'), '0', 'and none of others');
select is_empty(
    $$
        select from unnest('{anon,authenticated}'::text[]) as role
        cross join unnest('{switch_organization(uuid),my_organizations(),auth_org_role()}'::text[]) as api
        where has_function_privilege(role, 'public.' || api, 'execute') <> (role = 'authenticated')
    $$,
    'who is signed in may call the three functions, and nobody else'
);

select is(pg_temp.as_user(1, format('select public.switch_organization(%L)', pg_temp.org(2))), null, 'a member switches');
select is(tenancy.org_of(pg_temp.person(1)), pg_temp.org(2), 'rows and tokens go by it');
select is(
    (select raw_app_meta_data ->> 'org_id' from auth.users where id = pg_temp.person(1)), pg_temp.org(2)::text, 'the next token, too'
);
select is(
    pg_temp.as_user(1, format('select public.switch_organization(%L)', pg_temp.org(3))),
    format('42501: you are not a member of the organization %s', pg_temp.org(3)), 'nobody switches to an organization that they are not in'
);
select is(
    pg_temp.as_user(1, 'select public.switch_organization(''c0000000-0000-4000-8000-000000000009'')'),
    '42501: you are not a member of the organization c0000000-0000-4000-8000-000000000009', 'and one that is not there is refused alike'
);
select is(
    pg_temp.as_user(1, 'select public.switch_organization(null)'), '42501: you are not a member of the organization NULL', 'and so is NULL'
);
select is(tenancy.org_of(pg_temp.person(1)), pg_temp.org(2), 'which changes nothing');
select is(
    pg_temp.as_user(1, 'select tenancy.switch_organization(null)'), '42501: permission denied for schema tenancy', 'nothing else is callable'
);

insert into auth.sessions (id, user_id, created_at)
select gen_random_uuid(), pg_temp.person(number), now() - interval '1 minute' from generate_series(1, 4) as number;
select isnt_empty($$ select from tenancy.stale_sessions() where user_id = pg_temp.person(1) $$, 'a session from before the switch is stale');
select is_empty($$ select from tenancy.stale_sessions() where user_id = pg_temp.person(3) $$, 'one of whom nothing changed is not');

insert into office.members values (pg_temp.person(2), pg_temp.org(3), 'invited');
select is(tenancy.org_of(pg_temp.person(2)), pg_temp.org(2), 'an invitation moves nobody');
update office.members set position = 'member' where member = pg_temp.person(2) and company = pg_temp.org(3);
select is((select role from tenancy.memberships where (user_id, org_id) = (pg_temp.person(2), pg_temp.org(3))), 'member', 'a role follows');
update tenancy.user_orgs set switched_at = null where user_id = pg_temp.person(2);
update office.members set position = 'owner' where member = pg_temp.person(2) and company = pg_temp.org(2);
select is_empty($$ select from tenancy.stale_sessions() where user_id = pg_temp.person(2) $$, 'which no token has, so that none is stale');
update tenancy.settings set org_role = true;
update office.members set position = 'guest' where member = pg_temp.person(2) and company = pg_temp.org(3);
select is_empty($$ select from tenancy.stale_sessions() where user_id = pg_temp.person(2) $$, 'nor is that of another organization in a token');
update office.members set position = 'guest' where member = pg_temp.person(2) and company = pg_temp.org(2);
select isnt_empty($$ select from tenancy.stale_sessions() where user_id = pg_temp.person(2) $$, 'with settings.org_role a token with the old role is');
update tenancy.user_orgs set switched_at = null where user_id = pg_temp.person(2);
create temp table before as select * from tenancy.memberships;
-- Deleted and inserted anew.
delete from office.members;
insert into office.members select user_id, org_id, role from pg_temp.before;
set constraints all immediate;
select is(tenancy.org_of(pg_temp.person(2)), pg_temp.org(2), 'who is deleted and inserted anew in one transaction stays where they are');
truncate office.members;
insert into office.members select user_id, org_id, role from pg_temp.before;
select is(tenancy.org_of(pg_temp.person(2)), null, 'between two transactions they are in none');
select pg_temp.as_user(2, format('select public.switch_organization(%L)', pg_temp.org(2)));
delete from office.members where member = pg_temp.person(2) and company = pg_temp.org(2);
select is(tenancy.org_of(pg_temp.person(2)), null, 'who loses the active organization is in none, not in another by chance');
select isnt_empty($$ select from tenancy.stale_sessions() where user_id = pg_temp.person(2) $$, 'their session from before is stale');
select is(
    (select raw_app_meta_data from auth.users where id = pg_temp.person(2)), '{"theme": "dark"}', 'and the next token has no claim'
);
select is(pg_temp.as_user(2, format('select public.switch_organization(%L)', pg_temp.org(2))) like '42501%', true, 'there is no way back');
select is(pg_temp.as_user(2, format('select public.switch_organization(%L)', pg_temp.org(3))), null, 'but one to the other');

delete from public.organizations where id = pg_temp.org(3);
select is(tenancy.org_of(pg_temp.person(2)), null, 'a deleted organization leaves its members in none');
truncate office.members;
select is_empty($$ select from tenancy.memberships $$, 'a truncate is followed');

insert into office.members select user_id, org_id, role from pg_temp.before where org_id <> pg_temp.org(3);
select pg_temp.as_user(2, format('select public.switch_organization(%L)', pg_temp.org(2)));

-- Whom the mapping alone has placed.
insert into tenancy.user_orgs (user_id, org_id) values (pg_temp.person(4), pg_temp.org(1)) on conflict (user_id) do update set org_id = excluded.org_id;
delete from tenancy.memberships where user_id = pg_temp.person(4);
insert into tenancy.memberships (user_id, org_id) values (pg_temp.person(4), pg_temp.org(2));
select pg_temp.as_user(4, format('select public.switch_organization(%L)', pg_temp.org(2)));
select is(tenancy.org_of(pg_temp.person(4)), pg_temp.org(2), 'leaves it by a switch');
select matches(
    pg_temp.as_user(4, format('select public.switch_organization(%L)', pg_temp.org(1))), '^42501: ', 'and cannot come back without being a member'
);
update tenancy.user_orgs set org_id = pg_temp.org(1) where user_id = pg_temp.person(4);
insert into tenancy.memberships (user_id, org_id) select user_id, org_id from tenancy.user_orgs where org_id is not null on conflict do nothing;
select pg_temp.as_user(4, format('select public.switch_organization(%L)', pg_temp.org(2)));
select pg_temp.as_user(4, format('select public.switch_organization(%L)', pg_temp.org(1)));
select is(tenancy.org_of(pg_temp.person(4)), pg_temp.org(1), 'made a member before, they can');
select is(tenancy.org_of(pg_temp.person(2)), pg_temp.org(2), 'which moves nobody');

select tenancy.disable_memberships();
select is(tenancy.org_of(pg_temp.person(2)), pg_temp.org(2), 'disable_memberships() leaves everyone where they are');
select is_empty($$ select from pg_trigger where tgrelid = 'office.members'::regclass $$, 'and the table of the application as it was');
select is(to_regprocedure('public.switch_organization(uuid)'), null, 'disable_memberships() takes the functions away');
create function public.my_organizations() returns integer language sql as 'select 1';
select throws_ok(
    $$ select tenancy.enable_memberships() $$, '42723', 'public.my_organizations() is there already and another function: rename it first',
    'a function of the application is not replaced'
);

select * from finish();
rollback;
