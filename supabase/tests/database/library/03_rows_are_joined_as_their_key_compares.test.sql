begin;
set local role postgres;
set local search_path = public, extensions;
select plan(6);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

delete from tenancy.registry;
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update tenancy.settings set fill_org_id = true;
insert into public.organizations (id, name)
values
    ('b0000000-0000-4000-8000-000000000001', 'one'),
    ('b0000000-0000-4000-8000-000000000002', 'two');
insert into tenancy.user_orgs (user_id, org_id)
values ('00000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001');

-- A parent and a child per type of key. Each pair is equal to its key, and some to nothing else.
create schema harbour;
create extension if not exists citext with schema extensions;
create collation harbour.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create type harbour.kind as enum ('brig', 'sloop');
create domain harbour.code as text check (value <> '');
create domain harbour.owner as uuid;
create temp table keys (name, parent_type, child_type, parent_key, child_key) as
values
    ('citext', 'extensions.citext', 'extensions.citext', 'Argo', 'aRGO'),
    ('collation', 'text collate harbour.caseless', 'text collate "C"', 'Argo', 'aRGO'),
    ('collation_back', 'text collate harbour.caseless', 'text collate harbour.caseless', 'Argo', 'ARGO'),
    ('domain', 'harbour.code', 'text', 'Argo', 'Argo'),
    ('domain_back', 'text', 'harbour.code', 'Argo', 'Argo'),
    ('enum', 'harbour.kind', 'harbour.kind', 'sloop', 'sloop'),
    ('array', 'integer[]', 'integer[]', '{1,2}', '{1,2}'),
    ('numeric_int', 'numeric', 'integer', '7.00', '7'),
    ('big_small', 'bigint', 'smallint', '7', '7'),
    ('text_varchar', 'text', 'varchar(9)', 'Argo', 'Argo'),
    ('padded', 'char(8)', 'char(8)', 'Argo', 'Argo   '),
    ('time', 'timestamptz', 'timestamptz', '2025-01-01 12:00+00', '2025-01-01 13:00+01'),
    ('range', 'int4range', 'int4range', '[1,3]', '[1,4)');
-- From PostgreSQL 18 on, such a key must have the same collation on both sides.
delete from keys where name = 'collation' and current_setting('server_version_num')::integer >= 180000;
create function pg_temp.for_each(statement text)
returns void
language plpgsql
as $function$
declare
    pair keys;
begin
    for pair in
        select keys.* from keys
    loop
        execute format(statement, pair.name, pair.parent_type, pair.child_type, pair.parent_key, pair.child_key);
    end loop;
end
$function$;
select pg_temp.for_each($$ create table harbour.%1$s_parent (id %2$s primary key, user_id harbour.owner) $$);
select pg_temp.for_each($$ create table harbour.%1$s_child (id integer primary key, parent_id %3$s references harbour.%1$s_parent (id)) $$);
insert into tenancy.registry (schema_name, table_name, scope, priority)
select 'harbour', relname, 'org', 'secondary'
from pg_class
where relnamespace = 'harbour'::regnamespace and relkind = 'r';
select pg_temp.for_each($$ insert into harbour.%1$s_parent (id, user_id) values (%4$L, '00000000-0000-4000-8000-000000000001') $$);
select pg_temp.for_each($$ insert into harbour.%1$s_child (id, parent_id) values (1, %5$L) $$);

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop null; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop null; end loop; end $$;
select pg_temp.for_each($$ insert into harbour.%1$s_child (id, parent_id) values (2, %5$L) $$);

create temp table placed (name text, id integer, org text);
select pg_temp.for_each($$ insert into placed select '%1$s', id, right(org_id::text, 1) || left(org_id::text, 1) from harbour.%1$s_child $$);
select is_empty(
    $$ select name, org from placed where id = 1 and org <> '1b' $$,
    'the backfill finds the parent as the foreign key does, whatever the type'
);
select is_empty(
    $$ select name, org from placed where id = 2 and org <> '1b' $$,
    'and so does the filler'
);
select is((select count(*)::integer from placed), 2 * (select count(*)::integer from keys), 'in all of them');
select is_empty(
    $$ select * from tenancy.cross_org_references() $$,
    'no row then references one of another organization'
);
select pg_temp.for_each($$ update harbour.%1$s_child set org_id = 'b0000000-0000-4000-8000-000000000002' where id = 2 $$);
select set_eq(
    $$ select relation::text from tenancy.cross_org_references() where row_key = '{"id": 2}' $$,
    $$ select format('harbour.%s_child', name) from keys $$,
    'and where one does, it is found, in all of them as well'
);
create function harbour.never(text, text)
returns boolean
language sql
immutable
as $function$ select false $function$;
create operator harbour.= (leftarg = text, rightarg = text, function = harbour.never);
set local search_path = harbour, public, extensions;
insert into harbour.text_varchar_child (id, parent_id) values (3, 'Argo');
select is(
    (select right(org_id::text, 1) from harbour.text_varchar_child where id = 3),
    '1',
    'an operator of whoever inserts is not taken for the key''s'
);

select * from finish();
rollback;
