-- Purpose: the last step: the machinery of the move goes, and what the application keeps can be written as one plain migration.
-- Touches: new objects in the schemas tenancy and org_migration only. Closes both to everyone but their owner.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function org_migration.assert_finishable()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    problems constant text[] := array(
        select format(
            '%s still has its filler; update tenancy.settings set fill_org_id = false, then'
            ' do $$ begin while tenancy.advance(''filler'') loop commit; end loop; end $$', part.qualified_name
        )
        from tenancy.column_parts as part
        where part.part = 'filler' and part.undo is not null
        order by part.qualified_name
    ) || array(
        select concat_ws(' ', failed.table_name, failed.check_name || ':', failed.detail)
        from tenancy.verify_schema() as failed
        where not failed.passed
            -- It can be given later as well.
            and failed.check_name <> 'api_privileges'
    ) || array(
        select distinct format('the view %s reads %s, which goes; drop it first', reader.oid::regclass, used.refobjid::regclass)
        from pg_catalog.pg_depend as used
        join pg_catalog.pg_class as machinery
            on used.refclassid = 'pg_catalog.pg_class'::regclass
            and machinery.oid = used.refobjid
            and (
                machinery.relnamespace = 'org_migration'::regnamespace
                or machinery.oid in (
                    'tenancy.plan'::regclass, 'tenancy.now'::regclass, 'tenancy.status'::regclass, 'tenancy.sources'::regclass, 'tenancy.filled_rows'::regclass
                )
            )
        join pg_catalog.pg_rewrite as rule on used.classid = 'pg_catalog.pg_rewrite'::regclass and rule.oid = used.objid
        join pg_catalog.pg_class as reader on reader.oid = rule.ev_class
        where reader.relnamespace not in ('org_migration'::regnamespace, 'tenancy'::regnamespace)
    );
begin
    if problems <> '{}' then
        raise exception E'the move is not over, so nothing of it is dropped:\n%', org_migration.list_findings(problems)
        using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$function$;
comment on function org_migration.assert_finishable() is
'Raises object_not_in_prerequisite_state while a filler is there, a check of tenancy.verify_schema() except api_privileges fails'
' or a view of yours reads org_migration, with all of these in the message.';

create or replace function tenancy.finish()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    kept regclass;
begin
    perform pg_advisory_xact_lock(hashtext('org_migration.advance'));
    perform tenancy.note_tables();
    perform org_migration.assert_finishable();

    update tenancy.settings
    set rows_decided_at = (select max(tables_before.counted_at) from org_migration.tables_before);
    update tenancy.registry
    set parts_before = tables_before.parts
    from tenancy.registered_tables
    join org_migration.tables_before on tables_before.relation = registered_tables.relation
    where (registry.schema_name, registry.table_name) = (registered_tables.schema_name, registered_tables.table_name);

    -- What the views that stay ask of those that go.
    create or replace view tenancy.decisions as
    select application_tables.relation as root, true as is_per_row, null::text collate "C" as in_words, true as has_begun
    from tenancy.application_tables
    where application_tables.scope = 'org';
    create or replace view tenancy.push_findings as
    select foundation_findings.* from tenancy.foundation_findings
    union all
    select registry_findings.* from tenancy.registry_findings;
    create or replace view tenancy.filler_findings as
    select found.code, found.severity, found.object, found.table_name, found.problem collate "default" as problem,
        found.remedy collate "default" as remedy
    from tenancy.push_findings as found
    where false;

    -- With plan, now, status, sources and filled_rows, which read it.
    drop schema org_migration cascade;
    drop function
        tenancy.advance(text[]), tenancy.roll_back(integer), tenancy.count_sources(regclass), tenancy.assert_registry(),
        tenancy.assert_org_id_indexes(), tenancy.assert_complete(), tenancy.fill_org_id(), tenancy.finish();
    -- As a database has them that was made from tenancy.end_state(), so that no tool takes one for changed. What PostgreSQL writes of some
    -- reads as it was written only the second time.
    for kept in
        select class.oid
        from pg_catalog.pg_class as class
        cross join generate_series(1, 2)
        where class.relnamespace = 'tenancy'::regnamespace and class.relkind = 'v'
    loop
        execute format('create or replace view %s as %s', kept, pg_get_viewdef(kept, 120));
    end loop;
end
$function$;
comment on function tenancy.finish() is
'The last step of the move, in one transaction: drops org_migration and what of tenancy belongs to the move alone (plan, advance, roll_back,'
' sources, the fillers), itself included. What protects and serves the application stays: guards, isolation, binding, the new-table check,'
' tenancy.onboard, tenancy.verify(), tenancy.review, and what the edge function calls. There is no way back to user_id after it: save'
' org_migration.backfill_conflicts first, if you want to keep it. Raises object_not_in_prerequisite_state, and drops nothing, as'
' org_migration.assert_finishable says.';

create or replace view tenancy.library_statements as
with recursive library as (
    select
        class.oid, 'pg_catalog.pg_class'::regclass as catalog, class.reltype as type_oid, format('view %s', class.oid::regclass) as name,
        format(E'create or replace view %s as\n%s', class.oid::regclass, pg_get_viewdef(class.oid, 120)) as statement
    from pg_catalog.pg_class as class
    where class.relnamespace = 'tenancy'::regnamespace and class.relkind = 'v'
    union all
    select
        function.oid, 'pg_catalog.pg_proc', null, format('function %s', function.oid::regprocedure), pg_get_functiondef(function.oid) || ';'
    from pg_catalog.pg_proc as function
    where function.pronamespace = 'tenancy'::regnamespace
),
need as (
    select distinct dependent.oid as dependent, needed.oid as needed
    from pg_catalog.pg_depend as dependency
    left join pg_catalog.pg_rewrite as rule
        on dependency.classid = 'pg_catalog.pg_rewrite'::regclass
        and rule.oid = dependency.objid
    join library as dependent
        on dependent.oid = coalesce(rule.ev_class, dependency.objid)
        and dependent.catalog = case when rule.oid is null then dependency.classid else 'pg_catalog.pg_class'::regclass::oid end
    join library as needed
        on needed.oid = dependency.refobjid and needed.catalog = dependency.refclassid
        or needed.type_oid = dependency.refobjid and dependency.refclassid = 'pg_catalog.pg_type'::regclass
    where needed.oid <> dependent.oid
),
depth as (
    select library.oid, 0 as level
    from library
    union
    select need.dependent, depth.level + 1
    from depth
    join need on need.needed = depth.oid
)
select
    -- Tables first, then what reads them, then what hangs on them.
    10 + (select max(depth.level) from depth where depth.oid = library.oid) as ordinal, library.name,
    concat_ws(
        E'\n', library.statement, format('comment on %s is %L;', library.name, obj_description(library.oid, library.catalog::regclass::name))
    ) as statement
from library
union all
select
    case class.relkind when 'c' then 1 else 2 end, class.oid::regclass::text,
    concat_ws(
        E'\n',
        format(case class.relkind when 'c' then E'create type %s as (\n    %s\n);' else E'create table %s (\n    %s\n)%s;' end,
            class.oid::regclass,
            concat_ws(E',\n    ', described.columns, described.constraints),
            E'\nwith (' || array_to_string(class.reloptions, ', ') || ')'
        ),
        format(
            'comment on %s %s is %L;', case class.relkind when 'c' then 'type' else 'table' end, class.oid::regclass,
            coalesce(obj_description(class.oid, 'pg_class'), obj_description(class.reltype, 'pg_type'))
        ),
        described.comments
    )
from pg_catalog.pg_class as class
cross join lateral (
    select
        string_agg(
            concat_ws(
                ' ', quote_ident(attribute.attname), format_type(attribute.atttypid, attribute.atttypmod),
                case when attribute.attnotnull then 'not null' end,
                'default ' || pg_get_expr(its_default.adbin, its_default.adrelid),
                case attribute.attidentity when 'a' then 'generated always as identity' when 'd' then 'generated by default as identity' end
            ),
            E',\n    '
            order by attribute.attnum
        ) as columns,
        (
            select string_agg(format('constraint %I %s', its.conname, pg_get_constraintdef(its.oid)), E',\n    ' order by its.contype, its.conname)
            from pg_catalog.pg_constraint as its
            where its.conrelid = class.oid and its.contype in ('p', 'u', 'c')
        ) as constraints,
        string_agg(
            format('comment on column %s.%I is %L;', class.oid::regclass, attribute.attname, col_description(class.oid, attribute.attnum)), E'\n'
            order by attribute.attnum
        ) filter (where col_description(class.oid, attribute.attnum) is not null) as comments
    from pg_catalog.pg_attribute as attribute
    left join pg_catalog.pg_attrdef as its_default on its_default.adrelid = attribute.attrelid and its_default.adnum = attribute.attnum
    where attribute.attrelid = class.oid and attribute.attnum > 0 and not attribute.attisdropped
) as described
where class.relnamespace = 'tenancy'::regnamespace and class.relkind in ('r', 'c')
union all
select 3, its.conname, format('alter table %s add constraint %I %s;', its.conrelid::regclass, its.conname, pg_get_constraintdef(its.oid))
from pg_catalog.pg_constraint as its
where its.connamespace = 'tenancy'::regnamespace and its.contype = 'f'
union all
select 4, pg_index.indexrelid::regclass::text, pg_get_indexdef(pg_index.indexrelid) || ';'
from pg_catalog.pg_index
join pg_catalog.pg_class as indexed on indexed.oid = pg_index.indrelid and indexed.relnamespace = 'tenancy'::regnamespace
where indexed.relkind = 'r'
    and not exists (select from pg_catalog.pg_constraint as its where its.conindid = pg_index.indexrelid and its.contype in ('p', 'u'))
union all
select
    99, its.tgrelid::regclass || '.' || its.tgname,
    pg_get_triggerdef(its.oid) || ';' || case its.tgenabled
        when 'O' then ''
        else format(
            E'\nalter table %s %s trigger %I;', its.tgrelid::regclass,
            case its.tgenabled when 'A' then 'enable always' when 'R' then 'enable replica' else 'disable' end, its.tgname
        )
    end
from pg_catalog.pg_trigger as its
join pg_catalog.pg_proc as function on function.oid = its.tgfoid and function.pronamespace = 'tenancy'::regnamespace
where not its.tgisinternal
    -- Those are parts of the tables.
    and its.tgfoid <> 'tenancy.refuse_org_id_change()'::regprocedure
union all
select 100, event_trigger.evtname, 'select tenancy.enable_new_table_check();'
from pg_catalog.pg_event_trigger as event_trigger
where event_trigger.evtfoid = 'tenancy.note_new_tables()'::regprocedure;
comment on view tenancy.library_statements is
'What is left of the library: the statements that make the tables, views, functions and triggers of tenancy, in order of ordinal and name.';

create or replace view tenancy.application_statements as
with part as (
    select table_parts.*, application_tables.relkind, registry.parts_before, 'column org_id' = any (registry.parts_before) as had_column
    from tenancy.table_parts
    join tenancy.application_tables on application_tables.relation = table_parts.root
    join tenancy.registry on (registry.schema_name, registry.table_name) = (application_tables.schema_name, application_tables.table_name)
    where table_parts.present
        and format('%s %s', table_parts.part, table_parts.name) <> all (registry.parts_before)
)
-- The column of each table first, since keys lead from one to another.
select
    part.root, 1 as stage, part.ordinal, part.name::text as name,
    format(
        'alter table %s add column org_id uuid default %L, alter column org_id set default public.auth_org_id()',
        part.qualified_name, settings.default_org_id
    ) as statement
from part
cross join tenancy.settings
where part.part = 'column'
union all
select
    application_tables.relation, 1, 5, '',
    format('update %s set org_id = %L where org_id is null', application_tables.qualified_name, settings.default_org_id)
from tenancy.application_tables
join tenancy.registry on (registry.schema_name, registry.table_name) = (application_tables.schema_name, application_tables.table_name)
cross join tenancy.settings
where application_tables.scope = 'org' and 'column org_id' = any (registry.parts_before)
union all
select
    part.root, case when part.part like 'binding%' then 3 else 2 end, part.ordinal, part.name,
    case part.part
        when 'index' then (
            select pg_get_indexdef(class.oid)
            from pg_catalog.pg_class as class
            join pg_catalog.pg_class as indexed on indexed.oid = part.relation and indexed.relnamespace = class.relnamespace
            where class.relname = part.name
        )
        else part.ddl
    end
from part
where part.relkind = 'r'
    and part.part <> 'column'
    and (part.part <> 'default' or part.had_column)
union all
-- Which partitions there are is another question in each database.
select application_tables.relation, 2, 1, '', format('select tenancy.onboard(%L)', application_tables.qualified_name)
from tenancy.application_tables
where application_tables.scope = 'org' and application_tables.relkind <> 'r'
union all
select distinct on (pg_index.indexrelid)
    pg_index.indrelid::regclass, 2, 19, index_class.relname,
    regexp_replace(pg_get_indexdef(pg_index.indexrelid), 'INDEX', 'INDEX IF NOT EXISTS')
from tenancy.bound_keys
join tenancy.bound_definitions as bound
    on bound.relation = bound_keys.relation
    and bound.constraint_name = bound_keys.constraint_name
    and bound.is_bound
join pg_catalog.pg_index
    on pg_index.indrelid in (bound.relation, bound.parent)
    and pg_index.indnkeyatts > 1
join pg_catalog.pg_attribute as org_id
    on org_id.attrelid = pg_index.indrelid
    and org_id.attnum = pg_index.indkey[0]
    and org_id.attname = 'org_id'
join pg_catalog.pg_class as index_class on index_class.oid = pg_index.indexrelid
where tenancy.has_index(pg_index.indrelid, array['org_id'] || case pg_index.indrelid when bound.parent then bound.parent_column_names else bound.column_names end, false);
comment on view tenancy.application_statements is
'What the tables of the application have of the move, as statements for a database that has the application''s own migrations, in order of'
' stage, table, ordinal and name: not what they had before it; of a partitioned table the call that gives it to whichever partitions there are.';

create or replace function tenancy.rows_to_restore(left_out regclass[])
returns text language sql stable security invoker set search_path = '' as $function$
    select concat_ws(
        E'\n',
        format('insert into tenancy.settings select * from jsonb_populate_record(null::tenancy.settings, %L);', to_jsonb(settings)),
        (
            select format(
                E'insert into tenancy.registry (schema_name, table_name, scope, priority, reason, org_from, isolated, privileges_before, parts_before)\nvalues\n%s;',
                string_agg(
                    format(
                        '    (%L, %L, %L, %L, %L, %L, %L, %L, %L)',
                        (parse_ident(coalesce(tables.former_names[1], format('%I.%I', tables.schema_name, tables.table_name))))[1],
                        (parse_ident(coalesce(tables.former_names[1], format('%I.%I', tables.schema_name, tables.table_name))))[2],
                        tables.scope, tables.priority, tables.reason, tables.org_from, tables.isolated,
                        case when tables.privileges_before is not null then '{}' end, tables.parts_before
                    ),
                    E',\n'
                    order by tables.scope desc, tables.schema_name, tables.table_name
                )
            )
            from tenancy.registry as tables
            where tables.table_oid is null
                or tables.table_oid <> all (left_out::oid[])
        ),
        'select tenancy.note_tables();',
        (
            select format(
                E'insert into tenancy.bound_references (relation, constraint_name, parent, attnums, column_names, lists_set_columns)\n'
                'select bound.relation, bound.constraint_name, bound.parent, array(\n'
                '    select attribute.attnum\n'
                '    from unnest(bound.column_names) with ordinality as named (name, position)\n'
                '    join pg_catalog.pg_attribute as attribute on attribute.attrelid = bound.relation and attribute.attname = named.name\n'
                '    order by named.position\n'
                '), bound.column_names, bound.lists_set_columns\n'
                'from (\n    values\n%s\n) as bound (relation, constraint_name, parent, column_names, lists_set_columns);',
                string_agg(
                    format(
                        '        (%L::regclass, %L, %L::regclass, %L::text[], %L::boolean)', bound.relation, bound.constraint_name, bound.parent,
                        bound.column_names, bound.lists_set_columns
                    ),
                    E',\n'
                    order by bound.relation::text, bound.constraint_name
                )
            )
            from tenancy.bound_references as bound
            where bound.relation <> all (left_out)
            having count(*) > 0
        ),
        case when to_regprocedure('public.switch_organization(uuid)') is not null then 'select tenancy.enable_memberships();' end,
        case when settings.token_hook then 'select tenancy.enable_token_hook();' end
    )
    from tenancy.settings
$function$;
comment on function tenancy.rows_to_restore(regclass[]) is
'The rows of settings, registry and bound_references as statements, without those of left_out, tables under the names that they had first, and'
' the opt-ins that are for the whole database.';

create or replace function tenancy.end_state(of_later_migrations regclass[] default '{}')
returns text language plpgsql stable security invoker set search_path = '' as $function$
declare
    statements text;
    renamed record;
begin
    if to_regnamespace('org_migration') is not null then
        raise exception 'the move is not over: select tenancy.finish() first, in a migration of its own, see docs/last-step.md'
        using errcode = 'object_not_in_prerequisite_state';
    end if;

    select concat_ws(
        E'\n', tenancy.rows_to_restore(of_later_migrations),
        string_agg(found.statement || ';', E'\n' order by found.stage, found.root::text, found.ordinal, found.name)
    )
    into statements
    from tenancy.application_statements as found
    where found.root <> all (of_later_migrations);

    -- At this place in the order of migrations they are called as they were.
    for renamed in
        select
            registry.former_names[1] as then_called,
            regexp_replace(format('%I.%I', registry.schema_name, registry.table_name), '([^\w])', '\\\1', 'g') as now_called
        from tenancy.registry
        where registry.former_names <> '{}'
    loop
        statements := regexp_replace(statements, '(?<![\w."])' || renamed.now_called || '(?![\w"])', renamed.then_called, 'g');
    end loop;

    return concat_ws(
        E'\n',
        '-- What tenancy.end_state() wrote: the organizations of this application, in place of the migrations that moved it to them.',
        E'set search_path = \'\';\nset check_function_bodies = off;\n',
        format(
            E'create schema tenancy;\nrevoke all on schema tenancy from public, anon, authenticated, service_role;\ncomment on schema tenancy is %L;\n',
            obj_description('tenancy'::regnamespace, 'pg_namespace')
        ),
        (select string_agg(library.statement, E'\n\n' order by library.ordinal, library.name) from tenancy.library_statements as library),
        'revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;',
        'revoke all on all sequences in schema tenancy from public, anon, authenticated, service_role;',
        E'revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;\n',
        statements
    );
end
$function$;
comment on function tenancy.end_state(regclass[]) is
'The end of the move as one plain migration, for the repository: in place of all its files except the one ending in'
' _create_organizations.sql, under the number of the last of them. From empty it gives the same tables, views, functions and triggers. Not in'
' it: rows of user_orgs, of the log and of the users'' runs. of_later_migrations: tables that migrations which stay create and register'
' themselves. Raises object_not_in_prerequisite_state before tenancy.finish().';

-- Whatever the default privileges are: a default privilege of a schema does not take EXECUTE from PUBLIC.
revoke all on all tables in schema tenancy, org_migration from public, anon, authenticated, service_role;
revoke all on all sequences in schema tenancy, org_migration from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy, org_migration from public, anon, authenticated, service_role;
