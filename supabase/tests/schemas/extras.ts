import { asSuperuser, columnOf, type Draft, type Extras, isOrgScoped, qualify, type Table } from "./draft.ts";
import { literal, quote } from "./names.ts";

const other = (draft: Draft, word: string): string => quote(draft.name(word));
const beside = (table: Table, draft: Draft, word: string): string => qualify({ ...table, name: draft.name(word) });
const alter = (table: Table, change: string): string => `alter table ${qualify(table)} ${change}`;

/** Constraints, indexes, views, privileges and the like. */
export const plainExtras = {
  "unique constraint that is deferrable": {
    weight: 5,
    sort: "ordinary",
    excludes: ["rows that are there twice", "more than 1000 blocks"],
    make: (table, draft) => [
      alter(
        table,
        `add constraint ${other(draft, "unique")} unique (${columnOf(table, "note")}) deferrable initially deferred`,
      ),
    ],
  },
  "exclusion constraint": {
    weight: 5,
    sort: "ordinary",
    excludes: ["rows that are there twice"],
    make: (table, draft) => [
      alter(
        table,
        `add constraint ${other(draft, "exclusion")} exclude using gist (${columnOf(table, "span")} with &&)`,
      ),
    ],
  },
  "check constraint": {
    weight: 8,
    make: (
      table,
      draft,
    ) => [alter(table, `add constraint ${other(draft, "check")} check (${columnOf(table, "amount")} < 100)`)],
  },
  "check constraint that is not valid": {
    weight: 5,
    make: (table, draft) => [
      alter(table, `add constraint ${other(draft, "check")} check (${columnOf(table, "amount")} >= 0) not valid`),
    ],
  },
  "index on an expression, and a partial one": {
    weight: 6,
    make: (table, draft) => [
      `create index ${other(draft, "index")} on ${qualify(table)} (lower(left(${columnOf(table, "note")}, 100)))`,
      `create index ${other(draft, "index")} on ${qualify(table)} (${columnOf(table, "amount")}) where ${
        columnOf(table, "amount")
      } > 3`,
    ],
  },
  "statistics": {
    weight: 5,
    make: (table, draft) => [
      `create statistics ${beside(table, draft, "statistics")} on ${columnOf(table, "amount")}, ${
        columnOf(table, "note")
      } from ${qualify(table)}`,
      `analyze ${qualify(table)}`,
    ],
  },
  "storage of a column": {
    weight: 5,
    make: (table) => [
      alter(table, `alter column ${columnOf(table, "note")} set storage external`),
      alter(table, `alter column ${columnOf(table, "amount")} set statistics 300`),
    ],
  },
  "view": {
    weight: 12,
    make: (table, draft) => {
      const view = beside(table, draft, "view");
      return [
        `create view ${view} with (security_invoker = true) as
          select ${columnOf(table, "note")}, count(*) as count from ${qualify(table)} group by 1`,
        `create view ${beside(table, draft, "view")} as select * from ${view}`,
      ];
    },
  },
  "view of all columns": {
    weight: 12,
    make: (table, draft) => [`create view ${beside(table, draft, "view")} as select * from ${qualify(table)}`],
  },
  "materialized view": {
    weight: 8,
    make: (table, draft) => [
      `create materialized view ${beside(table, draft, "view")} as select * from ${qualify(table)} limit 10`,
    ],
  },
  "function of the table": {
    weight: 6,
    make: (table, draft) => [
      `create function ${beside(table, draft, "function")}() returns setof ${qualify(table)} language sql stable
        begin atomic select * from ${qualify(table)}; end`,
    ],
  },
  "forced row-level security": {
    weight: 12,
    make: (table, draft) => [
      alter(table, "enable row level security"),
      alter(table, "force row level security"),
      `create policy ${other(draft, "policy")} on ${qualify(table)} to authenticated
        using (${columnOf(table, "amount")} > 2) with check (true)`,
      `create policy ${other(draft, "policy")} on ${
        qualify(table)
      } as restrictive for update to anon, service_role using (false)`,
    ],
  },
  "privileges on columns": {
    weight: 8,
    make: (table) => [
      `revoke all on ${qualify(table)} from anon, authenticated`,
      `grant select, update (${columnOf(table, "note")}) on ${qualify(table)} to authenticated`,
      `grant insert (${columnOf(table, "note")}, ${columnOf(table, "amount")}) on ${
        qualify(table)
      } to anon with grant option`,
    ],
  },
  "comments": {
    weight: 8,
    make: (table) => [
      `comment on table ${qualify(table)} is 'it''s a $$table$$ of %I'`,
      `comment on column ${qualify(table)}.${columnOf(table, "note")} is ${literal(table.name)}`,
    ],
  },
} satisfies Extras;

/** Publications that leave updates possible. */
export const publications = {
  "published": {
    weight: 8,
    excludes: ["no primary key"],
    make: (table, draft) => [publish(draft, table)],
  },
  "published with the whole row for identity": {
    weight: 5,
    group: "replica identity",
    sort: "ordinary",
    // PostgreSQL 18 lets no row be updated whose identity has a generated column.
    excludes: ["generated column", "virtual generated column"],
    make: (table, draft) => [alter(table, "replica identity full"), publish(draft, table)],
  },
  "published with an index for identity": {
    weight: 4,
    group: "replica identity",
    needs: ["unique column"],
    make: (table, draft) => {
      const index = draft.name("index");
      return [
        alter(table, `alter column ${columnOf(table, "code")} set not null`),
        `create unique index ${quote(index)} on ${qualify(table)} (${columnOf(table, "code")})`,
        alter(table, `replica identity using index ${quote(index)}`),
        publish(draft, table),
      ];
    },
  },
  "published in part": {
    weight: 5,
    group: "replica identity",
    sort: "ordinary",
    excludes: ["no primary key"],
    make: (table, draft) => {
      const keys = table.key.map(quote);
      return [
        publish(draft, table, `(${[...keys, columnOf(table, "note")].join(", ")}) where (${keys[0]} is not null)`),
      ];
    },
  },
  "published for inserts alone": {
    weight: 5,
    make: (table, draft) => [publish(draft, table, "with (publish = 'insert, truncate')")],
  },
  "published with all tables": {
    weight: 2,
    group: "replica identity",
    excludes: ["no primary key"],
    make: (_table, draft) => {
      const keyless = draft.tables.filter((table) => table.key.length === 0);
      const isGenerated = ({ traits }: Table) =>
        traits.has("generated column") || traits.has("virtual generated column");
      return [
        ...keyless.flatMap(({ leaves }) => leaves.map((leaf) => `alter table ${qualify(leaf)} replica identity full`)),
        asSuperuser(
          `create publication ${other(draft, "publication")} for all tables ${
            keyless.some(isGenerated) ? "with (publish = 'insert')" : ""
          }`,
        ),
      ];
    },
  },
} satisfies Extras;

const publish = (draft: Draft, table: Table, rest = ""): string =>
  `create publication ${other(draft, "publication")} for table ${qualify(table)} ${rest}`;

/** Triggers of every kind; where one fires, the data tell. */
export const triggers = {
  "trigger before insert": {
    weight: 8,
    make: (table, draft) => trigger(table, draft, "before insert", "for each row", `return new;`),
  },
  "trigger before update that raises": {
    weight: 10,
    make: (table, draft) =>
      trigger(table, draft, "before update", "for each row", `raise exception 'rows are never updated here';`),
  },
  "trigger before update that says when": {
    weight: 10,
    make: (table, draft) =>
      trigger(
        table,
        draft,
        "before update",
        "for each row",
        `new.${columnOf(table, "note")} := 'updated at ' || now(); return new;`,
      ),
  },
  "trigger before update of a column": {
    weight: 6,
    make: (table, draft) =>
      trigger(table, draft, `before update of ${columnOf(table, "note")}`, "for each row", "return null;"),
  },
  "trigger after update that writes to another table": {
    weight: 8,
    make: (table, draft) => trigger(table, draft, "after update", "for each row", `${writeLog(draft)} return null;`),
  },
  "trigger after insert that writes to another table": {
    weight: 8,
    make: (table, draft) => trigger(table, draft, "after insert", "for each row", `${writeLog(draft)} return null;`),
  },
  "trigger after delete or truncate": {
    weight: 5,
    make: (table, draft) =>
      trigger(table, draft, "after delete or truncate", "for each statement", `${writeLog(draft)} return null;`),
  },
  "trigger with transition tables": {
    weight: 6,
    make: (table, draft) =>
      trigger(
        table,
        draft,
        "after update",
        "referencing old table as gone new table as came for each statement",
        `${writeLog(draft)} return null;`,
      ),
  },
  "constraint trigger that is deferred": {
    weight: 6,
    sort: "ordinary",
    make: (table, draft) =>
      trigger(
        table,
        draft,
        "after update",
        "deferrable initially deferred for each row",
        `${writeLog(draft)} return null;`,
        "constraint trigger",
      ),
  },
  "trigger with a condition": {
    weight: 5,
    excludes: ["generated column", "virtual generated column"],
    make: (table, draft) =>
      trigger(table, draft, "before update", "for each row when (old.* is distinct from new.*)", "return null;"),
  },
  "trigger that is disabled": {
    weight: 5,
    make: (table, draft) => {
      const name = draft.name("trigger");
      return [
        ...trigger(table, draft, "before update", "for each row", "return null;", "trigger", name),
        alter(table, `disable trigger ${quote(name)}`),
      ];
    },
  },
  "trigger on insert that is enabled always": {
    weight: 5,
    make: (table, draft) => {
      const name = draft.name("trigger");
      return [
        ...trigger(table, draft, "before insert", "for each row", "return new;", "trigger", name),
        alter(table, `enable always trigger ${quote(name)}`),
      ];
    },
  },
} satisfies Extras;

function trigger(
  table: Table,
  draft: Draft,
  when: string,
  how: string,
  body: string,
  kind = "trigger",
  name = draft.name("trigger"),
): string[] {
  const run = beside(table, draft, "function");
  return [
    `create function ${run}() returns trigger language plpgsql as $trigger$ begin ${body} end $trigger$`,
    `create ${kind} ${quote(name)} ${when} on ${qualify(table)} ${how} execute function ${run}()`,
  ];
}

/** A statement for a trigger that leaves a row in the schema's log. */
const writeLog = (draft: Draft): string => `insert into ${qualify(draft.log)} values (tg_op);`;

/** Makes all that tables with rows have besides. */
export function createExtras(draft: Draft, extras: Extras): void {
  for (const table of draft.tables) {
    for (const [name, { make }] of Object.entries(extras)) {
      if (!table.traits.has(name)) continue;
      draft.script.push(...make(table, draft));
      if (isOrgScoped(table)) draft.used.add(name);
    }
  }
}
