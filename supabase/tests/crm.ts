import type { Sql } from "postgres";
import { findMisplaced as findMisplacedRows } from "./applications.ts";
import { defaultOrgId } from "./organizations.ts";

export const companyA = "c0000000-0000-4000-8000-00000000000a";
export const companyB = "c0000000-0000-4000-8000-00000000000b";
export const companyC = "c0000000-0000-4000-8000-00000000000c";
export const pilot = "d0000000-0000-4000-8000-000000000001";

/**
 * For each org-scoped table its rows with the organization that each should have, written for this application and its data
 * and without any code of the migration. The temporary tables are the CRM's own knowledge: members has the organization of
 * every user, of two companies the one joined first; had is what the pilot had written to contacts.org_id.
 */
export const expectations: Record<string, string> = {
  contacts: `
    with recursive placed (id, expected) as (
      select contacts.id, coalesce(had.org_id, members.org_id, '${defaultOrgId}')
      from public.contacts
      left join had using (id)
      left join members on members.user_id = contacts.owner_id
      where had.org_id is not null or members.org_id is not null or contacts.referred_by is null
      union all
      select contacts.id, placed.expected
      from placed
      join public.contacts on contacts.referred_by = placed.id
      left join had on had.id = contacts.id
      left join members on members.user_id = contacts.owner_id
      where had.org_id is null and members.org_id is null
    )
    select contacts.*, expected from public.contacts left join placed using (id)
  `,
  'sales."DealStages"': `
    select stages.*, coalesce(members.org_id, '${defaultOrgId}') as expected
    from sales."DealStages" as stages
    left join members on members.user_id = stages.owner_id
  `,
  "sales.deals": `
    select deals.*, coalesce(members.org_id, stages.org_id) as expected
    from sales.deals
    join sales."DealStages" as stages on stages.id = deals.stage_id
    left join members on members.user_id = deals.owner_id
  `,
  "sales.deal_items": `
    select items.*, deals.org_id as expected
    from sales.deal_items as items
    join sales.deals on deals.id = items.deal_id
  `,
  "sales.price_changes": `
    select changes.*, coalesce(items.org_id, '${defaultOrgId}') as expected
    from sales.price_changes as changes
    left join sales.deal_items as items on items.id = changes.deal_item_id
  `,
  activities: `
    select activities.*, coalesce(members.org_id, contacts.org_id, deals.org_id, '${defaultOrgId}') as expected
    from public.activities
    left join members on members.user_id = activities.owner_id
    left join public.contacts on contacts.id = activities.contact_id
    left join sales.deals on deals.id = activities.deal_id
  `,
  audit_log: `
    select audit_log.*, coalesce(members.org_id, deals.org_id, '${defaultOrgId}') as expected
    from public.audit_log
    left join members on members.user_id::text = lower(audit_log.actor)
    left join sales.deals on deals.id = audit_log.deal_id
  `,
};

/** The temporary table of the organization that each user should have, which the expectations read. */
export const createMembers = `
  create temporary table members as
  select distinct on (user_id) user_id, company_id as org_id
  from public.company_members
  order by user_id, created_at
`;

/** Every table of the application with its rows, org_id apart; partitions are in what they are partitions of. */
export async function readRows(sql: Sql): Promise<Map<string, string>> {
  const tables = await sql<{ name: string }[]>`
    select oid::regclass::text as name
    from pg_class
    where relnamespace in ('public'::regnamespace, 'sales'::regnamespace)
      and (relkind in ('r', 'p') and not relispartition or relkind = 'm')
      and relname <> 'organizations'
  `;
  const rows = new Map<string, string>();
  for (const { name } of tables) {
    const found = await sql.unsafe<{ row: string }[]>(
      `select (to_jsonb(row) - 'org_id')::text as row from ${name} as row order by 1`,
    );
    rows.set(name, found.map(({ row }) => row).join("\n"));
  }
  return rows;
}

/** The rows that have another organization than they should. */
export const findMisplaced = (sql: Sql): Promise<string[]> => findMisplacedRows(sql, { expectations });
