-- Purpose: opt-in: which organization everyone gets who signs up from now on.
-- Touches: new objects in the schema tenancy only. Nothing is switched on: tenancy.enable_new_users is for you to call.
-- Locks:   none that anyone waits for.
-- Undo:    tenancy.disable_new_users(), then as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace function tenancy.create_organization(organization_name text)
returns uuid language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $function$
declare
    new_id constant uuid := gen_random_uuid();
    -- Of varchar (n) the modifier is n + 4.
    name_modifier constant integer := (
        select attribute.atttypmod
        from pg_attribute as attribute
        where attribute.attrelid = to_regclass('public.organizations') and attribute.attname = 'name' and not attribute.attisdropped
    );
begin
    if name_modifier is null then
        insert into public.organizations (id) values (new_id);
        return new_id;
    end if;
    begin
        insert into public.organizations (id, name)
        values (new_id, left(organization_name, case when name_modifier > 4 then name_modifier - 4 else 255 end));
    exception
        when unique_violation then
            insert into public.organizations (id, name)
            values (new_id, left(new_id::text, case when name_modifier > 4 then name_modifier - 4 else 255 end));
    end;
    return new_id;
end
$function$;
comment on function tenancy.create_organization(text) is
'Inserts an organization of this name, where organizations have one, cut to its length, or of its id where the name is taken; returns its id. Security definer, because the Auth server calls'
' it through tenancy.set_org_of_new_user.';

create or replace function tenancy.create_personal_organizations()
returns bigint language plpgsql volatile security invoker set search_path = '' as $function$
declare
    org_scoped regclass;
    is_taken boolean;
    created bigint;
    decided_at timestamptz := (select settings.rows_decided_at from tenancy.settings);
begin
    if to_regnamespace('org_migration') is not null then
        select max(tables_before.counted_at)
        into decided_at
        from org_migration.tables_before
        where exists (select from org_migration.backfills);
    end if;
    if not (select mapping_state.is_filled from tenancy.mapping_state)
        and (select settings.new_users is distinct from 'personal' from tenancy.settings)
    then
        for org_scoped in
            select org_id_columns.relation
            from tenancy.org_id_columns
            where org_id_columns.is_root and org_id_columns.attnum is not null
        loop
            execute format('select exists (select from %s where org_id = $1)', org_scoped)
            into is_taken
            using (select settings.default_org_id from tenancy.settings);
            if is_taken then
                raise exception 'rows of % belong to the default organization already: personal organizations must be created before phase 2, or'
                    ' after tenancy.roll_back(1)', org_scoped
                using errcode = 'object_not_in_prerequisite_state';
            end if;
        end loop;
    end if;

    insert into tenancy.user_orgs (user_id, org_id)
    select users.id, tenancy.create_organization(coalesce(users.email, users.phone, users.id::text))
    from auth.users
    cross join tenancy.settings
    where (settings.new_users_anonymous or not users.is_anonymous)
        and users.id not in (select user_orgs.user_id from tenancy.user_orgs)
        -- Rows of who was there when rows were decided are in the default organization: they are to be placed by hand.
        and coalesce(users.created_at > decided_at, true)
        and (users.deleted_at is null or decided_at is null)
        and tenancy.organization_named(users.raw_app_meta_data ->> 'org_id') is null;

    get diagnostics created = row_count;
    return created;
end
$function$;
comment on function tenancy.create_personal_organizations() is
'Gives every user who is in no organization one of its own, named by email, phone or id; not those whom app_metadata.org_id places,'
' anonymous ones only with settings.new_users_anonymous, and soft-deleted ones only until their rows are decided. Returns how many. To be'
' called before phase 2, and again whenever there are new users. Raises object_not_in_prerequisite_state while the mapping is empty and rows belong to the default organization. Fails where'
' public.organizations requires more than id and name.';

create or replace function tenancy.set_org_of_new_user()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $function$
declare
    settings tenancy.settings;
    claimed constant uuid := tenancy.organization_named(new.raw_app_meta_data ->> 'org_id');
    org_id uuid;
begin
    select * into settings from tenancy.settings;
    if settings.new_users is null or tg_op = 'UPDATE' and not (old.is_anonymous and not new.is_anonymous) then
        return new;
    end if;

    select user_orgs.org_id into org_id from tenancy.user_orgs where user_orgs.user_id = new.id;
    if not found then
        if claimed is not null then
            org_id := claimed;
        elsif settings.new_users = 'application' or new.is_anonymous and not settings.new_users_anonymous then
            org_id := null;
        elsif settings.new_users = 'default' then
            org_id := settings.default_org_id;
        else
            org_id := tenancy.create_organization(coalesce(new.email, new.phone, new.id::text));
            insert into tenancy.user_orgs (user_id, org_id) values (new.id, org_id);
        end if;
    end if;

    -- For rows that a trigger of the application writes before the user is there; of several users in a transaction none is meant.
    perform set_config(
        'tenancy.org_of_sign_up',
        case
            when coalesce(current_setting('tenancy.org_of_sign_up', true), '') in ('', org_id::text) then coalesce(org_id::text, 'none')
            else 'several'
        end,
        true
    );
    if org_id is not null and claimed is null then
        new.raw_app_meta_data := case when jsonb_typeof(new.raw_app_meta_data) = 'object' then new.raw_app_meta_data else '{}' end
            || jsonb_build_object('org_id', org_id);
    end if;
    return new;
end
$function$;
comment on function tenancy.set_org_of_new_user() is
'Trigger function: gives a new user, or an anonymous one who becomes another, the organization that settings.new_users says, before any'
' trigger of the application writes rows of theirs. Who comes with the id of an organization in app_metadata keeps it; the mapping counts first.'
' While one of our tables or organizations is locked for over a second, the sign-up fails, and can be tried again: it neither holds one of the'
' Auth server''s few connections nor leaves a user without organization. Security definer, because the Auth server inserts users and may not'
' read tenancy.';

create or replace function tenancy.keep_org_of_new_user()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $function$
declare
    settings tenancy.settings;
    stored jsonb;
    named uuid;
    placed record;
    org_id uuid := tenancy.organization_named(new.raw_app_meta_data ->> 'org_id');
begin
    select * into settings from tenancy.settings;
    select users.raw_app_meta_data into stored from auth.users where users.id = new.id;
    if not found or settings.new_users is null or tg_op = 'UPDATE' and not (old.is_anonymous and not new.is_anonymous) then
        return null;
    end if;

    named := tenancy.organization_named(stored ->> 'org_id');
    select user_orgs.org_id, user_orgs.xmin = pg_current_xact_id()::xid as is_new into placed from tenancy.user_orgs where user_orgs.user_id = new.id;
    if found and named <> placed.org_id and placed.is_new and settings.new_users = 'personal' then
        update tenancy.user_orgs set org_id = named where user_orgs.user_id = new.id;
    elsif named is null then
        org_id := case when found then placed.org_id else org_id end;
        update auth.users
        set raw_app_meta_data = case when jsonb_typeof(stored) = 'object' then stored else '{}' end || jsonb_build_object('org_id', org_id)
        where users.id = new.id and org_id is not null;
    end if;
    return null;
end
$function$;
comment on function tenancy.keep_org_of_new_user() is
'Trigger function, at the commit of a sign-up: writes the organization again that set_org_of_new_user gave, or the mapping has by now, where'
' app_metadata has lost it: the Auth server rewrites it from memory when an administrator creates a user with app_metadata, and when an'
' anonymous user gets an identity. One that the'
' administrator names there takes the place of a personal organization, which stays. Security definer, as set_org_of_new_user.';

create or replace function tenancy.place_who_is_there()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    rows_are_there boolean := (select settings.rows_decided_at is not null from tenancy.settings);
begin
    if to_regnamespace('org_migration') is not null then
        rows_are_there := exists (select from org_migration.tables_before);
    end if;
    if rows_are_there and not (select mapping_state.is_filled from tenancy.mapping_state) then
        insert into tenancy.user_orgs (user_id, org_id)
        select placed_users.user_id, placed_users.org_id
        from tenancy.placed_users
        where placed_users.org_id is not null
        on conflict do nothing;
    end if;
end
$function$;
comment on function tenancy.place_who_is_there() is
'Begins the mapping: who is there already stays in the default organization, where their rows are, or in that of app_metadata, and does not'
' leave it when the first other user is placed. Does nothing where there is a mapping, or before the push.';

create or replace function tenancy.enable_new_users(mode text, anonymous boolean default false)
-- Longer than a second, after which autovacuum gives way.
returns void language plpgsql volatile security invoker set search_path = '' set lock_timeout = '1500ms' as $function$
declare
    required constant text := (select required_organization_columns.column_names from tenancy.required_organization_columns);
begin
    if mode is null or mode not in ('default', 'personal', 'application') then
        raise exception 'new users cannot be %: it is default (the default organization), personal (one of their own) or application (yours'
            ' places them)', coalesce(quote_literal(mode), 'NULL')
        using errcode = 'invalid_parameter_value';
    elsif mode = 'personal' and required is not null then
        raise exception 'public.organizations requires %, so no personal organization can be made when somebody signs up: give that a default,'
            ' or choose application and make it yourself', required
        using errcode = 'object_not_in_prerequisite_state';
    end if;

    if mode = 'personal' then
        begin
            perform tenancy.create_organization('a trial');
            raise exception using errcode = 'OKAY0';
        exception
            when sqlstate 'OKAY0' then
                null;
            when others then
                raise exception 'no personal organization can be made when somebody signs up: %; choose application and make it yourself', sqlerrm
                using errcode = 'object_not_in_prerequisite_state';
        end;
    end if;

    if mode <> 'default' then
        perform tenancy.place_who_is_there();
    end if;

    update tenancy.settings
    set new_users = mode, new_users_anonymous = anonymous;
    -- Nobody who signs up waits for the check of the list: it makes the triggers at its end.
    if not exists (select from tenancy.registry where table_oid is not null) then
        return;
    end if;

    if not exists (
        select from pg_catalog.pg_trigger
        where tgrelid = 'auth.users'::regclass and tgfoid = 'tenancy.set_org_of_new_user()'::regprocedure and tgenabled in ('O', 'A')
    ) then
        -- The first of its kind: a trigger of the application may write rows of the user before the user is inserted.
        create or replace trigger "!assign_org_to_new_user"
        before insert or update of is_anonymous on auth.users
        for each row execute function tenancy.set_org_of_new_user();
    end if;
    if not exists (
        select from pg_catalog.pg_trigger
        where tgrelid = 'auth.users'::regclass and tgfoid = 'tenancy.keep_org_of_new_user()'::regprocedure
    ) then
        create constraint trigger tenancy_keep_org_of_new_user
        after insert or update of is_anonymous on auth.users deferrable initially deferred
        for each row execute function tenancy.keep_org_of_new_user();
    end if;
end
$function$;
comment on function tenancy.enable_new_users(text, boolean) is
'Opt-in: which organization everyone gets who signs up from now on. default: the default organization; the risk: anyone who can sign up is'
' then a member of it and sees its rows. personal: one of their own, in the transaction of the sign-up. application: yours sets'
' app_metadata.org_id or inserts into tenancy.user_orgs. anonymous: whether that counts for anonymous users; if not, it does once they add an'
' email address or another identity. A user whom an administrator'
' creates with the org_id of an organization keeps that. While nothing is chosen, who signs up belongs to the default organization as long'
' as the mapping is empty, and otherwise to none. Raises invalid_parameter_value for any other mode, object_not_in_prerequisite_state where'
' organizations requires more columns than a personal one has. Locks auth.users for a moment, waiting 1.5 seconds at most; before the push it only'
' notes the choice, and tenancy.assert_registry() makes the triggers, so that no sign-up waits for the check of the list.';

create or replace function org_migration.follow_sign_ups()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    settings tenancy.settings;
begin
    select * into settings from tenancy.settings;
    if settings.new_users is not null then
        perform tenancy.enable_new_users(settings.new_users, settings.new_users_anonymous);
    end if;
    -- Who signed up since the mapping was made, and before the triggers were there.
    if settings.new_users = 'personal' then
        perform tenancy.create_personal_organizations();
    end if;
end
$function$;
comment on function org_migration.follow_sign_ups() is
'What the list''s file does last: makes the triggers of tenancy.enable_new_users, if that was called, and with personal organizations gives one'
' to whoever signed up meanwhile.';

create or replace function tenancy.disable_new_users()
returns void language sql volatile security invoker set search_path = '' as $function$
    update tenancy.settings
    set new_users = null, new_users_anonymous = false
$function$;
comment on function tenancy.disable_new_users() is
'Undo of enable_new_users. The triggers stay and do nothing, since dropping them takes the owner of auth.users.';
