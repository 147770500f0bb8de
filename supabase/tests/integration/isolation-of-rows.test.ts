import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { become, claimsOf, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { finishWhereAsked } from "../last-step.ts";
import { giveUsersTheirOrganization, north, south } from "../organizations.ts";
import { columnsOf, insert, isolateAllTables, newRow, readTables, type Row, type Table } from "../rows.ts";

/** Who tries: users of two organizations, each with the organization that is not theirs. */
const sides = [
  { name: "a user of the first organization", own: north, foreign: south },
  { name: "a user of the second organization", own: south, foreign: north },
];

describe("isolation, where policies and privileges let everyone signed in do everything:", () => {
  let database: Database;
  let sql: Sql;
  let tables: Table[];

  beforeAll(async () => {
    database = await cloneDatabase("isolation_of_rows", "two_organizations");
    sql = database.sql;
    tables = await readTables(sql);
    await giveUsersTheirOrganization(sql);
    for (const { relation } of tables) await sql.unsafe(`alter table ${relation} enable row level security`);
    await isolateAllTables(sql);
    await finishWhereAsked(sql);
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

  afterAll(async () => await database?.drop());

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
          ];
          await sql`savepoint accepted`;
          const inserted = await insert(sql, relation, ownRow);
          await sql`rollback to accepted`;
          const withNull = await refusalOf(sql, () => insert(sql, relation, { ...ownRow, org_id: null }));
          const organizations = [...(await sql`select distinct org_id from ${sql(relation)}`)];
          await sql`rollback to accepted`;
          return {
            refused: refused.map((error) => error?.code),
            inserted,
            withNull: withNull?.code,
            organizations,
            withoutOrganization: await insert(sql, relation, withoutOrganization),
            rows: [...(await sql`select distinct org_id from ${sql(relation)}`)],
          };
        },
        () => ({
          refused: ["42501", "42501"],
          inserted: 1,
          // The filler takes NULL for nothing sent; without it NULL is no organization of theirs.
          withNull: inject("finished") ? "42501" : undefined,
          organizations: [{ org_id: own }],
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
        (rows) => ({ all: rows, foreign: 0, givenAway: "42501", taken: 0 }),
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
          // By the policy, or before that by the filler where nothing says whose the row is.
          /42501|23502/.test((await refusalOf(sql, () => insert(sql, relation, withoutOrganization)))?.code ?? ""),
        ]);
      }
    });
    expect(outcomes).toEqual(new Map(tables.map(({ relation }) => [relation, [0, "42501", true]])));
  });

  test("a visitor who is not signed in sees nothing, whatever the privileges", async () => {
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

  test("without the isolation every table is open to everyone signed in", async () => {
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
});
