import { type Column, type Draft, isOrgScoped, qualify, type Reference, type Table } from "./draft.ts";
import type { Features } from "./features.ts";
import { referencingType } from "./keys.ts";
import { isDetectedLink } from "./links.ts";
import { quote } from "./names.ts";
import { wantsParent } from "./org-from.ts";
import { linkOf } from "./owners.ts";

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
  "reference from another type": { weight: 8, elsewhere: ["key of numeric"] },
  "reference to what ignores case": { weight: 6, elsewhere: ["key that ignores case"] },
  "plain reference to what ignores case": { weight: 40, until: 17, needs: ["reference to what ignores case"] },
  "reference to citext": { weight: 6, elsewhere: ["key of citext"] },
  "reference to an enum": { weight: 5, elsewhere: ["key of an enum"] },
  "reference to a domain": { weight: 5, elsewhere: ["key of a domain"] },
  "reference to an array": { weight: 5, elsewhere: ["key of an array"] },
  "reference to padded text": { weight: 4, elsewhere: ["key of padded text"] },
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
  for (const table of draft.tables.filter(({ traits, link }) => !traits.has("no columns") && link === undefined)) {
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
  for (const [name, key] of Object.entries(byKey)) meet(name, (table) => table.traits.has(key));
  if (traits.has("plain reference to what ignores case") && draft.used.has("reference to what ignores case")) {
    draft.used.add("plain reference to what ignores case");
  }
  if (wantsParent(child)) add((table) => isOrgScoped(table));
  if (linkOf(child)) add(({ link }) => link === linkOf(child));
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

/** Which key a reference is to be to. */
const byKey: Record<string, string> = {
  "reference from another type": "key of numeric",
  "reference to what ignores case": "key that ignores case",
  "reference to citext": "key of citext",
  "reference to an enum": "key of an enum",
  "reference to a domain": "key of a domain",
  "reference to an array": "key of an array",
  "reference to padded text": "key of padded text",
};

/** Gives the child the columns of a reference to the parent's key, in places of their own. */
function refer(draft: Draft, child: Table, parent: Table): void {
  const { random, used } = draft;
  const { traits } = child;
  const unique = parent.columns.find(({ role }) => role === "code");
  const byUnique = traits.has("parent through a unique column") && parent.traits.has("unique column") && unique;
  const parentColumns = byUnique ? [unique.name] : random.shuffle(parent.key);
  const isOwner = parent.link !== undefined && parent.link === linkOf(child);
  const isRequired = isOwner && traits.has("owner that is never NULL");
  const isAnother = traits.has("reference from another type");
  const isBare = traits.has("plain reference to what ignores case");
  const ownName = isOwner && parent.link === "owner through profiles" && random.below(2) > 0 ? "user_id" : undefined;
  const columns = parentColumns.map((name): Column => ({
    name: ownName ?? draft.name("parent"),
    role: "reference",
    type: referencingType(parent.columns.find((column) => column.name === name) as Column, isAnother, isBare),
    clauses: isRequired ? "not null" : "",
  }));
  for (const column of random.shuffle(columns)) {
    child.columns.splice(random.below(child.columns.length + 1), 0, column);
  }
  const isPlain = child.leaves[0] === child && parent.leaves[0] === parent;
  const dangling = traits.has("dangling reference that is not valid") && isPlain && child !== parent && !isRequired;
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
      random.pick(["", "on delete cascade", withOrgId || isRequired ? "" : "on delete set null", "on update cascade"]),
      deferrable ? "deferrable initially deferred" : "",
      dangling ? "not valid" : "",
    ].join(" "),
    dangling,
    withOrgId,
    isRequired,
  });
  if (isOrgScoped(parent) || parent.link !== undefined) {
    child.sources.push({
      entry: columns.map(({ name }) => name).join(", "),
      kind: parent.link === undefined ? "parent" : "owner",
      isDetected: parent.link === undefined || isDetectedLink(parent),
      mustBeNamed: isOwner && !isDetectedLink(parent),
    });
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
