begin;
set local role postgres;
set local search_path = public, extensions;
select plan(14);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, flagship_id integer references harbour.ships (id));
create table harbour.cargo (id integer primary key, company_id uuid references public.organizations (id));
create table harbour.crates (
    id integer primary key, user_id uuid, ship_id integer references harbour.ships (id), cargo_id integer references harbour.cargo (id), why text
);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'cargo', 'org', 'secondary'),
    ('harbour', 'crates', 'org', 'secondary');

create function pg_temp.org(number integer) returns uuid language sql as
$$ select format('b0000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
create function pg_temp.person(number integer) returns uuid language sql as
$$ select format('00000000-0000-4000-8000-%s', lpad(number::text, 12, '0'))::uuid $$;
insert into public.organizations (id, name)
select pg_temp.org(number), 'org ' || number from generate_series(1, 3) as number;
-- 1 is in 1 and 2, 2 in 2 alone, 3 in 3; 4 is in 2, and in none at the moment.
insert into tenancy.user_orgs (user_id, org_id)
values (pg_temp.person(1), pg_temp.org(1)), (pg_temp.person(2), pg_temp.org(2)), (pg_temp.person(3), pg_temp.org(3)), (pg_temp.person(4), null);

create temp table forms as
select decisions.root, decisions.in_words, rule.org_id, rule.joins, rule.is_conflict
from tenancy.decisions
join org_migration.decision_rules as rule on rule.root = decisions.root and not rule.by_memberships;
select is_empty(
    $$ select from forms where in_words || org_id || joins || is_conflict like '%memberships%' or in_words like '%several%' $$,
    'while nobody is in several organizations, no statement and no word knows of them'
);
insert into tenancy.memberships (user_id, org_id)
values
    (pg_temp.person(1), pg_temp.org(1)), (pg_temp.person(1), pg_temp.org(2)), (pg_temp.person(2), pg_temp.org(2)),
    (pg_temp.person(3), pg_temp.org(3)), (pg_temp.person(4), pg_temp.org(2));
select results_eq(
    $$ select rule.joins, rule.org_id from org_migration.decision_rules as rule where not rule.by_memberships order by rule.root::oid $$,
    $$ select joins, org_id from forms order by root::oid $$, 'nor do the statements for the time when nobody is'
);
select is(
    (select in_words from tenancy.decisions where root = 'harbour.crates'::regclass),
    'the owner in user_id (of several organizations that of harbour.ships through ship_id or harbour.cargo through cargo_id),'
    ' else harbour.ships through ship_id, else harbour.cargo through cargo_id, else the default organization',
    'the rule can be read as a sentence'
);

insert into harbour.ships (id, user_id, flagship_id)
values
    (1, pg_temp.person(1), null), (2, pg_temp.person(2), null), (3, pg_temp.person(3), null),
    -- Found before the one that it follows has an organization.
    (4, pg_temp.person(1), 6), (5, pg_temp.person(1), 5), (6, pg_temp.person(1), 2);
insert into harbour.cargo (id, company_id) values (1, pg_temp.org(1)), (2, pg_temp.org(2)), (3, pg_temp.org(3));
create temp table expected (id integer, user_id uuid, ship_id integer, cargo_id integer, why text, org integer, is_conflict boolean);
insert into expected
values
    (1, pg_temp.person(1), null, null, 'without a parent the active organization', 1, false),
    (2, pg_temp.person(1), 2, null, 'the parent in another of the owner''s organizations', 2, false),
    (3, pg_temp.person(1), 1, null, 'the parent in the active one', 1, false),
    (4, pg_temp.person(1), 3, null, 'a parent where the owner is no member decides nothing', 1, true),
    (5, pg_temp.person(2), 1, null, 'nor for who is in one organization alone', 2, true),
    (6, pg_temp.person(1), 3, 2, 'the first parent that is in one of them', 2, true),
    (7, pg_temp.person(1), 2, 1, 'and of two that are the first', 2, true),
    (8, pg_temp.person(4), 2, null, 'who is in none at the moment leaves it to the parent', 2, false),
    (9, pg_temp.person(4), null, null, 'or to nobody', 0, false),
    (10, null, 2, null, 'a row without an owner follows its parent', 2, false),
    (11, pg_temp.person(9), null, null, 'whom nobody knows decides nothing', 0, false);
insert into harbour.crates (id, user_id, ship_id, cargo_id, why) select id, user_id, ship_id, cargo_id, why from expected;

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key') loop null; end loop; end $$;
do $$ begin while tenancy.advance('leftovers') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check', 'last_resort') loop null; end loop; end $$;

create function pg_temp.organization(org_id uuid) returns integer language sql as
$$ select case when org_id = settings.default_org_id then 0 else right(org_id::text, 1)::integer end from tenancy.settings $$;
select results_eq(
    $$ select why, pg_temp.organization(org_id) from harbour.crates order by id $$,
    $$ select why, org from expected order by id $$, 'the backfill decides by the parent that is in one of the owner''s organizations'
);
select results_eq(
    $$ select id, pg_temp.organization(org_id) from harbour.ships order by id $$,
    $$ values (1, 1), (2, 2), (3, 3), (4, 2), (5, 1), (6, 2) $$,
    'a row waits for its parent to have one, and takes the active one where it waits for itself'
);
select results_eq(
    $$ select (row_key ->> 'id')::integer from org_migration.backfill_conflicts where relation = 'harbour.crates'::regclass order by 1 $$,
    $$ select id from expected where is_conflict order by id $$,
    'it is a conflict where the sources disagree all the same'
);
select results_eq(
    $$ select entry collate "default", rows, conflicts from tenancy.count_sources('harbour.crates') $$,
    $$ values ('user_id', 7::bigint, 4::bigint), ('ship_id', 2, 0), (null, 2, 0) $$,
    'such rows count as the owner''s'
);

-- The filler, of the same rows. Whom nothing places it refuses.
do $$
declare
    wanted record;
begin
    for wanted in select * from expected where org > 0 loop
        insert into harbour.crates (id, user_id, ship_id, cargo_id) values (100 + wanted.id, wanted.user_id, wanted.ship_id, wanted.cargo_id);
    end loop;
end
$$;
select results_eq(
    $$ select id - 100, pg_temp.organization(org_id) from harbour.crates where id > 100 order by id $$,
    $$ select id, org from expected where org > 0 order by id $$, 'the filler decides as the backfill did'
);
select throws_ok(
    $$ insert into harbour.crates (id, user_id) values (109, pg_temp.person(4)) $$, '23502', null, 'and refuses a row of who is in none'
);

-- Memberships that end and come.
delete from tenancy.memberships where org_id = pg_temp.org(2) and user_id = pg_temp.person(1);
insert into harbour.crates (id, user_id, ship_id) values (201, pg_temp.person(1), 2);
select is(
    (select pg_temp.organization(org_id) from harbour.crates where id = 201), 1, 'who is no member any more has the active organization'
);
delete from tenancy.memberships;
update tenancy.user_orgs set org_id = pg_temp.org(1) where user_id = pg_temp.person(1);
insert into harbour.crates (id, user_id, ship_id) values (202, pg_temp.person(1), 2);
select is((select pg_temp.organization(org_id) from harbour.crates where id = 202), 1, 'so has everyone while there are no memberships');
select is_empty($$ select from tenancy.filler_findings $$, 'which outdates no filler');
insert into tenancy.memberships (user_id, org_id) values (pg_temp.person(1), pg_temp.org(2));
insert into harbour.crates (id, user_id, ship_id) values (203, pg_temp.person(1), 2);
select is((select pg_temp.organization(org_id) from harbour.crates where id = 203), 2, 'and the first one that comes counts at once');
select is_empty($$ select from tenancy.filler_findings $$, 'which outdates none either');

select * from finish();
rollback;
