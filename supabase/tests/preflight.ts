import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../local/project.ts";
import { migrationFiles } from "../local/application.ts";

export const preflightFile = join(root, "supabase/preflight.sql");
const views = [
  "application_tables",
  "table_members",
  "references_between_tables",
  "unclassified_tables",
  "coined_names",
  "table_obstacles",
  "registry_problems",
];
const begin = "-- The views of _create_tenancy_registry.sql, word for word: begin.\n";
const end = "-- The views of _create_tenancy_registry.sql, word for word: end.\n";

/**
 * The preflight as it should be: what it knows of tables is what the registry's migration knows, each view a query of its
 * with clause, since nothing of ours is in the database yet when it runs. Throws when the migration has not these views.
 */
export function composePreflight(): string {
  const [file] = migrationFiles().filter((name) => name.endsWith("_create_tenancy_registry.sql"));
  const migration = readFileSync(join(root, "supabase/migrations", file ?? ""), "utf8");
  const find = (pattern: RegExp) => {
    const found = pattern.exec(migration)?.[1];
    if (!found) throw new Error(`Cannot find ${pattern} in ${file}`);
    return found;
  };
  const query = (name: string, body: string) => `${name} as (\n${body.replaceAll(/^(?=.)/gm, "    ")}\n),\n`;
  const settings = [
    `select`,
    `    '${find(/default_org_id uuid not null default '([^']+)'/)}'::uuid as default_org_id,`,
    `    ${find(/platform_schemas text\[\] not null default (array\[[^\]]+\])/)} as platform_schemas`,
  ].join("\n");
  const composed = [
    query("settings", settings),
    ...views.map((name) =>
      query(
        name,
        find(new RegExp(`create or replace view tenancy\\.${name} as\\n([^]*?);\\n`))
          .replaceAll(/\b(from|join) tenancy\./g, "$1 "),
      )
    ),
  ].join("");
  const preflight = readFileSync(preflightFile, "utf8");
  const [before, rest] = preflight.split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) {
    throw new Error(`Cannot find the place of the views in ${preflightFile}`);
  }
  return before + begin + composed + end + after;
}

const lastRow = "        (null::text, null::text, null::text, null::text, null::text)\n";
const lastNamed = "        (null::text, null::text, null::text, null::text)\n";

/** The preflight with the rows of a list, and of owner and parent columns, each with its comma, pasted where it says. */
export function withList(preflight: string, rows: string, named = ""): string {
  if (!preflight.includes(lastRow) || !preflight.includes(lastNamed)) {
    throw new Error("Cannot find where the list goes in the preflight");
  }
  return preflight.replace(lastRow, () => rows + lastRow).replace(lastNamed, () => named + lastNamed);
}
