begin;
set local role postgres;
set local search_path = public, extensions;
select plan(5);

create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
create function pg_temp.add_user(number integer, app_metadata jsonb, provider text default null)
returns void
language sql
as $function$
    insert into auth.users (
        instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
        raw_app_meta_data, raw_user_meta_data, created_at, updated_at
    )
    values (
        '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
        format('listed%s@example.com', number), '', '', '', '', app_metadata, '{}', now(), now()
    );
    insert into auth.identities (provider_id, user_id, identity_data, provider, created_at, updated_at)
    select pg_temp.id_of(number), pg_temp.id_of(number), '{}', name, now(), now()
    from unnest(string_to_array(provider, ' ')) as name
$function$;
create function pg_temp.listed(numbers int4range)
returns table (number integer, reason text)
language sql
as $function$
    select right(user_id::text, 2)::integer, reason
    from tenancy.user_preflight
    where user_id in (select pg_temp.id_of(number) from generate_series(lower(numbers), upper(numbers) - 1) as number)
    order by user_id
$function$;

-- Numbers pass through a double.
select pg_temp.add_user(10, '{"whole": 9007199254740992, "negative": -9007199254740992, "fraction": 0.1, "tiny": 5e-200, "large": 1e22}');
select pg_temp.add_user(11, '{"customer": 9007199254740993}');
select pg_temp.add_user(12, '{"nested": {"in": ["a list", {"balance": -123456789012345678}]}}');
select pg_temp.add_user(13, '{"fraction": 0.12345678901234567891}');
select pg_temp.add_user(14, '{"large": 1e400}');
select pg_temp.add_user(15, '{"text": "9007199254740993", "org_id": null, "none": [true, {}]}');
select pg_temp.add_user(16, null);
select results_eq(
    $$ select number from pg_temp.listed('[10,17)') $$,
    $$ values (11), (12), (13), (14) $$,
    'whose app_metadata has a number that no double holds is listed, wherever it is'
);
select is(
    (select reason from pg_temp.listed('[12,13)')),
    'app_metadata has -123456789012345678, which the Auth server does not keep exactly when it writes the user: make it text',
    'with the number'
);
select is_empty(
    $$ select from tenancy.users_without_org where user_id = pg_temp.id_of(11) and obstacle is not null $$,
    'a run updates such a user all the same'
);

-- A sign-in and an update at the same moment: the last one to write wins.
select pg_temp.add_user(20, '{"provider": "email", "providers": ["email"]}', 'email google azure');
select pg_temp.add_user(21, '{"provider": "email", "providers": ["email", "google"]}', 'email google');
select pg_temp.add_user(22, '{"provider": "email", "providers": ["email", "google"]}', 'email');
select pg_temp.add_user(23, '{}', 'email');
select pg_temp.add_user(24, '{"providers": "email"}', 'google');
select pg_temp.add_user(25, '{"provider": "email", "providers": ["email"]}', 'email google');
update auth.users set raw_app_meta_data = '{"providers": []}', deleted_at = now() where id = pg_temp.id_of(25);
select results_eq(
    $$ select number, reason from pg_temp.listed('[20,26)') $$,
    $$
        values (
            20,
            'app_metadata.providers lacks azure, google of auth.identities: a sign-in lost its change to an update at the same moment; the next'
            ' sign-in through a provider puts it back'
        )
    $$,
    'whose sign-in has lost its entry in providers is listed'
);
select is_empty(
    $$ select from pg_temp.listed('[20,21)') where reason ~ 'cannot read' $$,
    'which keeps nobody from being updated'
);

select * from finish();
rollback;
