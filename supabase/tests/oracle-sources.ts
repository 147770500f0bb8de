import type { Sql } from "postgres";

/** An org-scoped table, with what the registry says of it. */
export interface OrgTable {
  schema: string;
  name: string;
  /** The columns that decide, in order; undefined: as they are detected. */
  orgFrom?: string[] | undefined;
}

/** A foreign key as the catalog has it, without org_id, which may stand beside the columns that say which row is meant. */
export interface Reference {
  child: string;
  constraint: string;
  columns: string[];
  numbers: number[];
  parent: string;
  parentColumns: string[];
  /** How the parent's columns compare text. */
  comparisons: Comparison[];
}

type Comparison = "exact" | "case-insensitive" | "padded";

interface Column {
  name: string;
  number: number;
  type: string;
  isNotNull: boolean;
  isUnique: boolean;
}

/** A way from a row to its organization: through references to other rows, to a user's id, an organization or a parent. */
export interface Source {
  kind: "organization" | "owner" | "parent";
  entry: string;
  /** The tables on the way that are not org-scoped. */
  way: Reference[];
  /** What is at its end: the column with a user's id, or the reference to the organization or the parent. */
  end: string | Reference;
}

/** A source, with what says its place among others. */
interface Candidate extends Source {
  numbers: number[];
  constraint: string;
  isDetected: boolean;
  /** False for a user whom a row on the way only names, in a column that is not unique. */
  isSure: boolean;
  /** Less is chosen before more, among the ways of one entry. */
  preference: number[];
}

/** What the catalog has of all tables, by their keys. */
export interface Catalog {
  columns: Map<string, Column[]>;
  references: Reference[];
}

export const keyOf = ({ schema, name }: OrgTable): string => JSON.stringify([schema, name]);
export const usersKey = keyOf({ schema: "auth", name: "users" });
export const organizationsKey = keyOf({ schema: "public", name: "organizations" });

/** How a value compares with others in a column of the parent. */
export function normalize(value: unknown, comparison: Comparison | undefined): unknown {
  if (typeof value !== "string") return value;
  return comparison === "case-insensitive" ? value.toLowerCase() : comparison === "padded" ? value.trimEnd() : value;
}

const rankOf = (column: string): number => {
  const rank = ["user_id", "owner_id", "created_by"].indexOf(column);
  return rank < 0 ? 3 : rank;
};

const isSame = (one: string[], other: string[]): boolean => JSON.stringify(one) === JSON.stringify(other);

/** The order of two lists of numbers, as of words. */
function compare(one: number[], other: number[]): number {
  const place = one.findIndex((number, index) => number !== other[index]);
  return place < 0 ? one.length - other.length : (one[place] as number) - (other[place] ?? -Infinity);
}

/** What decides the rows of a table, in order, by the rules of the documentation. */
export function findSources(catalog: Catalog, scoped: Set<string>, table: OrgTable): Source[] {
  const { orgFrom } = table;
  const key = keyOf(table);
  const isNotNull = ({ numbers }: Candidate): boolean =>
    catalog.columns.get(key)?.find(({ number }) => number === numbers[0])?.isNotNull === true;
  const orderOf = (source: Candidate): number[] => [
    orgFrom?.indexOf(source.entry) ?? 0,
    source.kind === "organization" ? 0 : source.kind === "parent" ? 2 : source.isSure ? 1 : 3,
    ...(source.kind === "parent"
      ? []
      : [source.way.length > 0 ? 1 : 0, isNotNull(source) ? 0 : 1, rankOf(firstColumn(catalog, key, source))]),
    ...source.numbers,
  ];
  return [...findWays(catalog, scoped, table), ...findParents(catalog, scoped, key)]
    .filter(({ entry, isDetected }) => orgFrom ? orgFrom.includes(entry) : isDetected)
    .toSorted((one, other) =>
      compare(orderOf(one), orderOf(other)) ||
      Buffer.compare(Buffer.from(one.constraint), Buffer.from(other.constraint))
    );
}

const firstColumn = ({ columns }: Catalog, key: string, { numbers }: Candidate): string =>
  columns.get(key)?.find(({ number }) => number === numbers[0])?.name ?? "";

const findParents = ({ references }: Catalog, scoped: Set<string>, key: string): Candidate[] =>
  references.filter(({ child, parent }) => child === key && scoped.has(parent)).map((reference) => ({
    kind: "parent",
    entry: reference.columns.join(", "),
    way: [],
    end: reference,
    numbers: reference.numbers,
    constraint: reference.constraint,
    isDetected: true,
    isSure: true,
    preference: [],
  }));

/** The ways to users and organizations, of each column or key the one that goes first. */
function findWays(catalog: Catalog, scoped: Set<string>, table: OrgTable): Candidate[] {
  const found: Candidate[] = [];
  const look = (at: string, way: Reference[], isOneToOne: boolean) => {
    found.push(...endsAt(catalog, scoped, table, at, way, isOneToOne));
    if (way.length === 3) return;
    for (const reference of catalog.references) {
      const { child, columns, parent } = reference;
      if (child !== at || !catalog.columns.has(parent) || scoped.has(parent)) continue;
      if ([usersKey, organizationsKey, keyOf(table), at, ...way.map((step) => step.parent)].includes(parent)) continue;
      const cameBy = way.at(-1)?.parentColumns;
      const isOne = cameBy === undefined || isSame(cameBy, columns) || isUnique(catalog, at, columns);
      look(parent, [...way, reference], isOneToOne && isOne);
    }
  };
  look(keyOf(table), [], true);
  const first = new Map<string, Candidate>();
  for (const candidate of found.toSorted((one, other) => compare(one.preference, other.preference))) {
    const name = JSON.stringify([candidate.kind, candidate.entry]);
    if (!first.has(name)) first.set(name, candidate);
  }
  return [...first.values()];
}

const isUnique = (catalog: Catalog, table: string, [name, ...others]: string[]): boolean =>
  others.length === 0 && catalog.columns.get(table)?.find((column) => column.name === name)?.isUnique === true;

/** The users and organizations that a row names to which a way leads. */
function endsAt(
  catalog: Catalog,
  scoped: Set<string>,
  table: OrgTable,
  at: string,
  way: Reference[],
  isOneToOne: boolean,
): Candidate[] {
  const keysOf = (name: string) =>
    catalog.references.filter(({ child, columns }) => child === at && isSame(columns, [name]));
  const first = way[0];
  const owners = (catalog.columns.get(at) ?? []).flatMap((column): Candidate[] => {
    const { name, number, type, isNotNull, isUnique } = column;
    const keys = keysOf(name);
    const isKeyed = keys.some(({ parent, parentColumns }) => parent === usersKey && isSame(parentColumns, ["id"]));
    const isNamed = name === "user_id" || (way.length === 0 && table.orgFrom?.includes(name) === true);
    const isElsewhere = keys.some(({ parent }) =>
      name !== "user_id" || scoped.has(parent) || parent === organizationsKey
    );
    if (!["uuid", "text", "varchar"].includes(type) || !(isKeyed || (isNamed && !isElsewhere))) return [];
    const isUser = isUnique || rankOf(name) < 2 || isSame(way.at(-1)?.parentColumns ?? [], [name]);
    const isDetected = way.length === 0 || (isOneToOne && isUser);
    const isKey = isSame(way.at(-1)?.parentColumns ?? [], [name]);
    const isSure = way.length === 0 || (isOneToOne && (isUnique || isKey));
    return [{
      kind: "owner",
      entry: first?.columns.join(", ") ?? name,
      way,
      end: name,
      numbers: first?.numbers ?? [number],
      constraint: "",
      isDetected,
      isSure,
      preference: [isKeyed && isDetected ? 0 : 1, way.length, isKeyed ? 0 : 1, isNotNull ? 0 : 1, rankOf(name)],
    }];
  });
  const organizations = catalog.references.filter(({ child, parent }) => child === at && parent === organizationsKey);
  return [
    ...owners,
    ...organizations.map((reference): Candidate => ({
      kind: "organization",
      entry: (first ?? reference).columns.join(", "),
      way,
      end: reference,
      numbers: (first ?? reference).numbers,
      constraint: "",
      isDetected: way.length === 0 || (isOneToOne && isSame(way.at(-1)?.parentColumns ?? [], reference.columns)),
      isSure: true,
      preference: [way.length],
    })),
  ];
}

/** Reads the columns of all tables, and the foreign keys between them. */
export async function readCatalog(sql: Sql): Promise<Catalog> {
  const columns = await sql<(Column & { table: [string, string] })[]>`
    select
      json_build_array(nspname, relname) as table,
      attname as name,
      attnum as number,
      coalesce(base.typname, pg_type.typname) as type,
      attnotnull as "isNotNull",
      exists (
        select from pg_index
        where indrelid = attrelid and indisunique and indnkeyatts = 1 and indkey[0] = attnum and indpred is null
      ) as "isUnique"
    from pg_attribute
    join pg_class on pg_class.oid = attrelid
    join pg_namespace on pg_namespace.oid = relnamespace
    join pg_type on pg_type.oid = atttypid
    left join pg_type as base on base.oid = pg_type.typbasetype
    where relkind in ('r', 'p') and not relispartition and attnum > 0 and not attisdropped
      and nspname !~ '^pg_' and nspname not in ('information_schema', 'auth', 'tenancy', 'org_migration')
    order by attrelid, attnum
  `;
  const references = await sql<(Reference & { child: [string, string]; parent: [string, string] })[]>`
    with relations as (
      select pg_class.oid, json_build_array(nspname, relname) as key
      from pg_class
      join pg_namespace on pg_namespace.oid = relnamespace
    )
    select
      child.key as child,
      reference.conname as constraint,
      key.columns,
      key.numbers,
      parent.key as parent,
      key.parent_columns as "parentColumns",
      key.comparisons
    from pg_constraint as reference
    join relations as child on child.oid = reference.conrelid
    join relations as parent on parent.oid = reference.confrelid
    cross join lateral (
      select
        array_agg(referencing.attnum order by pair.position) as numbers,
        array_agg(referencing.attname::text order by pair.position) as columns,
        array_agg(referenced.attname::text order by pair.position) as parent_columns,
        array_agg(
          case
            when pg_type.typname = 'citext' or not coalesce(collisdeterministic, true) then 'case-insensitive'
            when pg_type.typname = 'bpchar' then 'padded'
            else 'exact'
          end
          order by pair.position
        ) as comparisons
      from unnest(reference.conkey, reference.confkey) with ordinality as pair (referencing, referenced, position)
      join pg_attribute as referencing on referencing.attrelid = child.oid and referencing.attnum = pair.referencing
      join pg_attribute as referenced on referenced.attrelid = parent.oid and referenced.attnum = pair.referenced
      join pg_type on pg_type.oid = referenced.atttypid
      left join pg_collation on pg_collation.oid = referenced.attcollation
      where referencing.attname <> 'org_id'
    ) as key
    where reference.contype = 'f' and reference.conparentid = 0 and key.columns is not null
    order by key.numbers, reference.conname
  `;
  const catalog: Catalog = {
    columns: new Map(),
    references: references.map((reference) => ({
      ...reference,
      child: JSON.stringify(reference.child),
      parent: JSON.stringify(reference.parent),
    })),
  };
  for (const { table, ...column } of columns) {
    const key = JSON.stringify(table);
    catalog.columns.set(key, [...(catalog.columns.get(key) ?? []), column]);
  }
  return catalog;
}
