import { hasRow } from "./adopt-list.ts";

/** A row that the preflight answers. */
export interface PreflightRow {
  topic: string;
  code: string;
  object: string;
  finding: string;
  to_do: string;
}

/** Between these two lines the preflight has the list. */
const listOfPreflight = /(?<=looked at as if they were\.\n)[^]*?(?=^ *\(null::text, null::text)/m;

/** From here on the preflight is generated, and the same for everyone. */
const generated = "\n    settings as (";

/** The preflight with these rows as its list, which are written as in the list of tables. */
export function pasteList(preflight: string, rows: string): string {
  if (!listOfPreflight.test(preflight)) throw new Error("Cannot find the place for the list in the preflight");
  const list = hasRow(rows) ? `${rows}\n        ,\n` : "";
  return preflight.replace(listOfPreflight, () => list);
}

/** What is not to be edited in a preflight. */
export const generatedPart = (preflight: string): string => preflight.slice(preflight.indexOf(generated));
