/** Sessions: signing in, refreshing, and the user of a token. */
import { randomBytes, randomUUID } from "node:crypto";
import { type JWTPayload, SignJWT } from "jose";
import type { ISql, JSONValue, Sql } from "postgres";
import { AuthError, authorize, type AuthReply, type Call, readBody, reply } from "./auth-call.ts";
import { identitiesOf, loadUser, nilId, userJson } from "./auth-rows.ts";

export async function issueToken(call: Call): Promise<AuthReply> {
  switch (call.request.url.searchParams.get("grant_type")) {
    case "password":
      return await signIn(call);
    case "refresh_token":
      return await refresh(call);
    default:
      throw new AuthError(400, "invalid_credentials", "unsupported_grant_type");
  }
}

export async function ownUser(call: Call): Promise<AuthReply> {
  const claims = await authorize(call, false);
  const [row] = await call.sql`select * from auth.users where id = ${String(claims["sub"] ?? nilId)}`;
  if (!row) throw new AuthError(403, "user_not_found", "User from sub claim in JWT does not exist");
  const user = await loadUser(call.sql, row, "Database error loading user");
  return reply(userJson(user, await identitiesOf(call.sql, user)));
}

async function signIn(call: Call): Promise<AuthReply> {
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
  const sessionId = randomUUID();
  const refreshToken = newRefreshToken();
  await sql.begin(async (transaction) => {
    await transaction`update auth.users set last_sign_in_at = now(), updated_at = now() where id = ${user.id}`;
    await transaction`
      insert into auth.sessions (id, user_id, created_at, updated_at) values (${sessionId}, ${user.id}, now(), now())
    `;
    await insertRefreshToken(transaction, user, sessionId, refreshToken, null);
  });
  return await tokenReply(call, user.id, sessionId, refreshToken);
}

async function refresh(call: Call): Promise<AuthReply> {
  const token = readBody(call)["refresh_token"];
  if (typeof token !== "string" || !/^[a-z2-7]{12}$/.test(token)) {
    throw new AuthError(400, "validation_failed", "Refresh token is not valid");
  }
  const { sql } = call;
  const issued = await sql.begin(async (transaction) => {
    const [found] = await transaction`
      select refresh_tokens.*, refresh_tokens.updated_at > now() - interval '10 seconds' as just_used
      from auth.refresh_tokens
      where token = ${token}
      for update
    `;
    if (!found) {
      throw new AuthError(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found");
    }
    const user = { id: found["user_id"] as string };
    const sessionId = found["session_id"] as string;
    if (found["revoked"]) {
      const [child] = await transaction`
        select token from auth.refresh_tokens where parent = ${token} and not revoked and session_id = ${sessionId}
      `;
      if (!child || !found["just_used"]) {
        throw new AuthError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used");
      }
      return { userId: user.id, sessionId, refreshToken: child["token"] as string };
    }
    const refreshToken = newRefreshToken();
    await transaction`update auth.refresh_tokens set revoked = true, updated_at = now() where token = ${token}`;
    await transaction`
      update auth.sessions set refreshed_at = now() at time zone 'utc', updated_at = now() where id = ${sessionId}
    `;
    await insertRefreshToken(transaction, user, sessionId, refreshToken, token);
    return { userId: user.id, sessionId, refreshToken };
  });
  return await tokenReply(call, issued.userId, issued.sessionId, issued.refreshToken);
}

function newRefreshToken(): string {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  return Array.from(randomBytes(12), (byte) => alphabet[byte % alphabet.length]).join("");
}

async function insertRefreshToken(
  sql: ISql,
  user: { id: string },
  sessionId: string,
  token: string,
  parent: string | null,
): Promise<void> {
  await sql`
    insert into auth.refresh_tokens (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)
    values (${nilId}, ${token}, ${user.id}, false, now(), now(), ${parent}, ${sessionId})
  `;
}

/** Signs an access token over the user's row as it is now, and answers with it. */
async function tokenReply(
  { sql, key, jwtExpiry, tokenHook }: Call,
  userId: string,
  sessionId: string,
  refreshToken: string,
): Promise<AuthReply> {
  const [row] = await sql`select * from auth.users where id = ${userId}`;
  const user = await loadUser(sql, row ?? {}, "Database error granting user");
  const issuedAt = Math.floor(Date.now() / 1000);
  const claims = await runHook(sql, tokenHook, user.id, {
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
    amr: [{ method: "password", timestamp: issuedAt }],
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
  sql: Sql,
  hook: string | null,
  userId: string,
  claims: Record<string, JSONValue>,
): Promise<JWTPayload> {
  if (hook === null) return claims;
  try {
    return await sql.begin(async (transaction) => {
      await transaction`set local statement_timeout = '2s'`;
      const event = { user_id: userId, claims, authentication_method: "password" };
      const [row] = await transaction`select ${transaction(hook)}(${transaction.json(event)}) as output`;
      return row?.["output"]?.claims;
    });
  } catch {
    throw new AuthError(
      500,
      "unexpected_failure",
      `Error running hook URI: pg-functions://postgres/${hook.replace(".", "/")}`,
    );
  }
}
