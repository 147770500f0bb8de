import { askSecret } from "./ask-secret.ts";
import { UsageError } from "./command-line.ts";

/** The key of --key, else of SUPABASE_SECRET_KEY; undefined: neither is there. */
export function readGivenKey(
  key: string | undefined,
  environment: Record<string, string | undefined>,
): string | undefined {
  if (key !== undefined) return readKey("--key", key);
  const fromEnvironment = environment["SUPABASE_SECRET_KEY"] ?? "";
  return fromEnvironment === "" ? undefined : readKey("SUPABASE_SECRET_KEY", fromEnvironment);
}

/** Asks for the key on the terminal; undefined: whoever sits there did not want to say. */
export async function askForKey(signal: AbortSignal): Promise<string | undefined> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new UsageError("Cannot call the function without a secret key: set SUPABASE_SECRET_KEY");
  }
  const question = "Secret key of the project (it is not shown): ";
  const typed = await askSecret(question, process.stdin, (text) => process.stderr.write(text), signal);
  return typed === undefined ? undefined : readKey("the prompt", typed);
}

/** Checks that a key can be sent as a header; the message never holds it. */
function readKey(name: string, value: string): string {
  const key = value.trim();
  if (key === "") throw new UsageError(`Cannot use the key of ${name}: it is empty`);
  if (!/^[\x21-\x7e]+$/.test(key)) {
    throw new UsageError(`Cannot use the key of ${name}: it has spaces or characters that no key has`);
  }
  return key;
}
