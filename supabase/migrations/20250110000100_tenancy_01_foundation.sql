-- Purpose: the schemas tenancy and org_migration, the settings, and the check of what the plan takes for granted.
-- Touches: new objects in these two schemas only.
-- Locks:   none that anyone waits for.
-- Undo:    drop schema org_migration, tenancy cascade; after tenancy.roll_back, never before it.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create schema if not exists tenancy;
revoke all on schema tenancy from public, anon, authenticated, service_role;
comment on schema tenancy is
'What a multi-tenant application keeps: which tables belong to organizations, who belongs to which, what each table is to have,'
' and the functions that verify it. For the owner of the database only.';

create schema if not exists org_migration;
revoke all on schema org_migration from public, anon, authenticated, service_role;
comment on schema org_migration is
'The machinery of the move from user_id to org_id: lock rules, steps, backfill, undo. For the owner of the database only.';

create table if not exists tenancy.settings (
    only_row boolean primary key default true check (only_row),
    default_org_id uuid not null default 'a0000000-0000-0000-0000-000000000001',
    lock_timeout_ms integer not null default 100 check (lock_timeout_ms between 1 and 10000),
    lock_attempts integer not null default 60 check (lock_attempts > 0),
    batch_target_ms integer not null default 100 check (batch_target_ms between 1 and 10000),
    wal_mb_per_second numeric check (wal_mb_per_second > 0),
    scan_mb_per_second integer not null default 200 check (scan_mb_per_second > 0),
    backfill_rows_per_second integer not null default 50000 check (backfill_rows_per_second > 0),
    paused boolean not null default false,
    fill_org_id boolean not null default false,
    assign_org_to_new_users boolean not null default false,
    small_table_bytes bigint not null default 8388608 check (small_table_bytes >= 0),
    platform_schemas text[] not null default array[
        'auth', 'cron', 'extensions', 'graphql', 'graphql_public', 'net', 'org_migration', 'pgbouncer', 'pgmq', 'pgsodium',
        'realtime', 'storage', 'supabase_functions', 'supabase_migrations', 'tenancy', 'vault'
    ]
);
comment on table tenancy.settings is 'One row. A change counts from the next step or batch on, also while a push is running.';
comment on column tenancy.settings.default_org_id is 'The organization of everyone and everything that tenancy.user_orgs does not place.';
comment on column tenancy.settings.lock_timeout_ms is
'Milliseconds that a change waits for its lock, and so the longest pause that it can cause.';
comment on column tenancy.settings.lock_attempts is
'How often a lock is asked for, with growing pauses up to 10 s, before the push gives up: 60 is about 6 minutes.';
comment on column tenancy.settings.batch_target_ms is 'Milliseconds that one batch of the backfill should take.';
comment on column tenancy.settings.wal_mb_per_second is
'Megabytes of WAL per second that the server may write while the backfill runs, for small disks. NULL: no limit.';
comment on column tenancy.settings.scan_mb_per_second is
'Megabytes per second that an index build or a validation reads: what tenancy.plan expects seconds by. Measure yours with tenancy.log.';
comment on column tenancy.settings.backfill_rows_per_second is
'Rows per second that the backfill writes: what tenancy.plan expects seconds by. Measure yours with tenancy.log.';
comment on column tenancy.settings.paused is 'While it is on, no step begins.';
comment on column tenancy.settings.fill_org_id is
'True: the filler, a trigger, gives rows that come without org_id the organization of their owner or parent. After a change run'
' do $$ begin while tenancy.advance(''filler'') loop commit; end loop; end $$;';
comment on column tenancy.settings.assign_org_to_new_users is 'True: who signs up gets an organization, see tenancy.enable_new_users().';
comment on column tenancy.settings.small_table_bytes is
'Up to this size tenancy.onboard takes a table through all phases under one lock: 8 MB is about a second.';
comment on column tenancy.settings.platform_schemas is 'Schemas whose tables are not the application''s.';

insert into tenancy.settings default values
on conflict do nothing;

create or replace view tenancy.foundation_findings as
with organizations as (
    select
        relation.*,
        exists (
            select from pg_catalog.pg_attribute as id
            join pg_catalog.pg_index as unique_index
                on unique_index.indrelid = relation.oid
                and unique_index.indkey[0] = id.attnum
                and unique_index.indnkeyatts = 1
                and unique_index.indisunique
                and unique_index.indimmediate
                and unique_index.indisvalid
                and unique_index.indpred is null
            where id.attrelid = relation.oid
                and id.attname = 'id'
                and id.atttypid = 'uuid'::regtype
        ) as referable
    from pg_catalog.pg_class as relation
    where relation.oid = to_regclass('public.organizations')
),
auth_org_id as (
    select
        function.oid,
        function.prorettype = 'uuid'::regtype as returns_uuid,
        has_function_privilege('authenticated', function.oid, 'execute') as callable,
        regexp_replace(pg_get_functiondef(function.oid), '--[^\n]*', '', 'g') ~* 'user_meta_?data' as reads_user_metadata,
        gen_random_uuid() as probe
    from pg_catalog.pg_proc as function
    where function.oid = to_regprocedure('public.auth_org_id()')
)
select found.code, 'stops' as severity, found.object, null::text as table_name, found.problem, found.remedy
from (
    select
        'old_postgresql' as code, 'PostgreSQL' as object,
        format('is version %s', current_setting('server_version')) as problem,
        'upgrade to 15 or later' as remedy
    where current_setting('server_version_num')::integer < 150000
    union all
    select
        'organizations_missing', 'public.organizations', 'does not exist', 'rename it back, or restore it: every org_id references it'
    where to_regclass('public.organizations') is null and to_regclass('tenancy.settings') is not null
    union all
    select
        'organizations_not_referable', 'public.organizations',
        'cannot be referenced: it must be a table with a unique column id of type uuid', 'change that first'
    from organizations
    where organizations.relkind <> 'r'
        or not organizations.referable
    union all
    select
        'organizations_of_another_role', 'public.organizations',
        format('belongs to %s, and foreign keys to it need its owner', pg_get_userbyid(organizations.relowner)),
        format('alter table public.organizations owner to %I, as its owner', current_user)
    from organizations
    where not pg_has_role(current_user, organizations.relowner, 'usage')
    union all
    select
        'no_default_organization', 'public.organizations',
        format('has no default organization %s%s', settings.default_org_id, ', and requires ' || required.column_names),
        format('insert into public.organizations (id, name%s) values (%L, …);', ', ' || required.column_names, settings.default_org_id)
    from organizations
    cross join tenancy.settings
    cross join lateral (
        select string_agg(format('%I', attribute.attname), ', ' order by attribute.attnum) as column_names
        from pg_catalog.pg_attribute as attribute
        where attribute.attrelid = organizations.oid
            and attribute.attnum > 0
            and not attribute.attisdropped
            and attribute.attname not in ('id', 'name')
            and attribute.attnotnull
            and not attribute.atthasdef
            and attribute.attidentity = ''
    ) as required
    where organizations.referable and organizations.relkind = 'r'
        -- The migration inserts it where nothing else is required; the preflight runs before that.
        and (required.column_names is not null or to_regclass('tenancy.settings') is not null)
        and query_to_xml(
            format('select 1 as found from public.organizations where id = %L', settings.default_org_id),
            false, true, ''
        )::text = ''
    union all
    select
        'auth_org_id_missing', 'public.auth_org_id()', 'does not exist',
        'push the migration ending in _create_organizations.sql'
    where to_regprocedure('public.auth_org_id()') is null
        and to_regclass('tenancy.settings') is not null
    union all
    select
        'auth_org_id_not_uuid', 'public.auth_org_id()',
        'cannot be the default of org_id: it must return uuid', 'replace it by one that returns uuid'
    from auth_org_id
    where not auth_org_id.returns_uuid
    union all
    select
        'auth_org_id_not_callable', 'public.auth_org_id()',
        'cannot be called by authenticated, whose inserts need it as the default of org_id',
        'grant execute on function public.auth_org_id() to public'
    from auth_org_id
    where not auth_org_id.callable
    union all
    select
        'auth_org_id_reads_user_metadata', 'public.auth_org_id()',
        'reads user_metadata, which every user can write: one update of it and the user is in another organization',
        'replace it by one that reads app_metadata alone'
    from auth_org_id
    where auth_org_id.reads_user_metadata
    union all
    select
        'auth_org_id_wrong', 'public.auth_org_id()',
        format('does not return app_metadata.org_id of the JWT, but %s', coalesce(answer.org_id, 'NULL')),
        'replace it by one that does'
    from auth_org_id
    cross join lateral (
        select (
            xpath(
                '/row/org_id/text()',
                -- The claims are set before the function is called, and put back after it.
                query_to_xml(
                    format(
                        $sql$
                            select answer.org_id, pg_catalog.set_config('request.jwt.claims', %L, true) as put_back
                            from (
                                select case
                                    when pg_catalog.set_config('request.jwt.claims', %L, true) <> '' then public.auth_org_id()
                                end as org_id
                                offset 0
                            ) as answer
                        $sql$,
                        coalesce(current_setting('request.jwt.claims', true), ''),
                        jsonb_build_object(
                            'app_metadata', jsonb_build_object('org_id', auth_org_id.probe),
                            'user_metadata', jsonb_build_object('org_id', gen_random_uuid())
                        )
                    ),
                    false, true, ''
                )
            )
        )[1]::text as org_id
    ) as answer
    where auth_org_id.returns_uuid
        and not auth_org_id.reads_user_metadata
        and answer.org_id is distinct from auth_org_id.probe::text
) as found;
comment on view tenancy.foundation_findings is
'What is wrong with what the plan takes for granted: public.organizations, the default organization, public.auth_org_id().';

create or replace function org_migration.list_findings(findings text[])
returns text language sql immutable security invoker set search_path = '' as $function$
    select string_agg(listed.line, E'\n' order by listed.position)
    from unnest(findings) with ordinality as listed (line, position)
    where listed.position <= 200
$function$;
comment on function org_migration.list_findings(text[]) is
'Findings as the lines of an error message, the first 200. NULL for none.';

create or replace function org_migration.assert_foundation()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    problems constant text := org_migration.list_findings(array(
        select format('%s %s; %s [%s]', findings.object, findings.problem, findings.remedy, findings.code)
        from tenancy.foundation_findings as findings
        order by findings.code
    ));
begin
    if problems is not null then
        raise exception E'the database lacks what the plan takes for granted:\n%', problems
        using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$function$;
comment on function org_migration.assert_foundation() is
'Raises object_not_in_prerequisite_state with the rows of tenancy.foundation_findings in the message.';

select org_migration.assert_foundation();
