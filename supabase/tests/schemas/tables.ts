import { type Column, type Draft, qualify, type Role, type Table } from "./draft.ts";
import type { Features } from "./features.ts";
import { keyColumns, keyFeatures } from "./keys.ts";
import { literal, quote } from "./names.ts";
import { organizationColumns, ownerColumns, ownerFeatures } from "./owners.ts";

/** What tables are made of: their keys, owners, other columns, partitions and how many rows they have. */
export const tableFeatures = {
  ...keyFeatures,
  ...ownerFeatures,
  "excluded table": { weight: 35 },
  "no columns": { weight: 2, sort: "bare" },

  "no rows": { weight: 6, group: "rows" },
  "more than 1000 blocks": { weight: 2, group: "rows", excludes: ["partitions by hash", "no partitions"] },

  "partitions by range": { weight: 7, group: "partitions", sort: "partitioned" },
  "partitions by list": { weight: 7, group: "partitions", sort: "partitioned" },
  "partitions by hash": { weight: 6, group: "partitions", sort: "partitioned" },
  "no partitions": { weight: 3, group: "partitions", sort: "partitioned" },
  "partitions of two levels by range": { weight: 3, needs: ["partitions by range"] },
  "partitions of two levels by list": { weight: 3, needs: ["partitions by list"] },
  "partitions of two levels by hash": { weight: 2, needs: ["partitions by hash"] },
  "default partition by range": { weight: 4, needs: ["partitions by range"] },
  "default partition by list": { weight: 4, needs: ["partitions by list"] },
  "attached partition with another order of columns": { weight: 5, needs: ["partitions by list"] },
  "partition in another schema": { weight: 3, needs: ["partitions by range"] },
  "partitioned partition without partitions": { weight: 3, needs: ["partitions by list"] },

  "unique column": { weight: 10, sort: "ordinary", excludes: ["rows that are there twice"] },
  "generated column": { weight: 8 },
  "virtual generated column": { weight: 8, since: 18 },
  "dropped column": { weight: 15 },
  "column of a domain": { weight: 6 },
  "column of an enum": { weight: 6 },
  "column of an array": { weight: 6 },
  "column of a composite type": { weight: 6 },

  "unlogged": {
    weight: 5,
    sort: "ordinary",
    excludes: [
      "published",
      "published with the whole row for identity",
      "published with an index for identity",
      "published in part",
      "published for inserts alone",
    ],
  },
  "storage parameters": { weight: 6, sort: "ordinary" },
} satisfies Features;

type Partitioning = "range" | "list" | "hash";

const partitioningOf = ({ traits }: Table): Partitioning | undefined =>
  traits.has("no partitions")
    ? "range"
    : (["range", "list", "hash"] as const).find((by) => traits.has(`partitions by ${by}`));

/** Designs a table with these features, without its references. */
export function designTable(draft: Draft, traits: Set<string>): void {
  const { random } = draft;
  const schema = random.pick(draft.schemas);
  const name = draft.name("table");
  const table: Table = {
    schema,
    name,
    traits,
    columns: [],
    key: [],
    sources: [],
    references: [],
    rows: [],
    leaves: [],
  };
  draft.tables.push(table);
  for (const trait of traits) if (trait in tableFeatures) draft.used.add(trait);
  const by = partitioningOf(table);
  if (!by) table.leaves.push(table);
  if (traits.has("no columns")) return;

  const key = keyColumns(draft, table);
  const owners = ownerColumns(draft, table, (base) => {
    const domain = qualify({ schema, name: draft.name("type") });
    draft.script.push(`create domain ${domain} as ${base}`);
    return domain;
  });
  const plain = plainColumns(draft, table);
  const amount = quote((plain.find(({ role }) => role === "amount") as Column).name);
  const others = otherColumns(draft, table, amount);
  table.columns = random.shuffle([...key, ...owners, ...organizationColumns(draft, table), ...plain, ...others]);
  if (!traits.has("no primary key")) {
    const partitionKey = plain.filter(({ role }) => role === "region" || role === "day");
    table.key = [...key, ...partitionKey].map((column) => column.name);
  }
}

/** Adds the statements that create the table with its partitions, without rows and references. */
export function createTable(draft: Draft, table: Table): void {
  const { traits } = table;
  const by = partitioningOf(table);
  const columns = table.columns.map(define);
  const key = table.key.length > 0 ? [`primary key (${table.key.map(quote).join(", ")})`] : [];
  draft.script.push(
    `create ${traits.has("unlogged") ? "unlogged " : ""}table ${qualify(table)} (${[...columns, ...key].join(", ")})${
      by ? ` partition by ${by} (${partitionKeyOf(table, by)})` : ""
    }${traits.has("storage parameters") ? " with (fillfactor = 70, autovacuum_enabled = false)" : ""}`,
  );
  if (by) createPartitions(draft, table, by);
}

const define = ({ name, type, clauses }: Column): string => `${quote(name)} ${type}${clauses ? ` ${clauses}` : ""}`;

function plainColumns(draft: Draft, { traits }: Table): Column[] {
  const isLarge = traits.has("more than 1000 blocks");
  // Most rows of a large table go into one partition, for it to be large itself.
  const oneOf = (first: string, ...others: string[]) => () =>
    literal(isLarge && draft.random.below(10) > 0 ? first : draft.random.pick([first, ...others]));
  const regions = traits.has("default partition by list") ? ["us", "asia"] : ["us"];
  const days = traits.has("default partition by range") ? ["2024-09-01", "2030-01-01"] : ["2024-09-01"];
  const by = partitioningOf({ traits } as Table);
  const isDeep = [...traits].some((trait) => trait.startsWith("partitions of two levels")) ||
    traits.has("partitioned partition without partitions");
  const region: Column = { name: draft.name("region"), role: "region", type: "text", value: oneOf("eu", ...regions) };
  const day: Column = { name: draft.name("day"), role: "day", type: "date", value: oneOf("2024-03-01", ...days) };
  return [
    {
      name: draft.name("note"),
      role: "note",
      type: "text",
      value: (row) => isLarge ? `${literal(`note ${row}`)} || repeat('x', 1400)` : literal(`note ${row}`),
    },
    { name: draft.name("amount"), role: "amount", type: "integer", value: (row) => String(row % 13) },
    ...(traits.has("unique column")
      ? [
        {
          name: draft.name("code"),
          role: "code",
          type: "text",
          clauses: "unique",
          value: (row) => literal(`code ${row}`),
        } as Column,
      ]
      : []),
    ...(traits.has("exclusion constraint")
      ? [
        {
          name: draft.name("span"),
          role: "span",
          type: "int4range",
          value: (row) => `'[${row * 10},${row * 10 + 5})'`,
        } as Column,
      ]
      : []),
    ...(by === "list" || (by && isDeep) ? [region] : []),
    ...(by === "range" || (by === "list" && isDeep) ? [day] : []),
  ];
}

function otherColumns(draft: Draft, { schema, traits }: Table, amount: string): Column[] {
  const type = (statement: (name: string) => string): string => {
    const name = qualify({ schema, name: draft.name("type") });
    draft.script.push(statement(name));
    return name;
  };
  const column = (type: string, rest: Partial<Column>): Column => ({
    name: draft.name("column"),
    role: "other",
    type,
    ...rest,
  });
  const made: Column[] = [];
  if (traits.has("generated column")) {
    made.push(column("integer", { clauses: `generated always as (${amount} * 2) stored` }));
  }
  if (traits.has("virtual generated column")) {
    made.push(column("integer", { clauses: `generated always as (${amount} + 1) virtual` }));
  }
  if (traits.has("dropped column")) made.push(column("text", { clauses: "default 'gone'" }));
  if (traits.has("column of a domain")) {
    made.push(
      column(type((name) => `create domain ${name} as text check (value <> 'never')`), { value: () => "'a domain'" }),
    );
  }
  if (traits.has("column of an enum")) {
    made.push(column(type((name) => `create type ${name} as enum ('one', 'two')`), { value: () => "'two'" }));
  }
  if (traits.has("column of an array")) made.push(column("integer[]", { value: (row) => `array[${row}, null, 7]` }));
  if (traits.has("column of a composite type")) {
    made.push(
      column(type((name) => `create type ${name} as (a integer, b text)`), { value: (row) => `row(${row}, 'b')` }),
    );
  }
  return made;
}

const partitionKeyOf = (table: Table, by: Partitioning): string => {
  const role: Role = by === "range" ? "day" : by === "list" ? "region" : "key";
  return quote((table.columns.find((column) => column.role === role) as Column).name);
};

/** The partitions of one level, and for which values. */
const bounds: Record<Partitioning, string[]> = {
  range: ["from ('2024-01-01') to ('2024-07-01')", "from ('2024-07-01') to ('2025-01-01')"],
  list: ["in ('eu')", "in ('us')"],
  hash: [0, 1, 2].map((remainder) => `with (modulus 3, remainder ${remainder})`),
};

function createPartitions(draft: Draft, table: Table, by: Partitioning): void {
  const { traits, schema } = table;
  if (traits.has("no partitions")) return;
  const below = by === "list" ? "range" : "list";
  const add = (parent: string, bound: string, how: { in?: string; by?: Partitioning; attach?: boolean } = {}) => {
    const partition = { schema: how.in ?? schema, name: draft.name("partition") };
    const values = bound === "default" ? "default" : `for values ${bound}`;
    if (how.attach) {
      const columns = [...table.columns].reverse().map((column) =>
        define({
          ...column,
          clauses: column.role === "key" || table.key.includes(column.name) || column.clauses?.startsWith("not null")
            ? "not null"
            : column.clauses?.startsWith("generated")
            ? column.clauses
            : "",
        })
      );
      const gone = quote(draft.name("column"));
      draft.script.push(
        `create table ${qualify(partition)} (${gone} text, ${columns.join(", ")})`,
        `alter table ${qualify(partition)} drop column ${gone}`,
        `alter table ${parent} attach partition ${qualify(partition)} ${values}`,
      );
    } else {
      draft.script.push(
        `create table ${qualify(partition)} partition of ${parent} ${values}${
          how.by ? ` partition by ${how.by} (${partitionKeyOf(table, how.by)})` : ""
        }`,
      );
    }
    if (!how.by) table.leaves.push(partition);
    return qualify(partition);
  };
  const root = qualify(table);
  const isDeep = traits.has(`partitions of two levels by ${by}`);
  const elsewhere = traits.has("partition in another schema") ? draft.random.pick(draft.schemas.slice(1)) : undefined;
  const attach = traits.has("attached partition with another order of columns");
  bounds[by].forEach((bound, number) => {
    if (number === 0 && isDeep) {
      const middle = add(root, bound, { by: below });
      for (const lower of [bounds[below][0] as string, "default"]) add(middle, lower);
    } else {
      add(root, bound, { ...(elsewhere && number === 1 ? { in: elsewhere } : {}), attach: attach && number === 1 });
    }
  });
  if (traits.has("partitioned partition without partitions")) add(root, "in ('nowhere')", { by: "range" });
  if (traits.has("default partition by range") || traits.has("default partition by list")) add(root, "default");
}

/** Drops the columns that are to have been there once. */
export function dropColumns(draft: Draft): void {
  for (const table of draft.tables) {
    const gone = table.columns.filter(({ clauses }) => clauses === "default 'gone'");
    for (const { name } of gone) draft.script.push(`alter table ${qualify(table)} drop column ${quote(name)}`);
    table.columns = table.columns.filter((column) => !gone.includes(column));
  }
}
