import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { expect, inject } from "vitest";
import { root } from "../local/project.ts";
import type { Services } from "../local/stack.ts";
import type { CliResult } from "../local/supabase-cli.ts";
import { change, decide, findMigration, listEnding } from "./applications.ts";
import { readSection, runAsWritten } from "./readme.ts";

export const recipe = readSection("## Step by step", "docs/adopt.md");
export const undo = readSection("## Undo", "docs/operate.md");

/** Commands of the recipe that no test can run, and why. All others are run. */
export const cannotRun: Record<string, string> = {
  "npm ci": "its packages are installed",
  "npm run push": "another way to do step 4, tested in five-commands.test.ts",
  "npx supabase link": "there is no project on the platform to link to; --remote=<address> stands in for it",
  "npx supabase db pull --remote": "it needs Docker to compare schemas, and the CRM's schema is in migrations already",
  "npx supabase functions deploy update-user-org-metadata --use-api":
    "there is no project on the platform to deploy to; the copied function is served here instead",
  "npx supabase start": "it needs Docker; the local stack stands in for it",
  "npx supabase test db": "it needs Docker; the copied tests are run without it",
  "npx supabase functions serve": "it needs Docker; the copied function is served without it",
  "npm run users": "another way to do step 5, tested in users.test.ts",
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
  /** Of npm run adopt: the first time, and again once its owner has decided. */
  adoptions: CliResult[];
  /** Of the preflight: with the list as it was written, and as it was decided, with the mapping. */
  preflights: CliResult[];
  /** The commands that were typed, without those that only show something. */
  typed: string[];
  /** How many lines of the list were edited. */
  edited: number;
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
    replace: { "https://$PROJECT_REF.supabase.co": services.api.url, "postgresql://…": url },
    environment: { SUPABASE_SECRET_KEY: services.keys.secretKey },
  });

/** Makes two of the tables as large as those that need an index line: more than 8 MB, most of it of deleted rows. */
export async function growTables(sql: Sql): Promise<void> {
  await sql.unsafe(`
    insert into sales.price_changes (old_price) select -1 from generate_series(1, 200000);
    delete from sales.price_changes where old_price = -1;
    insert into public.activities (kind, occurred_at, body)
    select 'note', '2024-10-15', repeat('grown', 300) from generate_series(1, 6000);
    delete from public.activities where body like 'growngrown%';
  `).simple();
}

/** Adds the mapping of the recipe to the list. */
export const addMapping = (project: string): void =>
  change(
    project,
    listEnding,
    (text) => text.replace("select tenancy.assert_registry();", (check) => `${example("tenancy.user_orgs")}\n${check}`),
  );

/** Step 2 once more, with the mapping and the choice for new users from the list's file; npm run adopt has pasted the list. */
async function askWithTheMapping(site: Site): Promise<CliResult> {
  const { project } = site;
  const edited = readFileSync(findMigration(project, listEnding), "utf8").replace(/^\/\*$[^]*?^\*\/$/m, "");
  const [mapping = ""] = /^select distinct on [^;]*(?=\non conflict)/m.exec(edited) ?? [];
  const [, newUsers = ""] = /tenancy\.enable_new_users\(('\w+')/.exec(edited) ?? [];
  const file = join(project, "supabase/preflight.sql");
  const pasted = readFileSync(file, "utf8")
    .replace(/(?<=\$mapping\$\n)[^$]*(?=\$mapping\$)/, () => `${mapping}\n`)
    .replace(/^ *select null::text$/m, () => `    select ${newUsers}`);
  for (const text of [mapping, `    select ${newUsers}`]) expect(pasted).toContain(text);
  writeFileSync(file, pasted);
  return await run(site, findBlock("-f supabase/preflight.sql"));
}

/** The block of commands of the recipe with this text. */
export function findBlock(text: string): string {
  const found = recipe.blocks("sh").find((block) => block.includes(text));
  if (!found) throw new Error(`Cannot find a block of commands with ${JSON.stringify(text)} in the recipe`);
  return found;
}

/** What the owner of the CRM does between adopting it and pushing. Returns how many lines of the list were edited. */
export function decideAsOwner(project: string): number {
  const edited = decide("crm", project);
  addMapping(project);
  return edited;
}

/** Follows the recipe, steps 1 to 6. */
export async function followRecipe(site: Site): Promise<Answers> {
  const { project, services } = site;
  const answers: Answers = { adoptions: [], preflights: [], typed: ["git clone", "npm ci"], edited: 0 };
  const mustEnd = async (commands: string) => {
    const result = await run(site, commands);
    expect(result.code, `${commands}\n${result.output}`).toBe(0);
    return result;
  };
  for (const block of recipe.blocks("sh")) {
    const commands = block.split("\n").filter((line) => !Object.hasOwn(cannotRun, line)).join("\n");
    if (/^npx supabase db push/m.test(commands)) {
      answers.edited = decideAsOwner(project);
      answers.adoptions.push(await mustEnd(findBlock("run adopt")));
      answers.preflights.push(await askWithTheMapping(site));
      answers.typed.push(...block.trim().split("\n").filter((line) => !line.includes("--dry-run")));
    }
    if (commands.includes("/functions/v1/")) {
      await services.serve("update-user-org-metadata", join(project, "supabase/functions"));
    }
    const result = await mustEnd(commands);
    if (commands.includes("-f supabase/preflight.sql")) answers.preflights.push(result);
    if (commands.includes("run adopt")) {
      answers.adoptions.push(result);
      answers.typed.push(commands.trim());
    }
  }
  return answers;
}
