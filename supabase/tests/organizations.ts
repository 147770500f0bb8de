import type { ISql, Sql } from "postgres";
import { mapUsers, organizationIds } from "../local/mapping.ts";

export const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
export const otherOrgId = "b0000000-0000-4000-8000-000000000001";

/** The two organizations of the template two_organizations; its users belong to them in turn. */
export const [north = "", south = ""] = organizationIds(2);

/** SQL for the end of the list of tables: creates ten organizations and maps the users to them in turn. */
export const tenOrganizations = mapUsers(organizationIds(10));

/** Gives every user the organization of the mapping in app_metadata, as the edge function does. */
export async function giveUsersTheirOrganization(sql: ISql): Promise<void> {
  await sql`
    update auth.users
    set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', tenancy.org_of(id))
  `;
}

/** One run of the function, as it calls the database, with an Auth server that does what it is told. */
export async function updateUsers(sql: Sql): Promise<void> {
  const [run] = await sql`select tenancy.start_user_run() as id`;
  const id = run?.["id"] as string;
  const claimed = await sql`select user_id, attempts from tenancy.claim_users(${id}, 100)`;
  await giveUsersTheirOrganization(sql);
  const results = claimed.map((user) => ({
    user_id: user["user_id"] as string,
    attempts: Number(user["attempts"]) + 1,
    error: null,
    final: true,
  }));
  await sql`select tenancy.settle_users(${id}, ${sql.json(results)})`;
  await sql`select tenancy.end_user_pass(${id})`;
}

/** Makes the user a conflict: app_metadata has another organization than the mapping, which has the default one for all. */
export async function contradictMapping(sql: ISql, user: string): Promise<void> {
  await sql`insert into public.organizations (id, name) values (${otherOrgId}, 'other') on conflict do nothing`;
  await sql`insert into tenancy.user_orgs (user_id, org_id) select id, ${defaultOrgId} from auth.users`;
  await sql`
    update auth.users set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', ${otherOrgId}::text) where id = ${user}
  `;
}

/** Gives every user an organization: whom neither the mapping nor a claim places, or with another claim, the default one. */
export async function placeEveryone(sql: ISql): Promise<void> {
  await giveUsersTheirOrganization(sql);
  await sql`
    insert into tenancy.user_orgs (user_id, org_id)
    select user_id, ${defaultOrgId} from tenancy.users_without_org
    on conflict (user_id) do update set org_id = excluded.org_id
  `;
  await giveUsersTheirOrganization(sql);
}
