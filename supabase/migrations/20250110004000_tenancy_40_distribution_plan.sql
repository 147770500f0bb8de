-- Purpose: the plan that takes the database past one server with Citus, printed: tenancy.distribution_plan().
-- Touches: new objects in the schema tenancy only. Nothing is distributed here, nor by what is printed until you run it.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.distribution_triggers as
select
    its.tgrelid::regclass as relation, its.tgname as name,
    case when is_ours.yes then format('drop trigger %I on %s', its.tgname, tables.qualified_name) end as away,
    case when fires.yes then format('alter table %s disable trigger %I', tables.qualified_name, its.tgname) end as off,
    case
        when fires.yes then format(
            'alter table %s enable%s trigger %I', tables.qualified_name,
            case its.tgenabled when 'A' then ' always' when 'R' then ' replica' end, its.tgname
        )
    end as back,
    case
        when its.tgfoid = to_regprocedure('tenancy.fill_org_id()') then 'an insert has to send org_id, or a token that has it'
        when its.tgfoid = to_regprocedure('tenancy.leave_users_without_organization()') then
            'who belonged to a deleted organization by app_metadata alone is not noted as in none any more: insert them into tenancy.user_orgs'
        when not is_ours.yes
            then format('%s runs on the node of the row, where only distributed and reference tables are', its.tgfoid::regprocedure)
    end as decision
from tenancy.distribution_tables as tables
join pg_catalog.pg_trigger as its
    on its.tgrelid = tables.relation
    and not its.tgisinternal
    and its.tgparentid = 0
    and its.tgfoid is distinct from to_regprocedure('tenancy.refuse_org_id_change()')
join pg_catalog.pg_proc as function on function.oid = its.tgfoid
cross join lateral (select function.pronamespace = 'tenancy'::regnamespace as yes) as is_ours
cross join lateral (select not is_ours.yes and its.tgtype & 4 <> 0 as yes) as fires
where is_ours.yes
    or its.tgenabled <> 'D' and (
        fires.yes
        or function.prosrc ~* '\m(from|into|update|insert|delete|perform|call|execute)\M'
    );
comment on view tenancy.distribution_triggers is
'The triggers of the tables that are distributed or copied, except the guards. Ours go (away): they read tables that stay on the coordinator.'
' Those of the application that an insert fires are off until the rows are where they go, since Citus'' copying fires them once more; of all'
' others those are here that read or write tables.';

create or replace function tenancy.privileges_of(target regclass)
returns text language sql stable security invoker set search_path = '' as $function$
    select concat_ws(
        ' ', case when class.relrowsecurity then 'row level security' end, case when class.relforcerowsecurity then 'forced' end,
        (
            select string_agg(held.item, ' ' order by held.item)
            from (
                select item::text from unnest(class.relacl) as item
                union all
                select format('%I: %s', attribute.attname, item)
                from pg_catalog.pg_attribute as attribute
                cross join unnest(attribute.attacl) as item
                where attribute.attrelid = class.oid and not attribute.attisdropped
            ) as held (item)
        )
    )
    from pg_catalog.pg_class as class
    where class.oid = target
$function$;
comment on function tenancy.privileges_of(regclass) is
'Who has which privileges on a table and its columns, and whether row-level security is on, as text to compare.';

create or replace view tenancy.distribution_statements as
-- Each looked at once.
with tables as materialized (
    select distribution_tables.*
    from tenancy.distribution_tables
),
reference as materialized (
    select distribution_references.*
    from tenancy.distribution_references
),
trigger as materialized (
    select distribution_triggers.*
    from tenancy.distribution_triggers
),
default_privilege as (
    -- Of a table made anew in the place of one of these, as the concurrent form does.
    select
        format(
            'alter default privileges for role %I%s', pg_get_userbyid(default_acl.defaclrole),
            case when default_acl.defaclnamespace <> 0 then format(' in schema %I', namespace.nspname) end
        ) as clause,
        case when (item).grantee = 0 then 'public' else quote_ident(pg_get_userbyid((item).grantee)) end as grantee,
        lower((item).privilege_type) as privilege, (item).is_grantable
    from pg_catalog.pg_default_acl as default_acl
    cross join aclexplode(default_acl.defaclacl) as item
    left join pg_catalog.pg_namespace as namespace on namespace.oid = default_acl.defaclnamespace
    where default_acl.defaclobjtype = 'r'
        and (item).grantee <> default_acl.defaclrole
        and exists (
            select from tables
            join pg_catalog.pg_class as class on class.oid = tables.relation and class.relowner = default_acl.defaclrole
            where default_acl.defaclnamespace in (0, class.relnamespace)
        )
),
statement (number, step, relation, name, statement, decision) as (
    select
        1, 'check', null::regclass, null::text,
        'do $$ begin if exists (select from tenancy.cross_org_references()) then raise exception ''rows reference those of another organization, see'
        ' tenancy.cross_org_references()''; end if; end $$',
        null::text
    union all
    select 2, 'policy', policies.relation, policies.name, policies.statement, policies.decision
    from tenancy.distribution_policies as policies
    union all
    select 3, 'trigger', null, null, 'update tenancy.settings set fill_org_id = false', null
    from tenancy.settings
    where settings.fill_org_id
    union all
    select 3, 'trigger', trigger.relation, trigger.name, coalesce(trigger.away, trigger.off), trigger.decision
    from trigger
    union all
    select
        4, 'reference away', reference.relation, reference.name, reference.away, case when reference.back is null then reference.decision end
    from reference
    union all
    select 5, 'unique', uniques.relation, uniques.name, uniques.statement, uniques.decision
    from tenancy.distribution_uniques as uniques
    union all
    -- By which its shards can be moved.
    select 6, 'replica identity', tables.relation, null, format('alter table %s replica identity full', tables.qualified_name), null
    from tables
    join pg_catalog.pg_class as class on class.oid = tables.relation and class.relkind = 'r'
    where tables.kind = 'distributed'
        and (
            class.relreplident = 'n'
            or class.relreplident = 'd'
            and not exists (select from pg_catalog.pg_index where pg_index.indrelid = tables.relation and pg_index.indisprimary)
        )
    union all
    select
        7, 'default privileges away', null, default_privilege.clause,
        format('%s revoke all on tables from %s', default_privilege.clause, string_agg(distinct default_privilege.grantee, ', ' order by default_privilege.grantee)), null
    from default_privilege
    group by default_privilege.clause
    union all
    select 8, 'distribute', null, setting.text, setting.text, null
    from (values ('set statement_timeout to 0'), ('set citus.enable_unsafe_triggers to on')) as setting (text)
    union all
    select 9, 'distribute', tables.relation, null, format('select create_reference_table(%L)', tables.qualified_name), 'every node has all of its rows'
    from tables
    where tables.kind = 'reference'
    union all
    select
        10, 'distribute', tables.relation, null,
        format(
            'select create_distributed_table(%L, %L%s)', tables.qualified_name, tables.key_column,
            case when tables.position > 0 then ', colocate_with => ''public.organizations''' end
        ),
        null
    from tables
    where tables.kind = 'distributed' and tables.relation = tables.root
    union all
    select
        11, 'default privileges back', null, concat(default_privilege.clause, default_privilege.grantee),
        format(
            '%s grant %s on tables to %s%s', default_privilege.clause, string_agg(default_privilege.privilege, ', ' order by default_privilege.privilege),
            default_privilege.grantee, case when default_privilege.is_grantable then ' with grant option' end
        ),
        null
    from default_privilege
    group by default_privilege.clause, default_privilege.grantee, default_privilege.is_grantable
    union all
    select
        12, 'privileges compared', tables.relation, null,
        format(
            'do $$ begin if tenancy.privileges_of(%1$L) is distinct from %2$L then raise exception ''%%: privileges are not those from before'', %1$L; end if; end $$',
            tables.qualified_name, tenancy.privileges_of(tables.relation)
        ),
        null
    from tables
    union all
    select 13, 'reference back', reference.relation, reference.name, reference.back, reference.decision
    from reference
    where reference.back is not null
    union all
    select 14, 'trigger back', trigger.relation, trigger.name, trigger.back, null
    from trigger
    where trigger.back is not null
    union all
    -- The form that stops writes leaves them where they were, out of sight.
    select 15, 'old rows', null, null, format('select %s', string_agg(format('truncate_local_data_after_distributing_table(%L)', tables.qualified_name), ', ' order by tables.qualified_name)), null
    from tables
    where tables.relation = tables.root
)
select
    row_number() over (
        order by statement.number, tables.position nulls first, coalesce(tables.qualified_name, statement.relation::text), statement.name
    ) as ordinal,
    statement.step, coalesce(tables.qualified_name, statement.relation::text) as table_name, statement.statement, statement.decision
from statement
left join tables on tables.relation = statement.relation;
comment on view tenancy.distribution_statements is 'The rows of tenancy.distribution_plan(), whether there can be a plan or not.';

create or replace function tenancy.distribution_plan(concurrent boolean default false)
returns table (ordinal bigint, step text, table_name text, statement text, decision text)
language plpgsql stable security invoker set search_path = '' as $function$
declare
    obstacles constant text[] := array(
        select format('%s has no org_id that is never null: finish the push, or call tenancy.onboard(%1$L)', org_id_columns.qualified_name)
        from tenancy.org_id_columns
        where org_id_columns.is_root and not coalesce(org_id_columns.is_not_null, false)
        union all
        select format(
            'the policy %I of %s is restrictive, and Citus makes it permissive, so that it lets in whom it kept out: %s', policy.polname,
            tables.qualified_name,
            case
                when isolation.intact then 'disable isolation in one transaction with the step policy, see docs/past-one-server.md'
                else 'put its condition into each permissive policy, and drop it'
            end
        )
        from tenancy.distribution_tables as tables
        join pg_catalog.pg_policy as policy on policy.polrelid = tables.relation and not policy.polpermissive
        left join tenancy.isolation_policies as isolation on isolation.relation = tables.relation and isolation.policy_name = policy.polname
        union all
        select format(
            case tables.kind
                when 'reference' then '%s is partitioned, and rows that are distributed reference it: register it as org-scoped, or drop their keys'
                else 'the partition %s is partitioned again, which Citus does not distribute'
            end,
            tables.qualified_name
        )
        from tenancy.distribution_tables as tables
        join pg_catalog.pg_class as class on class.oid = tables.relation and class.relkind = 'p'
        where tables.kind = 'reference' or tables.relation <> tables.root
        order by 1
    );
begin
    if obstacles <> '{}' then
        raise exception E'there is no plan to distribute this database as it is:\n%', array_to_string(obstacles, E'\n')
        using errcode = 'object_not_in_prerequisite_state';
    end if;

    return query
    select
        statements.ordinal, statements.step, statements.table_name,
        case
            when concurrent then replace(statements.statement, 'create_distributed_table(', 'create_distributed_table_concurrently(')
            else statements.statement
        end,
        statements.decision
    from tenancy.distribution_statements as statements
    where not concurrent or statements.step <> 'old rows'
    order by statements.ordinal;
end
$function$;
comment on function tenancy.distribution_plan(boolean) is
'The statements that distribute this database with Citus, in order, and what is lost by them: decision, NULL for nothing; a row without'
' statement is a decision alone. It runs nothing. Take them all before you run the first, since the last are made of what the first take'
' down: select statement from tenancy.distribution_plan() \gexec. concurrent: by the form of Citus that lets writes go on. Raises'
' object_not_in_prerequisite_state while the push is not over, while there is a restrictive policy, and where Citus could not distribute a'
' partitioned table.';
