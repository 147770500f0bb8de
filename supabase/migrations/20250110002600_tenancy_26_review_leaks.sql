-- Purpose: where rows of another organization are within reach: views, functions, policies, roles, privileges.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.policy_clauses as
with own_column as materialized (
    -- What says whose a row is: a user, a key of another table, an organization.
    select owner_columns.relation, owner_columns.attnum, true as is_user
    from tenancy.owner_columns
    union
    select
        reference.relation, reference.attnums[1],
        exists (
            select from tenancy.owner_columns
            where owner_columns.relation = reference.parent and array[owner_columns.attnum] = reference.parent_attnums
        )
    from tenancy.references_between_tables as reference
)
select
    policy.oid as policy_oid, format('%I', policy.polname) as name, policy.polrelid::regclass as relation, member.qualified_name, member.root,
    root.qualified_name as table_name, member.row_security, policy.polcmd as command,
    policy.polroles as roles, policy.polpermissive as is_permissive, clause.kind,
    pg_get_expr(clause.node, policy.polrelid) as expression,
    seen.has_org_id, seen.has_user, text.has_tables, text.has_functions,
    case
        when pg_get_expr(clause.node, policy.polrelid) = 'false' then 'no'
        when seen.column_count = 0 then 'yes'
        when seen.has_own or text.has_tables or text.has_functions
            or pg_get_expr(clause.node, policy.polrelid) ~ '(uid|jwt|email|auth_org_id|current_setting)\('
            then 'no'
        else 'probably'
    end as is_open
from pg_catalog.pg_policy as policy
join tenancy.isolation_policies as member on member.relation = policy.polrelid
join tenancy.application_tables as root on root.relation = member.root
left join tenancy.org_id_columns as org_id on org_id.relation = member.relation
cross join lateral (values ('using', policy.polqual), ('with check', policy.polwithcheck)) as clause (kind, node)
cross join lateral (
    select
        clause.node::text ~ '\{(RTE|RANGETBLENTRY) ' as has_tables,
        exists (
            select from pg_catalog.pg_depend as dependency
            join pg_catalog.pg_proc as function on function.oid = dependency.refobjid
            join pg_catalog.pg_namespace as namespace on namespace.oid = function.pronamespace
            where dependency.classid = 'pg_catalog.pg_policy'::regclass
                and dependency.objid = policy.oid
                and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
                and namespace.nspname <> 'auth'
                and clause.node::text ~ format(':funcid %s ', function.oid)
        ) as has_functions
) as text
cross join lateral (
    select
        count(*) as column_count,
        bool_or(own_column.relation is not null or used.attnum <= 0 or used.attnum = org_id.attnum) as has_own,
        coalesce(bool_or(own_column.is_user), false) as has_user,
        coalesce(bool_or(used.attnum = org_id.attnum), false) as has_org_id
    from (
        -- The row's own columns; in a query of the clause they are of an outer level.
        select distinct variable.part[1]::smallint as attnum
        from regexp_matches(clause.node::text, '\{VAR :varno 1 :varattno (-?\d+) [^{}]*:varlevelsup (\d+)', 'g') as variable (part)
        where not text.has_tables or variable.part[2] <> '0'
        union
        select variable.part[1]::smallint
        from regexp_matches(split_part(clause.node::text, '{SUBLINK', 1), '\{VAR :varno 1 :varattno (-?\d+) ', 'g') as variable (part)
        union
        select dependency.refobjsubid::smallint
        from pg_catalog.pg_depend as dependency
        where text.has_tables
            and dependency.classid = 'pg_catalog.pg_policy'::regclass
            and dependency.objid = policy.oid
            and dependency.refclassid = 'pg_catalog.pg_class'::regclass
            and dependency.refobjid = policy.polrelid
            and dependency.refobjsubid > 0
    ) as used
    left join own_column
        on own_column.relation = root.relation
        and own_column.attnum = used.attnum
) as seen
where clause.node is not null;
comment on view tenancy.policy_clauses is
'Both expressions of every policy of an org-scoped table or a partition of one. is_open: yes where it looks at no column of the row, probably'
' where at none that says whose the row is. has_user: at one that holds a user, directly or as the key of a profile.';

create or replace view tenancy.review_leaks as
with recursive member as materialized (
    select
        policies.root, policies.relation, policies.qualified_name, policies.row_security,
        policies.relation = policies.root as is_root, class.relnamespace, class.relowner, root.qualified_name as table_name
    from tenancy.isolation_policies as policies
    join pg_catalog.pg_class as class on class.oid = policies.relation
    join tenancy.application_tables as root on root.relation = policies.root
),
-- Whom the API lets in, or may: no superuser, and none of the platform's own.
api_role as materialized (
    select role.oid, role.rolname, role.rolbypassrls
    from pg_catalog.pg_roles as role
    where not role.rolsuper
        and role.rolname <> current_user
        and role.rolname !~ '^(pg_|supabase_|cli_login_|pgsodium_|pgtle_)'
        and role.rolname not in ('postgres', 'authenticator', 'service_role', 'dashboard_user', 'pgbouncer')
        and pg_has_role(role.oid, to_regrole('postgres'), 'usage') is not true
        and pg_has_role(role.oid, to_regrole('service_role'), 'usage') is not true
),
access as materialized (
    select
        member.relation, api_role.oid as role_oid, api_role.rolname::text, api_role.rolbypassrls, array_agg(may.privilege) as privileges
    from member
    join api_role
        on has_schema_privilege(api_role.oid, member.relnamespace, 'usage')
        and not pg_has_role(api_role.oid, member.relowner, 'usage')
    cross join lateral (
        select privilege
        from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as privilege
        where has_table_privilege(api_role.oid, member.relation, privilege)
            or (privilege <> 'DELETE' and has_any_column_privilege(api_role.oid, member.relation, privilege))
    ) as may
    group by member.relation, api_role.oid, api_role.rolname, api_role.rolbypassrls
),
clause as materialized (
    select
        policy_clauses.*,
        case
            when policy_clauses.command = 'r' then '{SELECT}'
            when policy_clauses.command = 'w' then '{UPDATE}'
            when policy_clauses.command = 'd' then '{DELETE}'
            when policy_clauses.kind = 'with check' then '{INSERT}'
            else '{SELECT,INSERT,UPDATE,DELETE}'
        end::text[] as privileges,
        format('alter policy %s on %s', policy_clauses.name, policy_clauses.qualified_name) as alter_policy
    from tenancy.policy_clauses
),
-- Which roles a policy is for, as they have the privileges for its command.
reader as materialized (
    select clause.*, access.role_oid, access.rolname
    from clause
    join access
        on access.relation = clause.relation
        and access.privileges && clause.privileges
    where clause.is_permissive
        and clause.row_security
        and not access.rolbypassrls
        and exists (
            select from unnest(clause.roles) as for_role (oid)
            where for_role.oid = 0 or pg_has_role(access.role_oid, for_role.oid, 'usage')
        )
        -- Isolation, or a policy of the application's own that does the same.
        and not exists (
            select from clause as held
            where held.relation = clause.relation
                and not held.is_permissive
                and held.command = '*'
                and held.has_org_id
                and (0 = any (held.roles) or access.role_oid = any (held.roles))
        )
),
open_policy as (
    select
        reader.rolname, reader.name, reader.table_name, reader.alter_policy, reader.roles,
        bool_and(reader.is_open = 'probably') as is_guess, bool_or(reader.kind = 'using') as is_seen,
        bool_or(not reader.has_functions and not reader.has_tables and reader.expression !~ '\m(uid|role|jwt|email)\(') as is_anyones,
        string_agg(
            format(
                '%s (%sorg_id = (select public.auth_org_id()))', reader.kind,
                case when reader.expression <> 'true' then reader.expression || ' and ' end
            ), ' ' order by reader.kind
        ) as bound
    from reader
    where reader.is_open <> 'no'
        -- The organization of a row that is there cannot change.
        and not (reader.command = 'w' and reader.kind = 'with check')
    group by reader.rolname, reader.policy_oid, reader.name, reader.table_name, reader.alter_policy, reader.roles
),
-- Views: what is read as their owner, and who may read them, directly or through others that are read as theirs.
above (relation, upper) as (
    select views_over_tables.relation, views_over_tables.relation
    from tenancy.views_over_tables
    union
    select read.refobjid::regclass, upper.relation
    from tenancy.views_over_tables as upper
    join pg_catalog.pg_rewrite as rule on rule.ev_class = upper.relation
    join pg_catalog.pg_depend as read
        on read.classid = 'pg_catalog.pg_rewrite'::regclass
        and read.objid = rule.oid
        and read.refclassid = 'pg_catalog.pg_class'::regclass
    where not upper.is_invoker
),
view_access as materialized (
    select
        above.relation, string_agg(distinct api_role.rolname, ', ') as readers, string_agg(distinct upper.qualified_name, ', ') as names
    from above
    join tenancy.views_over_tables as upper on upper.relation = above.upper
    join api_role
        on has_schema_privilege(api_role.oid, upper.relnamespace, 'usage')
        and not pg_has_role(api_role.oid, upper.relowner, 'usage')
        and (
            has_table_privilege(api_role.oid, upper.relation, 'select, insert, update, delete')
            or has_any_column_privilege(api_role.oid, upper.relation, 'select')
        )
    group by above.relation
),
code as materialized (
    select
        application_functions.*, function.prosecdef as is_definer, function.pronamespace,
        array(
            select dependency.objid
            from pg_catalog.pg_depend as dependency
            where dependency.classid = 'pg_catalog.pg_policy'::regclass
                and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
                and dependency.refobjid = function.oid
        ) as policy_oids
    from tenancy.application_functions
    join pg_catalog.pg_proc as function on function.oid = application_functions.oid
),
called as materialized (
    select distinct caller.oid as caller, callee.oid as callee
    from code as caller
    cross join lateral regexp_matches(caller.source, '("(?:[^"]|"")+"|[a-z_][\w$]*)\s*\(', 'gi') as word (part)
    join code as callee
        on callee.proname = (parse_ident(word.part[1]))[1]
        and callee.oid <> caller.oid
),
-- What each function reads or writes, itself or by those that it calls.
reach (function, table_name, is_parsed) as (
    select table_mentions.function, table_mentions.table_name, table_mentions.is_parsed
    from tenancy.table_mentions
    union
    select called.caller, reach.table_name, false
    from reach
    join called on called.callee = reach.function
)
select distinct
    'view_without_security_invoker' as code,
    case when said.definition ~ '\m(uid|jwt|email)\(' then 'decide' else 'leaks' end as severity, views.qualified_name as object, views.table_name,
    format('is a view over %s that %s may read past row-level security, as its owner', views.table_name, view_access.readers) as problem,
    format('alter view %s set (security_invoker = true)', views.qualified_name) as remedy
from tenancy.views_over_tables as views
join view_access on view_access.relation = views.relation
join pg_catalog.pg_roles as owner on owner.oid = views.relowner
join member on member.relation = views.root
cross join lateral (select pg_get_viewdef(views.relation)) as said (definition)
where views.relkind = 'v'
    and said.definition !~ '\mauth_org_id\('
    and views.is_direct
    and not views.is_invoker
    and (owner.rolsuper or owner.rolbypassrls or pg_has_role(owner.oid, member.relowner, 'usage'))
union all
select
    'materialized_view', 'leaks', views.qualified_name, views.table_name,
    format('is a materialized view of %s that %s may read: no policy holds its rows apart', views.table_name, view_access.readers),
    format('revoke all on %s from public, %s', view_access.names, view_access.readers)
from tenancy.views_over_tables as views
join view_access on view_access.relation = views.relation
where views.relkind = 'm'
union all
select
    case when member.is_root then 'row_security_off' else 'partition_reachable' end, 'leaks', member.qualified_name, member.table_name,
    format(
        'is %sopen to %s: row-level security is off', case when not member.is_root then format('a partition of %s, ', member.table_name) end,
        string_agg(access.rolname, ', ' order by access.rolname)
    ),
    format('alter table %s enable row level security', member.qualified_name)
from member
join access on access.relation = member.relation
where not member.row_security
group by member.is_root, member.qualified_name, member.table_name
union all
select
    'policy_open', 'leaks', open_policy.name, open_policy.table_name,
    format(
        'is a policy that %slets whoever passes it %s rows of every organization in %s: it looks at %s', case when open_policy.is_guess then 'probably ' end,
        case when open_policy.is_seen then 'see' else 'add' end, open_policy.table_name,
        case when open_policy.is_guess then 'nothing that says whose a row is' else 'no column of the row' end
    ),
    format('%s %s', open_policy.alter_policy, open_policy.bound)
from open_policy
where open_policy.rolname = 'authenticated'
union all
select
    'policy_without_to', 'leaks', open_policy.name, open_policy.table_name,
    format('is a policy of %s without TO: anon passes it too, and isolation, which is to authenticated, does not hold anon', open_policy.table_name),
    format('%s to authenticated', open_policy.alter_policy)
from open_policy
where open_policy.rolname = 'anon' and open_policy.roles = '{0}' and open_policy.is_anyones
union all
select
    'policy_on_user_metadata', 'leaks', clause.name, clause.table_name,
    format('is a policy of %s that trusts user_metadata, which every user writes themselves%s', clause.table_name, ', in ' || min(code.name)),
    coalesce(
        'read app_metadata instead in ' || min(code.name),
        concat_ws(' ', clause.alter_policy, string_agg(
            format('%s (%s)', clause.kind, regexp_replace(clause.expression, '\m(raw_)?user(_meta_?data)', '\1app\2', 'g')), ' ' order by clause.kind
        ))
    )
from clause
left join code
    on clause.policy_oid = any (code.policy_oids)
    and code.source_with_text ~ '\m(user_metadata|raw_user_meta_data)\M'
where code.oid is not null or clause.expression ~ '(user_metadata|raw_user_meta_data)'
group by clause.name, clause.table_name, clause.alter_policy
union all
select distinct
    'policy_on_unset_claim', 'leaks', clause.name, clause.table_name,
    format('is a policy of %s that reads the claim %s at the top of the token, where probably nobody sets it', clause.table_name, claim.part[1]),
    'take (select public.auth_org_id()) in its place: the organization of app_metadata'
from clause
cross join lateral regexp_matches(
    clause.expression, '(?:\mjwt\(\)(?: AS jwt)?\)*|request\.jwt\.claims''[^>]*) ->>? ''([^'']+)''', 'g'
) as claim (part)
where claim.part[1] not in (
        'iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti', 'role', 'aal', 'amr', 'session_id', 'email', 'phone', 'is_anonymous',
        'app_metadata', 'user_metadata', 'ref'
    )
    -- An auth hook may set it.
    and not exists (
        select from tenancy.application_functions
        where application_functions.source_with_text ~ '\mclaims\M'
            and strpos(application_functions.source_with_text, claim.part[1]) > 0
            and application_functions.source_with_text !~ 'request\.jwt'
    )
union all
select
    'role_beyond_authenticated', 'leaks', format('%I', access.rolname), member.table_name,
    format(
        'is a role that reaches rows of %s%s, and isolation, which is to authenticated, does not hold it', member.table_name,
        case when access.rolbypassrls then ' past row-level security' end
    ),
    case
        when access.rolbypassrls or access.rolname = 'anon' then format('revoke all on %s from %I', member.qualified_name, access.rolname)
        else format(
            'create policy %I on %s as restrictive for all to %I using (org_id = (select public.auth_org_id()))',
            left('org_isolation_' || access.rolname, 63), member.qualified_name, access.rolname
        )
    end
from member
join access on access.relation = member.relation
where member.is_root
    and access.rolname <> 'authenticated'
    and not pg_has_role(access.role_oid, to_regrole('authenticated'), 'usage')
    and member.row_security
    and (
        access.rolbypassrls
        or exists (
            select from reader
            where reader.relation = member.relation
                and reader.role_oid = access.role_oid
                and not (reader.has_org_id and reader.expression ~ '\mauth_org_id\(')
                and (access.rolname <> 'anon' or (reader.roles <> '{0}' and reader.command in ('r', '*') and reader.is_open <> 'no'))
        )
    )
union all
select
    'security_definer_function', case when code.source ~* '\mauth\s*\.\s*(uid|jwt|email)\M' then 'decide' else 'leaks' end,
    code.name, reach.table_name,
    format(
        '%sreads or writes %s with its owner''s rights, past row-level security, and %s may call it%s',
        case when not bool_or(reach.is_parsed) then 'probably ' end, reach.table_name, callable.roles,
        case when code.source ~* '\mauth\s*\.\s*(uid|jwt|email)\M' then ': it looks at who calls' end
    ),
    case
        when code.policy_oids <> '{}' then format('let %s look at rows of public.auth_org_id() alone: a policy uses it', code.name)
        else format('alter routine %s security invoker', code.name)
    end
from code
join reach on reach.function = code.oid
cross join lateral (
    select string_agg(api_role.rolname, ', ' order by api_role.rolname) as roles
    from api_role
    where has_schema_privilege(api_role.oid, code.pronamespace, 'usage')
        and has_function_privilege(api_role.oid, code.oid, 'execute')
) as callable
where code.is_definer
    and code.kind = 'function'
    and callable.roles is not null
    and code.source !~* '\mauth_org_id\M'
group by code.name, code.source, code.policy_oids, reach.table_name, callable.roles
union all
select
    'api_privileges', 'leaks', namespace.nspname::text, null,
    format(
        'is a schema in which %s may make triggers on, empty or reference org-scoped tables (%s of them): no policy holds that',
        string_agg(distinct holder.name, ', '), count(distinct api_privileges.root)
    ),
    format(
        'revoke trigger, truncate, references on all tables in schema %1$I from %2$s; alter default privileges in schema %1$I revoke'
        ' trigger, truncate, references on tables from %2$s',
        namespace.nspname, string_agg(distinct holder.name, ', ')
    )
from tenancy.api_privileges
join pg_catalog.pg_class as class on class.oid = api_privileges.relation
join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
cross join string_to_table(api_privileges.holders, ', ') as holder (name)
group by namespace.nspname;
comment on view tenancy.review_leaks is
'Where rows of another organization are within reach. Columns as tenancy.review.';
