import type { Sql, TransactionSql } from "postgres";

/** The values of an option in a script of `supabase db dump`, which are patterns of names in quotes. */
const readOption = (script: string, option: string): string[] =>
  [...script.matchAll(new RegExp(`^[^#\\n]*--${option} .*`, "gm"))].flatMap(([line]) =>
    [...line.matchAll(new RegExp(`--${option} (\\S+)`, "g"))].map(([, value = ""]) => value.replaceAll(/["\\]/g, ""))
  );

/** Patterns of pg_dump as a regular expression; none for none. */
const toExpression = (patterns: string[]): string | undefined =>
  patterns.length > 0 ? `^(${patterns.join("|").replaceAll("*", ".*")})$` : undefined;

/**
 * What the script that `supabase db dump --data-only --dry-run` prints would write, as pg_dump does it with
 * --column-inserts: its first line, an INSERT per row, the values of sequences.
 */
export async function dumpData(sql: Sql, script: string): Promise<string> {
  return await sql.begin(async (transaction) => {
    // As pg_dump does, so that every name is written with its schema.
    await transaction`set local search_path = ''`;
    return await dump(transaction, script);
  }) as string;
}

async function dump(sql: TransactionSql, script: string): Promise<string> {
  const [included, without] = ["schema", "exclude-schema"].map((option) => toExpression(readOption(script, option)));
  const excluded = readOption(script, "exclude-table");
  if (!included || !without) throw new Error(`Cannot read the options of\n${script}`);
  const [replica = ""] = /SET session_replication_role = replica;/.exec(script) ?? [];
  const statements = [replica];

  const relations = await sql<{ name: string; kind: string; columns: string[] }[]>`
    select
      format('%I.%I', namespace.nspname, class.relname) as name, class.relkind as kind,
      array(
        select quote_ident(attname)
        from pg_attribute
        where attrelid = class.oid and attnum > 0 and not attisdropped and attgenerated = ''
        order by attnum
      ) as columns
    from pg_class as class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname ~ ${included}
      and namespace.nspname !~ ${without}
      and class.relkind in ('r', 'S')
      and namespace.nspname || '.' || class.relname <> all (${excluded})
    order by class.relkind desc, 1
  `;
  for (const { name, kind, columns } of relations) {
    if (kind === "S") {
      const [state] = await sql.unsafe(`select last_value, is_called from ${name}`);
      statements.push(`select pg_catalog.setval('${name}', ${state?.["last_value"]}, ${state?.["is_called"]});`);
      continue;
    }
    const values = columns.map((column) => `quote_nullable(${column}::text)`).join(", ");
    const rows = await sql.unsafe<{ row: string }[]>(`select concat_ws(', ', ${values}) as row from ${name}`);
    if (rows.length === 0) continue;
    // One statement per table, which fails or succeeds as a whole.
    const tuples = rows.map(({ row }) => `(${row})`).join(",\n");
    statements.push(`insert into ${name} (${columns.join(", ")}) overriding system value values\n${tuples};`);
  }
  return [...statements, "reset all;", ""].join("\n");
}
