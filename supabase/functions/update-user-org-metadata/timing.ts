/** Time and chance, so that tests decide both. */
export interface Timing {
  /** Milliseconds since some fixed point. */
  now(): number;
  /** Resolves after so long, or as soon as the signal is aborted. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** A number from 0 up to 1. */
  random(): number;
}

/** When to send nothing more. */
export interface Stop {
  /** Milliseconds, as the clock counts them. */
  deadline: number;
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal;
}

/** A pause that all requests share: while the Auth server asks to slow down, none is sent. */
export interface Pause {
  /** No request before this time. */
  until: number;
}

/** The time and chance of this machine. */
export const systemTiming: Timing = {
  now: () => Date.now(),
  sleep: (milliseconds, signal) =>
    new Promise((resolve) => {
      if (milliseconds <= 0 || signal?.aborted) return resolve();
      const timer = setTimeout(end, milliseconds);
      signal?.addEventListener("abort", end);
      function end() {
        clearTimeout(timer);
        signal?.removeEventListener("abort", end);
        resolve();
      }
    }),
  random: () => Math.random(),
};
