import type { Sql } from "postgres";
import { readRoles, readTables } from "./intruder-targets.ts";
import type { Self } from "./intruder-ways.ts";

/** Who tries to reach rows of other organizations. */
export interface Intruder extends Self {
  role: string;
  claims: Record<string, unknown>;
}

/**
 * Everyone who may come by the API: nobody in particular, and the role of users and roles of the application's own with the
 * token of a user. There are two, the one whom most rows of other organizations mention, and one of the largest organization.
 */
export async function findIntruders(sql: Sql): Promise<Intruder[]> {
  const tables = await readTables(sql);
  const rows = tables.map((name) => `select org_id, row_to_json(rows)::text as text from ${name} as rows`);
  const users = await sql.unsafe<{ id: string; org_id: string }[]>(`
    with rows as (${rows.join(" union all ")}),
    members as (select id, raw_app_meta_data ->> 'org_id' as org_id from auth.users),
    counts as (
      select
        members.id,
        members.org_id,
        (
          select count(*)
          from rows
          where rows.org_id::text <> members.org_id and position(members.id::text in rows.text) > 0
        ) as mentions,
        (select count(*) from rows where rows.org_id::text = members.org_id) as own
      from members
    )
    select id, org_id from (select * from counts order by mentions desc, own desc, id limit 1) as mentioned
    union
    select id, org_id from (select * from counts order by own desc, mentions desc, id limit 1) as colleague
  `);
  const everyone = await sql<{ id: string; org_id: string }[]>`
    select id, raw_app_meta_data ->> 'org_id' as org_id from auth.users
  `;
  const intruders: Intruder[] = [];
  for (const role of await readRoles(sql)) {
    for (const user of role === "anon" ? [null] : users) {
      const others = everyone.filter(({ org_id }) => org_id !== user?.org_id);
      intruders.push({
        role,
        user: user?.id ?? null,
        orgId: user?.org_id ?? null,
        users: new Set(others.map(({ id }) => id)),
        claims: user
          ? {
            sub: user.id,
            role,
            app_metadata: { org_id: user.org_id },
            // What users can say of themselves.
            user_metadata: { org_id: others[0]?.org_id },
          }
          : { role },
      });
    }
  }
  return intruders;
}
