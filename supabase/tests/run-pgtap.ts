import { readdirSync, readFileSync } from "node:fs";
import postgres from "postgres";

export interface PgtapResult {
  passed: number;
  /** The lines of the tests that failed, with their diagnostics. */
  failures: string[];
}

/** The pgTAP files under a folder, as pg_prove would find and order them. */
export function findPgtapFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".sql"))
    .sort();
}

/** Runs one pgTAP file on a database and reads its TAP. A file that errs or keeps to no plan has failed. */
export async function runPgtapFile(url: string, file: string): Promise<PgtapResult> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    const results: unknown = await sql.unsafe(readFileSync(file, "utf8")).simple();
    const lines = (results as Record<string, unknown>[][])
      .flat()
      .flatMap((row) => Object.values(row))
      .filter((value): value is string => typeof value === "string")
      .flatMap((value) => value.split("\n"));
    return readTap(lines);
  } catch (error) {
    return { passed: 0, failures: [`${(error as Error).message}`] };
  } finally {
    await sql.end();
  }
}

function readTap(lines: string[]): PgtapResult {
  const planned = Number(lines.map((line) => /^1\.\.(\d+)$/.exec(line)?.[1]).find(Boolean) ?? -1);
  const passed = lines.filter((line) => /^ok \d+/.test(line)).length;
  const failed = lines.filter((line) => /^not ok \d+/.test(line)).length;
  const failures = failed > 0 ? lines.filter((line) => /^not ok|^#/.test(line)) : [];
  if (planned !== passed + failed) failures.push(`planned ${planned} tests, ran ${passed + failed}`);
  return { passed, failures };
}
