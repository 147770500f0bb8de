begin;
set local role postgres;
set local search_path = public, extensions;
select plan(20);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

update tenancy.settings set fill_org_id = false;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
create function pg_temp.missing()
returns text
language sql
as $function$
    select string_agg(part, ' ' order by ordinal)
    from tenancy.parts('harbour.ships')
    where not present
$function$;

-- By hand, and under none of the names that the push would give.
alter table harbour.ships
add column org_id uuid not null default public.auth_org_id()
constraint of_an_organization references public.organizations on delete cascade
constraint has_an_organization check (org_id is not null);
create index ships_by_org on harbour.ships (org_id, id);
create trigger keep_org after update on harbour.ships
for each row
when (old.org_id is distinct from new.org_id)
execute function tenancy.refuse_org_id_change();
alter table harbour.ships enable always trigger keep_org;

select is(pg_temp.missing(), null, 'what was made by hand is present under whatever name');
select results_eq(
    $$ select part, name::text collate "default" from tenancy.parts('harbour.ships') $$,
    $$
        values
            ('column', 'org_id'),
            ('default', 'org_id'),
            ('index', 'ships_by_org'),
            ('foreign_key', 'of_an_organization'),
            ('foreign_key_valid', 'of_an_organization'),
            ('check', 'has_an_organization'),
            ('check_valid', 'has_an_organization'),
            ('not_null', 'org_id'),
            ('guard', 'keep_org')
    $$,
    'and is called by that'
);
select is_empty(
    $$ select * from tenancy.push_findings where table_name = 'harbour.ships' $$,
    'nothing of it is a finding'
);
select ok(
    not tenancy.advance(
        'column', 'default', 'invalid_index', 'index', 'foreign_key', 'foreign_key_valid', 'check', 'check_valid', 'not_null', 'guard'
    ),
    'and nothing is made a second time'
);
select is(
    (select undo from tenancy.parts('harbour.ships') where part = 'index'),
    null,
    'an index that serves more than org_id is not taken back'
);

set local search_path = tenancy, harbour, public, extensions;
select is_empty(
    $$ select part, name from tenancy.table_parts where root = 'harbour.ships'::regclass and not present $$,
    'whatever the search_path of the session that looks'
);
set local search_path = extensions;
select is_empty(
    $$ select part, name from tenancy.table_parts where root = 'harbour.ships'::regclass and not present $$,
    'also one that has neither us nor the application'
);
set local search_path = public, extensions;

-- The same names on things that are something else.
drop index harbour.ships_by_org;
create index idx_ships_org_id on harbour.ships (user_id);
select is(pg_temp.missing(), 'index', 'an index of our name on another column is none');
drop index harbour.idx_ships_org_id;
create index idx_ships_org_id on harbour.ships (org_id) where id > 0;
select is(pg_temp.missing(), 'index', 'nor is one over some of the rows');
drop index harbour.idx_ships_org_id;
create index idx_ships_org_id on harbour.ships (user_id, org_id);
select is(pg_temp.missing(), 'index', 'nor one that does not start with org_id');
drop index harbour.idx_ships_org_id;
create index ships_by_org on harbour.ships (org_id);
select is(pg_temp.missing(), null, 'one on org_id alone is');

alter table harbour.ships
drop constraint of_an_organization,
add constraint fk_ships_org_id foreign key (org_id) references public.organizations (id);
select is(pg_temp.missing(), 'foreign_key foreign_key_valid', 'a foreign key that does not cascade is none');
alter table harbour.ships
drop constraint fk_ships_org_id,
add constraint of_an_organization foreign key (org_id) references public.organizations (id) on delete cascade not valid;
select is(pg_temp.missing(), 'foreign_key_valid', 'one that is not valid lacks that');
alter table harbour.ships validate constraint of_an_organization;

alter table harbour.ships
drop constraint has_an_organization,
add constraint lets_null_through check (org_id is not null or id = 0);
select is(pg_temp.missing(), 'check check_valid', 'a check that lets NULL through is none');
alter table harbour.ships
drop constraint lets_null_through,
add constraint has_an_organization check (org_id is not null) not valid;
select is(pg_temp.missing(), 'check_valid', 'one that is not valid lacks that');
alter table harbour.ships validate constraint has_an_organization;

alter table harbour.ships alter column org_id set default gen_random_uuid();
select is(pg_temp.missing(), 'default', 'a default that is not the request''s organization is none');
alter table harbour.ships alter column org_id set default public.auth_org_id();

drop trigger keep_org on harbour.ships;
create trigger org_id_immutable_ships after update of org_id on harbour.ships
for each row
when (old.org_id is distinct from new.org_id)
execute function tenancy.refuse_org_id_change();
alter table harbour.ships enable always trigger org_id_immutable_ships;
select is(pg_temp.missing(), 'guard', 'a guard that fires only where the statement names org_id is none');
drop trigger org_id_immutable_ships on harbour.ships;
create trigger org_id_immutable_ships before update on harbour.ships
for each row
when (old.org_id is distinct from new.org_id)
execute function tenancy.refuse_org_id_change();
alter table harbour.ships enable always trigger org_id_immutable_ships;
select is(pg_temp.missing(), 'guard', 'nor is one that fires before the other triggers');
select is(
    (select undo from tenancy.parts('harbour.ships') where part = 'guard'),
    'drop trigger org_id_immutable_ships on harbour.ships',
    'it can be taken back all the same'
);
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select is(pg_temp.missing(), null, 'and is replaced by the one that it should be');

select * from finish();
rollback;
