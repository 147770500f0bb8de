import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { copyOut } from "../../cli/copy.ts";
import type { Manifest } from "../../cli/export-manifest.ts";
import { inTransaction } from "../../cli/live-database.ts";
import { startCommand } from "../commands.ts";
import { cloneDatabase, type Database } from "../databases.ts";

const third = "c0000000-0000-4000-8000-000000000003";
const [ada, ben, cid, eve] = [1, 2, 3, 4].map((n) => `d0000000-0000-4000-8000-00000000000${n}`) as [
  string,
  string,
  string,
  string,
];

/** Tables that the call-centre application has not: of a self-reference, a circle, partitions, generated columns, numbers, inheritance. */
const moreTables = `
  create schema harbour;
  create table harbour."Ports" (id integer primary key, main_ship_id integer, user_id uuid);
  create table harbour.ships (
    id bigint generated always as identity primary key, flagship_id bigint, port_id integer, name text,
    label text generated always as (upper(name)) stored, length double precision, built timestamptz, span interval, flag bytea, user_id uuid
  );
  create table harbour.voyages (at date, ship_id bigint, note text) partition by range (at);
  create table harbour.voyages_old partition of harbour.voyages for values from (minvalue) to ('2025-01-01');
  create table harbour.voyages_new partition of harbour.voyages default;
  insert into tenancy.registry (schema_name, table_name, scope, priority)
  values ('harbour', 'Ports', 'org', 'secondary'), ('harbour', 'ships', 'org', 'secondary'), ('harbour', 'voyages', 'org', 'secondary'),
    ('harbour', 'berths', 'org', 'secondary'), ('harbour', 'terms', 'org', 'secondary'), ('harbour', 'bills', 'org', 'secondary');
  update tenancy.registry set org_from = '{}' where table_name = 'voyages';
  create table harbour.companies (
    id uuid primary key references public.organizations (id) on delete cascade, name text, created_by uuid references auth.users (id)
  );
  create table harbour.people (id integer primary key, user_id uuid references auth.users (id), last_company_id uuid references harbour.companies (id));
  create table harbour.seats (company_id uuid references harbour.companies (id) on delete cascade, user_id uuid references auth.users (id), primary key (company_id, user_id));
  create table harbour.preferences (user_id uuid primary key references auth.users (id), company_id uuid not null references harbour.companies (id) on delete cascade);
  create table harbour.shifts (person_id integer references harbour.people (id));
  create table harbour.papers (id integer primary key, user_id text, updated_by uuid not null references auth.users (id));
  create table harbour.visas (country text) inherits (harbour.papers);
  create table harbour.berths (id integer primary key, number integer unique deferrable initially deferred, user_id uuid);
  create table harbour.terms (code text collate "POSIX" primary key, days integer, user_id uuid);
  create sequence harbour.bill_number;
  create domain harbour.count as bigint;
  create table harbour.bills (
    id serial primary key, number harbour.count default nextval('harbour.bill_number'), terms text collate "C", text text, user_id uuid
  );
  create table harbour.crews (person_id integer references harbour.people (id), company_id uuid references harbour.companies (id) on delete cascade);
  insert into tenancy.registry (schema_name, table_name, scope, reason)
  values ('harbour', 'companies', 'excluded', 'the organizations'), ('harbour', 'people', 'excluded', 'user-specific'),
    ('harbour', 'crews', 'excluded', 'who is in which'), ('harbour', 'seats', 'excluded', 'who is in which'),
    ('harbour', 'preferences', 'excluded', 'user-specific'), ('harbour', 'shifts', 'excluded', 'when they work'), ('harbour', 'papers', 'excluded', 'user-specific'),
    ('harbour', 'visas', 'excluded', 'user-specific');
  select tenancy.onboard('harbour."Ports"');
  select tenancy.onboard('harbour.ships');
  select tenancy.onboard('harbour.voyages');
  select tenancy.onboard('harbour.berths');
  select tenancy.onboard('harbour.terms');
  select tenancy.onboard('harbour.bills');
  create table harbour.lights (id bigint primary key);
  insert into tenancy.registry (schema_name, table_name, scope, reason) values ('harbour', 'lights', 'excluded', 'global reference data');
  alter table harbour.voyages_new add constraint light foreign key (ship_id) references harbour.lights (id);
  alter table harbour.bills add foreign key (terms) references harbour.terms (code);
  alter table harbour."Ports" add foreign key (main_ship_id) references harbour.ships (id);
  alter table harbour.ships add foreign key (flagship_id) references harbour.ships (id), add foreign key (port_id) references harbour."Ports" (id);
  alter table harbour.voyages add foreign key (ship_id) references harbour.ships (id);
`;

/** The rows of an organization that reference each other, and of its users; one of them is in another one and a member of it. */
const rows = `
  insert into public.organizations (id, name) values ('${third}', 'Third');
  insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data, encrypted_password)
  select '00000000-0000-0000-0000-000000000000', id::uuid, 'authenticated', 'authenticated', left(id, 1) || right(id, 1) || '@example.com',
    jsonb_build_object('org_id', '${third}'), 'hash'
  from unnest('{${ada},${ben},${eve}}'::text[]) as id;
  update auth.users set raw_app_meta_data = '{}' where id = '${eve}';
  insert into auth.identities (provider_id, user_id, identity_data, provider)
  select id, id, jsonb_build_object('sub', id), 'email' from auth.users where id in ('${ada}', '${ben}', '${eve}');
  insert into tenancy.user_orgs (user_id, org_id) values ('${ada}', '${third}'), ('${ben}', '${third}');
  insert into tenancy.user_orgs (user_id, org_id) select '${eve}', default_org_id from tenancy.settings;
  insert into tenancy.memberships (user_id, org_id, role) values ('${ada}', '${third}', 'owner'), ('${eve}', '${third}', 'member');
  insert into public.profiles (id, full_name) values ('${ada}', E'Ada\\tLovelace\\n\\\\N'), ('${ben}', null) on conflict do nothing;
  insert into public.customers (id, user_id, stripe_customer_id) values ('${cid}', '${ada}', 'cus_ada');
  insert into public.voice_options (id, provider, voice_name) values ('${cid}', 'p', 'v');
  insert into public.agents (user_id, name, voice_option_id, org_id) values ('${ada}', 'agent', '${cid}', '${third}');
  insert into public.campaigns (user_id, agent_id, name, org_id) select '${ben}', id, 'autumn', org_id from public.agents where org_id = '${third}';
  insert into public.leads (user_id, campaign_id, full_name, phone_number, tags, custom_fields, org_id)
  select '${ben}', id, 'lead', n, array['a,b', '"'], '{"n": [1]}', org_id from public.campaigns, generate_series(1, 5) as n where org_id = '${third}';
  insert into public.payments (user_id, customer_id, amount, org_id) values ('${ada}', '${cid}', 1.5, '${third}');
  insert into harbour.companies (id, name, created_by)
  select id, name, case when id <> '${third}' then '${eve}'::uuid end from public.organizations;
  insert into harbour.people values (1, '${ada}');
  insert into harbour.seats select id, '${ada}' from public.organizations;
  insert into harbour.preferences values ('${ada}', '${third}');
  insert into harbour.papers values (1, upper('${ada}'), '${ben}'), (2, (select id from auth.users where id not in ('${ada}', '${ben}') limit 1), '${ben}');
  insert into harbour.visas values (3, '${ben}', '${ada}', 'NL');
  insert into harbour.berths (id, number, org_id) values (1, 7, '${third}');
  insert into harbour.terms (code, days, org_id) values ('net', 30, '${third}');
  insert into harbour.bills (terms, text, org_id) values ('net', 'the first', '${third}');
  insert into harbour.crews values (1, '${third}');
  insert into harbour."Ports" (id, org_id) values (1, '${third}');
  insert into harbour.ships (flagship_id, port_id, name, length, built, span, flag, org_id)
  values (2, 1, 'it''s', 0.1::float8 + 0.2, '2024-02-29 12:00+05', '1 mon 2 days', '\\xff00', '${third}'), (null, 1, 'b', 'NaN', null, null, '', '${third}');
  update harbour."Ports" set main_ship_id = 2;
  insert into harbour.lights values (2);
  insert into harbour.voyages (at, ship_id, note, org_id) values ('2024-01-01', 1, 'x', '${third}'), ('2026-01-01', 2, '', '${third}'), ('2026-01-01', 2, '', '${third}');
`;

let source: Database;
let target: Database;
let folder: string;

const run = async (...parameters: string[]) => {
  const command = startCommand(["npm", "run", "-s", "export", "--", ...parameters]);
  const code = await command.ended;
  return { code, output: command.output() };
};
const exportTo = (name: string, ...more: string[]) =>
  run("--db-url", source.url, "--org", third, "--out", join(folder, name), ...more);
const load = (name: string, ...more: string[]) => run("--db-url", target.url, "--load", join(folder, name), ...more);
const manifestOf = (name: string) => JSON.parse(readFileSync(join(folder, name, "manifest.json"), "utf8")) as Manifest;

/** Every row of the organization, and every row of the tables that are not org-scoped, as text. */
async function readState(sql: Sql, where: string): Promise<Record<string, string[]>> {
  const state: Record<string, string[]> = {};
  for (const { name } of await sql<{ name: string }[]>`select qualified_name as name from tenancy.org_scoped_tables`) {
    const held = await sql.unsafe<{ row: string }[]>(
      `select to_jsonb(row)::text as row from ${name} as row where ${where} order by 1`,
    );
    if (held.length > 0) state[name] = held.map(({ row }) => row);
  }
  return state;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "export-"));
  source = await cloneDatabase("export_source", "two_organizations");
  target = await cloneDatabase("export_target", "migrated");
  for (const { sql } of [source, target]) await sql.unsafe(moreTables).simple();
  await source.sql.unsafe(rows).simple();
});

afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await source?.drop();
  await target?.drop();
});

describe("an organization is taken to another database", () => {
  test("as files that only their owner reads, with counts and hashes, and no row of others", async () => {
    const { code, output } = await exportTo("whole", "--with-users");
    expect(code, output).toBe(0);
    expect(output).toContain("of 3 users");
    expect(output).toMatch(/public\.agents +public\.voice_options +1 +agents_voice_option_id_fkey/);
    expect(output).toMatch(/harbour\.voyages +harbour\.lights +2 +light/);
    const [, leftOut = ""] = output.split("No row of these is in it");
    expect(leftOut).toMatch(/harbour\.shifts +harbour\.people +when they work/);
    expect(leftOut).toMatch(/public\.voice_options +global reference data/);
    expect(leftOut).not.toMatch(/^(?:harbour\.(?:companies|people)|public\.(?:profiles|leads))/m);
    const { tables, users } = manifestOf("whole");
    expect(users).toEqual([ada, ben, eve]);
    const counts = Object.fromEntries(
      tables.filter((table) => table.rows > 0).map((table) => [table.name, table.rows]),
    );
    expect(counts).toEqual({
      "auth.identities": 3,
      "auth.users": 3,
      'harbour."Ports"': 1,
      "harbour.berths": 1,
      "harbour.bills": 1,
      "harbour.companies": 1,
      "harbour.crews": 1,
      "harbour.papers": 1,
      "harbour.people": 1,
      "harbour.preferences": 1,
      "harbour.seats": 1,
      "harbour.ships": 2,
      "harbour.terms": 1,
      "harbour.visas": 1,
      "harbour.voyages": 3,
      "public.agents": 1,
      "public.campaigns": 1,
      "public.compliance_audit_logs": 5,
      "public.customers": 1,
      "public.leads": 5,
      "public.organizations": 1,
      "public.payments": 1,
      "public.profiles": 2,
      "tenancy.memberships": 2,
      "tenancy.user_orgs": 2,
    });
    const order = tables.map(({ name }) => name);
    expect(order.indexOf("public.campaigns")).toBeLessThan(order.indexOf("public.leads"));
    const text = readdirSync(join(folder, "whole")).map((name) => readFileSync(join(folder, "whole", name), "utf8"))
      .join();
    expect(text).not.toContain("b0000000-0000-4000-8000");
    const modes = [".", ...readdirSync(join(folder, "whole"))].map((name) =>
      statSync(join(folder, "whole", name)).mode & 0o77
    );
    expect(new Set(modes)).toEqual(new Set([0]));
    expect((await exportTo("whole")).output).toContain("it is not empty");
  });

  test("refused while what it references is not there, and nothing is loaded", async () => {
    const before = await readState(target.sql, "true");
    const { code, output } = await load("whole");
    expect(code).toBe(1);
    expect(output).toContain(
      "1 rows of public.agents reference rows of public.voice_options that are not here (agents_voice_option_id_fkey)",
    );
    expect(output).toContain("2 rows of harbour.voyages reference rows of harbour.lights that are not here (light)");
    expect(await readState(target.sql, "true")).toEqual(before);
    expect(await target.sql`select from auth.users where id = ${ada}`).toHaveLength(0);
  });

  test("refused where the tables are others", async () => {
    await target.sql`alter table harbour.ships add column masts integer`;
    const { code, output } = await load("whole");
    await target.sql`alter table harbour.ships drop column masts`;
    expect([code, output]).toEqual([1, expect.stringContaining("harbour.ships has other columns: masts integer")]);
  });

  test("refused where a file is not what was written", async () => {
    await exportTo("changed", "--with-users");
    const file = manifestOf("changed").tables.find(({ name }) => name === "public.leads")?.file ?? "";
    appendFileSync(join(folder, "changed", file), "\n");
    const { code, output } = await load("changed");
    expect([code, output]).toEqual([1, expect.stringContaining(`${file} is not what was exported of public.leads`)]);
  });

  test("refused while its users are not there, unless they come along", async () => {
    await exportTo("without_users");
    const { code, output } = await load("without_users");
    expect([code, output]).toEqual([
      1,
      expect.stringContaining("3 of the 3 users of the organization are not in auth.users here"),
    ]);
  });

  test.each([
    [
      "at once",
      "insert into harbour.terms (code, days, org_id) values ('net', 10, $1)",
      "harbour.terms",
      '"terms_pkey": Key (code)=(net) ',
    ],
    ["at the end", "insert into harbour.berths (id, number, org_id) values (2, 7, $1)", "harbour.berths", "(number)"],
  ])("refused where a key is taken that is looked for %s", async (_when, insert, table, key) => {
    const [{ org } = { org: "" }] = await target.sql`select default_org_id as org from tenancy.settings`;
    await target.sql.unsafe(insert, [org as string]);
    const { code, output } = await load("whole");
    await target.sql.unsafe(`delete from ${table}`);
    expect([code, output]).toEqual([1, expect.stringContaining(key)]);
  });

  test("refused where another user has a user's e-mail address, which it names", async () => {
    await target.sql`
      insert into auth.users (instance_id, id, aud, role, email)
      values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', 'authenticated', 'd1@example.com')
    `;
    const { code, output } = await load("whole");
    await target.sql`delete from auth.users where email = 'd1@example.com'`;
    expect([code, output]).toEqual([
      1,
      expect.stringMatching(
        /auth\.users, line \d of 001_auth\.users\.copy: .*: Key \(email\)=\(d1@example\.com\)/,
      ),
    ]);
  });

  test("refused where an exclusion constraint is deferrable, which nothing could check", async () => {
    await target.sql`alter table harbour.berths add constraint apart exclude (number with =) deferrable`;
    const { code, output } = await load("whole");
    await target.sql`alter table harbour.berths drop constraint apart`;
    expect([code, output]).toEqual([1, expect.stringContaining("harbour.berths has apart, an exclusion constraint")]);
  });

  test("refused where a check of the table refuses a row, which it names", async () => {
    await target.sql`alter table harbour.terms add constraint few check (days < 30)`;
    const { code, output } = await load("whole");
    await target.sql`alter table harbour.terms drop constraint few`;
    expect([code, output]).toEqual([
      1,
      expect.stringMatching(/harbour\.terms, line 1 of \d+_harbour\.terms\.copy: .*"few"/),
    ]);
  });

  test("loaded, equal to the last byte, without a trigger having fired, and once", async () => {
    await target.sql`insert into public.voice_options (id, provider, voice_name) values (${cid}, 'p', 'v')`;
    await target.sql`insert into harbour.lights values (2)`;
    const others = await readState(target.sql, `org_id <> '${third}'`);
    const { code, output } = await load("whole");
    expect(code, output).toBe(0);
    const exported = await readState(source.sql, `org_id = '${third}'`);
    expect(Object.keys(exported)).toHaveLength(11);
    expect(await readState(target.sql, `org_id = '${third}'`)).toEqual(exported);
    expect(await readState(target.sql, `org_id <> '${third}'`)).toEqual(others);
    for (
      const table of [
        "public.profiles",
        "public.customers",
        "harbour.companies",
        "harbour.people",
        "harbour.visas",
        "auth.users",
        "auth.identities",
        "tenancy.memberships",
      ]
    ) {
      const query =
        `select to_jsonb(row) as row from ${table} as row where to_jsonb(row)::text ~ '${ada}|${ben}|${third}' order by row::text`;
      expect(await target.sql.unsafe(query), table).toEqual(await source.sql.unsafe(query));
    }
    const [placed] = await target.sql`
      select tenancy.org_of(${ada}) as ada, tenancy.org_of(${ben}) as ben, tenancy.org_of(${eve}) as eve
    `;
    expect(placed).toEqual({ ada: third, ben: third, eve: third });
    const [next] = await target.sql`insert into harbour.ships (name, org_id) values ('next', ${third}) returning id`;
    expect(Number(next?.["id"])).toBe(3);
    const bill = await target.sql`insert into harbour.bills (org_id) values (${third}) returning id, number::integer`;
    expect(bill).toEqual([{ id: 2, number: 2 }]);
    expect((await load("whole")).output).toContain(`the organization ${third} is in this database already`);
  });

  test("or told why not, where the connection is lost", async () => {
    let read = 0;
    const copying = inTransaction(source.url, "read only", async (transaction) => {
      const [session] = await transaction`select pg_backend_pid() as pid`;
      const rows = "copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout";
      await copyOut(transaction, rows, async () => {
        if (read++ === 50) await source.sql`select pg_terminate_backend(${session?.["pid"]})`;
      });
    });
    await expect(copying).rejects.toThrow(/CONNECTION_CLOSED|terminating connection/);
  });

  test("of any size, over a connection that is not encrypted", async () => {
    const [{ org } = { org: "" }] = await source.sql`select default_org_id as org from tenancy.settings`;
    for (const kilobytes of [24, 70, 250, 1000]) {
      await source.sql`delete from harbour.bills where org_id = ${org}`;
      await source.sql`
        insert into harbour.bills (text, org_id) select repeat('x', 500), ${org} from generate_series(1, ${kilobytes}::integer * 2)
      `;
      const out = join(folder, `of_${kilobytes}`);
      const { code, output } = await run("--db-url", source.url, "--org", org, "--out", out);
      expect(code, output).toBe(0);
    }
  });

  test("loaded beside users who have signed up there, with what they have there left as it is", async () => {
    await target.sql`delete from public.organizations where id = ${third}`;
    const refused = await load("without_users");
    expect([refused.code, refused.output]).toEqual([
      1,
      expect.stringContaining("leave them as they are: --without public.profiles"),
    ]);
    expect(refused.output).not.toContain("public.leads has");
    const withoutPersonal = [
      "public.profiles",
      "public.customers",
      "harbour.people",
      "harbour.papers",
      "harbour.visas",
      "harbour.preferences",
    ]
      .flatMap((table) => ["--without", table]);
    await target
      .sql`update tenancy.user_orgs set org_id = (select default_org_id from tenancy.settings) where user_id = ${ada}`;
    const elsewhere = await load("without_users", ...withoutPersonal);
    expect([elsewhere.code, elsewhere.output]).toEqual([
      1,
      expect.stringContaining("1 users of the organization are in another one here"),
    ]);
    await target.sql`delete from tenancy.user_orgs where user_id = ${ada}`;
    await target.sql`
      update auth.users set raw_app_meta_data = jsonb_build_object('org_id', (select default_org_id from tenancy.settings))
      where id = ${ada}
    `;
    const byClaim = await load("without_users", ...withoutPersonal);
    expect([byClaim.code, byClaim.output]).toEqual([elsewhere.code, elsewhere.output]);
    await target.sql`insert into tenancy.user_orgs (user_id, org_id) values (${ada}, null)`;
    const { code, output } = await load("without_users", ...withoutPersonal);
    expect(code, output).toBe(0);
    const [placed] = await target.sql`select tenancy.org_of(${ada}) as ada`;
    expect(placed).toEqual({ ada: third });
  });
});
