import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { root } from "../local/project.ts";

export const preflightFile = join(root, "supabase/preflight.sql");

/** A row that the preflight answers. */
export interface PreflightRow {
  topic: string;
  code: string;
  object: string;
  finding: string;
  to_do: string;
}

const lastRow = "        (null::text, null::text, null::text, null::text, null::text, null::text[])\n";
const notChosen = "    select null::text\n";
const noMapping = "    select null::uuid, null::uuid where false\n";

/** What an owner pastes into the preflight: rows, each with its comma, the select of the mapping, and what new users get. */
export interface Pasted {
  list?: string;
  mapping?: string;
  newUsers?: string;
}

/** The preflight with what is pasted where it says so. */
export function readPreflight({ list = "", mapping, newUsers }: Pasted = {}): string {
  const preflight = readFileSync(preflightFile, "utf8");
  for (const place of [lastRow, notChosen, noMapping]) {
    if (!preflight.includes(place)) throw new Error(`Cannot find where to paste in the preflight: ${place}`);
  }
  return preflight
    .replace(lastRow, () => list + lastRow)
    .replace(notChosen, () => newUsers ? `    select '${newUsers}'::text\n` : notChosen)
    .replace(noMapping, () => mapping ? `${mapping}\n` : noMapping);
}

/** Asks the preflight in a read-only transaction. */
export const askPreflight = async (sql: Sql, pasted: Pasted = {}): Promise<PreflightRow[]> =>
  await sql.begin("read only", async (transaction) => await transaction.unsafe<PreflightRow[]>(readPreflight(pasted)));
