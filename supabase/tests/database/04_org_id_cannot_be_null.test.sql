begin;
set local role postgres;
set local search_path = public, extensions;
select plan((select 2 * count(*)::integer from tenancy.registry where scope = 'org') + 4);
-- Its own tables are not for the guard against unclassified ones, where that is on.
select tenancy.stop_guarding_new_tables();

select col_not_null(schema_name, table_name, 'org_id', format('org_id of %I.%I is NOT NULL', schema_name, table_name))
from tenancy.org_scoped_tables;

select isnt_empty(
    format(
        $query$
            select
            from information_schema.check_constraints
            join pg_constraint
                on conname = constraint_name
                and conrelid = %L::regclass
                and convalidated
            where check_clause in ('(org_id IS NOT NULL)', '((org_id IS NOT NULL))')
        $query$,
        relation::text
    ),
    format('%I.%I has a valid CHECK that org_id is not NULL', schema_name, table_name)
)
from tenancy.org_scoped_tables;

create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
insert into harbour.ships (id) values (1), (2);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');

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
select pg_temp.run('record_table_before');
select pg_temp.run('add_org_id');
select pg_temp.run('backfill_org_id');
create index on harbour.ships (org_id);
select pg_temp.run('add_org_id_foreign_key');

insert into harbour.ships (id) values (3);
select pg_temp.run('refuse_null_org_id');
select pg_temp.run('enforce_org_id');
select is(
    (select org_id from harbour.ships where id = 3),
    (select default_org_id from tenancy.settings),
    'a row that came without organization after the backfill gets one before the constraint'
);
select throws_ok(
    $$ insert into harbour.ships (id, org_id) values (4, null) $$,
    '23502',
    null,
    'an explicit NULL is refused'
);
select throws_ok(
    $$ insert into harbour.ships (id) values (4) $$,
    '23502',
    null,
    'a row without organization is refused where the request has none either'
);
select lives_ok(
    $$ insert into harbour.ships (id, org_id) values (4, (select default_org_id from tenancy.settings)) $$,
    'a row with its organization is accepted'
);

select * from finish();
rollback;
