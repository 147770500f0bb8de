import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { root } from "../local/project.ts";
import { parseConfig } from "./adopt-config.ts";
import {
  foundationName,
  indexesName,
  listName,
  type Migration,
  organizationsName,
  readMigrations,
  versionOf,
  withoutVersion,
} from "./adopt-migrations.ts";
import { UsageError } from "./command-line.ts";

/** An application, as its developers have it in a folder. */
export interface Application {
  folder: string;
  /** The text of supabase/config.toml. */
  config: string;
  /** Where supabase start would have its database, and of which version. */
  dbPort: number;
  major: number;
  /** The names of its own migrations, in their order. */
  own: string[];
  /** The files that our migrations have there, by their names without the version; undefined: it was not adopted yet. */
  adopted: Map<string, string> | undefined;
}

export const migrationsFolder = "supabase/migrations";
export const configFile = "supabase/config.toml";

/** As the CLI reads them. */
const isMigration = (file: string): boolean => /^\d+_.*\.sql$/.test(file);

/** Reads an application. Throws an error with the folder and the rule where it is none that can be adopted. */
export function readApplication(folder: string): Application {
  const refuse = (rule: string) => new UsageError(`Cannot adopt ${JSON.stringify(folder)}: ${rule}`);
  if (!existsSync(folder)) throw refuse("there is no such folder");
  if (!statSync(folder).isDirectory()) throw refuse("it is not a folder");
  if (realpathSync(folder) === realpathSync(root)) throw refuse("it is this repository, not an application");
  if (!existsSync(join(folder, "supabase"))) {
    throw refuse(
      existsSync(join(folder, "config.toml")) && existsSync(join(folder, "migrations"))
        ? "it has no folder supabase; it looks like one, so give the folder that it is in"
        : "it has no folder supabase",
    );
  }
  if (!existsSync(join(folder, configFile))) throw refuse(`it has no ${configFile}: npx supabase init writes one`);
  const config = readFileSync(join(folder, configFile), "utf8");
  const { db } = parseConfig(join(folder, configFile), config);
  const migrations = join(folder, migrationsFolder);
  const files = existsSync(migrations) ? readdirSync(migrations).filter(isMigration).sort() : [];
  const adopted = findAdopted(files);
  const ours = [...adopted?.values() ?? []];
  const own = files.filter((file) => !ours.includes(file));
  if (own.length === 0) {
    throw refuse(
      `it has no migrations of its own in ${migrationsFolder}: npx supabase link, then npx supabase db pull --remote write them`,
    );
  }
  const application = {
    folder,
    config,
    dbPort: typeof db?.port === "number" ? db.port : 54322,
    major: typeof db?.major_version === "number" ? db.major_version : 17,
    own,
    adopted,
  };
  refuseOtherVersion(application);
  return application;
}

/** Our migrations among these files, by their names without the version. An application may have files of such names, too: earlier ones. */
function findAdopted(files: string[]): Map<string, string> | undefined {
  if (!files.some((file) => withoutVersion(file) === foundationName)) return undefined;
  const names = readMigrations().map(({ name }) => name);
  return new Map(
    files.filter((file) => isOurs(withoutVersion(file), names)).map((file) => [withoutVersion(file), file]),
  );
}

/** By its name: one of ours, or of the library in another version. */
const isOurs = (name: string, names: string[]): boolean => names.includes(name) || /^tenancy_\d\d_\w+\.sql$/.test(name);

/** True if this can be the text of our migration in an application: as it is here, or with what its adopter may add to it. */
function isAsHere({ name, text }: Migration, own: string): boolean {
  if (name === listName || name === indexesName) return true;
  return name === organizationsName ? normalize(own).startsWith(normalize(text)) : normalize(own) === normalize(text);
}

/** Throws an error with the files that are not as they are here. */
function refuseOtherVersion({ folder, adopted }: Application): void {
  if (!adopted) return;
  const migrations = readMigrations();
  const names = migrations.map(({ name }) => name);
  const problems = [
    ...names.filter((name) => !adopted.has(name)).map((name) => `…_${name} is missing`),
    ...[...adopted].filter(([name]) => !names.includes(name)).map(([, file]) => `${file} is not one of this version`),
    ...migrations.flatMap((migration) => {
      const file = adopted.get(migration.name);
      if (file === undefined) return [];
      const text = readFileSync(join(folder, migrationsFolder, file), "utf8");
      return isAsHere(migration, text) ? [] : [`${file} is different`];
    }),
  ];
  if (problems.length === 0) return;
  const more = problems.length > 3 ? `, and ${problems.length - 3} more` : "";
  throw new UsageError(
    `Cannot adopt ${JSON.stringify(folder)}: it was adopted by another version: ${
      problems.slice(0, 3).join(", ")
    }${more}. ` +
      `Go on with that version; or, if none of it is pushed anywhere, delete those of our files (from …_create_organizations.sql ` +
      `on) in ${relative(process.cwd(), join(folder, migrationsFolder)) || "."} and adopt again`,
  );
}

/** As Git may have changed it. */
export const normalize = (text: string): string => text.replaceAll("\r\n", "\n");

/** The newest version of the application's own migrations. */
export const newestOwn = ({ own }: Application): string => versionOf(own.at(-1) ?? "");

/** The application's migrations that come after the list of tables: who makes a table there classifies it there. */
export function laterThanList({ own, adopted }: Application): string[] {
  const list = adopted?.get(listName);
  return list === undefined ? [] : own.filter((file) => file > list);
}
