import { readFileSync } from "node:fs";
import { join } from "node:path";
import { migrationFiles } from "../local/application.ts";
import { root } from "../local/project.ts";

/** A migration of this project. Its name is without the version. */
export interface Migration {
  name: string;
  text: string;
}

export const listName = "EDIT_list_of_tables.sql";
export const indexesName = "EDIT_index_org_id.sql";
/** What makes organizations of the application's own companies is added at its end. */
export const organizationsName = "create_organizations.sql";
/** By this one an application is known that has our migrations. */
export const foundationName = "tenancy_01_foundation.sql";

/** The name of a migration without its version. */
export const withoutVersion = (file: string): string => file.slice(file.indexOf("_") + 1);

export const versionOf = (file: string): string => file.slice(0, file.indexOf("_"));

/** What an application gets: the migrations of this project without the call-centre's own, in their order. */
export function readMigrations(): Migration[] {
  const [, ...files] = migrationFiles();
  return files.map((file) => ({
    name: withoutVersion(file),
    text: readFileSync(join(root, "supabase/migrations", file), "utf8"),
  }));
}

/** Versions for so many migrations, a second apart: from now on, or else right after the newest one that there is. */
export function nextVersions(newest: string, count: number, now: Date): string[] {
  const stamp = (seconds: number) =>
    new Date(now.getTime() + seconds * 1000).toISOString().replaceAll(/\D/g, "").slice(0, 14);
  const numbers = Array.from({ length: count }, (_, number) => number);
  // The CLI compares versions as texts.
  if (newest < stamp(0)) return numbers.map(stamp);
  if (newest.length === 14) return numbers.map((number) => String(BigInt(newest) + BigInt(number + 1)));
  return numbers.map((number) => `${newest}${String(number + 1).padStart(4, "0")}`);
}
