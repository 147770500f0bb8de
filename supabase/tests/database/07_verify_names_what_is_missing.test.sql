begin;
set local role postgres;
set local search_path = public, extensions;
select plan(12);
-- Its own tables are not for the guard against unclassified ones, where that is on.
select tenancy.stop_guarding_new_tables();

select is_empty(
    $$ select * from tenancy.verify_schema() where not passed $$,
    'on a migrated database every check of the schema passes'
);
select results_eq(
    $$ select check_name, count(*) from tenancy.verify_schema() where table_name is not null group by 1 order by 1 $$,
    $$
        select check_name, (select count(*) from tenancy.registry where scope = 'org')
        from unnest(array['check', 'column', 'foreign_key', 'immutable', 'index', 'not_null', 'type']) as check_name
    $$,
    'every org-scoped table gets every check'
);

-- As shipped: phase 2 then gives every row its value with the column.
delete from tenancy.user_orgs;
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
create function pg_temp.run(step text)
returns void
language plpgsql
as $function$
begin
    while tenancy.next_step(array[step]) is not null loop
        null;
    end loop;
end
$function$;

select is(
    pg_temp.failed_checks(),
    'check column foreign_key immutable index not_null type',
    'a table that was registered and not migrated fails every check'
);
select pg_temp.run('record_table_before');
select pg_temp.run('add_org_id');
select is(
    pg_temp.failed_checks(),
    'check foreign_key immutable index not_null',
    'after phase 2 it has its column'
);
create index idx_ships_org_id on harbour.ships (org_id);
select pg_temp.run('add_org_id_foreign_key');
select pg_temp.run('refuse_null_org_id');
select pg_temp.run('enforce_org_id');
select pg_temp.run('make_org_id_immutable');
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
select is(pg_temp.failed_checks(), 'immutable', 'a disabled trigger is found');
alter table harbour.ships enable trigger org_id_immutable_ships;
select is(pg_temp.failed_checks(), 'immutable', 'and one that a replica session could pass by');
alter table harbour.ships enable always trigger org_id_immutable_ships;
alter table harbour.ships alter column org_id drop not null;
select is(pg_temp.failed_checks(), 'not_null', 'a column that is nullable again is found');
alter table harbour.ships alter column org_id set not null;
alter table harbour.ships
drop constraint fk_ships_org_id,
add constraint fk_ships_org_id foreign key (org_id) references public.organizations (id) not valid;
select is(pg_temp.failed_checks(), 'foreign_key', 'a foreign key that does not cascade is none');

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
