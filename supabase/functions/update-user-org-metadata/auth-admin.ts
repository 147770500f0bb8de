import type { AuthError, SupabaseClient } from "@supabase/supabase-js";
import { readBody } from "./body.ts";
import type { Throttle } from "./throttle.ts";

/** The port to the Auth server's admin API. */
export interface AuthAdmin {
  /**
   * Writes app_metadata.org_id of one user, or takes it away, and no other key. Retries what may pass, until it is time to stop
   * or five attempts have been made in all, those of earlier calls included; fifteen while the server is away. Never throws for what the Auth server does.
   */
  setOrganization(user: UserToUpdate, stop: Stop): Promise<UpdateResult>;
  /** Until when the Auth server wants to be left alone, in milliseconds as the clock counts them. */
  pausedUntil(): number;
}

export interface UserToUpdate {
  userId: string;
  /** The value of app_metadata.org_id; null takes the key away. */
  value: unknown;
  /** Requests that have been sent for this user before. */
  attempts: number;
}

export interface UpdateResult {
  /** Requests that were sent. */
  attempts: number;
  /** Why the last one failed; null when the Auth server says that the user is updated, or none was sent. */
  error: string | null;
  /** unfinished: it was time to stop before the last word. refused: the key itself was refused, so no user can be updated. */
  state: "answered" | "unfinished" | "refused";
}

/** When to send nothing more. */
export interface Stop {
  /** Milliseconds, as the clock counts them. */
  deadline: number;
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal;
}

/** Time and chance, so that tests decide both. */
export interface Timing {
  /** Milliseconds since some fixed point. */
  now(): number;
  /** Resolves after so long, or as soon as the signal is aborted. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** A number from 0 up to 1. */
  random(): number;
}

/** A pause that all requests share: while the Auth server says slow down, none is sent. */
export interface Pause {
  /** No request before this time. */
  until: number;
}

const maxAttempts = 5;
/** While the server is away, which is not the user's fault. */
const maxAttemptsAway = 15;
const firstBackoff = 250;
const longestBackoff = 10_000;
/** The pause of everyone after a 429 that names none. */
const longestUnasked = 1000;
/** So many answers of a server that is away, and none between them of one that is there, pause everyone. */
const awayInARow = 6;
const longestAway = 30_000;

export function createAuthAdmin(
  admin: Pick<SupabaseClient["auth"]["admin"], "updateUserById">,
  throttle: Throttle,
  pause: Pause,
  timing: Timing,
): AuthAdmin {
  let away = 0;
  let pausedAt = -Infinity;

  /** An outage is to cost time, not the attempts of each user: the longer it lasts, the longer everyone waits. */
  const noteAnswer = (answer: Failure | null, sentAt: number) => {
    if (!answer?.away) {
      away = 0;
    } else if (sentAt > pausedAt) {
      away++;
      if (away < awayInARow) return;
      pausedAt = timing.now();
      pause.until = Math.max(pause.until, pausedAt + Math.min(firstBackoff * 2 ** (away - awayInARow), longestAway));
    }
  };

  return {
    pausedUntil: () => pause.until,
    setOrganization: async ({ userId, value, attempts: earlier }, { deadline, signal }) => {
      const mustStop = (now: number) => signal.aborted || Math.max(pause.until, now) >= deadline;
      let last: Failure | null = null;
      for (let attempts = 0;;) {
        if (mustStop(timing.now())) return { attempts, error: last?.message ?? null, state: "unfinished" };
        await timing.sleep(pause.until - timing.now(), signal);
        let sentAt = 0;
        const answer = await throttle.send(
          async () => {
            sentAt = timing.now();
            return pause.until > sentAt || mustStop(sentAt) ? "later" : await update(admin, userId, value);
          },
          (answer) => answer === "later" ? null : answer?.retryable ?? false,
        );
        // While it waited for its turn, the server asked for a pause, or the time ran out.
        if (answer === "later") continue;
        attempts++;
        noteAnswer(answer, sentAt);
        if (!answer) return { attempts, error: null, state: "answered" };
        last = answer;
        if (last.status === 401 || last.status === 403) return { attempts, error: last.message, state: "refused" };
        const most = away < awayInARow ? maxAttempts : maxAttemptsAway;
        if (!last.retryable || earlier + attempts >= most) {
          return { attempts, error: last.message, state: "answered" };
        }
        const backoff = timing.random() * Math.min(firstBackoff * 2 ** attempts, longestBackoff);
        if (last.status === 429) pause.until = Math.max(pause.until, timing.now() + Math.min(backoff, longestUnasked));
        if (mustStop(timing.now() + backoff)) return { attempts, error: last.message, state: "unfinished" };
        await timing.sleep(backoff, signal);
      }
    },
  };
}

interface Failure {
  status: number | undefined;
  retryable: boolean;
  /** The server itself is away or overloaded, whoever the user is; a 500 may be this user's alone. */
  away: boolean;
  message: string;
}

async function update(
  admin: Pick<SupabaseClient["auth"]["admin"], "updateUserById">,
  userId: string,
  value: unknown,
): Promise<Failure | null> {
  let error: AuthError | null;
  try {
    ({ error } = await admin.updateUserById(userId, { app_metadata: { org_id: value } }));
  } catch (thrown) {
    const message = `unreadable answer: ${(thrown as Error).message}`;
    return { status: undefined, retryable: true, away: false, message };
  }
  if (!error) return null;
  const { status, code, message } = error;
  const away = !status || [408, 429, 502, 503, 504].includes(status);
  return {
    status,
    retryable: away || status >= 500,
    away,
    // Of a connection that failed, the message has addresses of the inside.
    message: status
      ? [status, code, message].filter(Boolean).join(" ")
      : ownWords.exec(message)?.[0] ?? "no connection",
  };
}

/** What createAuthFetch says where there is no answer. */
const ownWords = /no answer in \d+ ms|an answer of more than \d+ bytes/;

/** The largest answer that is read, in bytes; a user is about a thousand. */
const maxAnswerBytes = 1_048_576;

/**
 * A fetch for the admin client: gives each request and its answer a time limit, refuses an answer that never ends, turns an error
 * body that is no JSON into one, since auth-js loses the status of such an answer, and moves the shared pause where the server
 * names one (Retry-After).
 */
export function createAuthFetch(
  send: typeof fetch,
  pause: Pause,
  timing: Pick<Timing, "now">,
  timeoutMs = 10_000,
): typeof fetch {
  return async (input, init) => {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    try {
      const response = await send(input, { ...init, signal: limit.signal });
      const body = await readAnswer(response);
      if (body === null) throw new Error(`an answer of more than ${maxAnswerBytes} bytes`);
      const { status, headers } = response;
      // What was done, the database says: of a good answer the status is all that counts.
      if (response.ok) return Response.json({});
      const seconds = retryAfterSeconds(headers.get("retry-after"), timing.now());
      if (seconds > 0) pause.until = Math.max(pause.until, timing.now() + seconds * 1000);
      return new Response(isJsonObject(body) ? body : JSON.stringify({ message: `HTTP ${status}` }), {
        status,
        headers,
      });
    } finally {
      clearTimeout(timer);
    }
  };
}

/** The body of an answer; null: it is too large. At once, where its size is known, which takes half the time of a stream. */
async function readAnswer(response: Response): Promise<string | null> {
  const { headers } = response;
  const size = headers.has("content-encoding") ? null : headers.get("content-length");
  return size !== null && Number(size) <= maxAnswerBytes
    ? await response.text()
    : await readBody(response.body, maxAnswerBytes);
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
