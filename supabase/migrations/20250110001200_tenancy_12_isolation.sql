-- Purpose: opt-in: a policy per table that no row of another organization passes. Nothing is switched on here.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_org_isolation(regclass), or tenancy.roll_back(6) for all.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.isolation_policies as
select
    org_id.root, org_id.relation, org_id.qualified_name, member.relrowsecurity as row_security,
    policy.polname as policy_name,
    coalesce(policy.intact, false) as intact, coalesce(member.relrowsecurity and policy.intact, false) as isolated
from tenancy.org_id_columns as org_id
join pg_catalog.pg_class as member on member.oid = org_id.relation
left join lateral (
    select
        found.polname,
        not found.polpermissive
            and found.polcmd = '*'
            and found.polroles = array[to_regrole('authenticated')::oid]
            and pg_get_expr(found.polqual, found.polrelid)
                ~ '^\(org_id = \( SELECT (public\.)?auth_org_id\(\) AS auth_org_id\)\)$'
            and pg_get_expr(found.polwithcheck, found.polrelid)
                ~ '^\(org_id = \( SELECT (public\.)?auth_org_id\(\) AS auth_org_id\)\)$' as intact
    from pg_catalog.pg_policy as found
    where found.polrelid = org_id.relation
    order by 2 desc, found.polname = 'org_isolation' desc
    limit 1
) as policy
    on policy.intact
    or policy.polname = 'org_isolation';
comment on view tenancy.isolation_policies is
'Every org-scoped table and partition: whether row-level security is on, the policy that isolates organizations (or has its name), and'
' whether that is whole and in force.';

create or replace view tenancy.isolation_parts as
select
    7 as phase, 18 as ordinal, 'isolation' as part, policies.root, policies.relation, policies.qualified_name,
    coalesce(policies.policy_name, 'org_isolation') as name,
    policies.isolated as present,
    concat_ws(
        '; ',
        case when not policies.row_security then format('alter table %s enable row level security', policies.qualified_name) end,
        case
            when not policies.intact and policies.policy_name is not null
                then format('drop policy %I on %s', policies.policy_name, policies.qualified_name)
        end,
        case
            when not policies.intact then format(
                'create policy org_isolation on %s as restrictive for all to authenticated'
                ' using (org_id = (select public.auth_org_id())) with check (org_id = (select public.auth_org_id()))',
                policies.qualified_name
            )
        end
    ) as ddl,
    case
        -- One of another name was there before.
        when policies.policy_name = 'org_isolation' then format('drop policy org_isolation on %s', policies.qualified_name)
    end as undo,
    'ACCESS EXCLUSIVE' as lock
from tenancy.isolation_policies as policies
join tenancy.application_tables on application_tables.relation = policies.root
where application_tables.isolated;
comment on view tenancy.isolation_parts is
'The policy of every table that tenancy.enable_org_isolation was called for, and of each of its partitions. Columns as tenancy.parts.';

create or replace function tenancy.assert_isolatable(target regclass)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    users_without_org constant bigint := (select count(*) from tenancy.users_without_org);
    policy_of_another constant regclass := (
        select policies.relation
        from tenancy.isolation_policies as policies
        where policies.root = target
            and policies.policy_name is not null
            and not policies.isolated
            and policies.row_security
        limit 1
    );
begin
    if not coalesce((select org_id.is_not_null from tenancy.org_id_columns as org_id where org_id.relation = target), false) then
        raise exception '% has no org_id that is not null: isolation is for org-scoped tables after the push, or after tenancy.onboard',
            target
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = tenancy.schema_of(target),
            table = tenancy.table_of(target);
    end if;

    if users_without_org > 0 then
        raise exception 'isolation of % would lock out users: % lack their organization in app_metadata, see'
            ' tenancy.users_without_org; call the function update-user-org-metadata until it is done, then wait until'
            ' tenancy.stale_sessions() is empty', target, users_without_org
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = tenancy.schema_of(target),
            table = tenancy.table_of(target);
    end if;

    if exists (select from tenancy.isolation_policies where root = target and not row_security) then
        raise exception 'row-level security of % is off: a policy would change nothing; it is off on %, where the roles of the API see'
            ' all rows that they have privileges for: alter table … enable row level security, with a policy for those who are to see rows',
            target,
            (
                select string_agg(policies.qualified_name, ', ' order by policies.qualified_name)
                from tenancy.isolation_policies as policies
                where not policies.row_security
            )
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = tenancy.schema_of(target),
            table = tenancy.table_of(target);
    end if;

    if policy_of_another is not null then
        raise exception 'the policy org_isolation on % is not the one that isolates organizations; drop or rename it, then call again',
            policy_of_another
        using
            errcode = 'duplicate_object',
            schema = tenancy.schema_of(policy_of_another),
            table = tenancy.table_of(policy_of_another);
    end if;
end
$function$;
comment on function tenancy.assert_isolatable(regclass) is
'Raises object_not_in_prerequisite_state for a table without an org_id that is not null, while users lack their organization, and where'
' row-level security is off, naming every org-scoped table where it is; duplicate_object where a policy of that name is another one.';

create or replace function tenancy.remember_isolation(target regclass, isolated boolean)
returns void language sql volatile security invoker set search_path = '' as $function$
    update tenancy.registry
    set isolated = remember_isolation.isolated
    from tenancy.application_tables
    where application_tables.relation = target
        and registry.schema_name = application_tables.schema_name
        and registry.table_name = application_tables.table_name
        and registry.isolated <> remember_isolation.isolated
$function$;
comment on function tenancy.remember_isolation(regclass, boolean) is 'Notes in the registry whether a table is to be isolated.';

create or replace function tenancy.enable_org_isolation(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if exists (
        select from tenancy.isolation_policies as policies
        where policies.root = target
            and not policies.isolated
            and (select not application_tables.isolated from tenancy.application_tables where application_tables.relation = target)
    ) or not exists (select from tenancy.org_id_columns as org_id where org_id.root = target) then
        perform tenancy.assert_isolatable(target);
    end if;

    perform tenancy.remember_isolation(target, true);
    return org_migration.build(target, 'isolation');
end
$function$;
comment on function tenancy.enable_org_isolation(regclass) is
'Opt-in, and remembered: adds the restrictive policy org_isolation: whatever the other policies let authenticated see or write, it is of its own'
' organization. One policy per call, a partition has its own; returns true if it changed something, so call it until it returns false,'
' and commit after each call, since on the platform policy DDL locks the auth tables:'
' do $$ begin while tenancy.enable_org_isolation(''…'') loop commit; end loop; end $$. Raises what tenancy.assert_isolatable raises.';

create or replace function tenancy.disable_org_isolation(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if org_migration.take_back(target, 'isolation') then
        return true;
    end if;

    perform tenancy.remember_isolation(target, false);
    return false;
end
$function$;
comment on function tenancy.disable_org_isolation(regclass) is
'Undo of enable_org_isolation, by the same protocol: one policy per call, true if it changed something.';

create or replace function tenancy.cross_org_references(target regclass default null)
returns table (
    relation regclass,
    row_key jsonb,
    org_id uuid,
    constraint_name name,
    parent regclass,
    parent_org_id uuid
)
language plpgsql stable security invoker set search_path = '' as $function$
declare
    reference record;
begin
    for reference in
        select
            org_references.*,
            tenancy.with_names(replace(replace(org_references.condition, '{parent}', 'parent'), '{child}', 'child')) as named_condition
        from tenancy.org_references
        where org_references.relation = coalesce(target, org_references.relation)
        order by org_references.relation::text, org_references.position
    loop
        return query execute format(
            $sql$
                select %L::regclass, %s, child.org_id, %L::name, %L::regclass, parent.org_id
                from %s as child
                join %s as parent on %s
                where parent.org_id is distinct from child.org_id
            $sql$,
            reference.relation,
            coalesce(tenancy.with_names(org_migration.key_of(reference.relation, 'child')), 'to_jsonb(child)'),
            reference.constraint_name, reference.parent, reference.relation, reference.parent,
            reference.named_condition
        );
    end loop;
end
$function$;
comment on function tenancy.cross_org_references(regclass) is
'Rows that belong to another organization than a row they reference: of one table, or of all. row_key is the primary key, the whole'
' row where there is none. It reads every table that references another, so it takes as long as that.';
