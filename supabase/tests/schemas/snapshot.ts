import type { Sql } from "postgres";
import { describeSchema } from "../schema.ts";

/** The application as it is: its schema, a line an object, and what its tables hold, a line each. */
export interface Snapshot {
  schema: string[];
  /** By table: each row with all its columns, and with all but org_id. */
  data: Map<string, { rows: string; withoutOrgId: string }>;
}

/** Takes the snapshot without what the project makes for itself; organizations that were there before are kept. */
export async function takeSnapshot(sql: Sql, ours: (line: string) => boolean): Promise<Snapshot> {
  const schema = (await describeSchema(sql)).filter((line) => !ours(line));
  return { schema, data: await digest(sql) };
}

/**
 * Tells the lines of what the project makes for itself. Call it before the push: what is there of organizations by then is
 * the application's.
 */
export async function findOurs(sql: Sql): Promise<(line: string) => boolean> {
  const [found] = await sql`
    select to_regclass('public.organizations') is null as organizations, to_regprocedure('public.auth_org_id()') is null as function
  `;
  const patterns = [
    /^(schema|relation|column|view|type|sequence) (tenancy|org_migration)\b/,
    /^constraint ("[^"]+"|\S+) on (tenancy|org_migration)\./,
    /^index CREATE (UNIQUE )?INDEX ("[^"]+"|\S+) ON (tenancy|org_migration)\./,
    /^(function|procedure) (tenancy|org_migration)\./,
    /^comment on [a-z ]+ (tenancy|org_migration)\b/,
    /^trigger .* ON (tenancy|org_migration|public\.organizations)\b.* EXECUTE FUNCTION tenancy\./,
    ...(found?.["organizations"]
      ? [
        /^(relation|column) organizations\b/,
        /^(constraint|policy) ("[^"]+"|\S+) on organizations /,
        /^index CREATE UNIQUE INDEX organizations_pkey /,
        /^comment on [a-z ]+ public\.organizations\b/,
      ]
      : []),
    ...(found?.["function"] ? [/^function public\.auth_org_id\(/, /^comment on function public\.auth_org_id\(/] : []),
  ];
  return (line) => patterns.some((pattern) => pattern.test(line));
}

/** Every table, partition, materialized view and sequence of the application, except organizations. */
async function digest(sql: Sql): Promise<Snapshot["data"]> {
  const relations = await sql<{ relation: string; query: string }[]>`
    select
      pg_class.oid::regclass::text as relation,
      format(
        case relkind
          when 'S' then $sql$select %L as relation, (last_value, is_called)::text as rows, '' as "withoutOrgId" from %s$sql$
          else $sql$
            select
              %L as relation,
              concat(count(*), ' ', sum(hashtextextended(to_jsonb("a row")::text, 0))) as rows,
              concat(count(*), ' ', sum(hashtextextended((to_jsonb("a row") - 'org_id')::text, 0))) as "withoutOrgId"
            from only %s as "a row"
          $sql$
        end,
        pg_class.oid::regclass,
        pg_class.oid::regclass
      ) as query
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'm', 'S')
      and nspname !~ '^pg_' and nspname not in ('information_schema', 'auth', 'extensions', 'supabase_migrations', 'tenancy', 'org_migration')
      and pg_class.oid is distinct from to_regclass('public.organizations')
  `;
  const digests = await sql.unsafe(relations.map(({ query }) => query).join("\nunion all\n"));
  return new Map(
    digests.map((row) => [
      row["relation"] as string,
      { rows: row["rows"] as string, withoutOrgId: row["withoutOrgId"] as string },
    ]),
  );
}

/** What a migrated table has more than before, or has otherwise. */
const added = [
  /^column .*\.org_id uuid at \d+ not null default auth_org_id\(\)( inherited 1)?$/,
  /^constraint .* FOREIGN KEY \(org_id\) REFERENCES organizations\(id\) ON DELETE CASCADE( inherited .*)?$/,
  /^constraint .* CHECK \(\(org_id IS NOT NULL\)\)( inherited .*)?$/,
  /^constraint .* NOT NULL org_id( inherited .*)?$/,
  /^index CREATE INDEX .* USING btree \(org_id\)$/,
  /^child .* of .*_org_id(_idx\d*)?"? number 1$/,
  /^trigger CREATE TRIGGER "?zzz_fill_org_id_.* BEFORE INSERT ON .* FOR EACH ROW( WHEN \(\(new\.org_id IS NULL\)\))? EXECUTE FUNCTION tenancy\.fill_org_id\(.*\) enabled O( of .*)?$/s,
  /^trigger CREATE TRIGGER "?(zzz_)?org_id_immutable_.* EXECUTE FUNCTION tenancy\..* enabled A( of .*)?$/s,
];

/** The line of a constraint on org_id as it is once it has been validated; any other as it is. */
export const validate = (line: string): string =>
  line.replace(
    /^(constraint .* (?:FOREIGN KEY \(org_id\) .*|CHECK \(\(org_id IS NOT NULL\)\)|NOT NULL org_id)) NOT VALID$/,
    "$1",
  );

/** What may become of a line about an org_id that was there before. */
const settle = (line: string): string =>
  validate(line).replace(
    /^(column .*\.org_id uuid at \d+)( not null)?( default auth_org_id\(\))?$/,
    "$1 not null default auth_org_id()",
  );

/** The changes that no migration should have made, given the names of the tables that it is for. */
export function findStrangeChanges(before: string[], after: string[], tables: string[]): string[] {
  const came = new Set(after.filter((line) => !before.includes(line)));
  const gone = before.filter((line) => !after.includes(line) && !came.delete(settle(line)));
  const strange = [...came].filter((line) =>
    !added.some((pattern) => pattern.test(line)) ||
    !(line.startsWith("child ") || tables.some((table) => line.includes(table)))
  );
  return [...gone.map((line) => `gone: ${line}`), ...strange.map((line) => `came: ${line}`)];
}
