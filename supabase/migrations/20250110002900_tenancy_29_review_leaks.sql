-- Purpose: where rows of another organization are within reach: views, functions, privileges, and what policies let pass.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.review_leaks as
with recursive api_role as materialized (
    select api_roles.*
    from tenancy.api_roles
),
viewed as materialized (
    select views_over_tables.*
    from tenancy.views_over_tables
),
-- Views: what is read as their owner, and who may read them, directly or through others that are read as theirs.
above (relation, upper) as (
    select distinct viewed.relation, viewed.relation
    from viewed
    union
    select read.refobjid::regclass, above.upper
    from above
    join viewed as owned
        on owned.relation = above.relation
        and owned.relkind = 'v'
        and not owned.is_invoker
    join pg_catalog.pg_rewrite as rule on rule.ev_class = owned.relation
    join pg_catalog.pg_depend as read
        on read.classid = 'pg_catalog.pg_rewrite'::regclass
        and read.objid = rule.oid
        and read.refclassid = 'pg_catalog.pg_class'::regclass
        and read.refobjid <> owned.relation
),
reader as materialized (
    select viewed.relation, viewed.qualified_name, api_role.rolname
    from (select distinct viewed.relation, viewed.qualified_name, viewed.relnamespace, viewed.relowner from viewed) as viewed
    join api_role
        on has_schema_privilege(api_role.oid, viewed.relnamespace, 'usage')
        and not pg_has_role(api_role.oid, viewed.relowner, 'usage')
        and (
            has_table_privilege(api_role.oid, viewed.relation, 'select, insert, update, delete')
            or has_any_column_privilege(api_role.oid, viewed.relation, 'select')
        )
),
view_access as materialized (
    select
        above.relation, string_agg(distinct reader.rolname, ', ') as readers, string_agg(distinct reader.qualified_name, ', ') as names
    from above
    join reader on reader.relation = above.upper
    group by above.relation
),
code as materialized (
    select
        application_functions.oid, application_functions.name, application_functions.proname, function.prosecdef as is_definer,
        function.pronamespace, function.proowner, function.prorettype = 'boolean'::regtype as is_check,
        -- A claim of the token is who calls, however it is read.
        case
            when application_functions.source_with_text ~* 'request\.jwt\.claim'
                then regexp_replace(application_functions.line, '\mcurrent_setting ?\([^()]*\)', 'auth.jwt()', 'gi')
            else application_functions.line
        end as line,
        regexp_replace(application_functions.source_with_text, '\s+', ' ', 'g') as line_with_text,
        exists (
            select from pg_catalog.pg_depend as dependency
            where dependency.classid = 'pg_catalog.pg_policy'::regclass
                and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
                and dependency.refobjid = function.oid
        ) as is_in_policy
    from tenancy.application_functions
    join pg_catalog.pg_proc as function on function.oid = application_functions.oid
    where application_functions.kind = 'function'
),
call as materialized (
    select function_calls.caller, function_calls.callee
    from tenancy.function_calls
    where function_calls.caller is not null
),
mention as materialized (
    select
        table_mentions.function, table_mentions.root, bool_or(table_mentions.is_parsed) as is_parsed,
        bool_and(table_mentions.verb in ('insert', 'merge')) as only_inserts
    from tenancy.table_mentions
    where table_mentions.function is not null
    group by table_mentions.function, table_mentions.root
),
-- What each function reads or writes, itself or by those that it calls.
reach (function, root, is_parsed, only_inserts) as (
    select mention.function, mention.root, mention.is_parsed, mention.only_inserts
    from mention
    union
    select call.caller, reach.root, false, reach.only_inserts
    from reach
    join call on call.callee = reach.function
),
-- Whether who asks decides which rows a function reads: in a comparison, by itself or by a variable, or in a function that says true or false.
compared as (
    select
        code.oid, code.line, code.line_with_text,
        array(
            select lower(used.part[1])
            from (values ('(?<!:)(?:=|<>|!=|\mdistinct from) ?([a-z_][\w$]*)(?! ?[\w.(])'), ('\m([a-z_][\w$]*) (?:=|<>|!=|is (?:not )?distinct from) ')) as side (pattern)
            cross join lateral regexp_matches(code.line, side.pattern, 'gi') as used (part)
        ) as names
    from code
    where code.is_definer or code.is_check or code.line ~* '\mraise\M'
),
asked as materialized (
    select
        compared.oid, asked.by,
        bool_or(
            compared.line ~* format('(?:(?<!:)=|<>|!=|\mdistinct from|\min|\many) ?\(* ?(?:array ?\[ ?)?(?:select )?\(*(?:nullif ?\( ?)?\(*%s ?\(', asked.pattern)
            or compared.line ~* format('%s ?\( ?\)[ )#>-]*(?:as \w+[ )]*)?(?:::? ?\w+[ )]*)?(?:=|<>|!=|in \(|is (?:not )?distinct from)', asked.pattern)
            -- No role of the API is that one.
            or asked.by = 'user' and compared.line_with_text ~* '\mrole\M[^;]{0,20}(?:=|<>|!=) ?''service_role'''
            or compared.names && array(
                select lower(coalesce(kept.part[1], kept.part[2]))
                from regexp_matches(
                    compared.line,
                    format('(?:\m(\w+)(?: constant)?(?: uuid| text)?(?: not null)? ?(?::=|default) ?\(*(?:select )?%1$s ?\(|%1$s ?\( ?\)[^;]{0,60} into (\w+))', asked.pattern),
                    'gi'
                ) as kept (part)
            )
            or exists (
                select from regexp_matches(compared.line, format('([\w$]+) ?\((?:[^();]*, ?)?%s ?\( ?\)', asked.pattern), 'gi') as given (part)
                join code as check_ on check_.is_check and check_.proname = lower(given.part[1])
            )
        ) as is_so
    from compared
    cross join (values ('org', '\m(?:public ?\. ?)?auth_org_id'), ('user', '\mauth ?\. ?(?:uid|jwt|email)')) as asked (by, pattern)
    group by compared.oid, asked.by
),
-- Or of whom another asks that it calls, which says true or false, or raises.
by_caller (function) as (
    select asked.oid
    from asked
    where asked.is_so
    union
    select call.caller
    from by_caller
    join code
        on code.oid = by_caller.function
        and (code.is_check or code.line ~* '\mraise\M')
    join call on call.callee = by_caller.function
),
-- Of the views, those of these that they ask.
view_helper as (
    select rule.ev_class::regclass as relation, string_agg(format('|\m%s(?=\()', code.proname), '') as pattern, array_agg(code.proname) as names
    from by_caller
    join code on code.oid = by_caller.function and code.is_check and code.proname ~ '^[a-z_0-9]+$'
    join pg_catalog.pg_depend as dependency
        on dependency.classid = 'pg_catalog.pg_rewrite'::regclass
        and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
        and dependency.refobjid = code.oid
    join pg_catalog.pg_rewrite as rule on rule.oid = dependency.objid
    group by rule.ev_class
),
view_word as materialized (
    select
        defined.relation, part.word[1] as word, part.position, part.word[1] in ('uid', 'jwt', 'email') or part.word[1] = any (view_helper.names) as asks,
        sum(case part.word[1] when '(' then 1 when ')' then -1 else 0 end) over (partition by defined.relation order by part.position) as depth
    from (
        select read.relation, regexp_replace(pg_get_viewdef(read.relation), '\s+', ' ', 'g') as text
        from (
            select distinct viewed.relation
            from viewed
            join view_access on view_access.relation = viewed.relation
            where viewed.relkind = 'v' and not viewed.is_invoker
        ) as read
    ) as defined
    left join view_helper on view_helper.relation = defined.relation
    cross join lateral regexp_matches(
        defined.text,
        concat_ws(
            '|', $$'(?:[^']|'')*'$$, '"(?:[^"]|"")*"', '[()]', '\m(?:LEFT|RIGHT|FULL) JOIN\M', '\m(?:SELECT|FROM|JOIN|WHERE|OR|WITH|UNION|EXCEPT|INTERSECT)\M',
            '(?<!(?:<>|DISTINCT FROM) \(*(?: ?SELECT )?(?:auth\.)?)\m(?:uid|jwt|email)(?=\()(?!\(\)(?: AS \w+)?\)* IS NOT NULL)', '\morg_id(?= = \(* ?(?:SELECT )?(?:public\.)?auth_org_id\()',
            '\mauth_org_id(?=\(\)(?: AS \w+)?\)* = \(*[\w.]*\morg_id\M)'
        ) || coalesce(view_helper.pattern, ''),
        'g'
    ) with ordinality as part (word, position)
),
-- Who asks counts where it decides which rows there are: in what is joined and filtered, of each query of a UNION.
view_query as materialized (
    select asking.relation, bool_and(asking.by_org) as is_by_org, bool_and(asking.by_org or asking.by_user) as is_by_caller
    from (
        select
            placed.relation,
            coalesce(bool_or(placed.filters and placed.word in ('org_id', 'auth_org_id')), false) as by_org,
            -- Neither the condition of an outer join nor one arm of an OR keeps a row away.
            coalesce(bool_or(placed.filters and not placed.is_outer and placed.asks), false)
            and not coalesce(bool_or(placed.filters and placed.word = 'OR'), false) as by_user
        from (
            select
                view_word.relation, view_word.word, view_word.asks,
                count(*) filter (where view_word.depth = 0 and view_word.word in ('UNION', 'EXCEPT', 'INTERSECT')) over up_to_here as query,
                max(view_word.position) filter (where view_word.depth = 0 and view_word.word in ('FROM', 'WITH')) over up_to_here
                > coalesce(max(view_word.position) filter (where view_word.depth = 0 and view_word.word = 'SELECT') over up_to_here, 0) as filters,
                coalesce(
                    max(view_word.position) filter (where view_word.word like '% JOIN') over up_to_here
                    > coalesce(max(view_word.position) filter (where view_word.word in ('JOIN', 'WHERE')) over up_to_here, 0), false
                ) as is_outer
            from view_word
            window up_to_here as (partition by view_word.relation order by view_word.position)
        ) as placed
        group by placed.relation, placed.query
    ) as asking
    group by asking.relation
),
suspect as materialized (
    select
        code.oid, code.name, code.line, code.line_with_text, code.is_in_policy, callable.roles, owner.oid as owner_oid, owner.rolsuper or owner.rolbypassrls as passes,
        code.oid in (select by_caller.function from by_caller) as is_by_user
    from code
    join asked on asked.oid = code.oid
    join pg_catalog.pg_roles as owner on owner.oid = code.proowner
    cross join lateral (
        select string_agg(api_role.rolname, ', ' order by api_role.rolname) as roles
        from api_role
        where has_schema_privilege(api_role.oid, code.pronamespace, 'usage')
            and has_function_privilege(api_role.oid, code.oid, 'execute')
    ) as callable
    where callable.roles is not null
        and code.is_definer
    group by code.oid, code.name, code.line, code.line_with_text, code.is_in_policy, callable.roles, owner.oid, owner.rolsuper, owner.rolbypassrls
    having not bool_or(asked.by = 'org' and asked.is_so)
),
root as materialized (
    select application_tables.relation, application_tables.qualified_name, class.relowner, class.relforcerowsecurity
    from tenancy.application_tables
    join pg_catalog.pg_class as class on class.oid = application_tables.relation
    where application_tables.scope = 'org'
),
definer as (
    select
        suspect.name, suspect.is_in_policy, suspect.roles, suspect.is_by_user,
        bool_or(reach.is_parsed) as is_parsed, count(distinct root.qualified_name) as table_count,
        string_agg(distinct root.qualified_name, ', ') as tables, (array_agg(distinct root.qualified_name))[:5] as first_tables
    from suspect
    join reach
        on reach.function = suspect.oid
        and not (reach.only_inserts and suspect.line ~* '\mauth_org_id\M')
    join root
        on root.relation = reach.root
        and (suspect.passes or pg_has_role(suspect.owner_oid, root.relowner, 'usage') and not root.relforcerowsecurity)
    group by suspect.oid, suspect.name, suspect.is_in_policy, suspect.roles, suspect.is_by_user
)
select distinct
    'view_without_security_invoker' as code,
    case when view_query.is_by_caller then 'decide' else 'leaks' end as severity, viewed.qualified_name as object, viewed.table_name,
    format('is a view over %s that %s may read past row-level security, as its owner', viewed.table_name, view_access.readers) as problem,
    format('alter view %s set (security_invoker = true)', viewed.qualified_name) as remedy
from viewed
join view_access on view_access.relation = viewed.relation
join view_query on view_query.relation = viewed.relation
join pg_catalog.pg_roles as owner on owner.oid = viewed.relowner
join root on root.relation = viewed.root
where not view_query.is_by_org
    and viewed.is_direct
    and (owner.rolsuper or owner.rolbypassrls or pg_has_role(owner.oid, root.relowner, 'usage') and not root.relforcerowsecurity)
union all
select
    'materialized_view', 'leaks', viewed.qualified_name, viewed.table_name,
    format('is a materialized view of %s that %s may read: no policy holds its rows apart', viewed.table_name, view_access.readers),
    format('revoke all on %s from public, %s', view_access.names, view_access.readers)
from viewed
join view_access on view_access.relation = viewed.relation
where viewed.relkind = 'm'
union all
select
    'security_definer_function', case when definer.is_by_user then 'decide' else 'leaks' end, definer.name, definer.tables,
    format(
        '%sreads or writes %s%s with its owner''s rights, past row-level security, and %s may call it%s',
        case when not definer.is_parsed then 'probably ' end, array_to_string(definer.first_tables, ', '),
        case when definer.table_count > 5 then format(' and %s more', definer.table_count - 5) end, definer.roles,
        case when definer.is_by_user then ': it looks at who calls' end
    ),
    case
        when definer.is_in_policy then format('let %s look at rows of public.auth_org_id() alone: a policy uses it', definer.name)
        else format('alter routine %s security invoker', definer.name)
    end
from definer
union all
-- What is put together at run time may name any table.
select
    'security_definer_function', case when suspect.is_by_user then 'decide' else 'leaks' end, suspect.name, null,
    format(
        'probably runs statements that it puts together, with its owner''s rights, past row-level security, and %s may call it%s', suspect.roles,
        case when suspect.is_by_user then ': it looks at who calls' end
    ),
    format('alter routine %s security invoker', suspect.name)
from suspect
where suspect.name not in (select definer.name from definer)
    and suspect.line_with_text !~* '\mauth_org_id\M'
    and (suspect.passes or exists (select from root where pg_has_role(suspect.owner_oid, root.relowner, 'usage') and not root.relforcerowsecurity))
    and (
        -- From a variable or by ||, with a schema or a table that is filled in.
        suspect.line ~* '\mexecute +(?!(?:format|using|into|on|function|procedure|all)\M)(?:\(? *["a-z_$]|\|\|)'
        or suspect.line_with_text ~* '\mexecute +(?:\( *)?format *\( *(?:''(?:[^'']|'''')*|\$(\w*)\$[^$]*)%(?:\d+\$)?[-]?[Is]'
        or suspect.line ~* '\m(?:(?:schema|database)_to_xml\w* *\(|(?:query|table)_to_xml\w* *\( *(?!format\M)(?:\(? *["a-z_$]|\|\|))'
    )
union all
select review_policies.* from tenancy.review_policies
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
