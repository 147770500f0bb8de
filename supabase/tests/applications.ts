import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { inject } from "vitest";
import { migrationFiles } from "../local/application.ts";
import { connect } from "../local/databases.ts";
import { root } from "../local/project.ts";
import { applyMigrations } from "./apply-migrations.ts";
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

/** Adds the migrations, the two files edited for this application. Returns the versions from the list on. */
export function addMigrations(name: string, project: string): string[] {
  const [, ...files] = migrationFiles();
  const adopted = (file: string) => readFileSync(fixture(name, "adopted", file), "utf8");
  for (const file of files) {
    const text = readFileSync(join(root, "supabase/migrations", file), "utf8");
    const edited = file.endsWith("_EDIT_list_of_tables.sql")
      ? replaceLines(text, /^ {4}\('.*\n/gm, adopted("list.sql"))
        .replace("select tenancy.assert_registry();", (check) => `${adopted("mapping.sql")}\n${check}`)
      : file.endsWith("_EDIT_index_org_id.sql")
      ? replaceLines(text, /^create index concurrently .*\n/gm, adopted("indexes.sql"))
      : text;
    writeFileSync(join(project, "supabase/migrations", file), edited);
  }
  const list = files.findIndex((file) => file.endsWith("_EDIT_list_of_tables.sql"));
  return files.slice(list).map((file) => file.split("_")[0] ?? "");
}

/** Puts other lines in the place of those that match. */
function replaceLines(text: string, lines: RegExp, replacement: string): string {
  const [first] = text.match(lines) ?? [];
  if (!first) throw new Error(`Cannot find the lines to edit: none matches ${lines}`);
  const at = text.indexOf(first);
  return text.slice(0, at) + replacement + text.slice(at).replaceAll(lines, "");
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
  addMigrations(name, project);
  await push();
}
