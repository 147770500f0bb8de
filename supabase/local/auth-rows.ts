import type { ISql, JSONValue } from "postgres";
import { AuthError } from "./auth-call.ts";

export interface UserRow {
  id: string;
  aud: string;
  role: string;
  email: string | null;
  phone: string | null;
  encrypted_password: string | null;
  email_confirmed_at: Date | null;
  confirmed_at: Date | null;
  last_sign_in_at: Date | null;
  banned_until: Date | null;
  deleted_at: Date | null;
  raw_app_meta_data: Record<string, JSONValue> | null;
  raw_user_meta_data: Record<string, JSONValue> | null;
  created_at: Date;
  updated_at: Date;
  is_anonymous: boolean;
}

/** The instance of every user: the Auth server serves one. */
export const nilId = "00000000-0000-0000-0000-000000000000";

/** The columns that GoTrue reads into fields without NULL: with one NULL it cannot load the user at all. */
const neverNull = [
  "aud",
  "role",
  "confirmation_token",
  "recovery_token",
  "email_change_token_new",
  "email_change_token_current",
  "email_change",
  "email_change_confirm_status",
  "phone_change",
  "phone_change_token",
  "reauthentication_token",
  "created_at",
  "updated_at",
];

/** Loads a row as GoTrue does, or fails as it does: at a NULL that it cannot read, or at metadata that is not an object. */
export function asUser(row: Record<string, unknown>, failure: string): UserRow {
  const isObject = (value: unknown) => value === null || (typeof value === "object" && !Array.isArray(value));
  if (
    neverNull.some((column) => row[column] === null) ||
    !isObject(row["raw_app_meta_data"]) ||
    !isObject(row["raw_user_meta_data"])
  ) {
    throw new AuthError(500, "unexpected_failure", failure);
  }
  return row as unknown as UserRow;
}

/** Loads a user by itself, which takes the identities and factors with it, and fails where GoTrue cannot read one of those. */
export async function loadUser(sql: ISql, row: Record<string, unknown>, failure: string): Promise<UserRow> {
  const user = asUser(row, failure);
  const [unreadable] = await sql`
    select from auth.identities
    where user_id = ${user.id}
      and (created_at is null or updated_at is null or jsonb_typeof(identity_data) not in ('object', 'null'))
    union all
    select from auth.mfa_factors
    where user_id = ${user.id} and (friendly_name is null or secret is null)
  `;
  if (unreadable) throw new AuthError(500, "unexpected_failure", failure);
  return user;
}

export async function identitiesOf(sql: ISql, user: UserRow): Promise<Record<string, unknown>[]> {
  return await sql`
    select
      id as identity_id,
      provider_id as id,
      user_id,
      identity_data,
      provider,
      last_sign_in_at,
      created_at,
      updated_at,
      email
    from auth.identities
    where user_id = ${user.id}
    order by created_at
  `;
}

export function userJson(user: UserRow, identities: Record<string, unknown>[] | null): Record<string, unknown> {
  return {
    id: user.id,
    aud: user.aud,
    role: user.role,
    email: user.email ?? "",
    email_confirmed_at: user.email_confirmed_at ?? undefined,
    phone: user.phone ?? "",
    confirmed_at: user.confirmed_at ?? undefined,
    last_sign_in_at: user.last_sign_in_at ?? undefined,
    app_metadata: user.raw_app_meta_data ?? {},
    user_metadata: user.raw_user_meta_data ?? {},
    identities,
    created_at: user.created_at,
    updated_at: user.updated_at,
    banned_until: user.banned_until ?? undefined,
    deleted_at: user.deleted_at ?? undefined,
    is_anonymous: user.is_anonymous,
  };
}
