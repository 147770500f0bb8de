import { randomUUID } from "node:crypto";
import type { PostgresError, Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { cloneDatabase } from "../databases.ts";
import { copyProject } from "../../local/project-copy.ts";
import { describeSchema } from "../schema.ts";
import { bind, dropApplication, indexLines, runSteps } from "../steps.ts";

type Database = Awaited<ReturnType<typeof cloneDatabase>>;
type Row = Record<string, unknown>;

const north = "b0000000-0000-4000-8000-000000000001";
const south = "b0000000-0000-4000-8000-000000000002";
/** Who tries: users of two organizations, each with the organization that is not theirs. */
const sides = [
  { name: "a user of the first organization", own: north, foreign: south },
  { name: "a user of the second organization", own: south, foreign: north },
];

let base: Database;

beforeAll(async () => {
  base = await cloneDatabase("isolation_base", "before");
  const copy = copyProject(`${inject("folder")}/isolation`);
  copy.append(
    "_discover_org_scoped_tables.sql",
    `insert into public.organizations (id, name) values ('${north}', 'north'), ('${south}', 'south');
     insert into tenancy.user_orgs (user_id, org_id)
     select id, case row_number() over (order by id) % 2 when 1 then '${north}'::uuid else '${south}' end from auth.users;`,
  );
  const { code, output } = await copy.push(base.url);
  expect(code, output).toBe(0);
  await base.sql.end();
});

afterAll(async () => await base?.drop());

const refusal = async (statement: Promise<unknown>) =>
  await statement.then(() => undefined, (error: PostgresError) => error);

const giveUsersTheirOrganization = async (sql: Sql) =>
  await sql`
    update auth.users
    set raw_app_meta_data = raw_app_meta_data || jsonb_build_object('org_id', tenancy.org_of(id))
  `;

/** A column of a table, as far as a new row has to know of it. */
interface Column {
  name: string;
  type: string;
  is_identity: boolean;
  is_foreign_key: boolean;
}
interface Table {
  relation: string;
  columns: Column[];
  /** Each unique key as the names of its columns, the primary key first. */
  keys: string[][];
}

async function readAllTables(sql: Sql): Promise<Table[]> {
  return await sql<Table[]>`
    select
      org_scoped_tables.relation::text as relation,
      (
        select json_agg(json_build_object(
          'name', attname,
          'type', format_type(atttypid, null),
          'is_identity', attidentity <> '',
          'is_foreign_key', exists (
            select from pg_constraint where conrelid = attrelid and contype = 'f' and attnum = any (conkey)
          )
        ) order by attnum)
        from pg_attribute
        where attrelid = org_scoped_tables.relation and attnum > 0 and not attisdropped
      ) as columns,
      coalesce((
        select json_agg(
          (
            select json_agg(attname order by position)
            from unnest(indkey::smallint[]) with ordinality as key (attnum, position)
            join pg_attribute on attrelid = indrelid and pg_attribute.attnum = key.attnum
          )
          order by indisprimary desc, indexrelid
        )
        from pg_index
        where indrelid = org_scoped_tables.relation and indisunique
      ), '[]') as keys
    from tenancy.org_scoped_tables
    order by 1
  `;
}

/** Every registered org-scoped table, which are those of the application. */
async function readTables(sql: Sql): Promise<Table[]> {
  const tables = await readAllTables(sql);
  const [registered] = await sql`select count(*)::integer as count from tenancy.registry where scope = 'org'`;
  expect(registered).toEqual({ count: 45 });
  expect(tables).toHaveLength(45);
  return [...tables];
}

/** The one table whose key is made of foreign keys alone, and a pair of its organization that is not taken. */
const freeKeys: Record<string, (sql: Sql, orgId: string) => Promise<Row | undefined>> = {
  campaign_phone_numbers: async (sql, orgId) =>
    (await sql`
      select campaigns.id as campaign_id, user_phone_numbers.id as user_phone_number_id
      from public.campaigns
      join public.user_phone_numbers using (org_id)
      where campaigns.org_id = ${orgId}
      except
      select campaign_id, user_phone_number_id from public.campaign_phone_numbers
      limit 1
    `)[0],
};

const anotherValue = (type: string, value: unknown): unknown => {
  switch (type) {
    case "uuid":
      return randomUUID();
    case "text":
      return `${value} ${randomUUID()}`;
    case "date":
      return `${2100 + Math.floor(Math.random() * 900)}-01-01`;
    default:
      throw new Error(`Cannot make another value of ${type}`);
  }
};

/** A row like one of the organization's, with keys of its own: what to insert. */
async function newRow(sql: Sql, { relation, columns, keys }: Table, orgId: string): Promise<Row> {
  const [like] = await sql<{ row: Row }[]>`
    select to_jsonb(row) as row from ${sql(relation)} as row where org_id = ${orgId} order by 1 limit 1
  `;
  if (!like) throw new Error(`${relation} has no row of ${orgId}`);
  const row: Row = { ...like.row, ...(await freeKeys[relation]?.(sql, orgId)) };
  for (const key of freeKeys[relation] ? [] : keys) {
    const own = columns.filter(({ name, is_foreign_key }) => key.includes(name) && !is_foreign_key).at(-1);
    if (!own) throw new Error(`${relation} has a key of foreign keys alone: ${key}`);
    if (!own.is_identity) row[own.name] = anotherValue(own.type, row[own.name]);
  }
  for (const { name } of columns.filter(({ is_identity }) => is_identity)) delete row[name];
  return row;
}

const columnsOf = (row: Row) => Object.keys(row).map((name) => `"${name}"`).join(", ");
async function insert(sql: Sql, relation: string, row: Row, ending = ""): Promise<number> {
  const inserted = await sql.unsafe(
    `insert into ${relation} (${columnsOf(row)}) overriding user value
     select ${columnsOf(row)} from jsonb_populate_record(null::${relation}, $1::text::jsonb) ${ending}`,
    [JSON.stringify(row)],
  );
  return inserted.count;
}

/** Runs in a transaction that leaves nothing behind. */
async function rehearse<Result>(sql: Sql, act: () => Promise<Result>): Promise<Result> {
  await sql`begin`;
  try {
    return await act();
  } finally {
    await sql`rollback`;
  }
}
async function become(sql: Sql, role: string, claims: unknown): Promise<void> {
  await sql`select set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
  await sql`set local role ${sql(role)}`;
}
/** The error of an act that must not leave the transaction aborted. */
async function refusalOf(sql: Sql, act: () => Promise<unknown>): Promise<PostgresError | undefined> {
  await sql`savepoint attempt`;
  const error = await refusal(act());
  if (error) await sql`rollback to attempt`;
  return error;
}
const claimsOf = (orgId: string, sub: string = randomUUID()) => ({
  sub,
  role: "authenticated",
  app_metadata: { org_id: orgId },
});

describe("isolation of organizations", () => {
  let database: Database;
  let sql: Sql;
  let tables: Table[];
  let schemaBefore: string[];
  const withoutRowSecurity = ["credit_transactions", "payment_events_log", "user_twilio_subaccounts"];

  beforeAll(async () => {
    database = await cloneDatabase("isolation", "isolation_base");
    sql = database.sql;
    tables = await readTables(sql);
  });

  afterAll(async () => await database?.drop());

  test("is refused while users have not their organization in their tokens", async () => {
    const before = await describeSchema(sql);
    expect(await refusal(sql`select tenancy.enable_org_isolation('public.calls')`)).toMatchObject({
      code: "55000",
      message: expect.stringMatching(/60/),
      detail: expect.stringContaining("tenancy.users_without_org"),
    });
    expect(await describeSchema(sql)).toEqual(before);
    await giveUsersTheirOrganization(sql);
    expect(await sql`select from tenancy.users_without_org`).toHaveLength(0);
  });

  test.each(withoutRowSecurity)(
    "is refused on %s, where row-level security is off, and names all such tables",
    async (table) => {
      const before = await describeSchema(sql);
      expect(await refusal(sql`select tenancy.enable_org_isolation(${`public.${table}`}::regclass)`)).toMatchObject({
        code: "55000",
        detail: expect.stringContaining(withoutRowSecurity.map((name) => `public.${name}`).join(", ")),
      });
      expect(await describeSchema(sql)).toEqual(before);
    },
  );

  test("is refused on what is no org-scoped table", async () => {
    for (const relation of ["public.billing_plans", "public.organizations"]) {
      expect(await refusal(sql`select tenancy.enable_org_isolation(${relation}::regclass)`)).toMatchObject({
        code: "55000",
      });
    }
  });

  test("goes through every table once row-level security is on, one restrictive policy each", async () => {
    for (const table of withoutRowSecurity) await sql.unsafe(`alter table public.${table} enable row level security`);
    schemaBefore = await describeSchema(sql);
    const status = () =>
      sql`
        select row_security, isolated, count(*)::integer as tables from tenancy.status group by 1, 2 order by 1, 2
      `;
    expect(await status()).toEqual([{ row_security: true, isolated: false, tables: 45 }]);
    await runSteps(sql, "enable_org_isolation");
    expect(await status()).toEqual([{ row_security: true, isolated: true, tables: 45 }]);
    const policies = await sql`
      select polname, polpermissive, polcmd, polroles::regrole[]::text as roles, count(*)::integer as tables
      from pg_policy
      where polname = 'org_isolation'
      group by 1, 2, 3, 4
    `;
    expect(policies).toEqual([
      { polname: "org_isolation", polpermissive: false, polcmd: "*", roles: "{authenticated}", tables: 45 },
    ]);
    const added = (await describeSchema(sql)).filter((line) => !schemaBefore.includes(line));
    expect(added.filter((line) => !line.startsWith("policy org_isolation "))).toEqual([]);
    expect(await sql`select tenancy.enable_org_isolation('public.calls') as worked`).toEqual([{ worked: false }]);
  });

  test("leaves the application's own policies what they were: of one's organization, one's own rows", async () => {
    const [user] = await sql`
      select user_orgs.user_id as id, count(*)::integer as rows
      from tenancy.user_orgs join public.calls using (user_id, org_id)
      where org_id = ${north} group by 1 order by 1 limit 1
    `;
    const [all] = await sql`select count(*)::integer as rows from public.calls where org_id = ${north}`;
    expect(all?.["rows"]).toBeGreaterThan(user?.["rows"]);
    const table = tables.find(({ relation }) => relation === "calls");
    if (!table) throw new Error("calls is not registered");
    await rehearse(sql, async () => {
      const row = { ...(await newRow(sql, table, north)), user_id: user?.["id"], org_id: north };
      await become(sql, "authenticated", claimsOf(north, user?.["id"]));
      const seen = await sql`select distinct user_id, org_id from public.calls`;
      expect(seen).toEqual([{ user_id: user?.["id"], org_id: north }]);
      expect((await sql`select from public.calls`).length).toBe(user?.["rows"]);
      expect(await insert(sql, "calls", row)).toBe(1);
      expect(await refusalOf(sql, () => insert(sql, "calls", { ...row, id: randomUUID(), user_id: randomUUID() })))
        .toMatchObject({
          code: "42501",
        });
      expect(
        await refusalOf(sql, () => insert(sql, "calls", { ...row, id: randomUUID(), org_id: south })),
        "one's own row in another organization",
      ).toMatchObject({ code: "42501" });
    });
    await rehearse(sql, async () => {
      await become(sql, "authenticated", claimsOf(south, user?.["id"]));
      expect(await sql`select from public.calls`, "the same user, gone to another organization").toHaveLength(0);
    });
  });

  test.each([
    ["disable_org_isolation", async () => await runSteps(sql, "disable_org_isolation")],
    ["roll_back(6)", async () => {
      for (let target: string | null = ""; target !== null;) {
        const [row]: { target: string | null }[] = await sql`select tenancy.roll_back(6, ${
          target || null
        }::regclass)::text as target`;
        target = row?.target ?? null;
      }
    }],
  ])("is put back by %s: the schema is what it was", async (_name, putBack) => {
    await putBack();
    expect(await describeSchema(sql)).toEqual(schemaBefore);
    expect(await sql`select from tenancy.status where isolated`).toHaveLength(0);
    await runSteps(sql, "enable_org_isolation");
  });

  describe("with policies and privileges that let everyone signed in do everything", () => {
    beforeAll(async () => {
      await sql.unsafe(`
        create schema lens;
        grant usage on schema lens to anon, authenticated;
        create function lens.count_rows(relation regclass) returns integer language plpgsql security invoker as
        $$ declare found integer; begin execute format('select count(*) from %s', relation) into found; return found; end $$;
      `).simple();
      for (const { relation } of tables) {
        await sql.unsafe(`
          create policy everything on ${relation} to authenticated using (true) with check (true);
          grant all on ${relation} to anon, authenticated;
          create view lens.${relation} with (security_invoker = true) as select * from ${relation};
          grant all on lens.${relation} to anon, authenticated;
        `).simple();
      }
    });

    /** How many rows of each table belong to the organization, by the owner's eyes. */
    const countRows = async (orgId: string) => {
      const counts = new Map<string, number>();
      for (const { relation } of tables) {
        const [row] = await sql`select count(*)::integer as rows from ${sql(relation)} where org_id = ${orgId}`;
        counts.set(relation, row?.["rows"]);
      }
      expect(Math.min(...counts.values()), "every table has rows of both organizations").toBeGreaterThan(0);
      return counts;
    };
    /** Does something to every table as the user of a side, and compares it with what it should come to. */
    const onEveryTable = async (
      orgId: string,
      act: (table: Table, own: number) => Promise<unknown>,
      expected: (own: number) => unknown,
    ) => {
      const own = await countRows(orgId);
      const found = new Map<string, unknown>();
      await rehearse(sql, async () => {
        await become(sql, "authenticated", claimsOf(orgId));
        for (const table of tables) found.set(table.relation, await act(table, own.get(table.relation) ?? 0));
      });
      expect(found).toEqual(new Map([...own].map(([relation, rows]) => [relation, expected(rows)])));
    };

    describe.each(sides)("$name", ({ own, foreign }) => {
      test("sees its own organization's rows in every table, all of them and no others", async () => {
        await onEveryTable(
          own,
          async (
            { relation },
          ) => [...(await sql`select org_id, count(*)::integer as rows from ${sql(relation)} group by 1`)],
          (rows) => [{ org_id: own, rows }],
        );
      });

      test("finds nothing when it asks for the other organization's", async () => {
        await onEveryTable(
          own,
          async ({ relation }) =>
            (await sql`select from ${sql(relation)} where org_id = ${foreign} or org_id is null`).length,
          () => 0,
        );
      });

      test("counts the same through a view, and through a function", async () => {
        await onEveryTable(
          own,
          async ({ relation }) =>
            (await sql`
              select (select count(*)::integer from ${
              sql(`lens.${relation}`)
            }) as view, lens.count_rows(${relation}::regclass) as function
            `)[0],
          (rows) => ({ view: rows, function: rows }),
        );
      });

      test("sees only its own on both sides of every join", async () => {
        const references = await sql<{ child: string; parent: string; condition: string }[]>`
          select relation::text as child, parent::text as parent, (
            select string_agg(format('parent.%I = child.%I', pair.parent_column, pair.child_column), ' and ')
            from unnest(column_names, parent_column_names) as pair (child_column, parent_column)
          ) as condition
          from tenancy.org_references
        `;
        expect(references.length).toBeGreaterThan(30);
        const joined = async (condition: string) => {
          const rows = [];
          for (const { child, parent, condition: key } of references) {
            const [row] = await sql.unsafe(
              `select count(*)::integer as rows from ${child} as child join ${parent} as parent on ${key} where ${condition}`,
            );
            rows.push(`${child} ${parent} ${row?.["rows"]}`);
          }
          return rows;
        };
        const expected = await joined(`child.org_id = '${own}' and parent.org_id = '${own}'`);
        await rehearse(sql, async () => {
          await become(sql, "authenticated", claimsOf(own));
          expect(await joined("true")).toEqual(expected);
        });
      });

      test("inserts rows of its own organization and of no other, in every table", async () => {
        const rows = new Map<string, { own: Row; foreign: Row }>();
        for (const table of tables) {
          rows.set(table.relation, { own: await newRow(sql, table, own), foreign: await newRow(sql, table, foreign) });
        }
        await onEveryTable(
          own,
          async ({ relation }) => {
            const { own: ownRow = {}, foreign: foreignRow = {} } = rows.get(relation) ?? {};
            const { org_id: _, ...withoutOrganization } = ownRow;
            const refused = [
              await refusalOf(sql, () => insert(sql, relation, foreignRow)),
              await refusalOf(sql, () => insert(sql, relation, { ...ownRow, org_id: foreign })),
              await refusalOf(sql, () => insert(sql, relation, { ...ownRow, org_id: null })),
            ];
            await sql`savepoint accepted`;
            const inserted = await insert(sql, relation, ownRow);
            await sql`rollback to accepted`;
            return {
              refused: refused.map((error) => error?.code),
              inserted,
              withoutOrganization: await insert(sql, relation, withoutOrganization),
              rows: [...(await sql`select distinct org_id from ${sql(relation)}`)],
            };
          },
          () => ({
            refused: ["42501", "42501", "42501"],
            inserted: 1,
            withoutOrganization: 1,
            rows: [{ org_id: own }],
          }),
        );
      });

      test("updates its own organization's rows and no others, in every table", async () => {
        await onEveryTable(
          own,
          async ({ relation, columns }) => {
            const column = sql(columns.find(({ name, is_identity }) => name !== "org_id" && !is_identity)?.name ?? "");
            return {
              all: (await sql`update ${sql(relation)} set ${column} = ${column}`).count,
              foreign: (await sql`update ${sql(relation)} set ${column} = ${column} where org_id = ${foreign}`).count,
              givenAway: (await refusalOf(sql, async () => await sql`update ${sql(relation)} set org_id = ${foreign}`))
                ?.code,
              taken: (await sql`update ${sql(relation)} set org_id = ${own} where org_id = ${foreign}`).count,
            };
          },
          (rows) => ({ all: rows, foreign: 0, givenAway: expect.stringMatching(/^(42501|23001)$/), taken: 0 }),
        );
      });

      test("cannot write over the other organization's rows with an upsert, in any table with a key", async () => {
        const keyed = tables.filter(({ keys }) => keys.length > 0);
        expect(tables.length - keyed.length).toBe(1);
        const foreignRows = new Map<string, Row>();
        for (const { relation } of keyed) {
          const [found] = await sql<{ row: Row }[]>`
            select to_jsonb(row) as row from ${sql(relation)} as row where org_id = ${foreign} limit 1
          `;
          foreignRows.set(relation, found?.row ?? {});
        }
        const outcomes = new Map<string, unknown>();
        await rehearse(sql, async () => {
          await become(sql, "authenticated", claimsOf(own));
          for (const { relation, keys: [key = []] } of keyed) {
            const row = { ...foreignRows.get(relation), org_id: own };
            const upsert = async (action: string) =>
              await sql.unsafe(
                `insert into ${relation} (${columnsOf(row)}) overriding system value
                 select ${columnsOf(row)} from jsonb_populate_record(null::${relation}, $1::text::jsonb)
                 on conflict (${key.join(", ")}) do ${action}`,
                [JSON.stringify(row)],
              );
            outcomes.set(relation, {
              update: (await refusalOf(sql, () => upsert(`update set org_id = excluded.org_id`)))?.code,
              nothing: (await upsert("nothing")).count,
            });
          }
        });
        expect(outcomes).toEqual(new Map(keyed.map(({ relation }) => [relation, { update: "42501", nothing: 0 }])));
      });

      test("deletes rows of its own organization and no others, in every table", async () => {
        const own_rows = await countRows(own);
        const outcomes = new Map<string, unknown>();
        for (const { relation } of tables) {
          await rehearse(sql, async () => {
            await sql`set local session_replication_role = replica`;
            await become(sql, "authenticated", claimsOf(own));
            outcomes.set(relation, {
              foreign: (await sql`delete from ${sql(relation)} where org_id = ${foreign}`).count,
              all: (await sql`delete from ${sql(relation)}`).count,
            });
          });
        }
        expect(outcomes).toEqual(new Map([...own_rows].map(([relation, all]) => [relation, { foreign: 0, all }])));
      });
    });

    test.each([
      ["a user without organization", { role: "authenticated", app_metadata: {} }],
      ["a user who gave itself one", { role: "authenticated", app_metadata: {}, user_metadata: { org_id: north } }],
      ["a user whose organization is no uuid", { role: "authenticated", app_metadata: { org_id: "north" } }],
      ["a user whose organization is null", { role: "authenticated", app_metadata: { org_id: null } }],
      ["a user whose organization is a list", { role: "authenticated", app_metadata: { org_id: [north, south] } }],
      ["a user with claims of an older form", { role: "authenticated", org_id: north }],
    ])("%s sees nothing in any table, and inserts nothing", async (_name, claims) => {
      const rows = new Map<string, Row>();
      for (const table of tables) rows.set(table.relation, await newRow(sql, table, north));
      const outcomes = new Map<string, unknown>();
      await rehearse(sql, async () => {
        await become(sql, "authenticated", claims);
        for (const { relation } of tables) {
          const { org_id: _, ...withoutOrganization } = rows.get(relation) ?? {};
          outcomes.set(relation, [
            (await sql`select from ${sql(relation)}`).length,
            (await refusalOf(sql, () => insert(sql, relation, rows.get(relation) ?? {})))?.code,
            (await refusalOf(sql, () => insert(sql, relation, withoutOrganization)))?.code,
          ]);
        }
      });
      expect(outcomes).toEqual(new Map(tables.map(({ relation }) => [relation, [0, "42501", "42501"]])));
    });

    test("who is not signed in sees nothing of it, though it has the privileges", async () => {
      const outcomes = new Map<string, number>();
      await rehearse(sql, async () => {
        await become(sql, "anon", { role: "anon", app_metadata: { org_id: north } });
        for (const { relation } of tables) {
          outcomes.set(relation, (await sql`select from ${sql(relation)}`).length);
          expect((await sql`delete from ${sql(relation)}`).count).toBe(0);
        }
      });
      expect(outcomes).toEqual(new Map(tables.map(({ relation }) => [relation, 0])));
    });

    test("would be open to everyone signed in, but for the isolation", async () => {
      const own = await countRows(north);
      const open = new Map<string, boolean>();
      await rehearse(sql, async () => {
        for (const { relation } of tables) await sql.unsafe(`drop policy org_isolation on ${relation}`);
        await become(sql, "authenticated", claimsOf(north));
        for (const { relation } of tables) {
          open.set(relation, (await sql`select from ${sql(relation)}`).length > (own.get(relation) ?? 0));
        }
      });
      expect(open).toEqual(new Map(tables.map(({ relation }) => [relation, true])));
    });

    afterAll(async () => {
      await sql`drop schema lens cascade`;
      for (const { relation } of tables) {
        await sql.unsafe(`drop policy everything on ${relation}`);
      }
    });
  });

  test.each([
    ["alter table public.calls disable row level security", { code: "55000" }],
    ["alter policy org_isolation on public.calls using (true)", { code: "42710" }],
    ["alter policy org_isolation on public.calls with check (true)", { code: "42710" }],
    ["alter policy org_isolation on public.calls to service_role", { code: "42710" }],
    ["drop policy org_isolation on public.calls", undefined],
  ])("is not taken for whole after: %s", async (damage, answer) => {
    await rehearse(sql, async () => {
      await sql.unsafe(damage);
      expect(await sql`select relation::text from tenancy.status where not isolated`).toEqual([{ relation: "calls" }]);
      const error = await refusalOf(sql, async () => await sql`select tenancy.enable_org_isolation('public.calls')`);
      if (answer) expect(error).toMatchObject(answer);
      else expect(await sql`select from tenancy.status where not isolated`).toHaveLength(0);
    });
  });
});

/** A foreign key between two org-scoped tables, by the catalog alone. */
interface Reference {
  name: string;
  child: string;
  columns: string[];
  parent: string;
  parentColumns: string[];
  definition: string;
}
const readReferences = async (sql: Sql) => [
  ...(await sql<Reference[]>`
    with org_scoped as (
      select format('%I.%I', schema_name, table_name)::regclass as relation from tenancy.registry where scope = 'org'
    )
    select
      conname as name,
      conrelid::regclass::text as child,
      array(
        select attname::text from unnest(conkey) with ordinality as key (attnum, position)
        join pg_attribute on attrelid = conrelid and pg_attribute.attnum = key.attnum
        order by position
      ) as columns,
      confrelid::regclass::text as parent,
      array(
        select attname::text from unnest(confkey) with ordinality as key (attnum, position)
        join pg_attribute on attrelid = confrelid and pg_attribute.attnum = key.attnum
        order by position
      ) as "parentColumns",
      pg_get_constraintdef(pg_constraint.oid) as definition
    from pg_constraint
    join org_scoped as child on child.relation = conrelid
    join org_scoped as parent on parent.relation = confrelid
    where contype = 'f'
    order by conrelid::regclass::text, conname
  `),
];
const quoted = (names: string[]) => names.map((name) => `"${name}"`).join(", ");
const joinOn = ({ columns, parentColumns }: Reference) =>
  columns.map((column, index) => `child."${column}" = parent."${parentColumns[index]}"`).join(" and ");

/** Every row that references one of another organization, found without the migration's code. */
async function findCrossing(sql: Sql): Promise<string[]> {
  const found: string[] = [];
  for (const reference of await readReferences(sql)) {
    const rows = await sql.unsafe<{ key: Row; org_id: string; parent_org_id: string }[]>(`
      select
        (
          select jsonb_object_agg(attname, to_jsonb(child) -> attname)
          from pg_attribute
          where attrelid = '${reference.child}'::regclass
            and (attnum = any (indkey) or indkey is null and attnum > 0 and not attisdropped)
        ) as key,
        child.org_id,
        parent.org_id as parent_org_id
      from ${reference.child} as child
      join ${reference.parent} as parent on ${joinOn(reference)}
      left join pg_index on indrelid = '${reference.child}'::regclass and indisprimary
      where child.org_id <> parent.org_id
    `);
    for (const { key, org_id, parent_org_id } of rows) {
      found.push(describeCrossing(reference.child, key, org_id, reference.name, reference.parent, parent_org_id));
    }
  }
  return found.sort();
}
const describeCrossing = (child: string, key: Row, orgId: string, name: string, parent: string, parentOrgId: string) =>
  `${child} ${JSON.stringify(Object.entries(key).sort())} of ${orgId} by ${name} to ${parent} of ${parentOrgId}`;
async function listCrossing(sql: Sql): Promise<string[]> {
  const rows = await sql`select *, relation::text, parent::text from tenancy.cross_org_references()`;
  return rows.map((row) =>
    describeCrossing(
      row["relation"],
      row["row_key"],
      row["org_id"],
      row["constraint_name"],
      row["parent"],
      row["parent_org_id"],
    )
  ).sort();
}

/** Gives every reference a parent of the row's own organization, one each in turn; rows that have none go. */
async function uncross(sql: Sql): Promise<void> {
  // Its key is two references: other pairs are made below, instead of changing these into pairs that are there.
  await sql`delete from public.campaign_phone_numbers`;
  for (const reference of await readReferences(sql)) {
    const { child, columns: [column], parent, parentColumns: [parentColumn] } = reference;
    await sql.unsafe(`
      update ${child} as child
      set ${column} = parents.keys[1 + numbered.place % cardinality(parents.keys)]
      from (select ctid, org_id, row_number() over (partition by org_id order by ctid) as place from ${child}) as numbered
      join (select org_id, array_agg(${parentColumn} order by ${parentColumn}) as keys from ${parent} group by 1) as parents
        using (org_id)
      where numbered.ctid = child.ctid and child.${column} is not null
    `);
    await sql.unsafe(`
      delete from ${child} as child using ${parent} as parent where ${
      joinOn(reference)
    } and child.org_id <> parent.org_id
    `);
  }
  await sql`
    insert into public.campaign_phone_numbers (campaign_id, user_phone_number_id, user_id, org_id)
    select campaign.id, number.id, number.user_id, org_id
    from (select *, row_number() over (partition by org_id order by id) as place from public.campaigns) as campaign
    join (select *, row_number() over (partition by org_id order by id) as place from public.user_phone_numbers) as number
      using (org_id, place)
    where place <= 5
  `;
}

/** Foreign keys of every kind that can be bound and that the application has none of. */
const moreReferences = `
  create schema harbour;
  grant usage on schema harbour to authenticated;
  create table harbour.ports (
    id integer primary key, code text not null unique, country text not null, number integer not null, unique (country, number)
  );
  create table harbour.ships (
    id integer primary key,
    port_code text default 'P1' references harbour.ports (code) on update cascade on delete set default,
    built_at integer references harbour.ports (id) on update restrict on delete restrict,
    flagship_id integer references harbour.ships (id) on delete cascade deferrable initially deferred,
    country text,
    number integer,
    tug_id integer references harbour.ships (id) on delete set null deferrable,
    constraint home foreign key (country, number) references harbour.ports (country, number) on delete set null (number)
  );
  comment on constraint home on harbour.ships is 'where it belongs';
  create index on harbour.ships (port_code);
  select tenancy.onboard('harbour.ports');
  select tenancy.onboard('harbour.ships');
  insert into harbour.ports (id, code, country, number, org_id)
  select n, 'P' || n, 'C' || n, n, case n % 2 when 1 then '${north}'::uuid else '${south}' end from generate_series(1, 10) as n;
  insert into harbour.ships (id, port_code, built_at, flagship_id, country, number, tug_id, org_id)
  select n, 'P' || n, n, greatest(n - 2, 2 - n % 2), 'C' || n, n, greatest(n - 4, 2 - n % 2), case n % 2 when 1 then '${north}'::uuid else '${south}' end
  from generate_series(1, 10) as n;
`;

describe("isolation of a partitioned table", () => {
  let database: Database;
  let sql: Sql;
  const members = ["harbour.voyages", "harbour.voyages_1", "harbour.voyages_2"];

  beforeAll(async () => {
    database = await cloneDatabase("isolation_partitions", "isolation_base");
    sql = database.sql;
    await giveUsersTheirOrganization(sql);
    await sql.unsafe(`
      create schema harbour;
      grant usage on schema harbour to authenticated;
      create table harbour.voyages (id integer, year integer, primary key (id, year)) partition by list (year);
      create table harbour.voyages_1 partition of harbour.voyages for values in (1);
      create table harbour.voyages_2 partition of harbour.voyages for values in (2);
      select tenancy.onboard('harbour.voyages');
      insert into harbour.voyages (id, year, org_id)
      select n, 1 + n / 3, case n % 2 when 0 then '${north}'::uuid else '${south}' end from generate_series(1, 4) as n;
      create policy everything on harbour.voyages to authenticated using (true) with check (true);
      create policy everything on harbour.voyages_1 to authenticated using (true) with check (true);
      create policy everything on harbour.voyages_2 to authenticated using (true) with check (true);
      grant all on all tables in schema harbour to authenticated;
    `).simple();
  });

  afterAll(async () => await database?.drop());

  const isolate = async () =>
    await sql.unsafe("do $$ begin while tenancy.enable_org_isolation('harbour.voyages') loop commit; end loop; end $$")
      .simple();
  const isolated = async () =>
    (await sql`select isolated from tenancy.status where relation = 'harbour.voyages'::regclass`)[0]?.["isolated"];

  test("is refused while row-level security is off on any partition, which anyone can read by itself", async () => {
    await sql`alter table harbour.voyages enable row level security`;
    await sql`alter table harbour.voyages_1 enable row level security`;
    expect(await refusal(isolate())).toMatchObject({
      code: "55000",
      detail: expect.stringContaining("harbour.voyages_2"),
    });
    await sql`alter table harbour.voyages_2 enable row level security`;
    await isolate();
    expect(await isolated()).toBe(true);
  });

  test.each(members)("holds for rows that are read and written through %s", async (member) => {
    const [own] = await sql`select count(*)::integer as rows from ${sql(member)} where org_id = ${north}`;
    expect(own?.["rows"]).toBeGreaterThan(0);
    await rehearse(sql, async () => {
      await become(sql, "authenticated", claimsOf(north));
      expect(await sql`select org_id, count(*)::integer as rows from ${sql(member)} group by 1`).toEqual([
        { org_id: north, rows: own?.["rows"] },
      ]);
      expect((await sql`delete from ${sql(member)} where org_id = ${south}`).count).toBe(0);
      const year = member.endsWith("_2") ? 2 : 1;
      const insertAs = async (orgId: string) =>
        await sql`insert into ${sql(member)} (id, year, org_id) values (9, ${year}, ${orgId})`;
      expect(await refusalOf(sql, () => insertAs(south))).toMatchObject({ code: "42501" });
      expect((await insertAs(north)).count).toBe(1);
    });
  });

  test("does not pass for whole once there is a new partition, until the same call is made again", async () => {
    await sql`create table harbour.voyages_3 partition of harbour.voyages for values in (3)`;
    expect(await isolated()).toBe(false);
    expect(await refusal(isolate())).toMatchObject({
      code: "55000",
      detail: expect.stringContaining("harbour.voyages_3"),
    });
    await sql`alter table harbour.voyages_3 enable row level security`;
    await isolate();
    expect(await isolated()).toBe(true);
  });
});

describe("rows that reference another organization's", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("crossing", "isolation_base");
    sql = database.sql;
  });

  afterAll(async () => await database?.drop());

  test("are listed, each by its key, as they are in the demonstration's data", async () => {
    const found = await findCrossing(sql);
    expect(found.length).toBeGreaterThan(100);
    expect(await listCrossing(sql)).toEqual(found);
    const [calls] = await sql`
      select count(*)::integer as listed, (
        select count(*)::integer from tenancy.cross_org_references() where relation = 'public.calls'::regclass
      ) as of_all
      from tenancy.cross_org_references('public.calls')
    `;
    expect(calls?.["listed"]).toBe(calls?.["of_all"]);
  });

  test("are not there when nothing is listed, and exactly those that were planted are", async () => {
    await uncross(sql);
    expect(await findCrossing(sql)).toEqual([]);
    expect(await listCrossing(sql)).toEqual([]);
    const planted: string[] = [];
    const plant = async (name: string, child: string, column: string, parent: string) => {
      const [row] = await sql.unsafe(`
        update ${child} set ${column} = (select id from ${parent} where org_id = '${south}' order by id limit 1)
        where ctid = (select ctid from ${child} where org_id = '${north}' order by ctid limit 1)
        returning to_jsonb(${child}) as row
      `);
      const [key] = await sql<{ columns: string[] }[]>`
        select array_agg(attname::text) as columns from pg_index join pg_attribute on attrelid = indrelid and attnum = any (indkey)
        where indisprimary and indrelid = ${child}::regclass
      `;
      planted.push(
        describeCrossing(
          child,
          Object.fromEntries((key?.columns ?? []).map((part) => [part, row?.["row"][part]])),
          north,
          name,
          parent,
          south,
        ),
      );
    };
    await plant("calls_lead_id_fkey", "calls", "lead_id", "leads");
    await plant("campaigns_cloned_from_id_fkey", "campaigns", "cloned_from_id", "campaigns");
    await plant("kb_sync_log_integration_id_fkey", "kb_sync_log", "integration_id", "integrations");
    await plant("campaign_phone_numbers_campaign_id_fkey", "campaign_phone_numbers", "campaign_id", "campaigns");
    expect(await listCrossing(sql)).toEqual(planted.sort());
  });

  test.each(["calls", "campaigns", "kb_sync_log", "campaign_phone_numbers"])(
    "keep the foreign keys of %s from being bound, and the refusal says where they are listed",
    async (table) => {
      const error = await refusal(bind(sql, `public.${table}`));
      expect(error).toMatchObject({ code: "23503", detail: expect.stringContaining("tenancy.cross_org_references(") });
      const listing = /tenancy\.cross_org_references\([^)]*\)/.exec(error?.detail ?? "")?.[0];
      expect((await sql.unsafe(`select relation::text from ${listing}`)).map((row) => row["relation"])).toEqual([
        table,
      ]);
      const crossing = (await readReferences(sql)).filter(({ child, name, columns }) =>
        child === table && columns[0] !== "org_id" && error?.message.includes(name)
      );
      expect(crossing, "the foreign key is what it was").toHaveLength(1);
    },
  );
});

describe("foreign keys that are bound to the organization", () => {
  let bound: Database;
  let unbound: Database;
  let references: Reference[];
  let schemaBefore: string[];
  const lines: string[] = [];

  beforeAll(async () => {
    const mended = await cloneDatabase("binding_base", "isolation_base");
    const { sql } = mended;
    await giveUsersTheirOrganization(sql);
    await uncross(sql);
    await sql.unsafe(moreReferences).simple();
    // Nothing but the foreign keys is to stand between a user and another organization's row.
    const opened = await sql`select relation::text as relation from tenancy.org_scoped_tables`;
    for (const { relation } of opened) {
      await sql.unsafe(`
        alter table ${relation} enable row level security;
        create policy everything on ${relation} to authenticated using (true) with check (true);
        grant all on ${relation} to authenticated;
      `).simple();
    }
    await sql`update public.campaigns set cloned_from_id = (select min(id::text)::uuid from public.campaigns as own where own.org_id = campaigns.org_id)`;
    await sql`update public.contacts set merged_into_id = (select min(id::text)::uuid from public.contacts as own where own.org_id = contacts.org_id)`;
    references = await readReferences(sql);
    await sql.end();
    bound = await cloneDatabase("bound", "binding_base");
    unbound = await cloneDatabase("unbound", "binding_base");
    await mended.drop();
  });

  afterAll(async () => {
    await bound?.drop();
    await unbound?.drop();
  });

  test("are those that there are, and reference nothing of another organization", async () => {
    expect(references.filter(({ child }) => !child.startsWith("harbour")).length).toBeGreaterThan(30);
    expect(references.filter(({ child }) => child.startsWith("harbour"))).toHaveLength(5);
    expect(await listCrossing(bound.sql)).toEqual([]);
  });

  test("need indexes: where a table is large they are to be built first, by the lines of the refusal", async () => {
    const { sql } = bound;
    await sql`update tenancy.settings set small_table_bytes = 0`;
    schemaBefore = await describeSchema(sql);
    const error = await refusal(sql`select tenancy.bind_to_parent('public.hallucination_flags')`);
    expect(error).toMatchObject({ code: "55000" });
    expect(indexLines(error)).toEqual([
      "create unique index concurrently on public.call_tracking (org_id, id);",
      "create index concurrently on public.hallucination_flags (org_id, call_tracking_id);",
    ]);
    expect(await describeSchema(sql)).toEqual(schemaBefore);
    lines.push(...(await bind(sql, "public.hallucination_flags")));
    expect(lines).toEqual(indexLines(error));
    await sql`update tenancy.settings set small_table_bytes = default`;
  });

  test("keep their names, actions, deferral and comments, with org_id on both sides", async () => {
    const { sql } = bound;
    for (const child of new Set(references.map(({ child }) => child))) lines.push(...(await bind(sql, child)));
    const expected = references.map((reference) => ({
      ...reference,
      columns: ["org_id", ...reference.columns],
      parentColumns: ["org_id", ...reference.parentColumns],
      definition: reference.definition
        .replace("FOREIGN KEY (", "FOREIGN KEY (org_id, ")
        .replace(/(REFERENCES [\w.]+\()/, "$1org_id, ")
        .replace(/SET (NULL|DEFAULT)(?! \()/, `SET $1 (${reference.columns.join(", ")})`),
    }));
    expect(await readReferences(sql)).toEqual(expected);
    const [described] = await sql`
      select obj_description(oid, 'pg_constraint') as comment, convalidated from pg_constraint where conname = 'home'
    `;
    expect(described).toEqual({ comment: "where it belongs", convalidated: true });
    expect(await sql`select from pg_constraint where not convalidated`).toHaveLength(0);
    expect(await sql`select from tenancy.verify_schema() where not passed`).toHaveLength(0);
    for (const { child } of references) {
      expect(await sql`select tenancy.bind_to_parent(${child}::regclass) as worked`).toEqual([{ worked: false }]);
    }
  });

  describe.each(["postgres", "authenticated"])("as %s,", (role) => {
    test("an update cannot make a row reference another organization's, and can one of its own", async () => {
      const { sql } = bound;
      const outcomes = new Map<string, unknown>();
      for (const reference of references) {
        const { name, child, columns, parent, parentColumns } = reference;
        const pointTo = (orgId: string) => `
          update ${child} as child set (${quoted(columns)}) = (
            select ${parentColumns.map((column) => `parent."${column}"`).join(", ")} from ${parent} as parent
            where parent.org_id = '${orgId}' order by ${quoted(parentColumns)} desc limit 1
          )
          where ctid = (select ctid from ${child} where org_id = '${north}' order by ctid limit 1)
        `;
        await rehearse(sql, async () => {
          await sql`set constraints all immediate`;
          // Where the reference is part of a key, no other row is to have it.
          if (freeKeys[child]) {
            await sql.unsafe(
              `delete from ${child} where org_id <> '${north}' or ctid <> (select min(ctid) from ${child} where org_id = '${north}')`,
            );
          }
          await become(sql, role, claimsOf(north));
          const error = await refusalOf(sql, async () => await sql.unsafe(pointTo(south)));
          outcomes.set(`${child} ${name}`, {
            code: error?.code,
            constraint: error?.constraint_name,
            own: (await sql.unsafe(pointTo(north))).count,
          });
        });
      }
      expect(outcomes).toEqual(
        new Map(references.map(({ child, name }) => [`${child} ${name}`, { code: "23503", constraint: name, own: 1 }])),
      );
    });

    test("an insert cannot either", async () => {
      const { sql } = bound;
      const tables = new Map((await readAllTables(sql)).map((table) => [table.relation, table]));
      const outcomes = new Map<string, unknown>();
      const publicReferences = references.filter(({ child }) => !child.startsWith("harbour"));
      for (
        const { name, child, columns: [column = ""], parent, parentColumns: [parentColumn = ""] } of publicReferences
      ) {
        const table = tables.get(child);
        if (!table) throw new Error(`${child} is not registered`);
        const row = await newRow(sql, table, north);
        const [foreign] = await sql.unsafe(
          `select ${parentColumn} as key from ${parent} where org_id = '${south}' limit 1`,
        );
        await rehearse(sql, async () => {
          await become(sql, role, claimsOf(north));
          const error = await refusalOf(sql, () => insert(sql, child, { ...row, [column]: foreign?.["key"] }));
          outcomes.set(`${child} ${name}`, {
            code: error?.code,
            constraint: error?.constraint_name,
            own: await insert(sql, child, row),
          });
        });
      }
      expect(outcomes).toEqual(
        new Map(
          publicReferences.map(({ child, name }) => [`${child} ${name}`, { code: "23503", constraint: name, own: 1 }]),
        ),
      );
    });

    test("without them it could", async () => {
      const { sql } = unbound;
      await rehearse(sql, async () => {
        await become(sql, role, claimsOf(north));
        const moved = await sql.unsafe(`
          update public.calls set lead_id = (select id from public.leads where org_id = '${south}' limit 1)
          where ctid = (select ctid from public.calls where org_id = '${north}' limit 1)
        `);
        expect(moved.count).toBe(1);
      });
    });
  });

  /** What a statement does to all tables, but for the times at which it did and what a log gives its rows for keys. */
  const consequences = async (sql: Sql, statement: string) =>
    await rehearse(sql, async () => {
      const error = await refusalOf(sql, async () => {
        await sql.unsafe(statement);
        await sql`set constraints all immediate`;
      });
      const tables = await sql<
        { relation: string }[]
      >`select relation::text as relation from tenancy.org_scoped_tables order by 1`;
      const digests = await sql.unsafe(
        tables.map(({ relation }) => `
          select '${relation}' as relation, count(*)::integer as rows, sum(hashtextextended(
            (to_jsonb(row) - 'updated_at'${
          relation === "compliance_audit_logs" ? " - 'id' - 'occurred_at'" : ""
        })::text, 0
          ))::text as digest
          from ${relation} as row
        `).join(" union all ") + " order by 1",
      );
      return { code: error?.code, digests: [...digests] };
    });

  test("do on a delete what they did before", async () => {
    const outcomes: [string, unknown][] = [];
    const expected: [string, unknown][] = [];
    const untouched = (await consequences(unbound.sql, "select 1")).digests;
    const codes = new Set<string | undefined>();
    for (const reference of references) {
      const { name, child, columns, parent, parentColumns } = reference;
      const statement = `
        delete from ${parent} where (${quoted(parentColumns)}) = (
          select ${quoted(columns)} from ${child} where ${
        columns.map((column) => `"${column}" is not null`).join(" and ")
      }
          order by ${quoted(columns)} limit 1
        )
      `;
      const before = await consequences(unbound.sql, statement);
      codes.add(before.code);
      if (!before.code) expect(before.digests, `${name} is put to use`).not.toEqual(untouched);
      expected.push([`${child} ${name}`, before]);
      outcomes.push([`${child} ${name}`, await consequences(bound.sql, statement)]);
    }
    expect(codes, "deletes that go through and deletes that are refused").toEqual(new Set([undefined, "23503"]));
    expect(outcomes).toEqual(expected);
  });

  test("do on an update of the key what they did before", async () => {
    for (const { child, name, columns, parent, parentColumns } of references) {
      const [column = ""] = parentColumns;
      const [type] = await unbound
        .sql`select atttypid::regtype::text as name from pg_attribute where attrelid = ${parent}::regclass and attname = ${column}`;
      const value =
        { uuid: `'d0000000-0000-4000-8000-000000000001'`, integer: "1000", text: "'new'" }[type?.["name"] as string];
      const statement = `
        update ${parent} set "${column}" = ${value} where (${quoted(parentColumns)}) = (
          select ${quoted(columns)} from ${child} where ${columns.map((part) => `"${part}" is not null`).join(" and ")}
          order by ${quoted(columns)} limit 1
        )
      `;
      expect(await consequences(bound.sql, statement), `${child} ${name}`).toEqual(
        await consequences(unbound.sql, statement),
      );
    }
  });

  test("set to NULL the reference and nothing else", async () => {
    const { sql } = bound;
    await rehearse(sql, async () => {
      const [row] =
        await sql`select id, lead_id, org_id from public.calls where lead_id is not null and org_id = ${north} limit 1`;
      await sql`delete from public.leads where id = ${row?.["lead_id"]}`;
      expect(await sql`select id, lead_id, org_id from public.calls where id = ${row?.["id"]}`).toEqual([{
        ...row,
        lead_id: null,
      }]);
      await sql`delete from harbour.ports where id = 3 and not exists (select from harbour.ships where built_at = 3)`;
      await sql`update harbour.ships set built_at = null`;
      await sql`delete from harbour.ports where id = 3`;
      expect(await sql`select port_code, country, number, org_id from harbour.ships where id = 3`).toEqual([
        { port_code: "P1", country: "C3", number: null, org_id: north },
      ]);
    });
  });

  test("are put back by unbind_from_parent: the schema is what it was, and the indexes that were built by hand", async () => {
    const { sql } = bound;
    await runSteps(sql, "unbind_from_parent");
    expect(await readReferences(sql)).toEqual(references);
    const after = await describeSchema(sql);
    expect(schemaBefore.filter((line) => !after.includes(line))).toEqual([]);
    const added = after.filter((line) => !schemaBefore.includes(line));
    expect(added.filter((line) => !line.startsWith("index CREATE "))).toEqual([]);
    expect(added).toHaveLength(lines.length);
  });
});

describe("foreign keys that cannot be bound", () => {
  let database: Database;
  let sql: Sql;

  beforeAll(async () => {
    database = await cloneDatabase("unbindable", "isolation_base");
    sql = database.sql;
    await dropApplication(sql);
    await sql.unsafe(`
      create schema harbour;
      create table harbour.ports (id integer primary key);
      select tenancy.onboard('harbour.ports');
    `).simple();
  });

  afterAll(async () => await database?.drop());

  test.each([
    ["match full", "foreign key (port_id) references harbour.ports (id) match full"],
    ["not valid", "foreign key (port_id) references harbour.ports (id) not valid"],
    ["on update set null", "foreign key (port_id) references harbour.ports (id) on update set null"],
    ["on update set default", "foreign key (port_id) references harbour.ports (id) on update set default"],
  ])("are such as are %s: they are refused and stay as they are", async (_kind, definition) => {
    await rehearse(sql, async () => {
      await sql.unsafe(`
        create table harbour.cranes (id integer primary key, port_id integer);
        alter table harbour.cranes add constraint strange ${definition};
        select tenancy.onboard('harbour.cranes');
      `).simple();
      const before = await describeSchema(sql);
      expect(await refusalOf(sql, async () => await sql`select tenancy.bind_to_parent('harbour.cranes')`))
        .toMatchObject({
          code: "0A000",
          message: expect.stringContaining("strange"),
        });
      expect(await describeSchema(sql)).toEqual(before);
    });
  });

  test.each([
    [
      "the child",
      "harbour.cargo",
      `create table harbour.cargo (id integer, port_id integer references harbour.ports (id)) partition by list (id);
       create table harbour.cargo_1 partition of harbour.cargo for values in (1);`,
    ],
    [
      "the parent",
      "harbour.crates",
      `create table harbour.cargo (id integer primary key) partition by list (id);
       create table harbour.cargo_1 partition of harbour.cargo for values in (1);
       create table harbour.crates (id integer primary key, cargo_id integer references harbour.cargo (id));`,
    ],
  ])("are refused where %s is partitioned", async (_side, relation, tables) => {
    await rehearse(sql, async () => {
      await sql.unsafe(tables).simple();
      await sql`select tenancy.onboard('harbour.cargo')`;
      await sql`select tenancy.onboard(${relation}::regclass)`;
      expect(await refusalOf(sql, async () => await sql`select tenancy.bind_to_parent(${relation}::regclass)`))
        .toMatchObject({
          code: "0A000",
        });
    });
  });
});
