-- Purpose: what policies let pass: rows of every organization, claims that users write themselves, roles that isolation does not hold.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.metadata_readers as
with recursive code as materialized (
    select application_functions.oid, application_functions.name, application_functions.source_with_text as text
    from tenancy.application_functions
    where application_functions.kind = 'function'
),
call as materialized (
    select function_calls.caller, function_calls.callee
    from tenancy.function_calls
),
policy_call as materialized (
    select dependency.objid as policy_oid, dependency.refobjid as function
    from pg_catalog.pg_depend as dependency
    where dependency.classid = 'pg_catalog.pg_policy'::regclass
        and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
),
run (policy_oid, function) as (
    select policy_call.policy_oid, policy_call.function
    from policy_call
    union
    select run.policy_oid, call.callee
    from run
    join call on call.caller = run.function
)
select policy.oid as policy_oid, null::text as function, pg_get_expr(its.node, policy.polrelid) as text
from pg_catalog.pg_policy as policy
cross join lateral (values (policy.polqual), (policy.polwithcheck)) as its (node)
where its.node is not null
union all
select run.policy_oid, code.name, code.text
from run
join code on code.oid = run.function;
comment on view tenancy.metadata_readers is
'What every policy asks, as text without comments: its own expressions (function NULL), and the functions that it calls, directly or not.';

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
arm as materialized (
    select policy_arms.*
    from tenancy.policy_arms
),
-- Of which anon sees rows without saying who it is.
for_anon as materialized (
    select coalesce(array_agg(found.oid), '{}') as tables
    from (
        select arm.relation::oid as oid
        from arm
        where arm.is_permissive and arm.kind = 'using' and arm.command in ('r', '*') and arm.is_open <> 'no' and arm.is_anyones
            and arm.roles && array[0::oid, to_regrole('anon')]
        union all
        select class.oid
        from pg_catalog.pg_class as class
        where class.relkind in ('r', 'p') and not class.relrowsecurity and has_table_privilege('anon', class.oid, 'select')
    ) as found
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
        bool_or(arms.is_anyones and (arms.is_open <> 'no' or arms.reads <> '{}' and arms.reads <@ for_anon.tables)) as is_anyones,
        bool_and(arms.is_open <> 'no') as is_whole,
        bool_and(arms.has_org_id) as has_org_id
    from arm as arms
    cross join for_anon
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
        bool_and(reader.is_open = 'probably') as is_guess, bool_or(reader.is_open <> 'no') as is_open, bool_or(reader.is_anyones) as is_anyones, bool_and(reader.is_whole) as is_whole,
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
    where (reader.is_open <> 'no' or reader.is_anyones)
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
where open_policy.rolname = 'authenticated' and open_policy.is_open
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
    format('is a policy of %s that trusts what every user writes themselves: user_metadata, a header or a cookie%s', clause.table_name, ', in ' || min(asked.function)),
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
where asked.text ~ '([''"{.]\s*user_metadata\M|\mraw_user_meta_data\M|request\.(headers?|cookies?)\M)'
group by clause.policy_oid, clause.name, clause.qualified_name, clause.table_name
union all
select
    'auth_org_id_reads_more', 'leaks', 'public.auth_org_id()', null,
    'probably trusts what every user writes themselves: its text names user_metadata, a header, a cookie or another setting than the token',
    'read app_metadata of request.jwt.claims alone, as in the migration ending in _create_organizations.sql'
from tenancy.application_functions as function
where function.oid = to_regprocedure('public.auth_org_id()')
    and function.source_with_text
        ~* $re$(\muser_metadata\M|\mraw_user_meta_data\M|request\.(headers?|cookies?)\M|current_setting\s*\(\s*'(?!request\.jwt\.))$re$
union all
select
    'policy_on_unset_claim', 'leaks', clause.name, clause.table_name,
    format(
        'is a policy of %s that reads the claim %s at the top of the token, where probably nobody sets it%s', clause.table_name,
        claim.name, ', in ' || min(asked.function)
    ),
    case
        when claim.name ~* 'org|tenant|company|team|workspace|account' then 'take (select public.auth_org_id()) in its place: the organization of app_metadata'
        else format('take auth.jwt() -> ''app_metadata'' ->> %L in its place, which no user writes; or let a token hook set it', claim.name)
    end
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
    -- What passes row-level security does so whatever it is a member of.
    and (access.rolbypassrls or not pg_has_role(access.role_oid, to_regrole('authenticated'), 'usage'))
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
                    or (reader.roles <> '{0}' and reader.command in ('r', '*') and reader.is_anyones)
                )
        )
    )
union all
select
    'role_passes_policies', 'leaks', 'authenticated', null, 'is the role of everybody who is signed in, and passes every policy: it has BYPASSRLS',
    'alter role authenticated nobypassrls'
from api_role
where api_role.rolname = 'authenticated' and api_role.rolbypassrls
union all
-- Of the platform's own tables: files, and what Realtime sends by topic.
select
    case service.name when 'storage.objects' then 'storage_policy' else 'realtime_policy' end, 'decide', format('%I', policy.polname), service.name,
    case
        when said.by_user
            then format('is a policy of %s that goes by user: colleagues in an organization do not see each other''s %s', service.name, service.what)
        else format(
            'is a policy of %s that goes by %s alone: it lets users of every organization %s its %s', service.name, service.by,
            case policy.polcmd when 'a' then 'add to' when 'w' then 'change' when 'd' then 'delete' else 'see' end, service.what
        )
    end,
    service.remedy
from pg_catalog.pg_policy as policy
join (
    values
        (
            'storage.objects', 'bucket', 'files',
            'keep files under a folder per organization: (storage.foldername(name))[1] = (select public.auth_org_id())::text'
        ),
        (
            'realtime.messages', 'topic', 'messages',
            'let topics begin with the organization: split_part((select realtime.topic()), '':'', 1) = (select public.auth_org_id())::text'
        )
) as service (name, by, what, remedy)
    on to_regclass(service.name) = policy.polrelid
cross join lateral (
    select concat_ws(' ', pg_get_expr(policy.polqual, policy.polrelid), pg_get_expr(policy.polwithcheck, policy.polrelid)) as expression
) as its
cross join lateral (select its.expression ~ '(\m(uid|jwt|email|current_setting)\(|\mowner(_id)?\M)' as by_user) as said
where policy.polpermissive
    and its.expression !~ '\mauth_org_id\M' and its.expression <> 'false'
    -- Who only writes own files hides none, nor does a topic of one's own; and what reads tables, or asks a function of the application, may
    -- know of organizations.
    and (not said.by_user or policy.polcmd in ('r', '*') and service.name = 'storage.objects')
    and its.expression !~ '\mFROM\M'
    and not exists (
        select from pg_catalog.pg_depend as dependency
        join pg_catalog.pg_proc as function on function.oid = dependency.refobjid
        where dependency.classid = 'pg_catalog.pg_policy'::regclass
            and dependency.objid = policy.oid
            and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
            and function.pronamespace not in (
                select oid from pg_catalog.pg_namespace where nspname in ('auth', 'storage', 'realtime', 'extensions', 'pg_catalog')
            )
    )
    and exists (
        select from unnest(policy.polroles) as for_role (oid)
        left join pg_catalog.pg_roles as role on role.oid = for_role.oid
        where role.rolbypassrls is not true
    )
union all
select
    'public_bucket', 'decide', bucket.name, 'storage.objects',
    'is a bucket whose files everybody may read who knows their names, whatever policies say, of whatever organization',
    format('update storage.buckets set public = false where id = %L', bucket.name)
from pg_catalog.pg_class as buckets
cross join lateral query_to_xml(
    format('select pg_catalog.to_jsonb(bucket) operator(pg_catalog.->>) ''id''::pg_catalog.text as name from %s as bucket'
        ' where pg_catalog.to_jsonb(bucket) operator(pg_catalog.->>) ''public''::pg_catalog.text operator(pg_catalog.=) ''true''::pg_catalog.text', 'storage.buckets'),
    false, false, ''
) as answer (document)
cross join lateral xmltable('/table/row' passing answer.document columns name text path 'name') as bucket
where buckets.oid = to_regclass('storage.buckets')
    and buckets.relkind = 'r'
    and has_schema_privilege(buckets.relnamespace, 'usage')
    and has_table_privilege(buckets.oid, 'select')
    -- Not one that another role than the platform's has made, with policies of its own.
    and (pg_get_userbyid(buckets.relowner) in ('supabase_storage_admin', current_user::text) or pg_has_role(buckets.relowner, 'usage'))
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
'The part of tenancy.review_leaks that is about row-level security: what policies let pass, of the platform''s own tables too, and whom isolation'
' does not hold.';
