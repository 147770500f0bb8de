begin;
set local role postgres;
set local search_path = public, extensions;
select plan(24);
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

-- One organization and its users, so that the test need not know who else is there.
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000003', 'three');
insert into tenancy.user_orgs (user_id, org_id)
select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid, 'b0000000-0000-4000-8000-000000000001'
from generate_series(0, 5) as number;

create function pg_temp.add_user(number integer, app_metadata jsonb)
returns void
language sql
as $function$
    insert into auth.users (
        instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
        raw_app_meta_data, raw_user_meta_data, created_at, updated_at
    )
    values (
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', format('run%s@example.com', number), '', '', '', '', app_metadata, '{}', now(), now()
    )
$function$;
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
create function pg_temp.update_user(number integer)
returns void
language sql
as $function$
    update auth.users
    set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', tenancy.org_of(id))
    where id = pg_temp.id_of(number)
$function$;

select pg_temp.add_user(1, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}');
select pg_temp.add_user(2, '{"org_id": null}');
select pg_temp.add_user(3, '{"org_id": "b0000000-0000-4000-8000-000000000003"}');
select pg_temp.add_user(4, '{}');
update auth.users set confirmation_token = null where id = pg_temp.id_of(4);
select pg_temp.add_user(5, '{}');
select pg_temp.update_user(5);

select results_eq(
    $$
        select right(user_id::text, 1), obstacle
        from tenancy.users_without_org
        where org_id = 'b0000000-0000-4000-8000-000000000001'
        order by user_id
    $$,
    $$ values ('1', null), ('2', null), ('3', 'conflict'), ('4', 'unreachable') $$,
    'users without their organization are found: missing or unknown, in conflict, or out of reach'
);
select is(
    (select reason from tenancy.users_without_org where user_id = pg_temp.id_of(3)),
    'has organization b0000000-0000-4000-8000-000000000003, should have b0000000-0000-4000-8000-000000000001',
    'the reason of a conflict names the other organization'
);
update auth.users set raw_app_meta_data = '{"org_id": " "}' where id = pg_temp.id_of(2);
select is(
    (select reason from tenancy.users_without_org where user_id = pg_temp.id_of(2)),
    'has no organization in app_metadata, should have b0000000-0000-4000-8000-000000000001',
    'and a blank is none'
);
update auth.users set raw_app_meta_data = '{"org_id": null}' where id = pg_temp.id_of(2);
select is(
    (select reason from tenancy.user_preflight where user_id = pg_temp.id_of(4)),
    'confirmation_token NULL: the Auth server cannot read the user',
    'the preflight says why a user is out of reach'
);
select results_eq(
    $$
        select key, value
        from jsonb_each_text(
            tenancy.user_run_preview('b0000000-0000-4000-8000-000000000001') - 'users' - 'users_without_org' - 'users_in_no_org'
        )
        order by key
    $$,
    $$
        values
            ('conflicts', '1'),
            ('conflicts_with_default', '0'),
            ('unreachable', '1'),
            ('would_update', '2')
    $$,
    'the preview counts what a run would do'
);
select is_empty(
    $$ select from tenancy.user_metadata_runs where only_org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    'and writes nothing'
);

create temp table run as
select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001') as id;
select results_eq(
    $$ select right(user_id::text, 1), outcome from tenancy.claim_users((select id from run), 3) order by user_id $$,
    $$ values ('1', 'pending'), ('2', 'pending'), ('3', 'conflict') $$,
    'a page is claimed by id; a conflict comes settled'
);
select results_eq(
    $$
        select right(user_id::text, 1), outcome
        from tenancy.user_metadata_audit
        where run_id = (select id from run)
        order by user_id
    $$,
    $$ values ('1', 'pending'), ('2', 'pending'), ('3', 'conflict') $$,
    'the audit has each user before anything is done to them'
);

select pg_temp.update_user(1);
select results_eq(
    $$
        select right(user_id::text, 1), outcome
        from tenancy.settle_users(
            (select id from run),
            jsonb_build_array(
                jsonb_build_object('user_id', pg_temp.id_of(1), 'attempts', 1, 'error', null, 'final', true),
                jsonb_build_object('user_id', pg_temp.id_of(2), 'attempts', 1, 'error', null, 'final', true)
            )
        )
        order by user_id
    $$,
    $$ values ('1', 'updated'), ('2', 'pending') $$,
    'an update that is in the database is settled, one that was answered and is not stays pending'
);
create function pg_temp.come_back()
returns void
language sql
as $function$
    select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001')
$function$;
select pg_temp.come_back();
select results_eq(
    $$ select right(user_id::text, 1), outcome from tenancy.claim_users((select id from run), 3) order by user_id $$,
    $$ values ('2', 'pending'), ('4', 'unreachable') $$,
    'what an earlier call left pending is claimed again by the next one; a user out of reach comes settled'
);
select results_eq(
    $$
        select outcome
        from tenancy.settle_users(
            (select id from run),
            jsonb_build_array(jsonb_build_object('user_id', pg_temp.id_of(2), 'attempts', 2, 'error', '503', 'final', false))
        )
    $$,
    $$ values ('pending') $$,
    'an update that did not come to its end stays pending'
);
select pg_temp.come_back();
select results_eq(
    $$ select right(user_id::text, 1), outcome, attempts from tenancy.claim_users((select id from run), 3) $$,
    $$ values ('2', 'pending', 3) $$,
    'and is claimed again by the next call, its attempts counted'
);
select results_eq(
    $$
        select outcome
        from tenancy.settle_users(
            (select id from run),
            jsonb_build_array(jsonb_build_object('user_id', pg_temp.id_of(2), 'attempts', 3, 'error', '500', 'final', true))
        )
    $$,
    $$ values ('failed') $$,
    'an update that failed for good is failed'
);
select results_eq(
    $$
        select outcome, attempts, error
        from tenancy.user_metadata_audit
        where run_id = (select id from run)
            and user_id = pg_temp.id_of(2)
    $$,
    $$ values ('failed', 6, '500') $$,
    'with its attempts and its last error'
);
select is_empty($$ select * from tenancy.claim_users((select id from run), 3) $$, 'then the pass is over');

select pg_temp.add_user(0, '{}');
select ok(
    not tenancy.end_user_pass((select id from run)),
    'a user who signed up behind the run makes it pass once more'
);
select results_eq(
    $$ select right(user_id::text, 1), outcome from tenancy.claim_users((select id from run), 3) $$,
    $$ values ('0', 'pending') $$,
    'which finds that user and tries none of the others again'
);
select pg_temp.update_user(0);
select * from tenancy.settle_users(
    (select id from run),
    jsonb_build_array(jsonb_build_object('user_id', pg_temp.id_of(0), 'attempts', 1, 'error', null, 'final', true))
);
select ok(tenancy.end_user_pass((select id from run)), 'the run ends when nobody is left to try');
select results_eq(
    $$
        select key, value
        from jsonb_each_text(
            tenancy.user_run_summary((select id from run)) - array['run_id', 'problems', 'users', 'users_without_org', 'users_in_no_org']
        )
        order by key
    $$,
    $$
        values
            ('conflicts', '1'),
            ('conflicts_with_default', '0'),
            ('deleted', '0'),
            ('done', 'true'),
            ('failed', '1'),
            ('remaining', '0'),
            ('unreachable', '1'),
            ('updated', '2')
    $$,
    'the summary counts the run''s outcomes'
);
select isnt(
    tenancy.start_user_run('b0000000-0000-4000-8000-000000000001'),
    (select id from run),
    'the next run is another one'
);

-- However many users a run has behind it, a page costs what it has, also by a plan that was made when the tables were small.
create function pg_temp.rows_read() returns bigint language sql as $function$
    select sum(tables.seq_tup_read + coalesce(tables.idx_tup_fetch, 0))
    from pg_stat_xact_all_tables as tables
    where tables.relid in ('auth.users'::regclass, 'tenancy.user_metadata_audit'::regclass, 'tenancy.user_orgs'::regclass)
$function$;
create function pg_temp.read_page(run uuid, out users bigint, out rows_read bigint) language plpgsql as $function$
declare
    rows_before constant bigint := pg_temp.rows_read();
begin
    select count(*) into users
    from tenancy.next_users((select runs from tenancy.user_metadata_runs as runs where runs.run_id = run), 100);
    rows_read := pg_temp.rows_read() - rows_before;
end
$function$;
create temp table revert as
select tenancy.start_user_run(reverted_run_id => run.id) as id from run;
analyze auth.users, tenancy.user_orgs, tenancy.user_metadata_runs, tenancy.user_metadata_audit;
select pg_temp.read_page(run.id) from (select id from run union all select id from revert) as run;
select pg_temp.add_user(number, '{}') from generate_series(1001, 4000) as number;
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id_of(number), 'b0000000-0000-4000-8000-000000000003' from generate_series(1001, 4000) as number;
update run set id = tenancy.start_user_run('b0000000-0000-4000-8000-000000000003');
select tenancy.write_users(id, 2000) from run;
create temp table page as
select page.* from run cross join lateral pg_temp.read_page(run.id) as page;
select is((select users from page), 100::bigint, 'a page late in a run');
select cmp_ok((select rows_read from page), '<', 1000::bigint, 'reads no table as a whole');
update revert set id = tenancy.start_user_run(reverted_run_id => run.id) from run;
update tenancy.user_metadata_runs set last_user_id = pg_temp.id_of(2000) where run_id = (select id from revert);
update page set (users, rows_read) = (select page.users, page.rows_read from revert cross join lateral pg_temp.read_page(revert.id) as page);
select is((select users from page), 100::bigint, 'nor does a page');
select cmp_ok((select rows_read from page), '<', 1000::bigint, 'late in a revert');

select * from finish();
rollback;
