import type { ISql, JSONValue } from "postgres";

export type Metadata = Record<string, JSONValue>;

export interface NewUser {
  id: string;
  email: string;
  /** What it has in app_metadata; appMetadata if not said. */
  metadata?: Metadata;
}

/** app_metadata of a user who signed up with a password, and a key of the application's. */
export const appMetadata: Metadata = { provider: "email", providers: ["email"], plan: { name: "pro" } };

/** The id of the user with this number. */
export const userId = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;

/** Users 1 to count: user1@example.com and so on. */
export const numberedUsers = (count: number): NewUser[] =>
  Array.from({ length: count }, (_, index) => ({ id: userId(index + 1), email: `user${index + 1}@example.com` }));

/** Adds users as the Auth server does. Without a password nobody can sign in as them. */
export async function addUsers(sql: ISql, users: NewUser[], password: string | null = null): Promise<void> {
  const rows = users.map(({ id, email, metadata = appMetadata }) => ({ id, email, metadata }));
  await sql`
    insert into auth.users (
      instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
      email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
    )
    select
      '00000000-0000-0000-0000-000000000000', id, 'authenticated', 'authenticated', email,
      coalesce(extensions.crypt(${password}, extensions.gen_salt('bf', 4)), ''), now(), '', '', '', '',
      metadata, '{}', now(), now()
    from jsonb_to_recordset(${sql.json(rows)}) as new (id uuid, email text, metadata jsonb)
  `;
}
