import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rehearse } from "../attempts.ts";
import { type Database, runAsSuperuser } from "../databases.ts";
import { createHarbour, thirdOrgId } from "../harbour.ts";
import { advance } from "../steps.ts";

describe("tenancy.verify()", () => {
  let database: Database;

  beforeAll(async () => {
    database = await createHarbour("verify");
  });

  afterAll(async () => await database?.drop());

  describe("finds what the owner took down:", () => {
    const failedChecks = async () => {
      const rows = await database.sql<{ failed: string }[]>`
        select distinct concat_ws(' ', table_name, check_name) as failed from tenancy.verify() where not passed order by 1
      `;
      return rows.map(({ failed }) => failed);
    };
    const guards = [
      { of: "the guard", relation: "harbour.ships", trigger: "org_id_immutable_ships", check: "guard" },
      { of: "the guard", relation: "harbour.voyages", trigger: "org_id_immutable_voyages", check: "guard" },
      {
        of: "the guard against rows that MERGE moves",
        relation: "harbour.voyages",
        trigger: "zzz_org_id_immutable_voyages",
        check: "guard_move",
      },
      ...["voyages", "voyages_north"].map((table) => ({
        of: "the guard of moving rows",
        relation: `harbour.${table}`,
        trigger: `org_id_immutable_rows_${table}`,
        check: "guard_statement",
      })),
    ];
    const guardOfLeaf = {
      of: "the guard of one leaf",
      relation: "harbour.voyages_north_2024",
      trigger: "org_id_immutable_voyages",
      check: "guard",
    };
    /** The checks, and the loops that make the parts. */
    const unguarded = (relation: string, check: string) => ({
      failed: [`${relation === "harbour.ships" ? relation : "harbour.voyages"} ${check}`],
      loops: [check],
    });
    const damages: { name: string; sql: string; failed: string[]; loops: string[] }[] = [
      ...guards.map(({ of, relation, trigger, check }) => ({
        name: `${of} of ${relation}`,
        sql: `drop trigger ${trigger} on ${relation}`,
        ...unguarded(relation, check),
      })),
      ...[...guards, guardOfLeaf].flatMap(({ of, relation, trigger, check }) =>
        ["disable", "enable", "enable replica"].map((how) => ({
          name: `${of} of ${relation} (${how} trigger)`,
          sql: `alter table ${relation} ${how} trigger ${trigger}`,
          ...unguarded(relation, check),
        }))
      ),
      ...["ships", "voyages"].flatMap((table) => {
        const lacks = (...parts: string[]) => ({
          failed: parts.map((part) => `harbour.${table} ${part}`),
          loops: parts,
        });
        const ofPartitioned = table === "voyages" ? ["foreign_key_root"] : [];
        return [
          {
            name: `NOT NULL of harbour.${table}`,
            sql: `alter table harbour.${table} alter column org_id drop not null`,
            ...lacks("not_null"),
          },
          // A partition needs none while it is NOT NULL.
          ...(table === "voyages" ? [] : [{
            name: `the check of harbour.${table}`,
            sql: `alter table harbour.${table} drop constraint ${table}_org_id_not_null`,
            ...lacks("check", "check_valid"),
          }]),
          {
            name: `the foreign key of harbour.${table}`,
            sql: `alter table harbour.${table} drop constraint fk_${table}_org_id`,
            ...lacks("foreign_key", "foreign_key_valid", ...ofPartitioned),
          },
        ];
      }),
    ];

    test.each(damages.map((damage) => [damage.name, damage] as const))(
      "%s, and the loop puts it back",
      async (_name, { sql, failed, loops }) => {
        await rehearse(database.sql, async () => {
          await database.sql.unsafe(sql).simple();
          expect(await failedChecks()).toEqual([...failed].sort());
          await advance(database.sql, ...loops);
          expect(await failedChecks()).toEqual([]);
        });
      },
    );

    test.each(guards.map((guard) => [`${guard.of} of ${guard.relation}`, guard] as const))(
      "%s, replaced by one of that name that does nothing, which the loop refuses to accept",
      async (_name, { relation, trigger, check }) => {
        await rehearse(database.sql, async () => {
          await database.sql.unsafe(`
            drop trigger ${trigger} on ${relation};
            create function harbour.nothing() returns trigger language plpgsql as 'begin return new; end';
            create trigger ${trigger} before update on ${relation} for each statement execute function harbour.nothing();
          `).simple();
          expect(await failedChecks()).toEqual(["registry", ...unguarded(relation, check).failed].sort());
          await expect(advance(database.sql, check)).rejects.toMatchObject({ code: "42710" });
        });
      },
    );

    test("the partition, detached, whose rows could be changed alone", async () => {
      await rehearse(database.sql, async () => {
        await database.sql`alter table harbour.voyages_north detach partition harbour.voyages_north_2024`;
        expect(await failedChecks()).toEqual(["registry"]);
        await database
          .sql`alter table harbour.voyages_north attach partition harbour.voyages_north_2024 for values in (2024)`;
        expect(await failedChecks()).toEqual([]);
      });
    });

    test("the default, replaced by one that gives everything to one organization, and the loop puts it back", async () => {
      await rehearse(database.sql, async () => {
        await database.sql.unsafe(`alter table harbour.ships alter column org_id set default '${thirdOrgId}'`);
        expect(await failedChecks()).toEqual(["harbour.ships default", "registry"]);
        await advance(database.sql, "default");
        expect(await failedChecks()).toEqual([]);
      });
    });

    test("the index, and the lines of the index file build it again", async () => {
      const { sql } = database;
      const [index] = await sql`
        select indexrelid::regclass::text as name from pg_index
        where indrelid = 'harbour.ships'::regclass and indkey[0] = (
          select attnum from pg_attribute where attrelid = 'harbour.ships'::regclass and attname = 'org_id'
        )
      `;
      await runAsSuperuser(
        database.name,
        `update pg_index set indisvalid = false where indexrelid = '${index?.["name"]}'::regclass`,
      );
      expect(await failedChecks()).toEqual(["harbour.ships index", "harbour.ships invalid_index"]);
      await advance(sql, "invalid_index");
      await sql.unsafe("create index concurrently if not exists idx_ships_org_id on harbour.ships (org_id)");
      expect(await failedChecks()).toEqual([]);
    });
  });
});
