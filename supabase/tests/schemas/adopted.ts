import { columnOf, type Draft, type Extras, qualify, type Table } from "./draft.ts";
import { coinName, literal, quote } from "./names.ts";

const base = "org_id already there";
const needs = [base];

const alter = (table: Table, change: string): string[] => [`alter table ${qualify(table)} ${change}`];
const addReference = (table: Table, name: string, rest = ""): string[] =>
  alter(
    table,
    `add constraint ${name} foreign key (org_id) references public.organizations (id) on delete cascade ${rest}`,
  );
const addCheck = (table: Table, name: string, rest = ""): string[] =>
  alter(table, `add constraint ${name} check (org_id is not null) ${rest}`);
const addIndex = (table: Table, name: string, columns: string): string[] => [
  `create index ${name} on ${qualify(table)} ${columns}`,
];
const other = (draft: Draft, word: string): string => quote(draft.name(word));
/** The name that the migrations give to such an object of the table. */
const ours = (prefix: string, { name }: Table, suffix: string): string => quote(coinName(prefix, name, suffix));

/** What a table can have of org_id before the push. */
export const adoptedFeatures = {
  [base]: { weight: 12, sort: "ordinary", excludes: ["excluded table"], make: () => [] },
  "org_id all NULL": { weight: 3, group: "org_id values", needs, make: () => [] },
  "org_id in some rows": { weight: 4, group: "org_id values", needs, make: () => [] },
  "org_id in all rows": { weight: 4, group: "org_id values", needs, make: () => [] },
  "org_id with a foreign key of another name": {
    weight: 4,
    group: "org_id reference",
    needs,
    make: (table, draft) => addReference(table, other(draft, "key")),
  },
  "org_id with a foreign key of our name": {
    weight: 4,
    group: "org_id reference",
    needs,
    make: (table) => addReference(table, ours("fk_", table, "_org_id")),
  },
  "org_id with a foreign key that is not valid": {
    weight: 4,
    group: "org_id reference",
    needs,
    make: (table, draft) => addReference(table, other(draft, "key"), "not valid"),
  },
  "org_id with an index of another name": {
    weight: 4,
    group: "org_id index",
    needs,
    make: (table, draft) => addIndex(table, other(draft, "index"), "(org_id)"),
  },
  "org_id with an index of our name": {
    weight: 4,
    group: "org_id index",
    needs,
    make: (table) => addIndex(table, ours("idx_", table, "_org_id"), "(org_id)"),
  },
  "org_id first in an index of several columns": {
    weight: 4,
    group: "org_id index",
    needs,
    make: (table, draft) => addIndex(table, other(draft, "index"), `(org_id, ${columnOf(table, "amount")} desc)`),
  },
  "org_id first in a unique constraint": {
    weight: 4,
    group: "org_id index",
    needs: ["org_id in all rows"],
    excludes: ["rows that are there twice"],
    make: (table, draft) =>
      alter(table, `add constraint ${other(draft, "unique")} unique (org_id, ${columnOf(table, "note")})`),
  },
  "org_id in a partial index": {
    weight: 4,
    needs,
    make: (table, draft) => addIndex(table, other(draft, "index"), "(org_id) where org_id is not null"),
  },
  "org_id with a check of another name": {
    weight: 4,
    group: "org_id check",
    needs: ["org_id in all rows"],
    make: (table, draft) => addCheck(table, other(draft, "check")),
  },
  "org_id with a check of our name": {
    weight: 4,
    group: "org_id check",
    needs: ["org_id in all rows"],
    make: (table) => addCheck(table, ours("", table, "_org_id_not_null")),
  },
  "org_id with a check that is not valid": {
    weight: 4,
    group: "org_id check",
    needs: ["org_id in some rows"],
    make: (table, draft) => addCheck(table, other(draft, "check"), "not valid"),
  },
  "org_id not null": {
    weight: 4,
    group: "org_id not null",
    needs: ["org_id in all rows"],
    make: (table) => alter(table, "alter column org_id set not null"),
  },
  "org_id not null that is not valid": {
    weight: 4,
    group: "org_id not null",
    since: 18,
    needs: ["org_id in some rows"],
    make: (table, draft) => alter(table, `add constraint ${other(draft, "not_null")} not null org_id not valid`),
  },
  "org_id with its default": {
    weight: 4,
    needs,
    make: (table) => alter(table, "alter column org_id set default public.auth_org_id()"),
  },
  "org_id in a policy": {
    weight: 4,
    needs,
    make: (table, draft) => [
      `create policy ${other(draft, "policy")} on ${qualify(table)} for select to authenticated
        using (org_id = (select public.auth_org_id()))`,
    ],
  },
  "org_id in a view": {
    weight: 4,
    needs,
    make: (
      table,
      draft,
    ) => [`create view ${qualify({ ...table, name: draft.name("view") })} as table ${qualify(table)}`],
  },
} satisfies Extras;

export const hasOrgId = ({ traits }: Table): boolean => traits.has(base);

/** Whether the table needs no line in the index file. */
export const hasOrgIdIndex = ({ traits }: Table): boolean =>
  Object.entries(adoptedFeatures as Extras).some(([name, { group }]) => group === "org_id index" && traits.has(name));

/** Gives the table its column org_id. */
export function designOrgId({ random, organizations }: Draft, table: Table): void {
  if (!hasOrgId(table)) return;
  const { traits } = table;
  const isFull = traits.has("org_id in all rows");
  const isEmpty = traits.has("org_id all NULL");
  table.columns.splice(random.below(table.columns.length + 1), 0, {
    name: "org_id",
    role: "org_id",
    type: "uuid",
    value: () => isEmpty || (!isFull && random.below(2) > 0) ? "null" : literal(random.pick(organizations)),
  });
}
