import { readFileSync } from "node:fs";
import { join } from "node:path";
import { migrationFiles } from "../local/application.ts";
import { root } from "../local/project.ts";

/** A migration file, as text. */
export interface MigrationSource {
  name: string;
  text: string;
}

/** The library: the migrations that make the schemas tenancy and org_migration, in their order. */
export function readLibrary(): MigrationSource[] {
  return migrationFiles()
    .filter((name) => name.includes("_tenancy_") || name.endsWith("_create_organizations.sql"))
    .map((name) => ({ name, text: readFileSync(join(root, "supabase/migrations", name), "utf8") }));
}
