begin;
set local role postgres;
set local search_path = public, extensions;
select plan(15);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

select is_empty(
    $$ select * from tenancy.verify_schema() where not passed $$,
    'on a migrated database every check of the schema passes'
);
select results_eq(
    $$
        select check_name, count(*)
        from tenancy.verify_schema()
        where check_name in (
            'check', 'check_valid', 'column', 'default', 'foreign_key', 'foreign_key_valid', 'guard', 'index', 'not_null'
        )
        group by 1
        order by 1
    $$,
    $$
        select check_name, (select count(*) from tenancy.registry where scope = 'org')
        from unnest(array[
            'check', 'check_valid', 'column', 'default', 'foreign_key', 'foreign_key_valid', 'guard', 'index', 'not_null'
        ]) as check_name
    $$,
    'every org-scoped table gets a check for each of its parts'
);
select set_eq(
    $$ select check_name from tenancy.verify() where table_name is null $$,
    $$ values ('registry'), ('fillers'), ('bound_keys'), ('api_privileges'), ('auth_org_id'), ('token_hook'), ('users') $$,
    'and the whole gets seven'
);

-- As shipped: nobody is in an organization of their own, and phase 2 gives every row its value with the column.
update tenancy.settings set fill_org_id = true;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where raw_app_meta_data ? 'org_id';
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
insert into harbour.ships (id) values (1), (2);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
create function pg_temp.failed_checks()
returns text
language sql
as $function$
    select string_agg(check_name, ' ' order by check_name)
    from tenancy.verify()
    where table_name = 'harbour.ships'
        and not passed
$function$;

select is(
    pg_temp.failed_checks(),
    'check check_valid column filler foreign_key foreign_key_valid guard index not_null',
    'a table that was registered and not migrated fails every check'
);
do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
select is(
    pg_temp.failed_checks(),
    'check check_valid foreign_key foreign_key_valid guard index not_null',
    'after phase 2 it has its column and its filler'
);
create index idx_ships_org_id on harbour.ships (org_id);
do $$ begin while tenancy.advance('foreign_key', 'foreign_key_valid', 'foreign_key_root') loop null; end loop; end $$;
do $$ begin while tenancy.advance('leftovers') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid', 'not_null') loop null; end loop; end $$;
do $$ begin while tenancy.advance('guard', 'guard_statement') loop null; end loop; end $$;
select is(pg_temp.failed_checks(), null, 'after phase 6 it passes them all');
select results_eq(
    $$ select check_name, detail from tenancy.verify() where table_name = 'harbour.ships' and check_name in ('no_nulls', 'row_count') $$,
    $$
        values
            ('no_nulls', '0 of 2 rows without organization'),
            ('row_count', '2 before, 2 now; the application inserted 0 and deleted 0')
    $$,
    'rows are counted before and after'
);

alter table harbour.ships disable trigger org_id_immutable_ships;
select is(pg_temp.failed_checks(), 'guard', 'a disabled guard is found');
select is(
    (select missing_parts from tenancy.status where relation = 'harbour.ships'::regclass),
    'guard',
    'tenancy.status has it'
);
select set_eq(
    $$ select code, severity, object from tenancy.findings where table_name = 'harbour.ships' $$,
    $$ values ('missing_guard', 'leaks', 'org_id_immutable_ships') $$,
    'and so has tenancy.findings'
);
alter table harbour.ships enable trigger org_id_immutable_ships;
select is(pg_temp.failed_checks(), 'guard', 'and one that a replica session could pass by');
alter table harbour.ships enable always trigger org_id_immutable_ships;
alter table harbour.ships alter column org_id drop not null;
select is(pg_temp.failed_checks(), 'not_null', 'a column that is nullable again is found');
alter table harbour.ships alter column org_id set not null;
alter table harbour.ships
drop constraint fk_ships_org_id,
add constraint fk_ships_org_id foreign key (org_id) references public.organizations (id) not valid;
select is(pg_temp.failed_checks(), 'foreign_key foreign_key_valid', 'a foreign key that does not cascade is none');

select ok(
    (select not passed from tenancy.verify() where check_name = 'users')
        = exists (select from tenancy.users_without_org),
    'users without organization fail the users check'
);
delete from harbour.ships;
select results_eq(
    $$ select passed, detail from tenancy.verify() where table_name = 'harbour.ships' and check_name = 'row_count' $$,
    $$ values (false, '2 before, 0 now; the application inserted 0 and deleted 0') $$,
    'rows that are gone and that the application has not deleted, as the statistics know it, are lost'
);

select * from finish();
rollback;
