begin;
set local role postgres;
set local search_path = public, extensions;
select plan(26);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
create table harbour.companies (id bigint primary key, name text);
create table harbour.clubs (id bigint primary key, name text);
create table harbour.club_members (user_id uuid references auth.users (id), club_id bigint references harbour.clubs (id), primary key (user_id, club_id));
create table harbour.harbours (id bigint primary key, name text);
create table harbour.favourites (user_id uuid references auth.users (id), harbour_id bigint references harbour.harbours (id), primary key (user_id, harbour_id));
create table harbour.accounts (id bigint primary key, user_id uuid unique references auth.users (id));
create table harbour.ships (
    id integer primary key,
    user_id uuid references auth.users (id),
    harbour_id bigint references harbour.harbours (id),
    account_id bigint references harbour.accounts (id),
    device_id text,
    device_type text,
    loadable_id bigint,
    loadable_kind text
);
create table harbour.voyages (id integer primary key, user_id uuid references auth.users (id), "clubId" bigint references harbour.clubs (id));
create table harbour.cargo (id integer primary key, user_id uuid references auth.users (id), company_id bigint references harbour.companies (id));
create table harbour.papers (id integer primary key, owner_id uuid, owner_type text, user_id uuid references auth.users (id));
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
select 'harbour', name, 'excluded', null, 'a test'
from unnest(array['companies', 'clubs', 'club_members', 'harbours', 'favourites', 'accounts']) as name
union all
select 'harbour', name, 'org', 'secondary', null
from unnest(array['ships', 'voyages', 'cargo', 'papers']) as name;

create function pg_temp.found(code text)
returns text
language sql
as $function$
    select string_agg(format('%s %s', severity, object), ', ' order by object collate "C")
    from tenancy.review
    where review.code = found.code and table_name like 'harbour.%'
$function$;

delete from tenancy.user_orgs;
select is(concat(pg_temp.found('company_passed_over'), pg_temp.found('owner_of_several_kinds')), '', 'with one organization there is nothing to ask');
insert into tenancy.user_orgs (user_id, org_id) select gen_random_uuid(), default_org_id from tenancy.settings;

select is(
    pg_temp.found('company_passed_over'), 'decide harbour.cargo, decide harbour.voyages',
    'keys of a company, and of what has members, that decide nothing; not those of what users only like, or of their own accounts'
);
select matches(
    (select problem from tenancy.review where code = 'company_passed_over' and object = 'harbour.cargo'), 'has company_id, the key of harbour\.companies',
    'by the name of the column'
);
select matches(
    (select remedy from tenancy.review where code = 'company_passed_over' and object = 'harbour.cargo'), '''\{company_id,user_id\}''',
    'with the company first in what is to decide'
);
select is(
    pg_temp.found('owner_of_several_kinds'), 'decide harbour.papers, decide harbour.ships', 'keys of whatever another column says; not what has a type of its own'
);
select matches(
    (select problem from tenancy.review where code = 'owner_of_several_kinds' and object = 'harbour.papers'), 'has owner_id, .* whatever owner_type says',
    'by the names of both columns'
);
select doesnt_match(
    (select problem from tenancy.review where code = 'owner_of_several_kinds' and object = 'harbour.papers'), 'rows of users', 'decides nothing'
);
update tenancy.registry set org_from = '{owner_id,user_id}' where schema_name = 'harbour' and table_name = 'papers';
select matches(
    (select problem from tenancy.review where code = 'owner_of_several_kinds' and object = 'harbour.papers'), 'nothing but rows of users',
    'or, if it is named, rows of users alone'
);

-- Companies that are rows of organizations themselves.
create table harbour.workspaces (id uuid primary key, created_by uuid references auth.users (id));
create table harbour.projects (id uuid primary key, created_by uuid references auth.users (id));
create table harbour.workspace_members (workspace_id uuid references harbour.workspaces (id), user_id uuid references auth.users (id));
create table harbour.project_members (project_id uuid references harbour.projects (id), user_id uuid references auth.users (id));
create table harbour.teams (id uuid primary key, created_by uuid references auth.users (id));
insert into tenancy.registry (schema_name, table_name, scope, priority)
select 'harbour', name, 'org', 'secondary'
from unnest(array['workspaces', 'projects', 'workspace_members', 'project_members', 'teams']) as name;
select is(pg_temp.found('company_of_a_user'), 'decide harbour.workspaces', 'a table of companies, by its name and its members');
select matches(
    (select problem from tenancy.review where code = 'company_of_a_user'), 'by who is in it \(workspace_members\)', 'which are named'
);
alter table harbour.workspaces add column organization_id uuid references public.organizations (id);
select is(pg_temp.found('company_of_a_user'), null, 'not one that names its organization');
alter table harbour.workspaces drop column organization_id;
update tenancy.registry set scope = 'excluded', priority = null, reason = 'the organizations' where schema_name = 'harbour' and table_name = 'workspaces';
select is(pg_temp.found('company_of_a_user'), null, 'nor one that is listed as excluded');
delete from tenancy.registry where schema_name = 'harbour' and table_name in ('workspace_members', 'project_members');

-- Companies that say which organization they are.
alter table harbour.companies add column organization_id uuid references public.organizations (id);
select is(pg_temp.found('company_passed_over'), 'decide harbour.cargo, decide harbour.voyages', 'a company that has an organization decides once it is named');
update tenancy.registry set org_from = '{company_id,user_id}' where schema_name = 'harbour' and table_name = 'cargo';
select is(pg_temp.found('company_passed_over'), 'decide harbour.voyages', 'and is then no question');
alter table harbour.voyages add column org_id uuid;
select is(pg_temp.found('company_passed_over'), null, 'nor is it one where rows have org_id');
alter table harbour.voyages drop column org_id;
update tenancy.registry set org_from = '{}' where schema_name = 'harbour' and table_name = 'voyages';
select is(pg_temp.found('company_passed_over'), null, 'nor where all of it belongs to the default organization');
alter table harbour.papers drop column owner_type;
select is(pg_temp.found('owner_of_several_kinds'), 'decide harbour.ships', 'an owner of one kind is none of several');

-- After the push: rows that may name another organization than theirs.
create table harbour.firms (id uuid primary key references public.organizations (id));
create table harbour.crews (id bigint primary key, organization_id uuid not null references public.organizations (id));
create table harbour.people (id uuid primary key references auth.users (id), organization_id uuid references public.organizations (id));
create table harbour.berths (
    id integer,
    user_id uuid references harbour.people (id),
    firm_id uuid references harbour.firms (id),
    organization_id uuid references public.organizations (id),
    crew_id bigint references harbour.crews (id),
    org_id uuid not null
) partition by range (id);
create table harbour.berths_1 partition of harbour.berths for values from (1) to (100);
insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
values
    ('harbour', 'firms', 'excluded', null, 'a test'), ('harbour', 'crews', 'excluded', null, 'a test'), ('harbour', 'people', 'excluded', null, 'a test'),
    ('harbour', 'berths', 'org', 'secondary', null);
create function pg_temp.decided_by(entries text[])
returns text
language plpgsql
as $function$
begin
    update tenancy.registry set org_from = entries where table_name = 'berths';
    return (
        select string_agg(substring(problem from 'than the one that (.*) says'), ', ')
        from tenancy.review
        where code = 'other_organization_named' and table_name = 'harbour.berths'
    );
end
$function$;
select is(pg_temp.decided_by(null), 'organization_id, firm_id', 'columns that hold the organization''s key, directly or as that of a company, as they decide');
select is(pg_temp.decided_by('{user_id,firm_id}'), null, 'not where a user decides before');
select is(pg_temp.decided_by('{user_id}'), null, 'nor where it is the organization of a user, who may move');
select is(pg_temp.decided_by('{}'), null, 'nor where nothing decides');
select is(pg_temp.decided_by('{crew_id,user_id}'), 'crew_id', 'a company with another key, which has its organization in a column');
do $$
begin
    execute (select remedy from tenancy.review where code = 'other_organization_named' and table_name = 'harbour.berths');
end
$$;
select is(pg_temp.decided_by('{crew_id,user_id}'), null, 'is held by a key, in a partitioned table, too');
select is(pg_temp.decided_by('{firm_id,organization_id}'), 'firm_id, organization_id', 'in the order of org_from');
do $$
begin
    execute (select remedy from tenancy.review where code = 'other_organization_named' and table_name = 'harbour.berths');
end
$$;
select is(pg_temp.decided_by('{firm_id,organization_id}'), null, 'is held by a check');
select throws_ok(
    $$ insert into harbour.berths (id, org_id, organization_id) select 1, default_org_id, gen_random_uuid() from tenancy.settings $$, '23514', null,
    'which refuses what says otherwise'
);

select * from finish();
rollback;
