import { UsageError } from "./command-line.ts";

/** A table that is not in the list, as the preflight suggests it. */
export interface Suggestion {
  table: string;
  /** The row for the list, with its comma; as a comment where the scope is open. */
  row: string;
  /** What speaks for it; where its owner has to decide, that first. */
  about: string;
  isDecision: boolean;
}

/** Between these two lines the list has its rows. */
const rowsOfList = /(?<=\nvalues\r?\n)[^]*?(?=\r?\non conflict \(schema_name, table_name\))/;

const headings = {
  decisions: "    -- To decide, each by its owner: what the keys do not say. Edit the row, or leave it as it is.",
  others: "    -- As the keys say, or as it was decided.",
};

/** The rows of a list, as they are written: with comments, and the last one without a comma. */
export function readRows(file: string, text: string): string {
  const [rows] = rowsOfList.exec(text) ?? [];
  if (rows === undefined) {
    throw new UsageError(
      `Cannot read ${file}: it has no line "values" with the rows up to a line "on conflict (schema_name, table_name) do update"`,
    );
  }
  return rows;
}

/** True if there is a row that is not a comment. */
export const hasRow = (rows: string): boolean => /^[ \t]*(?!--)[^\s]/m.test(rows);

/** The list with these rows instead of its own: what is to be decided first, each with what speaks for it. */
export const writeRows = (text: string, suggestions: Suggestion[]): string =>
  text.replace(rowsOfList, () => formatRows(suggestions, true));

/** The list with these rows before its own. */
export function addRows(text: string, suggestions: Suggestion[]): string {
  if (suggestions.length === 0) return text;
  return text.replace(rowsOfList, (own) => `${formatRows(suggestions, !hasRow(own))}\n${own}`);
}

/** A heading and a line per row. If no other rows follow, the last one has no comma. */
function formatRows(suggestions: Suggestion[], isEnd: boolean): string {
  const decisions = suggestions.filter(({ isDecision }) => isDecision);
  const others = suggestions.filter(({ isDecision }) => !isDecision);
  const last = [...decisions, ...others].findLast(({ row }) => hasRow(row));
  const format = (suggestion: Suggestion) => {
    const row = isEnd && suggestion === last ? suggestion.row.replace(/,$/, "") : suggestion.row;
    return `    ${row} -- ${suggestion.about.replaceAll(/\s+/g, " ")}`;
  };
  return [
    ...(decisions.length > 0 ? [headings.decisions, ...decisions.map(format)] : []),
    ...(others.length > 0 ? [headings.others, ...others.map(format)] : []),
  ].join("\n");
}
