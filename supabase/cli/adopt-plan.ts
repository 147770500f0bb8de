import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Application, configFile, laterThanList, migrationsFolder, newestOwn } from "./adopt-application.ts";
import { addFunction } from "./adopt-config.ts";
import {
  askPreflight,
  checkRows,
  type NeedlessLines,
  readNeedlessLines,
  readPushed,
  type Source,
} from "./adopt-database.ts";
import { copyFunction, copyTests, readPreflight } from "./adopt-files.ts";
import { addIndexLines, type IndexLine, readIndexed, removeIndexLines, writeIndexLines } from "./adopt-indexes.ts";
import { addRows, hasRow, readRows, type Suggestion, writeRows } from "./adopt-list.ts";
import { indexesName, listName, type Migration, nextVersions, readMigrations, versionOf } from "./adopt-migrations.ts";
import { pasteList, type PreflightRow } from "./adopt-preflight.ts";
import type { Change } from "./adopt-write.ts";
import { UsageError } from "./command-line.ts";

/** What adopting an application comes to. */
export interface Adoption {
  changes: Change[];
  /** The file with the list of tables. */
  list: string;
  /** The tables that are new in it. */
  added: Suggestion[];
  /** The tables whose index lines are new. */
  indexed: string[];
  /** Those whose index lines are taken out, being excluded, or to be taken out, being gone. */
  needless: NeedlessLines;
  /** Tables that are not in the list, and too late for it: it is pushed. */
  late: Suggestion[];
  /** Migrations of the application that come after the list, as far as the live database has not said what is pushed. */
  later: string[];
  /** Migrations of the application that have the version of one of ours, as far as the live database has not said what is pushed. */
  namesakes: string[];
  /** What the preflight says, except about what is in the list now. */
  findings: PreflightRow[];
}

/** Asks about the suggestions that their owner has to decide, and returns all of them as decided. */
export type Decide = (suggestions: Suggestion[]) => Promise<Suggestion[]>;

/** Plans the adoption of an application, or what is new since. Writes nothing. Throws an error where it cannot be adopted. */
export async function planAdoption(
  application: Application,
  source: Source,
  { now = new Date(), decide = async (suggestions) => suggestions }: { now?: Date; decide?: Decide } = {},
): Promise<Adoption> {
  const isPushed = await readPushed(source);
  const migrations = dateMigrations(application, isPushed, source.isLive, now);
  const namesakes = findNamesakes(application);
  refusePassedOver(namesakes, isPushed);
  const list = findMigration(migrations, listName);
  const indexes = findMigration(migrations, indexesName);
  const rows = application.adopted ? readRows(list.path, list.text) : "";

  await checkRows(source, list.path, rows);
  const asked = await ask(source, rows, list.isPushed ? undefined : decide);
  const added = list.isPushed ? [] : asked.suggestions;
  const listText = application.adopted ? addRows(list.text, added) : writeRows(list.text, added);
  refuseEmptyList(listText, list.path, source, asked.suggestions);

  const ownLines = application.adopted && !indexes.isPushed ? readIndexed(indexes.text) : [];
  const needless = await readNeedlessLines(source, readRows(list.path, listText), ownLines);
  const lines = indexes.isPushed ? [] : asked.lines.filter(({ relation }) => !ownLines.includes(relation));
  const indexText = application.adopted
    ? addIndexLines(removeIndexLines(indexes.text, needless.excluded), lines)
    : writeIndexLines(indexes.text, lines);

  const edited: Record<string, string> = { [listName]: listText, [indexesName]: indexText };
  const preflight = readPreflight(application);
  const wanted: Change[] = [
    ...migrations.filter(({ moved }) => moved !== undefined).map(({ moved }) => ({
      path: moved ?? "",
      text: undefined,
    })),
    ...migrations.map(({ path, name, text }) => ({ path, text: edited[name] ?? text })),
    { path: preflight.path, text: pasteList(preflight.text, readRows(list.path, listText)) },
    ...copyFunction(application),
    ...copyTests(application),
    { path: configFile, text: addFunction(join(application.folder, configFile), application.config) },
  ];
  return {
    changes: wanted.filter((change) => isChange(application, change)),
    list: list.path,
    added,
    indexed: lines.map(({ relation }) => relation),
    needless,
    late: list.isPushed ? asked.suggestions : [],
    later: source.isLive ? [] : laterThanList(application),
    namesakes: source.isLive ? [] : namesakes.map(({ own }) => own),
    findings: asked.findings,
  };
}

/** The application's migrations that have the version of one of ours: the CLI keeps one file per version. */
const findNamesakes = ({ own, adopted }: Application): { own: string; ours: string }[] =>
  [...adopted?.values() ?? []].flatMap((ours) =>
    own.filter((file) => versionOf(file) === versionOf(ours)).map((file) => ({ own: file, ours }))
  );

/** Throws an error where the CLI takes a migration of the application for pushed, since one of ours that is has its version. */
function refusePassedOver(namesakes: { own: string; ours: string }[], isPushed: (file: string) => boolean): void {
  const [passedOver] = namesakes.filter(({ own, ours }) => isPushed(ours) && !isPushed(own));
  if (!passedOver) return;
  throw new UsageError(
    `Cannot go on: ${passedOver.own} has the version of ${passedOver.ours}, which is pushed, so the CLI takes both for pushed;` +
      " rename it to a version after ours, and adopt again",
  );
}

/** One of our migrations in the application's folder. */
interface Dated extends Migration {
  path: string;
  /** Where it was; undefined: it stays there, or is new. */
  moved?: string;
  /** True if the live database has it, so that it is too late to change it. */
  isPushed: boolean;
}

/**
 * Our migrations as the application has them, or as it gets them: after its own. Where the live database says that they were not
 * pushed, those that come before a migration of the application's, or have its version, are dated anew, since the CLI would not push them.
 */
function dateMigrations(
  application: Application,
  isPushed: (file: string) => boolean,
  isLive: boolean,
  now: Date,
): Dated[] {
  const { adopted, folder } = application;
  const migrations = readMigrations();
  const newest = newestOwn(application);
  const versions = nextVersions(newest, migrations.length, now);
  const waiting = [...adopted?.values() ?? []].filter((file) => !isPushed(file));
  const move = isLive && waiting.some((file) => versionOf(file) <= newest);
  return migrations.map(({ name, text }, number) => {
    const fresh = join(migrationsFolder, `${versions[number]}_${name}`);
    const file = adopted?.get(name);
    if (file === undefined) return { name, text, path: fresh, isPushed: false };
    const path = join(migrationsFolder, file);
    const own = { name, text: readFileSync(join(folder, path), "utf8"), isPushed: isPushed(file) };
    return move && !own.isPushed ? { ...own, path: fresh, moved: path } : { ...own, path };
  });
}

function findMigration(migrations: Dated[], name: string): Dated {
  const found = migrations.find((migration) => migration.name === name);
  if (!found) throw new Error(`Cannot find the migration ${name} in this repository`);
  return found;
}

interface Asked {
  suggestions: Suggestion[];
  lines: IndexLine[];
  findings: PreflightRow[];
}

/** Asks the preflight with these rows as the list, and its owner about what it leaves open. */
async function ask(source: Source, rows: string, decide?: Decide): Promise<Asked> {
  const asked = read(await askPreflight(source, rows));
  const decided = decide ? await decide(asked.suggestions) : asked.suggestions;
  const changed = decided.filter((suggestion) => !asked.suggestions.includes(suggestion));
  if (changed.length === 0) return asked;
  // What is decided may decide what the keys say of the others.
  const withDecided = [...(hasRow(rows) ? [rows, "    ,"] : []), ...changed.map(({ row }) => row)].join("\n");
  const again = read(await askPreflight(source, withDecided.replace(/,$/, "")));
  return { ...again, suggestions: [...changed, ...again.suggestions] };
}

function read(answer: PreflightRow[]): Asked {
  const [refused] = answer;
  if (refused && answer.every(({ topic }) => topic === "refused")) {
    throw new UsageError(`Cannot look at the tables: ${refused.object} ${refused.finding}; ${refused.to_do}`);
  }
  const about = (topic: string) => answer.filter((row) => row.topic === topic);
  return {
    suggestions: about("to classify").map(({ object, finding, to_do }) => ({
      table: object,
      row: to_do,
      about: finding,
      isDecision: finding.startsWith("decide: "),
    })),
    lines: about("index line").map(({ object, finding, to_do }) => ({ relation: object, line: to_do, about: finding })),
    findings: answer.filter(({ topic }) =>
      ["refused", "breaks", "leaks", "to decide", "in the way now"].includes(topic)
    ),
  };
}

/** The list is a statement, which needs a row. */
function refuseEmptyList(text: string, file: string, source: Source, suggestions: Suggestion[]): void {
  if (hasRow(readRows(file, text))) return;
  throw new UsageError(
    suggestions.length === 0
      ? `Cannot write the list of tables: there is no table of an application in ${source.what}`
      : `Cannot write the list of tables: it is open for all of them: ${
        suggestions.map(({ table, about }) => `${table} ${about}`).join("; ")
      }`,
  );
}

/** True if the application does not have the file so. */
function isChange({ folder }: Application, { path, text }: Change): boolean {
  const file = join(folder, path);
  return text === undefined ? existsSync(file) : !existsSync(file) || readFileSync(file, "utf8") !== text;
}
