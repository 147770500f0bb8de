import { readBody } from "./body.ts";
import type { Pause, Timing } from "./timing.ts";

/** How an error of createAuthFetch reads, in a message that may have more around it. */
export const authFetchError = /no answer in \d+ ms|an answer of more than \d+ bytes/;

/** The largest answer that is read, in bytes; a user is about a thousand. */
const maxAnswerBytes = 1_048_576;

/**
 * A fetch for the admin client. It limits the time of each request and the size of its answer, extends the shared pause when the
 * server asks for one (Retry-After), and turns an error body that is not JSON into JSON, since auth-js loses the status of such
 * an answer.
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
      // The database says what was done. Of a good answer only the status counts.
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

/** The body of an answer; null: it is too large. If its size is known it is read at once, which takes half the time of a stream. */
async function readAnswer(response: Response): Promise<string | null> {
  const { headers } = response;
  const size = headers.has("content-encoding") ? null : headers.get("content-length");
  return size !== null && Number(size) <= maxAnswerBytes
    ? await response.text()
    : await readBody(response.body, maxAnswerBytes);
}

/** Seconds to wait, from either form of the header (RFC 9110, 10.2.3), at most five minutes; 0: no header. */
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
