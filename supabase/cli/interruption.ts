/** Where npm's shell makes way for the script, npm passes a Ctrl-C on as a second one; both come within this time. */
const sameCtrlC = 500;

export interface Interruption {
  /** Aborted by the first interruption. */
  signal: AbortSignal;
  interrupt(): void;
}

/** The first interruption asks to stop; one that comes later than its echo stops at once. */
export function createInterruption(now: () => number, atOnce: () => void): Interruption {
  const controller = new AbortController();
  let first: number | undefined;
  return {
    signal: controller.signal,
    interrupt: () => {
      first ??= now();
      if (now() - first > sameCtrlC) atOnce();
      controller.abort();
    },
  };
}
