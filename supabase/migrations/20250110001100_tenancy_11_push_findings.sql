-- Purpose: what keeps people from signing up, whom the mapping leaves out, and all findings of a push in one view.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.application_functions as
with code as (
    select
        function.oid, function.proname,
        coalesce(pg_get_function_sqlbody(function.oid), function.prosrc) as body,
        case when function.prorettype = 'trigger'::regtype then 'trigger function' else 'function' end as kind,
        format('%I.%I(%s)', namespace.nspname, function.proname, oidvectortypes(function.proargtypes)) as name,
        function.prosqlbody is not null as is_parsed,
        coalesce(path.setting, '"$user", public') as search_path
    from pg_catalog.pg_proc as function
    join pg_catalog.pg_namespace as namespace on namespace.oid = function.pronamespace
    join pg_catalog.pg_language as language
        on language.oid = function.prolang
        and language.lanname not in ('c', 'internal')
    left join lateral (
        select substr(setting, 13) from unnest(function.proconfig) as setting where setting like 'search\_path=%'
    ) as path (setting)
        on true
    where function.prokind in ('f', 'p')
        and namespace.nspname <> all ((select settings.platform_schemas from tenancy.settings)::text[])
        and namespace.nspname not in ('pg_catalog', 'information_schema')
        and not exists (
            select from pg_catalog.pg_depend as dependency
            where dependency.classid = 'pg_catalog.pg_proc'::regclass
                and dependency.objid = function.oid
                and dependency.deptype = 'e'
        )
    union all
    select
        null, null,
        -- What DO runs is quoted, and is no text.
        regexp_replace(
            convert_from(decode(job.command, 'hex'), 'UTF8'), '\mdo\s+(?:language\s+\w+\s+)?(\$\w*\$)(.*)\1', '\2', 'i'
        ),
        'cron job',
        convert_from(decode(job.name, 'hex'), 'UTF8'), false, '"$user", public'
    from pg_catalog.pg_class as jobs
    join pg_catalog.pg_roles as owner on owner.oid = jobs.relowner
    cross join lateral query_to_xml(
        -- In digits: not every character may stand in XML.
        format(
            $sql$
                select
                    pg_catalog.encode(pg_catalog.convert_to(coalesce(
                        line operator(pg_catalog.->>) 'jobname'::pg_catalog.text, line operator(pg_catalog.->>) 'jobid'::pg_catalog.text
                    ), 'UTF8'), 'hex') as name,
                    pg_catalog.encode(pg_catalog.convert_to(line operator(pg_catalog.->>) 'command'::pg_catalog.text, 'UTF8'), 'hex') as command
                from (select pg_catalog.to_jsonb(job) from %s as job) as job (line)
            $sql$,
            jobs.oid::regclass
        ),
        false, false, ''
    ) as answer (document)
    cross join lateral xmltable(
        '/table/row' passing answer.document columns name text path 'name', command text path 'command'
    ) as job
    where jobs.oid = to_regclass('cron.job')
        and jobs.relkind = 'r'
        -- Not one that another role has made, with policies of its own.
        and (owner.rolsuper or owner.rolname = current_user)
        and has_schema_privilege(jobs.relnamespace, 'usage')
        and has_table_privilege(jobs.oid, 'select')
)
select read.*, said.line
from (
    select
        code.oid, code.proname,
        -- Each is one of: a quoted name, a comment, text. The shortest match is the whole, as what follows must not continue it.
        regexp_replace(
            code.body,
            $re$(?:("(?:[^"]|"")*"(?!"))|--[^\n]*(?=\n|$)|/\*.*\*/|\m[eE]'(?:[^'\\]|\\.|'')*'(?!')|'(?:[^']|'')*'(?!')|\$((?:[a-z_]\w*)?)\$.*\$\2\$){1,1}?$re$,
            '\1 ', 'gi'
        ) as source,
        regexp_replace(
            code.body,
            $re$(?:("(?:[^"]|"")*"(?!")|\m[eE]'(?:[^'\\]|\\.|'')*'(?!')|'(?:[^']|'')*'(?!')|\$((?:[a-z_]\w*)?)\$.*\$\2\$)|--[^\n]*(?=\n|$)|/\*.*\*/){1,1}?$re$,
            '\1 ', 'gi'
        ) as source_with_text,
        code.kind, code.name, code.is_parsed,
        case
            -- Written out for the path of whoever asks.
            when code.is_parsed then current_schemas(false)::text[]
            else array(select trim(both ' "' from entry) from unnest(string_to_array(code.search_path, ',')) as entry)
        end as schema_names
    from code
) as read
cross join lateral (
    select regexp_replace(
        concat_ws(
            '; ', read.source,
            (
                select string_agg(concat(case when given.part[1] is not null then 'select * from ' end, coalesce(given.part[2], given.part[3])), '; ')
                from regexp_matches(
                    read.source_with_text,
                    $re$\m(?:execute\s+(?:format\s*\(\s*)?|(?:query_to_xml\w*|cursor_to_xml\w*|ts_stat|(table)_to_xml\w*)\s*\(\s*(?:format\s*\(\s*)?)(?:e?'((?:[^']|'')*)'|\$\w*\$([^$]*)\$)$re$,
                    'gi'
                ) as given (part)
                where read.kind <> 'cron job'
            )
        ),
        '\s+', ' ', 'g'
    ) as line
) as said;
comment on view tenancy.application_functions is
'The application''s functions, and the commands of its cron jobs (oid NULL), with their text: source has neither comments nor what is'
' quoted as text, source_with_text no comments, and line, in which all white space is a blank, has with source the text that EXECUTE or query_to_xml is given.'
' schema_names: where names without a schema are looked for. is_parsed: a body that'
' PostgreSQL keeps parsed, so that its dependencies are known.';

create or replace view org_migration.sign_up_writes as
with recursive written as materialized (
    select
        application_functions.oid, application_functions.proname, application_functions.source,
        -- What EXECUTE is given may be any of its text.
        case when application_functions.source ~* '\mexecute\M' then application_functions.source_with_text else '' end as text
    from tenancy.application_functions
),
viewed as materialized (
    select distinct rule.ev_class as view_oid, dependency.refobjid as relation
    from pg_catalog.pg_rewrite as rule
    join pg_catalog.pg_class as class
        on class.oid = rule.ev_class
        and class.relkind = 'v'
    join pg_catalog.pg_depend as dependency
        on dependency.classid = 'pg_catalog.pg_rewrite'::regclass
        and dependency.objid = rule.oid
        and dependency.refclassid = 'pg_catalog.pg_class'::regclass
        and dependency.refobjid <> rule.ev_class
    where class.relnamespace not in (
        select namespace.oid
        from pg_catalog.pg_namespace as namespace
        where namespace.nspname = any ((select settings.platform_schemas from tenancy.settings)::text[])
            or namespace.nspname in ('pg_catalog', 'information_schema')
    )
),
-- What a name stands for: a table, and a view for what may be written through it.
meant (named, relation) as (
    select application_tables.relation::oid, application_tables.relation::oid
    from tenancy.application_tables
    union
    select viewed.view_oid, viewed.view_oid
    from viewed
    union
    select meant.named, viewed.relation
    from meant
    join viewed on viewed.view_oid = meant.relation
    where pg_relation_is_updatable(viewed.view_oid, false) & 8 > 0
),
writable as materialized (
    select
        meant.relation, meant.named <> meant.relation as is_behind, application_tables.qualified_name, application_tables.scope, form.name,
        format('\m%s\s+(only\s+)?%s(\s|\(|$)%s', verb.words, form.name, verb.more) as pattern, verb.event
    from meant
    join pg_catalog.pg_class as class on class.oid = meant.named
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    left join tenancy.application_tables on application_tables.relation = meant.relation
    cross join lateral (
        select format(
            '("?%s"?\s*\.\s*)?"?%s"?', regexp_replace(namespace.nspname, '(\W)', '\\\1', 'g'), regexp_replace(class.relname, '(\W)', '\\\1', 'g')
        )
    ) as form (name)
    -- As the type of a trigger has it.
    cross join (
        values ('(insert|merge)\s+into', '', 4), ('delete\s+from', '', 8), ('(update|merge\s+into)', '', 16), ('insert\s+into', '[^;]*\mon\s+conflict\M', 16)
    ) as verb (words, more, event)
),
run (function, trigger_name, source, text, is_guess) as (
    select
        its_trigger.tgfoid, its_trigger.tgname::text, written.source,
        case when written.text <> '' then concat(written.text, ' ', quote_literal(replace(encode(its_trigger.tgargs, 'escape'), '\000', ''' '''))) else '' end,
        false
    from pg_catalog.pg_trigger as its_trigger
    join pg_catalog.pg_class as class
        on class.oid = its_trigger.tgrelid
        and class.relnamespace = to_regnamespace('auth')
    join written on written.oid = its_trigger.tgfoid
    where not its_trigger.tgisinternal
        -- On INSERT or UPDATE: some write once the address is confirmed.
        and its_trigger.tgtype::integer & 20 > 0
        and its_trigger.tgenabled in ('O', 'A')
    union
    -- What such a function calls, and the triggers and rules of what it writes to.
    select next.oid, run.trigger_name, next.source, next.text, run.is_guess or next.is_guess
    from run
    cross join lateral (
        select called.oid, called.source, called.text, run.source !~* its.pattern as is_guess
        from written as called
        cross join lateral (select format('\m%s"?\s*\(', regexp_replace(called.proname, '(\W)', '\\\1', 'g'))) as its (pattern)
        where called.oid <> run.function
            and (run.source ~* its.pattern or run.text ~* its.pattern)
        union all
        select effect.oid, effect.source, effect.text, run.source !~* writable.pattern
        from writable
        cross join lateral (
            select written.oid, written.source, written.text
            from pg_catalog.pg_trigger as fired
            join written on written.oid = fired.tgfoid
            where fired.tgrelid = writable.relation
                and not fired.tgisinternal
                and fired.tgtype::integer & writable.event > 0
            union all
            select 0, pg_get_ruledef(rule.oid), ''
            from pg_catalog.pg_rewrite as rule
            where rule.ev_class = writable.relation and rule.ev_type <> '1'
        ) as effect
        where run.source ~* writable.pattern or run.text ~* writable.pattern
    ) as next
)
select
    run.trigger_name, writable.relation::regclass as relation, writable.qualified_name,
    bool_and(run.is_guess or writable.is_behind or run.source !~* writable.pattern) as is_guess
from run
join writable
    on writable.scope = 'org'
    and writable.event = 4
    and (
        run.source ~* writable.pattern
        or run.text ~* writable.pattern
        -- Or into a table that it names as it runs, where this one is named.
        or run.text ~* '\m(insert|merge)\s+into\s+([%"\s]|''\s*\|\|)' and run.text ~* format('''%s''', writable.name)
    )
group by run.trigger_name, writable.relation, writable.qualified_name;
comment on view org_migration.sign_up_writes is
'The org-scoped tables that a trigger on a table of auth probably writes to when somebody signs up, by the text of its function, of what that'
' calls, and of the triggers and rules on what it writes. is_guess: only EXECUTE, or a view, leads there.';

create or replace view org_migration.sign_up_findings as
select
    'new_users_unset' as code, 'stops' as severity, sign_up_writes.trigger_name as object, sign_up_writes.qualified_name as table_name,
    format(
        '%sgets a row from the trigger %I when somebody signs up, and with a mapping nothing says which organization a new user is in',
        case when sign_up_writes.is_guess then 'probably ' end, sign_up_writes.trigger_name
    ) as problem,
    'choose above the check in the migration ending in _EDIT_list_of_tables.sql: select tenancy.enable_new_users(''personal''), or ''default'','
    ' or ''application'' where your own trigger places them before it writes' as remedy
from org_migration.sign_up_writes
where (
    select
        settings.new_users is null
        and (
            (select mapping_state.is_filled from tenancy.mapping_state)
            or coalesce((select claimed_organizations.row_count > 0 from org_migration.claimed_organizations), false)
        )
    from tenancy.settings
)
union all
select
    'anonymous_users_unset', 'breaks', sign_up_writes.trigger_name, sign_up_writes.qualified_name,
    format(
        '%sgets a row from the trigger %I for anonymous users too, of whom there are some, and they are in no organization',
        case when sign_up_writes.is_guess then 'probably ' end, sign_up_writes.trigger_name
    ),
    format('select tenancy.enable_new_users(%L, true), or let the trigger pass anonymous users over', settings.new_users)
from org_migration.sign_up_writes
cross join tenancy.settings
where (
    select
        others.new_users is distinct from 'application'
        and not others.new_users_anonymous
        and (select mapping_state.is_filled from tenancy.mapping_state)
        and exists (select from auth.users where users.is_anonymous)
    from tenancy.settings as others
)
union all
select
    'organizations_trigger_privilege', 'leaks', 'public.organizations', null,
    format('lets %s make triggers on it, which a sign-up would run with your rights', string_agg(distinct grants.grantee, ', ')),
    format('revoke trigger on public.organizations from %s', string_agg(distinct grants.grantee, ', '))
from information_schema.role_table_grants as grants
where (select settings.new_users = 'personal' from tenancy.settings)
    and grants.table_schema = 'public' and grants.table_name = 'organizations' and grants.privilege_type = 'TRIGGER'
    and grants.grantee in ('anon', 'authenticated', 'service_role')
having count(*) > 0;
comment on view org_migration.sign_up_findings is 'What keeps people from signing up once org_id is NOT NULL.';

create or replace view org_migration.mapping_findings as
select 'users_left_out' as code,
    -- Before the push rows of theirs would go to the default organization, and they to another.
    case
        when settings.new_users is null
            or (select mapping_state.is_filled from tenancy.mapping_state)
            or exists (select from org_migration.tables_before)
            then 'decide'
        else 'stops'
    end as severity,
    'auth.users' as object, 'auth.users' as table_name,
    format('has %s users in no organization: neither tenancy.user_orgs nor app_metadata.org_id says one', count(*)) as problem,
    format(
        'place them: select tenancy.create_personal_organizations(), or insert into tenancy.user_orgs select id, %L from auth.users on conflict'
        ' do nothing; rows of theirs that nothing else decides go to the default organization', settings.default_org_id
    ) as remedy
from tenancy.placed_users
join auth.users on users.id = placed_users.user_id
cross join tenancy.settings
where placed_users.org_id is null and not placed_users.is_anonymous
    -- Of a soft-deleted one the rows are to be placed, and nothing else.
    and (users.deleted_at is null or not exists (select from org_migration.tables_before))
group by settings.new_users, settings.default_org_id having count(*) > 0;
comment on view org_migration.mapping_findings is 'Whom the mapping leaves out.';

create or replace view tenancy.push_findings as
select foundation_findings.* from tenancy.foundation_findings
union all
select library_findings.* from tenancy.library_findings
union all
select registry_findings.* from tenancy.registry_findings
union all
select table_findings.* from tenancy.table_findings
union all
select publication_findings.* from org_migration.publication_findings
union all
select org_id_findings.* from tenancy.org_id_findings
union all
select source_findings.* from org_migration.source_findings
union all
select row_findings.* from org_migration.row_findings
union all
select value_findings.* from org_migration.value_findings
union all
select name_findings.* from tenancy.name_findings
union all
select sign_up_findings.* from org_migration.sign_up_findings
union all
select mapping_findings.* from org_migration.mapping_findings
union all
-- What is decided stays, whatever the list says.
select
    'org_from_changed', 'stops', application_tables.qualified_name, application_tables.qualified_name,
    format(
        'is decided already, with org_from %s, and the list says %s now, which changes no row', coalesce(tables_before.org_from::text, 'null'),
        coalesce(application_tables.org_from::text, 'null')
    ),
    format(
        'undo first, as in docs/operate.md; or, if it is for new rows alone: select org_migration.note_rules(%1$L), org_migration.note_sources(%1$L)',
        application_tables.qualified_name
    )
from org_migration.tables_before
join tenancy.application_tables on application_tables.relation = tables_before.relation
join tenancy.decisions on decisions.root = tables_before.relation
where tables_before.joins is not null
    and application_tables.org_from is distinct from tables_before.org_from and decisions.is_per_row
    -- Not after a mere rename, or where the same is said in words.
    and tables_before.joins not in (
        select decision_rules.joins from org_migration.decision_rules where decision_rules.root = tables_before.relation
    )
union all
select
    'unkeyed_owner', 'decide', application_tables.qualified_name, application_tables.qualified_name,
    concat('follows what it references alone, but ', string_agg(hinted_columns.reason, '; it ' order by hinted_columns.attnum)),
    format('name it in org_from, or only what decides now: ''{%s}''', parents.entries)
from tenancy.application_tables
join tenancy.hinted_columns
    on hinted_columns.relation = application_tables.relation
    and hinted_columns.parent = to_regclass('auth.users')
join (
    select sources.root, string_agg(sources.entry, ',' order by sources.ordinal) as entries
    from tenancy.sources
    group by sources.root
    having bool_and(sources.kind = 'parent')
) as parents on parents.root = application_tables.relation
where application_tables.org_from is null
    and (select mapping_state.is_filled from tenancy.mapping_state)
group by application_tables.qualified_name, parents.entries
union all
select
    'untried_check', 'decide', doubtful_checks.name, doubtful_checks.qualified_name,
    case
        when not doubtful_checks.is_valid
            then format('has the check %I, which is not valid and is not tried here, since it runs functions', doubtful_checks.name)
        else format(
            'has the %s %I, which asks functions that may answer otherwise today: every row is written again', doubtful_checks.kind, doubtful_checks.name
        )
    end,
    case
        when not doubtful_checks.is_valid then 'validate or drop it first: the push tries it, and stops where a row breaks it'
        else 'look whether every row still passes: the push tries it, and stops where one does not'
    end
from org_migration.doubtful_checks
left join tenancy.decisions on decisions.root = doubtful_checks.root
where not doubtful_checks.cannot_fail
    and (not doubtful_checks.is_valid or decisions.is_per_row);
comment on view tenancy.push_findings is
'Everything that is wrong before a push: code (one per rule), severity (stops: the push stops at it; decide: probably), object, table_name, problem, remedy.';
