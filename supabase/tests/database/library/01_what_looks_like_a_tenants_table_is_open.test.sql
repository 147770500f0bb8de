begin;
set local role postgres;
set local search_path = public, extensions;
select plan(14);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

create schema harbour;
create function pg_temp.suggested(target regclass)
returns text
language sql
as $function$
    select format('%s: %s', coalesce(suggested_scope, 'open'), reason)
    from tenancy.unclassified_tables
    where relation = target
$function$;

-- The organizations of an application that calls them companies.
create table harbour.companies (id uuid primary key, name text);
create table harbour.profiles (id uuid primary key references auth.users (id), company_id uuid references harbour.companies (id));
create table harbour.invoices (id integer primary key, company_id uuid references harbour.companies (id));
create table harbour.payments (id integer primary key, invoice_id integer references harbour.invoices (id));
create table harbour.currencies (code text primary key);
create table harbour.rates (id integer primary key, currency text references harbour.currencies (code));
select is(
    pg_temp.suggested('harbour.companies'),
    'excluded: is what users are in by harbour.profiles: each of its rows may be an organization',
    'a table that the rows of users reference may be the organizations'
);
select is(
    pg_temp.suggested('harbour.invoices'),
    'open: references harbour.companies, which users are in by harbour.profiles',
    'then what references it may belong to organizations, though it names no user'
);
select is(pg_temp.suggested('harbour.payments'), 'open: references harbour.invoices', 'and what references that');
select is(
    pg_temp.suggested('harbour.rates'),
    'excluded: has nothing that says whose its rows are',
    'what references a table in which no user is does not'
);

create table harbour.teams (id uuid primary key);
create table harbour.team_members (
    team_id uuid references harbour.teams (id), user_id uuid references auth.users (id), primary key (team_id, user_id)
);
create table harbour.boards (id integer primary key, team_id uuid references harbour.teams (id));
select is(
    pg_temp.suggested('harbour.boards'),
    'open: references harbour.teams, which users are in by harbour.team_members',
    'a key of a user and a row says that the user is in it, too'
);
create table harbour.roles (id integer primary key);
create table harbour.user_roles (
    role_id integer references harbour.roles (id), user_id uuid references auth.users (id), primary key (role_id, user_id)
);
create table harbour.permissions (id integer primary key, role_id integer references harbour.roles (id));
select is(
    pg_temp.suggested('harbour.permissions'),
    'excluded: references harbour.roles, which users are in by harbour.user_roles',
    'what references a table whose key is no organization''s stays out, and it is said'
);
select is(pg_temp.suggested('harbour.roles'), 'excluded: has nothing that says whose its rows are', 'and that table is none of organizations');
create table harbour.news (id uuid primary key);
create table harbour.readings (id integer primary key, news_id uuid references harbour.news (id), user_id uuid references auth.users (id));
create table harbour.pictures (id integer primary key, news_id uuid references harbour.news (id));
select is(
    pg_temp.suggested('harbour.pictures'),
    'excluded: has nothing that says whose its rows are',
    'a row that names both, and is not the only one, does not'
);

create table harbour.fleets (id uuid primary key, created_by uuid references auth.users (id));
create table harbour.buoys (id integer primary key, org_id uuid references harbour.fleets (id) on delete cascade);
create table harbour.docks (id uuid primary key, created_by uuid references auth.users (id));
create table harbour.cranes (id integer primary key, dock_id uuid references harbour.docks (id) on delete cascade);
select is(
    pg_temp.suggested('harbour.fleets'),
    'excluded: is what org_id of harbour.buoys references: each of its rows may be an organization',
    'what an org_id references may be the organizations, though each row has an owner'
);
select is(pg_temp.suggested('harbour.docks'), 'org: references auth.users in created_by', 'what another column references is not');

-- Tools that cannot reference the schema auth leave users' ids without a key.
create table harbour.workspaces (id uuid primary key, workspace_owner uuid, name text);
create table harbour.posts (id uuid primary key, "authorId" text, "boardId" integer);
create table harbour.books (id uuid primary key, author text, owner_count integer, author_id integer);
insert into harbour.books values (gen_random_uuid(), 'Ursula', 1, 1);
select is(
    pg_temp.suggested('harbour.workspaces'),
    'open: has workspace_owner, probably users'' ids: if so, name it in org_from, or first alter table harbour.workspaces add foreign key'
    ' (workspace_owner) references auth.users (id) not valid',
    'a column that is called as an owner is and has no key leaves it open'
);
select is(
    (select org_row from tenancy.unclassified_tables where relation = 'harbour.workspaces'::regclass),
    '(''harbour'', ''workspaces'', ''org'', ''secondary'', null, ''{workspace_owner}'')',
    'and the row to add names it'
);
select is(
    pg_temp.suggested('harbour.posts'),
    'open: has authorId, probably users'' ids: if so, name it in org_from, or first alter table harbour.posts add foreign key ("authorId")'
    ' references auth.users (id) not valid; has boardId, which looks like the key of harbour.boards: if it is, first alter table harbour.posts'
    ' add foreign key ("boardId") references harbour.boards not valid',
    'however its words are joined'
);
select is(pg_temp.suggested('harbour.books'), 'excluded: has nothing that says whose its rows are', 'a name or a number is no id');

select * from finish();
rollback;
