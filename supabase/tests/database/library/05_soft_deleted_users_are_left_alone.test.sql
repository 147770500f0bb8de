begin;
set local role postgres;
set local search_path = public, extensions;
select plan(16);

create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
create function pg_temp.give_organization(number integer)
returns void
language sql
as $function$
    update auth.users
    set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', tenancy.org_of(id))
    where id = pg_temp.id_of(number)
$function$;
-- As the Auth server does.
create function pg_temp.soft_delete(number integer)
returns void
language sql
as $function$
    update auth.users
    set raw_app_meta_data = '{}', raw_user_meta_data = '{}', email = format('hash %s', number), deleted_at = now()
    where id = pg_temp.id_of(number)
$function$;
create function pg_temp.objection()
returns text
language sql
as $function$
    select objection
    from unnest(tenancy.isolation_objections('public.leads')) as objection
    where objection ~ 'users_without_org'
$function$;
create function pg_temp.users_passed()
returns boolean
language sql
as $function$
    select passed
    from tenancy.verify()
    where check_name = 'users'
$function$;

-- Everyone has their organization; the new ones, each of a kind, have not.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users
set raw_app_meta_data = coalesce(raw_app_meta_data, '{}') || jsonb_build_object('org_id', tenancy.org_of(id));
insert into auth.users (
    instance_id, id, aud, role, email, email_confirmed_at, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, raw_user_meta_data, created_at, updated_at, banned_until, is_sso_user, is_anonymous
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(kind.number), 'authenticated', 'authenticated', format('kind%s@example.com', number),
    case when kind.name <> 'unconfirmed' then now() end, '', '', '', '', '{}', '{}', now(), now(),
    case when kind.name = 'banned' then now() + interval '1 year' end, kind.name = 'sso', kind.name = 'anonymous'
from (
    values (1, 'usual'), (2, 'banned'), (3, 'sso'), (4, 'unconfirmed'), (5, 'anonymous'), (6, 'soft-deleted'), (7, 'placed and soft-deleted')
) as kind (number, name);
select pg_temp.soft_delete(6);
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id_of(number), default_org_id
from tenancy.settings
cross join generate_series(1, 7) as number
where number <> 6;

-- A run.
create temp table run as
select tenancy.start_user_run() as id;
select results_eq(
    $$ select right(user_id::text, 1)::integer from tenancy.claim_users((select id from run), 100) order by 1 $$,
    $$ values (1), (2), (3), (4), (5), (7) $$,
    'a run leaves a soft-deleted user alone, and gives the organization to whoever may still sign in'
);
select is(pg_temp.users_passed(), false, 'without it the users are not as they should be');
select isnt(pg_temp.objection(), null, 'and nothing is isolated');
select pg_temp.give_organization(number)
from generate_series(1, 5) as number;
select pg_temp.soft_delete(7);
select ok(pg_temp.users_passed(), 'with it they are, a soft-deleted one among them or not');
select is(pg_temp.objection(), null, 'and nothing of theirs speaks against isolation');
select is_empty($$ select * from tenancy.user_findings $$, 'there is nothing to find');
select is_empty($$ select * from tenancy.user_preflight where user_id = pg_temp.id_of(6) $$, 'and nothing to fix');

select results_eq(
    $$
        select right(user_id::text, 1)::integer, outcome
        from tenancy.settle_users(
            (select id from run),
            (select jsonb_agg(jsonb_build_object('user_id', pg_temp.id_of(number), 'attempts', 1)) from generate_series(1, 7) as number)
        )
        order by 1
    $$,
    $$ values (1, 'updated'), (2, 'updated'), (3, 'updated'), (4, 'updated'), (5, 'updated'), (7, 'deleted') $$,
    'who is soft-deleted in the course of it counts as deleted'
);

-- Whom the mapping leaves out.
create function pg_temp.left_out()
returns text
language sql
as $function$
    select (regexp_match(problem, '\d+'))[1]
    from org_migration.mapping_findings
$function$;
update tenancy.user_orgs set org_id = null where user_id in (pg_temp.id_of(3), pg_temp.id_of(4), pg_temp.id_of(7));
create temp table begun as select * from org_migration.tables_before;
delete from org_migration.tables_before;
select is(pg_temp.left_out(), '4', 'before the push soft-deleted users are left out like others, since there are rows of theirs');
insert into org_migration.tables_before values ('public.leads', 0, 0, 0, false, '{}');
select is(pg_temp.left_out(), '2', 'once it has begun nobody has to place them');
delete from org_migration.tables_before;
insert into org_migration.tables_before select * from pg_temp.begun;
update tenancy.user_orgs set org_id = (select default_org_id from tenancy.settings) where org_id is null and user_id <> pg_temp.id_of(7);
select is(pg_temp.left_out(), null, 'nor is anybody else to be placed then');
update tenancy.user_orgs set org_id = (select default_org_id from tenancy.settings) where org_id is null;

-- The way back.
select pg_temp.soft_delete(1);
update tenancy.user_metadata_audit
set previous_value = '"before"'
where user_id in (pg_temp.id_of(1), pg_temp.id_of(2));
select results_eq(
    $$ select right(user_id::text, 1)::integer from tenancy.users_to_revert where run_id = (select id from run) order by 1 $$,
    $$ values (2), (3), (4), (5) $$,
    'a revert leaves soft-deleted users alone too'
);

-- Their rows.
select isnt(tenancy.org_of(pg_temp.id_of(7)), null, 'rows of a soft-deleted user have an organization as before');
select is(
    tenancy.org_of(pg_temp.id_of(6)),
    null,
    'unless nothing places the user'
);
update tenancy.settings
set new_users = 'personal', rows_decided_at = now() - interval '1 hour';
update org_migration.tables_before
set counted_at = now() - interval '1 hour';
select is(tenancy.create_personal_organizations(), 0::bigint, 'after the rows are decided no organization is made for one');
delete from org_migration.backfills;
update tenancy.settings
set rows_decided_at = null;
select is(tenancy.create_personal_organizations(), 1::bigint, 'before it is');

select * from finish();
rollback;
