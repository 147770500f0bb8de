import { defaultOrgId } from "../organizations.ts";
import { exclude, qualify } from "./draft.ts";
import { literal } from "./names.ts";
import { beside, columns, type Obstacle, ofOrgId, ofTable, onTable } from "./obstacle.ts";

/** Owners and parents that are not there, and an org_id that is not ours. */
export const columnObstacles: Record<string, Obstacle> = {
  "an owner_column that is not there": onTable(
    "missing_owner_column",
    () => [],
    {
      ownerColumn: "no such column",
    },
  ),
  "an owner of another type": ofTable(
    "owner_column_type",
    (target) => [
      `create table ${target} (id bigint primary key, user_id integer)`,
    ],
  ),
  "an owner of a domain": ofTable(
    "owner_column_type",
    (target, table, draft) => {
      const domain = qualify(beside(draft, table, "type"));
      return [`create domain ${domain} as uuid`, `create table ${target} (id bigint primary key, user_id ${domain})`];
    },
  ),
  "a parent_column that is no foreign key": onTable(
    "parent_column_without_parent",
    () => [],
    {
      parentColumn: "id",
    },
  ),
  "a parent_column to an excluded table": ofTable(
    "parent_column_without_parent",
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      exclude(draft, parent);
      return [
        `create table ${qualify(parent)} ${columns}`,
        `create table ${target} (id bigint primary key, parent_id bigint references ${qualify(parent)} (id))`,
      ];
    },
    { parentColumn: "parent_id" },
  ),
  "an org_id of text": ofOrgId("org_id_type", "text"),
  "an org_id of a domain": ofTable("org_id_type", (target, table, draft) => {
    const domain = qualify(beside(draft, table, "type"));
    return [`create domain ${domain} as uuid`, `create table ${target} (id bigint primary key, org_id ${domain})`];
  }),
  "an org_id that is generated": ofOrgId(
    "org_id_type",
    "uuid generated always as (user_id) stored",
  ),
  "an org_id with another default": ofOrgId(
    "org_id_default",
    "uuid default gen_random_uuid()",
  ),
  "an org_id with a constant default": ofOrgId(
    "org_id_default",
    `uuid not null default ${literal(defaultOrgId)}`,
  ),
  "an org_id that references another table": ofTable(
    "org_id_foreign_key",
    (target, table, draft) => {
      const teams = beside(draft, table, "table");
      exclude(draft, teams);
      return [
        `create table ${qualify(teams)} (id uuid primary key)`,
        `create table ${target} (id bigint primary key, org_id uuid references ${
          qualify(teams)
        } (id) on delete cascade)`,
      ];
    },
  ),
  "an org_id whose foreign key does not cascade": ofOrgId(
    "org_id_foreign_key",
    "uuid references public.organizations (id) on delete set null",
  ),
  "an org_id whose foreign key is not enforced": ofOrgId(
    "org_id_foreign_key",
    "uuid references public.organizations (id) on delete cascade not enforced",
    { since: 18 },
  ),
  "an org_id of no organization": ofOrgId("org_id_of_no_organization", "uuid", {
    change: (target) => `insert into ${target} values (1, null, gen_random_uuid())`,
  }),
};
