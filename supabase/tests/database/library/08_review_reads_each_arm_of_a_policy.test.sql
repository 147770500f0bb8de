begin;
set local role postgres;
set local search_path = public, extensions;
select plan(40);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
grant usage on schema harbour to anon, authenticated, service_role;
create table harbour.fleets (id uuid primary key, owner_id uuid references auth.users (id));
create table harbour.crews (fleet_id uuid references harbour.fleets (id), user_id uuid references auth.users (id));
create table harbour.captains (id uuid primary key references auth.users (id));
create table harbour.ships (
    id uuid primary key,
    user_id uuid,
    captain_id uuid references harbour.captains (id),
    fleet_id uuid references harbour.fleets (id),
    org_id uuid,
    is_public boolean,
    email text
);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'fleets', 'excluded', null, 'a test'),
    ('harbour', 'crews', 'excluded', null, 'a test'),
    ('harbour', 'captains', 'excluded', null, 'a test');
alter table harbour.ships enable row level security;
grant select, insert, update, delete on harbour.ships to anon, authenticated;
create function harbour.is_admin()
returns boolean
language sql
stable
as $function$ select true $function$;

-- The codes that a policy gets, of the one whose expression is tried.
create function pg_temp.codes(expression text, tail text default 'for select to authenticated')
returns text
language plpgsql
as $function$
declare
    codes text;
begin
    execute format('create policy tried on harbour.ships %s using (%s)', tail, expression);
    select string_agg(format('%s%s', review.code, case when review.problem like '%probably lets%' then ' probably' end), ', ' order by review.code)
    into codes
    from (select * from tenancy.review_policies union all select * from tenancy.review_choices) as review
    where review.table_name = 'harbour.ships';
    drop policy tried on harbour.ships;
    return codes;
end
$function$;

-- What is open.
select is(pg_temp.codes('org_id = (select public.auth_org_id())'), null, 'a policy that goes by organization is right');
select is(
    pg_temp.codes('user_id = auth.uid() or is_public'), 'own_rows_policy, policy_open probably',
    'one arm of an OR that looks at nothing that says whose a row is opens the policy'
);
select is(pg_temp.codes('user_id = auth.uid() and is_public'), 'own_rows_policy', 'under an AND it does not');
select is(
    pg_temp.codes('user_id = auth.uid() or exists (select from harbour.crews where crews.user_id = auth.uid())'), 'own_rows_policy, policy_open',
    'nor does an arm that asks for a role'
);
select is(pg_temp.codes('user_id = auth.uid() or harbour.is_admin()'), 'own_rows_policy, policy_open', 'by a function either');
select is(
    pg_temp.codes('user_id = auth.uid() and (is_public or harbour.is_admin())'), 'own_rows_policy', 'unless every arm says whose a row is'
);
select is(
    pg_temp.codes('(is_public or user_id = auth.uid()) and (is_public or email = auth.email())'), 'own_rows_policy, policy_open probably',
    'or one of what an AND of two makes of them'
);
select is(pg_temp.codes('auth.role() = ''service_role''', 'for all'), null, 'a policy for service_role alone lets nobody of the API pass');
select is(pg_temp.codes('(select auth.jwt() ->> ''role'') = ''service_role'' or user_id = auth.uid()'), 'own_rows_policy', 'nor does an arm of it');
select is(pg_temp.codes('auth.role() <> ''service_role'''), 'policy_open', 'for everybody else it is open');
select is(pg_temp.codes('user_id <> (select auth.uid())'), 'policy_open probably', 'a policy for everybody but the user is open');
select is(pg_temp.codes('user_id is distinct from auth.uid()'), 'policy_open probably', 'however it says so');
select is(pg_temp.codes('not (user_id = auth.uid())'), 'policy_open probably', 'or that');
select is(pg_temp.codes('org_id <> public.auth_org_id()'), 'policy_open probably', 'and for every other organization');
select is(
    pg_temp.codes('captain_id = auth.uid() and user_id <> auth.uid()'), 'own_rows_policy', 'not where it says whose rows they are as well'
);
select is(
    pg_temp.codes('org_id is null or org_id = (select public.auth_org_id())'), null, 'an arm for rows without organization is of none after the push'
);
select is(pg_temp.codes('user_id is null or user_id = auth.uid()'), 'own_rows_policy, policy_open probably', 'one for rows without owner is of some');
select is(pg_temp.codes('user_id is not null'), 'policy_open probably', 'a column of the row alone says nothing of who asks');
select is(
    pg_temp.codes('case when harbour.is_admin() then true else user_id = auth.uid() end'), 'policy_open probably', 'CASE has arms too'
);
select is(pg_temp.codes('user_id = auth.uid() or false'), 'own_rows_policy', 'false lets nothing pass');
select is(
    pg_temp.codes('exists (select from harbour.ships as other where other.user_id = auth.uid())'), 'policy_open',
    'a query of the same table looks at other rows'
);
select is(pg_temp.codes('exists (select from harbour.crews where crews.fleet_id = ships.fleet_id and crews.user_id = auth.uid())'), null, 'one that is bound to the row does not');
create policy held on harbour.ships as restrictive to authenticated using (org_id = (select public.auth_org_id()) or harbour.is_admin());
select is(pg_temp.codes('true'), 'policy_open', 'a restrictive policy with an arm for others does not isolate');
alter policy held on harbour.ships using (org_id = (select public.auth_org_id()));
select is(pg_temp.codes('true'), null, 'one without does');
drop policy held on harbour.ships;

-- Anon.
select is(
    pg_temp.codes('user_id = auth.uid() or is_public', 'for select'), 'own_rows_policy, policy_open probably, policy_without_to',
    'without TO anon passes an open arm too'
);
select is(pg_temp.codes('user_id = auth.uid() or harbour.is_admin()', 'for select'), 'own_rows_policy, policy_open', 'but none that asks who it is');

-- Own rows.
select is(pg_temp.codes('user_id = (auth.jwt() ->> ''sub'')::uuid'), 'own_rows_policy', 'the user is sub of the token');
select is(
    pg_temp.codes('user_id = (current_setting(''request.jwt.claims'', true)::jsonb ->> ''sub'')::uuid'), 'own_rows_policy', 'however it is read'
);
select is(pg_temp.codes('captain_id in (select id from harbour.captains where id = auth.uid())'), 'own_rows_policy', 'or the profile of one');
select is(
    pg_temp.codes('exists (select from harbour.fleets where fleets.id = fleet_id and fleets.owner_id = auth.uid())'), 'own_rows_policy',
    'or of a row that it references'
);
select is(
    pg_temp.codes('user_id = auth.uid() or fleet_id in (select fleet_id from harbour.crews where user_id = auth.uid())'), null,
    'a policy that knows of teams hides nothing from colleagues'
);
create policy wider on harbour.ships for select to anon using (false);
select is(pg_temp.codes('user_id = auth.uid()'), 'own_rows_policy', 'what another role sees is no matter');
drop policy wider on harbour.ships;
create policy wider on harbour.ships for select to authenticated using (org_id = (select public.auth_org_id()));
select is(pg_temp.codes('user_id = auth.uid()'), null, 'what colleagues see by another policy is');
drop policy wider on harbour.ships;

-- Claims.
select is(pg_temp.codes('org_id = (auth.jwt() -> ''app_metadata'' ->> ''org_id'')::uuid'), null, 'app_metadata is what to trust');
select is(pg_temp.codes('org_id = (auth.jwt() #>> ''{user_metadata,org_id}'')::uuid'), 'policy_on_user_metadata', 'user_metadata is not, as a path');
select is(
    pg_temp.codes('org_id = (select (raw_user_meta_data ->> ''org'')::uuid from auth.users where id = auth.uid())'), 'policy_on_user_metadata',
    'or as the column'
);
select is(pg_temp.codes('org_id = (auth.jwt() #>> ''{org_id}'')::uuid'), 'policy_on_unset_claim', 'a claim that nobody sets, as a path');
select is(pg_temp.codes('org_id = current_setting(''request.jwt.claim.org_id'', true)::uuid'), 'policy_on_unset_claim', 'or as a setting of its own');
create function harbour.inner_org()
returns text
language sql
stable
as $function$ select auth.jwt() -> 'user_metadata' ->> 'org_id' $function$;
create function harbour.outer_org()
returns text
language sql
stable
as $function$ select harbour.inner_org() $function$;
select is(pg_temp.codes('org_id::text = harbour.outer_org()'), 'policy_on_user_metadata', 'also in a function that the policy''s own calls');
alter table harbour.ships rename column email to user_metadata;
select is(pg_temp.codes('user_metadata = auth.email()'), 'own_rows_policy', 'a column of that name is none');

select * from finish();
rollback;
