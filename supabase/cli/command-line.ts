/** What the commands that call a live project share: refusing bad usage, and printing without keys. */

/** A command was called wrong; its message is for the person who called it. */
export class UsageError extends Error {}

/** The exit code of a command that was called wrong. */
export const usageExitCode = 2;

/** Reads an http(s) address without query, to be put in front of a path. Throws what names the value and the rule. */
export function readAddress(name: string, value: string, options: { path: boolean }): string {
  const invalid = (rule: string) => new UsageError(`Cannot use ${name} ${JSON.stringify(value)}: ${rule}`);
  if (!URL.canParse(value)) throw invalid("not a URL such as https://ref.supabase.co");
  const url = new URL(value);
  if (url.protocol !== "https:" && url.protocol !== "http:") throw invalid("neither https:// nor http://");
  if (url.username !== "" || url.password !== "") {
    throw new UsageError(`Cannot use ${name}: it has a user or a password in front of ${url.host}`);
  }
  if (url.search !== "" || url.hash !== "") throw invalid("it goes on after the path");
  if (!options.path && url.pathname !== "/") {
    throw invalid(`not the address of a project, which has no path: ${url.origin}`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

/** Checks that a key can be sent as a header; the message never holds it. */
export function readKey(name: string, value: string): string {
  const key = value.trim();
  if (key === "") throw new UsageError(`Cannot use the key of ${name}: it is empty`);
  if (!/^[\x21-\x7e]+$/.test(key)) {
    throw new UsageError(`Cannot use the key of ${name}: it has spaces or characters that no key has`);
  }
  return key;
}

/** parseArgs says a sentence on what is wrong and then what else could have been meant; the first one is enough. */
export function explainArguments(error: unknown): UsageError {
  return new UsageError((error as Error).message.split(". ")[0] ?? "");
}

/** Text that may come from elsewhere, fit for a terminal: without keys, and without control characters. */
export function cleanText(text: string, keys: string[] = []): string {
  return hideKeys(text, keys).replace(/\p{Cc}+/gu, " ");
}

/** Puts … in the place of these keys, and of whatever looks like a secret key or a JWT. */
export function hideKeys(text: string, keys: string[] = []): string {
  const shapes = /sb_secret_[\w-]+|eyJ[\w-]+\.[\w-]+(\.[\w-]*)?/g;
  return keys.filter((key) => key !== "").reduce((hidden, key) => hidden.replaceAll(key, "…"), text)
    .replace(shapes, "…");
}

/** Why a request failed: what lies under the "fetch failed" of fetch. */
export function networkReason(error: unknown): string {
  const { cause = error } = error as { cause?: unknown };
  const { message = "", code = "" } = cause as { message?: string; code?: string };
  return message === "" ? code : message;
}
