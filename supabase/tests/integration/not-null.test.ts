import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { copyIn } from "../../cli/copy.ts";
import { refusal, rehearse } from "../attempts.ts";
import type { Database } from "../databases.ts";
import { createHarbour, listTables, ownOrgId, readRows, type Role, roles, targets, thirdOrgId } from "../harbour.ts";
import { advance } from "../steps.ts";

describe("org_id of a row", () => {
  let database: Database;

  beforeAll(async () => {
    database = await createHarbour("not_null");
  });

  afterAll(async () => await database?.drop());

  describe("is never missing:", () => {
    /** Runs as it is after the last step: the filler off. */
    const withoutFiller = async () => {
      await database.sql`update tenancy.settings set fill_org_id = false`;
      await advance(database.sql, "filler");
    };
    const columns = "id, region, year, name";
    const row = "7, 'north', 2024, 'Crew'";
    const line = "7\tnorth\t2024\tCrew";

    /** Inserts one row by a statement or, with lines, by COPY; whether to expect an error says how to end the latter. */
    const insert = async (
      role: Role,
      claims: string,
      way: { sql: string; lines?: string },
      filler: boolean,
    ) =>
      await rehearse(database.sql, async () => {
        const { sql } = database;
        if (!filler) await withoutFiller();
        // COPY refuses whoever a policy applies to: without row-level security only NOT NULL can refuse the row.
        if (way.lines) {
          for (const { relation } of await listTables(database.sql)) {
            await sql.unsafe(`alter table ${relation} disable row level security`);
          }
        }
        await sql`select set_config('request.jwt.claims', ${claims}, true)`;
        await sql`savepoint attempt`;
        await sql`set local role ${sql(role)}`;
        const error = await refusal(
          way.lines === undefined ? sql.unsafe(way.sql) : copyIn(sql, way.sql, Readable.from([way.lines])),
        );
        if (error) await sql`rollback to attempt`;
        await sql`set local role postgres`;
        return {
          error,
          inserted: (await readRows(database.sql)).filter((found) => found["id"] === 7).map((found) => found["org_id"]),
        };
      });
    const claimOf = (orgId: string) => JSON.stringify({ app_metadata: { org_id: orgId } });

    /** Each way, its row without organization, and the same with one. */
    const ways = [
      {
        name: "an INSERT with NULL",
        without: (relation: string) => ({ sql: `insert into ${relation} (${columns}, org_id) values (${row}, null)` }),
        with: (relation: string) => ({
          sql: `insert into ${relation} (${columns}, org_id) values (${row}, '${thirdOrgId}')`,
        }),
        claims: { without: claimOf(thirdOrgId), with: "" },
      },
      {
        name: "an INSERT of many rows, one with NULL",
        without: (relation: string) => ({
          sql:
            `insert into ${relation} (${columns}, org_id) values (${row}, '${thirdOrgId}'), (8, 'north', 2024, 'Crew', null)`,
        }),
        with: (relation: string) => ({
          sql:
            `insert into ${relation} (${columns}, org_id) values (${row}, '${thirdOrgId}'), (8, 'north', 2024, 'Crew', '${ownOrgId}')`,
        }),
        claims: { without: claimOf(thirdOrgId), with: "" },
      },
      {
        name: "an upsert with NULL",
        without: (relation: string) => ({
          sql:
            `insert into ${relation} (${columns}, org_id) values (${row}, null) on conflict (id, region, year) do nothing`,
        }),
        with: (relation: string) => ({
          sql:
            `insert into ${relation} (${columns}, org_id) values (${row}, '${thirdOrgId}') on conflict (id, region, year) do nothing`,
        }),
        claims: { without: claimOf(thirdOrgId), with: "" },
      },
      {
        name: "a MERGE with NULL",
        without: (relation: string) => ({
          sql: `merge into ${relation} as target using (values (7)) as source (id) on target.id = source.id
            when not matched then insert (${columns}, org_id) values (${row}, null)`,
        }),
        with: (relation: string) => ({
          sql: `merge into ${relation} as target using (values (7)) as source (id) on target.id = source.id
            when not matched then insert (${columns}, org_id) values (${row}, '${thirdOrgId}')`,
        }),
        claims: { without: claimOf(thirdOrgId), with: "" },
      },
      {
        name: "an INSERT without the column, without a claim",
        without: (relation: string) => ({ sql: `insert into ${relation} (${columns}) values (${row})` }),
        with: (relation: string) => ({ sql: `insert into ${relation} (${columns}) values (${row})` }),
        claims: { without: "", with: claimOf(thirdOrgId) },
      },
      {
        name: "an INSERT without the column, with a claim that is no organization",
        without: (relation: string) => ({ sql: `insert into ${relation} (${columns}) values (${row})` }),
        with: (relation: string) => ({ sql: `insert into ${relation} (${columns}) values (${row})` }),
        claims: { without: claimOf("everybody"), with: claimOf(thirdOrgId) },
      },
      {
        name: "a COPY with NULL",
        without: (relation: string) => ({
          sql: `copy ${relation} (${columns}, org_id) from stdin`,
          lines: `${line}\t\\N\n`,
        }),
        with: (relation: string) => ({
          sql: `copy ${relation} (${columns}, org_id) from stdin`,
          lines: `${line}\t${thirdOrgId}\n`,
        }),
        claims: { without: claimOf(thirdOrgId), with: "" },
      },
      {
        name: "a COPY without the column, without a claim",
        without: (relation: string) => ({ sql: `copy ${relation} (${columns}) from stdin`, lines: `${line}\n` }),
        with: (relation: string) => ({ sql: `copy ${relation} (${columns}) from stdin`, lines: `${line}\n` }),
        claims: { without: "", with: claimOf(thirdOrgId) },
      },
    ];
    const insertions = ways.flatMap((way) =>
      targets.flatMap(({ what, relation }) =>
        roles.map((role) => [`${way.name}, ${what}, ${role}`, { way, relation, role }] as const)
      )
    );

    test.each(insertions)(
      "%s is refused, and goes through with an organization",
      async (_name, { way, relation, role }) => {
        const refused = await insert(role, way.claims.without, way.without(relation), false);
        expect(refused.error).toMatchObject({ code: "23502", column_name: "org_id", schema_name: "harbour" });
        expect(refused.inserted).toEqual([]);
        const accepted = await insert(role, way.claims.with, way.with(relation), false);
        expect(accepted).toEqual({ error: undefined, inserted: [thirdOrgId] });
      },
    );

    test.each(insertions)(
      "%s is filled while the filler is on, and left alone with an organization",
      async (_name, { way, relation, role }) => {
        const filled = await insert(role, way.claims.without, way.without(relation), true);
        const token = way.claims.without === claimOf(thirdOrgId) ? thirdOrgId : ownOrgId;
        expect(filled).toEqual({ error: undefined, inserted: [token] });
        const accepted = await insert(role, way.claims.with, way.with(relation), true);
        expect(accepted).toEqual({ error: undefined, inserted: [thirdOrgId] });
      },
    );
  });
});
