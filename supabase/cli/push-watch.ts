import { setTimeout as sleep } from "node:timers/promises";
import { networkReason } from "./command-line.ts";
import type { PushDisplay } from "./push-display.ts";
import type { Now, NowReader } from "./push-now.ts";

export interface Watch {
  /** What the push was doing when it was asked last. */
  last(): Now | undefined;
  /** Resolves when the watch has ended. */
  ended: Promise<void>;
}

const aSecond = async (signal: AbortSignal) => void await sleep(1000, undefined, { signal }).catch(() => {});

/**
 * Shows every second what a push is doing, until the signal is aborted, or the caller has seen enough. A connection that fails is
 * said once, and tried again.
 */
export function watchPush(
  reader: NowReader,
  display: Pick<PushDisplay, "show" | "silent">,
  signal: AbortSignal,
  enough: (now: Now) => boolean = () => false,
  pause: (signal: AbortSignal) => Promise<void> = aSecond,
): Watch {
  let last: Now | undefined;
  const watch = async () => {
    while (!signal.aborted) {
      try {
        const now = await reader.read();
        if (signal.aborted) return;
        if (now !== undefined) {
          last = now;
          display.show(now);
          if (enough(now)) return;
        }
      } catch (error) {
        display.silent(networkReason(error));
      }
      await pause(signal);
    }
  };
  return { last: () => last, ended: watch() };
}
