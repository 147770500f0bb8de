-- Purpose: what policies let pass: rows of every organization, claims that users write themselves, roles that isolation does not hold.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.policy_arms as
with recursive clause as materialized (
    select
        row_number() over () as number, policy.oid as policy_oid, format('%I', policy.polname) as name, policy.polrelid::regclass as relation,
        member.qualified_name, member.root, root.qualified_name as table_name, member.row_security, policy.polcmd as command, policy.polroles as roles,
        policy.polpermissive as is_permissive, its.kind, pg_get_expr(its.node, policy.polrelid) as expression, org_id.attnum as org_id_attnum,
        -- Without what is escaped, which stands in names: what is left of braces is the tree's.
        regexp_replace(its.node::text, '\\.', '', 'g') as node
    from pg_catalog.pg_policy as policy
    join tenancy.isolation_policies as member on member.relation = policy.polrelid
    join tenancy.application_tables as root on root.relation = member.root
    left join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = policy.polrelid
        and org_id.attname = 'org_id'
    cross join lateral (values ('using', policy.polqual), ('with check', policy.polwithcheck)) as its (kind, node)
    where its.node is not null
),
-- What an OR lets pass are its arms, each of which asks everything that stands in it under an AND.
expansion (clause, leaves, steps) as (
    select clause.number, array[clause.node], 0
    from clause
    union all
    select expansion.clause, expansion.leaves[:next.position - 1] || expansion.leaves[next.position + 1:] || split.leaves, expansion.steps + 1
    from expansion
    cross join lateral (
        select leaf.position, leaf.node, leaf.node like '{BOOLEXPR :boolop or %' as is_or
        from unnest(expansion.leaves) with ordinality as leaf (node, position)
        where leaf.node like '{BOOLEXPR :boolop or %' or leaf.node like '{BOOLEXPR :boolop and %'
        order by leaf.position
        limit 1
    ) as next
    cross join lateral (
        select array_agg(argument.node order by argument.number) as leaves
        from (
            select placed.number, string_agg('{' || placed.text, '' order by placed.position) as node
            from (
                select deep.*, count(*) filter (where deep.depth = 1) over (order by deep.position) as number
                from (
                    select
                        part.text, part.position,
                        coalesce(
                            sum(1 - length(part.text) + length(replace(part.text, '}', '')))
                                over (order by part.position rows between unbounded preceding and 1 preceding), 0
                        ) as depth
                    -- The first two are what stands before the first brace, and the expression itself.
                    from string_to_table(next.node, '{') with ordinality as part (text, position)
                    where part.position > 1
                ) as deep
            ) as placed
            where placed.depth > 0
            group by placed.number
        ) as argument
        group by case when next.is_or then argument.number end
    ) as split
    where expansion.steps < 12
),
arm as materialized (
    select row_number() over () as number, expansion.clause, expansion.leaves
    from expansion
    where expansion.steps = 12
        or not exists (select from unnest(expansion.leaves) as leaf (node) where leaf.node ~ '^\{BOOLEXPR :boolop (and|or) ')
),
seen as materialized (
    select
        arm.number as arm, arm.clause, leaf.node, asked.functions, leaf.node ~ '\{(RTE|RANGETBLENTRY) ' as has_tables, own.attnums,
        array(
            select split_part(part.text, ' ', 1)::oid
            from string_to_table(leaf.node, ':relid ') with ordinality as part (text, position)
            where part.position > 1 and part.text not like '0 %'
        ) as tables
    from arm
    cross join unnest(arm.leaves) as leaf (node)
    cross join lateral (
        select array(
            select
                case
                    when namespace.nspname = 'auth' and function.proname in ('uid', 'email', 'jwt', 'role') then function.proname::text
                    when namespace.nspname = 'pg_catalog' then 'current_setting'
                    when function.oid = to_regprocedure('public.auth_org_id()') then 'auth_org_id'
                    else 'other'
                end
            from string_to_table(leaf.node, ':funcid ') with ordinality as part (text, position)
            join pg_catalog.pg_proc as function on function.oid = split_part(part.text, ' ', 1)::oid
            join pg_catalog.pg_namespace as namespace on namespace.oid = function.pronamespace
            where part.position > 1
                and (namespace.nspname <> 'pg_catalog' or function.proname = 'current_setting')
        )
        offset 0
    ) as asked (functions)
    -- The row's own columns: in a query of the clause they are of as many levels up as there are queries around them.
    cross join lateral (
        with part as materialized (
            select
                found.text, found.position,
                sum(1 - length(found.text) + length(replace(found.text, '}', '')))
                    over (order by found.position rows between unbounded preceding and 1 preceding) as depth
            from string_to_table(leaf.node, '{') with ordinality as found (text, position)
        )
        select array(
            select substring(variable.text from '^VAR :varno 1 :varattno (-?\d+)')::smallint
            from part as variable
            where variable.text like 'VAR :varno 1 %'
                and substring(variable.text from ':varlevelsup (\d+)')::integer = (
                    select count(*)
                    from part as query
                    where query.text like 'QUERY %'
                        and query.position < variable.position
                        and not exists (
                            select from part as outside
                            where outside.position > query.position and outside.position <= variable.position and outside.depth <= query.depth
                        )
                )
        )
        offset 0
    ) as own (attnums)
),
asked as materialized (
    select
        seen.*, 'other' = any (seen.functions) as has_functions, seen.node ~ '^\{CONST :consttype 16 [^{}]*:constvalue 1 \[ 0 ' as is_false,
        seen.functions && '{uid,email,jwt,current_setting}' or seen.node ~ '\{SQLVALUEFUNCTION :op (9|10|11|12) ' as has_identity,
        -- The bytes of sub and email, at the end of what is quoted.
        seen.functions && '{uid,email}'
            or seen.functions && '{jwt,current_setting}' and seen.node ~ ' (115 117 98|101 109 97 105 108) \]' as has_user_identity
    from seen
),
judged as materialized (
    select
        asked.arm,
        case when bool_or(leaf.is_open = 'no') then 'no' when bool_and(leaf.is_open = 'yes') then 'yes' else 'probably' end as is_open,
        coalesce(bool_or(leaf.is_open = 'no' and clause.org_id_attnum = any (asked.attnums)), false) as has_org_id,
        bool_or(leaf.is_of_user) as is_of_user, bool_or(asked.is_false) as is_false,
        bool_and(asked.functions = '{}' and not asked.has_identity) as is_anyones,
        bool_and(
            not asked.has_tables and not asked.functions && '{jwt,email,current_setting,other}'
            and (not 'uid' = any (asked.functions) or asked.node like '%{NULLTEST %')
        ) as is_everyones,
        min(asked.tables) filter (where leaf.is_of_user) as tables
    from asked
    join clause on clause.number = asked.clause
    cross join lateral (
        select
            case
                when asked.is_false then 'no'
                when asked.attnums = '{}' then 'yes'
                -- What CASE lets pass whatever the row.
                when asked.node ~ '^\{CASEEXPR .*:result \{CONST :consttype 16 [^{}]*:constvalue 1 \[ 1 ' then 'probably'
                when asked.has_identity or asked.has_tables or asked.functions && '{auth_org_id,other}' then 'no'
                else 'probably'
            end as is_open,
            asked.attnums <> '{}' and asked.has_user_identity and not asked.has_functions as is_of_user
    ) as leaf
    group by asked.arm
)
select
    clause.policy_oid, clause.name, clause.relation, clause.qualified_name, clause.root, clause.table_name, clause.row_security, clause.command,
    clause.roles, clause.is_permissive, clause.kind, clause.expression,
    judged.is_open, judged.is_false, judged.has_org_id, judged.is_of_user, judged.is_anyones, judged.is_everyones, judged.tables
from judged
join arm on arm.number = judged.arm
join clause on clause.number = arm.clause;
comment on view tenancy.policy_arms is
'Both expressions of every policy of an org-scoped table or a partition of one, by the arms of their OR. is_open: yes where an arm looks at'
' no column of the row, probably where it compares its columns with nothing that says who asks. has_org_id, is_of_user: it compares'
' the organization, or columns with the user''s id or address, through tables if it reads any. is_anyones: it asks nobody who they are;'
' is_everyones: nothing but whether they are signed in.';

create or replace view tenancy.review_policies as
with member as materialized (
    select
        policies.root, policies.relation, policies.qualified_name, policies.row_security, policies.relation = policies.root as is_root,
        class.relnamespace, class.relowner, format('%I.%I', root_schema.nspname, root.relname) as table_name
    from tenancy.isolation_policies as policies
    join pg_catalog.pg_class as class on class.oid = policies.relation
    join pg_catalog.pg_class as root on root.oid = policies.root
    join pg_catalog.pg_namespace as root_schema on root_schema.oid = root.relnamespace
),
api_role as materialized (
    select api_roles.*
    from tenancy.api_roles
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
        arms.policy_oid, arms.name, arms.relation, arms.qualified_name, arms.table_name, arms.row_security, arms.command, arms.roles,
        arms.is_permissive, arms.kind, arms.expression,
        case
            when arms.command = 'r' then '{SELECT}'
            when arms.command = 'w' then '{UPDATE}'
            when arms.command = 'd' then '{DELETE}'
            when arms.kind = 'with check' then '{INSERT}'
            else '{SELECT,INSERT,UPDATE,DELETE}'
        end::text[] as privileges,
        case when bool_or(arms.is_open = 'yes') then 'yes' when bool_or(arms.is_open = 'probably') then 'probably' else 'no' end as is_open,
        bool_or(arms.is_open <> 'no' and arms.is_anyones) as is_anyones,
        bool_and(arms.is_open <> 'no') as is_whole,
        bool_and(arms.has_org_id) as has_org_id
    from tenancy.policy_arms as arms
    group by
        arms.policy_oid, arms.name, arms.relation, arms.qualified_name, arms.table_name, arms.row_security, arms.command, arms.roles,
        arms.is_permissive, arms.kind, arms.expression
),
-- Isolation, or a policy of the application's own that does the same.
held as materialized (
    select clause.relation, clause.roles
    from clause
    where not clause.is_permissive and clause.command = '*' and clause.has_org_id
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
        and not exists (
            select from held
            where held.relation = clause.relation
                and (0 = any (held.roles) or access.role_oid = any (held.roles))
        )
),
open_policy as (
    select
        reader.rolname, reader.policy_oid, reader.name, reader.table_name, reader.qualified_name, reader.roles,
        bool_and(reader.is_open = 'probably') as is_guess, bool_or(reader.is_anyones) as is_anyones, bool_and(reader.is_whole) as is_whole,
        case
            when bool_or(reader.kind = 'using' and reader.command in ('r', '*')) then 'see'
            when bool_or(reader.command = 'd') then 'delete'
            when bool_or(reader.command = 'w') then 'change'
            else 'add'
        end as verb,
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
    group by reader.rolname, reader.policy_oid, reader.name, reader.table_name, reader.qualified_name, reader.roles
),
asked as materialized (
    select metadata_readers.*
    from tenancy.metadata_readers
    where metadata_readers.text ~ '(jwt|request\.|raw_user_meta_data)'
),
claim_hook as materialized (
    select application_functions.source_with_text as text
    from tenancy.application_functions
    where application_functions.source_with_text ~ '\mclaims\M'
        and application_functions.source_with_text !~ 'request\.jwt'
)
select
    'policy_open' as code, 'leaks' as severity, open_policy.name as object, open_policy.table_name,
    format(
        'is a policy that %slets whoever passes it %s rows of every organization in %s: %s looks at %s', case when open_policy.is_guess then 'probably ' end,
        open_policy.verb, open_policy.table_name, case when open_policy.is_whole then 'it' else 'an arm of its OR' end,
        case when open_policy.is_guess then 'nothing that says whose a row is' else 'no column of the row' end
    ) as problem,
    format('alter policy %s on %s %s', open_policy.name, open_policy.qualified_name, open_policy.bound) as remedy
from open_policy
where open_policy.rolname = 'authenticated'
union all
select
    'policy_without_to', 'leaks', open_policy.name, open_policy.table_name,
    format('is a policy of %s without TO: anon passes it too, and isolation, which is to authenticated, does not hold anon', open_policy.table_name),
    format('alter policy %s on %s to authenticated', open_policy.name, open_policy.qualified_name)
from open_policy
where open_policy.rolname = 'anon' and open_policy.roles = '{0}' and open_policy.is_anyones
union all
select
    'policy_on_user_metadata', 'leaks', clause.name, clause.table_name,
    format('is a policy of %s that trusts user_metadata, which every user writes themselves%s', clause.table_name, ', in ' || min(asked.function)),
    coalesce(
        'read app_metadata instead in ' || min(asked.function),
        format('alter policy %s on %s ', clause.name, clause.qualified_name) || string_agg(
            distinct format('%s (%s)', clause.kind, regexp_replace(clause.expression, '\m(raw_)?user(_meta_?data)', '\1app\2', 'g')), ' '
        )
    )
from (
    select clause.policy_oid, clause.name, clause.qualified_name, clause.table_name, clause.kind, clause.expression
    from clause
    union all
    select policy.oid, format('%I', policy.polname), 'storage.objects', 'storage.objects', its.kind, pg_get_expr(its.node, policy.polrelid)
    from pg_catalog.pg_policy as policy
    cross join lateral (values ('using', policy.polqual), ('with check', policy.polwithcheck)) as its (kind, node)
    where policy.polrelid = to_regclass('storage.objects') and its.node is not null
) as clause
join asked on asked.policy_oid = clause.policy_oid
-- As what is quoted, or the column of auth.users.
where asked.text ~ '([''"{.]\s*user_metadata\M|\mraw_user_meta_data\M)'
group by clause.policy_oid, clause.name, clause.qualified_name, clause.table_name
union all
select
    'policy_on_unset_claim', 'leaks', clause.name, clause.table_name,
    format(
        'is a policy of %s that reads the claim %s at the top of the token, where probably nobody sets it%s', clause.table_name,
        claim.name, ', in ' || min(asked.function)
    ),
    'take (select public.auth_org_id()) in its place: the organization of app_metadata'
from clause
join asked on asked.policy_oid = clause.policy_oid
cross join lateral (
    select coalesce(part.found[1], part.found[2]) as name
    from regexp_matches(
        regexp_replace(asked.text, '\s+', ' ', 'g'),
        '(?:\mjwt\(\)(?: AS jwt)?|request\.jwt\.claims''(?:::text)?(?:, true)? ?\))[ )]*(?:::jsonb?)?[ )]*(?:#?->>? ?|#>>? ?|\[|, ?)(?:VARIADIC ARRAY\[)?''\{?"?([\w-]+)'
        '|request\.jwt\.claim\.([\w-]+)',
        'gi'
    ) as part (found)
) as claim
where claim.name not in (
        'iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti', 'role', 'aal', 'amr', 'session_id', 'email', 'phone', 'is_anonymous',
        'app_metadata', 'user_metadata', 'ref'
    )
    -- An auth hook may set it.
    and not exists (select from claim_hook where strpos(claim_hook.text, claim.name) > 0)
group by clause.policy_oid, clause.name, clause.table_name, claim.name
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
                and (
                    access.rolname <> 'anon'
                    or (reader.roles <> '{0}' and reader.command in ('r', '*') and reader.is_open <> 'no' and reader.is_anyones)
                )
        )
    )
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
group by member.is_root, member.qualified_name, member.table_name;
comment on view tenancy.review_policies is
'The part of tenancy.review_leaks that is about row-level security: what policies let pass, and whom isolation does not hold.';
