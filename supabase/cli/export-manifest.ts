import { readFileSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "./command-line.ts";

/** What the rows of a table have to do with the organization. */
export type Kind = "organization" | "org-scoped" | "personal" | "membership" | "account";

export interface Column {
  name: string;
  type: string;
  generated: boolean;
}

export interface ExportedTable {
  /** Quoted, with its schema. */
  name: string;
  /** The rows of tables that inherit from it are not its own. */
  only: boolean;
  kind: Kind;
  columns: Column[];
  /** The column that says whose a row is: the organization's, or a user's. */
  owner: string;
  /** The columns that rows are written in the order of; none: all. */
  key: string[];
}

/** A table as it was written. */
export interface WrittenTable extends ExportedTable {
  file: string;
  rows: number;
  sha256: string;
}

export interface Manifest {
  format: 1;
  org: string;
  exportedAt: string;
  /** Who is in the organization, or a member of it. */
  users: string[];
  /** Those of them whose organization it is. */
  active: string[];
  /** In the order in which they are loaded: what is referenced comes first where that is possible. */
  tables: WrittenTable[];
}

export const manifestFile = "manifest.json";

/** Reads the manifest of a folder. Throws an error where it is none of this format. */
export function readManifest(folder: string): Manifest {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(readFileSync(join(folder, manifestFile), "utf8")) as Manifest;
  } catch (error) {
    throw new UsageError(
      `Cannot read ${join(folder, manifestFile)}, which an export writes last: ${(error as Error).message}`,
    );
  }
  if (manifest.format !== 1) throw new UsageError(`Cannot load ${folder}: its manifest is of another format`);
  return manifest;
}
