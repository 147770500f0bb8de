import { createHash } from "node:crypto";
import type { Random } from "../random.ts";

/** A name as it stands in SQL. */
export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** A text as it stands in SQL. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

const bytes = (text: string): number => Buffer.byteLength(text);

/** Fills a name up to the 63 bytes that the server keeps, the last of them with single bytes. */
function fillUp(name: string, filler: string): string {
  while (bytes(name + filler) <= 63) name += filler;
  return name.padEnd(name.length + 63 - bytes(name), "x");
}

const keywords = ["select", "user", "order", "table", "default", "check", "references", "primary", "group", "grant"];
/** Words that the migrations' own queries use for something else. */
const migrationWords = [
  "todo",
  "decision",
  "source_1",
  "source_0",
  "row_id",
  "target",
  "relation",
  "written",
  "candidates",
  "existing",
  "before",
  "settings",
  "registry",
  "org_ids",
];

/** How each kind of name dresses up a word, which has a number of its own. */
const kinds = {
  "name in mixed case": (word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}OfUs`,
  "name in unicode": (word) => `${word}_日本_é`,
  "name of 63 bytes": (word) => fillUp(`${word}_long_`, "abcdefghij"),
  "name of 63 bytes in unicode": (word) => fillUp(`${word}_`, "é"),
  "names that begin alike": (word) => fillUp("", "alike_").slice(0, 63 - bytes(word)) + word,
  "name with spaces": (word) => ` ${word} of  us `,
  "name with quotes": (word) => `${word}"s 'own'`,
  "name with percent signs": (word) => `%I_${word}_%s%%`,
  "name with dots": (word) => `public.${word}.x`,
  "name with dollar signs": (word) => `$$${word}$do$`,
  "name with backslashes": (word) => `${word}\\n\\`,
  "name of a keyword": (_word, random) => random.pick(keywords),
  "name of the migration's own": (_word, random) => random.pick(migrationWords),
} satisfies Record<string, (word: string, random: Random) => string>;

export type NameKind = keyof typeof kinds;
export const nameKinds = Object.keys(kinds) as NameKind[];

/**
 * Makes names that are different from one another, of these kinds or plain. The first tables get one of each kind, twice;
 * onUse learns of it.
 */
export function createNames(
  random: Random,
  wished: NameKind[],
  onUse: (kind: NameKind) => void,
): (word: string) => string {
  const taken = new Set<string>();
  const next = [...wished, ...wished];
  let number = 0;
  return (word) => {
    const plain = `${word}_${++number}`;
    const planned = word === "table" ? next.shift() : undefined;
    const kind = planned ?? (wished.length > 0 && random.below(3) > 0 ? random.pick(wished) : undefined);
    const name = kind ? kinds[kind](plain, random) : plain;
    if (!kind || taken.has(name)) return plain;
    taken.add(name);
    if (planned) onUse(planned);
    return name;
  };
}

/** The name that the documentation gives to an object of a table: over 63 bytes the table's part is cut and gets a digest. */
export function coinName(prefix: string, table: string, suffix: string): string {
  if (bytes(prefix + table + suffix) <= 63) return prefix + table + suffix;
  const digest = `_${createHash("md5").update(table).digest("hex").slice(0, 8)}`;
  const letters = [...table];
  while (bytes(prefix + letters.join("") + digest + suffix) > 63) letters.pop();
  return prefix + letters.join("") + digest + suffix;
}
