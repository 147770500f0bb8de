import { ownOrgId, secondOrgId, type Target, thirdOrgId } from "./harbour.ts";

/** What a statement is to write, and where: an organization, or, for the neighbour that must go through, a name. */
export interface Assignment {
  column: "org_id" | "name";
  /** In SQL. */
  value: string;
}
export const anotherOrganization: Assignment = { column: "org_id", value: `'${thirdOrgId}'` };
export const noOrganization: Assignment = { column: "org_id", value: "null" };
export const anotherName: Assignment = { column: "name", value: "'renamed'" };

export interface Attack {
  name: string;
  /** What the owner has set up before. */
  setUp?: (target: Target, assignment: Assignment) => string;
  statement: (target: Target, assignment: Assignment) => string;
  /** Rows move from one partition to another. */
  moves?: true;
  /** Rows 1 and 2 swap their values. */
  swaps?: true;
}

/** A trigger function that does what the assignment says to every row. */
export const meddle = ({ column, value }: Assignment) => `
  create function harbour.meddle() returns trigger language plpgsql as
  $$ begin new.${column} := ${value}; return new; end $$;
`;
export const trigger = (name: string, event: string, relation: string) =>
  `create trigger ${name} before ${event} on ${relation} for each row execute function harbour.meddle();`;
/** The assignment that swaps the values of two rows. */
const swapped = ({ column }: Assignment): Assignment => ({
  column,
  value: column === "org_id"
    ? `case new.id when 1 then '${secondOrgId}'::uuid else '${ownOrgId}'::uuid end`
    : "case new.id when 1 then 'Boat' else 'Argo' end",
});
export const moveOf = (target: Target) => target.move ?? { set: "", to: "" };
/** A parent whose key the rows follow wherever it goes. */
const fleets = (relation: string, columns: string) => `
  create table harbour.fleets as select distinct ${columns} from ${relation} where id = 1;
  alter table harbour.fleets add unique (${columns});
  grant all on harbour.fleets to service_role, authenticated;
  delete from ${relation} where id <> 1;
  alter table ${relation} add foreign key (${columns}) references harbour.fleets (${columns}) on update cascade;
`;

export const attacks: Attack[] = [
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
    name: "a BEFORE trigger whose name comes before ours",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("aaa_meddle", "update", relation),
    statement: ({ relation }) => `update ${relation} set visits = visits + 1 where id = 1`,
  },
  {
    name: "a BEFORE trigger whose name comes after ours",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("zzzz_meddle", "update", relation),
    statement: ({ relation }) => `update ${relation} set visits = visits + 1 where id = 1`,
  },
  {
    name: "an AFTER trigger that updates the row again",
    setUp: ({ relation }, { column, value }) => `
      create function harbour.meddle() returns trigger language plpgsql security definer as $$
      begin
          update ${relation} set ${column} = ${value} where id = new.id and ${column} is distinct from ${value};
          return null;
      end
      $$;
      create trigger aaa_meddle after update on ${relation} for each row execute function harbour.meddle();
    `,
    statement: ({ relation }) => `update ${relation} set visits = visits + 1 where id = 1`,
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
  },
  {
    name: "one statement that swaps two rows' values",
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
  },
  {
    name: "a BEFORE trigger whose name comes before ours when the row moves",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("aaa_meddle", "update", relation),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set} where id = 1`,
    moves: true,
  },
  {
    name: "a BEFORE trigger whose name comes after ours when the row moves",
    setUp: ({ relation }, assignment) => meddle(assignment) + trigger("zzzz_meddle", "update", relation),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set} where id = 1`,
    moves: true,
  },
  {
    name: "an INSERT trigger of the partition that the row moves to",
    setUp: (target, assignment) => meddle(assignment) + trigger("meddle", "insert", moveOf(target).to),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set} where id = 1`,
    moves: true,
  },
  {
    name: "an INSERT trigger of the partition that a foreign key moves the row to",
    setUp: (target, assignment) =>
      fleets(target.relation, "region, year") + meddle(assignment) + trigger("meddle", "insert", moveOf(target).to),
    statement: (target) => `update harbour.fleets set ${moveOf(target).set}`,
    moves: true,
  },
  {
    name: "one statement that moves two rows and swaps their values",
    statement: (target, assignment) =>
      `update ${target.relation} as new set ${moveOf(target).set}, ${assignment.column} = ${swapped(assignment).value}`,
    moves: true,
    swaps: true,
  },
  {
    name: "an INSERT trigger that swaps the values of two moving rows",
    setUp: (target, assignment) => meddle(swapped(assignment)) + trigger("meddle", "insert", moveOf(target).to),
    statement: (target) => `update ${target.relation} set ${moveOf(target).set}`,
    moves: true,
    swaps: true,
  },
];
