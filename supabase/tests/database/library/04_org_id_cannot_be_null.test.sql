begin;
set local role postgres;
set local search_path = public, extensions;
select plan((select 2 * count(*)::integer from tenancy.registry where scope = 'org') + 4);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

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

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
create index on harbour.ships (org_id);
do $$ begin while tenancy.advance('foreign_key', 'foreign_key_valid', 'foreign_key_root') loop null; end loop; end $$;

insert into harbour.ships (id) values (3);
do $$ begin while tenancy.advance('leftovers') loop null; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check') loop null; end loop; end $$;
do $$ begin while tenancy.advance('check_valid', 'not_null') loop null; end loop; end $$;
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
