import { asSuperuser, exclude, qualify, register } from "./draft.ts";
import { quote } from "./names.ts";
import { beside, columns, enableTrigger, type Obstacle, ofTable, onTable } from "./obstacle.ts";

/** What keeps rows from being updated, or from being updated unnoticed. */
export const updateObstacles: Record<string, Obstacle> = {
  "a typed table": ofTable("typed_table", (target, table, draft) => {
    const type = qualify(beside(draft, table, "type"));
    return [`create type ${type} as (id bigint, user_id uuid)`, `create table ${target} of ${type}`];
  }),
  "a row type that is used": onTable("row_type_in_use", (target, table, draft) => {
    const user = beside(draft, table, "table");
    exclude(draft, user);
    return [`create table ${qualify(user)} (rows ${target}[])`];
  }),
  "1600 columns": ofTable("too_many_columns", (target) => [
    `create table ${target} (${Array.from({ length: 1600 }, (_, number) => `c${number} boolean`).join(", ")})`,
  ]),
  "a rule": onTable("rule", (target, _table, draft) => [
    `create rule ${quote(draft.name("rule"))} as on insert to ${target} do also select 1`,
  ]),
  "a rule that swallows updates": onTable("rule", (target, _table, draft) => [
    `create rule ${quote(draft.name("rule"))} as on update to ${target} do instead nothing`,
  ]),
  "a trigger that is enabled always": onTable(
    "always_trigger",
    enableTrigger("always"),
  ),
  "a trigger that is enabled for replicas": onTable(
    "always_trigger",
    enableTrigger("replica"),
  ),
  "published without identity": ofTable("no_replica_identity", (target, _table, draft) => [
    `create table ${target} (id bigint, user_id uuid)`,
    `create publication ${quote(draft.name("publication"))} for table ${target}`,
  ]),
  "published with the identity of nothing": onTable(
    "no_replica_identity",
    (target, _table, draft) => [
      `alter table ${target} replica identity nothing`,
      `create publication ${quote(draft.name("publication"))} for table ${target}`,
    ],
  ),
  "published with a row filter beyond the identity": onTable("publication_beyond_identity", (target, _table, draft) => [
    `create publication ${quote(draft.name("publication"))} for table ${target} where (note is not null)`,
  ]),
  "published with generated columns in the identity": {
    since: 18,
    ...ofTable("generated_replica_identity", (target, _table, draft) => [
      `create table ${target} (id bigint, user_id uuid, twice bigint generated always as (id * 2) stored)`,
      `alter table ${target} replica identity full`,
      `create publication ${quote(draft.name("publication"))} for table ${target}`,
    ]),
  },
  "published with columns without the identity": onTable("publication_beyond_identity", (target, _table, draft) => [
    `create publication ${quote(draft.name("publication"))} for table ${target} (note)`,
  ]),
  "row-level security that hides the rows": {
    without: ["forced row-level security"],
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      const role = "under_row_level_security";
      draft.script.push(
        `create table ${qualify(table)} ${columns}`,
        `alter table ${qualify(table)} enable row level security, force row level security`,
        // It may do what postgres may, except bypass row-level security. Roles belong to the server, not to the database.
        asSuperuser(`do $role$ begin
          create role ${role} login password 'postgres' in role postgres;
        exception when duplicate_object or unique_violation then null; end $role$`),
      );
      register(draft, table);
      return { table, code: "forced_row_security", role };
    },
  },
  "a schema where nothing can be created": {
    plant: (draft) => {
      const table = { schema: draft.name("schema"), name: draft.name("table") };
      draft.script.push(
        `create schema ${quote(table.schema)}`,
        `create table ${qualify(table)} ${columns}`,
        asSuperuser(
          `alter schema ${quote(table.schema)} owner to supabase_admin; grant usage on schema ${
            quote(table.schema)
          } to postgres`,
        ),
      );
      register(draft, table);
      return { table, code: "schema_without_create" };
    },
  },
};
