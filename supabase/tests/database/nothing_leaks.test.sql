-- For the CI of an application: nobody reaches rows of another organization. It needs no user and no organization, since a token is
-- all that it takes to be one: it takes those that are there, or else makes ids up. Of each isolated table it asks for the rows that
-- are there, and for two more where the table takes them: without triggers, and taken back at the end.
begin;
set local role postgres;
set local search_path = extensions, public;
select plan(4);

-- What you have looked at and want so, by code and object as tenancy.review has them. Yours to fill:
create temp table accepted (code text, object text, reason text not null);
-- insert into accepted values ('policy_without_to', '"listings are public"', 'everyone may look at the market');

select is_empty(
    $$
        select leaks.code, leaks.table_name, leaks.object, leaks.problem, leaks.remedy
        from (
            select review.* from tenancy.review
            union all
            select findings.* from tenancy.findings
        ) as leaks
        where leaks.severity = 'leaks'
            and exists (
                select from tenancy.application_tables
                where application_tables.isolated
                    and application_tables.qualified_name
                    = any (string_to_array(coalesce(leaks.table_name, application_tables.qualified_name), ', '))
            )
            and not exists (
                select from accepted
                where accepted.code = leaks.code and accepted.object = leaks.object
            )
        order by 1, 2, 3
    $$,
    'nothing is found that leaks rows of a table that is isolated, except what is accepted'
);

create temp table readers as
select row_number() over (order by found.preference, found.org_id) as number, found.org_id, found.user_id
from (
    select distinct on (candidates.org_id) candidates.*
    from (
        select 1 as preference, placed_users.org_id, placed_users.user_id
        from tenancy.placed_users
        where placed_users.org_id is not null
        union all
        select 2, organizations.id, gen_random_uuid()
        from public.organizations
        union all
        select 3, gen_random_uuid(), gen_random_uuid()
        from generate_series(1, 2)
    ) as candidates
    order by candidates.org_id, candidates.preference, candidates.user_id
) as found
order by 1
limit 2;

create temp table isolated as
select org_id_columns.relation, org_id_columns.is_root
from tenancy.org_id_columns
join tenancy.application_tables on application_tables.relation = org_id_columns.root
where application_tables.isolated
    and org_id_columns.attnum is not null;

-- A row of that organization with the owner's id in every uuid, so that policies which go by the user show it. What a sequence would
-- number has a number of its own, since a sequence takes nothing back.
create function pg_temp.insert_row(target regclass, organization uuid, owner uuid, number bigint)
returns void
language plpgsql
as $function$
begin
    perform set_config('session_replication_role', 'replica', true);
    execute (
        select format(
            'insert into %s (%s) overriding system value values (%s)', target, string_agg(quote_ident(attribute.attname), ', '),
            string_agg(
                format(
                    '%L::%s',
                    case
                        when attribute.attname = 'org_id' then organization::text
                        when filled.is_uuid or type.typcategory = 'S' then owner::text
                        when filled.is_numbered then (-number)::text
                        when type.typcategory = 'E'
                            then (select min(enumlabel) from pg_catalog.pg_enum where enumtypid in (type.oid, type.typbasetype))
                        else jsonb_build_object(
                            'A', '{}', 'B', 'false', 'D', now(), 'I', '127.0.0.1', 'N', '1', 'R', 'empty', 'T', '1 hour', 'U', '{}', 'V', '1'
                        ) ->> type.typcategory::text
                    end,
                    format_type(attribute.atttypid, attribute.atttypmod)
                ),
                ', '
            )
        )
        from pg_catalog.pg_attribute as attribute
        join pg_catalog.pg_type as type on type.oid = attribute.atttypid
        left join pg_catalog.pg_attrdef on adrelid = attribute.attrelid and adnum = attribute.attnum
        cross join lateral (
            select
                'uuid'::regtype in (type.oid, type.typbasetype),
                attribute.attidentity <> '' or coalesce(pg_get_expr(adbin, adrelid) ~ 'nextval\(', false)
        ) as filled (is_uuid, is_numbered)
        where attribute.attrelid = target
            and attribute.attnum > 0
            and not attribute.attisdropped
            and attribute.attgenerated = ''
            and (filled.is_uuid or filled.is_numbered or attribute.attnotnull and not attribute.atthasdef)
    );
    perform set_config('session_replication_role', 'origin', true);
exception
    -- A table may refuse such a row for whatever reason it has: then it is asked for its own.
    when others then
        null;
end
$function$;

-- The rows of other organizations that a user sees.
create function pg_temp.seen(organization uuid, reader uuid)
returns table (relation regclass, row_count bigint)
language plpgsql
as $function$
begin
    for relation in select isolated.relation from isolated order by isolated.relation::text loop
        begin
            perform set_config('request.jwt.claims', jsonb_build_object(
                'sub', reader, 'role', 'authenticated',
                'app_metadata', jsonb_strip_nulls(jsonb_build_object('org_id', organization))
            )::text, true);
            perform set_config('role', 'authenticated', true);
            execute format('select count(*) from %s where org_id is distinct from $1', relation) into row_count using organization;
            perform set_config('role', 'postgres', true);
        exception
            -- Without the privilege, and where a policy raises, whatever it is, no row is seen.
            when others then
                row_count := 0;
        end;
        if row_count > 0 then
            return next;
        end if;
    end loop;
end
$function$;

select pg_temp.insert_row(isolated.relation, other.org_id, reader.user_id, reader.number)
from isolated
join readers as reader on isolated.is_root
join readers as other on other.number <> reader.number;

select is_empty(
    $$ select seen.* from readers cross join lateral pg_temp.seen(org_id, user_id) as seen where number = 1 $$,
    'a user of one organization sees no row of another in a table that is isolated'
);
select is_empty(
    $$ select seen.* from readers cross join lateral pg_temp.seen(org_id, user_id) as seen where number = 2 $$,
    'nor does a user of the other'
);
select is_empty(
    $$ select seen.* from readers cross join lateral pg_temp.seen(null, user_id) as seen where number = 1 $$,
    'and one whose token has no organization sees none at all'
);

select * from finish();
rollback;
