/** When npm's shell has made way for the script, npm passes a Ctrl-C on as a second one; both come within this time. */
const sameCtrlC = 500;

export const interruptedExitCode = 130;

/** What a shell makes of a command that its reader left, as after | head. */
const unreadExitCode = 141;

interface Interruption {
  /** Aborted by the first interruption. */
  signal: AbortSignal;
  interrupt(): void;
}

/** The first interruption asks to stop; one that comes later than its echo stops at once. */
export function createInterruption(now: () => number, stopAtOnce: () => void): Interruption {
  const controller = new AbortController();
  let first: number | undefined;
  return {
    signal: controller.signal,
    interrupt: () => {
      first ??= now();
      if (now() - first > sameCtrlC) stopAtOnce();
      controller.abort();
    },
  };
}

/** Returns a signal that the first Ctrl-C or SIGTERM aborts. The second one ends the process, after a last clean-up. */
export function watchInterruptions(cleanUp: () => void = () => {}): AbortSignal {
  const { signal, interrupt } = createInterruption(() => performance.now(), () => {
    cleanUp();
    process.exit(interruptedExitCode);
  });
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  return signal;
}

/** Ends the process without a word, since nobody reads its output any more. */
export const endUnread = (): never => process.exit(unreadExitCode);

/** Ends the process as soon as nobody reads its output any more, after a last clean-up. */
export function endWithReader(cleanUp: () => void = () => {}): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
      cleanUp();
      endUnread();
    });
  }
}
