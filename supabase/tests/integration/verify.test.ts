import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rehearse } from "../attempts.ts";
import { type Database, runAsSuperuser } from "../databases.ts";
import { createHarbour, thirdOrgId } from "../harbour.ts";
import { runSteps } from "../steps.ts";

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
    const guardsOf = (relation: string, table: string) => [
      { of: "the BEFORE trigger", relation, trigger: `zzz_org_id_immutable_${table}` },
      { of: "the AFTER trigger", relation, trigger: `org_id_immutable_${table}` },
    ];
    const guards = [
      ...guardsOf("harbour.ships", "ships"),
      ...guardsOf("harbour.voyages", "voyages"),
      { of: "the trigger of moving rows", relation: "harbour.voyages", trigger: "org_id_immutable_rows_voyages" },
      {
        of: "the trigger of moving rows",
        relation: "harbour.voyages_north",
        trigger: "org_id_immutable_rows_voyages_north",
      },
    ];
    const immutable = (relation: string) => ({
      failed: `${relation === "harbour.ships" ? relation : "harbour.voyages"} immutable`,
      steps: ["make_org_id_immutable"],
    });
    const notNull = ["refuse_null_org_id", "enforce_org_id"];
    const damages: { name: string; sql: string; failed: string; steps: string[] }[] = [
      ...guards.map(({ of, relation, trigger }) => ({
        name: `${of} of ${relation}`,
        sql: `drop trigger ${trigger} on ${relation}`,
        ...immutable(relation),
      })),
      ...[
        ...guards,
        ...guardsOf("harbour.voyages_north_2024", "voyages").map((guard) => ({
          ...guard,
          of: `${guard.of} of one leaf`,
        })),
      ].flatMap(({ of, relation, trigger }) =>
        ["disable", "enable", "enable replica"].map((how) => ({
          name: `${of} of ${relation} (${how} trigger)`,
          sql: `alter table ${relation} ${how} trigger ${trigger}`,
          ...immutable(relation),
        }))
      ),
      ...["ships", "voyages"].flatMap((table) => [
        {
          name: `NOT NULL of harbour.${table}`,
          sql: `alter table harbour.${table} alter column org_id drop not null`,
          failed: `harbour.${table} not_null`,
          steps: notNull,
        },
        {
          name: `the check of harbour.${table}`,
          sql: `alter table harbour.${table} drop constraint ${table}_org_id_not_null`,
          failed: `harbour.${table} check`,
          steps: notNull,
        },
        {
          name: `the foreign key of harbour.${table}`,
          sql: `alter table harbour.${table} drop constraint fk_${table}_org_id`,
          failed: `harbour.${table} foreign_key`,
          steps: ["add_org_id_foreign_key"],
        },
      ]),
    ];

    test.each(damages.map((damage) => [damage.name, damage] as const))(
      "%s, and the step puts it back",
      async (_name, { sql, failed, steps }) => {
        await rehearse(database.sql, async () => {
          await database.sql.unsafe(sql).simple();
          expect(await failedChecks()).toEqual([failed]);
          await runSteps(database.sql, ...steps);
          expect(await failedChecks()).toEqual([]);
        });
      },
    );

    test.each(guards.map((guard) => [`${guard.of} of ${guard.relation}`, guard] as const))(
      "%s, replaced by one of that name that does nothing, which the step refuses to accept",
      async (_name, { relation, trigger }) => {
        await rehearse(database.sql, async () => {
          await database.sql.unsafe(`
            drop trigger ${trigger} on ${relation};
            create function harbour.nothing() returns trigger language plpgsql as 'begin return new; end';
            create trigger ${trigger} before update on ${relation} for each statement execute function harbour.nothing();
          `).simple();
          expect(await failedChecks()).toContain(immutable(relation).failed);
          await expect(runSteps(database.sql, "make_org_id_immutable")).rejects.toMatchObject({ code: "42710" });
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

    test("the default, replaced by one that gives everything to one organization", async () => {
      await rehearse(database.sql, async () => {
        await database.sql.unsafe(`alter table harbour.ships alter column org_id set default '${thirdOrgId}'`);
        expect(await failedChecks()).toEqual(["registry"]);
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
      expect(await failedChecks()).toEqual(["harbour.ships index"]);
      await runSteps(sql, "drop_invalid_org_id_index");
      await sql.unsafe("create index concurrently if not exists idx_ships_org_id on harbour.ships (org_id)");
      expect(await failedChecks()).toEqual([]);
    });
  });
});
