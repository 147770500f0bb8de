/** Text of the report: what is formatted, what is left out, and what is made visible. */

/**
 * Characters that are not seen, or that turn the text around them: control, format and bidirectional ones. A name that has
 * one would look like another.
 */
const unseen = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** The text with what nobody could see in it spelled out. Lines stay lines. */
export function spellOut(text: string): string {
  return text.replace(unseen, (character) => {
    if (character === "\n" || character === "\t") return character;
    return `[U+${character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

/**
 * What another session runs, without the values in it: those may be of the application's rows. A value may be cut off at the
 * end of the text.
 */
export function hideValues(query: string): string {
  return query
    .replace(/\$(\w*)\$[^]*?(?:\$\1\$|$)/g, "…")
    .replace(/'(?:[^']|'')*(?:'|$)/g, "'…'")
    .replace(/(?<![\w"$.])\d[\d.]*(?![\w"])/g, "…");
}

/** Who holds a lock, a line each, as tenancy.lock_holders and the preflight say it: the text up to ": ", then the query. */
export function hideValuesOfHolders(holders: string): string {
  return holders
    .split("\n")
    .map((line) => {
      const at = line.indexOf(": ");
      return at < 0 ? line : line.slice(0, at + 2) + hideValues(line.slice(at + 2));
    })
    .join("\n");
}

const uuid = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const contact = new RegExp(`${uuid}|[^\\s"'<>()]+@[^\\s"'<>()]+|\\+?\\d[\\d ()-]{6,}\\d`, "gi");
const isUuid = new RegExp(`^${uuid}$`, "i");

/** A reason that the Auth server gave, without addresses and phone numbers; ids stay. */
export function hideContacts(reason: string): string {
  return reason.replace(contact, (found) => isUuid.test(found) ? found : "…");
}

/** A primary key as text. Only numbers and uuids are shown: any other key may be a name or an address. */
export function formatKey(key: Record<string, unknown>): string {
  const entries = Object.entries(key);
  if (entries.length === 0) return "no primary key";
  return entries
    .map(([column, value]) => {
      const isId = typeof value === "number" || (typeof value === "string" && isUuid.test(value));
      return `${column} ${isId ? value : "…"}`;
    })
    .join(", ");
}

export function formatNumber(number: number): string {
  return number.toLocaleString("en-US");
}

/** What numbers come to, without those that nobody knows. */
export function sum(numbers: (number | null)[]): number {
  return numbers.reduce<number>((all, one) => all + (one ?? 0), 0);
}

/** A number of things: "1 table", "2 tables". */
export function count(number: number, noun: string): string {
  return `${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toLocaleString("en-US", { maximumFractionDigits: value < 10 && unit > 0 ? 1 : 0 })} ${units[unit]}`;
}

/** A length of time with its two largest units. What is shorter than the finest that was measured is said to be. */
export function formatDuration(seconds: number, finest = 0.001): string {
  if (seconds < finest) return `under ${finest} s`;
  if (seconds < 10) return `${Number(seconds.toFixed(3))} s`;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  const rounded = Math.round(seconds);
  const parts = [
    [Math.floor(rounded / 86_400), "d"],
    [Math.floor(rounded / 3600) % 24, "h"],
    [Math.floor(rounded / 60) % 60, "min"],
    [rounded % 60, "s"],
  ] as const;
  const first = parts.findIndex(([number]) => number > 0);
  return parts.slice(first, first + 2).filter(([number]) => number > 0).map(([number, unit]) => `${number} ${unit}`)
    .join(" ");
}

/** A moment to the second, in UTC. */
export function formatMoment(moment: Date): string {
  return `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** A moment to the millisecond, in UTC. */
export function formatInstant(moment: Date): string {
  return `${moment.toISOString().slice(0, 23).replace("T", " ")} UTC`;
}

/** The time of day to the millisecond, in UTC. */
export function formatTime(moment: Date): string {
  return moment.toISOString().slice(11, 23);
}
