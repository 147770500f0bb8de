-- Purpose: how a row is decided, and the filler: rows that come without org_id get the organization that the backfill would give them.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view org_migration.source_rules as
with source as (
    select
        sources.*,
        bool_and(sources.kind = 'organization') over (partition by sources.root order by sources.ordinal) as is_named,
        string_agg(sources.org_id, ', ') filter (where sources.kind = 'parent') over later as parents,
        string_agg(sources.description, ' or ') filter (where sources.kind = 'parent') over later as parents_in_words,
        string_agg(format('%s and %s is null', sources.condition, sources.org_id), ' or ') filter (where sources.kind = 'parent') over later
            as no_parent_yet
    from tenancy.sources
    window later as (partition by sources.root order by sources.ordinal rows between 1 following and unbounded following)
)
select
    source.root, source.ordinal, false as by_memberships, source.attnums, source.description, source.joins, '' as member_joins,
    source.org_id as cautious_org_id, source.org_id, source.condition, source.user_id, source.is_named
from source
union all
select
    source.root, source.ordinal, true, source.attnums,
    source.description
        || case when source.kind = 'owner' then coalesce(format(' (of several organizations that of %s)', source.parents_in_words), '') else '' end,
    source.joins, coalesce(member.joins, ''),
    case
        when member.org_id is null then source.org_id
        else format(
            'case when (%1$s) and exists (select from tenancy.memberships as other_%2$s where other_%2$s.user_id operator(pg_catalog.=) %3$s'
            ' and other_%2$s.org_id operator(pg_catalog.<>) %4$s) then null else %5$s end',
            source.no_parent_yet, source.ordinal, source.user_id, source.org_id, member.org_id
        )
    end,
    coalesce(member.org_id, source.org_id), source.condition, source.user_id, source.is_named
from source
left join lateral (
    select
        format('coalesce(member_%s.org_id, %s)', source.ordinal, source.org_id),
        format(
            E'\nleft join lateral (select memberships.org_id from tenancy.memberships'
            ' where memberships.user_id operator(pg_catalog.=) %1$s and memberships.org_id operator(pg_catalog.=) any (array[%2$s])'
            ' order by pg_catalog.array_position(array[%2$s], memberships.org_id) limit 1) as member_%3$s on true',
            source.user_id, source.parents, source.ordinal
        )
    where source.kind = 'owner' and source.parents is not null
) as member (org_id, joins) on true;
comment on view org_migration.source_rules is
'tenancy.sources as rules, without and with memberships. by_memberships: of an owner who is in several organizations the first parent after'
' the owner decides that is in one of them, else the active organization; cautious_org_id waits for such parents. is_named: the row itself names'
' its organization, and no source of another kind goes before.';

create or replace view tenancy.decisions as
select
    decided.relation as root,
    (select mapping_state.is_filled from tenancy.mapping_state)
        or coalesce(
            tables_before.follows_org_id,
            decided.relation in (select following_tables.relation from org_migration.following_tables)
        )
        or coalesce((select claimed_organizations.row_count > 0 from org_migration.claimed_organizations), false) as is_per_row,
    concat_ws(', else ', described.sources, 'the default organization') as in_words,
    tables_before.relation is not null as has_begun
from tenancy.application_tables as decided
left join org_migration.tables_before on tables_before.relation = decided.relation
left join (
    select rule.root, string_agg(rule.description, ', else ' order by rule.ordinal) as sources
    from org_migration.source_rules as rule
    where rule.by_memberships = exists (select from tenancy.memberships)
    group by rule.root
) as described on described.root = decided.relation
where decided.scope = 'org';
comment on view tenancy.decisions is
'What decides each org-scoped table''s rows, in words. is_per_row: true while there is a mapping, a user has another organization than the'
' default one in app_metadata, or a row can follow one that had its organization before; false: all rows belong to the default organization,'
' and phase 2 says so in the catalog. has_begun: phase 2 has looked at the table.';

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
    format('coalesce(%snull::pg_catalog.uuid)', decided.named_org_ids) as named_org_id,
    coalesce(decided.joins, '') as joins,
    variant.by_memberships
from tenancy.application_tables as decided_table
cross join tenancy.settings
cross join (values (false), (true)) as variant (by_memberships)
-- All sources once, and not once per table.
left join (
    select
        rule.root, rule.by_memberships, count(*) as sources,
        string_agg(format(E'\nwhen %s then %s', rule.condition, replace(rule.cautious_org_id, '{child}', 'todo')), '' order by rule.ordinal)
            as cautiously,
        string_agg(format(E'\nwhen %1$s is not null then %1$s', rule.org_id), '' order by rule.ordinal) as at_last,
        string_agg(format(' or %s', rule.condition), '' order by rule.ordinal) as cautious_conditions,
        string_agg(format(' or %s is not null', rule.org_id), '' order by rule.ordinal) as last_conditions,
        string_agg(rule.org_id, ', ' order by rule.ordinal) as org_ids,
        string_agg(rule.org_id || ', ', '' order by rule.ordinal) filter (where rule.is_named) as named_org_ids,
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
        replace(
            string_agg(rule.joins, '' order by rule.ordinal) || string_agg(rule.member_joins, '' order by rule.ordinal), '{child}', 'todo'
        ) as joins
    from org_migration.source_rules as rule
    group by rule.root, rule.by_memberships
) as decided on decided.root = decided_table.relation and decided.by_memberships = variant.by_memberships
where decided_table.scope = 'org';
comment on view org_migration.decision_rules is
'How each table''s rows are decided, as forms of SQL (tenancy.with_names) over the row, named todo, and its joins. org_id leaves a row'
' undecided (NULL) whose parent is there and has no organization yet; last_org_id passes such parents over. is_orphan: nothing decides.'
' user_ids: the users whom it names. by_memberships: which of the two rows of a table counts while tenancy.memberships has rows, and which while it'
' has none, so that nobody pays for memberships who has none.';

create table if not exists org_migration.fillers (
    table_oid oid primary key,
    home_oid oid not null,
    entries jsonb not null,
    form text not null,
    members_form text not null,
    counter regclass
);
comment on table org_migration.fillers is
'How the filler of each table decides, as it was when the filler was made: a form, so that it means the same after a rename.';
comment on column org_migration.fillers.table_oid is 'The table''s oid, as a number.';
comment on column org_migration.fillers.home_oid is
'The oid of this table: a row with another one is of another database, where numbers mean other tables, and does not count.';
comment on column org_migration.fillers.entries is 'The numbers of the columns of each entry of registry.org_from, as {"user_id": [3]}.';
comment on column org_migration.fillers.members_form is 'The form while tenancy.memberships has rows; form is for while it has none.';
comment on column org_migration.fillers.counter is 'The sequence that counts the rows it filled, see tenancy.filled_rows.';

create or replace view org_migration.filler_forms as
select
    decided.root,
    max(decided.form) filter (where not decided.by_memberships) as form,
    max(decided.form) filter (where decided.by_memberships) as members_form
from (
    select
        decision_rules.root, decision_rules.by_memberships,
        format(
            'select %s, %s, %s, %s from (select ($1::@r%s@).*) as todo %s', decision_rules.org_id, decision_rules.is_orphan,
            decision_rules.user_ids, decision_rules.named_org_id, decision_rules.root::oid, decision_rules.joins
        ) as form
    from org_migration.decision_rules
) as decided
group by decided.root;
comment on view org_migration.filler_forms is
'The query of each table''s filler, as a form over the row $1: its organization, whether nothing decides, the users whom it names, and the'
' organization that it names itself. members_form: the same while tenancy.memberships has rows.';

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
            filler_forms.root::oid, 'org_migration.fillers'::regclass::oid, coalesce(named.entries, '{}'), filler_forms.form,
            filler_forms.members_form, counter.oid::regclass
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
            members_form = excluded.members_form,
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
where (fillers.form, fillers.members_form) is distinct from (filler_forms.form, filler_forms.members_form)
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

create or replace function org_migration.org_of_orphan(user_ids uuid[], caller uuid)
returns uuid language sql stable security invoker set search_path = pg_catalog, pg_temp as $function$
    select coalesce(
        (select min(placed_users.org_id::text)::uuid from tenancy.placed_users where placed_users.user_id = any (user_ids)),
        -- Whose token may be older than the push.
        (select placed_users.org_id from tenancy.placed_users where placed_users.user_id = caller),
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
comment on function org_migration.org_of_orphan(uuid[], uuid) is
'The organization of a row that nothing decides and that names these users: of one whom tenancy.placed_users places, of the caller, of the user'
' who signs up in this transaction, or, while the mapping is empty and it names nobody who is in none, the default one. NULL: it is refused.';

create or replace function org_migration.filler_query(root regclass)
returns text language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $function$
declare
    by_memberships constant boolean := exists (select from tenancy.memberships);
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
            select tenancy.with_names(case when by_memberships then fillers.members_form else fillers.form end)
            from org_migration.fillers
            where fillers.table_oid = root::oid and fillers.home_oid = 'org_migration.fillers'::regclass
        ),
        (
            select tenancy.with_names(case when by_memberships then filler_forms.members_form else filler_forms.form end)
            from org_migration.filler_forms
            where filler_forms.root = filler_query.root
        ),
        'select null::uuid, true, null::uuid[], null::uuid'
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
    claims jsonb;
    caller uuid;
    of_token uuid;
    named uuid;
    decided uuid;
    is_orphan boolean;
    user_ids uuid[];
begin
    -- Most rows have what they name. Below, what is not the token's, which is the default, was sent.
    if new.org_id is not null and not exists (
        select from unnest(tg_argv) as its (name), to_jsonb(new) as todo where not todo ? its.name or todo ->> its.name <> new.org_id::text
    ) then
        return new;
    end if;
    begin
        claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
        of_token := tenancy.organization_named(claims #>> '{app_metadata,org_id}');
        caller := claims ->> 'sub';
    exception
        when data_exception then
            null;
    end;
    if new.org_id <> of_token or of_token is null and new.org_id is not null then
        return new;
    end if;
    select fillers.*
    into filler
    from org_migration.fillers
    where fillers.table_oid = root::oid and fillers.home_oid = 'org_migration.fillers'::regclass;
    perform nextval(filler.counter) from pg_class where pg_class.oid = filler.counter and new.org_id is null;
    execute coalesce(
        tenancy.with_names(case when exists (select from tenancy.memberships) then filler.members_form else filler.form end),
        org_migration.filler_query(root)
    )
    into decided, is_orphan, user_ids, named using new;
    decided := coalesce(named, of_token, case when not is_orphan then decided end);
    if decided is null and is_orphan then
        decided := org_migration.org_of_orphan(user_ids, caller);
        if decided is null then
            perform org_migration.refuse_row_without_organization(root);
        end if;
    end if;
    perform nextval(filler.counter) from pg_class where pg_class.oid = filler.counter and new.org_id <> decided;
    new.org_id := decided;
    return new;
end
$function$;
comment on function tenancy.fill_org_id() is
'Trigger function of the filler, for rows without org_id: the organization that the row itself names, else that of the token, else that of'
' org_migration.decision_rules; of a row that'
' nothing decides that of the caller, else the default organization while the mapping is empty, and with one, only if it names a user whom settings.new_users puts'
' there; or else that of the user who signs up in this transaction. Any other row is refused. Security definer, because whoever inserts a'
' row may neither read tenancy.user_orgs nor see the parent row; it decides from the row alone and returns nothing else of what it reads.';
