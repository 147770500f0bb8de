import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Sql } from "postgres";
import { inject } from "vitest";
import { versionOf } from "../cli/adopt-migrations.ts";
import { connect } from "../local/databases.ts";
import { root } from "../local/project.ts";
import type { CliResult } from "../local/supabase-cli.ts";
import { applyMigrations } from "./apply-migrations.ts";
import { startCommand } from "./commands.ts";
import { halfMigrated } from "./half-migrated.ts";
import { marketplace } from "./marketplace.ts";
import { teamChat } from "./team-chat.ts";
import type { Metadata } from "./users.ts";

/** A row that the application's code inserts without a word of an organization. */
export interface Insert {
  what: string;
  /** The user whose token it comes with, which has no organization yet. Without one it is the service's. */
  user?: string;
  /** An INSERT without RETURNING. */
  statement: string;
}

export interface SignUp {
  who: string;
  email: string;
  appMetadata?: Metadata;
  /** The rows that the application writes for the user $1: table_name, org_id, expected. */
  rows: string;
  /** The tables that have a row then. */
  tables: string[];
  /** Deletes what stays of the user $1 when the account is deleted. */
  forget?: string;
}

/** An application of the fixtures, with what its developers know of it: nothing in it is taken from the migration. */
export interface Application {
  /** The folder among the fixtures. */
  name: string;
  /** How many lines of the list its owner should have to edit, at most. */
  mostDecisions: number;
  /** A temporary table for what the push will write to, if anything. */
  had?: string;
  /** The query of the temporary view members: the organization of every user who is in one. */
  members: string;
  /** For each org-scoped table, parents first, its rows with the organization that each should have. */
  expectations: Record<string, string>;
  /** Tables of which rows are expected in the default organization, too. All others have none there. */
  withDefault: string[];
  inserts: Insert[];
  /** An insert of a row that nothing places. */
  unplaced: string;
  /** Inserts that find their rows there already, and change them. */
  upserts: Insert[];
  signUps: SignUp[];
}

export const applications: Application[] = [marketplace, teamChat, halfMigrated];

const fixture = (name: string, ...path: string[]) => join(root, "supabase/local/fixtures", name, ...path);

/** Copies the application as its developers have it, among others of that kind. Returns the folder. */
export function copyApplication(name: string, kind = "applications"): string {
  const project = join(inject("folder"), kind, name);
  mkdirSync(project, { recursive: true });
  cpSync(fixture(name, "supabase"), join(project, "supabase"), { recursive: true });
  return project;
}

/** Adds the migrations with which its owner prepares it, if it needs any. */
export function prepareApplication(name: string, project: string): void {
  const preparations = fixture(name, "adopted/migrations");
  if (existsSync(preparations)) cpSync(preparations, join(project, "supabase/migrations"), { recursive: true });
}

/** The rows that the live application has. */
export const readData = (name: string): string => readFileSync(fixture(name, "data.sql"), "utf8");

/** Runs npm run adopt on a project, in a shell that is no terminal. Without a database the command starts one of its own. */
export async function runAdopt(project: string, ...parameters: string[]): Promise<CliResult> {
  const run = startCommand([process.execPath, "--import", "tsx", "supabase/cli/adopt.ts", project, ...parameters]);
  return { code: await run.ended, output: run.output() };
}

/** Adopts a project. Throws an error with the output if the command refuses. */
export async function adopt(project: string, url?: string): Promise<string> {
  const { code, output } = await runAdopt(project, ...url === undefined ? [] : ["--db-url", url]);
  if (code !== 0) throw new Error(`npm run adopt failed (exit code ${code}):\n${output}`);
  return output;
}

/** The file of the project whose name ends so, of those that npm run adopt writes among the migrations. */
export function findMigration(project: string, ending: string): string {
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

export const listEnding = "_EDIT_list_of_tables.sql";

/**
 * Edits the list as its owner decides, a line per table. Returns how many of them were not so already. Where there are rows, each of these lines
 * must be marked as one to decide; without rows the command cannot always tell.
 */
export function decide(name: string, project: string, hasRows = true): number {
  const decisions = readFileSync(fixture(name, "adopted/decisions.sql"), "utf8").trimEnd().split("\n");
  let edited = 0;
  for (const row of decisions) {
    const [key = ""] = /^\('\w+', '\w+', /.exec(row) ?? [];
    change(project, listEnding, (text) => {
      const line = text.split("\n").find((written) => written.startsWith(`    ${key}`));
      if (line === undefined) throw new Error(`Cannot decide ${key}: the list has no line for it`);
      if (hasRows && !line.includes(" -- decide: ")) {
        throw new Error(`Cannot decide ${key}: the list takes it for settled: ${line}`);
      }
      // What only the values of rows say has to be edited where there are none.
      if (line.startsWith(`    ${row}`) && !hasRows) {
        throw new Error(`Cannot decide ${key}: the list has it so already`);
      }
      if (line.startsWith(`    ${row}`)) return text;
      edited++;
      return text.replace(line, () => `    ${row}${/\)(,?)( -- .*)?$/.exec(line)?.[1]}`);
    });
  }
  return edited;
}

/** Adds who belongs where, above the check. */
export const map = (name: string, project: string): void =>
  change(project, listEnding, (text) =>
    text.replace(
      "select tenancy.assert_registry();",
      (check) => `${readFileSync(fixture(name, "adopted/mapping.sql"), "utf8")}\n${check}`,
    ));

/** Adopts the application as its owner does. Returns how many lines of the list were edited. */
export async function addMigrations(name: string, project: string, url?: string): Promise<number> {
  await adopt(project, url);
  const edited = decide(name, project, url !== undefined);
  map(name, project);
  return edited;
}

/** The versions of our migrations of the project, from the list on. */
export function versionsFromList(project: string): string[] {
  const list = basename(findMigration(project, listEnding));
  return readdirSync(join(project, "supabase/migrations")).filter((file) => file >= list).map(versionOf);
}

/** Rows that have another organization than they should, at most five of each table. */
export async function findMisplaced(
  sql: Sql,
  { expectations }: Pick<Application, "expectations">,
): Promise<string[]> {
  const misplaced: string[] = [];
  for (const [table, rows] of Object.entries(expectations)) {
    const found = await sql.unsafe(
      `select to_jsonb(rows)::text as row from (${rows}) as rows where org_id is distinct from expected limit 5`,
    );
    misplaced.push(...found.map(({ row }) => `${table}: ${row}`));
  }
  return misplaced;
}

/** Takes an application to its organizations as its owner does: live with its data, or from empty, with a migration more if need be. */
export async function adoptApplication(
  name: string,
  url: string,
  { kind, live, more = "" }: { kind: string; live: boolean; more?: string },
): Promise<void> {
  const project = copyApplication(name, kind);
  const push = () => applyMigrations(project, url);
  if (live) {
    await push();
    const sql = connect(url);
    await sql.unsafe(readData(name)).simple();
    await sql.end();
  }
  prepareApplication(name, project);
  if (more) writeFileSync(join(project, "supabase/migrations/20241231000000_more.sql"), more);
  if (live) await push();
  await addMigrations(name, project, live ? url : undefined);
  await push();
}
