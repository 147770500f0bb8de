import { exclude, qualify, register } from "./draft.ts";
import { coinName, literal, quote } from "./names.ts";
import { addTrigger, beside, columns, type Obstacle, ofOrgId, ofTable, onTable, partitioned } from "./obstacle.ts";

/** Names that are taken, and rows that the backfill would break. */
export const rowObstacles: Record<string, Obstacle> = {
  "a constraint with the foreign key's name": onTable(
    "constraint_name_taken",
    (
      target,
      { name },
    ) => [`alter table ${target} add constraint ${quote(coinName("fk_", name, "_org_id"))} check (id > 0)`],
  ),
  "a constraint with the check's name": onTable(
    "constraint_name_taken",
    (
      target,
      { name },
    ) => [`alter table ${target} add constraint ${quote(coinName("", name, "_org_id_not_null"))} check (id > 0)`],
  ),
  "an index with the index's name": onTable(
    "index_name_taken",
    (target, { name }) => [
      `create index ${quote(coinName("idx_", name, "_org_id"))} on ${target} (note)`,
    ],
  ),
  "a table with the index's name": onTable(
    "index_name_taken",
    (_target, table, draft) => {
      const taken = { ...table, name: coinName("idx_", table.name, "_org_id") };
      exclude(draft, taken);
      return [`create table ${qualify(taken)} (id bigint)`];
    },
  ),
  "a trigger with the guard's name": onTable(
    "trigger_name_taken",
    (_target, table, draft) => addTrigger(draft, table, coinName("org_id_immutable_", table.name, "")),
  ),
  "a trigger with the filler's name": onTable(
    "trigger_name_taken",
    (_target, table, draft) => addTrigger(draft, table, coinName("zzz_fill_org_id_", table.name, ""), "before insert"),
  ),
  "rows without org_id under a unique constraint": ofOrgId(
    "null_org_id_under_constraint",
    "uuid, note text, unique (org_id, note)",
    { change: (target) => `insert into ${target} values (1, null, null, 'one'), (2, null, null, 'one')` },
  ),
  "rows without org_id under a unique index": ofOrgId(
    "null_org_id_under_constraint",
    "uuid, note text",
    {
      change: (target) =>
        `insert into ${target} values (1, null, null, 'one'); create unique index on ${target} (lower(note), org_id)`,
    },
  ),
  "rows without org_id under a foreign key": ofTable(
    "null_org_id_under_constraint",
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      exclude(draft, parent);
      return [
        `create table ${qualify(parent)} (org_id uuid, id bigint, unique (org_id, id))`,
        `create table ${target} (org_id uuid, parent_id bigint, foreign key (org_id, parent_id) references ${
          qualify(parent)
        } (org_id, id))`,
        `insert into ${target} values (null, 1)`,
      ];
    },
  ),
  "rows that break a check that is not valid": onTable(
    "rows_break_check",
    (
      target,
      _table,
      draft,
    ) => [`alter table ${target} add constraint ${quote(draft.name("check"))} check (id > 3) not valid`],
  ),
  "rows that break a check of a partition that is not valid": ofTable(
    "rows_break_check",
    (target, table, draft) => {
      const partition = qualify(beside(draft, table, "partition"));
      return [
        partitioned(target),
        `create table ${partition} partition of ${target} default`,
        `insert into ${target} values (1, ${literal(draft.users[0] as string)})`,
        `alter table ${partition} add constraint ${quote(draft.name("check"))} check (id > 3) not valid`,
      ];
    },
  ),
  "a foreign key of a partition alone": ofTable(
    "partition_foreign_key",
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      const partition = qualify(beside(draft, table, "partition"));
      register(draft, parent);
      return [
        `create table ${qualify(parent)} ${columns}`,
        partitioned(target),
        `create table ${partition} partition of ${target} default`,
        `alter table ${partition} add foreign key (id) references ${qualify(parent)} (id)`,
      ];
    },
  ),
  "a foreign key to a partition alone": ofTable(
    "partition_foreign_key",
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      const partition = qualify(beside(draft, table, "partition"));
      register(draft, parent);
      return [
        `create table ${qualify(parent)} (id bigint primary key, user_id uuid) partition by hash (id)`,
        `create table ${partition} partition of ${qualify(parent)} for values with (modulus 1, remainder 0)`,
        `create table ${target} (id bigint references ${partition} (id))`,
      ];
    },
  ),
};
