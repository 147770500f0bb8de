begin;
set local role postgres;
set local search_path = public, extensions;
select plan(24);
select tenancy.disable_new_table_check();
select tenancy.disable_new_users();
delete from tenancy.user_orgs;

-- As if each statement were a transaction.
set constraints all immediate;

-- Ana is an admin of acme and a guest of zeta, Ben and Cleo work for acme, Dora for zeta.
create function pg_temp.id(name text) returns uuid language sql as $$ select md5(name)::uuid $$;
insert into public.organizations (id, name) values (pg_temp.id('acme'), 'acme'), (pg_temp.id('zeta'), 'zeta');
insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
select '00000000-0000-0000-0000-000000000000', pg_temp.id(name), 'authenticated', 'authenticated', name || '@members.example.com', '{}'
from unnest('{ana,ben,cleo,dora}'::text[]) as name;
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id(name), pg_temp.id(org)
from (values ('ana', 'acme'), ('ben', 'acme'), ('cleo', 'acme'), ('dora', 'zeta')) as active (name, org);
insert into tenancy.memberships (user_id, org_id, role)
select pg_temp.id(name), pg_temp.id(org), role
from (
    values ('ana', 'acme', 'admin'), ('ana', 'zeta', 'guest'), ('ben', 'acme', 'member'), ('cleo', 'acme', 'member'), ('dora', 'zeta', 'admin')
) as member (name, org, role);
drop function if exists public.switch_organization(uuid), public.my_organizations();
select tenancy.enable_memberships();
update tenancy.settings set org_role = true;

create table public.documents (
    id integer primary key, user_id uuid default auth.uid(), org_id uuid default public.auth_org_id() references public.organizations (id)
);
alter table public.documents enable row level security;
grant select, insert, update, delete on public.documents to authenticated;
insert into public.documents (id, user_id, org_id)
select id, pg_temp.id(name), pg_temp.id(org)
from (values (1, 'ana', 'acme'), (2, 'ben', 'acme'), (3, 'cleo', 'acme'), (4, 'ana', 'zeta'), (5, 'dora', 'zeta')) as document (id, name, org);

-- The actors: a token, as the hook gives it, and statements with it. What they change, they change for themselves alone.
create function pg_temp.authenticate_as(name text) returns void language plpgsql as $function$ begin
    set local role postgres;
    perform set_config('request.jwt.claims', tenancy.add_org_id_to_token(jsonb_build_object('user_id', pg_temp.id(name), 'claims', jsonb_build_object('sub', pg_temp.id(name), 'role', 'authenticated'))) ->> 'claims', true);
    set local role authenticated;
end $function$;
create function pg_temp.sees() returns text language sql as
$$ select coalesce(string_agg(id::text, ' ' order by id), 'nothing') from public.documents $$;
create function pg_temp.changes() returns text language plpgsql as $function$
declare ids text;
begin
    with changed as (update public.documents set id = id returning id) select coalesce(string_agg(id::text, ' ' order by id), 'nothing') into ids from changed;
    return ids;
end
$function$;

select pg_temp.authenticate_as('ana');
select is(pg_temp.sees(), 'nothing', 'without a policy nobody sees anything');

set local role postgres;
create policy "own rows" on public.documents for all to authenticated using (org_id = (select public.auth_org_id()) and user_id = (select auth.uid()));
select pg_temp.authenticate_as('ana');
select is(pg_temp.sees(), '1', 'Ana sees her own row of the organization that she is in, and not her own of the other');
select lives_ok('insert into public.documents (id) values (11)', 'writes one there');
select throws_ok(
    format('insert into public.documents (id, org_id) values (12, %L)', pg_temp.id('zeta')), '42501', null, 'and none into the other'
);
select throws_ok(
    format('insert into public.documents (id, user_id) values (12, %L)', pg_temp.id('ben')), '42501', null, 'nor for somebody else'
);
select pg_temp.authenticate_as('ben');
select is(pg_temp.sees() || ', ' || pg_temp.changes(), '2, 2', 'Ben sees his, and changes it');

set local role postgres;
delete from public.documents where id = 11;
create policy "rows of colleagues" on public.documents for select to authenticated using (org_id = (select public.auth_org_id()));
select pg_temp.authenticate_as('ben');
select is(pg_temp.sees(), '1 2 3', 'colleagues read each other''s rows');
select is(pg_temp.changes(), '2', 'and change their own alone');
select pg_temp.authenticate_as('dora');
select is(pg_temp.sees(), '4 5', 'in their organization alone');

set local role postgres;
create policy "admins write" on public.documents for all to authenticated using (org_id = (select public.auth_org_id()) and (select public.auth_org_role()) = 'admin');
select pg_temp.authenticate_as('ana');
select is(pg_temp.changes(), '1 2 3', 'an admin changes everyone''s');
select lives_ok(format('insert into public.documents (id, user_id) values (12, %L)', pg_temp.id('ben')), 'and writes for somebody else');
select pg_temp.authenticate_as('ben');
select is(pg_temp.changes(), '2 12', 'who is no admin does not');

-- Switching.
select pg_temp.authenticate_as('ana');
select lives_ok(format('select public.switch_organization(%L)', pg_temp.id('zeta')), 'Ana switches');
select is(pg_temp.sees(), '1 2 3 12', 'with the token that she has she sees what she saw');
select pg_temp.authenticate_as('ana');
select is(pg_temp.sees(), '4 5', 'with the next one the rows of the other organization');
select is(pg_temp.changes(), '4', 'where she is no admin');

-- An application's own policies, from when rows had a user alone.
set local role postgres;
drop policy "own rows" on public.documents;
drop policy "rows of colleagues" on public.documents;
drop policy "admins write" on public.documents;
create policy "as it was before" on public.documents for all to authenticated using (user_id = (select auth.uid()));
select pg_temp.authenticate_as('ana');
select is(pg_temp.sees(), '1 4', 'a policy that asks for the user alone shows the rows of all her organizations');
set local role postgres;
create policy "one organization at a time" on public.documents as restrictive for all to authenticated using (org_id = (select public.auth_org_id()));
select pg_temp.authenticate_as('ana');
select is(pg_temp.sees() || ', ' || pg_temp.changes(), '4, 4', 'with a restrictive one it shows one at a time');
select public.switch_organization(pg_temp.id('acme'));
select pg_temp.authenticate_as('ana');
select is(pg_temp.sees(), '1', 'after a switch the other');

-- Who is removed.
set local role postgres;
update tenancy.user_orgs set switched_at = null;
insert into auth.sessions (id, user_id, created_at)
select gen_random_uuid(), pg_temp.id(name), now() - interval '1 minute' from unnest('{ana,ben}'::text[]) as name;
select pg_temp.authenticate_as('ana');
set local role postgres;
delete from tenancy.memberships where (user_id, org_id) = (pg_temp.id('ana'), pg_temp.id('acme'));
set local role authenticated;
select is(pg_temp.sees(), '1', 'who is removed sees with the token that they have what they saw');
set local role postgres;
select ok(
    exists (select from tenancy.stale_sessions() where user_id = pg_temp.id('ana'))
        and not exists (select from tenancy.stale_sessions() where user_id = pg_temp.id('ben')),
    'which is a stale session, unlike that of who stays'
);
create policy "members at this moment" on public.documents as restrictive for all to authenticated using (org_id in (select my.org_id from public.my_organizations() as my));
set local role authenticated;
select is(pg_temp.sees(), 'nothing', 'unless a policy asks for the membership');
select pg_temp.authenticate_as('ana');
select is(pg_temp.sees(), 'nothing', 'with the next token they see nothing in any case');
select pg_temp.authenticate_as('ben');
select is(pg_temp.sees(), '2 12', 'who stays sees on');

select * from finish();
rollback;
