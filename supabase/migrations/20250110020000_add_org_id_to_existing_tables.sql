-- pg-delta: transaction=false
-- Purpose: phase 2, columns: org_id on every org-scoped table, nullable still, with public.auth_org_id() as its default.
-- Touches: each org-scoped table's definition; no row. With tenancy.user_orgs empty every existing row has its value after it.
-- Locks:   ACCESS EXCLUSIVE on one table at a time for about a millisecond; waits 100 ms at most, then lets others pass.
-- Undo:    tenancy.drop_org_id(regclass), or tenancy.roll_back(1) for all.

set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

create table if not exists tenancy.tables_before (
    relation regclass primary key,
    row_count bigint not null,
    rows_inserted bigint not null,
    rows_deleted bigint not null,
    follows_org_id boolean not null,
    had_org_id boolean not null,
    had_default boolean not null,
    had_not_null boolean not null,
    foreign_key name,
    check_constraint name,
    indexes name[] not null,
    counted_at timestamptz not null default clock_timestamp()
);
comment on table tenancy.tables_before is
'Each table as it was: how many rows, so that none can be lost unseen, and what it had of org_id, so that undo leaves that.';
comment on column tenancy.tables_before.follows_org_id is
'Whether a table that it references had org_id then: its rows follow those, and do not all belong to the default organization.';
comment on column tenancy.tables_before.rows_inserted is 'The statistics'' count of rows ever inserted, to tell the application''s own changes apart.';

create or replace function tenancy.org_id_column(target regclass)
returns pg_catalog.pg_attribute
language sql
stable
security invoker
set search_path = ''
as $function$
    select org_id.*
    from pg_catalog.pg_attribute as org_id
    where org_id.attrelid = target
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
$function$;
comment on function tenancy.org_id_column(regclass) is 'The table''s column org_id as the catalog has it; NULL without one.';

create or replace function tenancy.org_id_foreign_key(target regclass)
returns pg_catalog.pg_constraint
language sql
stable
security invoker
set search_path = ''
as $function$
    select reference.*
    from pg_catalog.pg_constraint as reference
    join pg_catalog.pg_attribute as id
        on id.attrelid = reference.confrelid
        and id.attname = 'id'
    where reference.conrelid = target
        and reference.contype = 'f'
        and reference.conkey = array[(tenancy.org_id_column(target)).attnum]
        and reference.confrelid = 'public.organizations'::regclass
        and reference.confkey = array[id.attnum]
        and reference.confdeltype = 'c'
    order by reference.convalidated desc, reference.conname
    limit 1
$function$;
comment on function tenancy.org_id_foreign_key(regclass) is
'The foreign key from org_id alone to organizations.id that cascades deletes, under whatever name; NULL without one.';

create or replace function tenancy.org_id_check(target regclass)
returns pg_catalog.pg_constraint
language sql
stable
security invoker
set search_path = ''
as $function$
    select not_null_check.*
    from pg_catalog.pg_constraint as not_null_check
    where not_null_check.conrelid = target
        and not_null_check.contype = 'c'
        and not_null_check.conkey = array[(tenancy.org_id_column(target)).attnum]
        and pg_get_expr(not_null_check.conbin, not_null_check.conrelid) = '(org_id IS NOT NULL)'
    order by not_null_check.convalidated desc, not_null_check.conname
    limit 1
$function$;
comment on function tenancy.org_id_check(regclass) is 'The constraint check (org_id is not null), under whatever name; NULL without one.';

create or replace function tenancy.org_id_index(target regclass)
returns pg_catalog.pg_index
language sql
stable
security invoker
set search_path = ''
as $function$
    select org_id_index.*
    from pg_catalog.pg_index as org_id_index
    where org_id_index.indrelid = target
        and org_id_index.indkey[0] = (tenancy.org_id_column(target)).attnum
        and org_id_index.indpred is null
        and org_id_index.indisvalid
        and org_id_index.indisready
    order by org_id_index.indnkeyatts
    limit 1
$function$;
comment on function tenancy.org_id_index(regclass) is
'A valid index over all rows that starts with org_id, under whatever name; NULL without one.';

create or replace function tenancy.rows_inserted(target regclass)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $function$
    select coalesce(sum(pg_stat_get_tuples_inserted(leaf)), 0)::bigint
    from tenancy.leaves(target) as leaf
$function$;
comment on function tenancy.rows_inserted(regclass) is 'How many rows were ever inserted into the table, as the statistics count them.';

create or replace function tenancy.rows_deleted(target regclass)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $function$
    select coalesce(sum(pg_stat_get_tuples_deleted(leaf)), 0)::bigint
    from tenancy.leaves(target) as leaf
$function$;
comment on function tenancy.rows_deleted(regclass) is 'How many rows were ever deleted from the table, as the statistics count them.';

create or replace function tenancy.record_table_before(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    counted bigint;
begin
    if exists (select from tenancy.tables_before where tables_before.relation = target) then
        return false;
    end if;

    execute format('select count(*) from %s', target)
    into counted;

    insert into tenancy.tables_before
    values (
        target,
        counted,
        tenancy.rows_inserted(target),
        tenancy.rows_deleted(target),
        tenancy.follows_org_id(target),
        (tenancy.org_id_column(target)).attnum is not null,
        coalesce((tenancy.org_id_column(target)).atthasdef, false),
        coalesce((tenancy.org_id_column(target)).attnotnull, false),
        (tenancy.org_id_foreign_key(target)).conname,
        (tenancy.org_id_check(target)).conname,
        array(
            select index_class.relname
            from pg_catalog.pg_index as org_id_index
            join pg_catalog.pg_class as index_class
                on index_class.oid = org_id_index.indexrelid
            where org_id_index.indrelid = target
                and org_id_index.indkey[0] = (tenancy.org_id_column(target)).attnum
        )
    );
    return true;
end
$function$;
comment on function tenancy.record_table_before(regclass) is
'Step: notes the table''s rows and what it has of org_id already, once. Returns whether it had to.';

create or replace function tenancy.add_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    org_id constant pg_catalog.pg_attribute := tenancy.org_id_column(target);
    constant_default text := '';
begin
    if org_id.atthasdef then
        return false;
    end if;

    if org_id.attnum is null then
        if not exists (select from tenancy.user_orgs)
            and not exists (
                select
                from tenancy.tables_before
                where tables_before.relation = target
                    and tables_before.follows_org_id
            )
        then
            constant_default := format(' default %L::uuid', (select settings.default_org_id from tenancy.settings));
        end if;
        perform tenancy.change_table(target, format('alter table %s add column org_id uuid%s', target, constant_default));
    end if;

    perform tenancy.change_table(target, format('alter table %s alter column org_id set default public.auth_org_id()', target));
    return true;
end
$function$;
comment on function tenancy.add_org_id(regclass) is
'Step: adds org_id, and in the same transaction makes public.auth_org_id() its default. Returns whether it had to.'
' While tenancy.user_orgs is empty, and no row can follow one that has its organization already, the column comes with the default'
' organization as a constant default: PostgreSQL keeps that value for all existing rows in the catalog (pg_attribute.attmissingval),'
' whatever their number, and rewrites none.';

create or replace function tenancy.drop_org_id(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    before tenancy.tables_before;
begin
    select tables_before.*
    into before
    from tenancy.tables_before
    where tables_before.relation = target;

    if not found then
        return false;
    end if;

    if not before.had_org_id then
        perform tenancy.change_table(target, format('alter table %s drop column if exists org_id', target));
    elsif not before.had_default then
        perform tenancy.change_table(target, format('alter table %s alter column org_id drop default', target));
    end if;

    delete from tenancy.tables_before
    where tables_before.relation = target;
    return true;
end
$function$;
comment on function tenancy.drop_org_id(regclass) is
'Undo of add_org_id: drops the column with the organizations in it, or only the default where the column was there before.'
' Returns whether it had to. Fails where a view or policy uses the column: that is yours to change first.';

-- For the file ending in _index_org_id.sql, which holds nothing but its lines.

create or replace function tenancy.drop_invalid_org_id_index(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    broken constant regclass := (
        select org_id_index.indexrelid
        from tenancy.leaves(target) as leaf
        join pg_catalog.pg_index as org_id_index
            on org_id_index.indrelid = leaf
            and not org_id_index.indisvalid
        where org_id_index.indkey[0] = (tenancy.org_id_column(leaf)).attnum
        limit 1
    );
begin
    if broken is null then
        return false;
    end if;
    perform tenancy.change_table(target, format('drop index %s', broken));
    return true;
end
$function$;
comment on function tenancy.drop_invalid_org_id_index(regclass) is
'Step: drops an index on org_id that an interrupted build left invalid, which "if not exists" would take for done.'
' Returns whether it had to.';

create or replace function tenancy.drop_org_id_index(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    built constant regclass := (
        select org_id_index.indexrelid
        from pg_catalog.pg_index as org_id_index
        join pg_catalog.pg_class as index_class
            on index_class.oid = org_id_index.indexrelid
        join tenancy.tables_before
            on tables_before.relation = target
            and index_class.relname <> all (tables_before.indexes)
        where org_id_index.indrelid = target
            and org_id_index.indkey[0] = (tenancy.org_id_column(target)).attnum
            and org_id_index.indnatts = 1
            and not org_id_index.indisunique
        limit 1
    );
begin
    if built is null then
        return false;
    end if;
    perform tenancy.change_table(target, format('drop index %s', built));
    return true;
end
$function$;
comment on function tenancy.drop_org_id_index(regclass) is
'Undo of the index file: drops an index on org_id alone that was not there before. Returns whether it had to.';

create or replace function tenancy.create_org_id_index(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    if (tenancy.org_id_index(target)).indexrelid is not null then
        return false;
    end if;
    perform tenancy.change_table(target, format('create index %I on %s (org_id)', tenancy.name_of('index', target), target));
    return true;
end
$function$;
comment on function tenancy.create_org_id_index(regclass) is
'Step of tenancy.onboard: the index on org_id, built while writes to the table wait. Returns whether it had to.';

create or replace function tenancy.index_partitioned_table(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    if not tenancy.is_partitioned(target) or exists (
        select
        from tenancy.leaves(target) as leaf
        where (tenancy.org_id_index(leaf)).indnatts is distinct from 1
    ) then
        return false;
    end if;
    return tenancy.create_org_id_index(target);
end
$function$;
comment on function tenancy.index_partitioned_table(regclass) is
'Step: gives a partitioned table the index that its partitions, each indexed concurrently by its line, have already: PostgreSQL'
' takes those in and builds none. Partitions that come later get theirs from it. Returns whether it had to.';

create or replace function tenancy.assert_org_id_indexes()
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $function$
declare
    missing text := (
        select string_agg(
            format(
                'create index concurrently if not exists %I on %s (org_id);',
                tenancy.name_of('index', leaf),
                leaf
            ),
            E'\n'
            order by org_scoped_tables.position, leaf::text
        )
        from tenancy.org_scoped_tables
        cross join lateral tenancy.leaves(org_scoped_tables.relation) as leaf
        where (tenancy.org_id_index(leaf)).indexrelid is null
    );
begin
    if missing is not null then
        raise exception 'org_id is not indexed on every org-scoped table'
        using
            errcode = 'undefined_object',
            detail = E'Add to the file ending in _index_org_id.sql, then push again:\n' || missing;
    end if;
end
$function$;
comment on function tenancy.assert_org_id_indexes() is
'Raises undefined_object while an org-scoped table, or a partition of one, has no valid index that starts with org_id; the DETAIL'
' has the lines to add.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;

do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{record_table_before}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;

do $do$
declare
    target regclass;
begin
    loop
        target := tenancy.next_step('{add_org_id}', target);
        exit when target is null;
        commit;
    end loop;
end
$do$;
