begin;
set local role postgres;
set local search_path = public, extensions;
select plan(10);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- Two tables are enough: the others are left out of what is undone.
update tenancy.settings set fill_org_id = true;
delete from tenancy.registry;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.docks (id integer primary key, user_id uuid, org_id uuid not null references public.organizations (id) on delete cascade);
create index docks_by_org on harbour.docks (org_id);
insert into harbour.ships (id) values (1);
insert into tenancy.registry (schema_name, table_name, scope, priority)
values
    ('harbour', 'ships', 'org', 'secondary'),
    ('harbour', 'docks', 'org', 'secondary');
create function pg_temp.definition(target regclass)
returns text
language sql
as $function$
    select concat_ws(
        E'\n',
        (
            select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, atthasdef), E'\n' order by attname)
            from pg_attribute
            where attrelid = target
                and attnum > 0
                and not attisdropped
        ),
        (select string_agg(pg_get_constraintdef(oid) || convalidated, E'\n' order by conname) from pg_constraint where conrelid = target),
        (select string_agg(pg_get_indexdef(indexrelid), E'\n' order by indexrelid) from pg_index where indrelid = target),
        (select string_agg(pg_get_triggerdef(oid), E'\n' order by tgname) from pg_trigger where tgrelid = target and not tgisinternal)
    )
$function$;
create temp table before as
select
    pg_temp.definition('harbour.ships') as ships,
    pg_temp.definition('harbour.docks') as docks;

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
create index idx_ships_org_id on harbour.ships (org_id);
do $$ begin while tenancy.advance('foreign_key', 'foreign_key_valid', 'foreign_key_root') loop null; end loop; end $$;
do $$ begin while tenancy.advance('leftovers') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid', 'not_null') loop null; end loop; end $$;
do $$ begin while tenancy.advance('guard', 'guard_statement') loop null; end loop; end $$;
select is_empty(
    $$ select * from tenancy.verify() where table_name like 'harbour.%' and not passed $$,
    'both tables are migrated, the one that had org_id already too'
);

do $$ begin while tenancy.roll_back(5) loop null; end loop; end $$;
select set_eq(
    $$ select check_name from tenancy.verify_schema() where table_name = 'harbour.ships' and not passed $$,
    $$ values ('guard') $$,
    'back to phase 5: the guard is gone'
);
do $$ begin while tenancy.roll_back(3) loop null; end loop; end $$;
select set_eq(
    $$ select check_name from tenancy.verify_schema() where table_name = 'harbour.ships' and not passed $$,
    $$ values ('guard'), ('check'), ('check_valid'), ('not_null') $$,
    'back to phase 3: NULL is allowed again'
);
select is(
    (select org_id from harbour.ships),
    (select default_org_id from tenancy.settings),
    'and the organizations are still there'
);
do $$ begin while tenancy.roll_back(1) loop null; end loop; end $$;
select is(
    pg_temp.definition('harbour.ships'),
    (select ships from before),
    'back to phase 1: a table is what it was'
);
select is(
    pg_temp.definition('harbour.docks'),
    (select docks from before),
    'and a table that had org_id of its own keeps all of it'
);
select is_empty($$ select from tenancy.filled_rows $$, 'what the fillers knew and counted is forgotten with them');
select ok(not tenancy.roll_back(1), 'then there is nothing left to undo');
select throws_ok(
    $$ select tenancy.roll_back(0) $$,
    '22023',
    'cannot roll back to phase 0: it is 1 (discovery), 2 (columns), 3 (backfill), 4 (not null), 5 (identity) or 6 (immutability)',
    'a phase that is none is refused'
);

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
select has_column('harbour', 'ships', 'org_id', 'and it can be done again');

select * from finish();
rollback;
