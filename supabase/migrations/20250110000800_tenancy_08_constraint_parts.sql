-- Purpose: the parts that a table gets in phases 2, 4 and 6: foreign keys, CHECK, NOT NULL, guards.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.constraint_parts as
select
    step.phase, step.ordinal, step.part, org_id.root, org_id.relation, org_id.qualified_name, named.name,
    existing.name is not null and (existing.is_valid or not step.validates)
        -- A partition that came later has NOT NULL from its table, and needs nothing to prove it.
        or step.kind = 'check' and existing.name is null and not org_id.is_root and coalesce(org_id.is_not_null, false) as present,
    case
        when step.validates then format('alter table %s validate constraint %I', org_id.qualified_name, named.name)
        else format('alter table %s add constraint %I %s', org_id.qualified_name, named.name, step.definition)
    end as ddl,
    case
        when not step.validates and not existing.is_inherited
            then format('alter table %s drop constraint %I', org_id.qualified_name, existing.name)
    end as undo,
    step.lock
from tenancy.org_id_columns as org_id
join (
    values
        (
            2, 9, 'foreign_key', 'foreign_key', false, true, false,
            'foreign key (org_id) references public.organizations (id) on delete cascade not valid',
            'SHARE ROW EXCLUSIVE, on public.organizations too'
        ),
        (2, 10, 'foreign_key_valid', 'foreign_key', true, true, false, null, 'SHARE UPDATE EXCLUSIVE'),
        (
            2, 11, 'foreign_key_root', 'foreign_key', false, false, true,
            'foreign key (org_id) references public.organizations (id) on delete cascade',
            'SHARE ROW EXCLUSIVE, and ACCESS EXCLUSIVE on public.organizations'
        ),
        (4, 12, 'check', 'check', false, true, false, 'check (org_id is not null) not valid', 'ACCESS EXCLUSIVE'),
        (4, 13, 'check_valid', 'check', true, true, false, null, 'SHARE UPDATE EXCLUSIVE')
) as step (phase, ordinal, part, kind, validates, of_leaf, of_partitioned, definition, lock)
    on (step.of_leaf and org_id.is_leaf or step.of_partitioned and org_id.is_root and not org_id.is_leaf)
join tenancy.coined_names
    on coined_names.relation = org_id.relation
    and coined_names.kind = step.kind
left join lateral (
    -- Under whatever name: of org_id alone to organizations (id), cascading deletes; or check (org_id is not null).
    select found.conname as name, found.convalidated as is_valid, found.conparentid <> 0 or found.coninhcount > 0 as is_inherited
    from pg_catalog.pg_constraint as found
    where found.conrelid = org_id.relation
        and found.conkey = array[org_id.attnum]
        and case step.kind
            when 'foreign_key' then found.contype = 'f'
                and found.confrelid = to_regclass('public.organizations')
                and found.confdeltype = 'c'
                and found.confkey = array(
                    select id.attnum
                    from pg_catalog.pg_attribute as id
                    where id.attrelid = found.confrelid and id.attname = 'id'
                )
            else found.contype = 'c'
                and pg_get_expr(found.conbin, found.conrelid) = '(org_id IS NOT NULL)'
        end
    order by found.convalidated desc, found.conname
    limit 1
) as existing on true
cross join lateral (
    select coalesce(
        existing.name,
        case
            -- PostgreSQL 18 gives this name to the NOT NULL of a column that had it before.
            when step.kind = 'check' and exists (
                select from pg_catalog.pg_constraint as namesake
                where namesake.conrelid = org_id.relation and namesake.conname = coined_names.name
            ) then (
                select other.name
                from tenancy.coined_names as other
                where other.relation = org_id.relation and other.kind = 'other_check'
            )
            else coined_names.name
        end
    ) as name
) as named
union all
select
    4, 14, 'not_null', org_id.root, org_id.relation, org_id.qualified_name, 'org_id',
    coalesce(org_id.is_not_null, false),
    format('alter table %s alter column org_id set not null', org_id.qualified_name),
    case
        when org_id.has_not_null then format('alter table %s alter column org_id drop not null', org_id.qualified_name)
    end,
    'ACCESS EXCLUSIVE'
from tenancy.org_id_columns as org_id
where org_id.is_root;
comment on view tenancy.constraint_parts is
'Of every org-scoped table: its foreign key, per leaf not valid first, then that of the partitioned table, which takes those in without'
' another scan; the validated CHECK, with which SET NOT NULL scans nothing, per leaf too, since a table made by LIKE could not be attached to'
' one that has a CHECK; and that. Columns as tenancy.parts.';

create or replace function tenancy.refuse_org_id_change()
returns trigger language plpgsql security invoker set search_path = '' as $function$
declare
    org_id_before uuid;
    org_id_after uuid;
begin
    if tg_level = 'ROW' then
        org_id_before := old.org_id;
        org_id_after := new.org_id;
    else
        -- A row that moves between partitions stands in both tables at the same place, as every row does.
        select old_row.org_id, new_row.org_id
        into org_id_before, org_id_after
        from (select org_id, row_number() over () as place from old_rows) as old_row
        full join (select org_id, row_number() over () as place from new_rows) as new_row
            using (place)
        where old_row.org_id is distinct from new_row.org_id
        limit 1;

        if not found then
            return null;
        end if;
    end if;

    raise exception 'org_id of %.% is immutable: a row of organization % would go to %',
        quote_ident(tg_table_schema),
        quote_ident(tg_table_name),
        coalesce(org_id_before::text, 'none'),
        coalesce(org_id_after::text, 'none')
    using
        errcode = 'restrict_violation',
        schema = tg_table_schema,
        table = tg_table_name,
        column = 'org_id',
        constraint = tg_name;
end
$function$;
comment on function tenancy.refuse_org_id_change() is
'Trigger function of the guard: raises restrict_violation (23001) naming table, column and trigger. For a row it fires only where org_id'
' changed; for a statement, on a partitioned table, it looks for such a row. NULL meets NOT NULL (23502) before it. One case it cannot'
' see: a row that MERGE moves to another partition, whose org_id a trigger of the owner changes on the way.';

create or replace view tenancy.guard_forms as
select form.*
from (
    values
        (
            15, 'guard', true, 17, 'after update on', 'for each row when (old.org_id is distinct from new.org_id)',
            'FOR EACH ROW WHEN \(\(old\.org_id IS DISTINCT FROM new\.org_id\)\)'
        ),
        (
            16, 'guard_move', true, 19, 'before update on', 'for each row when (old.org_id <> new.org_id)',
            'FOR EACH ROW WHEN \(\(old\.org_id <> new\.org_id\)\)'
        ),
        (
            17, 'guard_statement', false, 16, 'after update on', 'referencing old table as old_rows new table as new_rows for each statement',
            'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT'
        )
) as form (ordinal, part, is_inherited, trigger_type, event, condition, pattern);
comment on view tenancy.guard_forms is
'What guards there are. guard: AFTER, so that no other trigger can change the value behind it, with a condition, so that other updates do'
' not call it. guard_move and guard_statement: of partitioned tables alone, for rows that move to another partition, which fire no AFTER'
' UPDATE row trigger; a MERGE that moves one is seen by a BEFORE trigger only, and what a BEFORE trigger behind that changes by the other.';

create or replace view tenancy.guard_triggers as
select
    org_id.root, org_id.relation, org_id.qualified_name, existing.tgname as name, form.part,
    existing.tgparentid = 0 as is_own,
    existing.tgenabled = 'A'
        and existing.tgtype = form.trigger_type
        and existing.tgattr::text = ''
        -- Who makes a partition makes its triggers.
        and (org_id.is_leaf or has_function_privilege(table_class.relowner, existing.tgfoid, 'execute'))
        and pg_get_triggerdef(existing.oid) ~ (form.pattern || ' EXECUTE FUNCTION (tenancy\.)?refuse_org_id_change\(\)$') as intact
from tenancy.org_id_columns as org_id
join pg_catalog.pg_class as table_class on table_class.oid = org_id.relation
join pg_catalog.pg_trigger as existing on existing.tgrelid = org_id.relation
join tenancy.guard_forms as form
    on form.part = case
        when existing.tgtype::integer & 1 = 0 then 'guard_statement'
        when existing.tgtype::integer & 2 = 2 and not (org_id.is_root and org_id.is_leaf) then 'guard_move'
        else 'guard'
    end
-- Once, and not once per trigger.
where existing.tgfoid = (select to_regprocedure('tenancy.refuse_org_id_change()'));
comment on view tenancy.guard_triggers is
'Every trigger that calls the guard, known by its function and its form, under whatever name. intact: it is what it should be, enabled'
' ALWAYS, so that a replica session does not pass it by.';

create or replace view tenancy.guard_parts as
select
    6 as phase, form.ordinal, form.part, org_id.root, org_id.relation, org_id.qualified_name,
    coalesce(existing.name, coined_names.name) as name,
    not exists (
        select from tenancy.org_id_columns as member
        where member.root = org_id.root
            and (form.is_inherited or member.relation = org_id.relation)
            and not exists (
                select from tenancy.guard_triggers
                where guard_triggers.root = org_id.root
                    and guard_triggers.relation = member.relation
                    and guard_triggers.part = form.part
                    and guard_triggers.intact
            )
    ) as present,
    format(
        'create %1$strigger %2$I %4$s %3$s %5$s execute function tenancy.refuse_org_id_change();'
        ' alter table %3$s enable always trigger %2$I%6$s',
        case when existing.name is not null then 'or replace ' end,
        coalesce(existing.name, coined_names.name),
        org_id.qualified_name, form.event, form.condition,
        case
            when not org_id.is_leaf and table_class.relowner <> coalesce(guard.proowner, table_class.relowner)
                then format('; grant execute on function tenancy.refuse_org_id_change() to %I', pg_get_userbyid(table_class.relowner))
        end
    ) as ddl,
    (
        select format('drop trigger %I on %s', own.name, own.qualified_name)
        from tenancy.guard_triggers as own
        where own.root = org_id.root
            and (form.is_inherited or own.relation = org_id.relation)
            and own.part = form.part
            and own.is_own
        limit 1
    ) as undo,
    'SHARE ROW EXCLUSIVE' as lock
from tenancy.org_id_columns as org_id
join pg_catalog.pg_class as table_class on table_class.oid = org_id.relation
left join pg_catalog.pg_proc as guard on guard.oid = to_regprocedure('tenancy.refuse_org_id_change()')
-- Row triggers are made on the table, and come to its partitions from there.
join tenancy.guard_forms as form
    on case when form.is_inherited then org_id.is_root else not org_id.is_leaf end
    and (form.part = 'guard' or not org_id.is_leaf)
join tenancy.coined_names
    on coined_names.relation = org_id.relation
    and coined_names.kind = form.part
left join lateral (
    select guard_triggers.name
    from tenancy.guard_triggers
    where guard_triggers.root = org_id.root
        and guard_triggers.relation = org_id.relation
        and guard_triggers.part = form.part
    order by guard_triggers.intact desc
    limit 1
) as existing on true;
comment on view tenancy.guard_parts is 'Of every org-scoped table: its guards, see tenancy.guard_forms. Columns as tenancy.parts.';
