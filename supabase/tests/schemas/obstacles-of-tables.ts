import { asSuperuser, exclude, qualify, register } from "./draft.ts";
import { literal } from "./names.ts";
import { beside, columns, foreignServer, noTable, type Obstacle, ofTable, onTable, partitioned } from "./obstacle.ts";

/** Tables that are not what they should be: unclassified, missing, or of a kind that cannot get org_id. */
export const tableObstacles: Record<string, Obstacle> = {
  "a table that is not classified": {
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      draft.script.push(`create table ${qualify(table)} (id bigint primary key, user_id uuid)`);
      return { table, code: "unclassified_table" };
    },
  },
  "a table that is not classified, without owner": {
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      draft.script.push(`create table ${qualify(table)} (id bigint primary key)`);
      return { table, code: "unclassified_table" };
    },
  },
  "a registered table that does not exist": {
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      register(draft, table);
      return { table, code: "missing_table" };
    },
  },
  "a view that is registered": noTable((draft) => {
    const view = { schema: draft.random.pick(draft.schemas), name: draft.name("view") };
    draft.script.push(`create view ${qualify(view)} as select 1 as id`);
    return view;
  }),
  "a partition that is registered": noTable((draft) => {
    const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
    const partition = beside(draft, table, "partition");
    draft.script.push(
      partitioned(qualify(table)),
      `create table ${qualify(partition)} partition of ${qualify(table)} default`,
    );
    exclude(draft, table);
    return partition;
  }),
  "auth.users registered": noTable(() => ({ schema: "auth", name: "users" })),
  "public.organizations registered": noTable(() => ({ schema: "public", name: "organizations" })),
  "a foreign table": ofTable("foreign_table", (target) => [
    foreignServer,
    asSuperuser(
      `create foreign table ${target} (id bigint, user_id uuid) server nothing; alter table ${target} owner to postgres`,
    ),
  ]),
  "a foreign partition": ofTable("foreign_partition", (target, table, draft) => {
    const partition = qualify(beside(draft, table, "partition"));
    return [
      foreignServer,
      partitioned(target),
      asSuperuser(
        `create foreign table ${partition} partition of ${target} default server nothing; alter table ${partition} owner to postgres`,
      ),
    ];
  }),
  "a table that inherits": ofTable("inherits", (target, table, draft) => {
    const parent = beside(draft, table, "table");
    exclude(draft, parent);
    return [`create table ${qualify(parent)} ${columns}`, `create table ${target} () inherits (${qualify(parent)})`];
  }),
  "a table that others inherit from": onTable("inherited_from", (target, table, draft) => {
    const child = beside(draft, table, "table");
    exclude(draft, child);
    return [`create table ${qualify(child)} () inherits (${target})`];
  }),
  "a table of another owner": onTable(
    "table_of_another_role",
    (target) => [asSuperuser(`alter table ${target} owner to supabase_admin`)],
  ),
  "a partition of another owner": ofTable(
    "partition_of_another_role",
    (target, table, draft) => {
      const partition = qualify(beside(draft, table, "partition"));
      return [
        partitioned(target),
        `create table ${partition} partition of ${target} default`,
        asSuperuser(`alter table ${partition} owner to supabase_admin`),
      ];
    },
  ),
  "a partitioned table with org_id": ofTable("partitioned_with_org_id", (target) => [
    partitioned(target, "id bigint, org_id uuid"),
  ]),
  "a partition that is being detached": ofTable("partition_being_detached", (target, table, draft) => {
    const partition = qualify(beside(draft, table, "partition"));
    return [
      partitioned(target),
      `create table ${partition} partition of ${target} for values in (1)`,
      // As a DETACH CONCURRENTLY leaves it that was cut off.
      asSuperuser(`update pg_inherits set inhdetachpending = true where inhrelid = ${literal(partition)}::regclass`),
    ];
  }),
};
