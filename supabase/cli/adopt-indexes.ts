/** An index line: of a table or a partition that is too large to be indexed under a lock. */
export interface IndexLine {
  relation: string;
  /** The statement, with its semicolon. */
  line: string;
  /** How large it is, and what it is a partition of. */
  about: string;
}

const anyLine =
  /^create index concurrently (?:if not exists )?(?:"(?:[^"]|"")*"|[^\s"]+) on ((?:"(?:[^"]|"")*"|[^\s"])+) \(org_id\);[^\n]*\n/gm;
const place = "set lock_timeout = 0;\n";

/** The index file with these lines instead of its own. */
export const writeIndexLines = (text: string, lines: IndexLine[]): string =>
  addIndexLines(text.replaceAll(anyLine, ""), lines);

/** The tables and partitions of which the index file has a line. */
export const readIndexed = (text: string): string[] => [...text.matchAll(anyLine)].map(([, relation = ""]) => relation);

/** Adds the lines of tables that have none yet. */
export function addIndexLines(text: string, lines: IndexLine[]): string {
  const there = readIndexed(text);
  const added = lines
    .filter(({ relation }) => !there.includes(relation))
    .map(({ line, about }) => `${line} -- ${about.replaceAll(/\s+/g, " ")}\n`);
  return text.replace(place, () => place + added.join(""));
}

/** Takes out the lines of these tables. */
export const removeIndexLines = (text: string, relations: string[]): string =>
  text.replaceAll(anyLine, (line, relation: string) => relations.includes(relation) ? "" : line);
