begin;
set local role postgres;
set local search_path = public, extensions;
select plan(40);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();
create extension if not exists btree_gist with schema extensions;

create schema harbour;
create table harbour.berths (id integer primary key);
create table harbour.kinds (id integer primary key);
create table harbour.stays (
    id uuid primary key default gen_random_uuid(),
    user_id uuid references auth.users (id),
    berth_id integer references harbour.berths (id),
    kind_id integer references harbour.kinds (id),
    org_id uuid,
    name text,
    code text,
    during daterange
);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'stays', 'org', 'secondary', null),
    ('harbour', 'berths', 'org', 'secondary', null),
    ('harbour', 'kinds', 'excluded', null, 'a test');

-- What becomes of a key by its remedy, which is run in one go: definition, and code.
create function pg_temp.then(statement text)
returns text
language plpgsql
as $function$
declare
    codes text;
    remedy text;
    outcome text;
begin
    execute statement;
    select string_agg(review.code, ', '), string_agg(review.remedy, '; ')
    into codes, remedy
    from tenancy.review_choices as review
    where review.table_name = 'harbour.stays' and review.code in ('unique_per_owner', 'unique_global', 'index_by_owner');
    if codes is null then
        outcome := null;
    else
        execute regexp_replace(replace(remedy, ' concurrently', ''), '^leave it .*; or else: ', '');
        select concat_ws(': ', codes, case when remedy like 'leave it %' then 'left' end, string_agg(defined.definition, ', '))
        into outcome
        from (
            select regexp_replace(
                coalesce(
                    (select conname || ' ' || pg_get_constraintdef(pg_constraint.oid) from pg_constraint where conindid = indexrelid and contype <> 'f'),
                    pg_get_indexdef(indexrelid)
                ), '^.* ON harbour\.stays ', ''
            ) as definition
            from pg_index
            where indrelid = 'harbour.stays'::regclass and not indisprimary and pg_get_indexdef(indexrelid) ~ '\(org_id'
        ) as defined;
        if exists (select from tenancy.review_choices where table_name = 'harbour.stays' and code in ('unique_per_owner', 'unique_global', 'index_by_owner')) then
            outcome := outcome || ', and is still found';
        end if;
    end if;
    raise exception using errcode = 'OKAY0', message = coalesce(outcome, '');
exception
    when sqlstate 'OKAY0' then
        return sqlerrm;
end
$function$;
select is(
    pg_temp.then('alter table harbour.stays add constraint named unique nulls not distinct (user_id, name) include (code) deferrable initially deferred'),
    'unique_per_owner: named UNIQUE NULLS NOT DISTINCT (org_id, name) INCLUDE (code) DEFERRABLE INITIALLY DEFERRED',
    'a constraint keeps its name, how it takes nulls, what it includes, and when it is checked'
);
select is(
    pg_temp.then('alter table harbour.stays add constraint named unique (name, user_id, code)'), 'unique_per_owner: named UNIQUE (org_id, name, code)',
    'wherever the user stands in it'
);
select is(
    pg_temp.then('create unique index on harbour.stays (user_id desc, name collate "C" text_pattern_ops, lower(code)) include (during) nulls not distinct where code <> '', ('''),
    'unique_per_owner: USING btree (org_id, name COLLATE "C" text_pattern_ops, lower(code)) INCLUDE (during) NULLS NOT DISTINCT WHERE (code <> '', (''::text)',
    'an index keeps its collations, operator classes, expressions and condition'
);
select is(
    pg_temp.then('create unique index on harbour.stays ((name || '', '' || code)) with (fillfactor = 70)'),
    'unique_global: USING btree (org_id, (((name || '', ''::text) || code))) WITH (fillfactor=''70'')', 'and its storage parameters; a comma in text splits nothing'
);
select is(pg_temp.then('create unique index on harbour.stays (berth_id, user_id)'), '', 'what is about a row that it references stays as it is');
select is(
    pg_temp.then('create unique index on harbour.stays (kind_id, user_id)'), 'unique_per_owner: USING btree (org_id, kind_id)', 'unless that is of no organization'
);
select is(
    pg_temp.then('alter table harbour.stays add constraint named unique (user_id)'), 'unique_per_owner: left: named UNIQUE (org_id)',
    'one row per user is left where it says something about them'
);
select is(
    pg_temp.then('alter table harbour.stays add column role text; create unique index on harbour.stays (user_id, role)'),
    'unique_per_owner: left: USING btree (org_id, role)', 'and so is a role'
);
select is(
    pg_temp.then('create type harbour.level as enum (''low''); alter table harbour.stays add column level harbour.level; create unique index on harbour.stays (level, user_id)'),
    'unique_per_owner: left: USING btree (org_id, level)', 'or what is of a few values'
);
select is(
    pg_temp.then('alter table harbour.stays add column guest_id uuid references auth.users (id), add constraint named unique (user_id, guest_id)'), '',
    'a key of two users is none of an organization'
);
select is(
    pg_temp.then('alter table harbour.stays add column guest_id uuid references auth.users (id); create unique index on harbour.stays (guest_id, name, user_id)'), '',
    'whatever else is in it'
);
select is(
    pg_temp.then('alter table harbour.stays add column token text unique default md5(random()::text)'), '', 'nor is what is made up at random'
);
select is(
    pg_temp.then($$
        create table harbour.companies (id uuid primary key references public.organizations (id));
        alter table harbour.stays add column company_id uuid references harbour.companies (id);
        create unique index on harbour.stays (user_id, company_id)
    $$),
    '', 'who is in which organization stays as it is'
);
select is(
    pg_temp.then('alter table harbour.stays add column tenant uuid references public.organizations (id); create unique index on harbour.stays (tenant, user_id)'),
    '', 'under whatever name'
);

-- Exclusion.
select is(
    pg_temp.then('alter table harbour.stays add constraint apart exclude using gist (user_id with =, during with &&) where (code is not null)'),
    'unique_per_owner: apart EXCLUDE USING gist (org_id WITH =, during WITH &&) WHERE ((code IS NOT NULL))',
    'what a user may have once at a time an organization may have'
);
select is(
    pg_temp.then('alter table harbour.stays add constraint apart exclude using gist (code with =, during with &&)'),
    'unique_global: apart EXCLUDE USING gist (org_id WITH =, code WITH =, during WITH &&)', 'or whoever it is'
);
select is(pg_temp.then('alter table harbour.stays add constraint apart exclude using gist (berth_id with =, during with &&)'), '', 'a berth is one row''s');
select is(pg_temp.then('alter table harbour.stays add constraint apart exclude using gist (org_id with =, during with &&)'), '', 'and an organization''s is right');

-- Indexes that the user leads.
select is(
    pg_temp.then('create index on harbour.stays (user_id desc nulls last, name desc) include (code) where code is not null'),
    'index_by_owner: USING btree (org_id, name DESC) INCLUDE (code) WHERE (code IS NOT NULL)', 'an index that the user leads in descending order is led by them'
);
select is(pg_temp.then('create index on harbour.stays (user_id, name); create index on harbour.stays (org_id, name, code)'), '', 'one led by the organization may go on');
select is(
    pg_temp.then('create index on harbour.stays (user_id, name); create index on harbour.stays (org_id desc, name)'), '', 'and be in any order'
);
select is(
    pg_temp.then('create index on harbour.stays (user_id, name); create index on harbour.stays (org_id, name) where code = ''x'''),
    'index_by_owner: USING btree (org_id, name) WHERE (code = ''x''::text), USING btree (org_id, name)', 'but not be of some rows'
);

-- Collisions.
create function pg_temp.collisions(key text)
returns text
language plpgsql
as $function$
declare
    problem text;
begin
    execute format('create unique index collide on harbour.stays (%s)', key);
    select (regexp_match(review.problem, 'Collisions: \d+'))[1] into problem from tenancy.review_choices as review where review.object = 'collide';
    drop index harbour.collide;
    return problem;
end
$function$;
delete from tenancy.user_orgs;
insert into auth.users (instance_id, id, aud, role, email)
select '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-00000000000%s', number)::uuid, 'authenticated', 'authenticated', format('user-%s@example.com', number)
from generate_series(1, 4) as number;
insert into harbour.stays (user_id, name)
select format('00000000-0000-4000-8000-00000000000%s', number)::uuid, name
from (values (1, 'Argo'), (2, 'Argo'), (3, 'Argo'), (4, 'Beagle'), (4, null), (3, null)) as stay (number, name);
select is(pg_temp.collisions('user_id, name'), null, 'without a mapping nothing collides that is counted');
insert into tenancy.user_orgs (user_id, org_id)
select format('00000000-0000-4000-8000-00000000000%s', number)::uuid, default_org_id from tenancy.settings cross join generate_series(1, 2) as number;
select is(pg_temp.collisions('user_id, name'), 'Collisions: 1', 'with one it is counted before any row has org_id');
select is(pg_temp.collisions('user_id, lower(name)'), null, 'not where an expression would run');
delete from tenancy.user_orgs where user_id = '00000000-0000-4000-8000-000000000002';
select is(pg_temp.collisions('user_id, name'), 'Collisions: 1', 'users whom it leaves out are together in none');

-- Storage.
create schema if not exists storage;
create table if not exists storage.objects (id uuid primary key, bucket_id text, name text, owner uuid, owner_id text);
create function pg_temp.of_file(expression text, tail text default 'for select to authenticated')
returns text
language plpgsql
as $function$
declare
    found text;
begin
    execute format('create policy harbour_tried on storage.objects %s (%s)', tail || case when tail like '%insert%' then ' with check' else ' using' end, expression);
    select string_agg(format('%s %s', review.code, (regexp_match(review.problem, 'by user|every organization \w+|trusts'))[1]), ', ' order by review.code)
    into found
    from (select * from tenancy.review_policies union all select * from tenancy.review_choices) as review
    where review.object = 'harbour_tried';
    drop policy harbour_tried on storage.objects;
    return found;
end
$function$;
select is(pg_temp.of_file('bucket_id = ''ships'' and name like (select public.auth_org_id())::text || ''/%'''), null, 'files by organization are right');
select is(pg_temp.of_file('bucket_id = ''ships'' and owner_id = (select auth.jwt() ->> ''sub'')'), 'storage_policy by user', 'by user they are hidden from colleagues');
select is(
    pg_temp.of_file('bucket_id = ''ships'' and split_part(name, ''/'', 1) = (select auth.uid())::text'), 'storage_policy by user', 'also by a folder'
);
select is(pg_temp.of_file('bucket_id = ''ships'''), 'storage_policy every organization see', 'by bucket everyone sees them');
select is(pg_temp.of_file('bucket_id = ''ships''', 'for insert to authenticated'), 'storage_policy every organization add', 'or adds');
select is(pg_temp.of_file('bucket_id = ''ships''', 'for delete to authenticated'), 'storage_policy every organization delete', 'or deletes');
select is(pg_temp.of_file('auth.uid() = owner', 'for delete to authenticated'), null, 'who deletes own ones alone hides none');
select is(pg_temp.of_file('bucket_id = ''ships''', 'for select to service_role'), null, 'service_role passes every policy');
select is(pg_temp.of_file('exists (select from harbour.berths where berths.id::text = name)'), null, 'what reads tables may know of organizations');
select is(
    pg_temp.of_file('name like (auth.jwt() -> ''user_metadata'' ->> ''org'') || ''/%'''), 'policy_on_user_metadata trusts, storage_policy by user',
    'user_metadata is no more to be trusted there'
);

-- Foreign keys that set org_id alone.
create table harbour.teams (id uuid, org_id uuid, primary key (org_id, id));
alter table harbour.stays add column team_id uuid,
add constraint team foreign key (org_id, team_id) references harbour.teams (org_id, id) on delete set null (org_id);
select is(
    (select regexp_replace(remedy, '^.* ON DELETE ', '') from tenancy.review_breaks where code = 'reference_sets_org_id_null' and object = 'team'),
    'SET NULL (team_id)', 'a key that sets org_id alone sets what is beside it'
);
select lives_ok(
    (select remedy from tenancy.review_breaks where code = 'reference_sets_org_id_null' and object = 'team'), 'and the remedy runs'
);
select is_empty($$ select from tenancy.review_breaks where code = 'reference_sets_org_id_null' and object = 'team' $$, 'and nothing is left');
alter table harbour.stays drop constraint team, add constraint team foreign key (org_id) references public.organizations (id) on delete set null;
select is_empty($$ select from tenancy.review_breaks where code = 'reference_sets_org_id_null' and object = 'team' $$, 'org_id alone is another rule''s');

select * from finish();
rollback;
