import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migrationFiles } from "../../local/application.ts";
import { claimsOf, refusal } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { lastStep, takeLastStep } from "../last-step.ts";
import { readSection } from "../readme.ts";

const [acme, globex, initech] = ["a", "b", "c"].map((letter) => `c0000000-0000-4000-8000-00000000000${letter}`);
const [ann, bob] = ["1", "2"].map((number) => `c0000000-0000-4000-8000-00000000001${number}`);
const section = readSection("## Tables that are the organizations", "docs/adopt.md");
const recipe = section.blocks("sql").join("\n");

let database: Database;

// An application whose companies are the organizations. Ann is in two of them.
beforeAll(async () => {
  database = await cloneDatabase("companies", "migrated");
  const { sql } = database;
  await sql.unsafe(`
    insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data)
    select '00000000-0000-0000-0000-000000000000', id::uuid, 'authenticated', 'authenticated', id || '@example.com', '{}'
    from unnest(array['${ann}', '${bob}']) as id;
    create table public.companies (id uuid primary key default gen_random_uuid(), name text not null);
    create table public.deals (
      id integer primary key,
      user_id uuid references auth.users (id),
      company_id uuid references public.companies (id) on delete cascade
    );
    create table public.balances (id integer primary key, company_id uuid references public.companies (id) on delete cascade);
    grant select, insert on public.companies, public.deals, public.balances to authenticated;
    insert into public.companies (id, name) values ('${acme}', 'Acme'), ('${globex}', 'Globex');
    insert into public.deals values (1, '${ann}', '${acme}'), (2, '${ann}', '${globex}'), (3, '${bob}', '${globex}'), (4, '${bob}', null);
    insert into public.balances values (1, '${acme}'), (2, '${globex}');
    insert into tenancy.registry (schema_name, table_name, scope, priority, reason)
    values
      ('public', 'companies', 'excluded', null, 'the organizations'),
      ('public', 'deals', 'org', 'critical', null),
      ('public', 'balances', 'org', 'secondary', null);
  `).simple();
  for (const _again of [1, 2]) await sql.unsafe(recipe).simple();
  await sql`insert into tenancy.user_orgs (user_id, org_id) values (${ann!}, ${acme!}), (${bob!}, ${globex!})`;
  for (const table of ["public.deals", "public.balances"]) await sql`select tenancy.onboard(${table}::regclass)`;
});

afterAll(async () => await database?.drop());

test("the recipe is for a file that stays when one plain migration takes the place of the copied ones", () => {
  const [, file = ""] = /end of the file ending in `(\w+\.sql)`/.exec(section.text) ?? [];
  const [replaceFiles = ""] = readSection("## One plain migration instead of the copied files", "docs/last-step.md")
    .blocks("sh");
  const [gone = ""] = /GONE=\$\(ls [^)]*\)/.exec(replaceFiles) ?? [];
  expect(migrationFiles().some((name) => name.endsWith(file))).toBe(true);
  expect(file).toMatch(/^_/);
  expect(gone).toContain("*_EDIT_list_of_tables.sql");
  expect(gone).not.toContain(`*${file}`);
});

test("rows belong to the company that they name, whoever owns them, and to their owner's where they name none", async () => {
  expect(await database.sql`select id, org_id from public.deals order by id`).toEqual([
    { id: 1, org_id: acme },
    { id: 2, org_id: globex },
    { id: 3, org_id: globex },
    { id: 4, org_id: globex },
  ]);
});

test("so do rows that name no user", async () => {
  expect(await database.sql`select id, org_id from public.balances order by id`).toEqual([
    { id: 1, org_id: acme },
    { id: 2, org_id: globex },
  ]);
});

test("a user whose token has no organization yet creates a company, and writes rows of it", async () => {
  const rows = await database.sql.begin(async (sql) => {
    await sql`set local role authenticated`;
    await sql`select set_config('request.jwt.claims', ${JSON.stringify({ sub: ann, role: "authenticated" })}, true)`;
    await sql`insert into public.companies (id, name) values (${initech!}, 'Initech')`;
    await sql`insert into public.deals (id, user_id, company_id) values (5, ${ann!}, ${initech!})`;
    await sql`reset role`;
    return await sql`
      select deals.org_id, organizations.name
      from public.deals
      join public.organizations on organizations.id = deals.org_id
      where deals.id = 5
    `;
  });
  expect(rows).toEqual([{ org_id: initech, name: "Initech" }]);
});

test("a row belongs to the company that it names, also where the token has another organization of the user's", async () => {
  const rows = await database.sql.begin(async (sql) => {
    await sql`select set_config('request.jwt.claims', ${JSON.stringify(claimsOf(acme!, ann))}, true)`;
    await sql`set local role authenticated`;
    await sql`insert into public.deals (id, user_id, company_id) values (6, ${ann!}, ${globex!}), (7, ${ann!}, null)`;
    await sql`insert into public.balances (id, company_id) values (6, ${globex!}), (7, ${acme!})`;
    await sql`insert into public.balances select * from jsonb_populate_record(null::public.balances, ${
      sql.json({ id: 8, company_id: globex! })
    })`;
    await sql`reset role`;
    return await sql`
      select 'deals' as of, id, org_id from public.deals where id > 5
      union all
      select 'balances', id, org_id from public.balances where id > 5
      order by 1, 2
    `;
  });
  expect(rows).toEqual([
    { of: "balances", id: 6, org_id: globex },
    { of: "balances", id: 7, org_id: acme },
    { of: "balances", id: 8, org_id: globex },
    { of: "deals", id: 6, org_id: globex },
    { of: "deals", id: 7, org_id: acme },
  ]);
  // Counted is only what would have had another organization without the filler, or none.
  expect(await database.sql`select rows from tenancy.filled_rows where relation = 'public.balances'::regclass`).toEqual(
    [
      { rows: "2" },
    ],
  );
  await database.sql`delete from public.deals where id > 5`;
  await database.sql`delete from public.balances where id > 5`;
});

test("the organization that a statement sends stays", async () => {
  const [row] = await database.sql`
    insert into public.balances (id, company_id, org_id) values (9, ${acme!}, ${globex!}) returning org_id
  `;
  await database.sql`delete from public.balances where id = 9`;
  expect(row).toEqual({ org_id: globex });
});

test("an organization that is deleted takes its company and all of its rows along, and nothing else", async () => {
  await database.sql`delete from public.organizations where id = ${globex!}`;
  expect(await database.sql`select name from public.companies order by name`).toEqual([
    { name: "Acme" },
    { name: "Initech" },
  ]);
  expect(await database.sql`select id from public.deals order by id`).toEqual([{ id: 1 }, { id: 5 }]);
  expect(await database.sql`select id from public.balances`).toEqual([{ id: 1 }]);
});

describe("once the filler is gone", () => {
  const named = async () => [
    ...await database.sql`
      select table_name, severity, remedy from tenancy.review where code = 'other_organization_named' order by table_name
    `,
  ];

  test("the last step is refused while a row may name another company than its organization", async () => {
    expect(await named()).toMatchObject(
      ["public.balances", "public.deals"].map((table_name) => ({ table_name, severity: "decide" })),
    );
    const error = await refusal(database.sql.unsafe(lastStep.slice(lastStep.indexOf("do $$"))));
    expect(error?.message).toMatch(/^public\.deals may have rows .*company_id.*\[other_organization_named\]$/m);
  });

  test("the statement to paste holds the two equal, and the last step goes on", async () => {
    for (const { remedy } of await named()) await database.sql.unsafe(remedy).simple();
    expect(await named()).toEqual([]);
    await takeLastStep(database.sql);
  });

  test("a row that names another company than that of the token is refused, and one that says both is written", async () => {
    await database.sql.begin(async (sql) => {
      await sql`select set_config('request.jwt.claims', ${JSON.stringify(claimsOf(acme!, ann))}, true)`;
      await sql`insert into public.deals (id, user_id, company_id) values (10, ${ann!}, ${acme!}), (11, ${ann!}, null)`;
      await sql`insert into public.deals (id, company_id, org_id) values (12, ${initech!}, ${initech!})`;
      expect(await sql`select id, org_id from public.deals where id > 9 order by id`).toEqual([
        { id: 10, org_id: acme },
        { id: 11, org_id: acme },
        { id: 12, org_id: initech },
      ]);
      const error = await refusal(
        sql.savepoint((inner) => inner`insert into public.deals (id, company_id) values (13, ${initech!})`),
      );
      expect(error).toMatchObject({ code: "23514", constraint_name: "org_id_is_company_id" });
    });
  });

  test("and without the statement the review says that something breaks", async () => {
    await database.sql`alter table public.deals drop constraint org_id_is_company_id`;
    expect(await named()).toMatchObject([{ table_name: "public.deals", severity: "breaks" }]);
    await database.sql.unsafe(`
      create function public.follow_company() returns trigger language plpgsql set search_path = '' as
      $$ begin new.org_id := coalesce(new.company_id, new.org_id); return new; end $$;
      create trigger follow_company before insert on public.deals for each row execute function public.follow_company();
    `).simple();
    expect(await named(), "the neighbour: a trigger that gives it").toEqual([]);
  });
});
