import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, inject } from "vitest";
import { root } from "../local/project.ts";
import type { Services } from "../local/stack.ts";
import type { CliResult } from "../local/supabase-cli.ts";
import { readSection, runAsWritten } from "./readme.ts";

export const recipe = readSection("## Step by step", "docs/adopt.md");
export const undo = readSection("## Undo", "docs/operate.md");

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

/** What only the owner knows: the columns that decide, in order, where the detected order is not what is meant. */
const orgFrom: Record<string, string> = {
  "sales.deals": "{owner_id,stage_id}",
  "public.audit_log": "{actor,deal_id}",
};

/** The block of the recipe with this text, which the owner of the CRM writes as it stands. */
export function example(text: string): string {
  const block = recipe.blocks("sql").find((sql) => sql.includes(text));
  if (!block) throw new Error(`Cannot find a block of SQL with ${JSON.stringify(text)} in the recipe`);
  return block;
}

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
export function copyCrm(name: string): string {
  const folder = join(inject("folder"), name);
  const project = join(folder, "crm");
  mkdirSync(folder, { recursive: true });
  cpSync(join(crmFolder, "supabase"), join(project, "supabase"), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(project, "node_modules"));
  symlinkSync(root, join(folder, "org-id-migration"));
  return project;
}

/** Runs commands of the documentation as they stand. */
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

/** Makes another text of the migration of the project whose name ends so. */
export function change(project: string, ending: string, how: (text: string) => string): void {
  const file = findMigration(project, ending);
  writeFileSync(file, how(readFileSync(file, "utf8")));
}

/** Step 3: the list with the one table of the example, no index line, and who belongs where. */
export function editForTheFirstTime(project: string): void {
  change(project, "_EDIT_list_of_tables.sql", (text) =>
    text
      .replace(/^ {4}\('public', .*\n/gm, "")
      .replace("values\n", `values\n    ${example("('public', 'contacts'").replace(/,\n$/, "\n")}`)
      .replace(
        "select tenancy.assert_registry();",
        // The tables stand for large ones, which need their index lines.
        (check) => `${example("tenancy.user_orgs")}\nupdate tenancy.settings set small_table_bytes = 0;\n${check}`,
      ));
  change(project, "_EDIT_index_org_id.sql", (text) => text.replaceAll(/^create index concurrently .*\n/gm, ""));
}

/** Does what the message of a refusal says, and nothing else. Returns whether it said anything. */
export function obey(project: string, output: string): boolean {
  const unclassified = [...output.matchAll(/^(\S+) is not classified: .*$/gm)];
  const rows = unclassified.map(([line, table = ""]) => {
    const why = excluded[table];
    const offered = [...line.matchAll(/\('[^']+', '[^']+', '(org|excluded)', [^)]*\)/g)];
    expect(offered.length, line).toBe(2);
    const [row] = offered.find(([, scope]) => scope === (why ? "excluded" : "org")) ?? [line];
    const decided = orgFrom[table] ? row.replace(/null\)$/, `'${orgFrom[table]}')`) : row;
    return `    ${decided.replace("<why not>", why ?? "")},\n`;
  });
  change(project, "_EDIT_list_of_tables.sql", (text) => text.replace("values\n", `values\n${rows.join("")}`));
  const lines = [...output.matchAll(/create index concurrently .*?;/g)].map(([line]) => `${line}\n`);
  change(project, "_EDIT_index_org_id.sql", (text) => text.replace("set lock_timeout = 0;\n", `$&${lines.join("")}`));
  return rows.length + lines.length > 0;
}

/** Step 2 once more: the preflight with the list, the mapping and the choice for new users from the list's file. */
async function askWithTheList(site: Site): Promise<CliResult> {
  const { project } = site;
  const edited = readFileSync(findMigration(project, "_EDIT_list_of_tables.sql"), "utf8");
  const [list = ""] = /^( {4}\(.*\n)+/m.exec(edited) ?? [];
  const [mapping = ""] = /^select distinct on [^;]*(?=\non conflict)/m.exec(edited) ?? [];
  const [, newUsers = ""] = /tenancy\.enable_new_users\(('\w+')/.exec(edited) ?? [];
  const file = join(project, "supabase/preflight.sql");
  const before = readFileSync(file, "utf8");
  const pasted = before
    .replace(/^ *\(null::text, .*$/m, (last) => `${list.trimEnd()},\n${last}`)
    .replace(/(?<=\$mapping\$\n)[^$]*(?=\$mapping\$)/, () => `${mapping}\n`)
    .replace(/^ *select null::text$/m, () => `    select ${newUsers}`);
  for (const text of [list.trimEnd(), mapping, `    select ${newUsers}`]) expect(pasted).toContain(text);
  writeFileSync(file, pasted);
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
