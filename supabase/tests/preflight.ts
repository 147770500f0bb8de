import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { pasteList, type PreflightRow } from "../cli/adopt-preflight.ts";
import { root } from "../local/project.ts";

export const preflightFile = join(root, "supabase/preflight.sql");

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
  for (const place of [notChosen, noMapping]) {
    if (!preflight.includes(place)) throw new Error(`Cannot find where to paste in the preflight: ${place}`);
  }
  return pasteList(preflight, list.trimEnd().replace(/,$/, ""))
    .replace(notChosen, () => newUsers ? `    select '${newUsers}'::text\n` : notChosen)
    .replace(noMapping, () => mapping ? `${mapping}\n` : noMapping);
}

/** Asks the preflight in a read-only transaction. */
export const askPreflight = async (sql: Sql, pasted: Pasted = {}): Promise<PreflightRow[]> =>
  await sql.begin("read only", async (transaction) => await transaction.unsafe<PreflightRow[]>(readPreflight(pasted)));
