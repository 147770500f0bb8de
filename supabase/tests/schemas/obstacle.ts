import { defaultOrgId } from "../organizations.ts";
import { asSuperuser, type Draft, type Name, qualify, register, type Registered } from "./draft.ts";
import { literal, quote } from "./names.ts";

/** What is in the way of a push, and what the push is to say. */
export interface Planted {
  /** The table that the push names; none where it is no table. */
  table?: Name;
  /** The code of the finding. */
  code: string;
  /** Who pushes, unless postgres does. */
  role?: string;
}

/** What the push refuses, each the only thing in its way. */
export interface Obstacle {
  since?: number;
  /** Whether the schema's own organizations or auth_org_id() would be in its way. */
  withoutOrganizations?: boolean;
  /** Whether it is in the way only where there is a mapping. */
  needsMapping?: boolean;
  /** Whether the preflight, which only reads, cannot see it. */
  isUnforeseen?: boolean;
  /** Features that would be in the way of the push, too. */
  without?: string[];
  plant(draft: Draft): Planted;
  /** Makes what looks much the same and is in nobody's way. Returns the tables, to be registered. */
  neighbour?(draft: Draft): Registered[];
}

/** What the table of an obstacle looks like where the obstacle has nothing else to say. */
export const columns = "(id bigint primary key, user_id uuid, note text)";

/** What an obstacle has besides its table. */
interface Rest extends Pick<Obstacle, "since" | "needsMapping" | "neighbour"> {
  orgFrom?: (string | null)[];
}

/** An obstacle that is a table, of columns as usual or otherwise, and what is done to it. */
export function ofTable(
  code: string,
  make: (target: string, table: Name, draft: Draft) => (string | undefined)[],
  { orgFrom, ...rest }: Rest = {},
): Obstacle {
  return {
    ...rest,
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      draft.script.push(...make(qualify(table), table, draft).filter((statement) => statement !== undefined));
      register(draft, { ...table, ...(orgFrom ? { orgFrom } : {}) });
      return { table, code };
    },
  };
}

/** An obstacle that is done to a table of the usual columns with a few rows. */
export const onTable = (
  code: string,
  change: (target: string, table: Name, draft: Draft) => string[],
  rest: Rest = {},
): Obstacle =>
  ofTable(code, (target, table, draft) => [
    `create table ${target} ${columns}`,
    `insert into ${target} select n, ${literal(draft.users[0] as string)} from generate_series(1, 3) as n`,
    ...change(target, table, draft),
  ], rest);

/** A neighbour that is one table, made so, with the columns that decide. */
export const neighbourTable = (make: (target: string, table: Name, draft: Draft) => string[], orgFrom?: string[]) =>
(
  draft: Draft,
): Registered[] => {
  const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
  draft.script.push(...make(qualify(table), table, draft));
  return [{ ...table, ...(orgFrom ? { orgFrom } : {}) }];
};

/** An obstacle that is an org_id of its own kind. */
export const ofOrgId = (
  code: string,
  definition: string,
  rest: { since?: number; change?: (target: string) => string } = {},
) =>
  ofTable(code, (target, _table, draft) => [
    needOrganizations(draft),
    `create table ${target} (id bigint primary key, user_id uuid, org_id ${definition})`,
    rest.change?.(target),
  ], rest.since ? { since: rest.since } : {});

/** The organizations, where the schema has not made them. */
export function needOrganizations({ used, organizations }: Draft): string | undefined {
  if ([...used].some((name) => name.startsWith("organizations"))) return undefined;
  used.add("organizations are there");
  const rows = [defaultOrgId, ...organizations].map((id) => `(${literal(id)}, 'Organization')`);
  return `create table public.organizations (id uuid primary key, name text not null);
    insert into public.organizations values ${rows.join(", ")}`;
}

export const beside = (draft: Draft, { schema }: Name, word: string): Name => ({ schema, name: draft.name(word) });

/** Something that is no table of the application, registered as one. */
export const noTable = (make: (draft: Draft) => Name): Obstacle => ({
  plant: (draft) => {
    const table = make(draft);
    register(draft, table);
    return { table, code: "not_a_table" };
  },
});

export const noop = (draft: Draft, table: Name): [string, string] => {
  const run = qualify(beside(draft, table, "function"));
  return [
    `create function ${run}() returns trigger language plpgsql as $trigger$ begin return new; end $trigger$`,
    run,
  ];
};

/** A trigger that does nothing, under this name. */
export const addTrigger = (draft: Draft, table: Name, name: string, when = "before update"): string[] => {
  const [create, run] = noop(draft, table);
  return [create, `create trigger ${quote(name)} ${when} on ${qualify(table)} for each row execute function ${run}()`];
};

export const enableTrigger = (how: string) => (target: string, table: Name, draft: Draft): string[] => {
  const name = draft.name("trigger");
  return [...addTrigger(draft, table, name), `alter table ${target} enable ${how} trigger ${quote(name)}`];
};

export const partitioned = (target: string, columns = "id bigint, user_id uuid"): string =>
  `create table ${target} (${columns}) partition by list (id)`;

export const foreignServer = asSuperuser(
  "create foreign data wrapper nothing; create server nothing foreign data wrapper nothing",
);
