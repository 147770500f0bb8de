-- Purpose: which tables belong to organizations (registry) and who belongs to which (user_orgs).
-- Touches: new objects in the schema tenancy only.
-- Locks:   SHARE ROW EXCLUSIVE on organizations for a millisecond, for the foreign key of user_orgs.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create table if not exists tenancy.registry (
    schema_name text not null default 'public',
    table_name text not null,
    scope text not null check (scope in ('org', 'excluded')),
    priority text check (priority in ('critical', 'secondary')),
    reason text,
    owner_column text,
    parent_column text,
    isolated boolean not null default false,
    primary key (schema_name, table_name),
    constraint an_org_scoped_table_has_a_priority check ((scope = 'org') = (priority is not null)),
    constraint an_excluded_table_has_a_reason check ((scope = 'excluded') = (reason is not null)),
    constraint only_an_org_scoped_table_has_an_owner check (
        scope = 'org'
        or (owner_column is null and parent_column is null and not isolated)
    )
);
comment on table tenancy.registry is 'Every table of the application, once: scope org gets org_id, scope excluded stays as it is.';
comment on column tenancy.registry.owner_column is 'The column that holds the owning user''s id, uuid or text. NULL: user_id where the table has it.';
comment on column tenancy.registry.parent_column is
'The foreign key column whose org-scoped parent decides where the owner does not. NULL: every such key, in the order of its columns.';
comment on column tenancy.registry.isolated is 'True: tenancy.enable_org_isolation was called, and the table is to have its policy.';

create table if not exists tenancy.user_orgs (
    user_id uuid primary key,
    org_id uuid not null references public.organizations (id) on delete cascade
);
create index if not exists user_orgs_org_id_idx on tenancy.user_orgs (org_id);
comment on table tenancy.user_orgs is
'Which organization a user belongs to, for rows and for JWTs alike. Empty: everything belongs to the default organization.'
' No foreign key to auth.users, so that the rows of a user who is gone can still be placed.';

create or replace function tenancy.org_of(user_id uuid)
returns uuid language sql stable security invoker set search_path = '' as $function$
    select coalesce(
        (select user_orgs.org_id from tenancy.user_orgs where user_orgs.user_id = org_of.user_id),
        (select settings.default_org_id from tenancy.settings)
    )
$function$;
comment on function tenancy.org_of(uuid) is 'The organization of a user: from tenancy.user_orgs, else the default organization. Never NULL.';

create or replace function tenancy.create_personal_organizations()
returns bigint language plpgsql volatile security invoker set search_path = '' as $function$
declare
    created bigint;
begin
    if exists (select from org_migration.tables_before) and not exists (select from tenancy.user_orgs) then
        raise exception 'the rows belong to the default organization already: personal organizations must be created before phase 2;'
            ' roll back to phase 1 first, see tenancy.roll_back'
        using errcode = 'object_not_in_prerequisite_state';
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
        select personal.org_id, personal.name
        from personal
    )
    insert into tenancy.user_orgs (user_id, org_id)
    select personal.user_id, personal.org_id
    from personal;

    get diagnostics created = row_count;
    return created;
end
$function$;
comment on function tenancy.create_personal_organizations() is
'Gives every user who is in no organization one of its own, named by email, phone or id. Returns how many. To be called before'
' phase 2, and again whenever there are new users. Fails where public.organizations requires more than id and name.';

create table if not exists org_migration.tables_before (
    relation regclass primary key,
    row_count bigint not null,
    rows_inserted bigint not null,
    rows_deleted bigint not null,
    follows_org_id boolean not null,
    parts text[] not null,
    counted_at timestamptz not null default clock_timestamp()
);
comment on table org_migration.tables_before is
'Each table as it was: how many rows, so that none can be lost unseen, and which parts it had already, so that undo leaves them.';
comment on column org_migration.tables_before.rows_inserted is
'The statistics'' count of rows ever inserted, to tell the application''s own changes apart.';
comment on column org_migration.tables_before.follows_org_id is
'True if a table that it references had org_id then: its rows follow those, and do not all belong to the default organization.';
comment on column org_migration.tables_before.parts is 'Of tenancy.parts those that were present, each as "part name".';
