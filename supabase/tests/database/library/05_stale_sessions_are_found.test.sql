begin;
set local role postgres;
set local search_path = public, extensions;
select plan(2);

-- Four users were updated ten minutes ago; their sessions got their tokens at other times.
insert into auth.users (instance_id, id, aud, role, email)
select
    '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-00000000000%s', number)::uuid, 'authenticated',
    'authenticated', format('stale%s@example.com', number)
from generate_series(1, 4) as number;
insert into auth.sessions (id, user_id, created_at, refreshed_at)
values
    (gen_random_uuid(), '00000000-0000-4000-8000-000000000001', now() - interval '30 minutes', null),
    (gen_random_uuid(), '00000000-0000-4000-8000-000000000002', now() - interval '3 hours', now() at time zone 'utc' - interval '20 minutes'),
    (gen_random_uuid(), '00000000-0000-4000-8000-000000000003', now() - interval '3 hours', now() at time zone 'utc' - interval '5 minutes'),
    (gen_random_uuid(), '00000000-0000-4000-8000-000000000004', now() - interval '3 hours', null);
insert into tenancy.user_metadata_runs (run_id, on_conflict) values ('b0000000-0000-4000-8000-000000000001', 'keep');
insert into tenancy.user_metadata_audit (run_id, user_id, outcome, recorded_at)
select 'b0000000-0000-4000-8000-000000000001', id, 'updated', now() - interval '10 minutes'
from auth.users
where email like 'stale%';

select results_eq(
    $$
        select right(user_id::text, 1), stale_until - now()
        from tenancy.stale_sessions()
        where user_id in (select id from auth.users where email like 'stale%')
        order by user_id
    $$,
    $$ values ('1', interval '30 minutes'), ('2', interval '40 minutes') $$,
    'a token from before the change is stale until it expires; one that was refreshed since, or has expired, is not'
);
select results_eq(
    $$
        select right(user_id::text, 1)
        from tenancy.stale_sessions('25 minutes')
        where user_id in (select id from auth.users where email like 'stale%')
    $$,
    $$ values ('2') $$,
    'how long that is, the project''s jwt_expiry says'
);

select * from finish();
rollback;
