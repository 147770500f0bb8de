begin;
set local role postgres;
set local search_path = public, extensions;
select plan(22);
select tenancy.disable_new_users();
delete from tenancy.user_orgs;

create function pg_temp.org(number integer) returns uuid language sql as
$$ select format('b0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
create function pg_temp.person(number integer) returns uuid language sql as
$$ select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
insert into public.organizations (id, name) select pg_temp.org(number), 'org ' || number from generate_series(1, 2) as number;
insert into auth.users (
    instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.person(number), 'authenticated', 'authenticated', format('late%s@example.com', number),
    '', '', '', '', '{}', '{}', now(), now()
from generate_series(1, 4) as number;
select tenancy.enable_memberships();
insert into tenancy.memberships (user_id, org_id)
select pg_temp.person(person), pg_temp.org(org) from generate_series(1, 4) as person cross join generate_series(1, 2) as org;
insert into tenancy.user_orgs (user_id, org_id) select pg_temp.person(number), pg_temp.org(1) from generate_series(1, 4) as number
on conflict (user_id) do update set org_id = excluded.org_id;
create function pg_temp.write(number integer, org integer) returns void language sql as $function$
    update auth.users
    set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', pg_temp.org(org))
    where id = pg_temp.person(number)
$function$;
create function pg_temp.claims() returns text language sql as $function$
    select string_agg(coalesce(right(raw_app_meta_data ->> 'org_id', 1), '-'), ' ' order by id)
    from auth.users
    where id between pg_temp.person(1) and pg_temp.person(4)
$function$;

create temp table run as
select tenancy.start_user_run(only_org_id => pg_temp.org(1)) as id;
create function pg_temp.claim() returns table (person integer, org text, outcome text) language sql as $function$
    select right(user_id::text, 1)::integer, coalesce(right(new_value #>> '{}', 1), '-'), outcome
    from tenancy.claim_users((select id from run), 100)
    order by 1
$function$;
create function pg_temp.settle(variadic persons integer[]) returns table (person integer, outcome text) language sql as $function$
    select right(user_id::text, 1)::integer, outcome
    from tenancy.settle_users((select id from run), (
        select jsonb_agg(jsonb_build_object('user_id', pg_temp.person(person), 'attempts', 1)) from unnest(persons) as person
    ))
    order by 1
$function$;

select results_eq('select * from pg_temp.claim()', $$ values (1, '1', 'pending'), (2, '1', 'pending'), (3, '1', 'pending'), (4, '1', 'pending') $$, 'four users are claimed');
-- Before the Auth server writes them, one is removed, one switches, and one is placed by the application.
delete from tenancy.memberships where (user_id, org_id) = (pg_temp.person(1), pg_temp.org(1));
set constraints all immediate;
select set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.person(2))::text, true);
select public.switch_organization(pg_temp.org(2));
select pg_temp.write(number, 1) from generate_series(1, 2) as number;
select pg_temp.write(3, 2);
select pg_temp.write(4, 1);
select is(pg_temp.claims(), '1 1 2 1', 'the requests come too late');
select results_eq(
    'select * from pg_temp.settle(1, 2, 3, 4)', $$ values (1, 'updated'), (2, 'updated'), (3, 'pending'), (4, 'updated') $$, 'and are answered'
);
select is_empty('select * from pg_temp.claim()', 'the round is over');
select is(tenancy.users_remaining((select id from run)), 3::bigint, 'who has been given the wrong organization remains');
select is(tenancy.end_user_pass((select id from run)), false, 'so that there is another round');
select results_eq(
    'select * from pg_temp.claim()', $$ values (1, '-', 'pending'), (2, '2', 'pending'), (3, '1', 'conflict') $$,
    'which takes back what the run wrote itself, and leaves alone what somebody else did'
);
update auth.users set raw_app_meta_data = '{}' where id = pg_temp.person(1);
select pg_temp.write(2, 2);
select results_eq('select * from pg_temp.settle(1, 2)', $$ values (1, 'updated'), (2, 'updated') $$, 'and that is settled');
select is_empty('select * from pg_temp.claim()', 'nobody is left');
select is(tenancy.end_user_pass((select id from run)), true, 'and the run ends');
select is(pg_temp.claims(), '- 2 2 1', 'with everyone where they are');

select results_eq(
    $$
        select right(user_id::text, 1), coalesce(previous_value #>> '{}', '-')
        from tenancy.user_metadata_audit
        where run_id = (select id from run) and user_id in (pg_temp.person(1), pg_temp.person(2))
        order by user_id
    $$,
    $$ values ('1', '-'), ('2', '-') $$,
    'what it wrote too late is not what they had before'
);

-- The same without the Auth server.
select pg_temp.write(1, 1);
select is(
    (select count(*)::integer from tenancy.next_users((select runs from tenancy.user_metadata_runs as runs where run_id = (select id from run)), null) where outcome = 'pending'),
    0, 'an organization that came after the run took it back is not the run''s'
);
update tenancy.user_metadata_audit set new_value = to_jsonb(pg_temp.org(1)) where (run_id, user_id) = ((select id from run), pg_temp.person(1));
update tenancy.user_metadata_runs set last_user_id = default where run_id = (select id from run);
select tenancy.write_users((select id from run), 100);
select is(pg_temp.claims(), '- 2 2 1', 'the mode "sql" takes it back as well');

-- What a revert writes too late. Before the run, one has an organization and three have none.
delete from tenancy.memberships;
insert into tenancy.memberships (user_id, org_id)
select pg_temp.person(person), pg_temp.org(org) from generate_series(1, 4) as person cross join generate_series(1, 2) as org;
set constraints all immediate;
insert into tenancy.user_orgs (user_id, org_id) select pg_temp.person(number), pg_temp.org(1) from generate_series(1, 4) as number
on conflict (user_id) do update set org_id = excluded.org_id, switched_at = null;
update auth.users set raw_app_meta_data = '{}' where id between pg_temp.person(1) and pg_temp.person(4);
select pg_temp.write(1, 2);
update run set id = tenancy.start_user_run(only_org_id => pg_temp.org(1), on_conflict => 'overwrite');
select pg_temp.claim();
select pg_temp.write(number, 1) from generate_series(1, 4) as number;
select pg_temp.settle(1, 2, 3, 4);
select tenancy.end_user_pass((select id from run));
select is(pg_temp.claims(), '1 1 1 1', 'a run gives four users their organization');
-- One switches, and back, before the revert.
select set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.person(3))::text, true);
select public.switch_organization(pg_temp.org(2));
select public.switch_organization(pg_temp.org(1));
update run set id = tenancy.start_user_run(reverted_run_id => run.id);
select results_eq(
    'select * from pg_temp.claim()', $$ values (1, '2', 'pending'), (2, '-', 'pending'), (3, '1', 'conflict'), (4, '-', 'pending') $$,
    'a revert leaves alone who has chosen what the run gave'
);
delete from tenancy.memberships where (user_id, org_id) = (pg_temp.person(1), pg_temp.org(1));
select set_config('request.jwt.claims', jsonb_build_object('sub', pg_temp.person(2))::text, true);
select public.switch_organization(pg_temp.org(2));
select pg_temp.write(1, 2);
update auth.users set raw_app_meta_data = '{}' where id in (pg_temp.person(2), pg_temp.person(4));
select results_eq('select * from pg_temp.settle(1, 2, 4)', $$ values (1, 'updated'), (2, 'updated'), (4, 'updated') $$, 'it is answered too late');
select is(pg_temp.claims(), '2 - 1 -', 'one is in an organization by chance, and one not in theirs');
select is(tenancy.end_user_pass((select id from run)), false, 'so that there is another round');
select results_eq(
    'select * from pg_temp.claim()', $$ values (1, '-', 'pending'), (2, '2', 'pending') $$, 'which gives them what the mapping says'
);
update auth.users set raw_app_meta_data = '{}' where id = pg_temp.person(1);
select pg_temp.write(2, 2);
select pg_temp.settle(1, 2);
select is(pg_temp.claims(), '- 2 1 -', 'so that everyone is where they are');
select is_empty(
    'select from tenancy.users_to_revert where obstacle is null and run_id = (select reverted_run_id from tenancy.user_metadata_runs where run_id = (select id from run))',
    'and nothing is left to put back'
);

select * from finish();
rollback;
