/** The application's requests, as PostgREST and the Auth server put them to the database, and the code of its own behind them. */
import type { ISql, JSONValue, Sql } from "postgres";

export type Claims = Record<string, JSONValue>;

/** The token of a user who signed in before there were organizations. */
export const tokenFromBefore = (userId: string): Claims => ({
  sub: userId,
  role: "authenticated",
  app_metadata: { provider: "email", providers: ["email"] },
});

/** One request: role and claims count to the end of its transaction. The connection is the authenticator's, or an owner's. */
export async function request<Result>(
  sql: Sql,
  role: "authenticated" | "service_role",
  claims: Claims | undefined,
  act: (transaction: ISql) => Promise<Result>,
): Promise<Result> {
  return (await sql.begin(async (transaction) => {
    await transaction`
      select set_config('role', ${role}, true), set_config('request.jwt.claims', ${
      claims ? JSON.stringify(claims) : ""
    }, true)
    `;
    return await act(transaction);
  })) as Result;
}

/**
 * Signs somebody up as the Auth server does, which reads the new user again before it issues the token, for what triggers made
 * of it. Returns that token. The connection is supabase_auth_admin's.
 */
export async function signUp(sql: ISql, id: string, email: string): Promise<Claims> {
  await sql`
    insert into auth.users (
      instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
      email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
    )
    values (
      '00000000-0000-0000-0000-000000000000', ${id}, 'authenticated', 'authenticated', ${email}, '', now(), '', '', '', '',
      '{"provider": "email", "providers": ["email"]}', '{}', now(), now()
    )
  `;
  return await readToken(sql, id);
}

/** The token that a user gets now. */
export async function readToken(sql: ISql, id: string): Promise<Claims> {
  const [user] = await sql`select raw_app_meta_data from auth.users where id = ${id}`;
  return { sub: id, role: "authenticated", app_metadata: user?.["raw_app_meta_data"] as JSONValue };
}

/**
 * Code of the application that writes and knows nothing of org_id: a function that people call, one for a webhook, which keeps
 * every error to itself and whose row comes with a NULL for each column that it does not know, and a trigger on sign-ups.
 */
export const codeBefore = `
  create or replace function public.log_my_call(id uuid, phone_number text) returns uuid
  language sql security invoker set search_path = '' as $$
    insert into public.call_logs (id, user_id, phone_number) values (id, (select auth.uid()), phone_number) returning id
  $$;

  create or replace function public.receive_call_event(event jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
  begin
    insert into public.call_tracking
    select entry.*
    from jsonb_populate_record(
      null::public.call_tracking, jsonb_build_object('provider', 'twilio', 'payload', event, 'occurred_at', now()) || event
    ) as entry;
    return jsonb_build_object('success', true);
  exception when others then
    return jsonb_build_object('success', false, 'code', sqlstate, 'message', sqlerrm);
  end $$;

  create or replace function public.welcome_new_user() returns trigger
  language plpgsql security definer set search_path = '' as $$
  begin
    insert into public.agents (user_id, name) values (new.id, 'My first agent');
    return null;
  end $$;
  create or replace trigger welcome_new_user after insert on auth.users for each row execute function public.welcome_new_user();
`;

/** The same in the next version of the application, which sends org_id wherever no token of a user's does. */
export const codeAfter = `
  create or replace function public.receive_call_event(event jsonb) returns jsonb
  language plpgsql security definer set search_path = '' as $$
  begin
    insert into public.call_tracking (id, call_id, event, org_id)
    select (event ->> 'id')::uuid, calls.id, event ->> 'event', calls.org_id
    from public.calls
    where calls.id = (event ->> 'call_id')::uuid;
    return jsonb_build_object('success', true);
  exception when others then
    return jsonb_build_object('success', false, 'code', sqlstate, 'message', sqlerrm);
  end $$;

  create or replace function public.welcome_new_user() returns trigger
  language plpgsql security definer set search_path = '' as $$
  begin
    insert into public.agents (user_id, name, org_id)
    values (new.id, 'My first agent', (new.raw_app_meta_data ->> 'org_id')::uuid);
    return null;
  end $$;
`;
