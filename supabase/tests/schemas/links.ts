import type { Column, Draft, Table } from "./draft.ts";
import { linkOf } from "./owners.ts";
import { literal } from "./names.ts";

/** What the tables are called in the features that lead through them, and whether a row of theirs stands for one user. */
const links: Record<string, { isDetected: boolean }> = {
  "owner through profiles": { isDetected: true },
  "owner through sales": { isDetected: true },
  "owner through members and profiles": { isDetected: true },
  "owner through what must be named": { isDetected: false },
};

/** Makes the excluded tables through which rows of others lead to a user. */
export function designLinks(draft: Draft): void {
  const wished = new Set(draft.tables.flatMap((table) => linkOf(table) ?? []));
  let profiles: Table | undefined;
  for (const link of Object.keys(links).filter((name) => wished.has(name))) {
    if (link === "owner through profiles") profiles ??= designProfiles(draft);
    else if (link === "owner through members and profiles") designMembers(draft, profiles ??= designProfiles(draft));
    else designLink(draft, link);
  }
}

/** Whether a row of the table stands for a user, without being named. */
export const isDetectedLink = ({ link }: Table): boolean => links[link ?? ""]?.isDetected === true;

function addTable(draft: Draft, link: string, columns: Column[], rowCount: number): Table {
  const table: Table = {
    schema: draft.random.pick(draft.schemas),
    name: draft.name("link"),
    traits: new Set(["excluded table"]),
    link,
    columns,
    key: [(columns[0] as Column).name],
    sources: [],
    references: [],
    rowCount,
    rows: [],
    leaves: [],
  };
  table.leaves.push(table);
  draft.tables.push(table);
  return table;
}

const keyed = "references auth.users (id) on delete cascade";

/** A row per user, under the user's id. */
const designProfiles = (draft: Draft): Table =>
  addTable(draft, "owner through profiles", [
    {
      name: draft.name("id"),
      role: "key",
      type: "uuid",
      clauses: keyed,
      value: (row) => literal(draft.users[row - 1] as string),
    },
    { name: draft.name("note"), role: "note", type: "text", value: (row) => literal(`profile ${row}`) },
  ], draft.users.length);

/** A row per profile, under a number. */
function designMembers(draft: Draft, profiles: Table): void {
  const reference = draft.name("profile");
  const members = addTable(draft, "owner through members and profiles", [
    { name: draft.name("id"), role: "key", type: "bigint", value: (row) => String(100 + row) },
    {
      name: reference,
      role: "reference",
      type: "uuid",
      clauses: "unique",
      value: (row) => literal(draft.users[row - 1] as string),
    },
  ], draft.users.length);
  members.references.push({
    columns: [reference],
    parent: profiles,
    parentColumns: profiles.key,
    clauses: "",
    dangling: false,
    withOrgId: false,
    isGiven: true,
  });
}

/** Rows under a number that name a user: in user_id, who is theirs; in another column, somebody. */
function designLink(draft: Draft, link: string): void {
  const { random, users } = draft;
  const isSales = link === "owner through sales";
  addTable(draft, link, [
    { name: draft.name("id"), role: "key", type: "bigint", value: (row) => String(200 + row) },
    {
      name: isSales ? "user_id" : "created_by",
      role: "owner",
      type: "uuid",
      clauses: isSales && random.below(2) > 0 ? "" : keyed,
      value: () => random.below(5) === 0 ? "null" : literal(random.pick(users)),
    },
  ], 12);
}
