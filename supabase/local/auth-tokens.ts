/** Sessions: signing in, refreshing, and the user of a token. */
import { randomBytes, randomUUID } from "node:crypto";
import { type JWTPayload, SignJWT } from "jose";
import type { ISql, JSONValue } from "postgres";
import { AuthError, authorize, type AuthReply, type Call, readBody, reply } from "./auth-call.ts";
import { identitiesOf, loadUser, nilId, userJson } from "./auth-rows.ts";

type AuthenticationMethod = "password" | "token_refresh" | "otp" | "oauth" | "anonymous";

export async function ownUser(call: Call): Promise<AuthReply> {
  const claims = await authorize(call, false);
  const [row] = await call.sql`select * from auth.users where id = ${String(claims["sub"] ?? nilId)}`;
  if (!row) throw new AuthError(403, "user_not_found", "User from sub claim in JWT does not exist");
  const user = await loadUser(call.sql, row, "Database error loading user");
  return reply(userJson(user, await identitiesOf(call.sql, user)));
}

export async function signIn(call: Call): Promise<AuthReply> {
  const body = readBody(call);
  const { email, password } = body;
  if (typeof email !== "string" || email === "") {
    throw new AuthError(400, "validation_failed", "missing email or phone");
  }
  const { sql } = call;
  const [row] = await sql`
    select * from auth.users
    where instance_id = ${nilId}
      and aud = 'authenticated'
      and lower(email) = lower(${email})
      and not is_sso_user
      and encrypted_password <> ''
      and encrypted_password = extensions.crypt(${String(password ?? "")}, encrypted_password)
  `;
  if (!row) throw new AuthError(400, "invalid_credentials", "Invalid login credentials");
  const user = await loadUser(sql, row, "Database error querying schema");
  if (user.banned_until && user.banned_until > new Date()) throw new AuthError(400, "user_banned", "User is banned");
  if (!user.confirmed_at) throw new AuthError(400, "email_not_confirmed", "Email not confirmed");
  return await sql.begin(async (transaction) => await startSession(call, transaction, user.id, "password"));
}

/** Signs a user in. Whatever fails, the hook as well, undoes all of the transaction. */
export async function startSession(
  call: Call,
  sql: ISql,
  userId: string,
  method: AuthenticationMethod,
): Promise<AuthReply> {
  const sessionId = randomUUID();
  const refreshToken = newRefreshToken();
  await sql`update auth.users set last_sign_in_at = now(), updated_at = now() where id = ${userId}`;
  await sql`insert into auth.sessions (id, user_id, created_at, updated_at) values (${sessionId}, ${userId}, now(), now())`;
  await insertRefreshToken(sql, userId, sessionId, refreshToken, null);
  return await tokenReply(call, sql, { userId, sessionId, refreshToken, method });
}

export async function refresh(call: Call): Promise<AuthReply> {
  const token = readBody(call)["refresh_token"];
  if (typeof token !== "string" || !/^[a-z2-7]{12}$/.test(token)) {
    throw new AuthError(400, "validation_failed", "Refresh token is not valid");
  }
  const { sql } = call;
  return await sql.begin(async (transaction) => {
    const [found] = await transaction`
      select refresh_tokens.*, refresh_tokens.updated_at > now() - interval '10 seconds' as just_used
      from auth.refresh_tokens
      where token = ${token}
      for update
    `;
    if (!found) {
      throw new AuthError(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found");
    }
    const userId = found["user_id"] as string;
    const sessionId = found["session_id"] as string;
    const session = { userId, sessionId, method: "token_refresh" } as const;
    if (found["revoked"]) {
      const [child] = await transaction`
        select token from auth.refresh_tokens where parent = ${token} and not revoked and session_id = ${sessionId}
      `;
      if (!child || !found["just_used"]) {
        throw new AuthError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used");
      }
      return await tokenReply(call, transaction, { ...session, refreshToken: child["token"] as string });
    }
    const refreshToken = newRefreshToken();
    await transaction`update auth.refresh_tokens set revoked = true, updated_at = now() where token = ${token}`;
    await transaction`
      update auth.sessions set refreshed_at = now() at time zone 'utc', updated_at = now() where id = ${sessionId}
    `;
    await insertRefreshToken(transaction, userId, sessionId, refreshToken, token);
    return await tokenReply(call, transaction, { ...session, refreshToken });
  });
}

function newRefreshToken(): string {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  return Array.from(randomBytes(12), (byte) => alphabet[byte % alphabet.length]).join("");
}

async function insertRefreshToken(
  sql: ISql,
  userId: string,
  sessionId: string,
  token: string,
  parent: string | null,
): Promise<void> {
  await sql`
    insert into auth.refresh_tokens (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)
    values (${nilId}, ${token}, ${userId}, false, now(), now(), ${parent}, ${sessionId})
  `;
}

/** Signs an access token over the user's row as it is now, and answers with it. */
async function tokenReply(
  { key, jwtExpiry, tokenHook }: Call,
  sql: ISql,
  session: { userId: string; sessionId: string; refreshToken: string; method: AuthenticationMethod },
): Promise<AuthReply> {
  const { userId, sessionId, refreshToken, method } = session;
  const [row] = await sql`select * from auth.users where id = ${userId}`;
  const user = await loadUser(sql, row ?? {}, "Database error granting user");
  const issuedAt = Math.floor(Date.now() / 1000);
  const claims = await runHook(sql, tokenHook, user.id, method, {
    sub: user.id,
    aud: user.aud,
    iat: issuedAt,
    exp: issuedAt + jwtExpiry,
    email: user.email ?? "",
    phone: user.phone ?? "",
    app_metadata: user.raw_app_meta_data ?? {},
    user_metadata: user.raw_user_meta_data ?? {},
    role: user.role,
    aal: "aal1",
    amr: [{ method, timestamp: issuedAt }],
    session_id: sessionId,
    is_anonymous: user.is_anonymous,
  });
  const accessToken = await new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(key);
  return reply({
    access_token: accessToken,
    token_type: "bearer",
    expires_in: jwtExpiry,
    expires_at: issuedAt + jwtExpiry,
    refresh_token: refreshToken,
    user: userJson(user, await identitiesOf(sql, user)),
  });
}

/** Lets the custom access token hook change the claims, if it is on. Whatever makes it fail, no token is issued. */
async function runHook(
  sql: ISql,
  hook: string | null,
  userId: string,
  method: AuthenticationMethod,
  claims: Record<string, JSONValue>,
): Promise<JWTPayload> {
  if (hook === null) return claims;
  try {
    await sql`set local statement_timeout = '2s'`;
    const event = { user_id: userId, claims, authentication_method: method };
    const [row] = await sql`select ${sql(hook)}(${sql.json(event)}) as output`;
    await sql`set local statement_timeout to default`;
    return row?.["output"]?.claims;
  } catch (error) {
    throw new AuthError(
      500,
      "unexpected_failure",
      `Error running hook URI: pg-functions://postgres/${hook.replace(".", "/")}`,
      error,
    );
  }
}
