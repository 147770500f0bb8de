import type { ISql, Sql } from "postgres";
import { decideInsert, type OrgTable, readKnowledge } from "../oracle.ts";
import { defaultOrgId } from "../organizations.ts";
import { quote } from "./names.ts";
import { qualify } from "./draft.ts";

/** How many rows of a table are inserted again. */
const mostRows = 20;

/** A row as it stands in its table. */
interface Standing {
  tableoid: number;
  ctid: string;
  text: string;
}

/** What came of an insert: the organization of the row, or who refused it. */
type Answer = string | "refused" | "refused by a key";

/**
 * Inserts rows of every table once more, without org_id and without a claim, and says of which the filler makes another
 * organization than the rules do. A row makes room for its copy, unseen by triggers; all of it is undone.
 */
export async function findWrongFills(sql: Sql, tables: OrgTable[]): Promise<string[]> {
  const knowledge = await readKnowledge(sql, tables, defaultOrgId);
  const keys = await sql<{ name: string }[]>`
    select conname as name
    from pg_constraint
    join pg_attribute on attrelid = conrelid and attname = 'org_id'
    where contype = 'f' and (not convalidated or (attnum = any (conkey) and cardinality(conkey) > 1))
  `;
  // A row that stands may break these, and its copy may not.
  const strict = new Set(keys.map(({ name }) => name));
  const wrong: string[] = [];
  for (const table of tables) {
    const target = qualify(table);
    const columns = await readColumns(sql, target);
    await sql.begin(async (transaction) => {
      for (const row of await readStanding(transaction, target)) {
        const expected = decideInsert(knowledge, table, row.text) ?? "refused";
        const answer = await insertAgain(transaction, target, columns, row, strict);
        if (answer !== expected && answer !== "refused by a key") {
          wrong.push(`${target}: the copy of ${row.text} should be ${expected} and is ${answer}`);
        }
      }
    });
  }
  return wrong;
}

const readColumns = async (sql: Sql, target: string): Promise<string[]> =>
  (await sql<{ name: string }[]>`
    select attname as name
    from pg_attribute
    where attrelid = ${target}::regclass and attnum > 0 and not attisdropped and attgenerated = '' and attname <> 'org_id'
    order by attnum
  `).map(({ name }) => quote(name));

const readStanding = async (sql: ISql, target: string): Promise<Standing[]> =>
  await sql.unsafe<Standing[]>(`
    select tableoid, ctid::text as ctid, (to_jsonb("a row") - 'org_id')::text as text
    from ${target} as "a row"
    order by hashtext((to_jsonb("a row") - 'org_id')::text), ctid
    limit ${mostRows}
  `);

async function insertAgain(
  transaction: Parameters<Parameters<Sql["begin"]>[1]>[0],
  target: string,
  columns: string[],
  { tableoid, ctid }: Standing,
  strict: Set<string>,
): Promise<Answer> {
  let answer: Answer | undefined;
  const undone = new Error("undone");
  const list = columns.join(", ");
  try {
    await transaction.savepoint(async (attempt) => {
      const place = `tableoid = ${tableoid} and ctid = '${ctid}'`;
      await attempt.unsafe(
        `create temporary table "the copy" on commit drop as select * from ${target} where ${place}`,
      );
      await attempt`set local session_replication_role = replica`;
      await attempt.unsafe(`delete from ${target} where ${place}`);
      await attempt`set local session_replication_role = origin`;
      const inserted = await attempt.unsafe<{ org_id: string }[]>(
        columns.length === 0
          ? `insert into ${target} default values returning org_id`
          : `insert into ${target} (${list}) overriding system value select ${list} from "the copy" returning org_id`,
      );
      answer = inserted[0]?.org_id;
      throw undone;
    });
  } catch (error) {
    if (error !== undone) answer = whoRefused(error as Error & Record<string, unknown>, strict);
  }
  if (answer === undefined) throw new Error(`Cannot insert a row of ${target} again: nothing came of it`);
  return answer;
}

/** Says who refused a row; anything but the filler and a key that is known to be strict is thrown on. */
function whoRefused(error: Error & Record<string, unknown>, strict: Set<string>): Answer {
  if (error["code"] === "23502" && error["column_name"] === "org_id") return "refused";
  if (error["code"] === "23503" && strict.has(error["constraint_name"] as string)) return "refused by a key";
  throw error;
}
