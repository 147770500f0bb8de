begin;
set local role postgres;
set local search_path = public, extensions;
select plan(11);
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

-- One organization and its users, so that the test need not know who else is there.
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');

create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id_of(number), 'b0000000-0000-4000-8000-000000000001'
from generate_series(1, 4) as number;
insert into auth.users (
    instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('back%s@example.com', number), '', '', '', '', app_metadata::jsonb, '{}', now(), now()
from (
    values
        (1, '{"provider": "email"}'),
        (2, '{"org_id": "b0000000-0000-4000-8000-000000000009"}'),
        (3, '{}'),
        (4, '{}')
) as users (number, app_metadata);

-- What the edge function does, in SQL: a page is claimed, written, settled.
create function pg_temp.run_page(run uuid)
returns void
language plpgsql
as $function$
declare
    claimed record;
begin
    for claimed in select * from tenancy.claim_users(run, 100) where outcome = 'pending' loop
        update auth.users
        set raw_app_meta_data = case
            when claimed.new_value is null then raw_app_meta_data - 'org_id'
            else raw_app_meta_data || jsonb_build_object('org_id', claimed.new_value)
        end
        where id = claimed.user_id;
        perform tenancy.settle_users(run, jsonb_build_array(
            jsonb_build_object('user_id', claimed.user_id, 'attempts', 1, 'error', null, 'final', true)
        ));
    end loop;
end
$function$;

create temp table run as
select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001', 'overwrite') as id;
select pg_temp.run_page((select id from run));
select tenancy.end_user_pass((select id from run));
select is(
    (tenancy.user_run_summary((select id from run)) ->> 'updated')::integer,
    4,
    'a run has given four users their organization'
);

update auth.users
set raw_app_meta_data = '{"org_id": " "}'
where id = pg_temp.id_of(3);
select is(
    (select reason from tenancy.users_to_revert where run_id = (select id from run) and obstacle = 'conflict'),
    'has no organization now, which is not what the run gave',
    'a blank is no organization'
);
update auth.users
set raw_app_meta_data = '{"org_id": "b0000000-0000-4000-8000-000000000007"}'
where id = pg_temp.id_of(3);
update auth.users
set raw_app_meta_data = raw_app_meta_data || '{"plan": "pro"}'
where id = pg_temp.id_of(4);

select results_eq(
    $$ select right(user_id::text, 1), obstacle from tenancy.users_to_revert where run_id = (select id from run) order by 1 $$,
    $$ values ('1', null), ('2', null), ('3', 'conflict'), ('4', null) $$,
    'who has another organization since then is not to be reverted'
);
select results_eq(
    $$
        select key, value
        from jsonb_each_text(
            tenancy.user_run_preview(reverted_run_id => (select id from run)) - 'users' - 'users_without_org'
        )
        order by key
    $$,
    $$ values ('conflicts', '1'), ('unreachable', '0'), ('would_update', '3') $$,
    'the preview counts what the revert would do'
);

create temp table revert as
select tenancy.start_user_run(reverted_run_id => (select id from run)) as id;
select isnt((select id from revert), (select id from run), 'a revert is a run of its own');
select pg_temp.run_page((select id from revert));
select ok(tenancy.end_user_pass((select id from revert)), 'that ends when everyone has been dealt with');
select results_eq(
    $$
        select right(id::text, 1), raw_app_meta_data
        from auth.users
        where id between pg_temp.id_of(1) and pg_temp.id_of(4)
        order by id
    $$,
    $$
        values
            ('1', '{"provider": "email"}'::jsonb),
            ('2', '{"org_id": "b0000000-0000-4000-8000-000000000009"}'),
            ('3', '{"org_id": "b0000000-0000-4000-8000-000000000007"}'),
            ('4', '{"plan": "pro"}')
    $$,
    'a key that was not there is gone, another value is back, what has changed since is left alone, and so are other keys'
);
select results_eq(
    $$
        select right(user_id::text, 1), outcome, error
        from tenancy.user_metadata_audit
        where run_id = (select id from revert)
        order by user_id
    $$,
    $$
        values
            ('1', 'updated', null),
            ('2', 'updated', null),
            (
                '3',
                'conflict',
                'has organization b0000000-0000-4000-8000-000000000007 now, which is not what the run gave'
            ),
            ('4', 'updated', null)
    $$,
    'the audit has it, with the reason'
);
select is_empty(
    $$
        select *
        from tenancy.users_to_revert
        where run_id = (select id from run)
            and obstacle is null
    $$,
    'then nothing is left to revert'
);

create temp table again as
select tenancy.start_user_run(reverted_run_id => (select id from revert)) as id;
select pg_temp.run_page((select id from again));
select results_eq(
    $$
        select right(id::text, 1), raw_app_meta_data ->> 'org_id'
        from auth.users
        where id between pg_temp.id_of(1) and pg_temp.id_of(4)
        order by id
    $$,
    $$
        values
            ('1', 'b0000000-0000-4000-8000-000000000001'),
            ('2', 'b0000000-0000-4000-8000-000000000001'),
            ('3', 'b0000000-0000-4000-8000-000000000007'),
            ('4', 'b0000000-0000-4000-8000-000000000001')
    $$,
    'a revert can be reverted'
);
select throws_ok(
    $$ select tenancy.start_user_run(reverted_run_id => 'b0000000-0000-4000-8000-000000000001') $$,
    '23503',
    null,
    'a run that does not exist cannot'
);

select * from finish();
rollback;
