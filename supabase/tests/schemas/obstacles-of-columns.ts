import { defaultOrgId } from "../organizations.ts";
import { exclude, qualify } from "./draft.ts";
import { literal } from "./names.ts";
import { beside, columns, type Obstacle, ofOrgId, ofTable, onTable } from "./obstacle.ts";

/** Owners and parents that are not there, and an org_id that is not ours. */
export const columnObstacles: Record<string, Obstacle> = {
  "an owner_column that is not there": onTable(
    /^has no column "?no such column"?, its registered owner_column/,
    () => [],
    {
      ownerColumn: "no such column",
    },
  ),
  "an owner of another type": ofTable(
    /^keeps its owner in user_id integer, which is neither uuid nor text/,
    (target) => [
      `create table ${target} (id bigint primary key, user_id integer)`,
    ],
  ),
  "an owner of a domain": ofTable(
    /^keeps its owner in user_id .*, which is neither uuid nor text/,
    (target, table, draft) => {
      const domain = qualify(beside(draft, table, "type"));
      return [`create domain ${domain} as uuid`, `create table ${target} (id bigint primary key, user_id ${domain})`];
    },
  ),
  "a parent_column that is no foreign key": onTable(
    /^has no foreign key from id, its registered parent_column/,
    () => [],
    {
      parentColumn: "id",
    },
  ),
  "a parent_column to an excluded table": ofTable(
    /^has no foreign key from parent_id, its registered parent_column/,
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
  "an org_id of text": ofOrgId(/^has an org_id already that is text and not a plain uuid/, "text"),
  "an org_id of a domain": ofTable(/^has an org_id already that is .* and not a plain uuid/, (target, table, draft) => {
    const domain = qualify(beside(draft, table, "type"));
    return [`create domain ${domain} as uuid`, `create table ${target} (id bigint primary key, org_id ${domain})`];
  }),
  "an org_id that is generated": ofOrgId(
    /^has an org_id already that is uuid, generated, and not a plain uuid/,
    "uuid generated always as (user_id) stored",
  ),
  "an org_id with another default": ofOrgId(
    /^has an org_id already whose default is gen_random_uuid\(\)/,
    "uuid default gen_random_uuid()",
  ),
  "an org_id with a constant default": ofOrgId(
    /^has an org_id already whose default is '/,
    `uuid not null default ${literal(defaultOrgId)}`,
  ),
  "an org_id that references another table": ofTable(
    /^has a foreign key .* from org_id that is not to public.organizations \(id\) on delete cascade/,
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
    /^has a foreign key .* from org_id that is not to public.organizations \(id\) on delete cascade/,
    "uuid references public.organizations (id) on delete set null",
  ),
  "an org_id whose foreign key is not enforced": ofOrgId(
    /^has a foreign key .* from org_id that is not to public.organizations \(id\) on delete cascade/,
    "uuid references public.organizations (id) on delete cascade not enforced",
    { since: 18 },
  ),
  "an org_id of no organization": ofOrgId(/^has 1 rows? whose org_id is no organization/, "uuid", {
    change: (target) => `insert into ${target} values (1, null, gen_random_uuid())`,
  }),
};
