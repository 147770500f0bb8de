import type { ReadStream } from "node:tty";

/** The part of a terminal that asking needs. */
export type SecretInput = Pick<ReadStream, "setRawMode" | "resume" | "pause" | "on" | "off">;

/**
 * Asks for a secret on a terminal without showing it. undefined: somebody pressed Ctrl-C or Ctrl-D, or the signal was aborted.
 * The terminal is left as it was.
 */
export async function askSecret(
  question: string,
  input: SecretInput,
  write: (text: string) => void,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (signal.aborted) return undefined;
  write(question);
  input.setRawMode(true);
  input.resume();
  let typed = "";
  let read: (chunk: Buffer) => void = () => {};
  let stop = () => {};
  const answer = await new Promise<string | undefined>((resolve) => {
    stop = () => resolve(undefined);
    read = (chunk) => {
      // Arrow keys and the like send sequences that are not part of a secret.
      for (const letter of chunk.toString("utf8").replace(/\p{Cc}\[[0-9;]*[A-Za-z~]/gu, "")) {
        if (letter === "\r" || letter === "\n") return resolve(typed);
        if (letter === "\x03" || letter === "\x04") return resolve(undefined);
        if (letter === "\x7f" || letter === "\b") typed = [...typed].slice(0, -1).join("");
        else if (letter === "\x15") typed = "";
        else if (!/\p{Cc}/u.test(letter)) typed += letter;
      }
    };
    input.on("data", read);
    signal.addEventListener("abort", stop, { once: true });
  });
  input.off("data", read);
  signal.removeEventListener("abort", stop);
  input.setRawMode(false);
  input.pause();
  write("\n");
  return answer;
}
