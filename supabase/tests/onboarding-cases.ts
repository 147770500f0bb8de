import { defaultOrgId, otherOrgId } from "./organizations.ts";

/** A user of the other organization. */
export const userId = "00000000-0000-4000-8000-000000000001";

export interface Case {
  name: string;
  table: string;
  /** Makes the table, and what it needs. */
  sql: string;
  /** The organization that each row has afterwards. */
  rows: Record<number, string>;
}
/** Tables that onboarding takes. */
export const accepted: Case[] = [
  {
    name: "an empty table",
    table: "harbour.ports",
    sql: "create table harbour.ports (id integer primary key, user_id uuid)",
    rows: {},
  },
  {
    name:
      "a table without anything that says whose its rows are, when it is said to belong to the default organization",
    table: "harbour.ports",
    sql: `create table harbour.ports (id integer); insert into harbour.ports values (1);
      insert into tenancy.registry (schema_name, table_name, scope, priority, org_from) values ('harbour', 'ports', 'org', 'secondary', '{}')`,
    rows: { 1: defaultOrgId },
  },
  {
    name: "a table whose rows belong to users",
    table: "harbour.ships",
    sql: `create table harbour.ships (id integer primary key, user_id uuid);
      insert into harbour.ships values (1, '${userId}'), (2, gen_random_uuid()), (3, null)`,
    rows: { 1: otherOrgId, 2: defaultOrgId, 3: defaultOrgId },
  },
  {
    name: "a child of an org-scoped table",
    table: "harbour.echoes",
    sql: `create table harbour.echoes (id integer primary key, call_id uuid references public.calls (id));
      insert into harbour.echoes values (1, 'c0000000-0000-4000-8000-000000000001'), (2, null)`,
    rows: { 1: otherOrgId, 2: defaultOrgId },
  },
  {
    name: "a table that references itself",
    table: "harbour.tugs",
    sql:
      `create table harbour.tugs (id integer primary key, user_id uuid, leader_id integer references harbour.tugs (id));
      insert into harbour.tugs values (1, '${userId}', null), (2, null, 1), (3, null, 2), (4, null, null)`,
    rows: { 1: otherOrgId, 2: otherOrgId, 3: otherOrgId, 4: defaultOrgId },
  },
  {
    name: "a partitioned table of two levels",
    table: "harbour.voyages",
    sql:
      `create table harbour.voyages (id integer, year integer, user_id uuid, primary key (id, year)) partition by list (year);
      create table harbour.voyages_1 partition of harbour.voyages for values in (1) partition by list (id);
      create table harbour.voyages_1_1 partition of harbour.voyages_1 for values in (1);
      create table harbour.voyages_1_2 partition of harbour.voyages_1 default;
      create table harbour.voyages_2 partition of harbour.voyages for values in (2);
      insert into harbour.voyages values (1, 1, '${userId}'), (2, 1, null), (3, 2, '${userId}')`,
    rows: { 1: otherOrgId, 2: defaultOrgId, 3: otherOrgId },
  },
  {
    name: "a partitioned table without partitions",
    table: "harbour.voyages",
    sql: "create table harbour.voyages (id integer, year integer, user_id uuid) partition by list (year)",
    rows: {},
  },
  {
    name: "a table with an org_id of its own, of which some rows have one",
    table: "harbour.barges",
    sql: `create table harbour.barges (id integer primary key, user_id uuid, org_id uuid);
      insert into harbour.barges values (1, null, '${otherOrgId}'), (2, '${userId}', null), (3, '${userId}', '${defaultOrgId}'), (4, null, null)`,
    rows: { 1: otherOrgId, 2: otherOrgId, 3: defaultOrgId, 4: defaultOrgId },
  },
  {
    name: "a table with all of it already, under other names",
    table: "harbour.barges",
    sql: `create table harbour.barges (
        id integer primary key,
        org_id uuid not null default public.auth_org_id() constraint tenant references public.organizations (id) on delete cascade,
        constraint has_tenant check (org_id is not null)
      );
      create index by_tenant on harbour.barges (org_id);
      insert into harbour.barges values (1, '${otherOrgId}')`,
    rows: { 1: otherOrgId },
  },
  {
    name: "a table with a name that has to be quoted",
    table: `harbour."Ship's Log; drop table calls"`,
    sql: `create table harbour."Ship's Log; drop table calls" (id integer primary key, user_id uuid);
      insert into harbour."Ship's Log; drop table calls" values (1, '${userId}')`,
    rows: { 1: otherOrgId },
  },
];

interface Refusal {
  sql: string;
  /** harbour.ships unless another is named. */
  table?: string;
  code: string;
  /** The code of the finding in the message. */
  finding?: string;
  /** What a reader needs of the message. */
  mentions?: string;
}
/** Tables that it refuses. */
export const refused: [name: string, refusal: Refusal][] = [
  ["a table without anything that says whose its rows are", {
    sql: "create table harbour.ships (id integer); insert into harbour.ships values (1)",
    code: "55000",
    finding: "no_source",
    mentions: "org_from '{}'",
  }],
  ["a table that is larger than tenancy.settings.small_table_bytes", {
    sql:
      `create table harbour.ships (id integer primary key, user_id uuid); insert into harbour.ships select generate_series(1, 1000);
      update tenancy.settings set small_table_bytes = 8192`,
    code: "54000",
    mentions: "docs/forgotten-table.sql",
  }],
  ["a partitioned table whose partitions are larger than that together", {
    sql: `create table harbour.ships (id integer primary key, user_id uuid) partition by range (id);
      create table harbour.ships_1 partition of harbour.ships for values from (1) to (500);
      create table harbour.ships_2 partition of harbour.ships for values from (500) to (1001);
      insert into harbour.ships select generate_series(1, 1000);
      update tenancy.settings set small_table_bytes = (pg_table_size('harbour.ships_1') + pg_table_size('harbour.ships_2')) * 3 / 4`,
    code: "54000",
  }],
  ["a child whose registered parent has no org_id yet", {
    sql: `create table harbour.fleets (id integer primary key, user_id uuid);
      create table harbour.ships (id integer primary key, fleet_id integer references harbour.fleets (id));
      insert into tenancy.registry (schema_name, table_name, scope, priority) values ('harbour', 'fleets', 'org', 'secondary')`,
    code: "55000",
    finding: "parent_without_org_id",
    mentions: "harbour.fleets",
  }],
  ["a child whose parent nobody has classified yet", {
    sql: `create table harbour.fleets (id integer primary key, user_id uuid);
      create table harbour.ships (id integer primary key, fleet_id integer references harbour.fleets (id))`,
    code: "55000",
    finding: "parent_without_org_id",
    mentions: "harbour.fleets",
  }],
  ["a table that is registered as excluded", {
    sql: `create table harbour.ships (id integer primary key);
      insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'ships', 'excluded', 'a list')`,
    code: "55000",
  }],
  ["a foreign table", {
    sql: "create foreign table harbour.ships (id integer) server elsewhere",
    code: "55000",
    finding: "foreign_table",
  }],
  ["a table that inherits", {
    sql: "create table harbour.hulls (id integer); create table harbour.ships () inherits (harbour.hulls)",
    code: "55000",
    finding: "inherits",
  }],
  ["a table with an org_id of another type", {
    sql: "create table harbour.ships (id integer, org_id text)",
    code: "55000",
    finding: "org_id_type",
  }],
  ["a table with rows of organizations that do not exist", {
    sql:
      `create table harbour.ships (id integer, org_id uuid); insert into harbour.ships values (1, gen_random_uuid())`,
    code: "55000",
    finding: "org_id_of_no_organization",
    mentions: "has 1 rows",
  }],
  ["a view", { sql: "create view harbour.ships as select 1 as id", code: "42809" }],
  ["a materialized view", { sql: "create materialized view harbour.ships as select 1 as id", code: "42809" }],
  ["a temporary table", { sql: "create temporary table ships (id integer)", table: "pg_temp.ships", code: "42809" }],
  ["a partition", {
    sql: `create table harbour.voyages (id integer) partition by list (id);
      create table harbour.ships partition of harbour.voyages for values in (1)`,
    code: "42809",
  }],
  ["the organizations themselves", { sql: "select 1", table: "public.organizations", code: "42809" }],
  ["the platform's users", { sql: "select 1", table: "auth.users", code: "42809" }],
  ["a table of its own", { sql: "select 1", table: "tenancy.user_orgs", code: "42809" }],
];
