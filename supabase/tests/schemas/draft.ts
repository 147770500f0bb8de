import type { Random } from "../random.ts";
import type { Feature } from "./features.ts";
import { literal, quote } from "./names.ts";

/** A table, or another object. */
export interface Name {
  schema: string;
  name: string;
}

/** A table of the list, with the columns that decide. */
export interface Registered extends Name {
  orgFrom?: (string | null)[];
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
  /** The key that follows once there are rows. */
  laterKey?: string;
  /** Whether values that differ in case alone are the same. */
  ignoresCase?: boolean;
  /** A value of its type that no row has, as SQL. */
  missing?: string;
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
  /** Whether the rows have their values already. */
  isGiven?: boolean;
  /** Whether each row has a parent. */
  isRequired?: boolean;
}

/** A column, or the columns of a key, from which the organization of a row can follow. */
export interface SourceOf {
  entry: string;
  kind: "organization" | "owner" | "parent";
  /** Whether it decides where the list says nothing. */
  isDetected: boolean;
  /** Whether the list is to name it. */
  mustBeNamed?: boolean;
}

export interface Table extends Name {
  /** Its features. */
  traits: Set<string>;
  columns: Column[];
  /** The columns by which it can be referenced; none without a key. */
  key: string[];
  /** The columns that the list says decide, in order. */
  orgFrom?: string[];
  sources: SourceOf[];
  references: Reference[];
  /** Which of the tables it is that lead to a user. */
  link?: string;
  /** How many rows it has, if that is not drawn. */
  rowCount?: number;
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
  /** The rows of the list. */
  list: string[];
  /** Tables that look much as what the push refuses, and are to be migrated. */
  neighbours: Registered[];
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

/** A list of names as PostgreSQL reads it. */
const asArray = (names: (string | null)[]): string =>
  `{${names.map((name) => name === null ? "null" : `"${name.replaceAll(/["\\]/g, "\\$&")}"`).join(",")}}`;

/** Has the list give org_id to a table. */
export function register(draft: Draft, { schema, name, orgFrom }: Registered): void {
  const priority = draft.random.pick(["critical", "secondary"]);
  const decides = orgFrom === undefined ? "null" : literal(asArray(orgFrom));
  draft.list.push(`(${literal(schema)}, ${literal(name)}, 'org', '${priority}', null, ${decides})`);
}

/** Has the list leave a table alone. */
export function exclude(draft: Draft, { schema, name }: Name): void {
  draft.list.push(`(${literal(schema)}, ${literal(name)}, 'excluded', null, 'it is no organization''s', null)`);
}
