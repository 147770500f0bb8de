import { jwtVerify } from "jose";
import type { JSONValue, PostgresError, Sql } from "postgres";

/** A request as the gateway passes it on: the path without /auth/v1, the body as text. */
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
  /** Milliseconds between the bytes of a body that never ends: after its text come blanks. */
  trickleMs?: number;
}

/** A request with what it takes to answer it. */
export interface Call {
  sql: Sql;
  key: Uint8Array;
  /** Seconds that an access token is valid. */
  jwtExpiry: number;
  /** The function of the custom access token hook, as schema.name; null: it is off. */
  tokenHook: string | null;
  /** The OpenID providers whose id tokens are accepted. */
  idTokenIssuers: string[];
  request: AuthRequest;
  /** The user id in the path, as it was sent. */
  id: string;
  /** Answer as if the write had been done, and do not write. */
  skipWrite: boolean;
  /** Runs between the read and the write of an update. */
  beforeWrite(userId: string): Promise<void>;
}

/** An error that the Auth server answers with. */
export class AuthError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}

/** Checks the bearer token and returns its claims. admin: its role must be one that the admin API admits. */
export async function authorize({ request, key }: Call, admin: boolean): Promise<Record<string, unknown>> {
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

export function readBody({ request }: Call): Record<string, JSONValue> {
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

export function readObject(body: Record<string, JSONValue>, name: string): Record<string, JSONValue> | undefined {
  const value = body[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new AuthError(400, "bad_json", `Could not parse request body as JSON: ${name} is not an object`);
  }
  return value as Record<string, JSONValue>;
}

export function reply(body: unknown, headers: Record<string, string> = {}): AuthReply {
  return { status: 200, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) };
}

/** An error of PostgreSQL that clients of the first API version are told: RAISE, and constraints that are violated. */
function publicCause({ cause }: AuthError): Record<string, unknown> | undefined {
  const { code = "", message, hint, detail } = (cause ?? {}) as Partial<PostgresError>;
  return /^(P0001|23\w{3})$/.test(code) ? { code, message, hint, detail } : undefined;
}

export function errorReply(error: AuthError, apiVersion: string | null): AuthReply {
  const dated = apiVersion !== null && apiVersion >= "2024-01-01";
  const undatedBody = () => publicCause(error) ?? { code: error.status, error_code: error.code, msg: error.message };
  return {
    status: error.status,
    headers: {
      "content-type": "application/json",
      "x-sb-error-code": error.code,
      ...(dated ? { "x-supabase-api-version": "2024-01-01" } : {}),
    },
    body: JSON.stringify(dated ? { code: error.code, message: error.message } : undatedBody()),
  };
}
