import type { AuthError, SupabaseClient } from "@supabase/supabase-js";

/** The port to the Auth server's admin API. */
export interface AuthAdmin {
  /**
   * Writes app_metadata.org_id of one user, and no other key. Retries what may pass, until `deadline` (milliseconds as the
   * clock counts them) and five attempts in all, those of earlier calls included. Never throws for what the Auth server does.
   */
  setOrganization(user: UserToUpdate, deadline: number): Promise<UpdateResult>;
}

export interface UserToUpdate {
  userId: string;
  orgId: string;
  /** Requests that earlier calls have sent for this user. */
  attempts: number;
}

export interface UpdateResult {
  /** Requests that were sent. */
  attempts: number;
  /** Why the last one failed; null when the Auth server says that the user is updated. */
  error: string | null;
  /** unfinished: the deadline came between two attempts. refused: the key itself was refused, so no user can be updated. */
  state: "answered" | "unfinished" | "refused";
}

/** Time and chance, so that tests decide both. */
export interface Timing {
  /** Milliseconds since some fixed point. */
  now(): number;
  sleep(milliseconds: number): Promise<void>;
  /** A number from 0 up to 1. */
  random(): number;
}

/** A pause that all requests share: while the Auth server says slow down, none is sent. */
export interface Pause {
  /** No request before this time. */
  until: number;
}

const maxAttempts = 5;
const firstBackoff = 250;
const longestBackoff = 10_000;

export function createAuthAdmin(
  admin: Pick<SupabaseClient["auth"]["admin"], "updateUserById">,
  pause: Pause,
  timing: Timing,
): AuthAdmin {
  return {
    setOrganization: async ({ userId, orgId, attempts: earlier }, deadline) => {
      for (let attempts = 1;; attempts++) {
        await timing.sleep(Math.max(pause.until - timing.now(), 0));
        const failure = await update(admin, userId, orgId);
        if (!failure) return { attempts, error: null, state: "answered" };
        if (failure.status === 401 || failure.status === 403) {
          return { attempts, error: failure.message, state: "refused" };
        }
        if (!failure.retryable || earlier + attempts >= maxAttempts) {
          return { attempts, error: failure.message, state: "answered" };
        }
        const backoff = timing.random() * Math.min(firstBackoff * 2 ** attempts, longestBackoff);
        if (failure.status === 429) pause.until = Math.max(pause.until, timing.now() + backoff);
        if (Math.max(pause.until, timing.now() + backoff) >= deadline) {
          return { attempts, error: failure.message, state: "unfinished" };
        }
        await timing.sleep(backoff);
      }
    },
  };
}

interface Failure {
  status: number | undefined;
  retryable: boolean;
  message: string;
}

async function update(
  admin: Pick<SupabaseClient["auth"]["admin"], "updateUserById">,
  userId: string,
  orgId: string,
): Promise<Failure | null> {
  let error: AuthError | null;
  try {
    ({ error } = await admin.updateUserById(userId, { app_metadata: { org_id: orgId } }));
  } catch (thrown) {
    return { status: undefined, retryable: true, message: `unreadable answer: ${(thrown as Error).message}` };
  }
  if (!error) return null;
  const { status, code, message } = error;
  return {
    status,
    retryable: !status || status === 408 || status === 429 || status >= 500,
    message: [status || "no answer", code, message].filter(Boolean).join(" "),
  };
}

/**
 * A fetch for the admin client: gives each request a time limit, turns an error body that is no JSON into one, since
 * auth-js loses the status of such an answer, and moves the shared pause where the server names one (Retry-After).
 */
export function createAuthFetch(
  send: typeof fetch,
  pause: Pause,
  timing: Pick<Timing, "now">,
  timeoutMs = 10_000,
): typeof fetch {
  return async (input, init) => {
    const limit = AbortSignal.timeout(timeoutMs);
    const response = await send(input, {
      ...init,
      signal: init?.signal ? AbortSignal.any([init.signal, limit]) : limit,
    });
    if (response.ok) return response;
    const seconds = retryAfterSeconds(response.headers.get("retry-after"), timing.now());
    if (seconds > 0) pause.until = Math.max(pause.until, timing.now() + seconds * 1000);
    const body = await response.text();
    return new Response(isJsonObject(body) ? body : JSON.stringify({ message: `HTTP ${response.status}` }), {
      status: response.status,
      headers: response.headers,
    });
  };
}

/** Seconds to wait, from either form of the header (RFC 9110, 10.2.3), five minutes at most; 0 without one. */
function retryAfterSeconds(header: string | null, now: number): number {
  if (!header) return 0;
  const value = header.trim();
  const seconds = /^\d+$/.test(value) ? Number(value) : / GMT$/.test(value) ? (Date.parse(value) - now) / 1000 : 0;
  return Math.min(Math.max(seconds || 0, 0), 300);
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null;
  } catch {
    return false;
  }
}
