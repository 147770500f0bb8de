begin;
set local role postgres;
set local search_path = public, extensions;
select plan(4);

select throws_ok(
    $$ insert into public.imports (user_id, file_name, org_id) values (gen_random_uuid(), 'leads.csv', null) $$,
    '23502',
    'null value in column "org_id" of relation "imports" violates not-null constraint',
    'an insert with NULL fails and says why'
);
select lives_ok(
    $$
        insert into public.imports (user_id, file_name, org_id)
        values (gen_random_uuid(), 'leads.csv', 'a0000000-0000-0000-0000-000000000001')
    $$,
    'an insert with an organization succeeds'
);
select throws_ok(
    $$
        insert into public.imports (user_id, file_name, org_id)
        values (gen_random_uuid(), 'leads.csv', 'a0000000-0000-0000-0000-00000000dead')
    $$,
    '23503',
    null,
    'an organization that does not exist is refused'
);
select lives_ok(
    $$
        insert into public.leads (user_id, full_name, phone_number, org_id)
        values (gen_random_uuid(), 'Ada', '+15550000001', 'a0000000-0000-0000-0000-000000000001')
    $$,
    'the application''s audit trigger records the organization as well'
);

select * from finish();
rollback;
