-- Purpose: where the application reaches its tables from: views, the text of functions and cron jobs, and what policies ask.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

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
),
reached (relation, root, is_direct) as (
    select read_by.view_oid, table_members.root, true
    from tenancy.table_members
    join read_by on read_by.relation = table_members.relation
    where table_members.scope = 'org'
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
'Every view and materialized view that reads an org-scoped table, itself (is_direct) or through other views, with that table.';

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

create or replace view tenancy.table_mentions as
with code as materialized (
    select
        application_functions.*, cte.names as cte_names, said.line
    from tenancy.application_functions
    cross join lateral (
        -- With the text that EXECUTE is given.
        select regexp_replace(
            concat_ws(
                '; ', application_functions.source,
                (
                    select string_agg(coalesce(given.part[1], given.part[2]), '; ')
                    from regexp_matches(
                        application_functions.source_with_text,
                        $re$\mexecute\s+(?:format\s*\(\s*)?(?:e?'((?:[^']|'')*)'|\$\w*\$([^$]*)\$)$re$, 'gi'
                    ) as given (part)
                    where application_functions.kind <> 'cron job'
                )
            ),
            '\s+', ' ', 'g'
        ) as line
    ) as said
    cross join lateral (
        select array(
            select (parse_ident(named.part[1]))[1]
            from regexp_matches(
                said.line,
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
        '(?: ?\. ?("(?:[^"]|"")+"|[a-z_][\w$]*))?(?: as (?:"(?:[^"]|"")+"|[a-z_][\w$]*))? ?(\([^()]*\))?',
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
