import type { AuthError, SupabaseClient } from "@supabase/supabase-js";
import { authFetchError } from "./auth-fetch.ts";
import type { Throttle } from "./throttle.ts";
import type { Pause, Stop, Timing } from "./timing.ts";

/** The port to the Auth server's admin API. */
export interface AuthAdmin {
  /**
   * Writes app_metadata.org_id of one user, or removes it, and no other key. Retries errors that may pass, until it is time to
   * stop or the user has had five attempts, those of earlier calls included; fifteen while the server is away. Never throws
   * because of what the Auth server does.
   */
  setOrganization(user: UserToUpdate, stop: Stop): Promise<UpdateResult>;
  /** Until when the Auth server wants to be left alone, in milliseconds as the clock counts them. */
  pausedUntil(): number;
}

export interface UserToUpdate {
  userId: string;
  /** The value of app_metadata.org_id; null removes the key. */
  value: unknown;
  /** Requests that have been sent for this user before. */
  attempts: number;
}

export interface UpdateResult {
  /** Requests that were sent. */
  attempts: number;
  /** Why the last one failed; null: the Auth server says that the user is updated, or no request was sent. */
  error: string | null;
  /** unfinished: the time was up before the last word. refused: the key itself was refused, so no user can be updated. */
  state: "answered" | "unfinished" | "refused";
}

type AdminClient = Pick<SupabaseClient["auth"]["admin"], "updateUserById">;

const maxAttempts = 5;
/** While the server is away, which is not the user's fault. */
const maxAttemptsAway = 15;
const firstBackoff = 250;
const longestBackoff = 10_000;
/** The longest pause of everyone after a 429 that asks for none. */
const longestUnasked = 1000;

export function createAuthAdmin(admin: AdminClient, throttle: Throttle, pause: Pause, timing: Timing): AuthAdmin {
  const outage = watchOutage(pause, timing);
  const mustStop = ({ deadline, signal }: Stop, at: number) => signal.aborted || Math.max(pause.until, at) >= deadline;

  /** Sends one request. "later": while it waited for its turn, the server asked for a pause, or the time ran out. */
  const send = async ({ userId, value }: UserToUpdate, stop: Stop): Promise<Failure | null | "later"> => {
    let sentAt = 0;
    const answer = await throttle.send(
      async () => {
        sentAt = timing.now();
        return pause.until > sentAt || mustStop(stop, sentAt) ? "later" : await update(admin, userId, value);
      },
      (answer) => answer === "later" ? null : answer?.retryable ?? false,
    );
    if (answer !== "later") outage.note(answer, sentAt);
    return answer;
  };

  return {
    pausedUntil: () => pause.until,
    setOrganization: async (user, stop) => {
      let last: Failure | null = null;
      for (let attempts = 0;;) {
        if (mustStop(stop, timing.now())) return { attempts, error: last?.message ?? null, state: "unfinished" };
        await timing.sleep(pause.until - timing.now(), stop.signal);
        const answer = await send(user, stop);
        if (answer === "later") continue;
        attempts++;
        if (!answer) return { attempts, error: null, state: "answered" };
        last = answer;
        const { status, retryable, message: error } = answer;
        if (status === 401 || status === 403) return { attempts, error, state: "refused" };
        const most = outage.isOn() ? maxAttemptsAway : maxAttempts;
        if (!retryable || user.attempts + attempts >= most) return { attempts, error, state: "answered" };
        const backoff = timing.random() * Math.min(firstBackoff * 2 ** attempts, longestBackoff);
        if (status === 429) pause.until = Math.max(pause.until, timing.now() + Math.min(backoff, longestUnasked));
        if (mustStop(stop, timing.now() + backoff)) return { attempts, error, state: "unfinished" };
        await timing.sleep(backoff, stop.signal);
      }
    },
  };
}

interface Outage {
  /** True while the server is away. */
  isOn(): boolean;
  /** Takes into account the answer to a request that was sent at this time. */
  note(answer: Failure | null, sentAt: number): void;
}

/** This many answers in a row from a server that is away are an outage. */
const awayInARow = 6;
const longestAway = 30_000;

/** An outage should cost time, not the attempts of each user: the longer it lasts, the longer everyone waits. */
function watchOutage(pause: Pause, timing: Pick<Timing, "now">): Outage {
  let away = 0;
  let pausedAt = -Infinity;
  return {
    isOn: () => away >= awayInARow,
    note: (answer, sentAt) => {
      if (!answer?.away) {
        away = 0;
      } else if (sentAt > pausedAt) {
        away++;
        if (away < awayInARow) return;
        pausedAt = timing.now();
        pause.until = Math.max(pause.until, pausedAt + Math.min(firstBackoff * 2 ** (away - awayInARow), longestAway));
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

/** Sends one request; null: the Auth server says that the user is updated. */
async function update(admin: AdminClient, userId: string, value: unknown): Promise<Failure | null> {
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
    // The message of a failed connection may name addresses of the internal network.
    message: status
      ? [status, code, message].filter(Boolean).join(" ")
      : authFetchError.exec(message)?.[0] ?? "no connection",
  };
}
