-- Purpose: opt-in: foreign keys that cannot cross organizations. Nothing is switched on here.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_binding(regclass), or tenancy.roll_back(6) for all.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists tenancy.bound_references (
    relation regclass not null,
    constraint_name name not null,
    definition_before text not null,
    primary key (relation, constraint_name)
);
comment on table tenancy.bound_references is
'Foreign keys that tenancy.enable_binding makes composite, and what they were, for tenancy.disable_binding.';

create or replace function tenancy.column_list(column_names text[])
returns text language sql immutable security invoker set search_path = '' as $function$
    select string_agg(quote_ident(listed.name), ', ' order by listed.position)
    from unnest(column_names) with ordinality as listed (name, position)
$function$;
comment on function tenancy.column_list(text[]) is 'Names of columns as they stand in DDL: quoted, with commas between. NULL for none.';

create or replace view tenancy.bound_definitions as
select
    org_references.relation, org_references.constraint_name, org_references.position, org_references.parent,
    org_references.parent_name, org_references.column_names, org_references.parent_column_names,
    reference.convalidated as is_valid,
    coalesce(org_id.attnum = any (reference.conkey), false) as is_bound,
    pg_get_constraintdef(reference.oid) as definition,
    obj_description(reference.oid, 'pg_constraint') as comment,
    format(
        'foreign key (org_id, %s) references %s (org_id, %s) on update %s on delete %s%s',
        tenancy.column_list(org_references.column_names),
        org_references.parent_name,
        tenancy.column_list(org_references.parent_column_names),
        case reference.confupdtype
            when 'r' then 'restrict'
            when 'c' then 'cascade'
            else 'no action'
        end,
        case reference.confdeltype
            when 'r' then 'restrict'
            when 'c' then 'cascade'
            when 'n' then format('set null (%s)', columns_to_set.list)
            when 'd' then format('set default (%s)', columns_to_set.list)
            else 'no action'
        end,
        case
            when reference.condeferred then ' deferrable initially deferred'
            when reference.condeferrable then ' deferrable'
        end
    ) as bound_definition
from tenancy.org_references
join pg_catalog.pg_constraint as reference on reference.oid = org_references.constraint_oid
join tenancy.org_id_columns as org_id on org_id.relation = org_references.relation
cross join lateral (
    select tenancy.column_list(
        coalesce(
            (
                select array_agg(column_to_set.attname::text order by column_to_set.attnum)
                from pg_catalog.pg_attribute as column_to_set
                where column_to_set.attrelid = reference.conrelid
                    and column_to_set.attnum = any (reference.confdelsetcols)
            ),
            org_references.column_names
        )
    ) as list
) as columns_to_set;
comment on view tenancy.bound_definitions is
'Every foreign key between org-scoped tables, and what it is with org_id before its columns on both sides: the same actions, which set'
' no more columns than before.';

create or replace view tenancy.binding_parts as
select
    7 as phase, step.ordinal, step.part, reference.relation as root, reference.relation,
    org_id.qualified_name, reference.constraint_name as name,
    reference.is_bound and (step.part = 'binding' or reference.is_valid) as present,
    case
        when step.part = 'binding' then format(
            'alter table %1$s drop constraint %2$I, add constraint %2$I %3$s not valid%4$s',
            org_id.qualified_name, reference.constraint_name, reference.bound_definition, commented.again
        )
        else format('alter table %s validate constraint %I', org_id.qualified_name, reference.constraint_name)
    end as ddl,
    case
        when step.part = 'binding' and reference.is_bound then format(
            'alter table %1$s drop constraint %2$I, add constraint %2$I %3$s not valid%4$s',
            org_id.qualified_name, reference.constraint_name, bound_references.definition_before,
            commented.again
        )
        when step.part = 'binding_valid' and not reference.is_bound and not reference.is_valid
            then format('alter table %s validate constraint %I', org_id.qualified_name, reference.constraint_name)
    end as undo,
    step.lock
from tenancy.bound_references
join tenancy.bound_definitions as reference
    on reference.relation = bound_references.relation
    and reference.constraint_name = bound_references.constraint_name
join tenancy.org_id_columns as org_id on org_id.relation = bound_references.relation
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
-- Looked at first: mostly there is none.
where (select exists (select from tenancy.bound_references));
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

create or replace function tenancy.assert_bindable(target regclass, constraint_name name)
returns void language plpgsql stable security invoker set search_path = '' as $function$
declare
    reference tenancy.bound_definitions;
    obstacle text;
    state text := 'object_not_in_prerequisite_state';
    crossing bigint;
begin
    select bound_definitions.*
    into reference
    from tenancy.bound_definitions
    where bound_definitions.relation = target
        and bound_definitions.constraint_name = assert_bindable.constraint_name;

    if exists (select from pg_catalog.pg_class where oid in (target, reference.parent) and relkind = 'p') then
        obstacle := 'a partitioned table is on one side of it';
        state := 'feature_not_supported';
    elsif reference.definition ~ '(MATCH FULL|NOT ENFORCED|NOT VALID|PERIOD|ON UPDATE SET)' then
        obstacle := format(
            'it is %s; not valid: validate it first; match full, not enforced, period, on update set null or default: none of these goes'
            ' together with a column that is never NULL and never changes', reference.definition
        );
        state := 'feature_not_supported';
    elsif (select bool_or(not coalesce(is_not_null, false)) from tenancy.org_id_columns where relation in (target, reference.parent)) then
        obstacle := 'org_id is nullable on one side of it; bind after the push, or after tenancy.onboard';
    elsif tenancy.binding_index_lines(target, assert_bindable.constraint_name) <> '' then
        obstacle := E'it needs indexes; run these, each outside a transaction, then call again:\n'
            || tenancy.binding_index_lines(target, assert_bindable.constraint_name);
    else
        crossing := (
            select count(*)
            from tenancy.cross_org_references(target) as stranger
            where stranger.constraint_name = assert_bindable.constraint_name
        );
        if crossing > 0 then
            obstacle := format(
                '%s rows belong to another organization than the row they reference, see tenancy.cross_org_references(%L)',
                crossing, target::text
            );
            state := 'foreign_key_violation';
        end if;
    end if;

    if obstacle is not null then
        raise exception 'the foreign key % of % cannot be bound: %', constraint_name, target, obstacle
        using
            errcode = state,
            schema = tenancy.schema_of(target),
            table = tenancy.table_of(target),
            constraint = constraint_name;
    end if;
end
$function$;
comment on function tenancy.assert_bindable(regclass, name) is
'Raises feature_not_supported for foreign keys that cannot be composite with org_id, object_not_in_prerequisite_state while org_id is'
' nullable or an index is missing, with the lines to run in the message, and foreign_key_violation while rows cross organizations.';

create or replace function tenancy.binding_index_lines(target regclass, constraint_name name)
returns text language sql stable security invoker set search_path = '' as $function$
    select concat_ws(
        E'\n',
        case when not tenancy.has_index(reference.parent, array['org_id'] || reference.parent_column_names, true) then format(
            'create unique index concurrently on %s (org_id, %s);', reference.parent,
            tenancy.column_list(reference.parent_column_names)
        ) end,
        case when not tenancy.has_index(target, array['org_id'] || reference.column_names, false) then format(
            'create index concurrently on %s (org_id, %s);', target,
            tenancy.column_list(reference.column_names)
        ) end
    )
    from tenancy.bound_definitions as reference
    where reference.relation = target
        and reference.constraint_name = binding_index_lines.constraint_name
$function$;
comment on function tenancy.binding_index_lines(regclass, name) is
'The indexes that a composite foreign key needs and that are missing, as lines to run. Empty for none.';

create or replace function tenancy.enable_binding(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
declare
    reference tenancy.bound_definitions;
begin
    if org_migration.build(target, 'binding', 'binding_valid') then
        return true;
    end if;

    select bound_definitions.*
    into reference
    from tenancy.bound_definitions
    where bound_definitions.relation = target and not bound_definitions.is_bound
    order by bound_definitions.position
    limit 1;

    if not found then
        return false;
    end if;
    perform tenancy.assert_bindable(target, reference.constraint_name);
    insert into tenancy.bound_references
    values (target, reference.constraint_name, reference.definition);
    return org_migration.build(target, 'binding');
end
$function$;
comment on function tenancy.enable_binding(regclass) is
'Opt-in: makes the table''s foreign keys to org-scoped tables composite, (org_id, …) to (org_id, …), under the names that they have, so'
' that no row can reference one of another organization. One change per call; returns true if it changed something, so call it until it'
' returns false, and commit after each call: do $$ begin while tenancy.enable_binding(''…'') loop commit; end loop; end $$.'
' Raises what tenancy.assert_bindable raises, before it changes anything.';

create or replace function tenancy.disable_binding(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if org_migration.take_back(target, 'binding', 'binding_valid') then
        return true;
    end if;

    delete from tenancy.bound_references
    where bound_references.relation = target;
    return false;
end
$function$;
comment on function tenancy.disable_binding(regclass) is
'Undo of enable_binding, by the same protocol: one change per call, true if it changed something. The indexes built for it stay.';
