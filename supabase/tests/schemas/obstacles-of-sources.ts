import { type Draft, exclude, qualify, register, type Registered } from "./draft.ts";
import { literal } from "./names.ts";
import { beside, columns, neighbourTable, type Obstacle, ofTable, onTable } from "./obstacle.ts";

/** Rows of a few of the users, in columns of this kind. */
const fill = (target: string, { users }: Draft, values: (user: string, number: number) => string): string =>
  `insert into ${target} values ${
    users.slice(0, 4).map((user, number) => `(${values(literal(user), number)})`).join(", ")
  }`;

/** A table of the usual columns with a row for some users, org-scoped or excluded. */
function addTable(draft: Draft, near: Registered, scope: "org" | "excluded"): Registered {
  const table = beside(draft, near, "table");
  draft.script.push(
    `create table ${qualify(table)} ${columns}`,
    fill(qualify(table), draft, (user, number) => `${number}, ${user}, 'a note'`),
  );
  if (scope === "excluded") exclude(draft, table);
  return table;
}

/** A table with a key to an excluded one, in which nothing is a user's unless it has the column. */
const toExcluded = (column: string) => (target: string, table: Registered, draft: Draft): string[] => {
  const parent = beside(draft, table, "table");
  exclude(draft, parent);
  return [
    `create table ${qualify(parent)} (id bigint primary key, ${column} uuid)`,
    fill(qualify(parent), draft, (user, number) => `${number}, ${user}`),
    `create table ${target} (id bigint primary key, parent_id bigint references ${qualify(parent)} (id))`,
    `insert into ${target} values (1, 0), (2, 3), (3, null)`,
  ];
};

const nobodys = (target: string): string[] => [
  `create table ${target} (id bigint primary key, note text)`,
  `insert into ${target} values (1, 'one'), (2, null)`,
];

const ofPeriod = (target: string, table: Registered, draft: Draft): string[] => {
  const parent = beside(draft, table, "table");
  register(draft, { ...parent, orgFrom: ["user_id"] });
  return [
    `create table ${qualify(parent)} (room int4range, during daterange, user_id uuid,
      primary key (room, during without overlaps))`,
    `create table ${target} (id bigint primary key, room int4range, during daterange, user_id uuid,
      foreign key (room, period during) references ${qualify(parent)} (room, period during))`,
  ];
};

/** Columns that are to decide and cannot, and tables where nothing does. */
export const sourceObstacles: Record<string, Obstacle> = {
  "nothing that says whose a table is": {
    ...ofTable("no_source", nobodys, { needsMapping: true }),
    neighbour: neighbourTable(nobodys, []),
  },
  "an owner of another type": {
    ...ofTable("no_source", (target) => [`create table ${target} (id bigint primary key, user_id integer)`], {
      needsMapping: true,
    }),
    neighbour: neighbourTable((target, _table, draft) => [
      `create table ${target} (id bigint primary key, user_id varchar)`,
      fill(target, draft, (user, number) => `${number}, ${user}`),
    ]),
  },
  "a key to what is excluded, and nobody's": {
    ...ofTable("no_source", toExcluded("nobody"), { needsMapping: true }),
    neighbour: neighbourTable(toExcluded("user_id")),
  },
  "an org_from that is no column": {
    ...onTable("org_from_without_source", () => [], { orgFrom: ["no such column"] }),
    neighbour: neighbourTable((target, _table, draft) => [
      `create table ${target} (id bigint primary key, "no such column" uuid)`,
      fill(target, draft, (user, number) => `${number}, ${user}`),
    ], ["no such column"]),
  },
  "an org_from with NULL": onTable("org_from_without_source", () => [], { orgFrom: ["user_id", null] }),
  "an org_from of a number without a key": {
    ...onTable("org_from_without_source", () => [], { orgFrom: ["user_id", "id"] }),
    neighbour: (draft) => {
      const [child] = neighbourTable((target, _table, draft) => [
        `create table ${target} (id bigint primary key, user_id uuid, parent_id bigint)`,
        fill(
          target,
          draft,
          (user, number) => number % 2 ? `${number}, ${user}, ${number}` : `${number}, null, ${number * 7}`,
        ),
      ], ["user_id", "parent_id"])(draft) as [Registered];
      const parent = addTable(draft, child, "org");
      draft.script.push(
        `alter table ${qualify(child)} add foreign key (parent_id) references ${qualify(parent)} (id) not valid`,
      );
      return [child, parent];
    },
  },
  "an org_from to what is excluded, and nobody's": {
    ...ofTable("org_from_without_source", toExcluded("nobody"), { orgFrom: ["parent_id"] }),
    neighbour: neighbourTable(toExcluded("user_id"), ["parent_id"]),
  },
  "an org_from to what is excluded, and nobody's, by a key that looks like a user's id": ofTable(
    "org_from_without_source",
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      exclude(draft, parent);
      return [
        `create table ${qualify(parent)} (id uuid primary key)`,
        `create table ${target} (id bigint primary key, parent_id uuid references ${qualify(parent)} (id))`,
      ];
    },
    { orgFrom: ["parent_id"] },
  ),
  "an org_from of one column of a key of two": {
    ...ofTable("org_from_without_source", (target, table, draft) => {
      const parent = beside(draft, table, "table");
      register(draft, { ...parent, orgFrom: ["user_id"] });
      return [
        `create table ${qualify(parent)} (a bigint, b bigint, user_id uuid, primary key (a, b))`,
        `create table ${target} (a bigint, b bigint, foreign key (a, b) references ${qualify(parent)} (a, b))`,
      ];
    }, { orgFrom: ["a"] }),
    neighbour: (draft) => {
      const [parent] = neighbourTable((target, _table, draft) => [
        `create table ${target} (a bigint, b bigint, user_id uuid, primary key (a, b))`,
        fill(target, draft, (user, number) => `1, ${number}, ${user}`),
      ])(draft) as [Registered];
      const child = { ...beside(draft, parent, "table"), orgFrom: ["b, a"] };
      draft.script.push(
        `create table ${qualify(child)} (a bigint, b bigint, foreign key (b, a) references ${qualify(parent)} (b, a))`,
        `insert into ${qualify(child)} values (1, 0), (1, 3), (null, 2)`,
      );
      return [parent, child];
    },
  },
  "a key of a period": { since: 18, ...ofTable("period_foreign_key", ofPeriod) },
  "an org_from of a key of a period": {
    since: 18,
    ...ofTable("org_from_without_source", ofPeriod, { orgFrom: ["room, during"] }),
  },
};
