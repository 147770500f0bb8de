import type { Random } from "../random.ts";
import type { Feature } from "./features.ts";
import { literal, quote } from "./names.ts";

/** A table, or another object. */
export interface Name {
  schema: string;
  name: string;
}

export type Role =
  | "key"
  | "owner"
  | "note"
  | "amount"
  | "code"
  | "span"
  | "region"
  | "day"
  | "reference"
  | "org_id"
  | "other";

export interface Column {
  name: string;
  role: Role;
  type: string;
  /** What follows the type. */
  clauses?: string;
  /** The value in the row of this number, as SQL. Without it the server makes the value, or a reference does. */
  value?: (row: number) => string;
}

export interface Reference {
  columns: string[];
  parent: Table;
  parentColumns: string[];
  clauses: string;
  /** Whether some rows may reference what is not there. */
  dangling: boolean;
  /** Whether org_id, which both have, stands before the columns. */
  withOrgId: boolean;
}

export interface Table extends Name {
  /** Its features. */
  traits: Set<string>;
  columns: Column[];
  /** The columns by which it can be referenced; none without a key. */
  key: string[];
  /** What the registry says beyond its scope. */
  ownerColumn?: string;
  parentColumn?: string;
  references: Reference[];
  /** Each row's values by column, as SQL. */
  rows: Map<string, string>[];
  /** The tables that hold its rows: itself, or its partitions of the lowest level. */
  leaves: Name[];
}

/** A schema in the making. */
export interface Draft {
  random: Random;
  /** What the schema as a whole is to have. */
  traits: Set<string>;
  /** What it turned out to have. */
  used: Set<string>;
  schemas: string[];
  tables: Table[];
  /** A name that no other object has. */
  name(word: string): string;
  /** The statements that make it, run by postgres. */
  script: string[];
  /** The rows of the list, and what is said below it of their columns. */
  list: string[];
  columns: { table: Name; ownerColumn: string | undefined; parentColumn: string | undefined }[];
  users: string[];
  organizations: string[];
  /** A table that triggers write to, excluded. */
  log: Name;
}

/** A feature that is made by statements on a table that has its rows. */
export interface Extra extends Feature {
  make(table: Table, draft: Draft): string[];
}

export type Extras = Record<string, Extra>;

/** A table, or another object, as it stands in SQL. */
export const qualify = ({ schema, name }: Name): string => `${quote(schema)}.${quote(name)}`;

/** A statement for the superuser, between those for postgres. */
export const asSuperuser = (statement: string): string =>
  `reset session authorization;\n${statement};\nset session authorization postgres`;

export const isOrgScoped = (table: Table): boolean => !table.traits.has("excluded table");

/** The name, as SQL, of the table's first column with this role. */
export function columnOf(table: Table, role: Role): string {
  const column = table.columns.find((candidate) => candidate.role === role);
  if (!column) throw new Error(`Cannot use the column ${role} of ${qualify(table)}: it has none`);
  return quote(column.name);
}

/** Has the list give org_id to a table. */
export function register(draft: Draft, table: Name & { ownerColumn?: string; parentColumn?: string }): void {
  const priority = draft.random.pick(["critical", "secondary"]);
  draft.list.push(`(${literal(table.schema)}, ${literal(table.name)}, 'org', '${priority}', null)`);
  const { ownerColumn, parentColumn } = table;
  if (ownerColumn !== undefined || parentColumn !== undefined) draft.columns.push({ table, ownerColumn, parentColumn });
}

/** Has the list leave a table alone. */
export function exclude(draft: Draft, { schema, name }: Name): void {
  draft.list.push(`(${literal(schema)}, ${literal(name)}, 'excluded', null, 'it is no organization''s')`);
}
