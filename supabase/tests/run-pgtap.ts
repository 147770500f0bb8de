import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../local/databases.ts";

export interface PgtapResult {
  passed: number;
  /** The lines of the tests that failed, with their diagnostics; what else is wrong. */
  failures: string[];
}

/** Every .sql file below a folder, as `supabase test db` runs them: by pg_prove, which sorts their whole paths. */
export function findPgtapFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".sql"))
    .map((name) => join(folder, name))
    .sort();
}

/**
 * Runs one pgTAP file as psql with ON_ERROR_STOP does: as postgres on a connection of its own, statement by statement, to
 * the first error. What the file does outside of a transaction stays. Reads its TAP as pg_prove does.
 */
export async function runPgtapFile(url: string, file: string): Promise<PgtapResult> {
  const sql = connect(url);
  const lines: string[] = [];
  try {
    for (const statement of splitStatements(readFileSync(file, "utf8"))) {
      const rows: Record<string, unknown>[] = await sql.unsafe(statement).simple();
      for (const value of rows.flatMap((row) => Object.values(row))) {
        if (typeof value === "string") lines.push(...value.split("\n"));
      }
    }
    return readTap(lines);
  } catch (error) {
    return { passed: 0, failures: [...lines.filter((line) => /^not ok|^#/.test(line)), `${(error as Error).message}`] };
  } finally {
    await sql.end();
  }
}

/** What may hide a semicolon: comments, strings, quoted names, dollar quotes. Then the characters that count. */
const tokens = new RegExp(
  [
    /--.*/,
    /\/\*[^]*?\*\//,
    /\b[eE]'(?:\\[^]|''|[^'\\])*'/,
    /'(?:''|[^'])*'/,
    /"(?:""|[^"])*"/,
    /(?<![\w$])\$(?<tag>[a-zA-Z_]\w*)?\$[^]*?\$\k<tag>\$/,
    /[();\\]/,
  ].map(({ source }) => source).join("|"),
  "g",
);

/** The statements of a file, split where psql sends them. Throws at a command of psql's own, which nothing else understands. */
export function splitStatements(text: string): string[] {
  const statements: string[] = [];
  let start = 0;
  let depth = 0;
  for (const { 0: token, index } of text.matchAll(tokens)) {
    if (token === "\\") throw new Error(`a command of psql's own: ${text.slice(index).split("\n")[0]}`);
    if (token === "(") depth++;
    if (token === ")") depth--;
    if (token !== ";" || depth > 0) continue;
    statements.push(text.slice(start, index + 1));
    start = index + 1;
  }
  const rest = text.slice(start);
  if (rest.replaceAll(/--.*|\/\*[^]*?\*\//g, "").trim() !== "") statements.push(rest);
  return statements;
}

/** What TAP says: one plan, and tests 1 to as many as it plans, all of them ok. */
export function readTap(lines: string[]): PgtapResult {
  const plans = lines.flatMap((line) => /^1\.\.(\d+)$/.exec(line)?.[1] ?? []);
  const tests = lines.flatMap((line) => {
    const [, not, number] = /^(not )?ok (\d+)\b/.exec(line) ?? [];
    return number === undefined ? [] : [{ ok: !not, number: Number(number) }];
  });
  const failures = tests.every(({ ok }) => ok) ? [] : lines.filter((line) => /^not ok|^#/.test(line));
  if (plans.length !== 1) failures.push(`${plans.length} plans instead of one`);
  else if (Number(plans[0]) !== tests.length) failures.push(`planned ${plans[0]} tests, ran ${tests.length}`);
  if (tests.some(({ number }, index) => number !== index + 1)) failures.push("the tests are not numbered in order");
  failures.push(...lines.filter((line) => line.startsWith("Bail out!")));
  return { passed: tests.filter(({ ok }) => ok).length, failures };
}
