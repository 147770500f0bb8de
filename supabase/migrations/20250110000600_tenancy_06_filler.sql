-- Purpose: how a row is decided, and the filler: rows that come without org_id get the organization that the backfill would give them.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view org_migration.decision_rules as
select
    decided_table.relation as root,
    format('case when false then null %s else %L::pg_catalog.uuid end', decided.cautiously, settings.default_org_id) as org_id,
    format('case when false then null %s else %L::pg_catalog.uuid end', decided.at_last, settings.default_org_id) as last_org_id,
    case when decided_table.org_from = '{}' then 'false' else format('not (false %s)', decided.cautious_conditions) end as is_orphan,
    case when decided_table.org_from = '{}' then 'false' else format('not (false %s)', decided.last_conditions) end as is_last_orphan,
    case
        when coalesce(decided.sources, 0) < 2 then 'false'
        else format(
            'least(%1$s) operator(pg_catalog.<>) greatest(%1$s)', decided.org_ids
        )
    end as is_conflict,
    format('pg_catalog.jsonb_build_object(%s)', decided.candidates) as candidates,
    format('array[%s]::pg_catalog.uuid[]', decided.user_ids) as user_ids,
    coalesce(decided.joins, '') as joins
from tenancy.application_tables as decided_table
cross join tenancy.settings
-- All sources once, and not once per table.
left join (
    select
        rule.root, count(*) as sources,
        string_agg(format(E'\nwhen %s then %s', rule.condition, rule.org_id), '' order by rule.ordinal) as cautiously,
        string_agg(format(E'\nwhen %1$s is not null then %1$s', rule.org_id), '' order by rule.ordinal) as at_last,
        string_agg(format(' or %s', rule.condition), '' order by rule.ordinal) as cautious_conditions,
        string_agg(format(' or %s is not null', rule.org_id), '' order by rule.ordinal) as last_conditions,
        string_agg(rule.org_id, ', ' order by rule.ordinal) as org_ids,
        string_agg(
            format(
                'pg_catalog.concat_ws('', '', %s), %s',
                (select string_agg(format('@n%s.%s@', rule.root::oid, key.attnum), ', ') from unnest(rule.attnums) as key (attnum)),
                rule.org_id
            ),
            ', '
            order by rule.ordinal
        ) as candidates,
        string_agg(replace(rule.user_id, '{child}', 'todo'), ', ' order by rule.ordinal) as user_ids,
        string_agg(replace(rule.joins, '{child}', 'todo'), '' order by rule.ordinal) as joins
    from tenancy.sources as rule
    group by rule.root
) as decided on decided.root = decided_table.relation
where decided_table.scope = 'org';
comment on view org_migration.decision_rules is
'How each table''s rows are decided, as forms of SQL (tenancy.with_names) over the row, named todo, and its joins. org_id leaves a row'
' undecided (NULL) whose parent is there and has no organization yet; last_org_id passes such parents over. is_orphan: nothing decides.'
' user_ids: the users whom it names.';

create table if not exists org_migration.fillers (
    table_oid oid primary key,
    home_oid oid not null,
    entries jsonb not null,
    form text not null,
    counter regclass
);
comment on table org_migration.fillers is
'How the filler of each table decides, as it was when the filler was made: a form, so that it means the same after a rename.';
comment on column org_migration.fillers.table_oid is 'The table''s oid, as a number.';
comment on column org_migration.fillers.home_oid is
'The oid of this table: a row with another one is of another database, where numbers mean other tables, and does not count.';
comment on column org_migration.fillers.entries is 'The numbers of the columns of each entry of registry.org_from, as {"user_id": [3]}.';
comment on column org_migration.fillers.counter is 'The sequence that counts the rows it filled, see tenancy.filled_rows.';

create or replace view org_migration.filler_forms as
select
    decision_rules.root,
    format(
        'select %s, %s, %s from (select ($1::@r%s@).*) as todo %s', decision_rules.org_id, decision_rules.is_orphan, decision_rules.user_ids,
        decision_rules.root::oid, decision_rules.joins
    ) as form
from org_migration.decision_rules;
comment on view org_migration.filler_forms is
'The query of each table''s filler, as a form over the row $1: its organization, whether nothing decides, and the users whom it names.';

create or replace view tenancy.filled_rows as
select class.oid::regclass as relation, coalesce(pg_sequence_last_value(counter.oid), 0) as rows
from org_migration.fillers
join pg_catalog.pg_class as class on class.oid = fillers.table_oid
left join pg_catalog.pg_class as counter on counter.oid = fillers.counter;
comment on view tenancy.filled_rows is
'How many rows each table''s filler has given their organization since it was made, those of inserts that failed later included. While a'
' number grows, something still inserts without org_id.';

create or replace function org_migration.prepare_fillers(target regclass default null, with_counters boolean default true)
returns void language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    prepared org_migration.fillers;
begin
    delete from org_migration.fillers
    where fillers.home_oid <> 'org_migration.fillers'::regclass;
    perform tenancy.note_tables();

    for prepared in
        select
            filler_forms.root::oid, 'org_migration.fillers'::regclass::oid, coalesce(named.entries, '{}'), filler_forms.form, counter.oid::regclass
        from org_migration.filler_forms
        left join (
            select sources.root, jsonb_object_agg(sources.entry, sources.attnums) as entries
            from tenancy.sources
            group by sources.root
        ) as named on named.root = filler_forms.root
        left join org_migration.fillers on fillers.table_oid = filler_forms.root::oid
        left join pg_catalog.pg_class as counter on counter.oid = fillers.counter
        where filler_forms.root = coalesce(target, filler_forms.root)
    loop
        if prepared.counter is null and with_counters then
            prepared.counter := org_migration.create_counter(prepared.table_oid);
        end if;
        insert into org_migration.fillers
        select prepared.*
        on conflict (table_oid) do update
        set
            entries = excluded.entries,
            form = excluded.form,
            counter = excluded.counter;
    end loop;
end
$function$;
comment on function org_migration.prepare_fillers(regclass, boolean) is
'Notes how the filler of a table decides, or those of all (NULL), from the registry and the foreign keys as they are now. with_counters:'
' creates the counters that are missing, which an insert must not, since others would wait for it.';

create or replace function org_migration.create_counter(target regclass)
returns regclass language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    counter_name text := format('filled_%s_%s', tenancy.schema_of(target), tenancy.table_of(target));
begin
    if octet_length(counter_name) > 63 then
        counter_name := format('filled_%s', md5(counter_name));
    end if;
    -- Another table may have had the name before.
    if exists (select from org_migration.fillers where fillers.counter = to_regclass(format('org_migration.%I', counter_name))) then
        counter_name := format('filled_%s', target::oid);
    end if;
    execute format('create sequence if not exists org_migration.%I', counter_name);
    execute format('revoke all on sequence org_migration.%I from public, anon, authenticated, service_role', counter_name);
    return format('org_migration.%I', counter_name)::regclass;
end
$function$;
comment on function org_migration.create_counter(regclass) is 'Creates the sequence that counts what a table''s filler fills, and returns it.';

create or replace function org_migration.forget_fillers()
returns void language plpgsql volatile security invoker set search_path = '' as $function$
declare
    forgotten regclass;
begin
    for forgotten in
        select counter.oid
        from org_migration.fillers
        join pg_catalog.pg_class as counter on counter.oid = fillers.counter
    loop
        execute format('drop sequence %s', forgotten);
    end loop;
    delete from org_migration.fillers;
end
$function$;
comment on function org_migration.forget_fillers() is 'Forgets how the fillers decide and what they have counted, once they are off.';

create or replace view tenancy.filler_findings as
select
    'filler_outdated' as code, 'breaks' as severity, application_tables.qualified_name as object, application_tables.qualified_name as table_name,
    'has a filler that does not decide as the backfill would, or does not count: the registry, a foreign key or a type has changed' as problem,
    'do $$ begin while tenancy.advance(''filler'') loop commit; end loop; end $$' as remedy
from org_migration.filler_forms
join tenancy.application_tables on application_tables.relation = filler_forms.root
left join org_migration.fillers
    on fillers.table_oid = filler_forms.root::oid
    and fillers.home_oid = 'org_migration.fillers'::regclass
    and fillers.counter::oid in (select pg_class.oid from pg_catalog.pg_class)
where fillers.form is distinct from filler_forms.form
    and exists (
        select from pg_catalog.pg_trigger
        where tgrelid = filler_forms.root and tgfoid = to_regprocedure('tenancy.fill_org_id()')
    );
comment on view tenancy.filler_findings is 'Fillers that decide otherwise than the registry and the foreign keys say now.';

create or replace function org_migration.refuse_row_without_organization(target regclass)
returns void language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    columns constant text := (select string_agg(sources.entry, ', ' order by sources.ordinal) from tenancy.sources where sources.root = target);
begin
    raise exception '% got a row without org_id, and nothing says whose it is: the statement did not send it, the token has no'
        ' app_metadata.org_id, and no organization follows from %; send org_id, or place the user in tenancy.user_orgs, see'
        ' tenancy.enable_new_users for those who sign up', target, coalesce('its ' || columns, 'any of its columns')
    using
        errcode = 'not_null_violation',
        schema = tenancy.schema_of(target), table = tenancy.table_of(target), column = 'org_id';
end
$function$;
comment on function org_migration.refuse_row_without_organization(regclass) is
'Raises not_null_violation for a row that the filler cannot place, naming the table, the column and what to do.';

create or replace function org_migration.org_of_orphan(user_ids uuid[])
returns uuid language sql stable security invoker set search_path = pg_catalog, pg_temp as $function$
    select coalesce(
        (select min(placed_users.org_id::text)::uuid from tenancy.placed_users where placed_users.user_id = any (user_ids)),
        tenancy.organization_named(current_setting('tenancy.org_of_sign_up', true)),
        (
            select settings.default_org_id
            from tenancy.settings
            where not (select mapping_state.is_filled from tenancy.mapping_state)
                -- Nobody who is in none is put there.
                and not exists (select from tenancy.placed_users where placed_users.user_id = any (user_ids) and not placed_users.is_anonymous)
        )
    )
$function$;
comment on function org_migration.org_of_orphan(uuid[]) is
'The organization of a row that nothing decides and that names these users: of one whom tenancy.placed_users places, of the user who signs up'
' in this transaction, or, while the mapping is empty and it names nobody who is in none, the default one. NULL: it is refused.';

create or replace function org_migration.filler_query(root regclass)
returns text language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
begin
    -- One session at a time, and never in the way of an insert: who does not get here does without what is noted.
    if pg_try_advisory_xact_lock(hashtext('org_migration.filler_query')) then
        begin
            perform org_migration.prepare_fillers(root, with_counters => false);
        exception
            when serialization_failure or deadlock_detected or lock_not_available or unique_violation then
                null;
        end;
    end if;
    return coalesce(
        (
            select tenancy.with_names(fillers.form)
            from org_migration.fillers
            where fillers.table_oid = root::oid and fillers.home_oid = 'org_migration.fillers'::regclass
        ),
        (select tenancy.with_names(filler_forms.form) from org_migration.filler_forms where filler_forms.root = filler_query.root),
        'select null::uuid, true, null::uuid[]'
    );
end
$function$;
comment on function org_migration.filler_query(regclass) is
'The query of a filler that has no form, or whose form names what is gone or of another type: as the registry and the catalog are now.';

create or replace function tenancy.fill_org_id()
returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $function$
declare
    root constant regclass := coalesce(pg_partition_root(tg_relid), tg_relid);
    filler org_migration.fillers;
    is_orphan boolean;
    user_ids uuid[];
begin
    select fillers.*
    into filler
    from org_migration.fillers
    where fillers.table_oid = root::oid and fillers.home_oid = 'org_migration.fillers'::regclass;
    perform nextval(filler.counter) from pg_class where pg_class.oid = filler.counter;

    -- A statement that sends NULL has the token's organization no less than one that sends nothing.
    begin
        new.org_id := tenancy.organization_named(nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{app_metadata,org_id}');
    exception
        when data_exception then
            null;
    end;
    if new.org_id is null then
        execute coalesce(tenancy.with_names(filler.form), org_migration.filler_query(root))
        into new.org_id, is_orphan, user_ids
        using new;
    end if;
    if is_orphan then
        new.org_id := org_migration.org_of_orphan(user_ids);
        if new.org_id is null then
            perform org_migration.refuse_row_without_organization(root);
        end if;
    end if;
    return new;
end
$function$;
comment on function tenancy.fill_org_id() is
'Trigger function of the filler, for rows without org_id: the organization of the token, else that of org_migration.decision_rules; of a row that'
' nothing decides the default organization while the mapping is empty, and with one, only if it names a user whom settings.new_users puts'
' there; or else that of the user who signs up in this transaction. Any other row is refused. Security definer, because whoever inserts a'
' row may neither read tenancy.user_orgs nor see the parent row; it decides from the row alone and returns nothing else of what it reads.';
