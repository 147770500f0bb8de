begin;
set local role postgres;
set local search_path = public, extensions;
select plan(28);

delete from tenancy.user_orgs;
select tenancy.disable_new_users();
-- Whoever is there has theirs.
update auth.users
set raw_app_meta_data = coalesce(raw_app_meta_data, '{}') || jsonb_build_object('org_id', settings.default_org_id)
from tenancy.settings;
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into auth.users (
    instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, is_anonymous, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('placed%s@example.com', number), '', '', '', '', app_metadata::jsonb, number = 8, now(), now()
from (
    values
        (1, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
        (2, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
        (3, '{"org_id": "B0000000-0000-4000-8000-000000000002"}'),
        (4, '{"org_id": ""}'),
        (5, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}'),
        (6, '{"org_id": "everything"}'),
        (7, null),
        (8, '{}'),
        (9, '{"org_id": {"id": 1}}')
) as users (number, app_metadata);
create function pg_temp.orgs(variadic numbers integer[])
returns text
language sql
as $function$
    select string_agg(coalesce(right(org_id::text, 1) || left(org_id::text, 1), '-'), ' ' order by position)
    from unnest(numbers) with ordinality as listed (number, position)
    cross join lateral tenancy.org_of(pg_temp.id_of(number)) as org_id
$function$;

-- Without a mapping.
select is(pg_temp.orgs(2, 3), '2b 2b', 'a user is in the organization of app_metadata, in whatever case it is written');
select is(
    pg_temp.orgs(4, 5, 6, 7, 9),
    '1a 1a 1a 1a 1a',
    'an empty, unknown or malformed claim counts as missing: without a mapping that is the default organization'
);
select is(pg_temp.orgs(8), '-', 'an anonymous user is in none');
select is(pg_temp.orgs(99), '1a', 'the rows of a user who is gone belong to the default organization');

-- With one.
insert into tenancy.user_orgs (user_id, org_id)
values
    (pg_temp.id_of(1), 'b0000000-0000-4000-8000-000000000001'),
    (pg_temp.id_of(2), null),
    (pg_temp.id_of(98), 'b0000000-0000-4000-8000-000000000001');
select is(pg_temp.orgs(1), '1b', 'the mapping comes before the claim');
select is(pg_temp.orgs(2), '-', 'also where it says that the user is in none');
select is(pg_temp.orgs(3), '2b', 'a claim places whom the mapping leaves out');
select is(pg_temp.orgs(4, 5, 6, 7, 9), '- - - - -', 'and nothing places the others');
select is(pg_temp.orgs(98, 99), '1b -', 'of users who are gone the mapping places those whom it names');
select is(
    (select org_id from tenancy.fallback_organization),
    null,
    'with a mapping there is no organization to fall back to'
);
select results_eq(
    $$
        select right(user_id::text, 1), obstacle, on_purpose, reason
        from tenancy.users_without_org
        where user_id between pg_temp.id_of(1) and pg_temp.id_of(9)
        order by 1
    $$,
    $$
        values
            ('1', 'conflict', false, 'has organization b0000000-0000-4000-8000-000000000002, should have b0000000-0000-4000-8000-000000000001'),
            ('2', 'conflict', false, 'has organization b0000000-0000-4000-8000-000000000002, is in none'),
            ('4', 'unplaced', true, 'has no organization in app_metadata, is in none'),
            ('5', 'unplaced', true, 'has organization b0000000-0000-4000-8000-00000000dead, which does not exist, is in none'),
            ('6', 'unplaced', true, 'has organization everything, which does not exist, is in none'),
            ('7', 'unplaced', true, 'has no organization in app_metadata, is in none'),
            ('9', 'unplaced', true, 'has organization {"id": 1}, which does not exist, is in none')
    $$,
    'who is in none is named, except anonymous users, and on purpose; a token with another organization than the mapping''s is a conflict'
);
select is(
    (select severity from org_migration.mapping_findings where code = 'users_left_out'),
    'decide',
    'that the mapping leaves users out is said before the push'
);
select matches(
    (select problem from org_migration.mapping_findings),
    format(
        '^has %s users in no organization',
        (select count(*) from tenancy.placed_users where org_id is null and not is_anonymous)
    ),
    'with their number'
);
select matches(
    (select detail from tenancy.verify() where check_name = 'users'),
    format('; %s in no organization on purpose$', (select count(*) from tenancy.placed_users where org_id is null) - 1),
    'the check of users counts them apart, anonymous users among them, and not the one whose token has an organization'
);
select ok(
    not (select passed from tenancy.verify() where check_name = 'users'),
    'and fails while somebody has another organization than the mapping says, or one without being in any'
);
select is_empty(
    $$
        select *
        from tenancy.next_users(
            jsonb_populate_record(
                null::tenancy.user_metadata_runs, '{"on_conflict": "keep", "last_user_id": "00000000-0000-0000-0000-000000000000"}'
            ),
            null
        )
        where user_id in (select user_id from tenancy.placed_users where org_id is null and user_id <> pg_temp.id_of(2))
    $$,
    'a run of the function leaves who is in none alone'
);
savepoint before_purpose;
delete from auth.users where id in (pg_temp.id_of(1), pg_temp.id_of(2));
update tenancy.user_orgs set org_id = 'b0000000-0000-4000-8000-000000000002' where user_id = pg_temp.id_of(98);
select ok(
    (select passed from tenancy.verify() where check_name = 'users'),
    'the check of users passes when only those are left who are in none on purpose'
);
select tenancy.enable_new_users('application');
delete from tenancy.user_orgs;
select matches(
    (select detail from tenancy.verify() where check_name = 'users'),
    '^5 of \d+ users .*0 missing, 0 conflicts, 5 unplaced, 0 unreachable.; 1 in no organization on purpose$',
    'nobody is left out by a mapping that nobody has made'
);
select ok(
    not (select passed from tenancy.verify() where check_name = 'users'),
    'so the check fails'
);
select is(
    (select tenancy.user_counts() ->> 'users_in_no_org'), '1', 'the anonymous user is still in none on purpose'
);
insert into tenancy.user_orgs (user_id, org_id) values (pg_temp.id_of(4), null);
select is(
    (select tenancy.user_counts() ->> 'users_in_no_org'), '2', 'and so is who has no organization in the mapping, as after the loss of theirs'
);
rollback to before_purpose;

-- The modes.
select tenancy.enable_new_users('default');
select is(pg_temp.orgs(4, 5, 6, 7, 9), '1a 1a 1a 1a 1a', 'where new users are in the default organization, so are they');
select is(pg_temp.orgs(1, 2, 3, 8), '1b - 2b -', 'except whom mapping or claim places or leaves out, and anonymous users');
select tenancy.enable_new_users('default', true);
select is(pg_temp.orgs(8), '1a', 'who are as well where that is asked for');
select tenancy.enable_new_users('personal');
select is(pg_temp.orgs(4, 7), '- -', 'where new users get one of their own, nobody falls into the default one');
select tenancy.enable_new_users('application');
select is(pg_temp.orgs(4, 7), '- -', 'nor where the application places them');

-- Whoever is in the default organization when that is chosen stays there, with their rows.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
insert into org_migration.tables_before
select 'tenancy.settings'::regclass, 0, 0, 0, false, '{}'
where not exists (select from org_migration.tables_before);
select tenancy.enable_new_users('personal');
select is(pg_temp.orgs(1, 3, 4, 5, 7), '2b 2b 1a 1a 1a', 'after a push without a mapping, personal organizations are for those who come');
select is(pg_temp.orgs(8), '-', 'anonymous users stay in none');

select * from finish();
rollback;
