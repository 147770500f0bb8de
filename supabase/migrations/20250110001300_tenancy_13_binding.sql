-- Purpose: opt-in: foreign keys that cannot cross organizations. Nothing is switched on here.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_binding(regclass), or tenancy.roll_back(6) for all.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists tenancy.bound_references (
    relation regclass not null,
    constraint_name name not null,
    parent regclass not null,
    attnums smallint[] not null,
    column_names text[] not null,
    lists_set_columns boolean not null,
    primary key (relation, constraint_name)
);
comment on table tenancy.bound_references is
'Foreign keys that tenancy.enable_binding makes composite, known by their columns besides org_id and by the table that they reference.';
comment on column tenancy.bound_references.attnums is 'Its columns by number, so that it is known after a rename, and column_names by name, after a restore.';
comment on column tenancy.bound_references.lists_set_columns is 'True if its ON DELETE SET listed columns before, so that it does again once unbound.';

create or replace function tenancy.column_list(column_names text[])
returns text language sql immutable security invoker set search_path = '' as $function$
    select string_agg(quote_ident(listed.name), ', ' order by listed.position)
    from unnest(column_names) with ordinality as listed (name, position)
$function$;
comment on function tenancy.column_list(text[]) is 'Names of columns as they stand in DDL: quoted, with commas between. NULL for none.';

create or replace view tenancy.bound_definitions as
select
    org_references.relation, org_references.constraint_name, org_references.position, org_references.parent,
    org_references.parent_name, org_references.attnums, org_references.column_names, org_references.parent_column_names,
    reference.convalidated as is_valid,
    coalesce(org_id.attnum = any (reference.conkey), false) as is_bound,
    reference.confdelsetcols is not null as lists_set_columns,
    reference.confmatchtype = 'f'
        or reference.confupdtype in ('n', 'd')
        or not reference.convalidated
        or org_references.is_period
        or not coalesce((to_jsonb(reference) ->> 'conenforced')::boolean, true) as is_special,
    pg_get_constraintdef(reference.oid) as definition,
    obj_description(reference.oid, 'pg_constraint') as comment,
    format(
        'foreign key (%%s%s) references %s (%%s%s) on update %s on delete %s%s',
        replace(tenancy.column_list(org_references.column_names), '%', '%%'),
        replace(org_references.parent_name, '%', '%%'),
        replace(tenancy.column_list(org_references.parent_column_names), '%', '%%'),
        case reference.confupdtype
            when 'r' then 'restrict'
            when 'c' then 'cascade'
            else 'no action'
        end,
        case reference.confdeltype
            when 'r' then 'restrict'
            when 'c' then 'cascade'
            when 'n' then 'set null%s'
            when 'd' then 'set default%s'
            else 'no action%s'
        end,
        case
            when reference.condeferred then ' deferrable initially deferred'
            when reference.condeferrable then ' deferrable'
        end
    ) as form,
    case
        when reference.confdeltype in ('n', 'd') then format(
            ' (%s)',
            tenancy.column_list(
                coalesce(
                    (
                        select array_agg(column_to_set.attname::text order by column_to_set.attnum)
                        from pg_catalog.pg_attribute as column_to_set
                        where column_to_set.attrelid = reference.conrelid
                            and column_to_set.attnum = any (reference.confdelsetcols)
                    ),
                    org_references.column_names
                )
            )
        )
    end as columns_to_set
from tenancy.org_references
join pg_catalog.pg_constraint as reference on reference.oid = org_references.constraint_oid
join tenancy.org_id_columns as org_id on org_id.relation = org_references.relation;
comment on view tenancy.bound_definitions is
'Every foreign key between org-scoped tables, and what it is with org_id before its columns on both sides, or without: form, in which'
' ''org_id, '' or nothing stands before the columns of either side. The actions are the same, and set no more columns than before.';

create or replace view tenancy.bound_keys as
select
    bound_references.relation, bound_references.constraint_name as noted_name, found.*,
    bound_references.lists_set_columns as listed_set_columns,
    -- Where a column or the other table is gone, there is nothing left to be bound.
    found.constraint_name is null
        and 2 = (
            select count(*)
            from tenancy.application_tables as either
            where either.relation in (bound_references.relation, bound_references.parent) and either.scope = 'org'
        ) + case when bound_references.relation = bound_references.parent then 1 else 0 end
        and cardinality(bound_references.attnums) = (
            select count(*)
            from pg_catalog.pg_attribute as attribute
            where attribute.attrelid = bound_references.relation
                and attribute.attnum = any (bound_references.attnums)
                and not attribute.attisdropped
        ) as is_gone
from tenancy.bound_references
left join lateral (
    select
        definitions.constraint_name, definitions.is_valid, definitions.is_bound, definitions.form, definitions.columns_to_set,
        definitions.comment
    from tenancy.bound_definitions as definitions
    where definitions.relation = bound_references.relation
        and definitions.parent = bound_references.parent
        and (definitions.attnums = bound_references.attnums or definitions.column_names = bound_references.column_names)
        -- Another one of the same columns may be noted by its own name.
        and not exists (
            select from tenancy.bound_references as other
            where other.relation = bound_references.relation
                and other.constraint_name = definitions.constraint_name
                and other.constraint_name <> bound_references.constraint_name
        )
    order by definitions.constraint_name = bound_references.constraint_name desc, definitions.is_bound desc
    limit 1
) as found on true;
comment on view tenancy.bound_keys is
'tenancy.bound_references with the foreign key that each means now, whatever it is called; constraint_name NULL where there is none.'
' is_gone: it could be there, and is not.';

create or replace view tenancy.binding_findings as
select
    'bound_key_gone' as code, 'leaks' as severity, bound_keys.noted_name::text as object, application_tables.qualified_name as table_name,
    'has lost a foreign key that kept its rows from referencing those of another organization' as problem,
    format('add it again, and call tenancy.enable_binding(%1$L); or forget it: select tenancy.disable_binding(%1$L)', application_tables.qualified_name) as remedy
from tenancy.bound_keys
join tenancy.application_tables on application_tables.relation = bound_keys.relation
where bound_keys.is_gone;
comment on view tenancy.binding_findings is 'Bound foreign keys that were dropped since, while their columns and the table that they reference are there.';

create or replace view tenancy.binding_parts as
select
    7 as phase, step.ordinal, step.part, reference.relation as root, reference.relation,
    org_id.qualified_name, reference.constraint_name as name,
    reference.is_bound and (step.part = 'binding' or reference.is_valid) as present,
    case
        when step.part = 'binding' then format(
            'alter table %1$s drop constraint %2$I, add constraint %2$I %3$s not valid%4$s',
            org_id.qualified_name, reference.constraint_name,
            format(reference.form, 'org_id, ', 'org_id, ', reference.columns_to_set), commented.again
        )
        else format('alter table %s validate constraint %I', org_id.qualified_name, reference.constraint_name)
    end as ddl,
    case
        when step.part = 'binding' and reference.is_bound then format(
            'alter table %1$s drop constraint %2$I, add constraint %2$I %3$s not valid%4$s',
            org_id.qualified_name, reference.constraint_name,
            format(reference.form, '', '', case when reference.listed_set_columns then reference.columns_to_set end), commented.again
        )
        when step.part = 'binding_valid' and not reference.is_bound and not reference.is_valid
            then format('alter table %s validate constraint %I', org_id.qualified_name, reference.constraint_name)
    end as undo,
    step.lock
from tenancy.bound_keys as reference
join tenancy.org_id_columns as org_id on org_id.relation = reference.relation
cross join lateral (
    select '; ' || format('comment on constraint %I on %s is %L', reference.constraint_name, org_id.qualified_name, reference.comment) as again
    where reference.comment is not null
    union all
    select ''
    where reference.comment is null
) as commented
cross join (
    values
        (19, 'binding', 'ACCESS EXCLUSIVE, on the referenced table too'),
        (20, 'binding_valid', 'SHARE UPDATE EXCLUSIVE')
) as step (ordinal, part, lock)
where reference.constraint_name is not null
    -- Looked at first: mostly there is none.
    and (select exists (select from tenancy.bound_references));
comment on view tenancy.binding_parts is
'The foreign keys of every table that tenancy.enable_binding was called for. The key is never missing: one statement drops the simple'
' one and adds the composite one, which is then validated. Columns as tenancy.parts.';

create or replace function tenancy.has_index(target regclass, column_names text[], is_unique boolean)
returns boolean language sql stable security invoker set search_path = '' as $function$
    select exists (
        select from pg_catalog.pg_index
        where pg_index.indrelid = target
            and pg_index.indisvalid
            and pg_index.indpred is null
            and pg_index.indexprs is null
            and (
                select array_agg(key_column.attname::text order by key.position)
                from unnest(pg_index.indkey::smallint[]) with ordinality as key (attnum, position)
                join pg_catalog.pg_attribute as key_column
                    on key_column.attrelid = target
                    and key_column.attnum = key.attnum
                where key.position <= case when is_unique then pg_index.indnkeyatts else cardinality(column_names) end
            ) = column_names
            and (not is_unique or (pg_index.indisunique and pg_index.indimmediate))
    )
$function$;
comment on function tenancy.has_index(regclass, text[], boolean) is
'True if the table has a valid index over all rows that starts with these columns, or, if it is to be unique, of exactly these.';

create or replace view tenancy.binding_index_lines as
select wanted.relation, string_agg(wanted.line, E'\n' order by wanted.is_unique desc) as lines
from (
    select distinct
        reference.relation, side.is_unique,
        case
            when free.is_broken then format('drop index concurrently if exists %I.%I;', namespace.nspname, free.name)
            else format(
                'create %sindex concurrently if not exists %I on %s (org_id, %s);', case when side.is_unique then 'unique ' end, free.name,
                side.indexed, tenancy.column_list(side.column_names)
            )
        end as line
    from tenancy.bound_definitions as reference
    cross join lateral (
        values
            (reference.parent, reference.parent_column_names, true),
            (reference.relation, reference.column_names, false)
    ) as side (indexed, column_names, is_unique)
    join pg_catalog.pg_class as child on child.oid = reference.relation
    join pg_catalog.pg_class as parent on parent.oid = reference.parent
    join pg_catalog.pg_class as class on class.oid = side.indexed
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    cross join lateral (
        select concat(class.relname, '_org_id_', array_to_string(side.column_names, '_'), case when side.is_unique then '_key' end)
    ) as described (name)
    -- The first name that nothing else has: under one that is taken the line would build nothing, and say so to nobody.
    cross join lateral (
        select coined.name, its_index.indexrelid is not null as is_broken
        from generate_series(1, 9) as number
        cross join lateral (
            select format(
                'idx%s_%s%s', nullif(number, 1), case when octet_length(described.name) > 57 then left(md5(described.name), 8) || '_' end, described.name
            )::name
        ) as coined (name)
        left join pg_catalog.pg_class as namesake
            on namesake.relnamespace = class.relnamespace
            and namesake.relname = coined.name
        left join pg_catalog.pg_index as its_index
            on its_index.indexrelid = namesake.oid
            and its_index.indrelid = class.oid
            and not its_index.indisvalid
        where namesake.oid is null or its_index.indexrelid is not null
        order by number
        limit 1
    ) as free
    where not reference.is_bound
        -- One that is not valid can be bound once it is.
        and not (reference.is_special and reference.is_valid)
        and child.relkind = 'r'
        and parent.relkind = 'r'
        and not tenancy.has_index(side.indexed, array['org_id'] || side.column_names, side.is_unique)
) as wanted
group by wanted.relation;
comment on view tenancy.binding_index_lines is
'The indexes that composite foreign keys of each table need and that are missing, as lines to run, each outside a transaction. One that'
' several tables need stands at each. Where a build was interrupted, the line drops what it left, and then comes the one that builds it.'
' Select them for all tables at once, and then call tenancy.enable_binding.';

create or replace function tenancy.binding_obstacle(
    target regclass, constraint_name name, out problem text, out state text, out needs_indexes boolean
)
language plpgsql stable security invoker set search_path = '' as $function$
declare
    reference tenancy.bound_definitions;
    crossing bigint;
begin
    select bound_definitions.*
    into reference
    from tenancy.bound_definitions
    where bound_definitions.relation = target
        and bound_definitions.constraint_name = binding_obstacle.constraint_name;

    state := 'object_not_in_prerequisite_state';
    if exists (select from pg_catalog.pg_class where oid in (target, reference.parent) and relkind = 'p') then
        problem := 'a partitioned table is on one side of it';
        state := 'feature_not_supported';
    elsif reference.is_special then
        problem := format(
            'it is %s; not valid: validate it first; match full, not enforced, period, on update set null or default: none of these goes'
            ' together with a column that is never NULL and never changes', reference.definition
        );
        state := 'feature_not_supported';
    elsif (select bool_or(not coalesce(is_not_null, false)) from tenancy.org_id_columns where relation in (target, reference.parent)) then
        problem := 'org_id is nullable on one side of it; bind after the push, or after tenancy.onboard';
    elsif not tenancy.has_index(reference.parent, array['org_id'] || reference.parent_column_names, true)
        or not tenancy.has_index(target, array['org_id'] || reference.column_names, false)
    then
        problem := 'it needs indexes';
        needs_indexes := true;
    else
        crossing := (
            select count(*)
            from tenancy.cross_org_references(target) as stranger
            where stranger.constraint_name = binding_obstacle.constraint_name
        );
        if crossing > 0 then
            problem := format(
                '%s rows belong to another organization than the row they reference, see tenancy.cross_org_references(%L)',
                crossing, target::text
            );
            state := 'foreign_key_violation';
        end if;
    end if;
end
$function$;
comment on function tenancy.binding_obstacle(regclass, name) is
'What keeps a foreign key from being bound, and the errcode for it: feature_not_supported for one that cannot be composite with org_id,'
' object_not_in_prerequisite_state while org_id is nullable or an index is missing (needs_indexes), foreign_key_violation while rows cross'
' organizations. problem NULL: nothing.';

create or replace function tenancy.enable_binding(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    reference tenancy.bound_definitions;
    obstacle record;
    obstacles text[] := '{}';
    first_state text;
    first_name name;
    lines text;
begin
    if tenancy.build(target, 'binding', 'binding_valid') then
        return true;
    end if;

    for reference in
        select bound_definitions.*
        from tenancy.bound_definitions
        where bound_definitions.relation = target and not bound_definitions.is_bound
        order by bound_definitions.position
    loop
        select *
        into obstacle
        from tenancy.binding_obstacle(target, reference.constraint_name);

        if obstacle.problem is null then
            insert into tenancy.bound_references
            values (target, reference.constraint_name, reference.parent, reference.attnums, reference.column_names, reference.lists_set_columns)
            on conflict on constraint bound_references_pkey do update
            set
                parent = excluded.parent, attnums = excluded.attnums, column_names = excluded.column_names,
                lists_set_columns = excluded.lists_set_columns;
            return tenancy.build(target, 'binding');
        end if;
        obstacles := obstacles || format('%s: %s', reference.constraint_name, obstacle.problem);
        first_state := coalesce(first_state, obstacle.state);
        first_name := coalesce(first_name, reference.constraint_name);
        if obstacle.needs_indexes and lines is null then
            select string_agg(distinct line.text, E'\n' order by line.text)
            into lines
            from tenancy.binding_index_lines
            cross join string_to_table(binding_index_lines.lines, E'\n') as line (text);
        end if;
    end loop;

    if obstacles <> '{}' then
        raise exception E'% has foreign keys that cannot be bound; all others of it are:\n%', target,
            array_to_string(obstacles, E'\n') || coalesce(
                E'\nRun these, each outside a transaction, then call again; they are those of all tables:\n' || lines
                || E'\nOnce a key is bound, supabase-js no longer embeds by its column, as call:call_id(*); call:calls(*) and'
                ' call:calls!<foreign key>(*) go on.',
                ''
            )
        using errcode = first_state, schema = tenancy.schema_of(target), table = tenancy.table_of(target), constraint = first_name;
    end if;
    return false;
end
$function$;
comment on function tenancy.enable_binding(regclass) is
'Opt-in: makes the table''s foreign keys to org-scoped tables composite, (org_id, …) to (org_id, …), under the names that they have, so'
' that no row can reference one of another organization. One change per call; returns true if it changed something, so call it until it'
' returns false, and commit after each call: do $$ begin while tenancy.enable_binding(''…'') loop commit; end loop; end $$.'
' Raises, once all others are bound, what tenancy.binding_obstacle says of those that cannot be, and where indexes are missing those of all'
' tables. supabase-js no longer embeds by the column of a bound key, call:call_id(*): by the table, call:calls(*), and by the key,'
' call:calls!<foreign key>(*), it goes on.';

create or replace function tenancy.disable_binding(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if tenancy.take_back(target, 'binding', 'binding_valid') then
        return true;
    end if;

    delete from tenancy.bound_references
    where bound_references.relation = target;
    return false;
end
$function$;
comment on function tenancy.disable_binding(regclass) is
'Undo of enable_binding, by the same protocol: one change per call, true if it changed something. A key that was dropped since is not brought'
' back. The indexes built for it stay.';
