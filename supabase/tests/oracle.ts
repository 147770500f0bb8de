import type { Sql } from "postgres";

type Row = Record<string, unknown>;

/** An org-scoped table, with what the registry says of it. */
export interface OrgTable {
  schema: string;
  name: string;
  /** The column with the owner's id; user_id, where the table has it, unless another is named. */
  ownerColumn?: string | undefined;
  /** The column whose foreign key alone leads to the parent. */
  parentColumn?: string | undefined;
}

/** A foreign key as the catalog has it, without org_id, which may stand beside the columns that say which row is meant. */
interface Reference {
  child: string;
  columns: string[];
  parent: string;
  parentColumns: string[];
}

interface Found {
  row: Row;
  /** What the row holds besides org_id. */
  text: string;
}

/** The organizations that rows had before the push, by table and by what else is in the row. */
export type OrgIdsBefore = Map<string, Map<string, string>>;

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const keyOf = ({ schema, name }: OrgTable): string => JSON.stringify([schema, name]);
const inPublic = (table: string | OrgTable): OrgTable =>
  typeof table === "string" ? { schema: "public", name: table } : table;

/** What the decision about a row takes, read once. */
interface Knowledge {
  defaultOrgId: string;
  tables: Map<string, OrgTable>;
  rows: Map<string, Found[]>;
  references: Reference[];
  /** For each reference the rows of its parent by their keys. */
  parents: Map<string, Found>[];
  /** The mapping. */
  organizations: Map<unknown, string>;
  before: OrgIdsBefore;
}

/** A row with the key of its table. */
interface Place {
  key: string;
  found: Found;
}

/**
 * Says for each row of each org-scoped table which organization it should have, from the rules of the documentation and
 * without any code of the migration: the one it had before; else the owner's; else that of the first parent that is there,
 * by the order of the columns; else the default. Returns one line for every row that has another.
 *
 * Rows that lead to one another in a circle have no first parent with an organization: any that another parent of theirs
 * has is right, and the default.
 */
export async function findWrongRows(
  sql: Sql,
  tables: (string | OrgTable)[],
  defaultOrgId: string,
  before: OrgIdsBefore = new Map(),
): Promise<string[]> {
  const knowledge = await readKnowledge(sql, tables.map(inPublic), defaultOrgId, before);
  const decisions = new Map<object, string | undefined>();
  const wrong: string[] = [];
  for (const [key, rows] of knowledge.rows) {
    for (const found of rows) {
      const decision = decide(knowledge, decisions, { key, found });
      const expected = decision ? [decision] : [...decideInCircle(knowledge, decisions, { key, found })];
      if (!expected.includes(found.row["org_id"] as string)) {
        wrong.push(`${key}: ${JSON.stringify(found.row)} should have ${expected.join(" or ")}`);
      }
    }
  }
  return wrong;
}

async function readKnowledge(
  sql: Sql,
  scoped: OrgTable[],
  defaultOrgId: string,
  before: OrgIdsBefore,
): Promise<Knowledge> {
  const mapping = await sql`select user_id, org_id from tenancy.user_orgs`;
  const rows = new Map<string, Found[]>();
  for (const table of scoped) rows.set(keyOf(table), await readRows(sql, table));
  const references = await readReferences(sql, scoped);
  const byKey = ({ parent, parentColumns }: Reference) =>
    (rows.get(parent) ?? []).map((found) =>
      [JSON.stringify(parentColumns.map((column) => found.row[column])), found] as const
    );
  return {
    defaultOrgId,
    tables: new Map(scoped.map((table) => [keyOf(table), table])),
    rows,
    references,
    parents: references.map((reference) => new Map(byKey(reference))),
    organizations: new Map(mapping.map((row) => [row["user_id"], row["org_id"] as string])),
    before,
  };
}

/** What the row itself says: the organization that it had, or its owner's. */
function ownOrganization({ tables, organizations, before }: Knowledge, { key, found }: Place): string | undefined {
  const owner = found.row[tables.get(key)?.ownerColumn ?? "user_id"];
  return before.get(key)?.get(found.text) ??
    (typeof owner === "string" && uuid.test(owner) ? organizations.get(owner.toLowerCase()) : undefined);
}

/** The parents that are there, in the order that decides. */
function parentsOf({ tables, references, parents }: Knowledge, { key, found: { row } }: Place): Place[] {
  const only = tables.get(key)?.parentColumn;
  return references.flatMap(({ child, columns, parent }, number) => {
    if (child !== key || (only !== undefined && (columns.length > 1 || columns[0] !== only))) return [];
    if (columns.some((column) => row[column] === null)) return [];
    const found = parents[number]?.get(JSON.stringify(columns.map((column) => row[column])));
    return found ? [{ key: parent, found }] : [];
  });
}

/** The organization that the rules give; none where they go in a circle. */
function decide(
  knowledge: Knowledge,
  decisions: Map<object, string | undefined>,
  place: Place,
): string | undefined {
  const path: object[] = [];
  let at: Place | undefined = place;
  let decision: string | undefined;
  while (at) {
    if (decisions.has(at.found)) {
      decision = decisions.get(at.found);
      break;
    }
    if (path.includes(at.found)) break;
    path.push(at.found);
    decision = ownOrganization(knowledge, at);
    if (decision) break;
    at = parentsOf(knowledge, at)[0];
    if (!at) decision = knowledge.defaultOrgId;
  }
  for (const row of path) decisions.set(row, decision);
  return decision;
}

/** All that may be right for a row whose parents go in a circle. */
function decideInCircle(
  knowledge: Knowledge,
  decisions: Map<object, string | undefined>,
  place: Place,
): Set<string> {
  const allowed = new Set([knowledge.defaultOrgId]);
  const seen = new Set<object>();
  const visit = (at: Place) => {
    if (seen.has(at.found)) return;
    seen.add(at.found);
    const decision = decide(knowledge, decisions, at);
    if (decision) allowed.add(decision);
    else for (const parent of parentsOf(knowledge, at)) visit(parent);
  };
  visit(place);
  return allowed;
}

/** Reads which organizations rows have, to be known after the push as those from before. */
export async function readOrgIds(sql: Sql, tables: OrgTable[]): Promise<OrgIdsBefore> {
  const before: OrgIdsBefore = new Map();
  for (const table of tables) {
    const found = await readRows(sql, table);
    before.set(
      keyOf(table),
      new Map(found.flatMap(({ row, text }) => typeof row["org_id"] === "string" ? [[text, row["org_id"]]] : [])),
    );
  }
  return before;
}

/** The rows that had an organization and have not that one any more. */
export function findLostOrgIds(before: OrgIdsBefore, after: OrgIdsBefore): string[] {
  return [...before].flatMap(([table, rows]) =>
    [...rows].filter(([row, orgId]) => after.get(table)?.get(row) !== orgId).map(([row]) => `${table}: ${row}`)
  );
}

async function readRows(sql: Sql, { schema, name }: OrgTable): Promise<Found[]> {
  // The driver's own quoting takes a dot for the end of a schema.
  const target = [schema, name].map((part) => `"${part.replaceAll('"', '""')}"`).join(".");
  return await sql<Found[]>`
    select to_jsonb("a row") as row, (to_jsonb("a row") - 'org_id')::text as text from ${sql.unsafe(target)} as "a row"
  `;
}

/** The foreign keys between these tables, in the order of their columns, then of their names. */
async function readReferences(sql: Sql, tables: OrgTable[]): Promise<Reference[]> {
  const scoped = tables.map(keyOf);
  const found = await sql<(Reference & { child: [string, string]; parent: [string, string] })[]>`
    with relations as (
      select pg_class.oid, json_build_array(nspname, relname) as key
      from pg_class
      join pg_namespace on pg_namespace.oid = relnamespace
    )
    select
      child.key as child,
      key.columns,
      parent.key as parent,
      key.parent_columns as "parentColumns"
    from pg_constraint as reference
    join relations as child on child.oid = reference.conrelid
    join relations as parent on parent.oid = reference.confrelid
    cross join lateral (
      select
        array_agg(referencing.attnum order by pair.position) as numbers,
        array_agg(referencing.attname::text order by pair.position) as columns,
        array_agg(referenced.attname::text order by pair.position) as parent_columns
      from unnest(reference.conkey, reference.confkey) with ordinality as pair (referencing, referenced, position)
      join pg_attribute as referencing on referencing.attrelid = child.oid and referencing.attnum = pair.referencing
      join pg_attribute as referenced on referenced.attrelid = parent.oid and referenced.attnum = pair.referenced
      where referencing.attname <> 'org_id'
    ) as key
    where reference.contype = 'f' and reference.conparentid = 0 and key.columns is not null
    order by key.numbers, reference.conname
  `;
  return found
    .map((reference) => ({
      ...reference,
      child: JSON.stringify(reference.child),
      parent: JSON.stringify(reference.parent),
    }))
    .filter(({ child, parent }) => scoped.includes(child) && scoped.includes(parent));
}
