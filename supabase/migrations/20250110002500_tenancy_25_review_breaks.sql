-- Purpose: what of the application breaks once its tables have org_id: functions, jobs, grants, publications, foreign keys.
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

create or replace view tenancy.table_mentions as
with code as materialized (
    select application_functions.*
    from tenancy.application_functions
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
        regexp_replace(code.source, '\s+', ' ', 'g'),
        '(\m(?:insert into|merge into|from|join|update|using|truncate(?: table)?|table)|,) (?:only )?("(?:[^"]|"")+"|[a-z_][\w$]*)'
        '(?: ?\. ?("(?:[^"]|"")+"|[a-z_][\w$]*))?(?: as (?:"(?:[^"]|"")+"|[a-z_][\w$]*))? ?(\([^()]*\))?',
        'gi'
    ) as found (part)
    where found.part[1] <> ',' or found.part[3] is not null
),
target as materialized (
    select table_members.relname, table_members.relnamespace, table_members.root, root.qualified_name, false as is_view
    from tenancy.table_members
    join tenancy.application_tables as root on root.relation = table_members.root
    where table_members.scope = 'org'
    union all
    select views_over_tables.relname, views_over_tables.relnamespace, views_over_tables.root, views_over_tables.table_name, true
    from tenancy.views_over_tables
)
select
    code.oid as function, code.proname, code.name, code.kind, code.is_parsed, code.source,
    target.root, target.qualified_name as table_name, target.is_view, word.verb,
    word.verb in ('insert', 'merge') and (word.verb = 'insert' or word.column_list is not null) as inserts,
    case when word.column_list like '(%' then word.column_list end as column_list,
    -- As a pattern, with the schema where the text has it.
    case when array_length(word.names, 1) = 2 then format('"?%s"? ?\. ?', regexp_replace(word.names[1], '(\W)', '\\\1', 'g')) else '' end
        || format('"?%s"?(?![\w$"])', regexp_replace(target.relname, '(\W)', '\\\1', 'g')) as pattern,
    target.relname
from word
join code
    on code.name = word.name
    and code.oid is not distinct from word.oid
join target on target.relname = word.names[array_upper(word.names, 1)]
join pg_catalog.pg_namespace as namespace
    on namespace.oid = target.relnamespace
    and case when array_length(word.names, 1) = 2 then namespace.nspname = word.names[1] else namespace.nspname = any (code.schema_names) end;
comment on view tenancy.table_mentions is
'Where the text of a function or a cron job names an org-scoped table, or a view over one, as what it reads or writes; without schema only'
' where its search path leads there. column_list: the columns of an INSERT or MERGE, NULL where it lists none.';

create or replace view tenancy.review_breaks as
with code as materialized (
    select
        application_functions.*, function.prorettype, function.proallargtypes is not null as has_columns,
        coalesce('org_id' = any (function.proargnames), false) as returns_org_id,
        regexp_replace(application_functions.source, '\s+', ' ', 'g') as line,
        regexp_replace(application_functions.source_with_text, '\s+', ' ', 'g') as line_with_text,
        exists (
            select from pg_catalog.pg_trigger
            where pg_trigger.tgfoid = application_functions.oid and pg_trigger.tgrelid = to_regclass('auth.users')
        ) as on_sign_up
    from tenancy.application_functions
    left join pg_catalog.pg_proc as function on function.oid = application_functions.oid
),
mention as materialized (
    select table_mentions.*
    from tenancy.table_mentions
),
careless as materialized (
    -- Inserts that do not say an organization: one row per function and table.
    select
        mention.function, mention.name, mention.kind, mention.is_parsed, mention.root, mention.table_name,
        bool_or(mention.column_list is null) as is_by_position
    from mention
    where mention.inserts and coalesce(mention.column_list !~* '\morg_id\M', true)
    group by mention.function, mention.name, mention.kind, mention.is_parsed, mention.root, mention.table_name
),
filler as (
    select
        case when settings.fill_org_id then 'decide' else 'breaks' end as severity,
        case when settings.fill_org_id then ': change it before you switch the filler off' else '' end as hint
    from tenancy.settings
),
-- What a function answers with: the last statement of SQL, RETURN QUERY of plpgsql, without what is in parentheses.
answer as materialized (
    select
        code.oid, code.name, code.prorettype, code.has_columns, code.returns_org_id, code.is_parsed, flat.statement,
        coalesce(
            (regexp_match(flat.statement, '\mreturning (.*)$', 'i'))[1],
            (regexp_match(flat.statement || ' from ', '(?:\mselect (?:distinct )?(.*) from ){1,1}?', 'i'))[1]
        ) as column_list
    from code
    cross join lateral (
        select (regexp_matches(code.line, '\mreturn query ((?:select|with|insert|update|delete)\M[^;]*)', 'gi'))[1]
        union all
        select (regexp_match(code.line, '(?:^|;|atomic) ?((?:select|with|insert|update|delete)\M[^;]*)(?:;? ?(?:end)? ?)$', 'i'))[1]
        where code.line !~* '\mreturn query\M'
    ) as said (statement)
    cross join lateral (
        select regexp_replace(
            regexp_replace(regexp_replace(said.statement, '\([^()]*\)', ' ', 'g'), '\([^()]*\)', ' ', 'g'), '\([^()]*\)', ' ', 'g'
        )
    ) as flattened (text)
    -- Each query of a UNION has the same shape.
    cross join lateral regexp_split_to_table(flattened.text, '\m(union|except|intersect)( all)?\M', 'i') as flat (statement)
    where code.kind = 'function' and said.statement is not null
)
select
    case
        when careless.is_by_position then 'insert_by_position'
        when careless.kind = 'trigger function' then 'trigger_without_org_id'
        else 'function_without_org_id'
    end as code,
    filler.severity, careless.name as object, careless.table_name,
    format(
        '%sinserts into %s %s%s%s', case when not careless.is_parsed then 'probably ' end, careless.table_name,
        case
            when careless.is_by_position then 'without a list of columns: what is in org_id depends on the rows'
            else 'without org_id'
        end,
        case when code.on_sign_up then ' when somebody signs up' end, filler.hint
    ) as problem,
    format('name the columns in %s, and org_id among them', careless.name) as remedy
from careless
join code on code.oid = careless.function
cross join filler
union all
select
    'cron_job', case when bool_or(careless.name is not null) then filler.severity else 'decide' end, job.name, touched.table_name,
    case
        when bool_or(careless.name is not null) then format(
            'is a job that probably inserts into %s without org_id%s%s', touched.table_name,
            ', by ' || string_agg(distinct careless.name, ', ') filter (where careless.name <> job.name), filler.hint
        )
        else format('is a job that probably works on rows of all organizations in %s: no policy holds it', touched.table_name)
    end,
    case
        when bool_or(careless.name is not null) then 'name org_id in what it inserts'
        else 'let it go by org_id, if what it does differs by organization'
    end
from code as job
join mention as touched
    on touched.name = job.name and touched.kind = 'cron job'
    or touched.function is not null and job.line ~* format('(?<![\w$])%s"? ?\(', regexp_replace(touched.proname, '(\W)', '\\\1', 'g'))
left join careless
    on careless.name = touched.name
    and careless.root = touched.root
cross join filler
where job.kind = 'cron job'
group by job.name, touched.table_name, filler.severity, filler.hint
union all
-- SELECT * has one column more, and where it goes to has not.
select distinct
    'insert_by_position', 'breaks', mention.name, mention.table_name,
    format('%sinserts all columns of %s into %s, which has no org_id: more than there are', 'probably ', mention.table_name, copied.part[1]),
    format('name the columns in %s, on both sides', mention.name)
from mention
join code
    on code.oid is not distinct from mention.function
    and code.name = mention.name
    and not code.is_parsed
cross join lateral (
    select '\minsert into ((?:[\w$"]+ ?\. ?)?[\w$"]+) \(?select (?:[\w$"]+ ?\. ?)?\* from (?:only )?' || mention.pattern
    union all
    select format('\mdelete from (?:only )?%s[^;]* returning \*\) insert into ((?:[\w$"]+ ?\. ?)?[\w$"]+) \(?select [^;(]*\* from', mention.pattern)
) as copying (pattern)
cross join lateral regexp_matches(code.line, copying.pattern, 'gi') as copied (part)
where mention.verb = 'from'
    and not mention.is_view
    and not exists (
        select from mention as into_org
        where into_org.function is not distinct from mention.function
            and into_org.name = mention.name
            and into_org.inserts
            and lower(replace(copied.part[1], '"', '')) in (into_org.table_name, split_part(into_org.table_name, '.', 2))
    )
union all
select distinct
    'function_row_shape', 'breaks', answer.name, root.qualified_name,
    format('%sreturns too few columns: it returns rows of %s, and lists columns', case when not answer.is_parsed then 'probably ' end, root.qualified_name),
    format('select * in %s, or name org_id last', answer.name)
from answer
join pg_catalog.pg_type as returned on returned.oid = answer.prorettype
join pg_catalog.pg_type as row_type on row_type.oid in (returned.oid, returned.typelem)
join tenancy.table_members as member
    on member.relation = row_type.typrelid
    and member.scope = 'org'
join tenancy.application_tables as root on root.relation = member.root
where answer.column_list like '%,%'
    and answer.column_list !~ '(^|[.,]) ?\*'
    and answer.column_list !~* '\morg_id\M'
union all
select distinct
    'function_row_shape', 'breaks', answer.name, mention.table_name,
    format('probably returns too many columns: all of %s, and it says which it returns', mention.table_name),
    format('name the columns in %s, or drop it and create it with org_id among those that it returns', answer.name)
from answer
join mention
    on mention.function = answer.oid
    and mention.verb in ('from', 'join')
    and not mention.is_view
cross join lateral regexp_matches(answer.column_list, '(?:^|,) ?(?:"?([\w$]+)"? ?\. ?)?\*', 'g') as star (part)
where answer.has_columns
    and not answer.returns_org_id
    and not answer.is_parsed
    and answer.statement ~* concat(
        '\m(from|join) (only )?', mention.pattern,
        case when lower(star.part[1]) <> mention.relname then format(' (as )?"?%s"?(?![\w$"])', star.part[1]) end
    )
union all
select distinct
    'partition_without_org_id', 'breaks', code.name, root.qualified_name,
    format('probably attaches to %s tables that it makes column by column, without org_id', root.qualified_name),
    format('create table … partition of %1$s, or (like %1$s including defaults), in %2$s', root.qualified_name, code.name)
from code
join tenancy.application_tables as root
    on root.scope = 'org'
    and root.relkind = 'p'
    and code.line_with_text ~* format('(?<![\w$])%s(?![\w$])', regexp_replace(root.table_name, '(\W)', '\\\1', 'g'))
where code.line_with_text ~* '\mcreate table\M'
    and code.line_with_text ~* '\mattach partition\M'
    and code.line_with_text !~* '\m(like|org_id)\M'
union all
-- By column: whoever may read some reads them with select * until there is one more.
select
    'column_grants' as code,
    case when bool_or(granted.privilege_type = 'SELECT') then 'breaks' else 'decide' end as severity,
    granted.grantee as object, granted.table_name,
    format(
        'may %s %s column by column, and org_id is none of them: %s',
        lower(string_agg(distinct granted.privilege_type, ' and ')), granted.table_name,
        case when bool_or(granted.privilege_type = 'SELECT') then 'select * fails' else 'it cannot say org_id' end
    ) as problem,
    format(
        'grant %s on %s to %s', string_agg(distinct lower(granted.privilege_type) || ' (org_id)', ', '), granted.table_name,
        granted.grantee
    ) as remedy
from (
    select distinct
        member.root, root.qualified_name as table_name, item.privilege_type,
        format('%I', grantee.name) as grantee
    from tenancy.org_id_columns as member
    join tenancy.application_tables as root on root.relation = member.root
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = member.relation
        and column_.attacl is not null
        and not column_.attisdropped
    cross join lateral aclexplode(column_.attacl) as item
    cross join lateral (select case when item.grantee = 0 then 'public' else pg_get_userbyid(item.grantee) end) as grantee (name)
    where member.is_root
        and item.privilege_type in ('SELECT', 'INSERT')
        and not has_table_privilege(grantee.name, member.relation, item.privilege_type)
        and case when member.attnum > 0 then not has_column_privilege(grantee.name, member.relation, member.attnum, item.privilege_type) else true end
) as granted
group by granted.grantee, granted.table_name
union all
select
    'published', case when subscribed.by_slot and bool_or(member.attnum is null) then 'breaks' else 'decide' end,
    published.pubname, root.qualified_name,
    case
        when bool_or(member.attnum is null) then format(
            'publishes %s: a subscriber without the column stops at the first change (missing replicated column "org_id")', root.qualified_name
        )
        else format('publishes %s, whose rows from before the push have no org_id at a subscriber: no change has told it', root.qualified_name)
    end,
    case
        when bool_or(member.attnum is null) then format('at the subscriber, before the push: alter table %s add column org_id uuid', root.qualified_name)
        else format('at the subscriber: update %s set org_id = %L where org_id is null', root.qualified_name, settings.default_org_id)
    end
from pg_catalog.pg_publication_tables as published
join pg_catalog.pg_namespace as namespace on namespace.nspname = published.schemaname
join pg_catalog.pg_class as class
    on class.relnamespace = namespace.oid
    and class.relname = published.tablename
join tenancy.org_id_columns as member on member.relation = class.oid
join tenancy.application_tables as root on root.relation = member.root
cross join tenancy.settings
cross join lateral (
    select exists (
        select from pg_catalog.pg_replication_slots as slot
        where slot.database = current_database() and slot.plugin = 'pgoutput' and not slot.temporary
    ) as by_slot
) as subscribed
where published.pubname <> 'supabase_realtime'
    and (member.attnum is null or (member.missing_value is not null and subscribed.by_slot))
    -- A list of columns stays what it is.
    and not exists (
        select from pg_catalog.pg_publication_rel as listed
        join pg_catalog.pg_publication as publication
            on publication.oid = listed.prpubid
            and publication.pubname = published.pubname
        where listed.prrelid = class.oid and listed.prattrs is not null
    )
group by published.pubname, root.qualified_name, subscribed.by_slot, settings.default_org_id
union all
select
    'reference_sets_org_id_null', 'breaks', format('%I', reference.conname), root.qualified_name,
    format(
        'is a foreign key of %s that sets org_id too, which cannot change: no row of %s that is in use can be %s', root.qualified_name,
        reference.confrelid::regclass, case when reference.confdeltype in ('n', 'd') then 'deleted' else 'given another key' end
    ),
    format(
        'alter table %s drop constraint %I, add constraint %I %s', member.qualified_name, reference.conname, reference.conname,
        regexp_replace(
            regexp_replace(pg_get_constraintdef(reference.oid), ' ON UPDATE SET (NULL|DEFAULT)', ''),
            ' ON DELETE SET (NULL|DEFAULT)( \([^)]*\))?',
            format(' ON DELETE SET \1 (%s)', others.column_names)
        )
    )
from tenancy.org_id_columns as member
join tenancy.application_tables as root on root.relation = member.root
join pg_catalog.pg_constraint as reference
    on reference.conrelid = member.relation
    and reference.contype = 'f'
    and reference.conparentid = 0
    and member.attnum = any (reference.conkey)
    -- Alone it is not what the push asks for, which org_id_foreign_key says.
    and reference.conkey <> array[member.attnum]
cross join lateral (
    select string_agg(format('%I', column_.attname), ', ' order by column_.attnum) as column_names
    from pg_catalog.pg_attribute as column_
    where column_.attrelid = reference.conrelid
        and column_.attnum = any (coalesce(reference.confdelsetcols, reference.conkey))
        and column_.attnum <> member.attnum
) as others
where (reference.confdeltype in ('n', 'd') and member.attnum = any (coalesce(reference.confdelsetcols, reference.conkey)))
    or reference.confupdtype in ('n', 'd');
comment on view tenancy.review_breaks is
'What of the application fails once its tables have org_id. Columns as tenancy.review.';
