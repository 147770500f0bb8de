import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../local/project.ts";
import { UsageError } from "./command-line.ts";
import { openReadOnly } from "./report-database.ts";
import { composePage } from "./report-page.tsx";
import { readReport } from "./report-read.ts";

export interface ReportOptions {
  /** The file of the preflight; undefined: the one that this project ships. */
  preflight?: string | undefined;
  skipRows?: boolean;
}

/** The page of the database at this connection string. */
export async function writeReport(url: string, { preflight, skipRows = false }: ReportOptions = {}): Promise<string> {
  const database = openReadOnly(url);
  try {
    const report = await readReport(database.ask, { url, preflight: () => readPreflight(preflight), skipRows });
    return composePage(report);
  } finally {
    await database.end();
  }
}

function readPreflight(file: string = join(root, "supabase/preflight.sql")): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new UsageError(`Cannot read the preflight: ${(error as Error).message}`);
  }
}
