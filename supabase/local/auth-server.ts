/**
 * A stand-in for the Auth server: the few endpoints of GoTrue that this project uses, over the same auth.users, with GoTrue's
 * semantics. It reads a user outside the transaction, merges app_metadata by top-level key, and writes whole columns back. It
 * reads the claims from the row whenever it issues a token. Status codes and error bodies are GoTrue's, in both API versions.
 * Checked against GoTrue v2.196.
 */
import postgres from "postgres";
import { AuthError, type AuthReply, type AuthRequest, type Call, errorReply } from "./auth-call.ts";
import { signInByIdToken } from "./auth-id-tokens.ts";
import { invite, openLink, signUp, updateOwnUser } from "./auth-sign-up.ts";
import { ownUser, refresh, signIn } from "./auth-tokens.ts";
import { createUser, deleteUser, listUsers, readUser, updateUser } from "./auth-users.ts";

interface AuthSettings {
  /** Connection string of the role that owns the auth schema's tables. */
  databaseUrl: string;
  /** The secret that signs the tokens (HS256). */
  jwtSecret: string;
  /** Seconds that an access token is valid. */
  jwtExpiry: number;
  /** The function of the custom access token hook, as schema.name; null: it is off. */
  tokenHook: string | null;
  /** The OpenID providers whose id tokens are accepted. */
  idTokenIssuers: string[];
}

/** What a test makes the server do to one request, instead of answering it or after its work. */
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
  /** Send the headers at once, then a byte of the body every so many milliseconds, without end. */
  trickleMs?: number;
  /** Answer 200 as if the write had been done, and do not write. */
  skipWrite?: boolean;
}

/** Which requests meet a fault, and what happens between the read and the write of an update. */
export interface Faults {
  choose?: (request: { method: string; path: string }) => Fault | undefined;
  beforeWrite?: (userId: string) => Promise<void>;
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
      const answer = await route({
        sql,
        key,
        jwtExpiry: settings.jwtExpiry,
        tokenHook: settings.tokenHook,
        idTokenIssuers: settings.idTokenIssuers,
        request,
        id: "",
        skipWrite: fault?.skipWrite ?? false,
        beforeWrite: async (userId) => await faults.beforeWrite?.(userId),
      });
      return fault?.afterWrite ? faultReply(fault) : answer;
    },
    close: () => sql.end({ timeout: 5 }),
  };
}

type Handle = (call: Call) => Promise<AuthReply>;

const endpoints: [method: string, path: RegExp, handle: Handle, failure?: string][] = [
  ["GET", /^\/admin\/users$/, listUsers],
  ["POST", /^\/admin\/users$/, createUser, "Database error creating new user"],
  ["GET", /^\/admin\/users\/([^/]+)$/, readUser],
  ["PUT", /^\/admin\/users\/([^/]+)$/, updateUser, "Error updating user"],
  ["DELETE", /^\/admin\/users\/([^/]+)$/, deleteUser],
  ["POST", /^\/signup$/, signUp, "Database error saving new user"],
  ["POST", /^\/invite$/, invite, "Database error saving new user"],
  ["POST", /^\/verify$/, openLink],
  ["POST", /^\/token$/, issueToken],
  ["GET", /^\/user$/, ownUser],
  ["PUT", /^\/user$/, updateOwnUser, "Error updating user"],
];

const grants: Record<string, Handle> = { password: signIn, refresh_token: refresh, id_token: signInByIdToken };

async function issueToken(call: Call): Promise<AuthReply> {
  const grant = grants[call.request.url.searchParams.get("grant_type") ?? ""];
  if (!grant) throw new AuthError(400, "invalid_credentials", "unsupported_grant_type");
  return await grant(call);
}

async function route(call: Call): Promise<AuthReply> {
  const { method, url, headers } = call.request;
  const matching = endpoints.filter(([, path]) => path.test(url.pathname));
  if (matching.length === 0) {
    return { status: 404, headers: { "content-type": "text/plain" }, body: "404 page not found\n" };
  }
  const found = matching.find(([allowed]) => allowed === method);
  if (!found) return { status: 405, headers: { allow: matching.map(([allowed]) => allowed).join(", ") } };
  const [, path, handle, problem = "Internal Server Error"] = found;
  try {
    return await handle({ ...call, id: path.exec(url.pathname)?.[1] ?? "" });
  } catch (error) {
    const failure = error instanceof AuthError ? error : new AuthError(500, "unexpected_failure", problem, error);
    return errorReply(failure, headers.get("x-supabase-api-version"));
  }
}

function faultReply(fault: Fault): AuthReply | undefined {
  if (fault.drop) return undefined;
  const { status = 500, headers = {}, body = "", trickleMs } = fault;
  return { status, headers, body, ...(trickleMs === undefined ? {} : { trickleMs }) };
}
