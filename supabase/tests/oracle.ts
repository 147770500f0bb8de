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
  const scoped = tables.map(inPublic);
  const organizations = new Map<unknown, string>(
    (await sql`select user_id, org_id from tenancy.user_orgs`).map((row) => [row["user_id"], row["org_id"] as string]),
  );
  const rows = new Map<string, Found[]>();
  for (const table of scoped) rows.set(keyOf(table), await readRows(sql, table));
  const references = await readReferences(sql, scoped);
  const keys = references.map(({ parent, parentColumns }) =>
    new Map(
      (rows.get(parent) ?? []).map((
        found,
      ) => [JSON.stringify(parentColumns.map((column) => found.row[column])), found]),
    )
  );
  const tableOf = new Map(scoped.map((table) => [keyOf(table), table]));

  /** What the row itself says: the organization that it had, or its owner's. */
  const ownOrganization = (key: string, { row, text }: Found): string | undefined => {
    const owner = row[tableOf.get(key)?.ownerColumn ?? "user_id"];
    return before.get(key)?.get(text) ??
      (typeof owner === "string" && uuid.test(owner) ? organizations.get(owner.toLowerCase()) : undefined);
  };
  /** The parents that are there, in the order that decides. */
  const parentsOf = (key: string, { row }: Found) => {
    const only = tableOf.get(key)?.parentColumn;
    return references.flatMap(({ child, columns, parent }, number) => {
      if (child !== key || (only !== undefined && (columns.length > 1 || columns[0] !== only))) return [];
      if (columns.some((column) => row[column] === null)) return [];
      const found = keys[number]?.get(JSON.stringify(columns.map((column) => row[column])));
      return found ? [{ key: parent, found }] : [];
    });
  };

  /** The one that the rules say; none where they go in a circle. */
  const decisions = new Map<object, string | undefined>();
  const decide = (key: string, found: Found): string | undefined => {
    const path: object[] = [];
    let at: { key: string; found: Found } | undefined = { key, found };
    let decision: string | undefined;
    while (at) {
      if (decisions.has(at.found)) {
        decision = decisions.get(at.found);
        break;
      }
      if (path.includes(at.found)) break;
      path.push(at.found);
      decision = ownOrganization(at.key, at.found);
      if (decision) break;
      at = parentsOf(at.key, at.found)[0];
      if (!at) decision = defaultOrgId;
    }
    for (const row of path) decisions.set(row, decision);
    return decision;
  };
  /** All that may be right for a row whose parents go in a circle. */
  const decideInCircle = (key: string, found: Found): Set<string> => {
    const allowed = new Set([defaultOrgId]);
    const seen = new Set<object>();
    const visit = (key: string, found: Found) => {
      if (seen.has(found)) return;
      seen.add(found);
      const decision = decide(key, found);
      if (decision) allowed.add(decision);
      else for (const parent of parentsOf(key, found)) visit(parent.key, parent.found);
    };
    visit(key, found);
    return allowed;
  };

  const wrong: string[] = [];
  for (const [key, found] of rows) {
    for (const one of found) {
      const decision = decide(key, one);
      const expected = decision ? [decision] : [...decideInCircle(key, one)];
      if (!expected.includes(one.row["org_id"] as string)) {
        wrong.push(`${key}: ${JSON.stringify(one.row)} should have ${expected.join(" or ")}`);
      }
    }
  }
  return wrong;
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
