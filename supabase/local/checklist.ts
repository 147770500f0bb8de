import type { Sql } from "postgres";
import { formatCount, formatTable } from "../cli/print.ts";
import { digestTables, sumRows, type TableDigest } from "./application.ts";
import { expectThat, say, timed, title } from "./show.ts";

const notNull = ["check", "check_valid", "not_null"];
const foreignKey = ["foreign_key", "foreign_key_valid", "foreign_key_root"];

/** The plan's manual checklist, and the checks of tenancy.verify() that decide each line. */
const checklist: [line: string, checks: string[]][] = [
  ["All tables have org_id column", ["column", "default"]],
  ["All records have org_id populated", ["no_nulls"]],
  ["NOT NULL constraints are applied", notNull],
  ["Foreign keys reference organizations table", foreignKey],
  ["Indexes exist on org_id columns", ["index", "index_root"]],
  ["Immutability triggers work", ["guard", "guard_statement"]],
  ["JWT contains org_id in app_metadata", ["users"]],
  ["public.auth_org_id() function works", ["auth_org_id"]],
  ["No data loss occurred during migration", ["row_count"]],
  ["No table is unclassified", ["registry"]],
];

/** The columns of the table of tables, and the checks of tenancy.verify() that decide each. */
const columns: [title: string, checks: string[]][] = [
  ["org_id", ["column", "default"]],
  ["no NULL", ["no_nulls"]],
  ["FK", foreignKey],
  ["index", ["index", "index_root"]],
  ["CHECK", ["check", "check_valid"]],
  ["NOT NULL", ["not_null"]],
  ["immutable", ["guard", "guard_statement"]],
];

interface Check {
  check_name: string;
  table_name: string | null;
  passed: boolean;
  detail: string;
}

/** Verifies the database, and compares it with what it held before. */
export async function showChecklist(sql: Sql, before: Map<string, TableDigest>): Promise<void> {
  title("6. The checklist");
  const [checks] = await timed("verifying", async () => await sql<Check[]>`select * from tenancy.verify()`);
  say(await formatTables(sql, checks, before));
  say();
  say(formatChecklist(checks));
  say();
  for (const check of checks.filter((check) => !check.passed)) {
    say(`  ✘ ${check.table_name ?? ""} ${check.check_name}: ${check.detail}`);
  }
  expectThat(checks.length > 0 && checks.every((check) => check.passed), `tenancy.verify(): ${checks.length} checks`);
  await expectSameRows(sql, before);
  await expectExcludedUntouched(sql);
}

/** A line per org-scoped table. */
async function formatTables(sql: Sql, checks: Check[], before: Map<string, TableDigest>): Promise<string> {
  const tables = await sql<{ name: string; priority: string }[]>`
    select relation::text as name, priority from tenancy.org_scoped_tables order by priority, relation::text
  `;
  return formatTable(
    ["table", "priority", "rows", ...columns.map(([title]) => title)],
    tables.map(({ name, priority }) => {
      const verified = name.includes(".") ? name : `public.${name}`;
      const ofTable = checks.filter((check) => check.table_name === verified);
      const marks = columns.map(([, names]) => {
        const concerned = ofTable.filter((check) => names.includes(check.check_name));
        return concerned.length > 0 && concerned.every((check) => check.passed) ? "✔" : "✘";
      });
      return [name, priority, before.get(name)?.rows ?? 0, ...marks];
    }),
  );
}

/** A line per item of the plan's checklist. */
function formatChecklist(checks: Check[]): string {
  return formatTable(
    ["", "checklist of the plan", "checks passed"],
    checklist.map(([line, names]) => {
      const concerned = checks.filter((check) => names.includes(check.check_name));
      const passed = concerned.filter((check) => check.passed).length;
      const holds = passed === concerned.length && passed > 0;
      return [holds ? "✔" : "✘", line, `${passed} of ${concerned.length}`];
    }),
  );
}

async function expectSameRows(sql: Sql, before: Map<string, TableDigest>): Promise<void> {
  const [after] = await timed("what the rows hold now", async () => await digestTables(sql));
  const changed = [...before].filter(([table, { rows, digest }]) => {
    const now = after.get(table);
    return now?.rows !== rows || now.digest !== digest;
  });
  expectThat(
    changed.length === 0 && after.size === before.size,
    `${formatCount(sumRows(before))} rows in ${before.size} tables are what they were, org_id apart` +
      (changed.length === 0 ? "" : `, except in ${changed.map(([table]) => table).join(", ")}`),
  );
}

async function expectExcludedUntouched(sql: Sql): Promise<void> {
  const excluded = await sql<{ name: string; touched: boolean }[]>`
    select
      registry.table_name as name,
      exists (
        select from pg_attribute
        where attrelid = to_regclass(format('%I.%I', schema_name, table_name)) and attname = 'org_id'
      ) as touched
    from tenancy.registry
    where scope = 'excluded'
  `;
  expectThat(
    excluded.length === 9 && excluded.every((table) => !table.touched),
    `${excluded.length} excluded tables are untouched`,
  );
}
