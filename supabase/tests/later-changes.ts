/** What happens to the database long after the push, and which checks of tenancy.verify() fail then. */
export interface Change {
  name: string;
  sql: string;
  failed: string[];
  /** What the detail of the first failed check says. */
  says?: RegExp;
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
    sql: "drop index pier.idx_notes_org_id, pier.notes_org_id_boat_id_idx",
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
  },
];
