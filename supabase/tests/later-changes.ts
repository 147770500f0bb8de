/** What happens to the database long after the push, and which checks of tenancy.verify() fail then. */
export interface Change {
  name: string;
  sql: string;
  failed: string[];
  /** The same after the last step, where it is something else than without the fillers. */
  failedAfterwards?: string[];
  /** What the detail of a failed check says. */
  says?: RegExp;
  /** Why a new table is not onboarded then. */
  onboards?: RegExp;
}

/** What fails where public.organizations is gone. */
const withoutOrganizations = [
  ...["boats", "notes", "visits"].flatMap((table) =>
    ["foreign_key", "foreign_key_valid"].map((part) => `pier.${table} ${part}`)
  ),
  "pier.visits foreign_key_root",
  "registry",
].sort();

export const laterChanges: Change[] = [
  { name: "a table is emptied by TRUNCATE", sql: "truncate pier.notes", failed: [] },
  { name: "a partition is dropped", sql: "drop table pier.visits_2024", failed: [] },
  {
    name: "a partition is detached, and nobody says what it is now",
    sql: "alter table pier.visits detach partition pier.visits_2024",
    failed: ["registry"],
    says: /pier\.visits_2024 is not classified/,
  },
  { name: "a table is rewritten", sql: "alter table pier.notes alter column body type varchar(99)", failed: [] },
  { name: "a table is renamed", sql: "alter table pier.boats rename to ships", failed: [] },
  { name: "an excluded table is renamed", sql: "alter table pier.kinds rename to sorts", failed: [] },
  { name: "a schema is renamed", sql: "alter schema pier rename to harbour", failed: [] },
  {
    name: "tables change their names",
    sql:
      `alter table pier.boats rename to third; alter table pier.notes rename to boats; alter table pier.third rename to notes`,
    failed: [],
  },
  {
    name: "a table is renamed, and a new one has its name",
    sql: "alter table pier.boats rename to ships; create table pier.boats (id integer)",
    failed: ["registry"],
    says: /pier\.boats is not classified/,
  },
  {
    name: "a table is renamed, and a new one of its name is onboarded",
    sql:
      `alter table pier.boats rename to ships; create table pier.boats (id integer); select tenancy.onboard('pier.boats')`,
    failed: [],
  },
  { name: "a registered table is dropped", sql: "drop table pier.notes", failed: [] },
  {
    name: "a registered table is dropped, and made again without org_id",
    sql: "drop table pier.notes; create table pier.notes (id integer, user_id uuid)",
    failed: [
      ...[
        "check",
        "check_valid",
        "column",
        "filler",
        "foreign_key",
        "foreign_key_valid",
        "guard",
        "index",
      ],
      "not_null",
    ].map((part) => `pier.notes ${part}`),
  },
  {
    name: "an owner's column without a foreign key is renamed, so that nothing says any more that it is one",
    sql: "alter table pier.notes rename column user_id to writer",
    failed: ["fillers"],
  },
  { name: "the owner's column is renamed", sql: "alter table pier.boats rename column user_id to captain", failed: [] },
  {
    name: "a trigger is renamed",
    sql: "alter trigger org_id_immutable_boats on pier.boats rename to fixed",
    failed: [],
  },
  {
    name: "a constraint is renamed",
    sql: "alter table pier.boats rename constraint fk_boats_org_id to home",
    failed: [],
  },
  {
    name: "a new table",
    sql: "create table pier.crates (id integer, user_id uuid)",
    failed: ["registry"],
    says: /pier\.crates is not classified/,
  },
  {
    name: "a new partition of an isolated table, with the new-table check off",
    sql:
      "select tenancy.disable_new_table_check(); create table pier.visits_2026 partition of pier.visits for values in (2026)",
    failed: ["pier.visits isolation"],
  },
  {
    name: "row-level security is switched off",
    sql: "alter table pier.boats disable row level security",
    failed: ["pier.boats isolation"],
  },
  {
    name: "row-level security is switched off on a partition",
    sql: "alter table pier.visits_2024 disable row level security",
    failed: ["pier.visits isolation"],
  },
  { name: "the policy is dropped", sql: "drop policy org_isolation on pier.boats", failed: ["pier.boats isolation"] },
  {
    name: "the policy is changed",
    sql: "alter policy org_isolation on pier.boats using (true)",
    failed: ["pier.boats isolation"],
  },
  { name: "the policy is renamed", sql: "alter policy org_isolation on pier.boats rename to apart", failed: [] },
  {
    name: "a bound key is dropped",
    sql: "alter table pier.notes drop constraint notes_boat_id_fkey",
    failed: ["bound_keys", "fillers"],
    says: /notes_boat_id_fkey has lost a foreign key/,
  },
  {
    name: "a bound key is replaced by a simple one",
    sql: `alter table pier.notes drop constraint notes_boat_id_fkey;
      alter table pier.notes add foreign key (boat_id) references pier.boats (id)`,
    failed: ["pier.notes binding", "pier.notes binding_valid"],
  },
  {
    name: "a bound key is renamed",
    sql: "alter table pier.notes rename constraint notes_boat_id_fkey to its_boat",
    failed: [],
  },
  { name: "the column of a bound key is renamed", sql: "alter table pier.notes rename boat_id to ship_id", failed: [] },
  {
    name: "the column of a bound key is dropped, which was a source",
    sql: "alter table pier.notes drop column boat_id",
    failed: ["fillers"],
  },
  {
    name: "the table that a bound key references is dropped, which was a source",
    sql: "drop table pier.boats cascade",
    failed: ["fillers"],
  },
  {
    name: "a guard is dropped",
    sql: "drop trigger org_id_immutable_boats on pier.boats",
    failed: ["pier.boats guard"],
  },
  {
    name: "a guard is switched off",
    sql: "alter table pier.boats disable trigger org_id_immutable_boats",
    failed: ["pier.boats guard"],
  },
  {
    name: "an index is dropped",
    sql: "drop index pier.idx_notes_org_id, pier.idx_notes_org_id_boat_id",
    failed: ["pier.notes index"],
  },
  {
    name: "org_id may be NULL",
    sql: "alter table pier.boats alter column org_id drop not null",
    failed: ["pier.boats not_null"],
  },
  {
    name: "org_id has another default",
    sql: "alter table pier.boats alter column org_id set default 'a0000000-0000-0000-0000-000000000001'",
    failed: ["pier.boats default", "registry"],
  },
  {
    name: "the filler decides by a column that is gone",
    sql: "alter table pier.boats drop column user_id",
    failed: ["fillers"],
  },
  {
    name: "the API's roles get TRIGGER again",
    sql: "grant trigger on pier.boats to authenticated",
    failed: ["pier.boats least_privilege"],
  },
  {
    name: "everyone gets TRIGGER, the API's roles among them",
    sql: "grant trigger on pier.boats to public",
    failed: ["pier.boats least_privilege"],
  },
  {
    name: "the list is pushed again with the name from before a rename",
    sql: `alter table pier.boats rename to ships; select tenancy.note_tables();
      insert into tenancy.registry (schema_name, table_name, scope, priority) values ('pier', 'boats', 'org', 'critical')
      on conflict (schema_name, table_name) do update set scope = excluded.scope, priority = excluded.priority`,
    failed: [],
  },
  {
    name: "the list is pushed again with the name from after a rename",
    sql: `alter table pier.boats rename to ships; select tenancy.note_tables();
      insert into tenancy.registry (schema_name, table_name, scope, priority) values ('pier', 'ships', 'org', 'critical')
      on conflict (schema_name, table_name) do update set scope = excluded.scope, priority = excluded.priority`,
    failed: [],
  },
  {
    name: "tables change their names, and the list is pushed again",
    sql:
      `alter table pier.boats rename to third; alter table pier.kinds rename to boats; alter table pier.third rename to kinds;
      select tenancy.note_tables();
      insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
      values ('pier', 'kinds', 'org', 'critical', null), ('pier', 'boats', 'excluded', null, 'shared')
      on conflict (schema_name, table_name) do update
      set scope = excluded.scope, priority = excluded.priority, reason = excluded.reason`,
    failed: [],
  },
  {
    name: "organizations are dropped",
    sql: "drop table public.organizations cascade",
    failed: withoutOrganizations,
  },
  {
    name: "organizations are renamed",
    sql: "alter table public.organizations rename to tenants",
    failed: withoutOrganizations,
  },
  {
    name: "the settings are lost, as in a restore of the schema alone",
    sql: "delete from tenancy.settings",
    failed: ["registry"],
    says: /settings_missing/,
  },
  {
    name: "all that is remembered is lost",
    sql: "delete from tenancy.registry; delete from tenancy.bound_references",
    failed: ["registry"],
    says: /is not classified/,
  },
  {
    name: "auth_org_id() trusts what users write",
    sql: `create or replace function public.auth_org_id() returns uuid language sql stable set search_path = ''
      as $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{user_metadata,org_id}')::uuid $$`,
    failed: ["auth_org_id"],
  },
  {
    name: "a user has no organization",
    sql: "update auth.users set raw_app_meta_data = '{}' where id = (select id from auth.users limit 1)",
    failed: ["users"],
  },
  {
    name: "a row has no organization",
    sql:
      `alter table pier.notes alter column org_id drop not null; alter table pier.notes drop constraint notes_org_id_not_null;
      alter table pier.notes disable trigger user; update pier.notes set org_id = null where id = 1;
      alter table pier.notes enable trigger user`,
    failed: [
      "pier.notes check",
      "pier.notes check_valid",
      "pier.notes no_nulls",
      "pier.notes not_null",
      "pier.notes guard",
      "registry",
    ].sort(),
    failedAfterwards: ["check", "check_valid", "guard", "no_nulls", "not_null"].map((part) => `pier.notes ${part}`),
  },
  {
    name: "the key of organizations is renamed",
    sql: "alter table public.organizations rename column id to org_key",
    failed: withoutOrganizations,
    says: /public\.organizations cannot be referenced/,
    onboards: /\[organizations_not_referable\]/,
  },
  {
    name: "the key of organizations is renamed, and a foreign key to it is gone",
    sql: `alter table pier.boats drop constraint fk_boats_org_id;
      alter table public.organizations rename column id to org_key`,
    failed: withoutOrganizations,
    says: /public\.organizations cannot be referenced/,
    onboards: /\[organizations_not_referable\]/,
  },
  {
    name: "organizations have keys of another type",
    sql:
      `drop table public.organizations cascade; create table public.organizations (id bigint primary key, name text)`,
    failed: withoutOrganizations,
    says: /public\.organizations cannot be referenced/,
    onboards: /\[organizations_not_referable\]/,
  },
  {
    name: "organizations are moved to another schema",
    sql: "create schema core; alter table public.organizations set schema core",
    failed: withoutOrganizations,
    says: /public\.organizations does not exist/,
    onboards: /\[organizations_missing\]/,
  },
  {
    name: "organizations are a view now",
    sql: `alter table public.organizations rename to tenants;
      create view public.organizations as select id, name from public.tenants`,
    failed: withoutOrganizations,
    says: /public\.organizations cannot be referenced/,
    onboards: /\[organizations_not_referable\]/,
  },
  {
    name: "organizations are partitioned now",
    sql: `alter table public.organizations rename to tenants;
      create table public.organizations (id uuid primary key, name text) partition by hash (id)`,
    failed: withoutOrganizations,
    says: /public\.organizations cannot be referenced/,
    onboards: /\[organizations_not_referable\]/,
  },
  {
    name: "organizations need more than a personal one has",
    sql:
      `update tenancy.settings set new_users = 'personal'; alter table public.organizations add column plan text; update public.organizations set plan = 'free';
      alter table public.organizations alter column plan set not null`,
    failed: ["registry"],
    says: /\[personal_organizations_refused\]/,
  },
  {
    name: "auth_org_id() is moved to another schema",
    sql: "create schema core; alter function public.auth_org_id() set schema core",
    failed: [
      "auth_org_id",
      "pier.boats default",
      "pier.boats isolation",
      "pier.notes default",
      "pier.notes isolation",
      "pier.visits default",
      "pier.visits isolation",
      "registry",
    ],
    says: /\[auth_org_id_missing\]/,
    onboards: /\[auth_org_id_missing\]/,
  },
  {
    name: "a column of the settings is renamed",
    sql: "alter table tenancy.settings rename column default_org_id to home",
    failed: ["registry"],
    says: /tenancy\.settings has no default_org_id/,
    onboards: /\[library_changed\]/,
  },
  {
    name: "a column of the settings is dropped, and what depends on it",
    sql: "alter table tenancy.settings drop column token_hook cascade",
    failed: ["schema"],
    onboards: /\[library_changed\]/,
  },
  {
    name: "a column of the mapping is renamed",
    sql: "alter table tenancy.user_orgs rename column org_id to organization_id",
    failed: ["registry"],
    says: /tenancy\.user_orgs has no org_id/,
    onboards: /\[library_changed\]/,
  },
  {
    name: "a column of the memberships is renamed",
    sql: "alter table tenancy.memberships rename column org_id to organization_id",
    failed: ["registry"],
    says: /tenancy\.memberships has no org_id/,
    onboards: /\[library_changed\]/,
  },
  {
    name: "the mapping is dropped, and what depends on it",
    sql: "drop table tenancy.user_orgs cascade",
    failed: ["rows_and_users", "schema"],
    failedAfterwards: ["registry", "rows_and_users"],
    says: /cannot be looked at to the end/,
  },
  {
    name: "a column of the registry is dropped, and what depends on it",
    sql: "alter table tenancy.registry drop column priority cascade",
    failed: ["rows_and_users", "schema"],
    says: /cannot be looked at to the end/,
  },
  {
    name: "the log is dropped",
    sql: "drop table tenancy.log cascade",
    failed: ["registry"],
    says: /tenancy\.log has no id, part/,
    onboards: /\[library_changed\]/,
  },
  { name: "the table that memberships follow is renamed", sql: "alter table pier.crew rename to sailors", failed: [] },
  {
    name: "the columns that memberships follow are renamed",
    sql: "alter table pier.crew rename column org_id to ship_owner; alter table pier.crew rename column rank to role",
    failed: [],
  },
  {
    name: "a column that memberships follow is dropped",
    sql: "alter table pier.crew drop column rank cascade",
    failed: ["registry"],
    says: /pier\.crew is what memberships follow, .* \[memberships_not_followed\]/,
  },
  {
    name: "the triggers that memberships follow by are switched off",
    sql: "alter table pier.crew disable trigger user",
    failed: ["registry"],
    says: /\[memberships_not_followed\]/,
  },
  {
    name: "memberships go on without the table that they followed",
    sql: "drop table pier.crew cascade; select tenancy.enable_memberships()",
    failed: [],
  },
  {
    name: "a trigger that memberships follow by is renamed",
    sql: "alter trigger tenancy_copy_memberships on pier.crew rename to copies",
    failed: [],
  },
  ...[
    ["the table that memberships follow is dropped", "drop table pier.crew"],
    [
      "the table that memberships follow is made again",
      "drop table pier.crew; create table pier.crew (user_id uuid, org_id uuid, rank text)",
    ],
    [
      "the triggers that memberships follow by are dropped",
      "drop trigger tenancy_copy_membership on pier.crew; drop trigger tenancy_copy_memberships on pier.crew",
    ],
    ["the function that memberships follow by is dropped", "drop function tenancy.copy_membership() cascade"],
  ].map(([name = "", sql = ""]) => ({
    name,
    sql,
    failed: ["registry"],
    says:
      /pier\.crew is what memberships follow, and they miss its changes: it is gone, .*\[memberships_not_followed\]/,
  })),
  {
    name: "the table that memberships follow is dropped, and they follow another one",
    sql: `drop table pier.crew; create table pier.sailors (user_id uuid, org_id uuid);
      insert into pier.sailors select user_id, org_id from tenancy.memberships;
      insert into tenancy.registry (schema_name, table_name, scope, reason) values ('pier', 'sailors', 'excluded', 'memberships');
      select tenancy.enable_memberships('pier.sailors')`,
    failed: [],
  },
  {
    name: "the table that memberships follow is dropped, and they are written by hand",
    sql: "drop table pier.crew; select tenancy.disable_memberships(); select tenancy.enable_memberships()",
    failed: [],
  },
  ...[
    ["the triggers of memberships are switched off", "alter table tenancy.memberships disable trigger user"],
    ["the trigger of lost memberships is dropped", "drop trigger follow_lost_membership on tenancy.memberships"],
    ["a trigger of new memberships is dropped", "drop trigger follow_changed_membership on tenancy.memberships"],
    ["the trigger of new tables is switched off", "alter table tenancy.new_tables disable trigger user"],
  ].map(([name = "", sql = ""]) => ({
    name,
    sql,
    failed: ["registry"],
    says: /has lost a trigger that calls .*\[library_changed\]/,
  })),
  {
    name: "a trigger of memberships is renamed",
    sql: "alter trigger follow_lost_membership on tenancy.memberships rename to loses",
    failed: [],
  },
  ...["authenticated", "public", "service_role"].map((role) => ({
    name: `the mapping can be written to by ${role}`,
    sql: `grant usage on schema tenancy to ${role}; grant update on tenancy.user_orgs to ${role}`,
    failed: ["registry"],
    says: /tenancy\.user_orgs can be written to by .*\[library_changed\]/,
  })),
  {
    name: "the mapping can be read by a policy of the application's",
    sql: "grant usage on schema tenancy to authenticated; grant select on tenancy.user_orgs to authenticated",
    failed: [],
  },
  { name: "memberships follow nothing any more", sql: "select tenancy.disable_memberships()", failed: [] },
  {
    name: "the column of a partitioned table is renamed",
    sql: "alter table pier.visits rename column org_id to tenant_id",
    failed: [
      "pier.visits check",
      "pier.visits check_valid",
      "pier.visits column",
      "pier.visits filler",
      "pier.visits foreign_key",
      "pier.visits foreign_key_root",
      "pier.visits foreign_key_valid",
      "pier.visits guard",
      "pier.visits guard_move",
      "pier.visits index",
      "pier.visits index_root",
      "pier.visits not_null",
      "registry",
    ],
  },
  {
    name: "org_id is renamed, and a new one has its name",
    sql: "alter table pier.boats rename column org_id to tenant_id; alter table pier.boats add column org_id uuid",
    failed: [
      "fillers",
      "pier.boats check",
      "pier.boats check_valid",
      "pier.boats default",
      "pier.boats filler",
      "pier.boats foreign_key",
      "pier.boats foreign_key_valid",
      "pier.boats guard",
      "pier.boats index",
      "pier.boats isolation",
      "pier.boats no_nulls",
      "pier.boats not_null",
      "registry",
    ],
  },
  { name: "a type of the application's is dropped", sql: "drop domain pier.depth cascade", failed: [] },
];
