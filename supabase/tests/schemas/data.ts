import { type Column, type Draft, qualify, type Reference, type Table } from "./draft.ts";
import { literal, quote } from "./names.ts";
import { addReference } from "./references.ts";

/** Makes the rows of all tables, then those of their references, and the statements for both. */
export function fillTables(draft: Draft): void {
  for (const table of draft.tables) makeRows(draft, table);
  for (const table of draft.tables) {
    for (const reference of table.references.filter(({ isGiven }) => !isGiven)) {
      for (const [number, row] of table.rows.entries()) {
        const candidates = reference.withOrgId
          ? reference.parent.rows.filter((parent) => parent.get("org_id") === row.get("org_id"))
          : reference.parent.rows;
        const parent = candidates.length > 0 && (draft.random.below(4) > 0 || reference.isRequired)
          ? draft.random.pick(candidates)
          : undefined;
        const isPartial = !reference.isRequired && !reference.clauses.includes("full") && draft.random.below(8) === 0;
        reference.columns.forEach((column, place) => {
          const value = parent?.get(reference.parentColumns[place] as string) ?? "null";
          row.set(column, isPartial && place > 0 ? "null" : respell(draft, reference, place, value));
        });
        // What is not there must be of the key's type.
        if (reference.dangling && parent && number % 3 === 0) {
          reference.columns.forEach((column, place) =>
            row.set(column, parentColumn(reference, place)?.missing ?? strange(row.get(column) as string))
          );
        }
      }
    }
  }
  for (const table of draft.tables) insertRows(draft, table);
  for (const table of draft.tables) {
    for (const { name, laterKey } of table.columns) {
      if (laterKey) draft.script.push(`alter table ${qualify(table)} add foreign key (${quote(name)}) ${laterKey}`);
    }
    for (const reference of table.references) {
      draft.script.push(...addReference(draft, table, reference));
      if (reference.dangling) draft.used.add("dangling reference that is not valid");
    }
  }
}

const parentColumn = ({ parent, parentColumns }: Reference, place: number): Column | undefined =>
  parent.columns.find(({ name }) => name === parentColumns[place]);

/** The key as the row that references it writes it: in other letters, where case makes no difference. */
function respell({ random }: Draft, reference: Reference, place: number, value: string): string {
  if (!parentColumn(reference, place)?.ignoresCase || random.below(2) > 0) return value;
  return value === "null" ? value : value.toUpperCase();
}

/** Another value of the same type, that no key has. */
function strange(value: string): string {
  if (value === "null") return value;
  if (/^[\d.]+$/.test(value)) return `${Math.trunc(Number(value))}00000`;
  if (/^'[0-9a-f-]{36}'$/.test(value)) return `'deadbeef${value.slice(9)}`;
  return literal("what is not there");
}

function makeRows({ random }: Draft, table: Table): void {
  const { traits } = table;
  if (traits.has("no rows") || traits.has("no partitions") || traits.has("no columns")) return;
  const count = table.rowCount ?? (traits.has("more than 1000 blocks") ? 6500 : 8 + random.below(30));
  for (let number = 1; number <= count; number++) {
    table.rows.push(new Map(table.columns.flatMap(({ name, value }) => value ? [[name, value(number)]] : [])));
  }
}

function insertRows(draft: Draft, table: Table): void {
  const { traits, rows } = table;
  if (traits.has("no columns")) {
    draft.script.push(...Array.from({ length: 3 }, () => `insert into ${qualify(table)} default values`));
  }
  const [first] = rows;
  if (!first) return;
  const columns = [...first.keys()];
  const values = rows.map((row) => `(${columns.map((column) => row.get(column)).join(", ")})`);
  if (traits.has("rows that are there twice")) values.push(...values.slice(0, 5));
  draft.script.push(
    `insert into ${qualify(table)} (${columns.map(quote).join(", ")}) overriding system value values\n  ${
      values.join(",\n  ")
    }`,
  );
}
