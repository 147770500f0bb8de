import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pushTarget } from "./application.ts";
import { root } from "./project.ts";
import { type CliResult, type CliRun, startSupabase } from "./supabase-cli.ts";

/** A copy of this project's supabase folder, to be edited as the owner of another application would. */
export interface ProjectCopy {
  folder: string;
  /** Adds to the end of the migration whose name ends so; in the list of tables above its check, where an owner adds too. */
  append(ending: string, sql: string): void;
  /** Replaces a text, which must be there, in the migration whose name ends so. */
  edit(ending: string, text: string, replacement: string): void;
  /** Makes another text of the migration whose name ends so. */
  rewrite(ending: string, how: (text: string) => string): void;
  /** Takes the migration away whose name ends so. */
  remove(ending: string): void;
  push(url: string): Promise<CliResult>;
  /** The same, to be killed: the CLI leads a process group of its own. */
  startPush(url: string, onOutput: (text: string) => void): CliRun;
}

const check = "select tenancy.assert_registry();";

export function copyProject(folder: string): ProjectCopy {
  const migrations = join(folder, "supabase/migrations");
  mkdirSync(migrations, { recursive: true });
  cpSync(join(root, "supabase/config.toml"), join(folder, "supabase/config.toml"));
  cpSync(join(root, "supabase/migrations"), migrations, { recursive: true });
  const find = (ending: string): string => {
    const name = readdirSync(migrations).find((file) => file.endsWith(ending));
    if (!name) throw new Error(`Cannot change a migration ending in ${ending}: there is none`);
    return join(migrations, name);
  };
  const change = (ending: string, how: (text: string) => string) => {
    const file = find(ending);
    writeFileSync(file, how(readFileSync(file, "utf8")));
  };
  const parameters = (url: string) => ["db", "push", "--workdir", folder, ...pushTarget(url)];
  return {
    folder,
    append: (ending, sql) =>
      change(
        ending,
        (text) => text.includes(check) ? text.replace(check, () => `${sql}\n\n${check}`) : `${text}\n${sql}\n`,
      ),
    edit: (ending, text, replacement) =>
      change(ending, (before) => {
        if (!before.includes(text)) {
          throw new Error(`Cannot replace ${JSON.stringify(text)} in ${ending}: it is not there`);
        }
        return before.replace(text, replacement);
      }),
    rewrite: change,
    remove: (ending) => rmSync(find(ending)),
    push: async (url) => await startSupabase(parameters(url)).result,
    startPush: (url, onOutput) => startSupabase(parameters(url), { detached: true, onOutput }),
  };
}

/** The rows of the shipped list of tables, each with its comma. */
export function readList(): string {
  const [name = ""] = readdirSync(join(root, "supabase/migrations")).filter((file) =>
    file.endsWith("_EDIT_list_of_tables.sql")
  );
  const rows = readFileSync(join(root, "supabase/migrations", name), "utf8").match(/^ {4}\('.*\),?$/gm) ?? [];
  return rows.map((row) => `${row.replace(/,?$/, ",")}\n`).join("");
}
