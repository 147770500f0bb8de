begin;
set local role postgres;
set local search_path = public, extensions;
select plan(6);

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
insert into public.imports (user_id, file_name, org_id) values ('00000000-0000-4000-8000-00000000dead', 'leads.csv', null);
select is(
    (select org_id from public.imports where user_id = '00000000-0000-4000-8000-00000000dead'),
    (select default_org_id from tenancy.settings),
    'while all belong to the default organization, so does an insert with NULL'
);
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'a0000000-0000-0000-0000-000000000001');
select throws_ok(
    $$ insert into public.imports (user_id, file_name, org_id) values (gen_random_uuid(), 'leads.csv', null) $$,
    '23502',
    'public.imports got a row without org_id, and nothing says whose it is: the statement did not send it, the token has no'
    ' app_metadata.org_id, and no organization follows from its user_id; send org_id, or place the user in tenancy.user_orgs, see'
    ' tenancy.enable_new_users for those who sign up',
    'with a mapping it fails where that says nothing, and says why'
);
alter table public.imports disable trigger zzz_fill_org_id_imports;
select throws_ok(
    $$ insert into public.imports (user_id, file_name, org_id) values (gen_random_uuid(), 'leads.csv', null) $$,
    '23502',
    'null value in column "org_id" of relation "imports" violates not-null constraint',
    'and without the filler the constraint refuses it'
);
alter table public.imports enable trigger zzz_fill_org_id_imports;
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
