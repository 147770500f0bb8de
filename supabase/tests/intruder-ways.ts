import type { ArgumentType, Callable, Relation } from "./intruder-targets.ts";

/** The statements that an intruder tries, made for whatever is there. */

export interface Way {
  /** The kind of statement. */
  name: string;
  statement: string;
}
/** A row of another organization, with its place in the table. */
export interface ForeignRow {
  row: Record<string, unknown>;
  table: string;
  place: string;
}
/** Who the intruder is, for the statements. */
export interface Self {
  /** NULL where there is none. */
  orgId: string | null;
  user: string | null;
  /** The ids of everyone else. */
  users: Set<string>;
}

export const quote = (value: string | null) => value === null ? "null" : `'${value.replaceAll("'", "''")}'`;
const quoteName = (name: string) => `"${name.replaceAll('"', '""')}"`;
const list = (names: string[]) => names.map(quoteName).join(", ");

/** Whatever of a relation the role may read; of an org-scoped one, what is of other organizations, if it says whose it is. */
export function read({ name, root, readable }: Relation, { orgId }: Self): string {
  const foreign = root && readable.includes("org_id") ? `where org_id is distinct from ${quote(orgId)}::uuid` : "";
  return `select row(${list(readable)})::text as line from ${name} ${foreign}`;
}

/** What statistics have samples of. Row-level security hides those of tables, and nothing those of materialized views. */
export const readStatistics = (names: string[]) => `
  select distinct format('%I.%I', schemaname, tablename) as line
  from pg_stats
  where format('%I.%I', schemaname, tablename) = any (array[${names.map(quote).join(", ")}]::text[])
`;

/** Inserts a row by its columns, but for those that are left out or that the role may not write. */
function insert(relation: Relation, row: Record<string, unknown>, without: string[] = [], ending = ""): string {
  const columns = relation.columns
    .filter(({ name, insertable }) => insertable && name in row && !without.includes(name))
    .map(({ name }) => name);
  return `
    insert into ${relation.name} (${list(columns)}) overriding system value
    select ${list(columns)} from jsonb_populate_record(null::${relation.name}, ${quote(JSON.stringify(row))}) ${ending}
  `;
}

/** Does it to one row after the other, those of other organizations first, and goes on after an error. */
const rowByRow = ({ name, root }: Relation, { orgId }: Self, act: (place: string) => string) => `
  do $do$
  declare
    found record;
  begin
    for found in
      select tableoid as part, ctid as place from ${name}
      ${root ? `order by org_id is distinct from ${quote(orgId)}::uuid desc` : ""}
      limit 300
    loop
      begin
        ${act("where tableoid = found.part and ctid = found.place")};
      exception when others then
        null;
      end;
    end loop;
  end
  $do$
`;

/** Another value of the type, which no row has. */
function another(type: string, column: string): string | undefined {
  if (type === "uuid") return "gen_random_uuid()";
  if (/^(text|character varying|extensions\.citext|citext)/.test(type)) return `${column} || ' of an intruder'`;
  if (/^(bigint|integer|smallint|numeric)/.test(type)) return `${column} + 10000`;
  return undefined;
}

/** A row that mentions other people, as it is and in the intruder's name. */
function inOwnName(row: Record<string, unknown>, { user, users }: Self): Record<string, unknown>[] {
  const text = JSON.stringify(row);
  const own = text.replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) => user && users.has(id) ? user : id);
  return own === text ? [row] : [row, JSON.parse(own)];
}

export const deleteForeign = (table: string, { orgId }: Self) =>
  `delete from ${table} where org_id is distinct from ${quote(orgId)}::uuid`;

/** Deletes what has the keys of the row, so that nothing but the isolation refuses it. */
export const makeRoom = ({ kind, bases }: Relation, { table, place }: ForeignRow, self: Self) =>
  kind === "table"
    ? `delete from ${table} where ctid = '${place}'`
    : bases.map((base) => deleteForeign(base, self)).join("; ");

/** Every way to insert the row, where there is room for it. */
export function inserts(relation: Relation, { row: foreign }: ForeignRow, self: Self): Way[] {
  if (!relation.insertable) return [];
  return inOwnName(foreign, self).flatMap((row) => [
    { name: "insert", statement: insert(relation, row) },
    { name: "insert without organization", statement: insert(relation, row, ["org_id"]) },
    { name: "insert with null", statement: insert(relation, { ...row, org_id: null }) },
    ...(relation.kind === "view" ? [] : [{
      name: "insert by MERGE",
      statement: `
        merge into ${relation.name} as target
        using jsonb_populate_record(null::${relation.name}, ${quote(JSON.stringify(row))}) as source on false
        when not matched then insert (${list(insertableOf(relation))}) overriding system value
        values (${insertableOf(relation).map((name) => `source.${quoteName(name)}`).join(", ")})
      `,
    }]),
  ]);
}

/** Every way to insert the row where it is already. */
function upserts(relation: Relation, { row }: ForeignRow, self: Self): Way[] {
  const [column] = relation.columns.filter(({ name, updatable }) => updatable && name !== "org_id");
  if (!relation.insertable || relation.key.length === 0 || !column) return [];
  const name = quoteName(column.name);
  const ending = `on conflict (${list(relation.key)}) do update set ${name} = excluded.${name}`;
  return [row["org_id"], self.orgId].map((orgId) => ({
    name: "upsert",
    statement: insert(relation, { ...row, org_id: orgId }, [], ending),
  }));
}
const insertableOf = ({ columns }: Relation) => columns.filter(({ insertable }) => insertable).map(({ name }) => name);

function updates(relation: Relation, foreign: ForeignRow[], self: Self): Way[] {
  const columns = relation.columns.filter(({ updatable }) => updatable);
  if (!relation.updatable || columns.length === 0) return [];
  // Of a view one column may be updatable, and another not.
  const tried = columns.filter(({ name }) => name !== "org_id").slice(0, relation.kind === "view" ? 8 : 1);
  const ways: Way[] = tried.map(({ name }) => ({
    name: "update",
    statement: `update ${relation.name} set ${quoteName(name)} = ${quoteName(name)}`,
  }));
  if (columns.some(({ name }) => name === "org_id")) {
    for (const orgId of new Set([self.orgId, ...foreign.map(({ row }) => row["org_id"])])) {
      ways.push({
        name: "update of the organization",
        statement: `update ${relation.name} set org_id = ${quote(String(orgId))}`,
      });
    }
  }
  if (relation.kind === "view" || relation.readable.length === 0) return ways;
  for (const { name } of tried) {
    ways.push({
      name: "update row by row",
      statement: rowByRow(
        relation,
        self,
        (place) => `update ${relation.name} set ${quoteName(name)} = ${quoteName(name)} ${place}`,
      ),
    }, {
      name: "update by MERGE",
      statement: `
        merge into ${relation.name} as target using (values (1)) as source (n) on true
        when matched then update set ${quoteName(name)} = target.${quoteName(name)}
      `,
    });
  }
  for (const { name, type } of columns.filter(({ name }) => relation.key.includes(name))) {
    const value = another(type, quoteName(name));
    if (!value) continue;
    ways.push({
      name: "update of the key",
      statement: rowByRow(
        relation,
        self,
        (place) => `update ${relation.name} set ${quoteName(name)} = ${value} ${place}`,
      ),
    });
  }
  return ways;
}

function deletes(relation: Relation, self: Self): Way[] {
  if (!relation.deletable) return [];
  const ways: Way[] = [{ name: "delete", statement: `delete from ${relation.name}` }];
  if (relation.kind === "view" || relation.readable.length === 0) return ways;
  return [...ways, {
    name: "delete row by row",
    statement: rowByRow(relation, self, (place) => `delete from ${relation.name} ${place}`),
  }, {
    name: "delete by MERGE",
    statement:
      `merge into ${relation.name} as target using (values (1)) as source (n) on true when matched then delete`,
  }];
}

/** Every way to write to the rows that there are. */
export const writes = (relation: Relation, foreign: ForeignRow[], self: Self): Way[] => [
  ...foreign.flatMap((found) => upserts(relation, found, self)),
  ...updates(relation, foreign, self),
  ...deletes(relation, self),
];

/** What an intruder may know or guess, by type. */
export type Guesses = Map<string, string[]>;

const otherGuesses: Record<string, string[]> = {
  boolean: ["true", "false"],
  json: ["{}"],
  jsonb: ["{}"],
  date: ["2024-10-01"],
  integer: ["1", "100"],
  bigint: ["1", "100"],
  "timestamp with time zone": ["2024-10-01"],
  "timestamp without time zone": ["2024-10-01"],
};
const mostCalls = 150;

function guessesOf(type: ArgumentType, guesses: Guesses): string[] {
  if (type.label !== null) return [`${quote(type.label)}::${type.name}`];
  const element = /^(.*)\[\]$/.exec(type.name)?.[1];
  if (element) return [`array[${(guesses.get(element) ?? []).map(quote).join(", ")}]::${type.name}`];
  const known = [...(guesses.get(type.table ?? type.name) ?? []), ...(otherGuesses[type.name] ?? [])];
  if (known.length === 0) return [`null::${type.name}`];
  if (type.table) return known.map((row) => `jsonb_populate_record(null::${type.table}, ${quote(row)})`);
  return known.map((value) => `${quote(value)}::${type.name}`);
}

/** Calls with guessed arguments: all combinations, or of many so many, evenly. */
export function calls({ name, types, isProcedure, isVariadic }: Callable, guesses: Guesses): string[] {
  const lists = types.map((type) => guessesOf(type, guesses));
  const combinations = lists.reduce((product, { length }) => product * length, 1);
  const count = Math.min(combinations, mostCalls);
  return Array.from({ length: count }, (_, number) => {
    let rest = Math.floor((number * combinations) / count);
    const chosen = lists.map((values) => {
      const value = values[rest % values.length] ?? "null";
      rest = Math.floor(rest / values.length);
      return value;
    });
    if (isVariadic) chosen.push(`variadic ${chosen.pop()}`);
    return isProcedure ? `call ${name}(${chosen.join(", ")})` : `select ${name}(${chosen.join(", ")})::text as line`;
  });
}
