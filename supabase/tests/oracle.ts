import type { Sql } from "postgres";

type Row = Record<string, unknown>;

/** A foreign key of one column, as the catalog has it. */
interface Reference {
  child: string;
  column: string;
  parent: string;
  parentColumn: string;
}

/**
 * Says for each row of each org-scoped table which organization it should have, from the rules of the documentation and
 * without any code of the migration: the owner's organization; else that of the first parent that is there, by the order of
 * the columns; else the default. Returns one line for every row that has another.
 */
export async function findWrongRows(sql: Sql, tables: string[], defaultOrgId: string): Promise<string[]> {
  const organizations = new Map<unknown, string>(
    (await sql`select user_id, org_id from tenancy.user_orgs`).map((row) => [row["user_id"], row["org_id"] as string]),
  );
  const references = await readReferences(sql, tables);
  const rows = new Map<string, Row[]>();
  for (const table of tables) {
    const found = await sql<{ row: Row }[]>`select to_jsonb(row) as row from ${sql(table)} as row`;
    rows.set(table, found.map(({ row }) => row));
  }
  const keys = new Map<string, Map<unknown, Row>>();
  for (const { parent, parentColumn } of references) {
    keys.set(`${parent}.${parentColumn}`, new Map((rows.get(parent) ?? []).map((row) => [row[parentColumn], row])));
  }
  const parentOf = ({ column, parent, parentColumn }: Reference, row: Row) =>
    row[column] === null ? undefined : keys.get(`${parent}.${parentColumn}`)?.get(row[column]);

  const decide = (table: string, row: Row): string => {
    const owner = organizations.get(row["user_id"]);
    if (owner) return owner;
    for (const reference of references.filter(({ child }) => child === table)) {
      const parent = parentOf(reference, row);
      if (parent) return decide(reference.parent, parent);
    }
    return defaultOrgId;
  };

  const wrong: string[] = [];
  for (const [table, found] of rows) {
    for (const row of found) {
      const expected = decide(table, row);
      if (row["org_id"] !== expected) wrong.push(`${table}: ${JSON.stringify(row)} should have ${expected}`);
    }
  }
  return wrong;
}

/** The foreign keys between these tables, ordered by child and by the position of their column. */
async function readReferences(sql: Sql, tables: string[]): Promise<Reference[]> {
  return await sql<Reference[]>`
    select
      child.relname as child,
      referencing.attname as column,
      parent.relname as parent,
      referenced.attname as "parentColumn"
    from pg_constraint as reference
    join pg_class as child on child.oid = reference.conrelid
    join pg_class as parent on parent.oid = reference.confrelid
    join pg_attribute as referencing on referencing.attrelid = child.oid and referencing.attnum = reference.conkey[1]
    join pg_attribute as referenced on referenced.attrelid = parent.oid and referenced.attnum = reference.confkey[1]
    where reference.contype = 'f' and child.relname = any(${tables}) and parent.relname = any(${tables})
    order by child.relname, reference.conkey[1]
  `;
}
