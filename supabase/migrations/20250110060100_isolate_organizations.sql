-- Purpose: opt-in: policies that no row of another organization passes, foreign keys that cannot cross organizations, and the list of rows that do.
-- Touches: new objects in tenancy. Nothing is switched on: the functions are for you to call, a table at a time.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.roll_back(6) for all, or tenancy.disable_org_isolation(regclass) and tenancy.unbind_from_parent(regclass).

set lock_timeout = '1s';
set statement_timeout = '1min';

create or replace function tenancy.cross_org_references(target regclass default null)
returns table (
    relation regclass,
    row_key jsonb,
    org_id uuid,
    constraint_name name,
    parent regclass,
    parent_org_id uuid
)
language plpgsql
stable
security invoker
set search_path = ''
as $function$
declare
    reference record;
begin
    for reference in
        select
            org_references.*,
            (
                select string_agg(format('parent.%I = child.%I', pair.parent_column, pair.child_column), ' and ')
                from unnest(org_references.column_names, org_references.parent_column_names) as pair (child_column, parent_column)
            ) as condition
        from tenancy.org_references
        where org_references.relation = coalesce(target, org_references.relation)
        order by
            org_references.relation::text,
            org_references.position
    loop
        return query execute format(
            $sql$
                select
                    %L::regclass,
                    %s,
                    child.org_id,
                    %L::name,
                    %L::regclass,
                    parent.org_id
                from %s as child
                join %s as parent
                    on %s
                where parent.org_id is distinct from child.org_id
            $sql$,
            reference.relation,
            coalesce(tenancy.key_of(reference.relation, 'child'), 'to_jsonb(child)'),
            reference.constraint_name,
            reference.parent,
            reference.relation,
            reference.parent,
            reference.condition
        );
    end loop;
end
$function$;
comment on function tenancy.cross_org_references(regclass) is
'Rows that belong to another organization than a row they reference: of one table, or of all. row_key is the primary key, the whole'
' row where there is none. It reads every table that references another, so it takes as long as that.';

-- Policies ------------------------------------------------------------------------------------------------------------

create or replace function tenancy.org_isolation(target regclass)
returns table (
    relation regclass,
    row_security boolean,
    policy_exists boolean,
    isolated boolean
)
language sql
stable
security invoker
set search_path = ''
as $function$
    select
        member,
        member_class.relrowsecurity,
        policy.oid is not null,
        coalesce(
            member_class.relrowsecurity
            and not policy.polpermissive
            and policy.polcmd = '*'
            and policy.polroles = array['authenticated'::regrole::oid]
            and pg_get_expr(policy.polqual, member) = '(org_id = ( SELECT public.auth_org_id() AS auth_org_id))'
            and pg_get_expr(policy.polwithcheck, member) = '(org_id = ( SELECT public.auth_org_id() AS auth_org_id))',
            false
        )
    from tenancy.members(target) as member
    join pg_catalog.pg_class as member_class
        on member_class.oid = member
    left join pg_catalog.pg_policy as policy
        on policy.polrelid = member
        and policy.polname = 'org_isolation'
$function$;
comment on function tenancy.org_isolation(regclass) is
'The table and its partitions: whether row-level security is on, whether there is a policy org_isolation, and whether that is whole'
' and in force.';

create or replace function tenancy.enable_org_isolation(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    users_without_org bigint;
    member record;
begin
    select isolation.*
    into member
    from tenancy.org_isolation(target) as isolation
    where not isolation.isolated
    limit 1;

    if not found then
        return false;
    end if;

    if not coalesce((tenancy.org_id_column(target)).attnotnull, false) then
        raise exception '% has no org_id that is not null', target
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = 'Isolation is for org-scoped tables after the push, or after tenancy.onboard.';
    end if;

    users_without_org := (select count(*) from tenancy.users_without_org);
    if users_without_org > 0 then
        raise exception 'isolation of % would lock out users: % have not their organization in app_metadata', target, users_without_org
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = 'They are in tenancy.users_without_org. Call the function update-user-org-metadata until it is done, then wait until'
            ' tenancy.stale_sessions() is empty.';
    end if;

    if exists (select from tenancy.org_isolation(target) as isolation where not isolation.row_security) then
        raise exception 'row-level security of % is off: a policy would change nothing', target
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = format(
                'It is off on: %s. Where the API''s roles have privileges, they see all rows of these. Switch it on: alter table … enable'
                ' row level security, with a policy for those who are to see rows.',
                (
                    select string_agg(isolation.relation::text, ', ' order by isolation.relation::text)
                    from tenancy.org_scoped_tables
                    cross join lateral tenancy.org_isolation(org_scoped_tables.relation) as isolation
                    where not isolation.row_security
                )
            );
    end if;

    if member.policy_exists then
        raise exception 'the policy org_isolation on % is not the one that isolates organizations', member.relation
        using
            errcode = 'duplicate_object',
            detail = 'Drop or rename it, then call again.';
    end if;

    perform tenancy.change_table(
        member.relation,
        format(
            $ddl$
                create policy org_isolation on %s
                as restrictive
                for all
                to authenticated
                using (org_id = (select public.auth_org_id()))
                with check (org_id = (select public.auth_org_id()))
            $ddl$,
            member.relation
        )
    );
    return true;
end
$function$;
comment on function tenancy.enable_org_isolation(regclass) is
'Opt-in, a step: adds the restrictive policy org_isolation: whatever the other policies let authenticated see or write, it is of its own'
' organization. One policy a call, a partition has its own; returns whether it had to, so call it until it returns false, and commit'
' after each call, since on the platform policy DDL locks the auth tables. Raises object_not_in_prerequisite_state while users lack'
' their organization, and where row-level security is off; then the DETAIL names every org-scoped table where it is.';

create or replace function tenancy.disable_org_isolation(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    member constant regclass := (
        select isolation.relation
        from tenancy.org_isolation(target) as isolation
        where isolation.policy_exists
        limit 1
    );
begin
    if member is null then
        return false;
    end if;
    perform tenancy.change_table(member, format('drop policy org_isolation on %s', member));
    return true;
end
$function$;
comment on function tenancy.disable_org_isolation(regclass) is 'Undo of enable_org_isolation. Returns whether it had to.';

-- Foreign keys --------------------------------------------------------------------------------------------------------

create table if not exists tenancy.bound_references (
    relation regclass not null,
    constraint_name name not null,
    definition_before text not null,
    comment_before text,
    primary key (relation, constraint_name)
);
comment on table tenancy.bound_references is
'Foreign keys that tenancy.bind_to_parent made composite, and what they were, for tenancy.unbind_from_parent.';

create or replace function tenancy.column_list(column_names text[])
returns text
language sql
immutable
security invoker
set search_path = ''
as $function$
    select string_agg(quote_ident(listed.name), ', ' order by listed.position)
    from unnest(column_names) with ordinality as listed (name, position)
$function$;
comment on function tenancy.column_list(text[]) is 'Names of columns as they stand in DDL: quoted, with commas between. NULL for none.';

create or replace function tenancy.bound_definition(target regclass, constraint_name name)
returns text
language sql
stable
security invoker
set search_path = ''
as $function$
    select format(
        'foreign key (org_id, %s) references %s (org_id, %s) on update %s on delete %s %s',
        tenancy.column_list(org_references.column_names),
        org_references.parent,
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
            when reference.condeferred then 'deferrable initially deferred'
            when reference.condeferrable then 'deferrable'
        end
    )
    from tenancy.org_references
    join pg_catalog.pg_constraint as reference
        on reference.conrelid = org_references.relation
        and reference.conname = org_references.constraint_name
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
    ) as columns_to_set
    where org_references.relation = target
        and org_references.constraint_name = bound_definition.constraint_name
$function$;
comment on function tenancy.bound_definition(regclass, name) is
'What a foreign key is with org_id before its columns on both sides: the same actions, which set no more columns than before.';

create or replace function tenancy.assert_bindable(target regclass, constraint_name name)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $function$
declare
    reference constant pg_catalog.pg_constraint := (
        select existing
        from pg_catalog.pg_constraint as existing
        where existing.conrelid = target
            and existing.conname = assert_bindable.constraint_name
    );
    parent constant regclass := reference.confrelid;
    definition constant text := pg_get_constraintdef(reference.oid);
    column_names text[];
    parent_column_names text[];
    missing text;
    crossing bigint;
begin
    if tenancy.is_partitioned(target) or tenancy.is_partitioned(parent) then
        raise exception 'the foreign key % of % cannot be bound: a partitioned table is on one side of it', constraint_name, target
        using errcode = 'feature_not_supported';
    end if;
    if definition ~ '(MATCH FULL|NOT ENFORCED|NOT VALID|PERIOD|ON UPDATE SET)' then
        raise exception 'the foreign key % of % cannot be bound: it is %', constraint_name, target, definition
        using
            errcode = 'feature_not_supported',
            detail = 'Not valid: validate it first. Match full, not enforced, period, on update set null or default: none of these goes'
            ' together with a column that is never NULL and never changes.';
    end if;
    if not coalesce((tenancy.org_id_column(target)).attnotnull and (tenancy.org_id_column(parent)).attnotnull, false) then
        raise exception 'the foreign key % of % cannot be bound: org_id is nullable on one side of it', constraint_name, target
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = 'It binds rows whose org_id is not null: after the push, or after tenancy.onboard.';
    end if;

    select
        org_references.column_names,
        org_references.parent_column_names
    into
        column_names,
        parent_column_names
    from tenancy.org_references
    where org_references.relation = target
        and org_references.constraint_name = assert_bindable.constraint_name;

    missing := concat_ws(
        E'\n',
        case when not tenancy.has_index(parent, array['org_id'] || parent_column_names, true) then format(
            'create unique index concurrently on %s (org_id, %s);',
            parent,
            tenancy.column_list(parent_column_names)
        ) end,
        case when not tenancy.has_index(target, array['org_id'] || column_names, false) then format(
            'create index concurrently on %s (org_id, %s);',
            target,
            tenancy.column_list(column_names)
        ) end
    );
    if missing <> '' then
        raise exception 'the foreign key % of % cannot be bound yet: it needs indexes', constraint_name, target
        using
            errcode = 'object_not_in_prerequisite_state',
            detail = E'Run these, each outside a transaction, then call again:\n' || missing;
    end if;

    crossing := (
        select count(*)
        from tenancy.cross_org_references(target) as stranger
        where stranger.constraint_name = assert_bindable.constraint_name
    );
    if crossing > 0 then
        raise exception 'the foreign key % of % cannot be bound: % rows belong to another organization than the row they reference',
            constraint_name,
            target,
            crossing
        using
            errcode = 'foreign_key_violation',
            detail = format('They are in tenancy.cross_org_references(%L).', target::text);
    end if;
end
$function$;
comment on function tenancy.assert_bindable(regclass, name) is
'Raises feature_not_supported for foreign keys that cannot be composite with org_id, object_not_in_prerequisite_state while org_id is'
' nullable or an index is missing, with the lines to run in the DETAIL, and foreign_key_violation while rows cross organizations.';

create or replace function tenancy.has_index(target regclass, column_names text[], is_unique boolean)
returns boolean
language sql
stable
security invoker
set search_path = ''
as $function$
    select exists (
        select
        from pg_catalog.pg_index
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
'Whether the table has a valid index over all rows that starts with these columns, or, if it is to be unique, of exactly these.';

create or replace function tenancy.foreign_key_substitute(target regclass)
returns name
language sql
stable
security invoker
set search_path = ''
as $function$
    select reference.conname
    from pg_catalog.pg_constraint as reference
    where reference.conrelid = target
        and reference.contype = 'f'
        and reference.conname ~ '^org_id_substitute_'
$function$;
comment on function tenancy.foreign_key_substitute(regclass) is
'The foreign key that is about to take the place of another, between two calls of tenancy.swap_foreign_key; NULL without one.';

create or replace function tenancy.swap_foreign_key(target regclass, constraint_name name, definition text)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    substitute_name constant name := 'org_id_substitute_' || left(md5(constraint_name), 8);
    validated boolean;
begin
    select reference.convalidated
    into validated
    from pg_catalog.pg_constraint as reference
    where reference.conrelid = target
        and reference.conname = substitute_name;

    if validated is null then
        perform tenancy.change_table(target, format('alter table %s add constraint %I %s not valid', target, substitute_name, definition));
        return false;
    end if;
    if not validated then
        perform tenancy.change_table(target, format('alter table %s validate constraint %I', target, substitute_name));
        return false;
    end if;
    perform tenancy.change_table(target, format('alter table %s drop constraint %I', target, constraint_name));
    perform tenancy.change_table(
        target,
        format('alter table %s rename constraint %I to %I', target, substitute_name, constraint_name)
    );
    return true;
end
$function$;
comment on function tenancy.swap_foreign_key(regclass, name, text) is
'Replaces a foreign key by one of another definition under the same name: in three calls, each a transaction: the new one not valid,'
' its validation, and the change of places, so that none is missing at any time and no scan holds a strong lock. Returns whether that'
' was the last.';

create or replace function tenancy.bind_to_parent(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    reference record;
begin
    select
        org_references.constraint_name,
        pg_get_constraintdef(existing.oid) as definition,
        obj_description(existing.oid, 'pg_constraint') as comment
    into reference
    from tenancy.org_references
    join pg_catalog.pg_constraint as existing
        on existing.conrelid = org_references.relation
        and existing.conname = org_references.constraint_name
    where org_references.relation = target
        and (tenancy.org_id_column(target)).attnum <> all (existing.conkey)
        and existing.conname is distinct from tenancy.foreign_key_substitute(target)
    order by org_references.position
    limit 1;

    if not found then
        return false;
    end if;

    if tenancy.foreign_key_substitute(target) is null then
        perform tenancy.assert_bindable(target, reference.constraint_name);
    end if;
    if tenancy.swap_foreign_key(
        target,
        reference.constraint_name,
        tenancy.bound_definition(target, reference.constraint_name)
    ) then
        insert into tenancy.bound_references
        values (target, reference.constraint_name, reference.definition, reference.comment);
        execute format('comment on constraint %I on %s is %L', reference.constraint_name, target, reference.comment);
    end if;
    return true;
end
$function$;
comment on function tenancy.bind_to_parent(regclass) is
'Opt-in, a step: makes the table''s foreign keys to org-scoped tables composite, (org_id, …) to (org_id, …), under the names that they'
' have, so that no row can reference one of another organization. One change a call; returns whether it had to, so call it until it'
' returns false, and commit after each call. Raises what tenancy.assert_bindable raises, before it changes anything.';

create or replace function tenancy.unbind_from_parent(target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    bound tenancy.bound_references;
begin
    select bound_references.*
    into bound
    from tenancy.bound_references
    where bound_references.relation = target
    order by bound_references.constraint_name
    limit 1;

    if not found then
        -- Of a bind that was not finished.
        if tenancy.foreign_key_substitute(target) is null then
            return false;
        end if;
        perform tenancy.change_table(
            target,
            format('alter table %s drop constraint %I', target, tenancy.foreign_key_substitute(target))
        );
        return true;
    end if;

    if tenancy.swap_foreign_key(target, bound.constraint_name, bound.definition_before) then
        execute format('comment on constraint %I on %s is %L', bound.constraint_name, target, bound.comment_before);
        delete from tenancy.bound_references
        where bound_references.relation = target
            and bound_references.constraint_name = bound.constraint_name;
    end if;
    return true;
end
$function$;
comment on function tenancy.unbind_from_parent(regclass) is
'Undo of bind_to_parent: one change a call; returns whether it had to. The indexes that were built for it stay.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;
