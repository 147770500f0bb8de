begin;
set local role postgres;
set local search_path = public, extensions;
select plan(22);
-- Whoever is there belongs to the default organization.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();

-- One organization and its users, so that the test need not know who else is there.
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000003', 'three');
create function pg_temp.id_of(number integer)
returns uuid
language sql
as $function$
    select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid
$function$;
insert into tenancy.user_orgs (user_id, org_id)
select pg_temp.id_of(number), 'b0000000-0000-4000-8000-000000000001'
from generate_series(1, 8) as number;
insert into auth.users (
    instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
    raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', pg_temp.id_of(number), 'authenticated', 'authenticated',
    format('sql%s@example.com', number), nullif(token, '-'), '', '', '', app_metadata::jsonb, '{"theme": "dark"}',
    '2020-01-01', '2020-01-02'
from (
    values
        (1, '', '{"legacy_id": 9007199254740993, "balance": 0.1000000000000000055511151231257827, "providers": ["email"]}'),
        (2, '', null),
        (3, '', 'null'),
        (4, '', '{"org_id": null, "plan": "pro"}'),
        (5, '', '{"org_id": "b0000000-0000-4000-8000-00000000dead"}'),
        (6, '', '{"org_id": "b0000000-0000-4000-8000-000000000003"}'),
        (7, '-', '{}'),
        (8, '', '[]')
) as users (number, token, app_metadata);
create temp table before as
select users.* from auth.users;
create function pg_temp.metadata(variadic numbers integer[])
returns text
language sql
as $function$
    select string_agg(coalesce(raw_app_meta_data::text, '-'), ' ' order by id)
    from auth.users
    where id in (select pg_temp.id_of(number) from unnest(numbers) as number)
$function$;
create function pg_temp.outcomes(run uuid)
returns text
language sql
as $function$
    select string_agg(right(user_id::text, 1) || ' ' || outcome, ', ' order by user_id)
    from tenancy.user_metadata_audit
    where run_id = run
$function$;
create function pg_temp.rounds(run uuid)
returns text
language plpgsql
as $function$
declare
    page record;
    pages text[] := '{}';
begin
    for round in 1..3 loop
        loop
            select * into page from tenancy.write_users(run, 3);
            exit when page.claimed = 0;
            pages := pages || format('%s/%s/%s', page.claimed, page.settled, page.failed);
        end loop;
        exit when tenancy.end_user_pass(run);
        pages := pages || 'again'::text;
    end loop;
    return array_to_string(pages, ' ');
end
$function$;

-- A run.
create temp table run as
select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001') as id;
select is(pg_temp.rounds((select id from run)), '3/3/0 3/3/0 2/2/0', 'pages are claimed, written and settled');
select is(
    pg_temp.outcomes((select id from run)),
    '1 updated, 2 updated, 3 updated, 4 updated, 5 updated, 6 conflict, 7 unreachable, 8 unreachable',
    'with the outcomes of a run through the Auth server'
);
select is(
    pg_temp.metadata(1),
    '{"org_id": "b0000000-0000-4000-8000-000000000001", "balance": 0.1000000000000000055511151231257827, "legacy_id": 9007199254740993,'
    ' "providers": ["email"]}',
    'no number is rounded, and no other key is touched'
);
select is(
    pg_temp.metadata(2, 3, 4, 5),
    '{"org_id": "b0000000-0000-4000-8000-000000000001"} {"org_id": "b0000000-0000-4000-8000-000000000001"}'
    ' {"plan": "pro", "org_id": "b0000000-0000-4000-8000-000000000001"} {"org_id": "b0000000-0000-4000-8000-000000000001"}',
    'also where there was no object, null, or an organization that is gone'
);
select is(
    pg_temp.metadata(6, 7, 8), '{"org_id": "b0000000-0000-4000-8000-000000000003"} {} []',
    'conflicts, and users whom the Auth server cannot read, are left alone'
);
select is_empty(
    $$
        select before.id
        from before
        full join auth.users on users.id = before.id
        where to_jsonb(before) - 'raw_app_meta_data' is distinct from to_jsonb(users) - 'raw_app_meta_data'
    $$,
    'no other column changes, and no other user'
);
select results_eq(
    $$ select distinct attempts, error from tenancy.user_metadata_audit where run_id = (select id from run) and outcome = 'updated' $$,
    $$ values (0, null::text) $$,
    'the audit says that the Auth server was not asked'
);
select results_eq(
    $$
        select right(user_id::text, 1), previous_value::text
        from tenancy.user_metadata_audit
        where run_id = (select id from run) and outcome = 'updated'
        order by 1
    $$,
    $$ values ('1', null), ('2', null), ('3', null), ('4', 'null'), ('5', '"b0000000-0000-4000-8000-00000000dead"') $$,
    'and what each had before'
);

-- Its revert.
update auth.users set raw_app_meta_data = raw_app_meta_data || '{"org_id": "b0000000-0000-4000-8000-000000000003"}' where id = pg_temp.id_of(3);
create temp table revert as
select tenancy.start_user_run(reverted_run_id => (select id from run)) as id;
select is(pg_temp.rounds((select id from revert)), '3/3/0 2/2/0', 'a run can be put back in the same way');
select is(
    pg_temp.outcomes((select id from revert)), '1 updated, 2 updated, 3 conflict, 4 updated, 5 updated',
    'except where the organization has changed since'
);
select is_empty(
    $$
        select before.id
        from before
        full join auth.users on users.id = before.id
        where to_jsonb(before) is distinct from to_jsonb(users) and before.id not in (pg_temp.id_of(2), pg_temp.id_of(3))
    $$,
    'then every user is, to the last digit, as before'
);
select is(pg_temp.metadata(2), '{}', 'except that metadata that was NULL is an empty object');

-- Who is given another organization between being claimed and being written.
update auth.users set raw_app_meta_data = '{}' where id = pg_temp.id_of(3);
create function pg_temp.interfere()
returns trigger
language plpgsql
as $function$
begin
    update auth.users
    set raw_app_meta_data = raw_app_meta_data || case new.user_id
        when pg_temp.id_of(1) then '{"org_id": "b0000000-0000-4000-8000-000000000003"}'
        else '{"plan": "free"}'
    end::jsonb
    where id = new.user_id;
    return null;
end
$function$;
create trigger interfere
after insert on tenancy.user_metadata_audit
for each row
when (new.outcome = 'pending')
execute function pg_temp.interfere();
create temp table second as
select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001') as id;
select is(
    pg_temp.rounds((select id from second)), '3/2/0 3/3/0 2/2/0 again 1/1/0',
    'whoever changes between being claimed and being written is not written, and claimed again'
);
drop trigger interfere on tenancy.user_metadata_audit;
select is(
    (select outcome || ': ' || error from tenancy.user_metadata_audit where run_id = (select id from second) and user_id = pg_temp.id_of(1)),
    'conflict: has organization b0000000-0000-4000-8000-000000000003, should have b0000000-0000-4000-8000-000000000001',
    'as what the user has become'
);
select is(
    (select previous_value #>> '{}' from tenancy.user_metadata_audit where run_id = (select id from second) and user_id = pg_temp.id_of(1)),
    'b0000000-0000-4000-8000-000000000003',
    'with the value that a run which overwrites would replace'
);
select is(
    pg_temp.metadata(1, 4),
    '{"org_id": "b0000000-0000-4000-8000-000000000003", "balance": 0.1000000000000000055511151231257827, "legacy_id": 9007199254740993,'
    ' "providers": ["email"]} {"plan": "free", "org_id": "b0000000-0000-4000-8000-000000000001"}',
    'a change of another key is kept, and is no reason to leave the user alone'
);

-- Whom a trigger of the application refuses.
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where id between pg_temp.id_of(1) and pg_temp.id_of(5);
create function pg_temp.refuse()
returns trigger
language plpgsql
as $function$
begin
    if new.id = pg_temp.id_of(2) then
        raise exception 'user 2 is not to be touched';
    elsif new.id = pg_temp.id_of(3) then
        return null;
    end if;
    return new;
end
$function$;
create trigger refuse
before update on auth.users
for each row
when (current_setting('test.refuse', true) = 'on')
execute function pg_temp.refuse();
set local test.refuse = 'on';
create temp table refused as
select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001') as id;
select is(
    pg_temp.rounds((select id from refused)), '3/1/0 3/3/0 2/2/0 again 2/0/0 again 2/2/2',
    'users whom a trigger refuses are tried in three rounds, and then fail'
);
select is(
    pg_temp.outcomes((select id from refused)),
    '1 updated, 2 failed, 3 failed, 4 updated, 5 updated, 6 conflict, 7 unreachable, 8 unreachable',
    'the others of their page are written'
);
select results_eq(
    $$ select right(user_id::text, 1), reason from tenancy.user_problems where run_id = (select id from refused) and outcome = 'failed' order by 1 $$,
    $$
        values
            ('2', 'user 2 is not to be touched'),
            ('3', 'not written: somebody else changed the organization, or a trigger on auth.users did')
    $$,
    'the reason is what the trigger says, or that nothing was written'
);
select is(
    tenancy.user_run_summary((select id from refused)) - array['run_id', 'problems', 'users', 'users_without_org', 'users_in_no_org'],
    '{"done": true, "failed": 2, "deleted": 0, "updated": 3, "conflicts": 1, "remaining": 0, "unreachable": 2, "conflicts_with_default": 0}',
    'the run is done, and its summary as any other'
);
set local test.refuse = 'off';

-- A run that goes on.
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where id between pg_temp.id_of(1) and pg_temp.id_of(3);
create temp table stopped as
select tenancy.start_user_run('b0000000-0000-4000-8000-000000000001') as id;
select tenancy.claim_users((select id from stopped), 2);
select is(
    tenancy.start_user_run('b0000000-0000-4000-8000-000000000001'), (select id from stopped),
    'a run that began through the Auth server goes on in the database'
);
select is(pg_temp.rounds((select id from stopped)), '3/3/0 3/3/0', 'with those whom it had claimed and not written');

select * from finish();
rollback;
