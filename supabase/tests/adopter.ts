import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, inject } from "vitest";
import { root } from "../local/project.ts";
import type { Services } from "../local/stack.ts";
import type { CliResult } from "../local/supabase-cli.ts";
import { readSection, runAsWritten } from "./readme.ts";

export const recipe = readSection("## Use it on your application");
export const undo = readSection("### Undo");

/** Commands of the recipe that no test can run, and why. All others are run. */
export const cannotRun: Record<string, string> = {
  "npx supabase link": "there is no project on the platform to link to; --remote=<address> stands in for it",
  "npx supabase db pull --remote": "it needs Docker to compare schemas, and the CRM's schema is in migrations already",
  "npx supabase functions deploy update-user-org-metadata --use-api":
    "there is no project on the platform to deploy to; the copied function is served here instead",
  "npx supabase start": "it needs Docker; the local stack stands in for it",
  "npx supabase test db": "it needs Docker; the copied tests are run without it",
  "npx supabase functions serve": "it needs Docker; the copied function is served without it",
  "npm run users": "another way to do step 5, tested in users.test.ts",
};

/** What the owner of the CRM decides where the message cannot: these tables do not get org_id. */
const excluded: Record<string, string> = {
  "public.companies": "each is an organization",
  "public.company_members": "says who belongs to which organization",
  "public.currencies": "the same for all",
  "public.profiles": "of users, whatever their organization",
};

/** What only the owner knows: the README's example for the table that is in the list from the start, and two more. */
const owners = `
${recipe.blocks("sql").find((block) => block.includes("('public', 'contacts')")) ?? ""}
update tenancy.registry
set parent_column = 'stage_id'
where (schema_name, table_name) = ('sales', 'deals');
update tenancy.registry
set owner_column = 'actor'
where (schema_name, table_name) = ('public', 'audit_log');
`;

/** What names an owner or a parent below the list: the column, what it names, and of which table. */
const namedColumn =
  /update tenancy\.registry\s+set (owner_column|parent_column) = '([^']+)'\s+where \(schema_name, table_name\) = \(([^)]+)\);/g;

export const crmFolder = join(root, "supabase/local/fixtures/crm");

/** Where the CRM is: its project's folder, its database and the API in front of it. */
export interface Site {
  project: string;
  url: string;
  services: Services;
}

/** What the recipe answered on the way. */
export interface Answers {
  /** Of the preflight: before anything is listed, and with the list. */
  preflights: CliResult[];
  /** Of the pushes that were refused. */
  refusals: string[];
}

/** Copies the CRM as its developer has it, the Supabase CLI among its packages, with this repository beside it. */
export function copyCrm(): string {
  const folder = join(inject("folder"), "adopt");
  const project = join(folder, "crm");
  mkdirSync(folder, { recursive: true });
  cpSync(join(crmFolder, "supabase"), join(project, "supabase"), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(project, "node_modules"));
  symlinkSync(root, join(folder, "org-id-migration"));
  return project;
}

/** Runs commands of the README as they stand. */
export const run = ({ project, url, services }: Site, commands: string): Promise<CliResult> =>
  runAsWritten(commands, {
    folder: project,
    url,
    replace: { "https://$PROJECT_REF.supabase.co": services.api.url },
    environment: { SUPABASE_SECRET_KEY: services.keys.secretKey },
  });

/** The migration of the project whose name ends so. */
function findMigration(project: string, ending: string): string {
  const migrations = join(project, "supabase/migrations");
  const name = readdirSync(migrations).find((file) => file.endsWith(ending));
  if (!name) throw new Error(`Cannot find a migration ending in ${ending}`);
  return join(migrations, name);
}

function change(project: string, ending: string, how: (text: string) => string): void {
  const file = findMigration(project, ending);
  writeFileSync(file, how(readFileSync(file, "utf8")));
}

/** Step 3: the list with the one table that the owner is sure of, no index line, and who belongs where. */
function editForTheFirstTime(project: string): void {
  change(project, "_EDIT_list_of_tables.sql", (text) =>
    text
      .replace(/^ {4}\('public', .*\n/gm, "")
      .replace("values\n", "values\n    ('public', 'contacts', 'org', 'critical', null)\n")
      .replace("select tenancy.assert_registry();", (check) => `${owners}\n${check}`)
      .concat("\n", recipe.blocks("sql").find((block) => block.includes("tenancy.user_orgs")) ?? ""));
  change(project, "_EDIT_index_org_id.sql", (text) => text.replaceAll(/^create index concurrently .*\n/gm, ""));
}

/** Does what the message of a refusal says, and nothing else. Returns whether it said anything. */
function obey(project: string, output: string): boolean {
  const unclassified = [...output.matchAll(/^(\S+) is not classified: .*$/gm)];
  const rows = unclassified.map(([line, table = ""]) => {
    const why = excluded[table];
    const offered = [...line.matchAll(/\('[^']+', '[^']+', '(org|excluded)', [^)]*\)/g)];
    expect(offered.length, line).toBe(2);
    const [row] = offered.find(([, scope]) => scope === (why ? "excluded" : "org")) ?? [line];
    return `    ${row.replace("<why not>", why ?? "")},\n`;
  });
  const updates = unclassified.filter(([, table = ""]) => !excluded[table]).flatMap(([line]) =>
    line.match(/update tenancy\.registry [^;]*;/) ?? []
  );
  change(project, "_EDIT_list_of_tables.sql", (text) =>
    text
      .replace("values\n", `values\n${rows.join("")}`)
      .replace("select tenancy.assert_registry();", (check) => `${updates.join("\n")}\n${check}`));
  const lines = [...output.matchAll(/create index concurrently .*?;/g)].map(([line]) => `${line}\n`);
  change(project, "_EDIT_index_org_id.sql", (text) => text.replace("set lock_timeout = 0;\n", `$&${lines.join("")}`));
  return rows.length + lines.length > 0;
}

/** Step 2 once more: the preflight with what the list's file says pasted into it, the list, the columns and the mapping. */
async function askWithTheList(site: Site): Promise<CliResult> {
  const { project } = site;
  const edited = readFileSync(findMigration(project, "_EDIT_list_of_tables.sql"), "utf8");
  const [list = ""] = /^( {4}\(.*\n)+/m.exec(edited) ?? [];
  const named = new Map<string, Record<string, string>>();
  for (const [, column = "", name, table = ""] of edited.matchAll(namedColumn)) {
    named.set(table, { ...named.get(table), [column]: `'${name}'` });
  }
  const columns = [...named].map(([table, { owner_column = "null", parent_column = "null" }]) =>
    `        (${table}, ${owner_column}, ${parent_column}),\n`
  );
  const [mapping = ""] = /^select distinct on [^;]*(?=\non conflict)/m.exec(edited) ?? [];
  const file = join(project, "supabase/preflight.sql");
  let places = 0;
  const pasted = [`${list.trimEnd()},\n`, columns.join("")];
  writeFileSync(
    file,
    readFileSync(file, "utf8")
      .replace(/^ *\(null::text, .*$/gm, (last) => `${pasted[places++]}${last}`)
      .replace(/^ *select null::uuid, null::uuid where false$/m, () => mapping),
  );
  expect({ places, columns: columns.length > 2, mapping: mapping !== "" }, "where to paste").toEqual({
    places: 2,
    columns: true,
    mapping: true,
  });
  return await run(site, recipe.blocks("sh").find((block) => block.includes("-f supabase/preflight.sql")) ?? "");
}

/** Follows the recipe, steps 1 to 6. */
export async function followRecipe(site: Site): Promise<Answers> {
  const { project, services } = site;
  const preflights: CliResult[] = [];
  const refusals: string[] = [];
  for (const block of recipe.blocks("sh")) {
    const commands = block.split("\n").filter((line) => !Object.hasOwn(cannotRun, line)).join("\n");
    if (/^npx supabase db push/m.test(commands)) editForTheFirstTime(project);
    if (commands.includes("/functions/v1/")) {
      await services.serve("update-user-org-metadata", join(project, "supabase/functions"));
    }
    let { code, output } = await run(site, commands);
    if (commands.includes("-f supabase/preflight.sql")) preflights.push({ code, output });
    while (code !== 0 && refusals.length < 5 && obey(project, output)) {
      refusals.push(output);
      if (refusals.length === 1) preflights.push(await askWithTheList(site));
      ({ code, output } = await run(site, "npx supabase db push --remote"));
    }
    expect(code, `${commands}\n${output}`).toBe(0);
  }
  return { preflights, refusals };
}
