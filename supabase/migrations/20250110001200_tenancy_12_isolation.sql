-- Purpose: opt-in: a policy per table that no row of another organization passes. Nothing is switched on here.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_org_isolation(regclass), or tenancy.roll_back(6) for all.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.isolation_policies as
select
    org_id.root, org_id.relation, org_id.qualified_name, org_id.attnum is not null as has_org_id, member.relrowsecurity as row_security,
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
        case when policies.isolated or not policies.row_security then format('alter table %s enable row level security', policies.qualified_name) end,
        case
            when not policies.intact and policies.policy_name is not null
                then format('drop policy %I on %s', policies.policy_name, policies.qualified_name)
        end,
        case
            when policies.isolated or not policies.intact then format(
                'create policy %I on %s as restrictive for all to authenticated'
                ' using (org_id = (select public.auth_org_id())) with check (org_id = (select public.auth_org_id()))',
                case when policies.isolated then policies.policy_name else 'org_isolation' end, policies.qualified_name
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
where application_tables.isolated and policies.has_org_id;
comment on view tenancy.isolation_parts is
'The policy of every table that tenancy.enable_org_isolation was called for, and of each of its partitions. Columns as tenancy.parts.';

create or replace view tenancy.api_privileges as
with grantee as materialized (
    -- The roles of the API, those that they are members of, and everyone.
    select distinct role.oid, format('%I', role.rolname) as name
    from pg_catalog.pg_roles as role
    join unnest(array['anon', 'authenticated', 'service_role']) as api (name)
        on pg_has_role(to_regrole(api.name), role.oid, 'usage')
    where not role.rolsuper
    union all
    select 0, 'public'
),
privilege as materialized (
    select
        granted.relation, grantee.name as grantee, granted.is_default, (granted.acl_item).privilege_type,
        format(
            'grant %s%s on @r%s@ to %s%s', lower((granted.acl_item).privilege_type), case when granted.attnum is not null then format(' (@c%s.%s@)', granted.relation, granted.attnum) end,
            granted.relation, grantee.name, case when (granted.acl_item).is_grantable then ' with grant option' end
        ) as form
    from (
        select class.oid as relation, null::smallint as attnum, false as is_default, acl_item
        from pg_catalog.pg_class as class
        cross join aclexplode(class.relacl) as acl_item
        where class.relkind in ('r', 'p') and class.relowner <> acl_item.grantee
        union all
        select attribute.attrelid, attribute.attnum, false, acl_item
        from pg_catalog.pg_attribute as attribute
        cross join aclexplode(attribute.attacl) as acl_item
        where not attribute.attisdropped
        union all
        select class.oid, null, true, acl_item
        from pg_catalog.pg_class as class
        join pg_catalog.pg_default_acl as default_acl
            on default_acl.defaclrole = class.relowner
            and default_acl.defaclnamespace = class.relnamespace
            and default_acl.defaclobjtype = 'r'
        cross join aclexplode(default_acl.defaclacl) as acl_item
        where class.relkind in ('r', 'p')
    ) as granted
    join grantee on grantee.oid = (granted.acl_item).grantee
    where (granted.acl_item).privilege_type in ('TRIGGER', 'TRUNCATE', 'REFERENCES')
)
select
    table_members.root, table_members.relation, table_members.qualified_name,
    string_agg(distinct privilege.privilege_type, ', ') filter (where not privilege.is_default) as held,
    string_agg(distinct privilege.grantee, ', ') filter (where not privilege.is_default) as holders,
    string_agg(privilege.form, '; ' order by privilege.form) filter (where not privilege.is_default) as held_form,
    string_agg(privilege.form, '; ' order by privilege.form) filter (where privilege.is_default) as default_form
from tenancy.table_members
left join privilege on privilege.relation = table_members.relation
where table_members.scope = 'org'
group by table_members.root, table_members.relation, table_members.qualified_name;
comment on view tenancy.api_privileges is
'Which of TRIGGER, TRUNCATE and REFERENCES the roles of the API have on each org-scoped table and partition, or its columns (held; NULL:'
' none), who holds them, and what grants these, or those that the default privileges give a new table of the schema, as forms of'
' tenancy.with_names.';

create or replace view tenancy.least_privilege_parts as
select
    7 as phase, 21 as ordinal, 'least_privilege' as part, api_privileges.root, api_privileges.relation, api_privileges.qualified_name,
    'least_privilege'::name as name,
    api_privileges.held is null as present,
    format(
        'revoke trigger, truncate, references on %s from %s cascade', api_privileges.qualified_name,
        coalesce(api_privileges.holders, 'anon, authenticated, service_role')
    ) as ddl,
    case
        when api_privileges.held is null
            and application_tables.privileges_before ->> 'home' = 'tenancy.registry'::regclass::oid::text
            then tenancy.with_names(
                case
                    when application_tables.privileges_before ? api_privileges.relation::oid::text
                        then application_tables.privileges_before ->> api_privileges.relation::oid::text
                    -- A partition that came later.
                    when api_privileges.relation <> api_privileges.root then api_privileges.default_form
                end
            )
    end as undo,
    'ACCESS SHARE' as lock
from tenancy.api_privileges
join tenancy.application_tables on application_tables.relation = api_privileges.root
where application_tables.privileges_before is not null;
comment on view tenancy.least_privilege_parts is
'Of every table that tenancy.enable_least_privilege was called for, and of its partitions: that the roles of the API have no privilege by'
' which they get past policies and guards. Columns as tenancy.parts.';

create or replace view tenancy.privilege_findings as
select
    'isolation_passed_by' as code, 'leaks' as severity, api_privileges.holders as object, api_privileges.qualified_name as table_name,
    format('have %s on %s, which is isolated: who may make triggers on a table or empty it gets past policies', api_privileges.held, api_privileges.qualified_name) as problem,
    format('do $$ begin while tenancy.enable_least_privilege(%L) loop commit; end loop; end $$', application_tables.qualified_name) as remedy
from tenancy.api_privileges
join tenancy.application_tables on application_tables.relation = api_privileges.root
where application_tables.isolated
    and application_tables.privileges_before is null
    and api_privileges.held is not null;
comment on view tenancy.privilege_findings is 'Isolated tables on which the roles of the API have privileges that get past isolation.';

create or replace function tenancy.isolation_losses(target regclass)
returns table (org_id uuid, rows bigint, what text)
language plpgsql stable security invoker set search_path = '' as $function$
declare
    source record;
    reference record;
begin
    if to_regclass('tenancy.sources') is not null then
        for source in
            select
                sources.entry,
                tenancy.with_names(format(
                    'select todo.org_id, count(*) from @r%1$s@ as todo %2$s where %3$s <> todo.org_id group by todo.org_id',
                    sources.root::oid, replace(sources.joins, '{child}', 'todo'), sources.org_id
                )) as query
            from tenancy.sources
            where sources.root = target and sources.kind = 'owner'
            order by sources.ordinal
        loop
            for org_id, rows in execute source.query loop
                what := format('are out of sight for the user of another organization whom %s names', source.entry);
                return next;
            end loop;
        end loop;
    end if;

    for reference in
        select crossing.constraint_name, crossing.parent, crossing.org_id, crossing.parent_org_id, count(*) as rows
        from tenancy.cross_org_references(target) as crossing
        group by crossing.constraint_name, crossing.parent, crossing.org_id, crossing.parent_org_id
    loop
        rows := reference.rows;
        org_id := reference.org_id;
        what := format('reference by %s a row of %s of another organization, which is out of sight for theirs', reference.constraint_name, reference.parent);
        return next;
        org_id := reference.parent_org_id;
        what := format('of %s are referenced by %s from rows of another organization, which are out of sight for theirs', reference.parent, reference.constraint_name);
        return next;
    end loop;
end
$function$;
comment on function tenancy.isolation_losses(regclass) is
'What of a table isolation takes from somebody''s sight, before it is switched on: per organization how many rows, and why. It reads the'
' table, and those that it references. What owners lose is known until tenancy.finish(). No row: everyone sees what they saw of their own'
' organization.';

create or replace function tenancy.isolation_objections(target regclass)
returns text[] language plpgsql stable security invoker set search_path = '' as $function$
begin
    return array(
        select format('%s %s; %s [%s]', leaks.object, leaks.problem, leaks.remedy, leaks.code)
        from tenancy.review_leaks as leaks
        join tenancy.application_tables on application_tables.qualified_name = any (string_to_array(leaks.table_name, ', '))
        where application_tables.relation = target
            and leaks.severity = 'leaks'
            -- The policy closes these, or the step that makes it; that one is an opt-in of its own.
            and leaks.code not in (
                'policy_open', 'policy_on_user_metadata', 'policy_on_unset_claim', 'partition_reachable', 'api_privileges'
            )
        order by leaks.code, leaks.object
    ) || array(
        select format('%s rows of %s organizations %s [rows_lost_from_sight]', sum(losses.rows), count(distinct losses.org_id), losses.what)
        from tenancy.isolation_losses(target) as losses
        group by losses.what
        order by losses.what
    ) || array(
        select format(
            '%s users have no organization in app_metadata, and see nothing until they have, among them %s; place those whom'
            ' nothing places in tenancy.user_orgs, call the function update-user-org-metadata, then wait until tenancy.stale_sessions() is empty [users_without_org]',
            count(*), array_to_string((array_agg(users_without_org.user_id order by users_without_org.user_id))[:5], ', ')
        )
        from tenancy.users_without_org
        having count(*) > 0
    );
end
$function$;
comment on function tenancy.isolation_objections(regclass) is
'What speaks against isolating a table now: leaks that its policy does not close, rows that go out of somebody''s sight, users who would see'
' nothing. Empty for nothing.';

create or replace function tenancy.assert_isolatable(target regclass, despite_findings boolean)
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    problem text;
    state text := 'object_not_in_prerequisite_state';
    objections text[];
begin
    if not coalesce((select org_id.is_not_null from tenancy.org_id_columns as org_id where org_id.relation = target), false) then
        problem := 'has no org_id that is not null: isolation is for org-scoped tables after the push, or after tenancy.onboard';
    elsif exists (select from tenancy.isolation_policies where root = target and not row_security) then
        problem := format(
            'has row-level security off: a policy would change nothing; it is off on %s, where the roles of the API see all rows that they'
            ' have privileges for: alter table … enable row level security, with a policy for those who are to see rows',
            (
                select string_agg(policies.qualified_name, ', ' order by policies.qualified_name)
                from tenancy.isolation_policies as policies
                where not policies.row_security
            )
        );
    else
        select
            format('has a policy org_isolation that is not the one that isolates organizations, on %s; drop or rename it, then call again', policies.relation),
            'duplicate_object'
        into problem, state
        from tenancy.isolation_policies as policies
        where policies.root = target
            and policies.policy_name is not null
            and not policies.isolated
            and policies.row_security
        limit 1;

        if problem is null then
            objections := tenancy.isolation_objections(target);
        end if;
        if despite_findings then
            insert into tenancy.log (part, table_name, statement)
            select 'objection', target::text, objection
            from unnest(objections) as objection;
        elsif objections <> '{}' then
            problem := format(
                E'would not be isolated by a policy alone, or not without a loss:\n%s\nFix these, or go on in spite of them:'
                ' tenancy.enable_org_isolation(%L, despite_findings => true)',
                array_to_string(objections, E'\n'), target::text
            );
            state := 'object_not_in_prerequisite_state';
        end if;
    end if;

    if problem is not null then
        raise exception '% %', target, problem
        using errcode = state, schema = tenancy.schema_of(target), table = tenancy.table_of(target);
    end if;
end
$function$;
comment on function tenancy.assert_isolatable(regclass, boolean) is
'Raises object_not_in_prerequisite_state for a table without an org_id that is not null, where row-level security is off, naming every'
' org-scoped table where it is, and with tenancy.isolation_objections in the message, which with despite_findings go to tenancy.log instead;'
' duplicate_object where a policy of that name is another one.';

create or replace function tenancy.remember_isolation(target regclass, isolated boolean)
returns void language sql volatile security invoker set search_path = '' as $function$
    update tenancy.registry
    set isolated = remember_isolation.isolated
    from tenancy.registered_tables
    where registered_tables.relation = target
        and (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name)
        and registry.isolated <> remember_isolation.isolated
$function$;
comment on function tenancy.remember_isolation(regclass, boolean) is 'Notes in the registry whether a table is to be isolated.';

create or replace function tenancy.enable_org_isolation(target regclass, despite_findings boolean default false)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if not coalesce((select application_tables.isolated from tenancy.application_tables where application_tables.relation = target), false) then
        perform tenancy.assert_isolatable(target, despite_findings);
        perform tenancy.remember_isolation(target, true);
    end if;
    return tenancy.build(target, 'isolation');
end
$function$;
comment on function tenancy.enable_org_isolation(regclass, boolean) is
'Opt-in, and remembered: adds the restrictive policy org_isolation: whatever the other policies let authenticated see or write, it is of its own'
' organization. One policy per call, a partition has its own; returns true if it changed something, so call it until it returns false,'
' and commit after each call, since on the platform policy DDL locks the auth tables:'
' do $$ begin while tenancy.enable_org_isolation(''…'') loop commit; end loop; end $$. Raises what tenancy.assert_isolatable raises, before'
' the first policy; despite_findings: goes on in spite of what tenancy.isolation_objections lists, and writes it to'
' tenancy.log.';

create or replace function tenancy.disable_org_isolation(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if tenancy.take_back(target, 'isolation') then
        return true;
    end if;

    perform tenancy.remember_isolation(target, false);
    return false;
end
$function$;
comment on function tenancy.disable_org_isolation(regclass) is
'Undo of enable_org_isolation, by the same protocol: one policy per call, true if it changed something.';

create or replace function tenancy.enable_least_privilege(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    update tenancy.registry
    set privileges_before = coalesce(
        registry.privileges_before,
        (
            select
                jsonb_build_object('home', 'tenancy.registry'::regclass::oid::text)
                || jsonb_object_agg(api_privileges.relation::oid::text, api_privileges.held_form)
            from tenancy.api_privileges
            where api_privileges.root = target
        )
    )
    from tenancy.registered_tables
    where registered_tables.relation = target
        and (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name)
        and registry.scope = 'org';
    if not found then
        raise exception '% is not registered as org-scoped', target
        using errcode = 'wrong_object_type', schema = tenancy.schema_of(target), table = tenancy.table_of(target);
    end if;
    return tenancy.build(target, 'least_privilege');
end
$function$;
comment on function tenancy.enable_least_privilege(regclass) is
'Opt-in, and remembered: takes TRIGGER, TRUNCATE and REFERENCES on a table and its partitions from anon, authenticated, service_role, the'
' roles that these are members of, and PUBLIC, which the platform gives them on every new table and the API has no use for: who may make triggers on a table can move rows past its'
' guards and policies. One revoke per call, true if it changed something, as tenancy.enable_org_isolation. Raises wrong_object_type for'
' what is no org-scoped table.';

create or replace function tenancy.disable_least_privilege(target regclass)
returns boolean language plpgsql volatile security invoker set search_path = '' as $function$
begin
    if tenancy.take_back(target, 'least_privilege') then
        return true;
    end if;

    update tenancy.registry
    set privileges_before = null
    from tenancy.registered_tables
    where registered_tables.relation = target
        and (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name);
    return false;
end
$function$;
comment on function tenancy.disable_least_privilege(regclass) is
'Undo of enable_least_privilege, by the same protocol: grants what there was before, and to partitions that came later what the default'
' privileges of the schema grant.';
