/** What the commands that call a live project share: they refuse wrong usage, and print no keys. */

/** A command was called wrong. The message is for whoever called it. */
export class UsageError extends Error {}

/** The exit code of a command that was called wrong. */
export const usageExitCode = 2;

/**
 * Reads an address without a query, to be put before a path and called with a key: https, or http on this machine. Throws an
 * error with the value and the rule.
 */
export function readAddress(name: string, value: string, options: { path: boolean }): string {
  const invalid = (rule: string) => new UsageError(`Cannot use ${name} ${JSON.stringify(value)}: ${rule}`);
  if (!URL.canParse(value)) throw invalid("not a URL such as https://ref.supabase.co");
  const url = new URL(value);
  if (url.protocol !== "https:" && url.protocol !== "http:") throw invalid("neither https:// nor http://");
  if (url.protocol === "http:" && !isLoopback(url.hostname)) {
    throw invalid("http:// would send the key unencrypted; use https://");
  }
  if (url.username !== "" || url.password !== "") {
    throw new UsageError(`Cannot use ${name}: it has a user or a password in front of ${url.host}`);
  }
  if (url.search !== "" || url.hash !== "") throw invalid("it goes on after the path");
  if (!options.path && url.pathname !== "/") {
    throw invalid(`not the address of a project, which has no path: ${url.origin}`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** parseArgs says what is wrong, then guesses what was meant. The first sentence is enough. */
export function explainArguments(error: unknown): UsageError {
  return new UsageError((error as Error).message.split(". ")[0] ?? "");
}

/** Makes text from elsewhere fit for a terminal: no keys, no control characters. */
export function cleanText(text: string, keys: string[] = []): string {
  return hideKeys(text, keys).replace(/\p{Cc}+/gu, " ");
}

/** Replaces these keys, and whatever looks like a secret key or a JWT, by …. */
export function hideKeys(text: string, keys: string[] = []): string {
  const shapes = /sb_secret_[\w-]+|eyJ[\w-]+\.[\w-]+(\.[\w-]*)?/g;
  return keys.filter((key) => key !== "").reduce((hidden, key) => hidden.replaceAll(key, "…"), text)
    .replace(shapes, "…");
}

/** Why a request failed: the cause behind fetch's "fetch failed". */
export function networkReason(error: unknown): string {
  const { cause = error } = error as { cause?: unknown };
  const { message = "", code = "" } = cause as { message?: string; code?: string };
  return message === "" ? code : message;
}
