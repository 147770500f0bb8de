begin;
set local role postgres;
set local search_path = public, extensions;
select plan(8);

create function pg_temp.triggers()
returns bigint
language sql
as $function$
    select count(distinct tgfoid)
    from pg_trigger
    where tgrelid = 'auth.users'::regclass and tgfoid in ('tenancy.set_org_of_new_user'::regproc, 'tenancy.keep_org_of_new_user'::regproc)
$function$;
-- What a sign-up would wait for.
create function pg_temp.locks()
returns bigint
language sql
as $function$
    select count(*)
    from pg_locks
    where relation = 'auth.users'::regclass and pid = pg_backend_pid() and mode in ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
$function$;
select is(pg_temp.triggers(), 0::bigint, 'nobody has chosen what new users get');

-- As before the first push.
update tenancy.registry set table_oid = null;
select tenancy.enable_new_users('personal', true);
select is(pg_temp.locks(), 0::bigint, 'before the push who signs up waits for nothing');
select is(pg_temp.triggers(), 0::bigint, 'since the triggers come with the check of the list');
insert into tenancy.user_orgs (user_id, org_id) select gen_random_uuid(), default_org_id from tenancy.settings;
insert into auth.users (instance_id, id, aud, role, email, created_at)
values
    ('00000000-0000-0000-0000-000000000000', '00000000-0000-4000-8000-000000000001', 'authenticated', 'authenticated', 'now@example.com', now()),
    (
        '00000000-0000-0000-0000-000000000000', '00000000-0000-4000-8000-000000000002', 'authenticated', 'authenticated', 'before@example.com',
        now() - interval '1 hour'
    );
select tenancy.assert_registry();
select is(pg_temp.triggers(), 2::bigint, 'at its end');
select isnt(
    tenancy.org_of('00000000-0000-4000-8000-000000000001'), null, 'who signed up meanwhile has an organization of their own'
);
select is(tenancy.org_of('00000000-0000-4000-8000-000000000002'), null, 'and who was there when rows were decided has none, as the mapping says');
select is(
    (select concat_ws(' ', new_users, new_users_anonymous) from tenancy.settings), 'personal t', 'with the choice that was made'
);
update tenancy.settings set new_users = null;
select tenancy.assert_registry();
select is((select new_users from tenancy.settings), null, 'where nothing is chosen the check chooses nothing');

select * from finish();
rollback;
