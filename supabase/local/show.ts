/** What npm start prints, and how much of it does not hold. */

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
