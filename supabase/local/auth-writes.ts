/**
 * How the Auth server writes a user: one statement after the other, and app_metadata as a whole from what it has in memory. So
 * triggers meet here what they meet there.
 */
import { randomUUID } from "node:crypto";
import type { ISql, JSONValue } from "postgres";
import { nilId, type UserRow } from "./auth-rows.ts";

export interface NewUser {
  email?: string | undefined;
  phone?: string | undefined;
  password?: string | undefined;
  /** The provider of the first identity; undefined: an anonymous user, who has none. */
  provider?: string;
  data?: Record<string, JSONValue> | undefined;
}

/** Inserts a user, and reads what became of it: triggers may have changed it. */
export async function insertUser(sql: ISql, user: NewUser): Promise<UserRow> {
  const { email = null, phone = null, password = "", provider, data = {} } = user;
  const appMetadata = provider === undefined ? {} : { provider, providers: [provider] };
  const id = randomUUID();
  await sql`
    insert into auth.users (
      instance_id, id, aud, role, email, phone, encrypted_password, confirmation_token, recovery_token,
      email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, is_anonymous, created_at, updated_at
    )
    values (
      ${nilId}, ${id}, 'authenticated', '', ${email}, ${phone},
      case when ${password} = '' then '' else extensions.crypt(${password}, extensions.gen_salt('bf', 6)) end,
      '', '', '', '', ${sql.json(appMetadata)}, ${sql.json(data)}, ${provider === undefined}, now(), now()
    )
  `;
  await sql`update auth.users set role = 'authenticated' where id = ${id}`;
  return await reload(sql, id);
}

export async function reload(sql: ISql, id: string): Promise<UserRow> {
  const [row] = await sql`select * from auth.users where id = ${id}`;
  return row as unknown as UserRow;
}

/** Adds an identity, whom the provider knows by data.sub. */
export async function insertIdentity(
  sql: ISql,
  user: Pick<UserRow, "id">,
  provider: string,
  data: Record<string, JSONValue> & { sub: string },
): Promise<void> {
  const identityData = { email_verified: false, phone_verified: false, ...data };
  await sql`
    insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
    values (${data.sub}, ${user.id}, ${sql.json(identityData)}, ${provider}, now(), now(), now())
  `;
}

export async function confirmEmail(sql: ISql, user: UserRow): Promise<void> {
  await sql`update auth.users set email_confirmed_at = now(), confirmation_token = '' where id = ${user.id}`;
  user.raw_user_meta_data = mergeMetadata(user.raw_user_meta_data ?? {}, { email_verified: true });
  await sql`update auth.users set raw_user_meta_data = ${sql.json(user.raw_user_meta_data)} where id = ${user.id}`;
}

export async function leaveAnonymity(sql: ISql, user: UserRow): Promise<void> {
  if (!user.is_anonymous) return;
  user.is_anonymous = false;
  await sql`update auth.users set is_anonymous = false where id = ${user.id}`;
}

/** Writes app_metadata as it is in memory, with these changes. */
export async function updateAppMetadata(
  sql: ISql,
  user: UserRow,
  changes: Record<string, JSONValue>,
): Promise<void> {
  user.raw_app_meta_data = mergeMetadata(user.raw_app_meta_data ?? {}, changes);
  await sql`
    update auth.users
    set raw_app_meta_data = ${sql.json(user.raw_app_meta_data)}, updated_at = now()
    where id = ${user.id}
  `;
}

/** Writes app_metadata as it is in memory, with the providers of the user's identities. */
export async function updateProviders(sql: ISql, user: UserRow): Promise<void> {
  const rows = await sql<{ provider: string }[]>`
    select provider from auth.identities where user_id = ${user.id} order by created_at
  `;
  const [first, ...others] = rows.map(({ provider }) => provider);
  const changes = first === undefined ? { providers: [] } : { provider: first, providers: [first, ...others] };
  await updateAppMetadata(sql, user, changes);
}

/** Merges as GoTrue does: a value replaces that of its key, null removes the key, other keys stay. */
export function mergeMetadata(
  current: Record<string, JSONValue>,
  changes: Record<string, JSONValue>,
): Record<string, JSONValue> {
  return Object.fromEntries(Object.entries({ ...current, ...changes }).filter(([name]) => changes[name] !== null));
}

export async function audit(sql: ISql, action: string, user: UserRow): Promise<void> {
  const payload = { action, actor_username: "service_role", traits: { user_id: user.id } };
  await sql`
    insert into auth.audit_log_entries (instance_id, id, payload, created_at)
    values (${nilId}, ${randomUUID()}, ${JSON.stringify(payload)}::json, now())
  `;
}
