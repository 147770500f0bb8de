begin;
set local role postgres;
set local search_path = public, extensions;
select plan(6);

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
select tenancy.enable_new_users('default', true);
select is(pg_temp.locks(), 0::bigint, 'before the push who signs up waits for nothing');
select is(pg_temp.triggers(), 0::bigint, 'since the triggers come with the check of the list');
select tenancy.assert_registry();
select is(pg_temp.triggers(), 2::bigint, 'at its end');
select is(
    (select concat_ws(' ', new_users, new_users_anonymous) from tenancy.settings), 'default t', 'with the choice that was made'
);
update tenancy.settings set new_users = null;
select tenancy.assert_registry();
select is((select new_users from tenancy.settings), null, 'where nothing is chosen the check chooses nothing');

select * from finish();
rollback;
