begin;
set local role postgres;
set local search_path = public, extensions;
select plan(14);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

-- As shipped: nobody is in an organization of their own, and phase 2 gives every row its value with the column.
update tenancy.settings set fill_org_id = true;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where raw_app_meta_data ? 'org_id';
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid);
create table harbour.ports (id integer primary key);
insert into harbour.ships (id) values (1), (2);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'ships', 'org', 'secondary', null),
    ('harbour', 'ports', 'excluded', null, 'a test');

create function pg_temp.definition()
returns text
language sql
as $function$
    select concat_ws(
        E'\n',
        (
            select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, atthasdef), E'\n' order by attname)
            from pg_attribute
            where attrelid = 'harbour.ships'::regclass
                and attnum > 0
                and not attisdropped
        ),
        (
            select string_agg(pg_get_constraintdef(oid) || convalidated, E'\n' order by conname)
            from pg_constraint
            where conrelid = 'harbour.ships'::regclass
        ),
        (
            select string_agg(pg_get_indexdef(indexrelid), E'\n' order by indexrelid)
            from pg_index
            where indrelid = 'harbour.ships'::regclass
        ),
        (
            select string_agg(pg_get_triggerdef(oid), E'\n' order by tgname)
            from pg_trigger
            where tgrelid = 'harbour.ships'::regclass
                and not tgisinternal
        )
    )
$function$;
create temp table before as
select pg_temp.definition() as ships;

select is_empty(
    $$
        select tables.relation
        from tenancy.org_scoped_tables as tables
        cross join lateral tenancy.parts(tables.relation) as parts
        where not parts.present
            and tables.schema_name <> 'harbour'
    $$,
    'on a migrated database every part of every table is present'
);
select results_eq(
    $$ select phase, part, name::text collate "default", lock from tenancy.parts('harbour.ships') where not present $$,
    $$
        values
            (2, 'column', 'org_id', 'ACCESS EXCLUSIVE'),
            (2, 'filler', 'zzz_fill_org_id_ships', 'SHARE ROW EXCLUSIVE'),
            (2, 'index', 'idx_ships_org_id', 'SHARE UPDATE EXCLUSIVE'),
            (2, 'foreign_key', 'fk_ships_org_id', 'SHARE ROW EXCLUSIVE, on public.organizations too'),
            (2, 'foreign_key_valid', 'fk_ships_org_id', 'SHARE UPDATE EXCLUSIVE'),
            (4, 'check', 'ships_org_id_not_null', 'ACCESS EXCLUSIVE'),
            (4, 'check_valid', 'ships_org_id_not_null', 'SHARE UPDATE EXCLUSIVE'),
            (4, 'not_null', 'org_id', 'ACCESS EXCLUSIVE'),
            (6, 'guard', 'org_id_immutable_ships', 'SHARE ROW EXCLUSIVE')
    $$,
    'an org-scoped table is to have these, in this order, under these names and locks'
);
select is_empty(
    $$ select * from tenancy.parts('harbour.ships') where present or undo is not null $$,
    'of which it has none yet, and nothing is to be taken back'
);
select is_empty($$ select * from tenancy.parts('harbour.ports') $$, 'an excluded table is to have nothing');
select is_empty($$ select * from tenancy.parts('public.organizations') $$, 'nor are the organizations');

-- What the ddl of all parts makes, run as it stands; only that nothing can be built concurrently here.
do $$
declare
    statement text;
begin
    for statement in
        select regexp_replace(ddl, '^create index concurrently', 'create index')
        from tenancy.parts('harbour.ships')
    loop
        execute statement;
    end loop;
end
$$;
select is_empty(
    $$ select * from tenancy.parts('harbour.ships') where not present $$,
    'the ddl of all parts, in order, makes them all present'
);
select is(
    (select array_agg(part order by ordinal) from tenancy.parts('harbour.ships')),
    '{column,default,filler,index,foreign_key,foreign_key_valid,check,check_valid,not_null,guard}',
    'the default, which comes with the column, is one of them'
);
select is_empty(
    $$ select * from tenancy.verify_table('harbour.ships') where not passed $$,
    'which is what verify asks for'
);
select is(
    (select count(*)::integer from harbour.ships where org_id = (select default_org_id from tenancy.settings)),
    2,
    'and every row has its organization'
);
select results_eq(
    $$ select part from tenancy.parts('harbour.ships') where undo is null $$,
    $$ values ('foreign_key_valid'), ('check_valid') $$,
    'a validation alone cannot be taken back'
);
select ok(
    (select bool_and(ddl not like '%;%' or part like 'guard%') from tenancy.parts('harbour.ships')),
    'a part is one statement, and a guard is the two that make and enable it'
);

-- And back, in reverse.
do $$
declare
    statement text;
begin
    for statement in
        select undo
        from tenancy.parts('harbour.ships')
        where undo is not null
        order by ordinal desc
    loop
        execute statement;
    end loop;
end
$$;
select is(pg_temp.definition(), (select ships from before), 'the undo of all parts, in reverse, makes the table what it was');
select is_empty(
    $$ select * from tenancy.parts('harbour.ships') where present $$,
    'and none of them is present then'
);

update tenancy.settings set fill_org_id = false;
select results_eq(
    $$ select part from tenancy.parts('harbour.ships') where ordinal < 6 and not present $$,
    $$ values ('column') $$,
    'while the setting is off, a filler is no part'
);

select * from finish();
rollback;
