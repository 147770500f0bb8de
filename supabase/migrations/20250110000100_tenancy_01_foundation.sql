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
comment on schema org_migration is 'The machinery of the move from user_id to org_id: lock rules, steps, backfill, undo. For the owner of the database only.';

create table if not exists tenancy.settings (
    only_row boolean primary key default true check (only_row),
    default_org_id uuid not null default 'a0000000-0000-0000-0000-000000000001',
    lock_timeout_ms integer not null default 100 check (lock_timeout_ms between 1 and 10000),
    lock_attempts integer not null default 60 check (lock_attempts > 0),
    batch_target_ms integer not null default 100 check (batch_target_ms between 1 and 10000),
    batch_wal_mb numeric not null default 8 check (batch_wal_mb > 0),
    wal_mb_per_second numeric check (wal_mb_per_second > 0),
    scan_mb_per_second integer not null default 200 check (scan_mb_per_second > 0),
    backfill_rows_per_second integer not null default 125000 check (backfill_rows_per_second > 0),
    paused boolean not null default false,
    pause_limit_minutes integer not null default 30 check (pause_limit_minutes > 0),
    fill_org_id boolean not null default true,
    new_users text check (new_users in ('default', 'personal', 'application')),
    new_users_anonymous boolean not null default false,
    org_role boolean not null default false,
    token_hook boolean not null default false,
    memberships_of text,
    rows_decided_at timestamptz,
    small_table_bytes bigint not null default 8388608 check (small_table_bytes >= 0),
    platform_schemas text[] not null default array[
        '_realtime', 'auth', 'cron', 'drizzle', 'extensions', 'graphile_worker', 'graphql', 'graphql_public', 'net', 'org_migration',
        'partman', 'pgboss', 'pgbouncer', 'pgmq', 'pgsodium', 'realtime', 'storage', 'supabase_functions', 'supabase_migrations', 'tenancy',
        'vault'
    ]
);
comment on table tenancy.settings is 'One row. A change counts from the next step or batch on, also while a push is running.';
comment on column tenancy.settings.default_org_id is 'The organization of everyone and everything that tenancy.user_orgs does not place.';
comment on column tenancy.settings.lock_timeout_ms is 'Milliseconds that a change waits for its lock, and so the longest pause that it can cause.';
comment on column tenancy.settings.lock_attempts is 'How often a lock is asked for, with growing pauses up to 10 s, before the push gives up: 60 is about 6 minutes.';
comment on column tenancy.settings.batch_target_ms is 'Milliseconds that one batch of the backfill should take.';
comment on column tenancy.settings.batch_wal_mb is 'Megabytes of WAL that one batch of the backfill should write at most: what a commit of the application may have to wait for on the disk.';
comment on column tenancy.settings.wal_mb_per_second is 'Megabytes of WAL per second that the server may write while the backfill runs, for small disks. NULL: no limit.';
comment on column tenancy.settings.scan_mb_per_second is 'Megabytes per second that an index build or a validation reads: what tenancy.plan expects seconds by. Measure yours with tenancy.log.';
comment on column tenancy.settings.backfill_rows_per_second is 'Rows per second that the backfill writes: what tenancy.plan expects seconds by. Measure yours with tenancy.log.';
comment on column tenancy.settings.paused is 'While it is on, no step begins; a push waits for pause_limit_minutes and then ends, and where no table has a row it does not wait.';
comment on column tenancy.settings.pause_limit_minutes is 'Minutes that a push waits while paused is on, before it ends with an error.';
comment on column tenancy.settings.fill_org_id is 'True: the filler, a trigger, gives rows that come without org_id the organization that the backfill would give them. After a change run'
' do $$ begin while tenancy.advance(''filler'') loop commit; end loop; end $$;';
comment on column tenancy.settings.new_users is 'Which organization users get who are in none: default, the default organization; personal, one of their own; application, what the'
' application gives them. Set by tenancy.enable_new_users. NULL: the default one while tenancy.user_orgs is empty, otherwise none.';
comment on column tenancy.settings.new_users_anonymous is 'True: new_users counts for anonymous users too. Set by tenancy.enable_new_users.';
comment on column tenancy.settings.org_role is 'True: tokens have the role of the active membership as app_metadata.org_role, see tenancy.add_org_id_to_token.';
comment on column tenancy.settings.token_hook is 'True: the Auth server calls tenancy.add_org_id_to_token. Set by tenancy.enable_token_hook.';
comment on column tenancy.settings.memberships_of is 'The table that memberships follow, as tenancy.enable_memberships was given it. NULL: none.';
comment on column tenancy.settings.rows_decided_at is 'Users who were there at this time have their rows where these were decided. NULL: org_migration knows it, or no row is decided yet.';
comment on column tenancy.settings.small_table_bytes is 'Up to this size tenancy.onboard takes a table through all phases under one lock: 8 MB is about a second.';
comment on column tenancy.settings.platform_schemas is 'Schemas of the platform, and of tools that make their own tables, which are not the application''s. Add yours: update tenancy.settings set platform_schemas = platform_schemas || ''queue''::text.';

insert into tenancy.settings default values
on conflict do nothing;

create or replace view tenancy.required_organization_columns as
select string_agg(format('%I', attribute.attname), ', ' order by attribute.attnum) as column_names
from pg_catalog.pg_attribute as attribute
where attribute.attrelid = to_regclass('public.organizations')
    and attribute.attnum > 0 and not attribute.attisdropped
    and attribute.attname not in ('id', 'name')
    and attribute.attnotnull
    and not attribute.atthasdef
    and attribute.attidentity = '';
comment on view tenancy.required_organization_columns is
'One row: the columns that every new organization must be given besides id and name, with commas between; NULL for none.';

create or replace view tenancy.organizations_id as
select id.attrelid as relation, id.attnum from pg_catalog.pg_attribute as id
where (id.attrelid, id.attname, id.atttypid) = (to_regclass('public.organizations'), 'id', 'uuid'::regtype);
comment on view tenancy.organizations_id is
'One row where public.organizations has an id of uuid, by which a query may look there; the push stops where it has none.';

create or replace view tenancy.auth_org_id_probes as
with known as (
    select
        coalesce((xpath('/row/a/text()', answer.document))[1]::text::uuid, settings.default_org_id) as right_id,
        coalesce((xpath('/row/b/text()', answer.document))[1]::text::uuid, gen_random_uuid()) as other_id
    from tenancy.settings
    left join tenancy.organizations_id as id on true
    cross join lateral (
        select case when id.attnum is not null then query_to_xml(
            'select min(id::text) as a, nullif(max(id::text), min(id::text)) as b, 0 as always from public.organizations', false, true, ''
        ) end as document
    ) as answer
),
other as (
    select known.*, jsonb_build_object('org_id', known.other_id, 'organization_id', known.other_id, 'tenant_id', known.other_id) as metadata
    from known
)
select probe.name, coalesce(probe.claims::text, '') as claims, coalesce(probe.headers::text, '') as headers, probe.expected, probe.is_harmless
from other
cross join lateral (
    select known_user.id::text as sub
    from (select null as id union all (select users.id from auth.users order by users.id limit 20)) as known_user
) as known_user
cross join lateral (
    values
        (
            'the right claim', jsonb_build_object(
                'app_metadata', jsonb_build_object('org_id', other.right_id), 'user_metadata', other.metadata, 'sub', known_user.sub
            ) || other.metadata, other.metadata || jsonb_build_object('x-org-id', other.other_id), other.right_id, true, true
        ),
        ('the organization in user_metadata', jsonb_build_object('user_metadata', other.metadata, 'sub', known_user.sub), null, null, true, false),
        ('the organization outside app_metadata', other.metadata || jsonb_build_object('sub', known_user.sub), null, null, true, false),
        (
            'the organization in a request header', '{}',
            other.metadata || jsonb_build_object(
                'x-org', other.other_id, 'x-org-id', other.other_id, 'x-organization', other.other_id, 'x-organization-id', other.other_id,
                'x-tenant', other.other_id, 'x-tenant-id', other.other_id, 'x-workspace', other.other_id, 'x-workspace-id', other.other_id,
                'cookie', format('org_id=%1$s; organization_id=%1$s; tenant_id=%1$s', other.other_id)
            ),
            null, true, false
        ),
        ('the id of a user alone', jsonb_build_object('sub', known_user.sub, 'role', 'authenticated'), null, null, true, true),
        ('an empty token', '{}', null, null, true, false),
        ('the claim "default"', '{"app_metadata": {"org_id": "default"}}', null, null, false, false),
        ('the claim ""', '{"app_metadata": {"org_id": ""}}', null, null, false, false),
        ('a claim that is no text', '{"app_metadata": {"org_id": {"id": 1}}}', null, null, false, false),
        ('app_metadata that is no object', '{"app_metadata": "x"}', null, null, false, false),
        ('a token that is no object', '[]', null, null, false, false),
        ('no token', null, null, null, false, false)
) as probe (name, claims, headers, expected, is_harmless, is_per_user)
where probe.is_per_user or known_user.sub is null;
comment on view tenancy.auth_org_id_probes is
'What public.auth_org_id() is tried with: claims and headers of a request, and what it is to return. is_harmless: a function that casts'
' without a look does not raise. Only app_metadata decides a tenant: users write user_metadata and headers themselves, and whose'
' organization a user''s id stands for changes without a new token.';

create or replace view tenancy.foundation_findings as
with organizations as (
    select
        relation.*,
        exists (
            select from tenancy.organizations_id as id
            join pg_catalog.pg_index as unique_index
                on unique_index.indrelid = id.relation
                and unique_index.indkey[0] = id.attnum
                and unique_index.indnkeyatts = 1
                and unique_index.indisunique
                and unique_index.indimmediate
                and unique_index.indisvalid
                and unique_index.indpred is null
        ) as referable
    from pg_catalog.pg_class as relation
    where relation.oid = to_regclass('public.organizations')
),
auth_org_id as (
    select
        function.oid, function.prorettype = 'uuid'::regtype as returns_uuid, has_function_privilege('authenticated', function.oid, 'execute') as callable,
        -- In a query nobody can catch what it raises.
        overload.name is not null
            or function.prosrc ~* '(\m(raise|execute|assert|strict)\M|current_setting\([^,)]*\)|::\s*text\s*\)*\s*::\s*uuid)' as may_raise,
        function.prosrc ~* '(::\s*|as\s+)uuid' and function.prosrc !~* '(~|exception\s+when|pg_input_is_valid)' as casts_anything,
        overload.name as overload
    from (
        select min(format('public.auth_org_id(%s)', oidvectortypes(other.proargtypes)))
        from pg_catalog.pg_proc as other
        where other.pronamespace = to_regnamespace('public') and other.proname = 'auth_org_id'
            and other.pronargs > 0 and other.pronargs = other.pronargdefaults
    ) as overload (name)
    left join pg_catalog.pg_proc as function on function.oid = to_regprocedure('public.auth_org_id()')
)
select
    found.code, case found.code when 'auth_org_id_untried' then 'decide' else 'stops' end as severity, found.object, null::text as table_name, found.problem, found.remedy
from (
    select
        'old_postgresql' as code, 'PostgreSQL' as object,
        format('is version %s', current_setting('server_version')) as problem,
        'upgrade to 15 or later' as remedy
    where current_setting('server_version_num')::integer < 150000
    union all
    select
        'settings_missing', 'tenancy.settings', 'has no row, as after a restore of the schema alone, and nothing is looked at without it',
        'insert into tenancy.settings default values; then the rows of tenancy.registry and tenancy.user_orgs'
    where to_regclass('tenancy.settings') is not null
        and not exists (select from tenancy.settings)
    union all
    select
        'organizations_missing', 'public.organizations', 'does not exist', 'rename it back, or restore it: every org_id references it'
    where to_regclass('public.organizations') is null and to_regclass('tenancy.settings') is not null
    union all
    select
        'organizations_without_trigger', 'public.organizations',
        'has lost the trigger that keeps the users of a deleted organization from being taken for new ones',
        'create trigger tenancy_leave_users_without_organization after delete on public.organizations referencing old table as'
        ' old_organizations for each statement execute function tenancy.leave_users_without_organization()'
    from organizations
    where to_regprocedure('tenancy.leave_users_without_organization()') is not null
        and not exists (
            select from pg_catalog.pg_trigger
            where tgrelid = organizations.oid
                and tgfoid = to_regprocedure('tenancy.leave_users_without_organization()')
                and tgenabled in ('O', 'A')
        )
    union all
    select
        'new_users_without_trigger', 'tenancy.settings',
        format('says new_users %L, and nothing does it when somebody signs up', settings.new_users),
        format('select tenancy.enable_new_users(%L)', settings.new_users)
    from tenancy.settings
    where settings.new_users in ('default', 'personal')
        and to_regclass('tenancy.settings') is not null
        and 2 > (
            select count(distinct tgfoid) from pg_catalog.pg_trigger
            where tgrelid = to_regclass('auth.users')
                and tgfoid in (to_regprocedure('tenancy.set_org_of_new_user()'), to_regprocedure('tenancy.keep_org_of_new_user()'))
                and tgenabled in ('O', 'A')
        )
    union all
    select
        'organizations_not_referable', 'public.organizations',
        'cannot be referenced: it must be a logged table with a unique column id of type uuid',
        'rename it, and the migrations make another one, which the mapping can fill; or change that first'
    from organizations
    where organizations.relkind <> 'r' or organizations.relpersistence <> 'p'
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
    cross join tenancy.required_organization_columns as required
    where organizations.relkind = 'r'
        -- The list's file inserts it where nothing else is required; the preflight runs before that.
        and (required.column_names is not null or to_regclass('tenancy.registry') is not null)
        and query_to_xml(
            case
                when organizations.referable then format('select 1 as found from public.organizations where id = %L', settings.default_org_id)
                else 'select 1 as found'
            end, false, true, ''
        )::text = ''
    union all
    select unfit.code, 'public.auth_org_id()', unfit.problem, unfit.remedy
    from auth_org_id
    cross join lateral (
        values
            ('auth_org_id_missing', auth_org_id.oid is null and to_regclass('tenancy.settings') is not null, 'does not exist', 'push the migration ending in _create_organizations.sql'),
            ('auth_org_id_not_uuid', not auth_org_id.returns_uuid, 'cannot be the default of org_id: it must return uuid', 'replace it by one that returns uuid'),
            (
                'auth_org_id_not_callable', not auth_org_id.callable,
                'cannot be called by authenticated, whose inserts need it as the default of org_id', 'grant execute on function public.auth_org_id() to public'
            ),
            (
                'auth_org_id_ambiguous', auth_org_id.overload is not null,
                format('cannot be called beside %s, which needs no argument either: the call is not unique', auth_org_id.overload),
                format('drop function %s, or give it another name', auth_org_id.overload)
            ),
            (
                'auth_org_id_untried', to_regclass('tenancy.settings') is null and (auth_org_id.may_raise or auth_org_id.casts_anything),
                'probably raises where there is no claim, or one that is no uuid: the push tries that, and it must return NULL then',
                'cast it only where it has the form of a uuid, as in the migration ending in _create_organizations.sql'
            )
    ) as unfit (code, holds, problem, remedy)
    where unfit.holds
    union all
    select
        'auth_org_id_wrong', 'public.auth_org_id()',
        string_agg(
            distinct format('returns %s for %s', coalesce(answer.org_id, 'NULL'), auth_org_id_probes.name)
                || case when auth_org_id_probes.expected is not null then ' and not that' else ' and not NULL' end,
            ', '
        ),
        'replace it by one that returns app_metadata.org_id of request.jwt.claims, and nothing else'
    from auth_org_id
    cross join tenancy.auth_org_id_probes
    cross join lateral (
        select (
            xpath(
                '/row/org_id/row/org_id/text()',
                -- The claims, and where the application's own sessions look, are set before the function is called, and put back after it.
                query_to_xml(
                    format(
                        $sql$
                            select
                                answer.org_id, pg_catalog.set_config('request.jwt.claims', %L, true) as put_back,
                                pg_catalog.set_config('request.headers', %L, true) as headers_put_back,
                                pg_catalog.set_config('search_path', %L, true) as path_put_back
                            from (
                                select case
                                    when pg_catalog.set_config('request.jwt.claims', %L, true) <> ''
                                        and pg_catalog.set_config('request.headers', %L, true) is not null
                                        and pg_catalog.set_config('search_path', %L, true) is not null
                                        then pg_catalog.query_to_xml('select public.auth_org_id() as org_id', false, true, '')
                                end as org_id
                                offset 0
                            ) as answer
                        $sql$,
                        coalesce(current_setting('request.jwt.claims', true), ''), coalesce(current_setting('request.headers', true), ''),
                        current_setting('search_path'), auth_org_id_probes.claims, auth_org_id_probes.headers,
                        (select pg_settings.reset_val from pg_catalog.pg_settings where pg_settings.name = 'search_path')
                    ),
                    false, true, ''
                )
            )
        )[1]::text as org_id
    ) as answer
    where auth_org_id.returns_uuid
        and not auth_org_id.may_raise
        and auth_org_id_probes.is_harmless
        and answer.org_id is distinct from auth_org_id_probes.expected::text
    having count(*) > 0
) as found;
comment on view tenancy.foundation_findings is
'What is wrong with what the plan takes for granted: public.organizations, the default organization, public.auth_org_id().';

create or replace function tenancy.failed_probes()
returns text[] language plpgsql volatile security invoker set search_path = '' as $function$
declare
    probe tenancy.auth_org_id_probes;
    claims_before constant text := coalesce(current_setting('request.jwt.claims', true), '');
    headers_before constant text := coalesce(current_setting('request.headers', true), '');
    answer uuid;
    problem text;
    problems text[] := '{}';
begin
    if (select prorettype from pg_catalog.pg_proc where oid = to_regprocedure('public.auth_org_id()')) is distinct from 'uuid'::regtype then
        return problems;
    end if;
    for probe in
        select auth_org_id_probes.* from tenancy.auth_org_id_probes
    loop
        begin
            perform set_config('request.jwt.claims', probe.claims, true), set_config('request.headers', probe.headers, true);
            -- As column default it runs where the application's own sessions look.
            set local search_path to default;
            execute 'select public.auth_org_id()' into answer;
            -- Whatever it has written is undone.
            raise exception using errcode = 'OKAY0';
        exception
            when sqlstate 'OKAY0' then
                problem := case when answer is distinct from probe.expected then format('returns %s', coalesce(answer::text, 'NULL')) end;
            when others then
                problem := format('raises "%s"', sqlerrm);
        end;
        set local search_path = '';
        problem := format('%s for %s', problem, probe.name);
        if problem not like ' for %' and problem <> all (problems) then
            problems := problems || problem;
        end if;
    end loop;
    perform set_config('request.jwt.claims', claims_before, true), set_config('request.headers', headers_before, true);
    return problems;
end
$function$;
comment on function tenancy.failed_probes() is
'Tries public.auth_org_id() with all of tenancy.auth_org_id_probes. Returns a line per probe that it fails, errors included.';

create or replace function org_migration.assert_foundation()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    problems text := (
        select string_agg(format('%s %s; %s [%s]', findings.object, findings.problem, findings.remedy, findings.code), E'\n' order by findings.code)
        from tenancy.foundation_findings as findings
    );
    failed constant text := array_to_string(tenancy.failed_probes(), ', ');
begin
    if failed <> '' and coalesce(problems !~ '\[auth_org_id_(wrong|ambiguous)\]', true) then
        problems := concat_ws(
            E'\n', problems,
            format(
                'public.auth_org_id() %s; replace it by one that returns app_metadata.org_id of request.jwt.claims, or NULL where that is'
                ' no uuid, and never raises [auth_org_id_wrong]', failed
            )
        );
    end if;
    if problems is not null then
        raise exception E'the database lacks what the plan takes for granted:\n%', problems
        using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$function$;
comment on function org_migration.assert_foundation() is 'Raises object_not_in_prerequisite_state with the rows of tenancy.foundation_findings in the message.';

select org_migration.assert_foundation();
