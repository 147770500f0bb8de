begin;
set local role postgres;
set local search_path = public, extensions;
select plan(13);

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
    raw_app_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('moved%s@example.com', number), '', '', '', '', app_metadata::jsonb, now(), now()
from (
    values
        (1, '{}'),
        (2, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}'),
        (3, '{"org_id": ""}'),
        (4, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
        (5, '{"org_id": "b0000000-0000-4000-8000-000000000002"}'),
        (6, '{"org_id": "b0000000-0000-4000-8000-00000000dead"}'),
        (7, '{"org_id": "b0000000-0000-4000-8000-000000000002"}')
) as users (number, app_metadata);
create function pg_temp.outcomes(run uuid)
returns text
language sql
as $function$
    select string_agg(right(user_id::text, 1) || ' ' || outcome, ', ' order by user_id)
    from tenancy.claim_users(run, 100)
$function$;

-- Without a mapping everyone belongs to the default organization, except who has another one.
select results_eq(
    $$ select right(user_id::text, 1), obstacle from tenancy.users_without_org order by 1 $$,
    $$ values ('1', null), ('2', 'conflict'), ('3', null), ('6', 'conflict') $$,
    'who has no organization gets the default one; who has one that is gone is asked about'
);
select is(
    (select reason from tenancy.users_without_org where user_id = pg_temp.id_of(2)),
    (
        select format(
            'has organization b0000000-0000-4000-8000-00000000dead, which does not exist, should have the default one, %s', default_org_id
        )
        from tenancy.settings
    ),
    'the reason says which one is gone, and that it is the default one that the user should have'
);
select ok(
    (select remedy like '%"on_conflict": "overwrite", "move_to_default": true%' from tenancy.user_findings where object = pg_temp.id_of(2)::text),
    'the finding says how to ask for that'
);

-- The mapping has 4 in the default organization, 5 in organization one, 6 in one and 7 in none.
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id_of(4), settings.default_org_id from tenancy.settings
union all
values
    (pg_temp.id_of(1), 'b0000000-0000-4000-8000-000000000001'::uuid),
    (pg_temp.id_of(5), 'b0000000-0000-4000-8000-000000000001'),
    (pg_temp.id_of(6), 'b0000000-0000-4000-8000-000000000001'),
    (pg_temp.id_of(7), null);
select tenancy.enable_new_users('default');
select is(
    tenancy.user_run_preview() - 'users' - 'users_without_org' - 'users_in_no_org',
    '{"conflicts": 4, "unreachable": 0, "would_update": 3, "conflicts_with_default": 2}',
    'a dry run counts them apart from the other conflicts'
);
select is(
    (tenancy.user_run_preview(on_conflict => 'overwrite') - 'users' - 'users_without_org' - 'users_in_no_org'),
    '{"conflicts": 2, "unreachable": 0, "would_update": 5, "conflicts_with_default": 2}',
    'as does one that would overwrite'
);
select is(
    (tenancy.user_run_preview(on_conflict => 'overwrite', move_to_default => true) - 'users' - 'users_without_org' - 'users_in_no_org'),
    '{"conflicts": 0, "unreachable": 0, "would_update": 7, "conflicts_with_default": 0}',
    'until it would move them as well'
);
create temp table overwriting as
select tenancy.start_user_run(on_conflict => 'overwrite') as id;
select is(
    pg_temp.outcomes((select id from overwriting)),
    '1 pending, 2 conflict, 3 pending, 4 conflict, 5 pending, 6 pending, 7 pending',
    'a run that overwrites leaves alone who would be moved to the default organization, and nobody else'
);
select is(
    (select new_value from tenancy.user_metadata_audit where run_id = (select id from overwriting) and user_id = pg_temp.id_of(7)),
    null,
    'it takes the organization from a user whom the mapping has in none'
);
select is(
    (tenancy.user_run_summary((select id from overwriting)) ->> 'conflicts_with_default')::integer, 2,
    'it counts them apart, among the conflicts'
);
select is(
    (
        select array_agg(problem ->> 'outcome' order by problem ->> 'user_id')
        from jsonb_array_elements(tenancy.user_run_summary((select id from overwriting)) -> 'problems') as problem
    ),
    array['conflict', 'conflict'],
    'and names them'
);
create temp table moving as
select tenancy.start_user_run(on_conflict => 'overwrite', move_to_default => true) as id;
select isnt((select id from moving), (select id from overwriting), 'the request that says so is another one');
select is(
    pg_temp.outcomes((select id from moving)),
    '1 pending, 2 pending, 3 pending, 4 pending, 5 pending, 6 pending, 7 pending',
    'and moves them'
);
create temp table keeping as
select tenancy.start_user_run(move_to_default => true) as id;
select is(
    pg_temp.outcomes((select id from keeping)),
    '1 pending, 2 conflict, 3 pending, 4 conflict, 5 conflict, 6 pending, 7 conflict',
    'a run that keeps other organizations moves nobody'
);

select * from finish();
rollback;
