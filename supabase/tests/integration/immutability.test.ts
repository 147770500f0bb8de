import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rehearse } from "../attempts.ts";
import {
  anotherName,
  anotherOrganization,
  type Assignment,
  attacks,
  meddle,
  moveOf,
  noOrganization,
  trigger,
} from "../attacks.ts";
import type { Database } from "../databases.ts";
import { attempt, createHarbour, ownOrgId, roles, secondOrgId, targets, thirdOrgId } from "../harbour.ts";
import { repeat } from "../steps.ts";

/** Every attack on every kind of table by the owner, who may do most; these by the others, too. */
const byEveryRole = [
  "an update",
  "an update through a view",
  "an INSERT trigger of the partition that the row moves to",
];
const matrix = attacks.flatMap((attack) =>
  targets
    .filter((target) => !attack.moves || target.move)
    .flatMap((target) =>
      roles
        .filter((role) => role === "postgres" || byEveryRole.includes(attack.name))
        .map((role) => [`${attack.name}, ${target.what}, ${role}`, { attack, target, role }] as const)
    )
);

/** Statements that leave both tables without any trigger of ours. */
const removeGuards = `
  do $$
  declare
      target regclass;
  begin
      foreach target in array array['harbour.ships', 'harbour.voyages']::regclass[] loop
          while tenancy.take_back(target, 'guard', 'guard_move', 'guard_statement') loop
          end loop;
      end loop;
  end
  $$;
`;

describe("org_id of a row", () => {
  let database: Database;

  beforeAll(async () => {
    database = await createHarbour("immutability");
  });

  afterAll(async () => await database?.drop());

  test("is guarded on both tables, which are whole", async () => {
    const found = await database.sql`
      select table_name, bool_and(passed) as passed from tenancy.verify() where table_name like 'harbour.%' group by 1 order by 1
    `;
    expect(found).toEqual([
      { table_name: "harbour.ships", passed: true },
      { table_name: "harbour.voyages", passed: true },
    ]);
  });

  describe("is not changed by", () => {
    test.each(matrix)("%s", async (_name, { attack, target, role }) => {
      const setUp = (assignment: Assignment) => attack.setUp?.(target, assignment) ?? "";
      const attempted = async (assignment: Assignment) =>
        await attempt(database.sql, role, setUp(assignment), attack.statement(target, assignment));

      const moved = await attempted(anotherOrganization);
      expect(moved.error).toMatchObject({
        code: "23001",
        message: expect.stringMatching(
          /^org_id of harbour\.(ships|voyages(_north|_north_2024)?) is immutable: a row of organization [-0-9a-f]{36} would go to [-0-9a-f]{36}$/,
        ),
        schema_name: "harbour",
        table_name: expect.stringMatching(/^(ships|voyages(_north|_north_2024)?)$/),
        column_name: "org_id",
        constraint_name: expect.stringMatching(/^(zzz_)?org_id_immutable_/),
      });
      expect(moved.after).toEqual(moved.before);

      if (!attack.swaps) {
        const emptied = await attempted(noOrganization);
        // A row that is moved to another partition is inserted there, and the filler puts its organization back.
        if (emptied.error || !target.move) {
          expect(emptied.error).toMatchObject({ code: "23502", schema_name: "harbour", column_name: "org_id" });
        }
        expect(emptied.after.map((row) => [row["id"], row["org_id"]])).toEqual(
          emptied.before.map((row) => [row["id"], row["org_id"]]),
        );
      }

      const renamed = await attempted(anotherName);
      expect(renamed.error, "the same to another column goes through").toBeUndefined();
      expect(renamed.after).not.toEqual(renamed.before);
      expect(renamed.after.map((row) => [row["id"], row["org_id"]])).toEqual(
        renamed.before.map((row) => [row["id"], row["org_id"]]),
      );

      const unguarded = await attempt(
        database.sql,
        role,
        removeGuards + setUp(anotherOrganization),
        attack.statement(target, anotherOrganization),
      );
      expect(unguarded.error, "nothing but the guard refuses it").toBeUndefined();
      expect(unguarded.after.map((row) => row["org_id"])).not.toEqual(unguarded.before.map((row) => row["org_id"]));
    });
  });

  test.each(["service_role", "authenticated"] as const)(
    "is safe from replica sessions of %s, which cannot start one",
    async (role) => {
      const { error } = await attempt(database.sql, role, "", "set local session_replication_role = replica");
      expect(error).toMatchObject({ code: "42501" });
    },
  );

  test.each(targets)("may be sent along unchanged to $what", async ({ relation }) => {
    for (const role of roles) {
      const { error, before, after } = await attempt(
        database.sql,
        role,
        "",
        `update ${relation} set org_id = org_id, name = 'same'`,
      );
      expect(error).toBeUndefined();
      expect(after.map((row) => row["org_id"])).toEqual(before.map((row) => row["org_id"]));
    }
  });

  test.each(targets.filter(({ move }) => move))(
    "goes with its row from partition to partition of $what",
    async (target) => {
      for (const role of roles) {
        const { error, after } = await attempt(
          database.sql,
          role,
          "",
          `update ${target.relation} set ${moveOf(target).set} where id = 1`,
        );
        expect(error).toBeUndefined();
        expect(after).toContainEqual(expect.objectContaining({ id: 1, leaf: moveOf(target).to, org_id: ownOrgId }));
      }
    },
  );

  test.each(targets.filter(({ move }) => move))(
    "can be changed by the owner of $what when MERGE moves rows: no UPDATE trigger sees what an INSERT trigger does",
    async (target) => {
      const merge = `
        merge into ${target.relation} as target using (values (1)) as source (id) on target.id = source.id
        when matched then update set ${moveOf(target).set}
      `;
      const insertTrigger = meddle(anotherOrganization) + trigger("meddle", "insert", moveOf(target).to);
      const { error, after } = await attempt(database.sql, "postgres", insertTrigger, merge);
      expect(error, "PostgreSQL has changed: the guard can be closed, and docs/organizations.md says otherwise")
        .toBeUndefined();
      expect(after).toContainEqual(expect.objectContaining({ id: 1, leaf: moveOf(target).to, org_id: thirdOrgId }));
    },
  );

  test("is guarded in a partition from the moment it is created or attached", async () => {
    const { sql } = database;
    for (
      const partition of [
        "create table harbour.voyages_north_2026 partition of harbour.voyages_north for values in (2026)",
        `create table harbour.voyages_north_2026 (like harbour.voyages including all);
         alter table harbour.voyages_north attach partition harbour.voyages_north_2026 for values in (2026)`,
      ]
    ) {
      await rehearse(database.sql, async () => {
        await sql.unsafe(partition).simple();
        await sql.unsafe(
          `insert into harbour.voyages_north_2026 (id, region, year, org_id) values (1, 'north', 2026, '${ownOrgId}')`,
        );
        expect(await sql`select from tenancy.verify_schema() where not passed`).toHaveLength(0);
        await sql`set local session_replication_role = replica`;
        await expect(sql.unsafe(`update harbour.voyages_north_2026 set org_id = '${secondOrgId}'`)).rejects
          .toMatchObject({
            code: "23001",
          });
      });
    }
  });

  test("is guarded at a new level of partitions once the part is made, and verify() asks for it", async () => {
    const { sql } = database;
    await rehearse(database.sql, async () => {
      await sql`create table harbour.voyages_west partition of harbour.voyages for values in ('west') partition by list (year)`;
      const failures = sql`select table_name, check_name from tenancy.verify_schema() where not passed`;
      expect(await failures).toEqual([{ table_name: "harbour.voyages", check_name: "guard_statement" }]);
      await repeat(sql, "tenancy.build('harbour.voyages', 'guard', 'guard_move', 'guard_statement')");
      expect(await sql`select from tenancy.verify_schema() where not passed`).toHaveLength(0);
    });
  });
});
