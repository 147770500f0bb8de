import type { PostgresError } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cloneDatabase, runAsSuperuser } from "../databases.ts";
import { dropApplication, runAllPhases, runSteps } from "../steps.ts";

const ownOrgId = "a0000000-0000-0000-0000-000000000001";
const secondOrgId = "b0000000-0000-4000-8000-000000000002";
const thirdOrgId = "b0000000-0000-4000-8000-000000000003";

/** Whoever tries: the owner of the tables, the backend and a signed-in user, all of whom may write every column. */
const roles = ["postgres", "service_role", "authenticated"] as const;
type Role = (typeof roles)[number];

/** What a statement is to write, and where: an organization, or, for the neighbour that must go through, a name. */
interface Assignment {
  column: "org_id" | "name";
  /** In SQL. */
  value: string;
}
const anotherOrganization: Assignment = { column: "org_id", value: `'${thirdOrgId}'` };
const noOrganization: Assignment = { column: "org_id", value: "null" };
const anotherName: Assignment = { column: "name", value: "'renamed'" };

/** The relation that a statement addresses. All of them have the same columns; row 1 is in it. */
interface Target {
  what: string;
  relation: string;
  /** For a table with partitions: what moves a row of it to another leaf, and to which. */
  move?: { set: string; to: string };
}
const targets: Target[] = [
  { what: "an ordinary table", relation: "harbour.ships" },
  {
    what: "a partitioned table",
    relation: "harbour.voyages",
    move: { set: "region = 'south'", to: "harbour.voyages_south_2024" },
  },
  {
    what: "a partition with partitions of its own",
    relation: "harbour.voyages_north",
    move: { set: "year = 2025", to: "harbour.voyages_north_2025" },
  },
  { what: "a leaf partition", relation: "harbour.voyages_north_2024" },
];

interface Attack {
  name: string;
  /** What the owner has put there before. */
  setUp?: (target: Target, assignment: Assignment) => string;
  statement: (target: Target, assignment: Assignment) => string;
  /** Only for rows that move from one partition to another. */
  moves?: true;
  /** Only the owner may do it at all. */
  ownerOnly?: true;
  /** The NULL comes in behind the BEFORE trigger, and NOT NULL refuses it before the AFTER trigger can. */
  nullComesLate?: true;
  /** Rows 1 and 2 change places. */
  swaps?: true;
}

/** A trigger function that does what the assignment says to every row. */
const meddle = ({ column, value }: Assignment) => `
  create function harbour.meddle() returns trigger language plpgsql as
  $$ begin new.${column} := ${value}; return new; end $$;
`;
const trigger = (name: string, event: string, relation: string) =>
  `create trigger ${name} before ${event} on ${relation} for each row execute function harbour.meddle();`;
/** The assignment for two rows that change places. */
const swapped = ({ column }: Assignment): Assignment => ({
  column,
  value: column === "org_id"
    ? `case new.id when 1 then '${secondOrgId}'::uuid else '${ownOrgId}'::uuid end`
    : "case new.id when 1 then 'Boat' else 'Argo' end",
});
const moveOf = (target: Target) => target.move ?? { set: "", to: "" };
/** A parent whose key the rows follow wherever it goes. */
const fleets = (relation: string, columns: string) => `
  create table harbour.fleets as select distinct ${columns} from ${relation} where id = 1;
  alter table harbour.fleets add unique (${columns});
  grant all on harbour.fleets to service_role, authenticated;
  delete from ${relation} where id <> 1;
  alter table ${relation} add foreign key (${columns}) references harbour.fleets (${columns}) on update cascade;
`;

const attacks: Attack[] = [
  {
    name: "an update",
    statement: ({ relation }, { column, value }) => `update ${relation} set ${column} = ${value} where id = 1`,
  },
  {
    name: "an update of all rows",
    statement: ({ relation }, { column, value }) => `update ${relation} set visits = visits + 1, ${column} = ${value}`,
  },
  {
    name: "an update inside a query",
    statement: ({ relation }, { column, value }) =>
      `with written as (update ${relation} set ${column} = ${value} where id = 1 returning id) select id from written`,
  },
  {
    name: "an upsert",
    statement: ({ relation }, { column, value }) => `
      insert into ${relation} (id, region, year, org_id) values (1, 'north', 2024, '${ownOrgId}')
      on conflict (id, region, year) do update set ${column} = ${value}
    `,
  },
  {
    name: "a MERGE",
    statement: ({ relation }, { column, value }) => `
      merge into ${relation} as target using (values (1)) as source (id) on target.id = source.id
      when matched then update set ${column} = ${value}
    `,
  },
  {
    name: "an update through a view",
    setUp: ({ relation }) => `
      create view harbour.telescope with (security_invoker = true) as select * from ${relation};
      grant all on harbour.telescope to service_role, authenticated;
    `,
    statement: (_target, { column, value }) => `update harbour.telescope set ${column} = ${value} where id = 1`,
  },
  {
    name: "a foreign key that follows its parent's update",
    setUp: ({ relation }) => fleets(relation, "org_id, name"),
    statement: (_target, { column, value }) => `update harbour.fleets set ${column} = ${value}`,
  },
  {
    name: "a trigger that fires before ours",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("aaa_meddle", "update", relation),
    statement: ({ relation }) => `update ${relation} set visits = visits + 1 where id = 1`,
  },
  {
    name: "a trigger that fires after our BEFORE trigger",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("zzzz_meddle", "update", relation),
    statement: ({ relation }) => `update ${relation} set visits = visits + 1 where id = 1`,
    nullComesLate: true,
  },
  {
    name: "a function with its owner's rights",
    setUp: ({ relation }, { column, value }) => `
      create function harbour.meddle() returns void language sql security definer as
      $$ update ${relation} set ${column} = ${value} where id = 1 $$;
    `,
    statement: () => "select harbour.meddle()",
  },
  {
    name: "a replica session",
    setUp: () => "set local session_replication_role = replica",
    statement: ({ relation }, { column, value }) => `update ${relation} set ${column} = ${value} where id = 1`,
    ownerOnly: true,
  },
  {
    name: "one statement that has two rows change places",
    statement: ({ relation }, assignment) =>
      `update ${relation} as new set ${assignment.column} = ${swapped(assignment).value}`,
    swaps: true,
  },
  {
    name: "an update that moves the row to another partition",
    statement: (target, { column, value }) =>
      `update ${target.relation} set ${moveOf(target).set}, ${column} = ${value} where id = 1`,
    moves: true,
  },
  {
    name: "a MERGE that moves the row to another partition",
    statement: (target, { column, value }) => `
      merge into ${target.relation} as target using (values (1)) as source (id) on target.id = source.id
      when matched then update set ${moveOf(target).set}, ${column} = ${value}
    `,
    moves: true,
  },
  {
    name: "a replica session that moves the row to another partition",
    setUp: () => "set local session_replication_role = replica",
    statement: (target, { column, value }) =>
      `update ${target.relation} set ${moveOf(target).set}, ${column} = ${value} where id = 1`,
    moves: true,
    ownerOnly: true,
  },
  {
    name: "a trigger that fires before ours when the row moves",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("aaa_meddle", "update", relation),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set} where id = 1`,
    moves: true,
  },
  {
    name: "a trigger that fires after our BEFORE trigger when the row moves",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("zzzz_meddle", "update", relation),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set} where id = 1`,
    moves: true,
    nullComesLate: true,
  },
  {
    name: "an INSERT trigger of the partition that the row moves to",
    setUp: (target, assignment) => meddle(assignment) + trigger("meddle", "insert", moveOf(target).to),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set} where id = 1`,
    moves: true,
    nullComesLate: true,
  },
  {
    name: "an INSERT trigger of the partition that a foreign key moves the row to",
    setUp: (target, assignment) =>
      fleets(target.relation, "region, year") + meddle(assignment) + trigger("meddle", "insert", moveOf(target).to),
    statement: (target) => `update harbour.fleets set ${moveOf(target).set}`,
    moves: true,
    nullComesLate: true,
  },
  {
    name: "one statement that moves two rows and has them change places",
    statement: (target, assignment) =>
      `update ${target.relation} as new set ${moveOf(target).set}, ${assignment.column} = ${swapped(assignment).value}`,
    moves: true,
    swaps: true,
  },
  {
    name: "an INSERT trigger that has two moving rows change places",
    setUp: (target, assignment) => meddle(swapped(assignment)) + trigger("meddle", "insert", moveOf(target).to),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set}`,
    moves: true,
    swaps: true,
  },
];

const matrix = attacks.flatMap((attack) =>
  targets
    .filter((target) => !attack.moves || target.move)
    .flatMap((target) =>
      (attack.ownerOnly ? (["postgres"] as const) : roles).map((role) =>
        [`${attack.name}, ${target.what}, ${role}`, { attack, target, role }] as const
      )
    )
);

describe("org_id of a row", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;

  /** All rows of both tables, each with the leaf that it is in. */
  const readRows = async () =>
    await database.sql`
      select tableoid::regclass::text as leaf, * from harbour.ships
      union all
      select tableoid::regclass::text as leaf, * from harbour.voyages
      order by id, leaf
    `;
  /** What happens in a transaction of its own, which leaves nothing behind. */
  const rehearse = async <Result>(act: () => Promise<Result>): Promise<Result> => {
    await database.sql`begin`;
    try {
      return await act();
    } finally {
      await database.sql`rollback`;
    }
  };
  /** Runs a statement as somebody, after the owner has set the scene: its error, and the rows before and after. */
  const attempt = async (role: Role, setUp: string, statement: string) =>
    await rehearse(async () => {
      const { sql } = database;
      await sql.unsafe(setUp).simple();
      const before = await readRows();
      await sql`savepoint attempt`;
      await sql`set local role ${sql(role)}`;
      const error = await sql.unsafe(statement).simple().then(() => undefined, (thrown: PostgresError) => thrown);
      if (error) await sql`rollback to attempt`;
      await sql`set local role postgres`;
      return { error, before, after: await readRows() };
    });
  const removeGuards = `
    do $$
    declare
        target regclass;
    begin
        foreach target in array array['harbour.ships', 'harbour.voyages']::regclass[] loop
            while tenancy.allow_org_id_change(target) loop
            end loop;
        end loop;
    end
    $$;
  `;

  beforeAll(async () => {
    database = await cloneDatabase("immutability", "migrated");
    const columns =
      "id integer, region text not null, year integer not null, user_id uuid, name text, visits integer not null default 0";
    await dropApplication(database.sql);
    await database.sql.unsafe(`
      insert into public.organizations (id, name) values ('${secondOrgId}', 'second'), ('${thirdOrgId}', 'third');
      create schema harbour;
      create table harbour.ships (${columns}, primary key (id, region, year));
      create table harbour.voyages (${columns}, primary key (id, region, year)) partition by list (region);
      create table harbour.voyages_north partition of harbour.voyages for values in ('north') partition by list (year);
      create table harbour.voyages_south partition of harbour.voyages for values in ('south') partition by list (year);
      create table harbour.voyages_north_2024 partition of harbour.voyages_north for values in (2024);
      create table harbour.voyages_north_2025 partition of harbour.voyages_north for values in (2025);
      create table harbour.voyages_south_2024 partition of harbour.voyages_south for values in (2024);
      insert into tenancy.registry (schema_name, table_name, scope, priority)
      values ('harbour', 'ships', 'org', 'secondary'), ('harbour', 'voyages', 'org', 'secondary');
    `).simple();
    await runAllPhases(database.sql);
    await database.sql.unsafe(`
      insert into harbour.ships (id, region, year, name, org_id)
      values (1, 'north', 2024, 'Argo', '${ownOrgId}'), (2, 'north', 2024, 'Boat', '${secondOrgId}');
      insert into harbour.voyages (id, region, year, name, org_id)
      values (1, 'north', 2024, 'Argo', '${ownOrgId}'), (2, 'north', 2024, 'Boat', '${secondOrgId}');
      grant usage on schema harbour to service_role, authenticated;
      grant all on all tables in schema harbour to service_role, authenticated;
    `).simple();
    for (const { relation } of await tablesOfHarbour()) {
      await database.sql.unsafe(`
        alter table ${relation} enable row level security;
        create policy everything on ${relation} to authenticated using (true) with check (true);
      `).simple();
    }
  });

  const tablesOfHarbour = async () =>
    await database.sql<{ relation: string }[]>`
      select oid::regclass::text as relation from pg_class
      where relnamespace = 'harbour'::regnamespace and relkind in ('r', 'p')
      order by 1
    `;

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
        await attempt(role, setUp(assignment), attack.statement(target, assignment));

      const moved = await attempted(anotherOrganization);
      expect(moved.error).toMatchObject({
        code: "23001",
        message: expect.stringMatching(/^org_id of harbour\.(ships|voyages(_north|_north_2024)?) is immutable$/),
        schema_name: "harbour",
        column_name: "org_id",
      });
      expect(moved.after).toEqual(moved.before);

      if (!attack.swaps) {
        const emptied = await attempted(noOrganization);
        expect(emptied.error).toMatchObject(
          attack.nullComesLate
            ? { code: "23502", column_name: "org_id" }
            : { code: "23001", message: expect.stringMatching(/^org_id of harbour\.\w+ is immutable$/) },
        );
        expect(emptied.after).toEqual(emptied.before);
      }

      const renamed = await attempted(anotherName);
      expect(renamed.error, "the same with another column goes through").toBeUndefined();
      expect(renamed.after).not.toEqual(renamed.before);
      expect(renamed.after.map((row) => [row["id"], row["org_id"]])).toEqual(
        renamed.before.map((row) => [row["id"], row["org_id"]]),
      );

      const unguarded = await attempt(
        role,
        removeGuards + setUp(anotherOrganization),
        attack.statement(target, anotherOrganization),
      );
      expect(unguarded.error, "nothing but the guard refuses it").toBeUndefined();
      expect(unguarded.after.map((row) => row["org_id"])).not.toEqual(unguarded.before.map((row) => row["org_id"]));
    });
  });

  test.each(["service_role", "authenticated"] as const)(
    "has no replica session to fear from %s, who cannot begin one",
    async (role) => {
      const { error } = await attempt(role, "", "set local session_replication_role = replica");
      expect(error).toMatchObject({ code: "42501" });
    },
  );

  test.each(targets)("may be sent along unchanged to $what", async ({ relation }) => {
    for (const role of roles) {
      const { error, before, after } = await attempt(role, "", `update ${relation} set org_id = org_id, name = 'same'`);
      expect(error).toBeUndefined();
      expect(after.map((row) => row["org_id"])).toEqual(before.map((row) => row["org_id"]));
    }
  });

  test.each(targets.filter(({ move }) => move))(
    "goes with its row from partition to partition of $what",
    async (target) => {
      for (const role of roles) {
        const { error, after } = await attempt(
          role,
          "",
          `update ${target.relation} set ${moveOf(target).set} where id = 1`,
        );
        expect(error).toBeUndefined();
        expect(after).toContainEqual(expect.objectContaining({ id: 1, leaf: moveOf(target).to, org_id: ownOrgId }));
      }
    },
  );

  describe("is never missing:", () => {
    const columns = "id, region, year, name";
    const row = "7, 'north', 2024, 'Crew'";
    const line = "7\tnorth\t2024\tCrew";

    /** Inserts one row by a statement or, with lines, by COPY; whether to expect an error says how to end the latter. */
    const insert = async (role: Role, claims: string, way: { sql: string; lines?: string }, refused: boolean) =>
      await rehearse(async () => {
        const { sql } = database;
        // COPY is not for those whose rows a policy filters: without policies only NOT NULL can refuse it.
        if (way.lines) {
          for (const { relation } of await tablesOfHarbour()) {
            await sql.unsafe(`alter table ${relation} disable row level security`);
          }
        }
        await sql`select set_config('request.jwt.claims', ${claims}, true)`;
        await sql`savepoint attempt`;
        await sql`set local role ${sql(role)}`;
        const error = way.lines === undefined
          ? await sql.unsafe(way.sql).then(() => undefined, (thrown: PostgresError) => thrown)
          : await copy(way.sql, way.lines, refused);
        if (error) await sql`rollback to attempt`;
        await sql`set local role postgres`;
        return {
          error,
          inserted: (await readRows()).filter((found) => found["id"] === 7).map((found) => found["org_id"]),
        };
      });
    /** An error comes while the stream is open; the driver gives it to nobody once the stream has ended. */
    const copy = async (statement: string, lines: string, refused: boolean): Promise<PostgresError | undefined> => {
      const stream = await database.sql.unsafe(statement).writable();
      return await new Promise((resolve) => {
        stream.once("error", resolve);
        stream.once("finish", () => resolve(undefined));
        if (refused) stream.write(lines);
        else stream.end(lines);
      });
    };
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
        const refused = await insert(role, way.claims.without, way.without(relation), true);
        expect(refused.error).toMatchObject({ code: "23502", column_name: "org_id", schema_name: "harbour" });
        expect(refused.inserted).toEqual([]);
        const accepted = await insert(role, way.claims.with, way.with(relation), false);
        expect(accepted).toEqual({ error: undefined, inserted: [thirdOrgId] });
      },
    );
  });

  describe("is missed by tenancy.verify() when its owner takes down", () => {
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
        await rehearse(async () => {
          await database.sql.unsafe(sql).simple();
          expect(await failedChecks()).toEqual([failed]);
          await runSteps(database.sql, ...steps);
          expect(await failedChecks()).toEqual([]);
        });
      },
    );

    test.each(guards.map((guard) => [`${guard.of} of ${guard.relation}`, guard] as const))(
      "%s for one of that name that does nothing, which the step refuses to take for it",
      async (_name, { relation, trigger }) => {
        await rehearse(async () => {
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

    test("the partition, whose rows it could change alone and attach again", async () => {
      await rehearse(async () => {
        await database.sql`alter table harbour.voyages_north detach partition harbour.voyages_north_2024`;
        expect(await failedChecks()).toEqual(["registry"]);
        await database
          .sql`alter table harbour.voyages_north attach partition harbour.voyages_north_2024 for values in (2024)`;
        expect(await failedChecks()).toEqual([]);
      });
    });

    test("the default, for one that gives everything to one organization", async () => {
      await rehearse(async () => {
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

  test.each(targets.filter(({ move }) => move))(
    "is in the hands of whoever owns $what and has MERGE move its rows: their INSERT triggers are seen by no UPDATE trigger",
    async (target) => {
      const merge = `
        merge into ${target.relation} as target using (values (1)) as source (id) on target.id = source.id
        when matched then update set ${moveOf(target).set}
      `;
      const insertTrigger = meddle(anotherOrganization) + trigger("meddle", "insert", moveOf(target).to);
      const { error, after } = await attempt("postgres", insertTrigger, merge);
      expect(error, "PostgreSQL has changed: the guard can be closed, and the README says too much").toBeUndefined();
      expect(after).toContainEqual(expect.objectContaining({ id: 1, leaf: moveOf(target).to, org_id: thirdOrgId }));
    },
  );

  test("is guarded in a partition from the moment that it is created or attached", async () => {
    const { sql } = database;
    for (
      const partition of [
        "create table harbour.voyages_north_2026 partition of harbour.voyages_north for values in (2026)",
        `create table harbour.voyages_north_2026 (like harbour.voyages including all);
         alter table harbour.voyages_north attach partition harbour.voyages_north_2026 for values in (2026)`,
      ]
    ) {
      await rehearse(async () => {
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

  test("is guarded at a new level of partitions by the step, and verify() says so until then", async () => {
    const { sql } = database;
    await rehearse(async () => {
      await sql`create table harbour.voyages_west partition of harbour.voyages for values in ('west') partition by list (year)`;
      const failures = sql`select table_name, check_name from tenancy.verify_schema() where not passed`;
      expect(await failures).toEqual([{ table_name: "harbour.voyages", check_name: "immutable" }]);
      await sql.unsafe(`
        do $$ begin while tenancy.make_org_id_immutable('harbour.voyages') loop end loop; end $$
      `);
      expect(await sql`select from tenancy.verify_schema() where not passed`).toHaveLength(0);
    });
  });
});
