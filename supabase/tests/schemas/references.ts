import { type Column, type Draft, isOrgScoped, qualify, type Reference, type Table } from "./draft.ts";
import type { Features } from "./features.ts";
import { quote } from "./names.ts";

/** How tables reference one another. A table without any of these may have a parent too. */
export const referenceFeatures = {
  "only a parent": { weight: 20, needs: ["no owner"] },
  "several parents": { weight: 12 },
  "parent through several columns": { weight: 8, elsewhere: ["key of several columns"] },
  "parent through a unique column": { weight: 6, elsewhere: ["unique column"] },
  "parent in another schema": { weight: 8 },
  "partitioned parent": { weight: 6, elsewhere: ["partitions by hash"] },
  "excluded parent": { weight: 8, elsewhere: ["excluded table"] },
  "self reference": { weight: 10, needs: ["no owner"], excludes: ["no primary key"] },
  "circle of references": { weight: 6, needs: ["no owner"], elsewhere: ["key of text"], excludes: ["no primary key"] },
  "registered parent_column": { weight: 8, excludes: ["excluded table"], elsewhere: ["identity always"] },
  "dangling reference that is not valid": { weight: 5, sort: "ordinary", elsewhere: ["serial"] },
  "deferrable reference": { weight: 6 },
  "org_id in a reference": {
    weight: 4,
    needs: ["org_id in all rows"],
    elsewhere: ["org_id in all rows"],
  },
  "reference to be matched in full": { weight: 4, elsewhere: ["key of several columns"] },
} satisfies Features;

/** Makes the references between the tables of the draft: their columns, and the statements for when the rows are there. */
export function createReferences(draft: Draft): void {
  for (const table of draft.tables.filter(({ traits }) => !traits.has("no columns"))) {
    for (const parent of chooseParents(draft, table)) refer(draft, table, parent);
  }
}

function chooseParents(draft: Draft, child: Table): Table[] {
  const { random } = draft;
  const { traits } = child;
  const candidates = draft.tables.filter((table) =>
    table !== child && table.key.length > 0 && (traits.has("unlogged") || !table.traits.has("unlogged"))
  );
  const parents: Table[] = [];
  const add = (which: (table: Table) => boolean): Table | undefined => {
    const [parent] = random.shuffle(candidates.filter(which));
    if (parent && !parents.includes(parent)) parents.push(parent);
    return parent;
  };
  const meet = (trait: string, which: (table: Table) => boolean) => {
    if (traits.has(trait) && add(which)) draft.used.add(trait);
  };
  meet("only a parent", isOrgScoped);
  meet("org_id in a reference", (table) => table.traits.has("org_id in all rows"));
  meet("several parents", isOrgScoped);
  meet("parent through several columns", (table) => table.key.length > 1 && isOrgScoped(table));
  meet("reference to be matched in full", (table) => table.key.length > 1);
  meet("parent through a unique column", (table) => table.traits.has("unique column"));
  meet("parent in another schema", (table) => table.schema !== child.schema);
  meet("partitioned parent", (table) => table.leaves[0] !== table);
  meet("excluded parent", (table) => !isOrgScoped(table));
  meet("registered parent_column", (table) => table.key.length === 1 && isOrgScoped(table));
  meet("dangling reference that is not valid", (table) => table.leaves[0] === table);
  if (traits.has("several parents") || (parents.length === 0 && random.below(2) > 0)) add(() => true);
  if (traits.has("self reference") && child.key.length > 0) {
    parents.push(child);
    draft.used.add("self reference");
  }
  if (traits.has("circle of references")) {
    const back = add((table) => isOrgScoped(table) && !table.traits.has("unlogged"));
    if (back && child.key.length > 0 && !traits.has("unlogged")) {
      refer(draft, back, child);
      draft.used.add("circle of references");
    }
  }
  return random.shuffle(parents);
}

/** Gives the child the columns of a reference to the parent's key, in places of their own. */
function refer(draft: Draft, child: Table, parent: Table): void {
  const { random, used } = draft;
  const { traits } = child;
  const unique = parent.columns.find(({ role }) => role === "code");
  const byUnique = traits.has("parent through a unique column") && parent.traits.has("unique column") && unique;
  const parentColumns = byUnique ? [unique.name] : random.shuffle(parent.key);
  const columns = parentColumns.map((name): Column => {
    const { type } = parent.columns.find((column) => column.name === name) as Column;
    return { name: draft.name("parent"), role: "reference", type: type === "bigserial" ? "bigint" : type };
  });
  for (const column of random.shuffle(columns)) {
    child.columns.splice(random.below(child.columns.length + 1), 0, column);
  }
  const isPlain = child.leaves[0] === child && parent.leaves[0] === parent;
  const dangling = traits.has("dangling reference that is not valid") && isPlain && child !== parent;
  const deferrable = traits.has("deferrable reference");
  const full = traits.has("reference to be matched in full") && columns.length > 1;
  if (deferrable) used.add("deferrable reference");
  const withOrgId = traits.has("org_id in a reference") && parent.traits.has("org_id in all rows") &&
    child.references.every((earlier) => !earlier.withOrgId);
  child.references.push({
    columns: columns.map(({ name }) => name),
    parent,
    parentColumns,
    clauses: [
      full ? "match full" : "",
      random.pick(["", "on delete cascade", withOrgId ? "" : "on delete set null", "on update cascade"]),
      deferrable ? "deferrable initially deferred" : "",
      dangling ? "not valid" : "",
    ].join(" "),
    dangling,
    withOrgId,
  });
  if (
    traits.has("registered parent_column") && columns.length === 1 && isOrgScoped(parent) &&
    child.parentColumn === undefined
  ) {
    child.parentColumn = (columns[0] as Column).name;
  }
}

/** The statements that add a reference to a table with rows. */
export function addReference(draft: Draft, child: Table, reference: Reference): string[] {
  const { columns, parent, parentColumns, clauses, withOrgId } = reference;
  const list = (names: string[]) => `(${[...(withOrgId ? ["org_id"] : []), ...names.map(quote)].join(", ")})`;
  return [
    ...(withOrgId ? [`alter table ${qualify(parent)} add unique ${list(parentColumns)}`] : []),
    `alter table ${qualify(child)} add constraint ${quote(draft.name("reference"))}
      foreign key ${list(columns)} references ${qualify(parent)} ${list(parentColumns)} ${clauses}`,
  ];
}
