/** What npm start prints, and how much of it does not hold. */
import { createLiveLine, screenOf } from "../cli/live-line.ts";
import { formatDuration } from "../cli/print.ts";

let failures = 0;

export function say(text = ""): void {
  console.log(text);
}

export function title(text: string): void {
  say(`\n${text}\n${"─".repeat(text.length)}`);
}

/** Prints one line of the outcome. A line that does not hold makes the exit code 1. */
export function expectThat(holds: boolean, text: string): void {
  if (!holds) failures++;
  say(`  ${holds ? "✔" : "✘"} ${text}`);
}

/** How many lines do not hold. */
export function countFailures(): number {
  return failures;
}

/** Says every second, once three have passed, that work is under way; and every ten where there is no terminal. Returns how long it took. */
export async function timed<T>(what: string, work: () => Promise<T>): Promise<[T, milliseconds: number]> {
  const line = createLiveLine(screenOf(process.stdout), 10_000);
  const began = performance.now();
  const timer = setInterval(() => {
    const milliseconds = performance.now() - began;
    if (milliseconds >= 3000) line.show(`  … ${what}: ${formatDuration(Math.floor(milliseconds / 1000))}`);
  }, 1000);
  try {
    return [await work(), performance.now() - began];
  } finally {
    clearInterval(timer);
    line.clear();
  }
}
