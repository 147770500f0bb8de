import { asSuperuser, type Draft, exclude, type Name, qualify, register } from "./draft.ts";
import { coinName, literal, quote } from "./names.ts";
import { defaultOrgId } from "../organizations.ts";
import { authOrgId } from "./organizations.ts";

/** What is in the way of a push, and what the push is to say. */
export interface Planted {
  /** The table that the push names; none where it is no table. */
  table?: Name;
  /** How the problem, or the whole error, begins. */
  problem: RegExp;
  /** Who pushes, unless postgres does. */
  role?: string;
}

export interface Obstacle {
  since?: number;
  /** Whether the schema's own organizations or auth_org_id() would be in its way. */
  withoutOrganizations?: boolean;
  /** Features that would be in the way of the push, too. */
  without?: string[];
  plant(draft: Draft): Planted;
}

/** What the table of an obstacle looks like where the obstacle has nothing else to say. */
const columns = "(id bigint primary key, user_id uuid, note text)";

/** An obstacle that is a table, of columns as usual or otherwise, and what is done to it. */
function ofTable(
  problem: RegExp,
  make: (target: string, table: Name, draft: Draft) => (string | undefined)[],
  rest: { since?: number; ownerColumn?: string; parentColumn?: string } = {},
): Obstacle {
  return {
    ...(rest.since ? { since: rest.since } : {}),
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      draft.script.push(...make(qualify(table), table, draft).filter((statement) => statement !== undefined));
      register(draft, { ...table, ...rest });
      return { table, problem };
    },
  };
}

/** An obstacle that is done to a table of the usual columns with a few rows. */
const onTable = (
  problem: RegExp,
  change: (target: string, table: Name, draft: Draft) => string[],
  rest: { since?: number; ownerColumn?: string; parentColumn?: string } = {},
): Obstacle =>
  ofTable(problem, (target, table, draft) => [
    `create table ${target} ${columns}`,
    `insert into ${target} select n, ${literal(draft.users[0] as string)} from generate_series(1, 3) as n`,
    ...change(target, table, draft),
  ], rest);

/** An obstacle that is an org_id of its own kind. */
const ofOrgId = (
  problem: RegExp,
  definition: string,
  rest: { since?: number; change?: (target: string) => string } = {},
) =>
  ofTable(problem, (target, _table, draft) => [
    needOrganizations(draft),
    `create table ${target} (id bigint primary key, user_id uuid, org_id ${definition})`,
    rest.change?.(target),
  ], rest.since ? { since: rest.since } : {});

/** The organizations, where the schema has not made them. */
function needOrganizations({ used }: Draft): string | undefined {
  if ([...used].some((name) => name.startsWith("organizations"))) return undefined;
  used.add("organizations are there");
  return `create table public.organizations (id uuid primary key, name text not null);
    insert into public.organizations values (${literal(defaultOrgId)}, 'Everyone')`;
}

const beside = (draft: Draft, table: Name, word: string): Name => ({ ...table, name: draft.name(word) });

/** Something that is no table of the application, registered as one. */
const noTable = (make: (draft: Draft) => Name): Obstacle => ({
  plant: (draft) => {
    const table = make(draft);
    register(draft, table);
    return { table, problem: /^is registered as org and is no table of the application/ };
  },
});

const noop = (draft: Draft, table: Name): [string, string] => {
  const run = qualify(beside(draft, table, "function"));
  return [
    `create function ${run}() returns trigger language plpgsql as $trigger$ begin return new; end $trigger$`,
    run,
  ];
};

/** A trigger that does nothing, under this name. */
const addTrigger = (draft: Draft, table: Name, name: string, when = "before update"): string[] => {
  const [create, run] = noop(draft, table);
  return [create, `create trigger ${quote(name)} ${when} on ${qualify(table)} for each row execute function ${run}()`];
};

const enableTrigger = (how: string) => (target: string, table: Name, draft: Draft): string[] => {
  const name = draft.name("trigger");
  return [...addTrigger(draft, table, name), `alter table ${target} enable ${how} trigger ${quote(name)}`];
};

const partitioned = (target: string, columns = "id bigint, user_id uuid"): string =>
  `create table ${target} (${columns}) partition by list (id)`;

const foreignServer = asSuperuser(
  "create foreign data wrapper nothing; create server nothing foreign data wrapper nothing",
);

export const obstacles: Record<string, Obstacle> = {
  "a table that is not classified": {
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      draft.script.push(`create table ${qualify(table)} (id bigint primary key, user_id uuid)`);
      return { table, problem: /^is not classified: it has the column user_id/ };
    },
  },
  "a table that is not classified, without owner": {
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      draft.script.push(`create table ${qualify(table)} (id bigint primary key)`);
      return { table, problem: /^is not classified/ };
    },
  },
  "a registered table that does not exist": {
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      register(draft, table);
      return { table, problem: /^is registered and does not exist/ };
    },
  },
  "a view that is registered": noTable((draft) => {
    const view = { schema: draft.random.pick(draft.schemas), name: draft.name("view") };
    draft.script.push(`create view ${qualify(view)} as select 1 as id`);
    return view;
  }),
  "a partition that is registered": noTable((draft) => {
    const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
    const partition = beside(draft, table, "partition");
    draft.script.push(
      partitioned(qualify(table)),
      `create table ${qualify(partition)} partition of ${qualify(table)} default`,
    );
    exclude(draft, table);
    return partition;
  }),
  "auth.users registered": noTable(() => ({ schema: "auth", name: "users" })),
  "public.organizations registered": noTable(() => ({ schema: "public", name: "organizations" })),
  "a foreign table": ofTable(/^is a foreign table/, (target) => [
    foreignServer,
    asSuperuser(
      `create foreign table ${target} (id bigint, user_id uuid) server nothing; alter table ${target} owner to postgres`,
    ),
  ]),
  "a foreign partition": ofTable(/^has a foreign table among its partitions/, (target, table, draft) => {
    const partition = qualify(beside(draft, table, "partition"));
    return [
      foreignServer,
      partitioned(target),
      asSuperuser(
        `create foreign table ${partition} partition of ${target} default server nothing; alter table ${partition} owner to postgres`,
      ),
    ];
  }),
  "a table that inherits": ofTable(/^inherits from another table/, (target, table, draft) => {
    const parent = beside(draft, table, "table");
    exclude(draft, parent);
    return [`create table ${qualify(parent)} ${columns}`, `create table ${target} () inherits (${qualify(parent)})`];
  }),
  "a table that others inherit from": onTable(/^has tables that inherit from it/, (target, table, draft) => {
    const child = beside(draft, table, "table");
    exclude(draft, child);
    return [`create table ${qualify(child)} () inherits (${target})`];
  }),
  "a table of another owner": onTable(
    /^belongs to supabase_admin, and only its owner can alter it/,
    (target) => [asSuperuser(`alter table ${target} owner to supabase_admin`)],
  ),
  "a partition of another owner": ofTable(
    /^has the partition .*, which belongs to supabase_admin/,
    (target, table, draft) => {
      const partition = qualify(beside(draft, table, "partition"));
      return [
        partitioned(target),
        `create table ${partition} partition of ${target} default`,
        asSuperuser(`alter table ${partition} owner to supabase_admin`),
      ];
    },
  ),
  "a partitioned table with org_id": ofTable(/^is partitioned and has org_id already/, (target) => [
    partitioned(target, "id bigint, org_id uuid"),
  ]),
  "a partition that is being detached": ofTable(/^has a partition that is being detached/, (target, table, draft) => {
    const partition = qualify(beside(draft, table, "partition"));
    return [
      partitioned(target),
      `create table ${partition} partition of ${target} for values in (1)`,
      // As a DETACH CONCURRENTLY leaves it that was cut off.
      asSuperuser(`update pg_inherits set inhdetachpending = true where inhrelid = ${literal(partition)}::regclass`),
    ];
  }),
  "an owner_column that is not there": onTable(
    /^has no column "?no such column"?, its registered owner_column/,
    () => [],
    {
      ownerColumn: "no such column",
    },
  ),
  "an owner of another type": ofTable(
    /^keeps its owner in user_id integer, which is neither uuid nor text/,
    (target) => [
      `create table ${target} (id bigint primary key, user_id integer)`,
    ],
  ),
  "an owner of a domain": ofTable(
    /^keeps its owner in user_id .*, which is neither uuid nor text/,
    (target, table, draft) => {
      const domain = qualify(beside(draft, table, "type"));
      return [`create domain ${domain} as uuid`, `create table ${target} (id bigint primary key, user_id ${domain})`];
    },
  ),
  "a parent_column that is no foreign key": onTable(
    /^has no foreign key from id, its registered parent_column/,
    () => [],
    {
      parentColumn: "id",
    },
  ),
  "a parent_column to an excluded table": ofTable(
    /^has no foreign key from parent_id, its registered parent_column/,
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      exclude(draft, parent);
      return [
        `create table ${qualify(parent)} ${columns}`,
        `create table ${target} (id bigint primary key, parent_id bigint references ${qualify(parent)} (id))`,
      ];
    },
    { parentColumn: "parent_id" },
  ),
  "an org_id of text": ofOrgId(/^has an org_id already that is text and not a plain uuid/, "text"),
  "an org_id of a domain": ofTable(/^has an org_id already that is .* and not a plain uuid/, (target, table, draft) => {
    const domain = qualify(beside(draft, table, "type"));
    return [`create domain ${domain} as uuid`, `create table ${target} (id bigint primary key, org_id ${domain})`];
  }),
  "an org_id that is generated": ofOrgId(
    /^has an org_id already that is uuid, generated, and not a plain uuid/,
    "uuid generated always as (user_id) stored",
  ),
  "an org_id with another default": ofOrgId(
    /^has an org_id already whose default is gen_random_uuid\(\)/,
    "uuid default gen_random_uuid()",
  ),
  "an org_id with a constant default": ofOrgId(
    /^has an org_id already whose default is '/,
    `uuid not null default ${literal(defaultOrgId)}`,
  ),
  "an org_id that references another table": ofTable(
    /^has a foreign key .* from org_id that is not to public.organizations \(id\) on delete cascade/,
    (target, table, draft) => {
      const teams = beside(draft, table, "table");
      exclude(draft, teams);
      return [
        `create table ${qualify(teams)} (id uuid primary key)`,
        `create table ${target} (id bigint primary key, org_id uuid references ${
          qualify(teams)
        } (id) on delete cascade)`,
      ];
    },
  ),
  "an org_id whose foreign key does not cascade": ofOrgId(
    /^has a foreign key .* from org_id that is not to public.organizations \(id\) on delete cascade/,
    "uuid references public.organizations (id) on delete set null",
  ),
  "an org_id whose foreign key is not enforced": ofOrgId(
    /^has a foreign key .* from org_id that is not to public.organizations \(id\) on delete cascade/,
    "uuid references public.organizations (id) on delete cascade not enforced",
    { since: 18 },
  ),
  "an org_id of no organization": ofOrgId(/^has 1 rows? whose org_id is no organization/, "uuid", {
    change: (target) => `insert into ${target} values (1, null, gen_random_uuid())`,
  }),
  "a constraint with the foreign key's name": onTable(
    /^has a constraint .*, the name of .*, that is none/,
    (
      target,
      { name },
    ) => [`alter table ${target} add constraint ${quote(coinName("fk_", name, "_org_id"))} check (id > 0)`],
  ),
  "a constraint with the check's name": onTable(
    /^has a constraint .*, the name of .*, that is none/,
    (
      target,
      { name },
    ) => [`alter table ${target} add constraint ${quote(coinName("", name, "_org_id_not_null"))} check (id > 0)`],
  ),
  "an index with the index's name": onTable(
    /^cannot have the index .*: there is something else of that name/,
    (target, { name }) => [
      `create index ${quote(coinName("idx_", name, "_org_id"))} on ${target} (note)`,
    ],
  ),
  "a table with the index's name": onTable(
    /^cannot have the index .*: there is something else of that name/,
    (_target, table, draft) => {
      const taken = { ...table, name: coinName("idx_", table.name, "_org_id") };
      exclude(draft, taken);
      return [`create table ${qualify(taken)} (id bigint)`];
    },
  ),
  "a trigger with the guard's name": onTable(
    /^has a trigger .*, the name of .*, that is none/,
    (_target, table, draft) => addTrigger(draft, table, coinName("org_id_immutable_", table.name, "")),
  ),
  "a trigger with the early guard's name": onTable(
    /^has a trigger .*, the name of .*, that is none/,
    (_target, table, draft) =>
      addTrigger(draft, table, coinName("zzz_org_id_immutable_", table.name, ""), "before insert"),
  ),
  "rows without org_id under a unique constraint": ofOrgId(
    /^has 2 rows without org_id, and .*, which filling them in could break/,
    "uuid, note text, unique (org_id, note)",
    { change: (target) => `insert into ${target} values (1, null, null, 'one'), (2, null, null, 'one')` },
  ),
  "rows without org_id under a unique index": ofOrgId(
    /^has 1 rows? without org_id, and .*, which filling them in could break/,
    "uuid, note text",
    {
      change: (target) =>
        `insert into ${target} values (1, null, null, 'one'); create unique index on ${target} (lower(note), org_id)`,
    },
  ),
  "rows without org_id under a foreign key": ofTable(
    /^has 1 rows? without org_id, and .*, which filling them in could break/,
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      exclude(draft, parent);
      return [
        `create table ${qualify(parent)} (org_id uuid, id bigint, unique (org_id, id))`,
        `create table ${target} (org_id uuid, parent_id bigint, foreign key (org_id, parent_id) references ${
          qualify(parent)
        } (org_id, id))`,
        `insert into ${target} values (null, 1)`,
      ];
    },
  ),
  "rows that break a check that is not valid": onTable(
    /^has 3 rows that cannot be updated: they break the check .*, which is not valid/,
    (
      target,
      _table,
      draft,
    ) => [`alter table ${target} add constraint ${quote(draft.name("check"))} check (id > 3) not valid`],
  ),
  "rows that break a check of a partition that is not valid": ofTable(
    /rows that cannot be updated: they break the check .*, which is not valid/,
    (target, table, draft) => {
      const partition = qualify(beside(draft, table, "partition"));
      return [
        partitioned(target),
        `create table ${partition} partition of ${target} default`,
        `insert into ${target} values (1, ${literal(draft.users[0] as string)})`,
        `alter table ${partition} add constraint ${quote(draft.name("check"))} check (id > 3) not valid`,
      ];
    },
  ),
  "a foreign key of a partition alone": ofTable(
    /^has the foreign key .* of or to a partition alone/,
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      const partition = qualify(beside(draft, table, "partition"));
      register(draft, parent);
      return [
        `create table ${qualify(parent)} ${columns}`,
        partitioned(target),
        `create table ${partition} partition of ${target} default`,
        `alter table ${partition} add foreign key (id) references ${qualify(parent)} (id)`,
      ];
    },
  ),
  "a foreign key to a partition alone": ofTable(
    /^has the foreign key .* of or to a partition alone/,
    (target, table, draft) => {
      const parent = beside(draft, table, "table");
      const partition = qualify(beside(draft, table, "partition"));
      register(draft, parent);
      return [
        `create table ${qualify(parent)} (id bigint primary key, user_id uuid) partition by hash (id)`,
        `create table ${partition} partition of ${qualify(parent)} for values with (modulus 1, remainder 0)`,
        `create table ${target} (id bigint references ${partition} (id))`,
      ];
    },
  ),
  "a typed table": ofTable(/^is a typed table \(of .*\)/, (target, table, draft) => {
    const type = qualify(beside(draft, table, "type"));
    return [`create type ${type} as (id bigint, user_id uuid)`, `create table ${target} of ${type}`];
  }),
  "a row type that is used": onTable(/^has a row type that .* uses/, (target, table, draft) => {
    const user = beside(draft, table, "table");
    exclude(draft, user);
    return [`create table ${qualify(user)} (rows ${target}[])`];
  }),
  "1600 columns": ofTable(/^has 1600 columns/, (target) => [
    `create table ${target} (${Array.from({ length: 1600 }, (_, number) => `c${number} boolean`).join(", ")})`,
  ]),
  "a rule": onTable(/^has the rule /, (target, _table, draft) => [
    `create rule ${quote(draft.name("rule"))} as on insert to ${target} do also select 1`,
  ]),
  "a rule that swallows updates": onTable(/^has the rule /, (target, _table, draft) => [
    `create rule ${quote(draft.name("rule"))} as on update to ${target} do instead nothing`,
  ]),
  "a trigger that is enabled always": onTable(
    /^has the trigger .*, which is enabled always or for replicas/,
    enableTrigger("always"),
  ),
  "a trigger that is enabled for replicas": onTable(
    /^has the trigger .*, which is enabled always or for replicas/,
    enableTrigger("replica"),
  ),
  "published without identity": ofTable(/^cannot be updated: .*replica identity/, (target, _table, draft) => [
    `create table ${target} (id bigint, user_id uuid)`,
    `create publication ${quote(draft.name("publication"))} for table ${target}`,
  ]),
  "published with the identity of nothing": onTable(
    /^cannot be updated: .*replica identity/,
    (target, _table, draft) => [
      `alter table ${target} replica identity nothing`,
      `create publication ${quote(draft.name("publication"))} for table ${target}`,
    ],
  ),
  "published with a row filter beyond the identity": onTable(/^cannot be updated: /, (target, _table, draft) => [
    `create publication ${quote(draft.name("publication"))} for table ${target} where (note is not null)`,
  ]),
  "published with generated columns in the identity": {
    since: 18,
    ...ofTable(/^cannot be updated: /, (target, _table, draft) => [
      `create table ${target} (id bigint, user_id uuid, twice bigint generated always as (id * 2) stored)`,
      `alter table ${target} replica identity full`,
      `create publication ${quote(draft.name("publication"))} for table ${target}`,
    ]),
  },
  "published with columns without the identity": onTable(/^cannot be updated: /, (target, _table, draft) => [
    `create publication ${quote(draft.name("publication"))} for table ${target} (note)`,
  ]),
  "row-level security that hides the rows": {
    without: ["forced row-level security"],
    plant: (draft) => {
      const table = { schema: draft.random.pick(draft.schemas), name: draft.name("table") };
      const role = "under_row_level_security";
      draft.script.push(
        `create table ${qualify(table)} ${columns}`,
        `alter table ${qualify(table)} enable row level security, force row level security`,
        // It may do what postgres may, but for bypassing row-level security. Roles are the server's, not the database's.
        asSuperuser(`do $role$ begin
          create role ${role} login password 'postgres' in role postgres;
        exception when duplicate_object or unique_violation then null; end $role$`),
      );
      register(draft, table);
      return { table, problem: new RegExp(`^hides its rows from ${role}: row-level security is forced`), role };
    },
  },
  "a schema where nothing can be created": {
    plant: (draft) => {
      const table = { schema: draft.name("schema"), name: draft.name("table") };
      draft.script.push(
        `create schema ${quote(table.schema)}`,
        `create table ${qualify(table)} ${columns}`,
        asSuperuser(
          `alter schema ${quote(table.schema)} owner to supabase_admin; grant usage on schema ${
            quote(table.schema)
          } to postgres`,
        ),
      );
      register(draft, table);
      return { table, problem: /schema/ };
    },
  },
  "auth_org_id() that reads user_metadata": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select (auth.jwt() -> 'user_metadata' ->> 'org_id')::uuid"));
      return { problem: /public\.auth_org_id\(\) reads user_metadata, which every user can write/ };
    },
  },
  "auth_org_id() that returns text": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select auth.jwt() -> 'app_metadata' ->> 'org_id'", "text"));
      return { problem: /public\.auth_org_id\(\) cannot be the default of org_id: it must return uuid/ };
    },
  },
  "auth_org_id() that returns nothing": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select null::uuid"));
      return { problem: /public\.auth_org_id\(\) does not return app_metadata\.org_id of the JWT/ };
    },
  },
  "organizations that require more than a name": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id uuid primary key, name text not null, slug text not null)");
      return { problem: /public\.organizations requires slug/ };
    },
  },
  "organizations that cannot be referenced": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id uuid, name text)");
      return { problem: /public\.organizations cannot be referenced/ };
    },
  },
  "organizations that are a view": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create view public.organizations as select gen_random_uuid() as id, 'One' as name");
      return { problem: /public\.organizations cannot be referenced/ };
    },
  },
};
