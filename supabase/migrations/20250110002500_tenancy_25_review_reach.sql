-- Purpose: where the application reaches its tables from: views, the text of functions and cron jobs, and what policies ask.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.function_calls as
with code as materialized (
    select application_functions.oid, application_functions.name, application_functions.source, application_functions.schema_names
    from tenancy.application_functions
),
callee as materialized (
    select function.oid, function.proname::text as name, namespace.nspname::text as schema_name
    from code
    join pg_catalog.pg_proc as function on function.oid = code.oid
    join pg_catalog.pg_namespace as namespace on namespace.oid = function.pronamespace
)
select distinct code.oid as caller, code.name as caller_name, callee.oid as callee
from code
cross join lateral regexp_matches(
    code.source, '(?:("(?:[^"]|"")+"|[a-z_][\w$]*)\s*\.\s*)?("(?:[^"]|"")+"|[a-z_][\w$]*)\s*\(', 'gi'
) as word (part)
join callee
    on callee.name = (parse_ident(word.part[2]))[1]
    and callee.oid is distinct from code.oid
    and case when word.part[1] is null then callee.schema_name = any (code.schema_names) else callee.schema_name = (parse_ident(word.part[1]))[1] end;
comment on view tenancy.function_calls is
'Which functions of the application the text of a function or a cron job (caller NULL) calls; without schema only where its search path'
' leads there. Of several with one name, each.';

create or replace view tenancy.views_over_tables as
with recursive read_by as materialized (
    select distinct dependency.refobjid as relation, rule.ev_class as view_oid
    from pg_catalog.pg_depend as dependency
    join pg_catalog.pg_rewrite as rule on rule.oid = dependency.objid
    join pg_catalog.pg_class as viewed
        on viewed.oid = rule.ev_class
        and viewed.relkind in ('v', 'm')
    where dependency.classid = 'pg_catalog.pg_rewrite'::regclass
        and dependency.refclassid = 'pg_catalog.pg_class'::regclass
        and dependency.refobjid <> rule.ev_class
    union
    -- By a query that is given as text, with the rights of whoever refreshes it.
    select member.relation, viewed.oid
    from pg_catalog.pg_class as viewed
    cross join lateral pg_get_viewdef(viewed.oid) as its (text)
    join tenancy.table_members as member
        on member.scope = 'org'
        and its.text ~* format('_to_xml\w*\([^;]*(?<![\w$])%s(?![\w$])', regexp_replace(member.relname, '(\W)', '\\\1', 'g'))
    where viewed.relkind = 'm'
),
code as materialized (
    select application_functions.oid, application_functions.line
    from tenancy.application_functions
    where application_functions.oid is not null
),
call as materialized (
    select function_calls.caller, function_calls.callee
    from tenancy.function_calls
    where function_calls.caller is not null
),
called (view_oid, function) as (
    select rule.ev_class, dependency.refobjid
    from pg_catalog.pg_depend as dependency
    join pg_catalog.pg_rewrite as rule on rule.oid = dependency.objid
    join code on code.oid = dependency.refobjid
    where dependency.classid = 'pg_catalog.pg_rewrite'::regclass and dependency.refclassid = 'pg_catalog.pg_proc'::regclass
    union
    select called.view_oid, call.callee
    from called
    join call on call.caller = called.function
),
reached (relation, root, is_direct) as (
    select read_by.view_oid, table_members.root, true
    from tenancy.table_members
    join read_by on read_by.relation = table_members.relation
    where table_members.scope = 'org'
    union
    -- By a function: in a view that runs as who asks, in a materialized one as who refreshes it.
    select called.view_oid, member.root, false
    from called
    join pg_catalog.pg_class as viewed on viewed.oid = called.view_oid and viewed.relkind in ('v', 'm')
    join code on code.oid = called.function
    join tenancy.table_members as member on member.scope = 'org'
    join pg_catalog.pg_namespace as namespace on namespace.oid = member.relnamespace
    where code.line ~* format(
        '\m(?:from|join|table) (?:only )?(?:"?%s"? ?\. ?)?"?%s"?(?![\w$"]| ?\.)', regexp_replace(namespace.nspname, '(\W)', '\\\1', 'g'),
        regexp_replace(member.relname, '(\W)', '\\\1', 'g')
    )
    union
    select read_by.view_oid, reached.root, false
    from reached
    join read_by on read_by.relation = reached.relation
)
select
    reached.relation::regclass as relation, format('%I.%I', namespace.nspname, viewed.relname) as qualified_name,
    reached.root, root.qualified_name as table_name,
    viewed.relkind, viewed.relname, viewed.relnamespace, viewed.relowner,
    coalesce(viewed.reloptions::text ~* 'security_invoker=(true|on|yes|1)\M', false) as is_invoker,
    bool_or(reached.is_direct) as is_direct
from reached
join pg_catalog.pg_class as viewed on viewed.oid = reached.relation
join pg_catalog.pg_namespace as namespace on namespace.oid = viewed.relnamespace
join tenancy.application_tables as root on root.relation = reached.root
where namespace.nspname <> all ((select settings.platform_schemas from tenancy.settings)::text[])
group by
    reached.relation, reached.root, root.qualified_name, namespace.nspname, viewed.relkind, viewed.relname, viewed.relnamespace,
    viewed.relowner, viewed.reloptions;
comment on view tenancy.views_over_tables is
'Every view and materialized view that reads an org-scoped table, itself (is_direct) or through other views or functions, with that table.';

create or replace view tenancy.table_mentions as
with code as materialized (
    select application_functions.*, cte.names as cte_names
    from tenancy.application_functions
    cross join lateral (
        select array(
            select (parse_ident(named.part[1]))[1]
            from regexp_matches(
                application_functions.line,
                '("(?:[^"]|"")+"|[a-z_][\w$]*)(?: ?\([^()]*\))? as (?:(?:not )?materialized )?\( ?(?:select|insert|update|delete|merge|with|values|table)\M',
                'gi'
            ) as named (part)
        ) as names
    ) as cte
),
word as (
    select
        code.oid, code.name,
        lower(split_part(found.part[1], ' ', 1)) as verb,
        parse_ident(concat_ws('.', found.part[2], found.part[3])) as names,
        case
            when found.part[1] ~* '^merge' then (regexp_match(code.source, '\mthen\s+insert\s*(\([^()]*\)|values)', 'i'))[1]
            else found.part[4]
        end as column_list
    from code
    cross join lateral regexp_matches(
        code.line,
        '(\m(?:insert into|merge into|from|join|update|using|truncate(?: table)?|table)|,) (?:only )?("(?:[^"]|"")+"|[a-z_][\w$]*)'
        '(?: ?\. ?("(?:[^"]|"")+"|[a-z_][\w$]*))?(?: as (?:"(?:[^"]|"")+"|[a-z_][\w$]*))? ?(\((?! ?(?:select|with|table|values)\M)[^()]*\))?',
        'gi'
    ) as found (part)
    where found.part[1] <> ',' or found.part[3] is not null
    union all
    -- What follows a comma in a list of tables, without schema.
    select code.oid, code.name, 'from', parse_ident(found.part[1]), null
    from code
    cross join lateral regexp_matches(code.line, '\m(?:from|using|truncate(?: table)?) ([^;()]*)', 'gi') as list (part)
    cross join lateral regexp_matches(
        regexp_replace(list.part[1], '\m(where|group|order|limit|returning|union|having|window|for|set|when|loop|then)\M.*$', '', 'i'),
        ', ?(?:only )?("(?:[^"]|"")+"|[a-z_][\w$]*)(?! ?\.)', 'gi'
    ) as found (part)
),
target as materialized (
    select
        table_members.relname, namespace.nspname, table_members.root, format('%I.%I', its_schema.nspname, root.relname) as qualified_name, false as is_view
    from tenancy.table_members
    join pg_catalog.pg_class as root on root.oid = table_members.root
    join pg_catalog.pg_namespace as its_schema on its_schema.oid = root.relnamespace
    join pg_catalog.pg_namespace as namespace on namespace.oid = table_members.relnamespace
    where table_members.scope = 'org'
    union all
    select views_over_tables.relname, namespace.nspname, views_over_tables.root, views_over_tables.table_name, true
    from tenancy.views_over_tables
    join pg_catalog.pg_namespace as namespace on namespace.oid = views_over_tables.relnamespace
)
select
    code.oid as function, code.proname, code.name, code.kind, code.is_parsed, code.source,
    target.root, target.qualified_name as table_name, target.is_view, word.verb,
    word.verb in ('insert', 'merge') and (word.verb = 'insert' or word.column_list is not null) as inserts,
    case when word.column_list like '(%' then word.column_list end as column_list,
    named.pattern, target.relname
from word
join code
    on code.name = word.name
    and code.oid is not distinct from word.oid
join target
    on target.relname = word.names[array_upper(word.names, 1)]
    and case when array_length(word.names, 1) = 2 then target.nspname = word.names[1] else target.nspname = any (code.schema_names) end
cross join lateral (
    -- As a pattern, with the schema where the text has it.
    select
        case when array_length(word.names, 1) = 2 then format('"?%s"? ?\. ?', regexp_replace(word.names[1], '(\W)', '\\\1', 'g')) else '' end
        || format('"?%s"?(?![\w$"])', regexp_replace(target.relname, '(\W)', '\\\1', 'g')) as pattern
) as named
-- A query under WITH that bears the table's name is not the table, except where it reads the table itself.
where array_length(word.names, 1) = 2
    or word.verb in ('insert', 'merge', 'update', 'truncate')
    or word.names[1] <> all (code.cte_names)
    or code.line ~* format('%1$s(?: ?\([^()]*\))? as (?:(?:not )?materialized )?\([^()]*\m(?:from|join) (?:only )?%1$s', named.pattern);
comment on view tenancy.table_mentions is
'Where the text of a function or a cron job names an org-scoped table, or a view over one, as what it reads or writes; without schema only'
' where its search path leads there. column_list: the columns of an INSERT or MERGE, NULL where it lists none.';

create or replace view tenancy.api_roles as
select role.oid, role.rolname, role.rolbypassrls
from pg_catalog.pg_roles as role
where not role.rolsuper
    and role.rolname <> current_user
    and role.rolname !~ '^(pg_|supabase_|cli_login_|pgsodium_|pgtle_)'
    and role.rolname not in ('postgres', 'authenticator', 'service_role', 'dashboard_user', 'pgbouncer')
    and pg_has_role(role.oid, to_regrole('postgres'), 'usage') is not true
    and pg_has_role(role.oid, to_regrole('service_role'), 'usage') is not true;
comment on view tenancy.api_roles is 'Whom the API lets in, or may: no superuser, none of the platform''s own, and none that is as good as these.';

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
        seen.*, 'other' = any (seen.functions) as has_functions,
        seen.node ~ '^\{CONST :consttype 16 [^{}]*:constvalue 1 \[ 0 '
            -- No org_id is NULL after the push.
            or seen.node ~ format('^\{NULLTEST :arg \{VAR :varno 1 :varattno %s [^{}]*\} :nulltesttype 0 ', clause.org_id_attnum)
            -- And who has the role service_role passes every policy: the bytes of that.
            or operator.oprname = '=' and seen.attnums = '{}' and not seen.has_tables and seen.functions && '{role,jwt,current_setting}'
            and seen.node ~ ' 115 101 114 118 105 99 101 95 114 111 108 101 \]' as is_false,
        -- Everybody but the user.
        seen.node ~ '^\{(DISTINCTEXPR |BOOLEXPR :boolop not )' or coalesce(operator.oprname = '<>', false) as is_negated,
        seen.functions && '{uid,email,jwt,current_setting}' or seen.node ~ '\{SQLVALUEFUNCTION :op (9|10|11|12) ' as has_identity,
        -- The bytes of sub and email, at the end of what is quoted.
        seen.functions && '{uid,email}'
            or seen.functions && '{jwt,current_setting}' and seen.node ~ ' (115 117 98|101 109 97 105 108) \]' as has_user_identity
    from seen
    join clause on clause.number = seen.clause
    left join pg_catalog.pg_operator as operator on operator.oid = substring(seen.node from '^\{OPEXPR :opno (\d+)')::oid
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
        min(asked.tables) filter (where leaf.is_of_user) as tables,
        array(select distinct read.oid from asked as its cross join unnest(its.tables) as read (oid) where its.arm = asked.arm) as reads
    from asked
    join clause on clause.number = asked.clause
    cross join lateral (
        select
            case
                when asked.is_false then 'no'
                when asked.attnums = '{}' then 'yes'
                -- What CASE lets pass whatever the row.
                when asked.node ~ '^\{CASEEXPR .*:result \{CONST :consttype 16 [^{}]*:constvalue 1 \[ 1 ' then 'probably'
                when asked.is_negated and (asked.has_user_identity or 'auth_org_id' = any (asked.functions)) and not asked.has_tables and not asked.has_functions
                    then 'probably'
                when asked.has_identity or asked.has_tables or asked.functions && '{auth_org_id,other}' then 'no'
                else 'probably'
            end as is_open,
            asked.attnums <> '{}' and asked.has_user_identity and not asked.has_functions and not asked.is_negated as is_of_user
    ) as leaf
    group by asked.arm
)
select
    clause.policy_oid, clause.name, clause.relation, clause.qualified_name, clause.root, clause.table_name, clause.row_security, clause.command,
    clause.roles, clause.is_permissive, clause.kind, clause.expression,
    judged.is_open, judged.is_false, judged.has_org_id, judged.is_of_user, judged.is_anyones, judged.is_everyones, judged.tables, judged.reads
from judged
join arm on arm.number = judged.arm
join clause on clause.number = arm.clause;
comment on view tenancy.policy_arms is
'Both expressions of every policy of an org-scoped table or a partition of one, by the arms of their OR. is_open: yes where an arm looks at'
' no column of the row, probably where it compares its columns with nothing that says who asks. has_org_id, is_of_user: it compares'
' the organization, or columns with the user''s id or address, through tables if it reads any. is_anyones: it asks nobody who they are;'
' is_everyones: nothing but whether they are signed in.';
