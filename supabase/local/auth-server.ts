/**
 * A stand-in for the Auth server: the few endpoints of GoTrue that this project meets, over the same auth.users, with its
 * semantics: app_metadata merged by top-level key from a read outside the transaction, whole columns written back, claims read
 * from the row at every issue, its status codes and error bodies (both API versions). Checked against GoTrue v2.196.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { jwtVerify, SignJWT } from "jose";
import postgres, { type ISql, type JSONValue, type Sql } from "postgres";

export interface AuthSettings {
  /** Connection string of the role that owns the auth schema's tables. */
  databaseUrl: string;
  /** The secret that signs the tokens (HS256). */
  jwtSecret: string;
  /** Seconds that an access token is valid. */
  jwtExpiry: number;
}

/** What a test makes the server do to one request instead of, or after, answering it. */
export interface Fault {
  /** Let the request do its work first; only the answer is lost or replaced. */
  afterWrite?: boolean;
  /** Close the connection instead of answering. */
  drop?: boolean;
  /** Answer with this. */
  status?: number;
  headers?: Record<string, string>;
  body?: string;
  /** Never answer. */
  hang?: boolean;
  /** Answer with the headers at once, then with a byte of the body every so many milliseconds, and never come to its end. */
  trickleMs?: number;
  /** Answer 200 as if the write had been done, and do not write. */
  skipWrite?: boolean;
}

/** Which requests meet a fault, and what happens between the read and the write of an update. */
export interface Faults {
  choose?: (request: { method: string; path: string }) => Fault | undefined;
  beforeWrite?: (userId: string) => Promise<void>;
}

class AuthError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

interface UserRow {
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

const nilId = "00000000-0000-0000-0000-000000000000";
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** The columns that GoTrue reads into fields that cannot be NULL: one NULL and it cannot load the user at all. */
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

/** A request as the gateway hands it over: the path without /auth/v1, the body read. */
export interface AuthRequest {
  method: string;
  url: URL;
  headers: Headers;
  body: string;
}

export interface AuthReply {
  status: number;
  headers?: Record<string, string>;
  body?: string;
  /** Milliseconds between the bytes of a body that never ends: blanks follow it. */
  trickleMs?: number;
}

export interface AuthServer {
  /** Answers one request; undefined: the connection is to be closed without an answer. */
  answer(request: AuthRequest): Promise<AuthReply | undefined>;
  close(): Promise<void>;
}

export function createAuthServer(settings: AuthSettings, faults: Faults = {}): AuthServer {
  const sql = postgres(settings.databaseUrl, { max: 10, onnotice: () => {} });
  const key = new TextEncoder().encode(settings.jwtSecret);
  return {
    answer: async (request) => {
      const fault = faults.choose?.({ method: request.method, path: request.url.pathname });
      if (fault?.hang) await new Promise(() => {});
      if (fault && !fault.afterWrite && !fault.skipWrite) return faultReply(fault);
      const answer = await route({ sql, key, settings, faults, request, id: "", skipWrite: fault?.skipWrite ?? false });
      return fault?.afterWrite ? faultReply(fault) : answer;
    },
    close: () => sql.end({ timeout: 5 }),
  };
}

interface Call {
  sql: Sql;
  key: Uint8Array;
  settings: AuthSettings;
  faults: Faults;
  request: AuthRequest;
  /** The user id in the path, as it was sent. */
  id: string;
  skipWrite: boolean;
}

const endpoints: [method: string, path: RegExp, handle: (call: Call) => Promise<AuthReply>][] = [
  ["GET", /^\/admin\/users$/, listUsers],
  ["POST", /^\/admin\/users$/, createUser],
  ["GET", /^\/admin\/users\/([^/]+)$/, readUser],
  ["PUT", /^\/admin\/users\/([^/]+)$/, updateUser],
  ["DELETE", /^\/admin\/users\/([^/]+)$/, deleteUser],
  ["POST", /^\/token$/, issueToken],
  ["GET", /^\/user$/, ownUser],
];

async function route(call: Call): Promise<AuthReply> {
  const { method, url, headers } = call.request;
  const matching = endpoints.filter(([, path]) => path.test(url.pathname));
  if (matching.length === 0) {
    return { status: 404, headers: { "content-type": "text/plain" }, body: "404 page not found\n" };
  }
  const found = matching.find(([allowed]) => allowed === method);
  if (!found) return { status: 405, headers: { allow: matching.map(([allowed]) => allowed).join(", ") } };
  const [, path, handle] = found;
  try {
    return await handle({ ...call, id: path.exec(url.pathname)?.[1] ?? "" });
  } catch (error) {
    const failure = error instanceof AuthError
      ? error
      : new AuthError(500, "unexpected_failure", method === "PUT" ? "Error updating user" : "Internal Server Error");
    return errorReply(failure, headers.get("x-supabase-api-version"));
  }
}

function faultReply(fault: Fault): AuthReply | undefined {
  if (fault.drop) return undefined;
  const { status = 500, headers = {}, body = "", trickleMs } = fault;
  return { status, headers, body, ...(trickleMs === undefined ? {} : { trickleMs }) };
}

function reply(body: unknown, headers: Record<string, string> = {}): AuthReply {
  return { status: 200, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) };
}

function errorReply(error: AuthError, apiVersion: string | null): AuthReply {
  const dated = apiVersion !== null && apiVersion >= "2024-01-01";
  return {
    status: error.status,
    headers: {
      "content-type": "application/json",
      "x-sb-error-code": error.code,
      ...(dated ? { "x-supabase-api-version": "2024-01-01" } : {}),
    },
    body: JSON.stringify(
      dated
        ? { code: error.code, message: error.message }
        : { code: error.status, error_code: error.code, msg: error.message },
    ),
  };
}

/** Checks the bearer token and returns its claims; admin: the role must be one that the admin API admits. */
async function authorize({ request, key }: Call, admin: boolean): Promise<Record<string, unknown>> {
  const token = /^Bearer (.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (!token) throw new AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token");
  const claims = await jwtVerify(token, key, { algorithms: ["HS256"] }).then(
    (verified) => verified.payload,
    (error: Error) => {
      throw new AuthError(403, "bad_jwt", `invalid JWT: unable to parse or verify signature, ${error.message}`);
    },
  );
  if (admin && claims["role"] !== "service_role" && claims["role"] !== "supabase_admin") {
    throw new AuthError(403, "not_admin", "User not allowed");
  }
  return claims;
}

function readBody({ request }: Call): Record<string, JSONValue> {
  let body: unknown;
  try {
    body = JSON.parse(request.body);
  } catch (error) {
    throw new AuthError(400, "bad_json", `Could not parse request body as JSON: ${(error as Error).message}`);
  }
  if (body === null) return {};
  if (typeof body !== "object" || Array.isArray(body)) {
    throw new AuthError(400, "bad_json", "Could not parse request body as JSON: not an object");
  }
  return body as Record<string, JSONValue>;
}

function readObject(body: Record<string, JSONValue>, name: string): Record<string, JSONValue> | undefined {
  const value = body[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new AuthError(400, "bad_json", `Could not parse request body as JSON: ${name} is not an object`);
  }
  return value as Record<string, JSONValue>;
}

/** Loads a row as GoTrue does: a NULL where its struct has none, or metadata that is no object, and it cannot. */
function asUser(row: Record<string, unknown>, failure: string): UserRow {
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

async function identitiesOf(sql: Sql, user: UserRow): Promise<Record<string, unknown>[]> {
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

function userJson(user: UserRow, identities: Record<string, unknown>[] | null): Record<string, unknown> {
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

async function findUser(call: Call): Promise<UserRow> {
  await authorize(call, true);
  if (!uuid.test(call.id)) throw new AuthError(404, "validation_failed", "user_id must be an UUID");
  const [row] = await call.sql`select * from auth.users where id = ${call.id} and instance_id = ${nilId}`;
  if (!row) throw new AuthError(404, "user_not_found", "User not found");
  return asUser(row, "Database error loading user");
}

async function readUser(call: Call): Promise<AuthReply> {
  const user = await findUser(call);
  return reply(userJson(user, await identitiesOf(call.sql, user)));
}

async function listUsers(call: Call): Promise<AuthReply> {
  await authorize(call, true);
  const parameters = call.request.url.searchParams;
  const read = (name: string, fallback: number) => {
    const text = parameters.get(name) ?? "";
    if (text === "") return fallback;
    if (!/^\d+$/.test(text)) {
      throw new AuthError(
        400,
        "validation_failed",
        `Bad Pagination Parameters: strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`,
      );
    }
    return Number(text);
  };
  const page = Math.max(read("page", 1), 1);
  const perPage = read("per_page", 50);
  if (perPage === 0) throw new AuthError(500, "unexpected_failure", "Internal Server Error");
  const rows = await call.sql`
    select * from auth.users
    where instance_id = ${nilId} and aud = 'authenticated'
    order by created_at desc
    limit ${perPage} offset ${(page - 1) * perPage}
  `;
  const [counted] = await call.sql<{ total: number }[]>`
    select count(*)::integer as total from auth.users where instance_id = ${nilId} and aud = 'authenticated'
  `;
  const total = counted?.total ?? 0;
  const lastPage = Math.max(Math.ceil(total / perPage), 1);
  const link = (target: number, relation: string) => {
    const url = new URL(call.request.url);
    url.searchParams.set("page", String(target));
    return `<${url.pathname}${url.search}>; rel="${relation}"`;
  };
  return reply(
    { users: rows.map((row) => userJson(asUser(row, "Database error finding users"), null)), aud: "authenticated" },
    {
      link: [...(page < lastPage ? [link(page + 1, "next")] : []), link(lastPage, "last")].join(", "),
      "x-total-count": String(total),
    },
  );
}

async function createUser(call: Call): Promise<AuthReply> {
  await authorize(call, true);
  const body = readBody(call);
  const email = typeof body["email"] === "string" ? body["email"].toLowerCase() : "";
  if (email === "") {
    throw new AuthError(400, "validation_failed", "Cannot create a user without either an email or phone");
  }
  const password = typeof body["password"] === "string" && body["password"] !== "" ? body["password"] : randomUUID();
  const appMetadata = mergeMetadata(
    { provider: "email", providers: ["email"] },
    readObject(body, "app_metadata") ?? {},
  );
  const userMetadata = readObject(body, "user_metadata") ?? {};
  const { sql } = call;
  const user = await sql.begin(async (transaction) => {
    const [existing] = await transaction`select from auth.users where email = ${email} and not is_sso_user`;
    if (existing) {
      throw new AuthError(422, "email_exists", "A user with this email address has already been registered");
    }
    const [row] = await transaction`
      insert into auth.users (
        instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
        email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
      )
      values (
        ${nilId}, ${randomUUID()}, 'authenticated', 'authenticated', ${email},
        extensions.crypt(${password}, extensions.gen_salt('bf', 6)), ${
      body["email_confirm"] === true ? new Date() : null
    },
        '', '', '', '', ${sql.json(appMetadata)}, ${sql.json(userMetadata)}, now(), now()
      )
      returning *
    `;
    const created = row as unknown as UserRow;
    await transaction`
      insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
      values (
        ${created.id}, ${created.id},
        ${
      sql.json({ sub: created.id, email, email_verified: false, phone_verified: false })
    }, 'email', now(), now(), now()
      )
    `;
    await audit(transaction, "user_signedup", created);
    return created;
  });
  return reply(userJson(user, await identitiesOf(sql, user)));
}

/** GoTrue's merge: a key with a value replaces, a key with null goes, other keys stay. */
function mergeMetadata(
  current: Record<string, JSONValue>,
  changes: Record<string, JSONValue>,
): Record<string, JSONValue> {
  return Object.fromEntries(Object.entries({ ...current, ...changes }).filter(([name]) => changes[name] !== null));
}

async function updateUser(call: Call): Promise<AuthReply> {
  const { sql, faults, skipWrite } = call;
  const user = await findUser(call);
  const body = readBody(call);
  const appChanges = readObject(body, "app_metadata");
  const userChanges = readObject(body, "user_metadata");
  if (appChanges) user.raw_app_meta_data = mergeMetadata(user.raw_app_meta_data ?? {}, appChanges);
  if (userChanges) user.raw_user_meta_data = mergeMetadata(user.raw_user_meta_data ?? {}, userChanges);
  user.updated_at = new Date();
  await faults.beforeWrite?.(user.id);
  if (!skipWrite) {
    await sql.begin(async (transaction) => {
      if (appChanges) {
        await transaction`
          update auth.users
          set raw_app_meta_data = ${sql.json(user.raw_app_meta_data)}, updated_at = ${user.updated_at}
          where id = ${user.id}
        `;
      }
      if (userChanges) {
        await transaction`
          update auth.users
          set raw_user_meta_data = ${sql.json(user.raw_user_meta_data)}, updated_at = ${user.updated_at}
          where id = ${user.id}
        `;
      }
      await audit(transaction, "user_modified", user);
    });
  }
  return reply(userJson(user, await identitiesOf(sql, user)));
}

async function deleteUser(call: Call): Promise<AuthReply> {
  const user = await findUser(call);
  const soft = call.request.body !== "" && readBody(call)["should_soft_delete"] === true;
  await call.sql.begin(async (transaction) => {
    await audit(transaction, "user_deleted", user);
    if (soft) {
      await transaction`
        update auth.users
        set
          email = encode(extensions.digest(email, 'sha256'), 'base64'),
          encrypted_password = '',
          raw_app_meta_data = '{}',
          raw_user_meta_data = '{}',
          deleted_at = coalesce(deleted_at, now()),
          updated_at = now()
        where id = ${user.id}
      `;
      await transaction`delete from auth.sessions where user_id = ${user.id}`;
    } else {
      await transaction`delete from auth.users where id = ${user.id}`;
    }
  });
  return reply({});
}

async function audit(sql: ISql, action: string, user: UserRow): Promise<void> {
  const payload = { action, actor_username: "service_role", traits: { user_id: user.id } };
  await sql`
    insert into auth.audit_log_entries (instance_id, id, payload, created_at)
    values (${nilId}, ${randomUUID()}, ${JSON.stringify(payload)}::json, now())
  `;
}

async function issueToken(call: Call): Promise<AuthReply> {
  switch (call.request.url.searchParams.get("grant_type")) {
    case "password":
      return await signIn(call);
    case "refresh_token":
      return await refresh(call);
    default:
      throw new AuthError(400, "invalid_credentials", "unsupported_grant_type");
  }
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
  const user = asUser(row, "Database error querying schema");
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
  { sql, key, settings }: Call,
  userId: string,
  sessionId: string,
  refreshToken: string,
): Promise<AuthReply> {
  const [row] = await sql`select * from auth.users where id = ${userId}`;
  const user = asUser(row ?? {}, "Database error granting user");
  const issuedAt = Math.floor(Date.now() / 1000);
  const accessToken = await new SignJWT({
    email: user.email ?? "",
    phone: user.phone ?? "",
    app_metadata: user.raw_app_meta_data ?? {},
    user_metadata: user.raw_user_meta_data ?? {},
    role: user.role,
    aal: "aal1",
    amr: [{ method: "password", timestamp: issuedAt }],
    session_id: sessionId,
    is_anonymous: user.is_anonymous,
  })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .setSubject(user.id)
    .setAudience(user.aud)
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + settings.jwtExpiry)
    .sign(key);
  return reply({
    access_token: accessToken,
    token_type: "bearer",
    expires_in: settings.jwtExpiry,
    expires_at: issuedAt + settings.jwtExpiry,
    refresh_token: refreshToken,
    user: userJson(user, await identitiesOf(sql, user)),
  });
}

async function ownUser(call: Call): Promise<AuthReply> {
  const claims = await authorize(call, false);
  const [row] = await call.sql`select * from auth.users where id = ${String(claims["sub"] ?? nilId)}`;
  if (!row) throw new AuthError(403, "user_not_found", "User from sub claim in JWT does not exist");
  const user = asUser(row, "Database error loading user");
  return reply(userJson(user, await identitiesOf(call.sql, user)));
}
