import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { runAsSuperuser } from "../databases.ts";
import { findIntruders } from "../intruder-identities.ts";
import { type Hit, intrude, type Intrusions } from "../intruder.ts";
import {
  dropCrossingKeys,
  findUnnamed,
  isolateApplication,
  type Isolated,
  type IsolatedApplication,
  isolatedApplications,
  openToEveryoneSignedIn,
  readCrossing,
} from "../isolated-applications.ts";

/** The intruder needs a superuser to set the scene. What it tries it does as the roles of the API. */
const connectAsSuperuser = (database: string) =>
  connect(databaseUrl(inject("databasePort"), { database, role: "supabase_admin" }));

/** Ways into other organizations, each beside one that is none. */
const withinReach = `
  create schema lens;
  grant usage on schema lens to anon, authenticated, lens_auditor, lens_clerk;
  alter default privileges in schema lens grant all on tables to anon, authenticated;

  create view lens.contacts as select id, owner_id, first_name, last_name from public.contacts;
  create view lens.own_contacts with (security_invoker = true) as select id, owner_id, first_name, last_name from public.contacts;
  create materialized view lens.stored_contacts as select id, email from public.contacts;
  create materialized view lens.closed_contacts as select id, email from public.contacts;
  revoke all on lens.closed_contacts from anon, authenticated;

  create function lens.count_deals() returns bigint language sql stable security definer set search_path = '' as
  $$ select count(*) from sales.deals $$;
  create function lens.count_own_deals() returns bigint language sql stable as
  $$ select count(*) from sales.deals $$;
  create function lens.find_contact(contact uuid) returns setof public.contacts language sql stable security definer
  set search_path = '' as $$ select * from public.contacts where id = contact $$;
  create function lens.find_own_contact(contact uuid) returns setof public.contacts language sql stable as
  $$ select * from public.contacts where id = contact $$;
  create function lens.rename_contact(contact uuid, name text) returns void language sql security definer
  set search_path = '' as $$ update public.contacts set first_name = name where id = contact $$;
  create function lens.rename_own_contact(contact uuid, name text) returns void language sql as
  $$ update public.contacts set first_name = name where id = contact $$;
  create procedure lens.forget_deals(status sales.deal_status) language sql security definer
  set search_path = '' as $$ delete from sales.deals where deals.status = forget_deals.status $$;
  create function lens.roll_dice() returns text language sql as $$ select gen_random_uuid()::text $$;

  -- A trigger with its owner's rights, on a table that the isolation holds for.
  create function lens.touch() returns trigger language plpgsql security definer set search_path = '' as
  $$ begin update sales.price_changes set changed_at = now(); return null; end $$;
  create trigger touch after update on sales.deal_items for each statement execute function lens.touch();

  -- The isolation is for authenticated.
  grant select, insert, update, delete on public.contacts to lens_auditor, lens_clerk;
  create policy "Auditors see and do everything" on public.contacts to lens_auditor using (true) with check (true);

  -- A new partition, which nobody has isolated.
  create table public.activities_2025_01 partition of public.activities for values from ('2025-01-01') to ('2025-02-01');
  insert into public.activities (occurred_at, owner_id, kind, org_id)
  select '2025-01-01', id, 'note', tenancy.org_of(id) from auth.users;
`;

/** Who used what, in which ways, to reach what: a line each. */
function summarize(hits: Hit[]): string[] {
  const ways = new Map<string, Set<string>>();
  for (const { role, through, way, reached } of hits) {
    for (const table of reached.length > 0 ? reached : [through]) {
      const line = `${role} through ${through}${table === through ? "" : ` in ${table}`}`;
      ways.set(line, (ways.get(line) ?? new Set()).add(way));
    }
  }
  return [...ways].map(([line, names]) => `${line}: ${[...names].sort().join(", ")}`).sort();
}

/** What is known to let rows of another organization through, besides foreign keys between rows that are in two. */
const known: Record<IsolatedApplication, string[]> = {
  "call-centre": [],
  crm: [],
  // A policy without `to` is for anon, too, who is in no organization, and whom the isolation does not restrict.
  marketplace: [
    "anon through public.listings: copy to, select",
    "anon through public.profiles: copy to, select",
    "anon through public.reviews: copy to, select",
  ],
  // SECURITY DEFINER, without a word of the organization: it says of any channel whether one is a member.
  "team-chat": ["authenticated through public.is_member(bigint): call that reads"],
  "half-migrated": [],
};

describe.each(isolatedApplications)("%s, isolated, as two users", (name) => {
  let isolated: Isolated;
  let superuser: Sql;
  let found: Intrusions;
  /**
   * The same, where the application's policies leave everything within an organization to everyone signed in, and where no
   * foreign key hands on what is done to a row.
   */
  let foundWhereOpen: Intrusions;
  let crossing: Set<string>;
  let tables: string[];

  beforeAll(async () => {
    isolated = await isolateApplication(name);
    const { sql } = isolated.database;
    superuser = connectAsSuperuser(isolated.database.name);
    crossing = await readCrossing(sql);
    tables = (await sql`select qualified_name from tenancy.isolation_policies`).map((row) => row["qualified_name"]);
    const intruders = await findIntruders(superuser);
    found = await intrude(superuser, intruders);
    await openToEveryoneSignedIn(sql);
    await dropCrossingKeys(sql);
    foundWhereOpen = await intrude(superuser, intruders.filter(({ role }) => role === "authenticated"));
  });

  afterAll(async () => {
    await superuser?.end();
    await isolated?.database.drop();
  });

  /** A delete that a foreign key hands on to rows of other organizations, with whatever their triggers do then. */
  const isHandedOn = ({ way, through, reached }: Hit) =>
    /^delete/.test(way) && tables.includes(through) && reached.some((table) => crossing.has(table));

  test("nothing is read or written but through what is known, and foreign keys from one organization to another", () => {
    expect(summarize(found.hits.filter((hit) => !isHandedOn(hit)))).toEqual(known[name]);
  });

  test("nor is it where policies open every table to everyone signed in, and no such foreign key is left", () => {
    const ofUsers = known[name].filter((line) => line.startsWith("authenticated "));
    expect(summarize(foundWhereOpen.hits)).toEqual(ofUsers);
  });

  test("all of it was named by the review before anything was isolated", () => {
    // Whatever else is said of a table, the key that hands a delete on is that of the rows that it reaches.
    const byKey = (hit: Hit) => ({
      ...hit,
      through: `the keys to ${hit.through}`,
      reached: hit.reached.filter((table) => crossing.has(table)),
    });
    const all = [...found.hits, ...foundWhereOpen.hits].map((hit) => isHandedOn(hit) ? byKey(hit) : hit);
    expect(summarize(findUnnamed(all, isolated.named))).toEqual([]);
  });

  test("the intruder was let in: every table was read and written where its policies allow it", () => {
    for (const way of ["select", "update", "delete row by row"]) {
      const used = new Set(foundWhereOpen.accepted.filter((one) => one.way === way).map(({ through }) => through));
      expect(tables.filter((table) => !used.has(table)), way).toEqual([]);
    }
  });
});

describe("the intruder, where rows are within reach,", () => {
  let isolated: Isolated;
  let superuser: Sql;
  let hits: Hit[];
  const roles = ["lens_auditor", "lens_clerk"];

  beforeAll(async () => {
    isolated = await isolateApplication("crm", "_within_reach");
    const { sql, name } = isolated.database;
    superuser = connectAsSuperuser(name);
    await superuser.unsafe(`${roles.map((role) => `create role ${role}; grant ${role} to authenticator;`).join(" ")}`)
      .simple();
    await sql.unsafe(withinReach).simple();
    const intruders = await findIntruders(superuser);
    ({ hits } = await intrude(superuser, intruders, { through: /^lens\.|contacts$|deal_items$|activities_2025_01$/ }));
  });

  afterAll(async () => {
    await superuser?.end();
    await isolated?.database.drop();
    await runAsSuperuser("postgres", roles.map((role) => `drop role if exists ${role};`).join(" "));
  });

  /** The ways in which a role used something to reach something. */
  const waysOf = (role: string, through: string, table?: string) => [
    ...new Set(
      hits
        .filter((hit) => hit.role === role && hit.through === through && (!table || hit.reached.includes(table)))
        .map(({ way }) => way),
    ),
  ];

  test.each([
    ["a view with its owner's rights", "anon", "lens.contacts", ["select"]],
    ["a view with its owner's rights", "authenticated", "lens.contacts", ["select", "update", "delete"]],
    ["a materialized view", "anon", "lens.stored_contacts", ["select", "statistics"]],
    ["a materialized view", "authenticated", "lens.stored_contacts", ["select", "statistics"]],
    ["a count with its owner's rights", "authenticated", "lens.count_deals()", ["call that reads"]],
    ["a guess at an argument", "anon", "lens.find_contact(uuid)", ["call that reads"]],
    ["a guess at two arguments", "authenticated", "lens.rename_contact(uuid, text)", ["call that writes"]],
    ["a procedure", "authenticated", "lens.forget_deals(sales.deal_status)", ["call that writes"]],
    ["a trigger with its owner's rights", "authenticated", "sales.deal_items", ["update", "update by MERGE"]],
    ["a new partition", "authenticated", "public.activities_2025_01", [
      ...["select", "statistics", "copy to", "copy from", "insert", "insert by MERGE", "upsert"],
      ...["update", "update by MERGE", "update row by row", "delete", "delete by MERGE", "delete row by row"],
    ]],
    ["a role that the isolation is not for", "lens_auditor", "public.contacts", [
      ...["select", "copy to", "insert", "insert by MERGE", "upsert"],
      ...["update", "update by MERGE", "update row by row", "update of the key"],
      ...["delete", "delete by MERGE", "delete row by row"],
    ]],
    ["a function with that role's rights", "lens_auditor", "lens.find_own_contact(uuid)", ["call that reads"]],
  ])("finds them through %s, as %s", (_, role, through, ways) => {
    expect(waysOf(role, through)).toEqual(expect.arrayContaining(ways));
  });

  test.each([
    ["a view with its reader's rights", "authenticated", "lens.own_contacts"],
    ["a materialized view that is closed", "authenticated", "lens.closed_contacts"],
    ["a count with its caller's rights", "authenticated", "lens.count_own_deals()"],
    ["a function with its caller's rights", "authenticated", "lens.find_own_contact(uuid)"],
    ["a function that writes with its caller's rights", "authenticated", "lens.rename_own_contact(uuid, text)"],
    ["a function that never says the same twice", "authenticated", "lens.roll_dice()"],
    ["a role that no policy is for", "lens_clerk", "public.contacts"],
  ])("finds none through %s", (_, role, through) => {
    // A delete of one's own goes on to what references it, whatever it is done through.
    expect(waysOf(role, through).filter((way) => way !== "delete")).toEqual([]);
    expect(waysOf(role, through, "public.contacts")).toEqual([]);
  });

  test("takes for named what a leak names: the object, its function whatever the types, or all that was reached", () => {
    const leak = (object: string, table_name: string | null = null) => ({ code: "any", object, table_name });
    const reach = (through: string, ...reached: string[]) => ({ role: "anon", way: "any", through, reached });
    const [view, table, call, handedOn] = [
      reach("lens.contacts"),
      reach("public.contacts", "public.contacts"),
      reach("lens.find_contact(uuid)"),
      reach("public.contacts", "sales.deals", "public.activities"),
    ];
    const all = [view, table, call, handedOn];
    expect(findUnnamed(all, [])).toEqual(all);
    expect(findUnnamed(all, [leak("lens.contacts"), leak("lens.find_contact")])).toEqual([table, handedOn]);
    expect(findUnnamed(all, [leak("lens.find_contact(uuid)"), leak("a policy", "contacts")])).toEqual([view]);
    expect(findUnnamed(all, [leak("sales.deals")])).toEqual(all);
    expect(findUnnamed(all, [leak("a key", "sales.deals"), leak("activities")])).toEqual([view, table, call]);
  });
});
