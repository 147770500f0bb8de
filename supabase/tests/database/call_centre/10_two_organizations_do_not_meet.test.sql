begin;
set local role postgres;
set local search_path = public, extensions;
select plan(15);

insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');

-- The documented policy of a table: org_id alone decides.
drop policy "own rows" on public.calls;
create policy "own organization" on public.calls
to authenticated
using (org_id = (select public.auth_org_id()))
with check (org_id = (select public.auth_org_id()));

insert into public.calls (id, user_id, org_id)
values
    ('c0000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001'),
    ('c0000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000002'),
    ('c0000000-0000-4000-8000-000000000003', '00000000-0000-4000-8000-000000000003', 'b0000000-0000-4000-8000-000000000002');

set local role authenticated;
set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-000000000001", "role": "authenticated", "app_metadata": {"org_id": "b0000000-0000-4000-8000-000000000001"}}';
select results_eq(
    $$ select right(id::text, 1) from public.calls $$,
    $$ values ('1') $$,
    'a user of organization one sees its calls and no others'
);
select results_eq(
    $$ select name from public.organizations $$,
    $$ values ('one') $$,
    'and its own organization'
);
select lives_ok(
    $$ insert into public.calls (user_id) values ('00000000-0000-4000-8000-000000000001') $$,
    'a call that does not say its organization goes to the caller''s'
);
select results_eq(
    $$ select distinct org_id from public.calls $$,
    $$ values ('b0000000-0000-4000-8000-000000000001'::uuid) $$,
    'which is organization one'
);
select throws_ok(
    $$
        insert into public.calls (user_id, org_id)
        values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000002')
    $$,
    '42501',
    'new row violates row-level security policy for table "calls"',
    'a call for organization two is refused'
);
select is_empty(
    $$ update public.calls set status = 'failed' where id = 'c0000000-0000-4000-8000-000000000002' returning id $$,
    'the calls of organization two cannot be changed'
);
select is_empty(
    $$ delete from public.calls where id = 'c0000000-0000-4000-8000-000000000002' returning id $$,
    'nor deleted'
);
select throws_ok(
    $$ update public.calls set org_id = 'b0000000-0000-4000-8000-000000000002' where id = 'c0000000-0000-4000-8000-000000000001' $$,
    '42501',
    'new row violates row-level security policy for table "calls"',
    'nor can a call be given away: the policy refuses it'
);
set local role service_role;
select throws_ok(
    $$ update public.calls set org_id = 'b0000000-0000-4000-8000-000000000002' where id = 'c0000000-0000-4000-8000-000000000001' $$,
    '23001',
    'org_id of public.calls is immutable: a row of organization b0000000-0000-4000-8000-000000000001'
    ' would go to b0000000-0000-4000-8000-000000000002',
    'and to the backend, which no policy holds, the guard does'
);
set local role authenticated;

set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-000000000002", "role": "authenticated", "app_metadata": {"org_id": "b0000000-0000-4000-8000-000000000002"}}';
select results_eq(
    $$ select right(id::text, 1) from public.calls order by 1 $$,
    $$ values ('2'), ('3') $$,
    'a user of organization two sees both of its calls, also those of a colleague'
);
select isnt_empty(
    $$ update public.calls set status = 'completed' where id = 'c0000000-0000-4000-8000-000000000003' returning id $$,
    'and can change them'
);
select throws_ok(
    $$ select public.auth_org_id() from public.calls where org_id = 'x' $$,
    '22P02',
    null,
    'a malformed organization is an error, not a way in'
);

set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-000000000001", "role": "authenticated", "user_metadata": {"org_id": "b0000000-0000-4000-8000-000000000001"}, "app_metadata": {}}';
select is_empty(
    $$ select from public.calls $$,
    'a user without organization sees nothing, whatever user_metadata says'
);
select throws_ok(
    $$ insert into public.calls (user_id) values ('00000000-0000-4000-8000-000000000001') $$,
    '42501',
    'new row violates row-level security policy for table "calls"',
    'and can insert nothing'
);
set local request.jwt.claims = '';
select is_empty(
    $$ select from public.calls $$,
    'a request without token sees nothing'
);

select * from finish();
rollback;
