-- Purpose: what of the application breaks once its tables have org_id: functions, jobs, grants, publications, foreign keys.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.review_breaks as
with recursive code as materialized (
    select
        application_functions.*,
        regexp_replace(application_functions.source_with_text, '\s+', ' ', 'g') as line_with_text,
        exists (
            select from pg_catalog.pg_trigger
            join pg_catalog.pg_class as class on class.oid = pg_trigger.tgrelid
            where pg_trigger.tgfoid = application_functions.oid and class.relnamespace = to_regnamespace('auth')
                -- On INSERT.
                and pg_trigger.tgtype & 4 <> 0
        ) as on_sign_up
    from tenancy.application_functions
),
mention as materialized (
    select table_mentions.*
    from tenancy.table_mentions
),
-- What a job runs: its own command (function NULL), and the functions that this calls, directly or not.
call as materialized (
    select function_calls.*
    from tenancy.function_calls
),
run (job, function) as (
    select code.name, null::oid
    from code
    where code.kind = 'cron job'
    union
    select run.job, call.callee
    from run
    join call
        on call.caller = run.function
        or call.caller is null and run.function is null and call.caller_name = run.job
),
careless as materialized (
    -- Inserts that do not say an organization: one row per function and table.
    select
        mention.function, mention.name, mention.kind, mention.is_parsed, mention.root, mention.table_name,
        bool_or(mention.column_list is null) as is_by_position, string_agg(mention.column_list, ' ') as column_lists
    from mention
    where mention.inserts and coalesce(mention.column_list !~* '\morg_id\M', true)
    group by mention.function, mention.name, mention.kind, mention.is_parsed, mention.root, mention.table_name
),
-- Tables whose rows may name nobody, and then nothing decides.
nobodys as materialized (
    select member.relation, string_agg(format('%I', column_.attname), '|') as owners
    from tenancy.org_id_columns as member
    join tenancy.owner_columns on owner_columns.relation = member.relation
    join pg_catalog.pg_attribute as column_
        on column_.attrelid = owner_columns.relation
        and column_.attnum = owner_columns.attnum
    join tenancy.application_tables on application_tables.relation = member.relation
    where coalesce(column_.attname = any (application_tables.org_from), true)
        and not exists (
            select from tenancy.references_between_tables as reference
            join tenancy.org_id_columns as parent on parent.relation = reference.parent
            where reference.relation = member.relation
                and reference.parent <> reference.relation
                and coalesce(array_to_string(reference.column_names, ', ') = any (application_tables.org_from), true)
        )
    group by member.relation
    having not bool_or(column_.attnotnull)
),
filler as (
    select
        case when settings.fill_org_id then 'decide' else 'breaks' end as severity,
        case when settings.fill_org_id then ': change it before you switch the filler off' else '' end as hint,
        settings.fill_org_id and mapping_state.is_filled as refuses,
        settings.new_users = 'application' and not exists (
            select from code
            where code.on_sign_up and code.line_with_text ~* '\m(user_orgs|raw_app_meta_data)\M'
        ) as places_nobody
    from tenancy.settings
    cross join tenancy.mapping_state
)
select
    case
        when careless.is_by_position then 'insert_by_position'
        when careless.kind = 'trigger function' then 'trigger_without_org_id'
        else 'function_without_org_id'
    end as code,
    case when refused.by_what is null then filler.severity else 'breaks' end as severity, careless.name as object, careless.table_name,
    format(
        '%sinserts into %s %s%s%s', case when not careless.is_parsed then 'probably ' end, careless.table_name,
        case
            when careless.is_by_position then 'without a list of columns: what is in org_id depends on the rows'
            else 'without org_id'
        end,
        case when code.on_sign_up then ' when somebody signs up' end, coalesce(refused.by_what, filler.hint)
    ) as problem,
    format(
        'name the columns in %s, and org_id among them%s', careless.name,
        case
            when refused.by_what is null then ''
            when code.on_sign_up
                then '; or let a trigger that runs before it place the user in tenancy.user_orgs, or choose otherwise in tenancy.enable_new_users'
            else ': new.org_id, of the row that fires it'
        end
    ) as remedy
from careless
join code on code.oid = careless.function
cross join filler
left join nobodys on nobodys.relation = careless.root
cross join lateral (
    select case
        when not filler.refuses or careless.kind <> 'trigger function' then null
        when code.on_sign_up and filler.places_nobody then ', which fails: nothing says by then which organization the user is in'
        when not code.on_sign_up and (
            code.line_with_text ~* '\mauth ?\. ?(uid|jwt|email)\M' or careless.column_lists !~* format('(?<![\w$])(%s)(?![\w$])', nobodys.owners)
        )
        -- Unless the row that fires it says who.
        and code.line_with_text !~* 'coalesce ?\([^;]*\mauth ?\. ?uid\M[^;]*\m(new|old) ?\.'
        and nobodys.relation is not null
            then ', and of nobody where nobody is signed in, as with service_role or a job: that is refused, and what fires it fails'
    end as by_what
) as refused
union all
select
    'cron_job', case when bool_or(careless.name is not null) then filler.severity else 'decide' end, job.job, touched.table_name,
    case
        when bool_or(careless.name is not null) then format(
            'is a job that probably inserts into %s without org_id%s%s', touched.table_name,
            ', by ' || string_agg(distinct careless.name, ', ') filter (where careless.name <> job.job), filler.hint
        )
        else format('is a job that probably works on rows of all organizations in %s: no policy holds it', touched.table_name)
    end,
    case
        when bool_or(careless.name is not null) then 'name org_id in what it inserts'
        else 'let it go by org_id, if what it does differs by organization'
    end
from run as job
join mention as touched
    on touched.function = job.function
    or touched.kind = 'cron job' and job.function is null and touched.name = job.job
left join careless
    on careless.name = touched.name
    and careless.root = touched.root
cross join filler
group by job.job, touched.table_name, filler.severity, filler.hint
union all
select review_shapes.* from tenancy.review_shapes
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
-- Before it is attached it has org_id and NOT NULL by LIKE, and not the filler.
select distinct
    'partition_without_org_id', 'breaks', code.name, root.qualified_name,
    format(
        'probably puts rows without org_id into tables that it makes like %s, before it attaches them: no filler is there yet, so that they are refused'
        ' where no token says the organization', root.qualified_name
    ),
    format('attach them first in %s, or name org_id in what it inserts', code.name)
from code
join tenancy.application_tables as root
    on root.scope = 'org'
    and root.relkind = 'p'
cross join lateral regexp_matches(
    code.line_with_text,
    format(
        '\mcreate (?:unlogged )?table (?:if not exists )?([^;(]*[^;( ]) ?\( ?like (?:[\w$"]+ ?\. ?)?"?%s"?(?![\w$"]).*\minsert into \1(?![\w$])([^;]*);.*\mattach partition\M',
        regexp_replace(root.table_name, '(\W)', '\\\1', 'g')
    ), 'gi'
) as filled (part)
where filled.part[2] !~* '(\morg_id\M|\*)'
union all
-- By column: whoever may read all of them reads them with select *, until there is one more.
select
    'column_grants', case when granted.reads_all then 'breaks' else 'decide' end, granted.grantee, granted.table_name,
    format(
        'may %s %s column by column, and org_id is none of them: %s', granted.verbs, granted.table_name,
        case when granted.reads_all then 'select * fails' else 'it can neither ask for it nor say it' end
    ),
    format('%sgrant %s on %s to %s', case when not granted.has_org_id then 'after the push: ' end, granted.privileges, granted.table_name, granted.grantee)
from (
    select
        root.qualified_name as table_name, format('%I', grantee.name) as grantee, member.attnum is not null as has_org_id,
        lower(string_agg(distinct item.privilege_type, ' and ')) as verbs,
        string_agg(distinct lower(item.privilege_type) || ' (org_id)', ', ') as privileges,
        bool_or(item.privilege_type = 'SELECT') and not exists (
            select from pg_catalog.pg_attribute as other
            where other.attrelid = member.relation
                and other.attnum > 0
                and not other.attisdropped
                and other.attname <> 'org_id'
                and not has_column_privilege(grantee.name, member.relation, other.attnum, 'SELECT')
        ) as reads_all
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
    group by member.relation, member.attnum, root.qualified_name, grantee.name
) as granted
union all
select
    'published',
    case when subscribed.by_slot and bool_or(member.attnum is null) or subscribed.stopped_slots is not null then 'breaks' else 'decide' end,
    published.pubname, root.qualified_name,
    case
        when subscribed.stopped_slots is not null and bool_and(member.attnum is not null) then format(
            'publishes %s, and nobody reads the slot %s: its subscriber has probably stopped at the column that it lacks, and WAL is kept for it',
            root.qualified_name, subscribed.stopped_slots
        )
        when bool_or(member.attnum is null) then format(
            'publishes %s: a subscriber without the column stops at the first change (missing replicated column "org_id")', root.qualified_name
        )
        else format('publishes %s, whose rows from before the push have no org_id at a subscriber: no change has told it', root.qualified_name)
    end,
    case
        when subscribed.stopped_slots is not null or bool_or(member.attnum is null) then format('at the subscriber: alter table %s add column org_id uuid, before the push if that is to come', root.qualified_name)
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
    select
        count(*) > 0 as by_slot, string_agg(format('%I', slot.slot_name), ', ' order by slot.slot_name) filter (where not slot.active) as stopped_slots
    from pg_catalog.pg_replication_slots as slot
    where slot.database = current_database() and slot.plugin = 'pgoutput' and not slot.temporary
) as subscribed
where published.pubname <> 'supabase_realtime'
    and (member.attnum is null or subscribed.stopped_slots is not null or (member.missing_value is not null and subscribed.by_slot))
    -- A list of columns stays what it is.
    and not exists (
        select from pg_catalog.pg_publication_rel as listed
        join pg_catalog.pg_publication as publication
            on publication.oid = listed.prpubid
            and publication.pubname = published.pubname
        where listed.prrelid = class.oid and listed.prattrs is not null
    )
group by published.pubname, root.qualified_name, subscribed.by_slot, subscribed.stopped_slots, settings.default_org_id
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
        -- Where it sets org_id alone, what is left to set are the others.
        and column_.attnum = any (coalesce(nullif(reference.confdelsetcols, array[member.attnum]), reference.conkey))
        and column_.attnum <> member.attnum
) as others
where (reference.confdeltype in ('n', 'd') and member.attnum = any (coalesce(reference.confdelsetcols, reference.conkey)))
    or reference.confupdtype in ('n', 'd');
comment on view tenancy.review_breaks is
'What of the application fails once its tables have org_id. Columns as tenancy.review.';
