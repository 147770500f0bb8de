-- Purpose: which tables belong to organizations (registry), who belongs to which (user_orgs), and who is in several (memberships).
-- Touches: new objects in the schema tenancy; a trigger on public.organizations, for the users of one that is deleted.
-- Locks:   SHARE ROW EXCLUSIVE on organizations for a millisecond, for the foreign key of user_orgs and memberships and a trigger.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists tenancy.registry (
    schema_name text not null default 'public',
    table_name text not null,
    scope text not null check (scope in ('org', 'excluded')),
    priority text check (priority in ('critical', 'secondary')),
    reason text,
    org_from text[],
    isolated boolean not null default false,
    privileges_before jsonb,
    table_oid oid,
    home_oid oid,
    former_names text[] not null default '{}',
    parts_before text[] not null default '{}',
    primary key (schema_name, table_name),
    constraint an_org_scoped_table_has_a_priority check ((scope = 'org') = (priority is not null)),
    constraint an_excluded_table_has_a_reason check ((scope = 'excluded') = (reason is not null)),
    constraint only_an_org_scoped_table_has_sources check (scope = 'org' or (org_from is null and not isolated and privileges_before is null))
);
comment on table tenancy.registry is 'Every table of the application, once: scope org gets org_id, scope excluded stays as it is.';
comment on column tenancy.registry.org_from is
'The columns that decide a row''s organization, in this order: owners (users'' ids, or keys of tables that are not org-scoped and lead to a'
' user), parents (keys of org-scoped tables) and organizations (keys of public.organizations); a key of several columns is one entry,'
' ''a, b''. NULL: the order that tenancy.sources detects. {}: nothing decides, all rows belong to the default organization.';
comment on column tenancy.registry.isolated is 'True: tenancy.enable_org_isolation was called, and the table is to have its policy.';
comment on column tenancy.registry.privileges_before is
'Not NULL: tenancy.enable_least_privilege was called, and the roles of the API are to have neither TRIGGER, TRUNCATE nor REFERENCES. Per oid of'
' the table and its partitions, what gives them those that they had, as a form; home: as home_oid.';
comment on column tenancy.registry.table_oid is
'The table that the row means since tenancy.note_tables saw it, so that it still does after a rename. NULL: whatever has the name.';
comment on column tenancy.registry.former_names is
'What the table was called before, so that a list which still says so means it.';
comment on column tenancy.registry.parts_before is
'Of tenancy.parts those that the table had before the push, each as "part name", noted by tenancy.finish() for tenancy.end_state().';
comment on column tenancy.registry.home_oid is
'The oid of tenancy.registry itself when that was noted: with another one the row comes from another database, where numbers mean other tables.';

create table if not exists tenancy.user_orgs (
    user_id uuid primary key,
    org_id uuid references public.organizations (id) on delete set null,
    switched_at timestamptz
);
create index if not exists user_orgs_org_id_idx on tenancy.user_orgs (org_id);
comment on table tenancy.user_orgs is
'The mapping: which organization a user belongs to, for rows and for JWTs alike. Empty: everything belongs to the default organization.'
' No foreign key to auth.users, so that the rows of a user who is gone can still be placed. Rows without organization do not fill it.';
comment on column tenancy.user_orgs.switched_at is 'When the user last switched organizations, lost the active one, or got another role in it, with settings.org_role; NULL: never.';
comment on column tenancy.user_orgs.org_id is
'NULL: in no organization, as the users of one that was deleted, until somebody places them.';

create table if not exists tenancy.memberships (
    user_id uuid not null,
    org_id uuid not null references public.organizations (id) on delete cascade,
    role text,
    created_at timestamptz not null default now(),
    primary key (user_id, org_id)
);
create index if not exists memberships_org_id_idx on tenancy.memberships (org_id);
comment on table tenancy.memberships is
'Every organization that a user is in. tenancy.user_orgs has the active one of them, which rows and tokens go by. Empty: users are in the one'
' of user_orgs and cannot switch. No foreign key to auth.users, as user_orgs.';
comment on column tenancy.memberships.role is 'What the user is there, in the application''s own words; app_metadata.org_role, if settings.org_role is on.';

create or replace function tenancy.organization_named(claim text)
returns uuid language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    if claim ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
        return (select organizations.id from public.organizations where organizations.id = claim::uuid);
    end if;
    return null;
end
$function$;
comment on function tenancy.organization_named(text) is
'The organization of this id, as app_metadata.org_id has it. NULL where there is none, or where it is no uuid: such a claim counts as missing.';

create or replace view tenancy.mapping_state as
select exists (select from tenancy.user_orgs where user_orgs.org_id is not null) as is_filled
-- Or it would be planned and read again for each place where a query names it.
offset 0;
comment on view tenancy.mapping_state is
'One row. is_filled: the mapping places somebody, so that there is more than the default organization. Rows without organization do not count.';

create or replace view tenancy.fallback_organization as
select case
    when settings.new_users = 'default' or (settings.new_users is null and not mapping_state.is_filled)
        then settings.default_org_id
end as org_id
from tenancy.settings
cross join tenancy.mapping_state;
comment on view tenancy.fallback_organization is
'One row: the organization of a user whom neither the mapping nor app_metadata places. The default organization while the mapping is empty'
' and settings.new_users is unset, or where that says so; otherwise NULL: nobody is put there unasked.';

create or replace view tenancy.placed_users as
select
    users.id as user_id, users.is_anonymous,
    case
        when user_orgs.user_id is not null then user_orgs.org_id
        -- As most users have it, without a call.
        when lower(users.raw_app_meta_data ->> 'org_id') = settings.default_org_id::text then settings.default_org_id
        else coalesce(
            case when users.raw_app_meta_data ->> 'org_id' <> '' then tenancy.organization_named(users.raw_app_meta_data ->> 'org_id') end,
            case when settings.new_users_anonymous or not users.is_anonymous then fallback_organization.org_id end
        )
    end as org_id
from auth.users
cross join tenancy.settings
cross join tenancy.fallback_organization
left join tenancy.user_orgs on user_orgs.user_id = users.id;
comment on view tenancy.placed_users is
'Every user of auth.users with their organization: the mapping''s, else that of app_metadata.org_id if it exists, else the one of'
' tenancy.fallback_organization, anonymous users only where settings.new_users_anonymous. NULL: in none.';

create or replace function tenancy.org_of(user_id uuid)
-- Not in SQL, which would be planned anew with each call.
returns uuid language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    return (
        select case
            when placed_users.user_id is not null then placed_users.org_id
            when user_orgs.user_id is not null then user_orgs.org_id
            else fallback_organization.org_id
        end
        from tenancy.fallback_organization
        left join tenancy.placed_users on placed_users.user_id = org_of.user_id
        left join tenancy.user_orgs on user_orgs.user_id = org_of.user_id
    );
end
$function$;
comment on function tenancy.org_of(uuid) is
'The organization of a user, as tenancy.placed_users has it; of one who is gone that of the mapping, else the fallback. NULL: in none.';

create or replace function tenancy.leave_users_without_organization()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
begin
    with left_over as (
        insert into tenancy.user_orgs (user_id, org_id, switched_at)
        select users.id, null, clock_timestamp()
        from old_organizations
        join auth.users on lower(users.raw_app_meta_data ->> 'org_id') = old_organizations.id::text
        on conflict (user_id) do update set switched_at = excluded.switched_at
        returning user_orgs.user_id
    )
    update auth.users
    set raw_app_meta_data = users.raw_app_meta_data - 'org_id'
    from left_over
    where users.id = left_over.user_id;
    return null;
end
$function$;
comment on function tenancy.leave_users_without_organization() is
'Trigger function: takes the claim of a deleted organization from its users, so that the next token is without. Who belonged to it by app_metadata'
' alone is noted as in none, and not taken for a new user. Security definer, because whoever deletes an organization may neither write auth.users nor tenancy.';

create or replace trigger tenancy_leave_users_without_organization
after delete on public.organizations
referencing old table as old_organizations
for each statement
execute function tenancy.leave_users_without_organization();

create table if not exists org_migration.tables_before (
    relation regclass primary key,
    row_count bigint not null,
    rows_inserted bigint not null,
    rows_deleted bigint not null,
    follows_org_id boolean not null,
    parts text[] not null,
    counted_at timestamptz not null default clock_timestamp(),
    storage text,
    org_from text[],
    joins text
);
comment on table org_migration.tables_before is
'Each table as it was: how many rows, so that none can be lost unseen, and which parts it had already, so that undo leaves them.';
comment on column org_migration.tables_before.rows_inserted is
'The statistics'' count of rows ever inserted, to tell the application''s own changes apart.';
comment on column org_migration.tables_before.storage is
'org_migration.storage_of then: while it is the same, the statistics tell of every row that went.';
comment on column org_migration.tables_before.follows_org_id is
'True if a table that it references had org_id then: its rows follow those, and do not all belong to the default organization.';
comment on column org_migration.tables_before.joins is
'As org_migration.rules had it, and org_from as the registry had it, when the first row was decided, so that a later correction that changes no'
' row is found; NULL before.';
comment on column org_migration.tables_before.parts is 'Of tenancy.parts those that were present, each as "part name".';

create table if not exists org_migration.mapping_before (
    user_id uuid primary key,
    org_id uuid
);
comment on table org_migration.mapping_before is
'tenancy.user_orgs as it was when rows were last decided by it: none follows a mapping that says otherwise later.';

create or replace function org_migration.note_mapping()
returns void language sql volatile security invoker set search_path = '' as $function$
    delete from org_migration.mapping_before
    where not exists (
        select from tenancy.user_orgs
        where user_orgs.user_id = mapping_before.user_id and user_orgs.org_id is not distinct from mapping_before.org_id
    );
    insert into org_migration.mapping_before (user_id, org_id)
    select user_orgs.user_id, user_orgs.org_id
    from tenancy.user_orgs
    on conflict do nothing;
$function$;
comment on function org_migration.note_mapping() is
'Notes the mapping as it is now. Yours to call, above the check of the list, where a mapping that was changed since is to move users and not their rows.';

create or replace function org_migration.list_findings(findings text[])
returns text language sql immutable security invoker set search_path = '' as $function$
    select string_agg(listed.line, E'\n' order by listed.position)
    from unnest(findings) with ordinality as listed (line, position)
    where listed.position <= 200
$function$;
comment on function org_migration.list_findings(text[]) is
'Findings as the lines of an error message, the first 200. NULL for none.';

create or replace function org_migration.find_changed_mapping()
returns text language sql stable security invoker set search_path = '' as $function$
    select format(
        'tenancy.user_orgs has another organization now for %s users, %s first, than when their rows were decided, and no row follows; undo first, as in'
        ' docs/operate.md; or, if their rows are to stay where they are: select org_migration.note_mapping(), above the check [mapping_changed]',
        count(*), min(user_orgs.user_id::text)
    )
    from (
        select min(tables_before.counted_at) as at
        from org_migration.tables_before
        where tables_before.joins is not null
    ) as decided
    cross join tenancy.settings
    -- Of the list itself: who is moved at another time keeps their rows where they are, as documented.
    join tenancy.user_orgs on age(user_orgs.xmin) <= 0
    left join org_migration.mapping_before as before on before.user_id = user_orgs.user_id
    left join auth.users on users.id = user_orgs.user_id
    -- After an undo nothing is.
    where decided.at is not null
        and coalesce(user_orgs.org_id, settings.default_org_id) <> coalesce(
            case
                when before.user_id is not null then before.org_id
                else tenancy.organization_named(users.raw_app_meta_data ->> 'org_id')
            end,
            settings.default_org_id
        )
        and (before.user_id is not null or coalesce(users.created_at, '-infinity') < decided.at)
    having count(*) > 0
$function$;
comment on function org_migration.find_changed_mapping() is
'The finding that this transaction gives users another organization than the one by which rows are decided already; NULL without.';

create or replace function org_migration.create_default_organization()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    has_name constant boolean := exists (
        select from pg_catalog.pg_attribute
        where attrelid = 'public.organizations'::regclass and attname = 'name' and not attisdropped
    );
begin
    -- Where it needs more, tenancy.foundation_findings says so.
    if (select required.column_names is null from tenancy.required_organization_columns as required) then
        execute format(
            $sql$
                insert into public.organizations (id%s)
                select settings.default_org_id%s
                from tenancy.settings
                where settings.default_org_id not in (select organizations.id from public.organizations)
            $sql$,
            case when has_name then ', name' end,
            case when has_name then ', ''Default organization''' end
        );
    end if;
exception
    -- By the session of a push that was killed, and was still at it.
    when unique_violation then
        if not exists (select from public.organizations where organizations.id = (select settings.default_org_id from tenancy.settings)) then
            raise;
        end if;
end
$function$;
comment on function org_migration.create_default_organization() is
'Inserts the default organization, unless it is there. In the transaction of the list, so that a push that stops there leaves no row.';

create or replace view tenancy.library_findings as
select
    'library_changed' as code, 'stops' as severity, ours.name as object, null::text as table_name,
    format('has no %s, which the functions of tenancy use', missing.column_names) as problem,
    'rename it back, or restore it' as remedy
from (
    values
        (
            'tenancy.settings',
            'only_row,default_org_id,lock_timeout_ms,lock_attempts,batch_target_ms,batch_wal_mb,wal_mb_per_second,scan_mb_per_second,'
            'backfill_rows_per_second,paused,pause_limit_minutes,fill_org_id,new_users,new_users_anonymous,org_role,token_hook,memberships_of,'
            'rows_decided_at,small_table_bytes,platform_schemas'
        ),
        (
            'tenancy.registry',
            'schema_name,table_name,scope,priority,reason,org_from,isolated,privileges_before,table_oid,home_oid,former_names,parts_before'
        ),
        ('tenancy.user_orgs', 'user_id,org_id,switched_at'),
        ('tenancy.memberships', 'user_id,org_id,role,created_at'),
        ('tenancy.bound_references', 'relation,constraint_name,parent,attnums,column_names,lists_set_columns'),
        ('tenancy.new_tables', 'table_oid'),
        ('tenancy.log', 'id,part,table_name,statement,began,seconds,seconds_waited,waited_for,rows'),
        (
            'tenancy.user_metadata_runs',
            'run_id,reverted_run_id,only_org_id,on_conflict,move_to_default,anonymous,pass,last_user_id,started_at,finished_at'
        ),
        ('tenancy.user_metadata_audit', 'run_id,user_id,outcome,previous_value,new_value,attempts,error,recorded_at')
) as ours (name, columns)
cross join lateral (
    select string_agg(needed.name, ', ' order by needed.position) as column_names
    from unnest(string_to_array(ours.columns, ',')) with ordinality as needed (name, position)
    where not exists (
        select from pg_catalog.pg_attribute as its
        where its.attrelid = to_regclass(ours.name) and its.attname = needed.name and not its.attisdropped
    )
) as missing
where missing.column_names is not null
union all
select
    'auth_users_not_writable', 'stops', 'auth.users', null,
    format('cannot be updated by %s, so that nobody signs up or switches organizations', current_user),
    format('grant usage on schema auth to %1$I; grant select, update on auth.users to %1$I, as their owner', current_user)
from tenancy.settings
left join pg_catalog.pg_attribute as metadata
    on metadata.attrelid = to_regclass('auth.users')
    and metadata.attname = 'raw_app_meta_data'
where (settings.new_users in ('default', 'personal') or exists (select from tenancy.memberships))
    and not coalesce(
        has_schema_privilege(to_regnamespace('auth'), 'usage') and has_column_privilege(metadata.attrelid, metadata.attnum, 'update'), false
    )
union all
select
    'personal_organizations_refused', 'stops', 'public.organizations', null,
    format('requires %s, so that nobody can sign up: everyone is to get an organization then', required.column_names),
    'give that a default; or select tenancy.enable_new_users(''application''), or ''default'''
from tenancy.settings
cross join tenancy.required_organization_columns as required
where settings.new_users = 'personal' and required.column_names is not null
union all
select
    'memberships_not_followed', 'stops', coalesce(followed.relation, settings.memberships_of), null,
    'is what memberships follow, and they miss its changes: it is gone, or a trigger of tenancy.enable_memberships is off or gone, as with a column',
    'call that again, with the table and columns as they are now: it copies what was missed. Without a table: you write tenancy.memberships; or'
    ' select tenancy.disable_memberships()'
from tenancy.settings
cross join lateral (
    select min(its.tgrelid)::regclass::text as relation, count(*) filter (where its.tgenabled in ('O', 'A')) as at_work
    from pg_catalog.pg_trigger as its
    where its.tgfoid = to_regprocedure('tenancy.copy_membership()') and its.tgparentid = 0
) as followed
where settings.memberships_of is not null and followed.at_work < 2
union all
select
    'library_changed', 'stops', ours.name, null,
    format('has lost a trigger that calls %s, or it is off', ours.called), 'enable it, or restore it'
from (
    values
        ('tenancy.memberships', 'tenancy.follow_membership()', 2),
        ('tenancy.memberships', 'tenancy.follow_lost_membership()', 1),
        ('tenancy.new_tables', 'tenancy.check_new_tables()', 1)
) as ours (name, called, needed)
where to_regclass(ours.name) is not null
    and ours.needed > (
        select count(*)
        from pg_catalog.pg_trigger as its
        where its.tgrelid = to_regclass(ours.name) and its.tgfoid = to_regprocedure(ours.called) and its.tgenabled in ('O', 'A')
    )
union all
select
    'library_changed', 'stops', class.oid::regclass::text, null,
    format('can be written to by %s, which decides about organizations then', string_agg(role.rolname, ', ' order by role.rolname)),
    'revoke all on schema tenancy from public, anon, authenticated, service_role'
from pg_catalog.pg_class as class
join pg_catalog.pg_roles as role on role.rolname in ('anon', 'authenticated', 'service_role')
where class.relnamespace = 'tenancy'::regnamespace
    and class.relkind = 'r'
    and has_schema_privilege(role.oid, class.relnamespace, 'usage')
    and has_table_privilege(role.oid, class.oid, 'insert, update, delete, truncate')
group by class.oid;
comment on view tenancy.library_findings is
'What has become of what the functions of tenancy rely on: the columns, triggers and privileges of its own tables, auth.users, and what follows the application''s memberships.';
