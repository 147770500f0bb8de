import { defaultOrgId } from "../organizations.ts";
import { exclude, qualify } from "./draft.ts";
import { literal } from "./names.ts";
import { beside, type Obstacle, ofOrgId, ofTable } from "./obstacle.ts";

/** An org_id that is not ours. */
export const columnObstacles: Record<string, Obstacle> = {
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
