-- Purpose: every part of every table as rows; what of it is still to be done (plan), what was done (log), and how far each
--          table is (status).
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.push_parts as
select column_parts.* from tenancy.column_parts
union all
select index_parts.* from tenancy.index_parts
union all
select constraint_parts.* from tenancy.constraint_parts
union all
select guard_parts.* from tenancy.guard_parts;
comment on view tenancy.push_parts is 'What the push gives every org-scoped table. Columns as tenancy.parts.';

create or replace view tenancy.table_parts as
select push_parts.* from tenancy.push_parts
union all
select isolation_parts.* from tenancy.isolation_parts
union all
select binding_parts.* from tenancy.binding_parts
union all
select least_privilege_parts.* from tenancy.least_privilege_parts;
comment on view tenancy.table_parts is
'What every org-scoped table is to have, the one place where that is said: made, found, verified, undone and listed from here.'
' Columns as tenancy.parts.';

create or replace function tenancy.parts(target regclass)
returns table (
    phase integer,
    ordinal integer,
    part text,
    relation regclass,
    name name,
    present boolean,
    ddl text,
    undo text,
    lock text
)
language plpgsql stable security invoker set search_path = '' set plan_cache_mode = force_generic_plan as $function$
#variable_conflict use_column
begin
    -- One plan per session, as in org_migration.missing_statements.
    return query
    select
        table_parts.phase, table_parts.ordinal, table_parts.part, table_parts.relation, table_parts.name,
        table_parts.present, table_parts.ddl, table_parts.undo, table_parts.lock
    from tenancy.table_parts
    where table_parts.root = target
    order by table_parts.ordinal, table_parts.qualified_name;
end
$function$;
comment on function tenancy.parts(regclass) is
'What an org-scoped table is to have because of org_id, one row per object of it and of its partitions, in the order in which they are'
' made. present: it is there, by its definition in the catalog, under whatever name. ddl: the statement that makes it. undo: the one that'
' takes it back, NULL where nothing is to be taken back. lock: what ddl takes on the table. No row for any other table.';

create or replace view tenancy.plan as
with size as materialized (
    select
        org_id_columns.*, root.schema_name, root.table_name,
        case when org_id_columns.is_leaf then pg_relation_size(org_id_columns.relation) else 0 end as bytes,
        nullif(class.reltuples, -1)::bigint as estimated_rows
    from tenancy.org_id_columns
    join tenancy.application_tables as root on root.relation = org_id_columns.root
    join pg_catalog.pg_class as class on class.oid = org_id_columns.relation
),
missing as materialized (
    select table_parts.*
    from tenancy.table_parts
    where not table_parts.present
),
steps as materialized (
    select
        2 as phase, 1 as ordinal, 'count' as part, root.relation,
        format('select count(*) from %s', root.qualified_name) as statement,
        'ACCESS SHARE' as lock,
        sum(size.bytes)::bigint as bytes,
        sum(size.estimated_rows)::bigint as estimated_rows
    from size as root
    join size on size.root = root.relation
    where root.is_root
        and root.relation not in (select tables_before.relation from org_migration.tables_before)
    group by root.relation, root.qualified_name
    union all
    select
        3, 5, 'backfill', size.relation,
        format('update %s: org_id of %s', size.qualified_name, decisions.in_words),
        'ROW EXCLUSIVE, and the rows of one batch', size.bytes, size.estimated_rows
    from size
    join tenancy.decisions on decisions.root = size.root
    left join org_migration.backfills on backfills.relation = size.relation
    cross join tenancy.settings
    where size.is_leaf
        and coalesce(backfills.state not in ('catalog', 'finished'), true)
        and case
            when size.attnum is null then decisions.is_per_row
            else not size.is_not_null and size.missing_value is distinct from format('{%s}', settings.default_org_id)
        end
    union all
    select
        missing.phase, missing.ordinal, missing.part, missing.relation, missing.ddl, missing.lock,
        case when missing.part in ('index', 'foreign_key_valid', 'check_valid') then size.bytes else 0 end,
        size.estimated_rows
    from missing
    join size on size.relation = missing.relation
)
select
    row_number() over (
        order by
            steps.ordinal,
            case when steps.part = 'backfill' then tables.position end,
            size.schema_name,
            size.table_name,
            size.qualified_name
    ) as number,
    steps.phase, steps.part, steps.relation, steps.statement, steps.lock, steps.bytes, steps.estimated_rows,
    round(
        case
            when steps.part = 'backfill' then steps.estimated_rows::numeric / settings.backfill_rows_per_second
            else steps.bytes / (settings.scan_mb_per_second * 1e6)
        end,
        1
    ) as seconds
from steps
join size on size.relation = steps.relation
join tenancy.org_scoped_tables as tables on tables.relation = size.root
cross join tenancy.settings
order by 1;
comment on view tenancy.plan is
'Every statement that is still to run, literally and in order (by tables'' names, the backfill parents first), with its lock. An index line is yours to have in the file ending in'
' _EDIT_index_org_id.sql; a backfill is its decision in words, and runs in batches. bytes: what it reads, or rewrites. seconds: by'
' settings.scan_mb_per_second and backfill_rows_per_second. estimated_rows: of the statistics, NULL where the table was never analyzed.';

create table if not exists tenancy.log (
    id bigint generated always as identity primary key,
    part text not null,
    table_name text not null,
    statement text not null,
    began timestamptz default clock_timestamp(),
    seconds numeric,
    seconds_waited numeric not null default 0,
    waited_for text,
    rows bigint
);
comment on table tenancy.log is
'Every statement that ran on a table: of tenancy.plan, of tenancy.roll_back and of the opt-ins; as part objection, what spoke against isolating'
' a table that was isolated in spite of it. It is kept until you drop it.';
comment on column tenancy.log.began is 'NULL for an index line, which runs outside of any function; likewise seconds. An index that a function built is logged as it was built.';
comment on column tenancy.log.seconds is 'How long it took, its last wait for a lock included; a backfill from its first batch to its last.';
comment on column tenancy.log.seconds_waited is 'How long its lock was asked for in vain before.';
comment on column tenancy.log.waited_for is 'Who held that lock, when it was asked for last.';
comment on column tenancy.log.rows is 'Rows that it counted or updated; NULL for DDL.';

create or replace view tenancy.status as
select
    org_scoped_tables.relation, org_scoped_tables.priority,
    coalesce(own.type_name, 'missing') as org_id,
    coalesce(backfill.state, 'not started') as backfill,
    backfill.rows_updated, own.indexed, own.references_organizations, own.checked, own.not_null,
    own.immutable, isolation.row_security, isolation.isolated, own.missing_parts,
    (
        select string_agg(lock_waits.blocked_by, E'\n')
        from org_migration.lock_waits
        join pg_catalog.pg_stat_activity as waiting_session on waiting_session.pid = lock_waits.session_pid
        where lock_waits.relation = org_scoped_tables.relation
    ) as blocked_by
from tenancy.org_scoped_tables
join lateral (
    select
        max(format_type(org_id.atttypid, org_id.atttypmod)) as type_name,
        bool_and(table_parts.present) filter (where table_parts.part in ('index', 'index_root')) as indexed,
        bool_and(table_parts.present) filter (where table_parts.part like 'foreign_key%') as references_organizations,
        bool_and(table_parts.present) filter (where table_parts.part like 'check%') as checked,
        bool_and(table_parts.present) filter (where table_parts.part = 'not_null') as not_null,
        bool_and(table_parts.present) filter (where table_parts.part like 'guard%') as immutable,
        string_agg(distinct table_parts.part, ', ') filter (where not table_parts.present) as missing_parts
    from tenancy.table_parts
    left join pg_catalog.pg_attribute as org_id
        on org_id.attrelid = table_parts.root
        and org_id.attname = 'org_id'
        and not org_id.attisdropped
    where table_parts.root = org_scoped_tables.relation
) as own on true
cross join lateral (
    select
        string_agg(
            distinct backfill_progress.state
                || case
                    when backfill_progress.state = 'running' then format(
                        ', %s of %s blocks, %s left', backfill_progress.blocks_done,
                        backfill_progress.blocks_total, backfill_progress.time_left
                    )
                    else ''
                end,
            '; '
        ) as state,
        sum(backfill_progress.rows_updated)::bigint as rows_updated
    from tenancy.org_id_columns as member
    join org_migration.backfill_progress on backfill_progress.relation = member.relation
    where member.root = org_scoped_tables.relation
) as backfill
cross join lateral (
    select bool_and(policies.row_security) as row_security, bool_and(coalesce(policies.isolated, false)) as isolated
    from tenancy.isolation_policies as policies
    where policies.root = org_scoped_tables.relation
) as isolation;
comment on view tenancy.status is
'Every org-scoped table, one row: how far it is, which parts are missing, whether row-level security is on and'
' tenancy.enable_org_isolation done (for all of its partitions, where it has any), and whom it waits for.';
