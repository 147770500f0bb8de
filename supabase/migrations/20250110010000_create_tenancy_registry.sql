-- Purpose: the schema tenancy: settings, the registry of tables, who belongs to which organization, and the lock rules.
-- Touches: new objects in the new schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    drop schema tenancy cascade; after tenancy.roll_back, never before it.

set lock_timeout = '1s';
set statement_timeout = '1min';

create schema if not exists tenancy;
revoke all on schema tenancy from public, anon, authenticated, service_role;
alter default privileges in schema tenancy revoke all on tables from public, anon, authenticated, service_role;
alter default privileges in schema tenancy revoke all on functions from public, anon, authenticated, service_role;

comment on schema tenancy is
'The move from user_id to org_id: what it knows of the tables, what it did, and the functions that do, verify and undo it.'
' For the owner of the database only.';

-- Settings, registry, mapping -----------------------------------------------------------------------------------------

create table if not exists tenancy.settings (
    only_row boolean primary key default true check (only_row),
    default_org_id uuid not null default 'a0000000-0000-0000-0000-000000000001',
    lock_timeout_ms integer not null default 100 check (lock_timeout_ms between 1 and 10000),
    lock_attempts integer not null default 60 check (lock_attempts > 0),
    batch_target_ms integer not null default 100 check (batch_target_ms between 1 and 10000),
    wal_mb_per_second numeric check (wal_mb_per_second > 0),
    paused boolean not null default false,
    fill_org_id boolean not null default false,
    assign_org_to_new_users boolean not null default false,
    platform_schemas text[] not null default array[
        'auth',
        'cron',
        'extensions',
        'graphql',
        'graphql_public',
        'net',
        'pgbouncer',
        'pgmq',
        'pgsodium',
        'realtime',
        'storage',
        'supabase_functions',
        'supabase_migrations',
        'tenancy',
        'vault'
    ]
);
comment on table tenancy.settings is 'One row. A change counts from the next step or batch on, also while a push is running.';
comment on column tenancy.settings.default_org_id is 'The organization of everyone and everything that tenancy.user_orgs does not place.';
comment on column tenancy.settings.lock_timeout_ms is 'How long a change waits for its lock, and so the longest pause that it can cause.';
comment on column tenancy.settings.lock_attempts is 'How often a lock is asked for, with growing pauses up to 10 s, before the push gives up: 60 is about 6 minutes.';
comment on column tenancy.settings.batch_target_ms is 'How long one batch of the backfill should take.';
comment on column tenancy.settings.wal_mb_per_second is 'How much WAL the server may write while the backfill runs, for small disks. NULL: as much as it comes to.';
comment on column tenancy.settings.paused is 'While it is on, no step begins.';
comment on column tenancy.settings.fill_org_id is
'Whether rows that come without org_id get it from their owner or parent, by a trigger: for the time until the application sends it.'
' After a change run tenancy.next_step(''{fill_missing_org_id}'') until it is done.';
comment on column tenancy.settings.assign_org_to_new_users is 'Whether who signs up gets an organization, see tenancy.assign_org_to_new_users().';
comment on column tenancy.settings.platform_schemas is 'Schemas whose tables are not the application''s.';

insert into tenancy.settings default values
on conflict do nothing;

create table if not exists tenancy.registry (
    schema_name text not null default 'public',
    table_name text not null,
    scope text not null check (scope in ('org', 'excluded')),
    priority text check (priority in ('critical', 'secondary')),
    reason text,
    owner_column text,
    parent_column text,
    primary key (schema_name, table_name),
    constraint an_org_scoped_table_has_a_priority check ((scope = 'org') = (priority is not null)),
    constraint an_excluded_table_has_a_reason check ((scope = 'excluded') = (reason is not null)),
    constraint only_an_org_scoped_table_has_an_owner check (
        scope = 'org'
        or (owner_column is null and parent_column is null)
    )
);
comment on table tenancy.registry is 'Every table that has to do with users, once: scope org gets org_id, scope excluded stays as it is.';
comment on column tenancy.registry.owner_column is 'The column that holds the owning user''s id, uuid or text. NULL: user_id where the table has it.';
comment on column tenancy.registry.parent_column is 'The foreign key column whose org-scoped parent decides where the owner does not. NULL: every such key, in the order of its columns.';

create table if not exists tenancy.user_orgs (
    user_id uuid primary key,
    org_id uuid not null references public.organizations (id) on delete cascade
);
create index if not exists user_orgs_org_id_idx on tenancy.user_orgs (org_id);
comment on table tenancy.user_orgs is
'Which organization a user belongs to, for rows and for JWTs alike. Empty: everything belongs to the default organization.'
' No foreign key to auth.users, so that the rows of a user who is gone can still be placed.';

create or replace function tenancy.org_of(user_id uuid)
returns uuid
language sql
stable
security invoker
set search_path = ''
as $function$
    select coalesce(
        (select user_orgs.org_id from tenancy.user_orgs where user_orgs.user_id = org_of.user_id),
        (select settings.default_org_id from tenancy.settings)
    )
$function$;
comment on function tenancy.org_of(uuid) is 'The organization of a user: from tenancy.user_orgs, else the default organization. Never NULL.';

create or replace function tenancy.create_personal_organizations()
returns bigint
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    created bigint;
begin
    if to_regclass('tenancy.tables_before') is not null then
        if exists (select from tenancy.tables_before) and not exists (select from tenancy.user_orgs) then
            raise exception 'the rows belong to the default organization already: personal organizations must be created before phase 2'
            using
                errcode = 'object_not_in_prerequisite_state',
                detail = 'Roll back to phase 1 first, see tenancy.roll_back.';
        end if;
    end if;

    with personal as materialized (
        select
            users.id as user_id,
            gen_random_uuid() as org_id,
            coalesce(users.email, users.phone, users.id::text) as name
        from auth.users
        where users.id not in (select user_orgs.user_id from tenancy.user_orgs)
    ),
    organization as (
        insert into public.organizations (id, name)
        select
            personal.org_id,
            personal.name
        from personal
    )
    insert into tenancy.user_orgs (user_id, org_id)
    select
        personal.user_id,
        personal.org_id
    from personal;

    get diagnostics created = row_count;
    return created;
end
$function$;
comment on function tenancy.create_personal_organizations() is
'Gives every user who is in no organization one of its own, named by email, phone or id. Returns how many. To be called before'
' phase 2, and again whenever there are new users. Fails where public.organizations requires more than id and name.';

-- What the database holds ---------------------------------------------------------------------------------------------

create or replace view tenancy.application_tables as
select
    relation.oid::regclass as relation,
    namespace.nspname::text collate "default" as schema_name,
    relation.relname::text collate "default" as table_name,
    relation.relkind,
    relation.relowner,
    registry.scope,
    registry.priority,
    registry.parent_column,
    owner.attname::text collate "default" as owner_column,
    owner.atttypid::regtype as owner_type
from pg_catalog.pg_class as relation
join pg_catalog.pg_namespace as namespace
    on namespace.oid = relation.relnamespace
cross join tenancy.settings
left join tenancy.registry
    on registry.schema_name = namespace.nspname
    and registry.table_name = relation.relname
left join pg_catalog.pg_attribute as owner
    on owner.attrelid = relation.oid
    and owner.attname = coalesce(registry.owner_column, 'user_id')
    and owner.attnum > 0
    and not owner.attisdropped
where relation.relkind in ('r', 'p', 'f')
    and not relation.relispartition
    and relation.relpersistence <> 't'
    and namespace.nspname <> all (settings.platform_schemas)
    and namespace.nspname not like 'pg\_%'
    and namespace.nspname <> 'information_schema'
    and relation.oid <> to_regclass('public.organizations')
    and not exists (
        select
        from pg_catalog.pg_depend as dependency
        where dependency.classid = 'pg_catalog.pg_class'::regclass
            and dependency.objid = relation.oid
            and dependency.deptype = 'e'
    );
comment on view tenancy.application_tables is 'Every table of the application with its classification, if it has one. Partitions stand behind their root.';

create or replace view tenancy.references_between_tables as
select
    reference.conrelid::regclass as relation,
    reference.confrelid::regclass as parent,
    reference.conname as constraint_name,
    reference.conkey as columns,
    reference.confkey as parent_columns
from pg_catalog.pg_constraint as reference
where reference.contype = 'f'
    and reference.conparentid = 0;
comment on view tenancy.references_between_tables is 'Every foreign key, once.';

create or replace view tenancy.unclassified_tables as
with recursive unclassified (relation, reason) as (
    select
        candidate.relation,
        case
            when candidate.owner_column is not null then 'has the column user_id'
            else 'references auth.users'
        end
    from tenancy.application_tables as candidate
    where candidate.scope is null
        and (
            candidate.owner_column is not null
            or exists (
                select
                from tenancy.references_between_tables as reference
                where reference.relation = candidate.relation
                    and reference.parent = to_regclass('auth.users')
            )
        )

    union

    select
        candidate.relation,
        format('references %s', parent.relation)
    from tenancy.references_between_tables as reference
    join tenancy.application_tables as candidate
        on candidate.relation = reference.relation
        and candidate.scope is null
    join (
        select org_scoped.relation
        from tenancy.application_tables as org_scoped
        where org_scoped.scope = 'org'

        union all

        select unclassified.relation
        from unclassified
    ) as parent
        on parent.relation = reference.parent
        and parent.relation <> candidate.relation
)
select
    application_tables.relation,
    application_tables.schema_name,
    application_tables.table_name,
    string_agg(distinct unclassified.reason, ', ') as reason,
    format(
        '(%L, %L, ''org'', ''secondary'', null)',
        application_tables.schema_name,
        application_tables.table_name
    ) as registry_row
from unclassified
join tenancy.application_tables
    using (relation)
group by
    application_tables.relation,
    application_tables.schema_name,
    application_tables.table_name;
comment on view tenancy.unclassified_tables is
'Tables that hold users'' rows, directly or by what they reference, and are in the registry neither as org nor as excluded.'
' The push stops while there is one.';

create or replace view tenancy.org_scoped_tables as
with recursive org_scoped as materialized (
    select application_tables.*
    from tenancy.application_tables
    where application_tables.scope = 'org'
),
reference as materialized (
    select distinct
        references_between_tables.relation,
        references_between_tables.parent
    from tenancy.references_between_tables
    join org_scoped as child
        on child.relation = references_between_tables.relation
    join org_scoped as parent
        on parent.relation = references_between_tables.parent
        and parent.relation <> child.relation
),
level (relation, depth) as (
    select
        org_scoped.relation,
        0
    from org_scoped

    union

    select
        reference.relation,
        level.depth + 1
    from level
    join reference
        on reference.parent = level.relation
    where level.depth < (select count(*) from org_scoped)
)
select
    org_scoped.relation,
    org_scoped.schema_name,
    org_scoped.table_name,
    org_scoped.priority,
    org_scoped.owner_column,
    org_scoped.owner_type,
    org_scoped.parent_column,
    row_number() over (order by deepest.depth, org_scoped.priority, org_scoped.relation::text) as position
from org_scoped
join (
    select
        level.relation,
        max(level.depth) as depth
    from level
    group by level.relation
) as deepest
    using (relation);
comment on view tenancy.org_scoped_tables is
'The registered org-scoped tables that exist, parents before the tables that reference them.';

create or replace function tenancy.org_id_sources(target regclass)
returns table (
    ordinal bigint,
    column_name text,
    parent regclass,
    join_clause text
)
language sql
stable
security invoker
set search_path = ''
as $function$
    select
        0,
        owned.owner_column,
        null::regclass,
        format(
            case owned.owner_type
                when 'uuid'::regtype
                    then 'left join tenancy.user_orgs as source_0 on source_0.user_id = todo.%1$I'
                else
                    'left join tenancy.user_orgs as source_0 on source_0.user_id = case'
                    ' when todo.%1$I ~* ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'' then todo.%1$I::uuid end'
            end,
            owned.owner_column
        )
    from tenancy.org_scoped_tables as owned
    where owned.relation = target
        and owned.owner_column is not null

    union all

    select
        reference.position,
        key.column_names,
        reference.parent,
        format('left join %s as source_%s on %s', reference.parent, reference.position, key.condition)
    from (
        select
            row_number() over (order by numbered.columns, numbered.constraint_name) as position,
            numbered.*
        from tenancy.references_between_tables as numbered
        where numbered.relation = target
            and numbered.parent in (select org_scoped_tables.relation from tenancy.org_scoped_tables)
    ) as reference
    cross join lateral (
        select
            string_agg(referencing.attname, ', ' order by pair.position) as column_names,
            string_agg(
                format('source_%s.%I = todo.%I', reference.position, referenced.attname, referencing.attname),
                ' and '
                order by pair.position
            ) as condition
        from unnest(reference.columns, reference.parent_columns)
            with ordinality as pair (referencing_column, referenced_column, position)
        join pg_catalog.pg_attribute as referencing
            on referencing.attrelid = reference.relation
            and referencing.attnum = pair.referencing_column
        join pg_catalog.pg_attribute as referenced
            on referenced.attrelid = reference.parent
            and referenced.attnum = pair.referenced_column
    ) as key
    join tenancy.org_scoped_tables as child
        on child.relation = target
        and coalesce(child.parent_column, key.column_names) = key.column_names
    order by 1
$function$;
comment on function tenancy.org_id_sources(regclass) is
'Where a row''s organization can come from, in the order that decides: ordinal 0 its owner, then each org-scoped parent.';

create or replace view tenancy.backfill_plan as
select
    org_scoped_tables.position,
    org_scoped_tables.relation,
    concat_ws(
        ', else ',
        (
            select string_agg(
                case
                    when source.parent is null then 'the owner in ' || source.column_name
                    else format('%s through %s', source.parent, source.column_name)
                end,
                ', else '
                order by source.ordinal
            )
            from tenancy.org_id_sources(org_scoped_tables.relation) as source
            where exists (select from tenancy.user_orgs)
        ),
        'the default organization'
    ) as source,
    case
        when org_id.attnum is not null then 'batches, of the rows where org_id is NULL'
        when exists (select from tenancy.user_orgs) then 'batches'
        else 'catalog: no row is touched'
    end as method,
    greatest(statistics.reltuples, 0)::bigint as estimated_rows,
    pg_relation_size(org_scoped_tables.relation) as table_bytes,
    pg_indexes_size(org_scoped_tables.relation) as index_bytes
from tenancy.org_scoped_tables
join pg_catalog.pg_class as statistics
    on statistics.oid = org_scoped_tables.relation
left join pg_catalog.pg_attribute as org_id
    on org_id.attrelid = org_scoped_tables.relation
    and org_id.attname = 'org_id'
    and not org_id.attisdropped
order by org_scoped_tables.position;
comment on view tenancy.backfill_plan is
'What phases 2 and 3 will do to each table, in this order: where its rows get their organization from, how, and how many there are.'
' Rows are the statistics'' estimate, sizes are bytes.';

create or replace view tenancy.registry_problems as
select
    unclassified_tables.schema_name,
    unclassified_tables.table_name,
    format('is not classified: it %s', unclassified_tables.reason) as problem,
    format(
        'add %s to the migration ending in _discover_org_scoped_tables.sql, and its line to the one ending in _index_org_id.sql;'
        ' or, if it is not to have org_id, add (%L, %L, ''excluded'', null, ''<why not>'') to the former',
        unclassified_tables.registry_row,
        unclassified_tables.schema_name,
        unclassified_tables.table_name
    ) as remedy
from tenancy.unclassified_tables

union all

select
    registry.schema_name,
    registry.table_name,
    'is registered and does not exist',
    'create it in an earlier migration, or take its row out of the one ending in _discover_org_scoped_tables.sql'
from tenancy.registry
where to_regclass(format('%I.%I', registry.schema_name, registry.table_name)) is null

union all

select
    candidate.schema_name,
    candidate.table_name,
    obstacle.problem collate "default",
    obstacle.remedy collate "default"
from tenancy.application_tables as candidate
join tenancy.registry
    using (schema_name, table_name)
left join pg_catalog.pg_attribute as org_id
    on org_id.attrelid = candidate.relation
    and org_id.attname = 'org_id'
    and not org_id.attisdropped
cross join lateral (
    values
        (
            candidate.relkind <> 'r',
            case candidate.relkind
                when 'f' then 'is a foreign table, which takes neither foreign key nor trigger of ours'
                else 'is partitioned'
            end,
            'register it as excluded and give it org_id by hand'
        ),
        (
            exists (select from pg_catalog.pg_inherits where pg_inherits.inhparent = candidate.relation),
            'has tables that inherit from it',
            'register it as excluded and give it org_id by hand'
        ),
        (
            not pg_has_role(current_user, candidate.relowner, 'usage'),
            format('belongs to %s, and only its owner can alter it', pg_get_userbyid(candidate.relowner)),
            format('alter table %s owner to %I, as its owner', candidate.relation, current_user)
        ),
        (
            candidate.owner_column is null and registry.owner_column is not null,
            format('has no column %s, its registered owner_column', registry.owner_column),
            'mend its row in tenancy.registry'
        ),
        (
            candidate.owner_type not in ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype),
            format('keeps its owner in %s %s, which is neither uuid nor text', candidate.owner_column, candidate.owner_type),
            'name another owner_column in tenancy.registry'
        ),
        (
            registry.parent_column is not null
            and not exists (
                select
                from tenancy.references_between_tables as reference
                join tenancy.org_scoped_tables as parent
                    on parent.relation = reference.parent
                join pg_catalog.pg_attribute as referencing
                    on referencing.attrelid = reference.relation
                    and referencing.attname = registry.parent_column
                where reference.relation = candidate.relation
                    and reference.columns = array[referencing.attnum]
            ),
            format('has no foreign key from %s, its registered parent_column, to an org-scoped table', registry.parent_column),
            'mend its row in tenancy.registry'
        ),
        (
            org_id.atttypid <> 'uuid'::regtype or org_id.attgenerated <> '',
            format(
                'has an org_id already that is %s%s and not a plain uuid',
                format_type(org_id.atttypid, org_id.atttypmod),
                case when org_id.attgenerated <> '' then ', generated,' end
            ),
            'rename that column, or make it uuid'
        )
) as obstacle (stands, problem, remedy)
where candidate.scope = 'org'
    and obstacle.stands;
comment on view tenancy.registry_problems is
'What stops the push before it touches a table: tables that nobody classified, that do not exist, or that cannot be handled.';

create or replace function tenancy.auth_org_id_problem()
returns text
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    definition constant text := pg_get_functiondef(to_regprocedure('public.auth_org_id()'));
    claims_before constant text := coalesce(current_setting('request.jwt.claims', true), '');
    probe constant uuid := gen_random_uuid();
    answer uuid;
begin
    if definition is null then
        return 'does not exist';
    end if;
    if regexp_replace(definition, '--[^\n]*', '', 'g') ~* 'user_meta_?data' then
        return 'reads user_metadata, which every user can write: one update of it and the user is in another organization';
    end if;

    perform set_config(
        'request.jwt.claims',
        jsonb_build_object(
            'app_metadata', jsonb_build_object('org_id', probe),
            'user_metadata', jsonb_build_object('org_id', gen_random_uuid())
        )::text,
        true
    );
    answer := public.auth_org_id();
    perform set_config('request.jwt.claims', claims_before, true);

    if answer is distinct from probe then
        return format('does not return app_metadata.org_id of the JWT, but %s', coalesce(answer::text, 'NULL'));
    end if;
    return null;
end
$function$;
comment on function tenancy.auth_org_id_problem() is 'What is wrong with public.auth_org_id(); NULL when it can be trusted.';

create or replace function tenancy.assert_registry()
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    default_org_id constant uuid := (select settings.default_org_id from tenancy.settings);
    problems text;
    first_table record;
begin
    if not exists (select from public.organizations where organizations.id = default_org_id) then
        raise exception 'the default organization % does not exist', default_org_id
        using
            errcode = 'foreign_key_violation',
            schema = 'tenancy',
            table = 'settings',
            column = 'default_org_id',
            detail = 'Insert it into public.organizations, or set tenancy.settings.default_org_id to one that exists.';
    end if;

    if tenancy.auth_org_id_problem() is not null then
        raise exception 'public.auth_org_id() %', tenancy.auth_org_id_problem()
        using
            errcode = 'invalid_function_definition',
            detail = 'It decides which rows a user sees. Replace it by one that reads app_metadata alone, then push again.';
    end if;

    select string_agg(
        format('%I.%I %s; %s', found.schema_name, found.table_name, found.problem, found.remedy),
        E'\n'
        order by found.schema_name, found.table_name, found.problem
    )
    into problems
    from tenancy.registry_problems as found;

    if problems is not null then
        select
            found.schema_name,
            found.table_name
        into first_table
        from tenancy.registry_problems as found
        order by found.schema_name, found.table_name
        limit 1;

        raise exception 'the registry does not fit the database: % of its tables stop the push', (
            select count(distinct (found.schema_name, found.table_name))
            from tenancy.registry_problems as found
        )
        using
            errcode = 'object_not_in_prerequisite_state',
            schema = first_table.schema_name,
            table = first_table.table_name,
            detail = problems;
    end if;
end
$function$;
comment on function tenancy.assert_registry() is
'Raises object_not_in_prerequisite_state with every row of tenancy.registry_problems in the DETAIL, foreign_key_violation when'
' the default organization does not exist, and invalid_function_definition when public.auth_org_id() cannot be trusted.';

-- Lock rules ----------------------------------------------------------------------------------------------------------

create table if not exists tenancy.lock_waits (
    step text not null,
    relation regclass not null,
    session_pid integer not null,
    attempts integer not null,
    blocked_since timestamptz not null,
    next_attempt_at timestamptz not null,
    blocked_by text not null,
    primary key (step, relation)
);
comment on table tenancy.lock_waits is 'What a running push waits for at this moment: the table, and the sessions that hold it.';

create or replace function tenancy.lock_holders(target regclass)
returns text
language sql
stable
security invoker
set search_path = ''
as $function$
    select coalesce(string_agg(holder.description, E'\n' order by holder.xact_start), 'nobody any more')
    from (
        select
            coalesce(
                format(
                    'pid %s, %s for %s s: %s',
                    session.pid,
                    case session.backend_type
                        when 'client backend' then session.state
                        else session.backend_type
                    end,
                    round(extract(epoch from clock_timestamp() - session.xact_start), 1),
                    left(regexp_replace(session.query, '\s+', ' ', 'g'), 100)
                ),
                'a prepared transaction (pg_prepared_xacts)'
            ) as description,
            min(session.xact_start) as xact_start
        from pg_catalog.pg_locks as held
        left join pg_catalog.pg_stat_activity as session
            on session.pid = held.pid
        where held.locktype = 'relation'
            and held.database = (select oid from pg_catalog.pg_database where datname = current_database())
            and held.relation in (target, 'public.organizations'::regclass)
            and held.granted
            and held.pid is distinct from pg_backend_pid()
        group by description
        order by xact_start
        limit 5
    ) as holder
$function$;
comment on function tenancy.lock_holders(regclass) is
'Who holds a lock on the table or on public.organizations now: pid, state, age of the transaction, query; oldest first, five at most.';

create or replace function tenancy.change_table(target regclass, statement text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
begin
    perform set_config('lock_timeout', '1200ms', true);
    execute format('lock table only %s in share update exclusive mode', target);
    perform set_config('lock_timeout', format('%sms', (select settings.lock_timeout_ms from tenancy.settings)), true);
    execute statement;
end
$function$;
comment on function tenancy.change_table(regclass, text) is
'Runs one DDL statement on a table under the lock rules. First it takes the lock that autovacuum has and reads and writes do not'
' mind: a worker in the way is cancelled after deadlock_timeout (1 s) and cannot come back, and the application waits for none of'
' that. Only then it asks for the strong lock, for lock_timeout_ms, since the application queues behind that one.'
' Raises lock_not_available when either wait is over.';

create or replace function tenancy.wait_for_lock(step text, target regclass, waiting tenancy.lock_waits)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    failed_attempts constant integer := coalesce(waiting.attempts, 0) + 1;
    pause_seconds constant double precision := least(0.05 * power(1.5, failed_attempts), 10) * (0.5 + random() / 2);
    holders constant text := tenancy.lock_holders(target);
begin
    if failed_attempts >= (select settings.lock_attempts from tenancy.settings) then
        raise exception '% got no lock on % in % attempts since %',
            step,
            target,
            failed_attempts,
            date_trunc('second', waiting.blocked_since)
        using
            errcode = 'lock_not_available',
            detail = format(
                E'Held by:\n%s\nNothing is lost: wait for them or end them (pg_terminate_backend), then push again.',
                holders
            );
    end if;

    insert into tenancy.lock_waits
    values (
        step,
        target,
        pg_backend_pid(),
        failed_attempts,
        coalesce(waiting.blocked_since, clock_timestamp()),
        clock_timestamp() + make_interval(secs => pause_seconds),
        holders
    )
    on conflict on constraint lock_waits_pkey do update
    set
        session_pid = excluded.session_pid,
        attempts = excluded.attempts,
        blocked_since = excluded.blocked_since,
        next_attempt_at = excluded.next_attempt_at,
        blocked_by = excluded.blocked_by;
end
$function$;
comment on function tenancy.wait_for_lock(text, regclass, tenancy.lock_waits) is
'Notes a lock that was not to be had and when to ask again: pauses grow from 50 ms to 10 s, with jitter.'
' Raises lock_not_available with the holders once settings.lock_attempts are used up.';

create or replace function tenancy.work_on(step text, target regclass)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    waiting tenancy.lock_waits;
    worked boolean;
begin
    if (select settings.paused from tenancy.settings) then
        perform pg_sleep(0.5);
        return true;
    end if;

    select lock_waits.*
    into waiting
    from tenancy.lock_waits
    where lock_waits.step = work_on.step
        and lock_waits.relation = target
        and lock_waits.session_pid = pg_backend_pid();

    if waiting.next_attempt_at > clock_timestamp() then
        return false;
    end if;

    -- A crash may take the last steps with it, and what is noted of them: they are done again.
    perform set_config('synchronous_commit', 'off', true);

    -- One step at a time, whoever runs it; a second push waits for the first one's current step.
    perform set_config('lock_timeout', '0', true);
    perform pg_advisory_xact_lock(hashtext('tenancy.work_on'));

    begin
        execute format('select tenancy.%I($1)', step)
        into worked
        using target;
    exception
        when lock_not_available or deadlock_detected or serialization_failure then
            perform tenancy.wait_for_lock(step, target, waiting);
            return false;
    end;

    delete from tenancy.lock_waits
    where lock_waits.step = work_on.step
        and lock_waits.relation = target;
    return worked;
end
$function$;
comment on function tenancy.work_on(text, regclass) is
'Runs tenancy.<step>(regclass) once on one table: one bounded piece of work, to be committed by the caller. Returns whether it'
' worked, so that it should be called again; false also while the table''s lock is not to be had, which tenancy.lock_waits tells.';

create or replace function tenancy.next_step(steps text[], target regclass default null)
returns regclass
language plpgsql
volatile
security invoker
set search_path = ''
as $function$
declare
    relations regclass[];
    behind integer;
    candidate regclass;
    step text;
    seconds double precision;
begin
    if target is not null then
        foreach step in array steps loop
            if tenancy.work_on(step, target) then
                return target;
            end if;
        end loop;
    end if;

    relations := array(
        select application_tables.relation
        from tenancy.application_tables
        where application_tables.scope = 'org'
        order by
            application_tables.schema_name,
            application_tables.table_name
    );
    behind := coalesce(array_position(relations, target), 0) + 1;
    foreach candidate in array relations[behind:] || relations[:behind - 1] loop
        foreach step in array steps loop
            if tenancy.work_on(step, candidate) then
                return candidate;
            end if;
        end loop;
    end loop;

    select
        lock_waits.relation,
        extract(epoch from lock_waits.next_attempt_at - clock_timestamp())
    into
        candidate,
        seconds
    from tenancy.lock_waits
    where lock_waits.step = any (steps)
        and lock_waits.session_pid = pg_backend_pid()
    order by lock_waits.next_attempt_at
    limit 1;

    perform pg_sleep(greatest(seconds, 0));
    return candidate;
end
$function$;
comment on function tenancy.next_step(text[], regclass) is
'work_on for the next org-scoped table that needs one of the steps: target, the one worked on last, then those behind it, then'
' those before it; last of all the tables whose lock was not to be had, when their pause is over. Returns the table, NULL when none'
' is left: loop target := tenancy.next_step(''{…}'', target); exit when target is null; commit; end loop. What a table needs is'
' read from its definition each time, so a run that was killed goes on where it stopped.';

revoke all on all tables in schema tenancy from public, anon, authenticated, service_role;
revoke all on all functions in schema tenancy from public, anon, authenticated, service_role;
