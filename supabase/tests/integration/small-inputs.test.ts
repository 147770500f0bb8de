import { afterEach, describe, expect, test } from "vitest";
import { claimsOf, refusal } from "../attempts.ts";
import { readSection } from "../readme.ts";
import {
  acme,
  ann,
  bob,
  createSmallApplication,
  excluded,
  globex,
  mapping,
  mapTo,
  org,
  type SmallApplication,
  type SmallInput,
} from "../small-inputs.ts";

let application: SmallApplication | undefined;

afterEach(async () => {
  await application?.database.drop();
  application = undefined;
});

/** One that is refused, by the preflight and by the push, and its neighbour that goes through with rows where they belong. */
interface Refusal {
  name: string;
  refused: Omit<SmallInput, "name">;
  finding: string;
  says: RegExp;
  /** The neighbour, as far as it differs. */
  neighbour: Partial<Omit<SmallInput, "name">>;
  rows: Record<string, unknown>[];
}

const appUsers = `
  create table public.app_users (id uuid primary key default gen_random_uuid(), auth_id uuid unique);
  insert into public.app_users (auth_id) values ('${bob}');
  create table public.tasks (id integer primary key, user_id uuid);
  insert into public.tasks select 1, id from public.app_users;
`;
const ownOrganizations = `
  create table public.organizations (id uuid primary key default gen_random_uuid(), name text);
  insert into public.organizations (id, name) values ('${acme}', 'Acme'), ('${globex}', 'Globex');
  create table public.tasks (id integer primary key, user_id uuid, organization_id uuid);
  insert into public.tasks values (1, '${bob}', '${acme}'), (2, '${bob}', '${globex}');
`;
const everyone = "postgres, public, anon, authenticated, service_role";
const appendOnly = `
  create table public.tasks (id integer primary key, user_id uuid);
  insert into public.tasks values (1, '${bob}');
  revoke update, delete on public.tasks from ${everyone};
`;

const refusals: Refusal[] = [
  {
    name: "user_id holds the keys of the application's own users",
    refused: { application: appUsers, list: [excluded("app_users"), org("tasks", "'{user_id}'")], mapping },
    finding: "public.tasks owner_of_nobody",
    says: /public\.tasks is decided by user_id alone, and of 1 values .* none is a user's id/,
    neighbour: {
      application: `${appUsers}
        alter table public.app_users add foreign key (auth_id) references auth.users (id) not valid;
        alter table public.tasks add foreign key (user_id) references public.app_users (id) not valid;
      `,
    },
    rows: [{ id: 1, org_id: globex }],
  },
  {
    name: "users' ids are kept in a form that is no uuid",
    refused: {
      application: `
        create table public.tasks (id integer primary key, user_id text);
        insert into public.tasks values (1, 'auth0|${bob}');
      `,
      list: [org("tasks")],
      mapping,
    },
    finding: "public.tasks owner_of_nobody",
    says: /of 1 values that were looked at none/,
    neighbour: {
      application: `
        create table public.tasks (id integer primary key, user_id text);
        insert into public.tasks values (1, 'auth0|${bob}'), (2, upper('${bob}'));
      `,
    },
    rows: [{ id: 1, org_id: "a0000000-0000-0000-0000-000000000001" }, { id: 2, org_id: globex }],
  },
  {
    name: "organizations are named without a foreign key",
    refused: { application: ownOrganizations, list: [org("tasks")], mapping },
    finding: "public.tasks organization_without_key",
    says: /public\.tasks has organizations' ids in organization_id, without a foreign key \(2 of 2\)/,
    neighbour: {
      application: `${ownOrganizations}
        alter table public.tasks add foreign key (organization_id) references public.organizations (id) not valid;
      `,
    },
    rows: [{ id: 1, org_id: acme }, { id: 2, org_id: globex }],
  },
  {
    name: "organizations are named without a foreign key, in text, and the owner is to decide",
    refused: {
      application: `${ownOrganizations} alter table public.tasks alter column organization_id type text;`,
      list: [org("tasks")],
      mapping,
    },
    finding: "public.tasks organization_without_key",
    says:
      /alter table public\.tasks alter column organization_id type uuid using organization_id::uuid, add foreign key/,
    neighbour: { list: [org("tasks", "'{user_id}'")] },
    rows: [{ id: 1, org_id: globex }, { id: 2, org_id: globex }],
  },
  {
    name: "the table is append-only for its owner too",
    refused: { application: appendOnly, list: [org("tasks")], mapping },
    finding: "public.tasks owner_without_privileges",
    says: /public\.tasks no longer lets postgres, its owner, read and update it: grant select, update on public\.tasks/,
    neighbour: { application: `${appendOnly} grant update on public.tasks to postgres;` },
    rows: [{ id: 1, org_id: globex }],
  },
  {
    name: "the organizations are unlogged",
    refused: {
      application: `${ownOrganizations} alter table public.organizations set unlogged;`,
      list: [org("tasks", "'{user_id}'")],
      mapping,
    },
    finding: "public.organizations organizations_not_referable",
    says: /public\.organizations cannot be referenced: it must be a logged table/,
    neighbour: { application: ownOrganizations },
    rows: [{ id: 1, org_id: globex }, { id: 2, org_id: globex }],
  },
];

describe("what would go wrong without a word is refused before anything is touched, by name", () => {
  test.each(refusals.map((refusal, number) => [refusal.name, refusal, number] as const))(
    "%s",
    async (_name, { refused, finding, says, neighbour, rows }, number) => {
      application = await createSmallApplication({ name: `refused_${number}`, ...refused });
      expect(await application.ask(refused)).toContain(finding);
      const { code, output } = await application.push(refused);
      expect([code, output]).toEqual([1, expect.stringMatching(says)]);
      expect(output).toContain(`[${finding.split(" ")[1]}]`);
      expect(
        await application.database
          .sql`select from pg_attribute where attname = 'org_id' and attrelid = 'public.tasks'::regclass`,
      )
        .toEqual([]);
      await application.database.drop();

      const allowed = { name: `allowed_${number}`, ...refused, ...neighbour };
      application = await createSmallApplication(allowed);
      expect(await application.ask(allowed)).toEqual([]);
      expect((await application.push(allowed)).output).toBe("");
      expect([...await application.database.sql`select id, org_id from public.tasks order by id`]).toEqual(rows);
    },
  );
});

describe("a generated column that asks a function of the application's, computed again with each update", () => {
  const slugify = (body: string) =>
    `create or replace function public.slugify(title text) returns text language plpgsql immutable as $$ begin ${body} end $$;`;
  const tasks = `
    ${slugify("return lower(title);")}
    create table public.tasks (
      id integer primary key, user_id uuid, title text, slug text generated always as (public.slugify(title)) stored
    );
    insert into public.tasks (id, user_id, title) values (1, '${bob}', 'New');
    create function public.touch() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger touch before update on public.tasks for each row execute function public.touch();
  `;
  const list = [org("tasks")];

  test.each([
    [
      "answers otherwise today",
      "return upper(title);",
      /has 1 rows that an update would change in the generated column slug/,
    ],
    [
      "raises",
      "perform from tags; return title;",
      /generated column slug, which asks a function that raises: relation "tags"/,
    ],
  ])("is refused where that %s", async (what, body, says) => {
    application = await createSmallApplication({
      name: `generated_${what.slice(0, 6).trim()}`,
      application: `${tasks} ${slugify(body)}`,
      list,
      mapping,
    });
    const { code, output } = await application.push({ list, mapping });
    expect([code, output]).toEqual([1, expect.stringMatching(says)]);
  });

  test("stays as it is where that answers the same", async () => {
    application = await createSmallApplication({ name: "generated", application: tasks, list, mapping });
    expect((await application.push({ list, mapping })).output).toBe("");
    expect([...await application.database.sql`select slug, org_id from public.tasks`]).toEqual([
      { slug: "new", org_id: globex },
    ]);
  });
});

describe("a mapping that is corrected and pushed again", () => {
  const tasks = `
    create table public.tasks (id integer primary key, user_id uuid);
    insert into public.tasks values (1, '${ann}'), (2, '${bob}');
  `;
  const list = [org("tasks")];
  const rows = async () => [...await application!.database.sql`select id, org_id from public.tasks order by id`];

  test.each([
    [
      "gives a user another organization",
      mapping,
      mapTo({ [ann]: globex, [bob]: globex }),
      /for 1 users, c0+-0000-4000-8000-0+11 first/,
    ],
    [
      "places a user whom it had left out",
      mapTo({ [ann]: acme }),
      mapping,
      /for 1 users, c0+-0000-4000-8000-0+12 first/,
    ],
    ["comes when all rows are in the default organization", "", mapping, /for 2 users/],
  ])("stops where it %s, since no row follows", async (what, first, second, says) => {
    application = await createSmallApplication({
      name: `mapping_${what.slice(0, 5)}`,
      application: tasks,
      list,
      mapping: first,
    });
    expect((await application.push({ list, mapping: first })).output).toBe("");
    const before = await rows();
    expect((await application.push({ list, mapping: first })).output).toBe("");
    const { code, output } = await application.push({ list, mapping: second });
    expect([code, output]).toEqual([1, expect.stringMatching(says)]);
    expect(output).toContain("[mapping_changed]");
    expect(await rows()).toEqual(before);

    // As it says: undo first, or note that only users are to move.
    const noted = await application.push({ list, mapping: `${second} select org_migration.note_mapping();` });
    expect([noted.output, await rows()]).toEqual(["", before]);
    await application.database.sql.unsafe("do $$ begin while tenancy.roll_back(1) loop commit; end loop; end $$");
    expect((await application.push({ list, mapping: second })).output).toBe("");
    expect(await rows()).not.toEqual(before);
  });

  test("goes through where it adds those who signed up since, and where an administrator has moved a user", async () => {
    application = await createSmallApplication({ name: "mapping_grows", application: tasks, list, mapping });
    const { sql } = application.database;
    await application.push({ list, mapping });
    const newcomer = "c0000000-0000-4000-8000-000000000013";
    await sql`insert into auth.users (id, created_at) values (${newcomer}, now())`;
    await sql`update tenancy.user_orgs set org_id = ${globex} where user_id = ${ann}`;
    expect((await application.push({ list, mapping: mapTo({ [bob]: globex, [newcomer]: acme }) })).output).toBe("");
  });
});

describe("a table that the list excludes after it was pushed as org", () => {
  const tables = `
    create table public.tasks (id integer primary key, user_id uuid);
    create table public.tags (id integer primary key, user_id uuid);
  `;
  const list = [org("tasks"), org("tags")];
  const rollBack = () =>
    application!.database.sql.unsafe("do $$ begin while tenancy.roll_back(1) loop commit; end loop; end $$").then(
      () => "",
      (error: Error) => error.message,
    );

  test("stops the push, which says how it loses what it has", async () => {
    application = await createSmallApplication({ name: "excluded_later", application: tables, list, mapping });
    await application.push({ list, mapping });
    const { code, output } = await application.push({ list: [org("tasks"), excluded("tags")], mapping });
    expect(code).toBe(1);
    const [, remedy = ""] = /or (drop trigger .*drop column org_id) \[excluded_with_triggers\]/.exec(output) ?? [];
    await application.database.sql.unsafe(remedy).simple();
    expect((await application.push({ list: [org("tasks"), excluded("tags")], mapping })).output).toBe("");
  });

  test("and roll_back does not say that it is done where the registry is lost", async () => {
    application = await createSmallApplication({ name: "registry_lost", application: tables, list, mapping });
    await application.push({ list, mapping });
    await application.database.sql`delete from tenancy.registry`;
    expect(await rollBack()).toMatch(
      /cannot roll back: .* no org-scoped table any more, and nothing has been rolled back: public\.tags, public\.tasks would stay/,
    );
    await application.database.sql.unsafe(
      `insert into tenancy.registry (schema_name, table_name, scope, priority, reason, org_from) values ${
        list.join(", ")
      }`,
    );
    expect(await rollBack()).toBe("");
    expect(await application.database.sql`select from pg_trigger where tgname like '%org_id%'`).toEqual([]);
  });
});

test("organizations that are no tenants have no row of ours after the push has refused them", async () => {
  const list = [org("tasks")];
  application = await createSmallApplication({
    name: "customers",
    application:
      `${ownOrganizations} alter table public.tasks add foreign key (organization_id) references public.organizations (id);`,
    list,
    mapping: "",
  });
  expect((await application.push({ list, mapping: "" })).output).toContain("[organizations_without_users]");
  expect([...await application.database.sql`select name from public.organizations order by name`]).toEqual([
    { name: "Acme" },
    { name: "Globex" },
  ]);
  // The neighbour: once somebody is in them.
  expect((await application.push({ list, mapping })).output).toBe("");
  expect([...await application.database.sql`select name from public.organizations order by name`]).toHaveLength(3);
});

test("companies with whole numbers as keys are organizations by a column of their own", async () => {
  const recipe = readSection("## Companies with another key", "docs/organizations.md").blocks("sql").join("\n");
  const list = [excluded("companies"), excluded("members"), org("deals", "'{company_id,user_id}'"), org("notes")];
  const said = `
    ${recipe}
    insert into tenancy.user_orgs (user_id, org_id)
    select distinct on (members.user_id) members.user_id, companies.organization_id
    from public.members join public.companies on companies.id = members.company_id
    order by members.user_id, members.company_id
    on conflict (user_id) do update set org_id = excluded.org_id;
  `;
  application = await createSmallApplication({
    name: "whole_numbers",
    application: `
      create table public.companies (id bigint generated always as identity primary key, name text not null);
      create table public.members (
        user_id uuid references auth.users (id), company_id bigint references public.companies (id) on delete cascade,
        primary key (user_id, company_id)
      );
      create table public.deals (
        id integer primary key, user_id uuid, company_id bigint references public.companies (id) on delete cascade
      );
      create table public.notes (id integer primary key, deal_id integer references public.deals (id) on delete cascade);
      insert into public.companies (name) values ('Acme'), ('Globex');
      insert into public.members values ('${ann}', 1), ('${ann}', 2), ('${bob}', 2);
      insert into public.deals values (1, '${ann}', 1), (2, '${ann}', 2), (3, '${bob}', null);
      insert into public.notes values (1, 2);
    `,
    list,
    mapping: said,
  });
  const { sql } = application.database;
  expect((await application.push({ list, mapping: said })).output).toBe("");
  await sql`insert into public.companies (name) values ('Initech')`;
  await sql`insert into public.deals values (4, ${ann}, 3)`;
  const organizationsOf = (table: string) =>
    sql`
    select rows.id, organizations.name from ${
      sql(table)
    } as rows join public.organizations on organizations.id = rows.org_id order by 1
  `;
  expect([...await organizationsOf("deals")]).toEqual([
    { id: 1, name: "Acme" },
    { id: 2, name: "Globex" },
    { id: 3, name: "Globex" },
    { id: 4, name: "Initech" },
  ]);
  expect([...await organizationsOf("notes")]).toEqual([{ id: 1, name: "Globex" }]);
  // Under a token of Acme a row is Globex's that names Globex, and Acme's that names none.
  await sql.begin(async (transaction) => {
    const [acmes] = await transaction`select organization_id as id from public.companies where name = 'Acme'`;
    await transaction`select set_config('request.jwt.claims', ${JSON.stringify(claimsOf(acmes?.["id"], bob))}, true)`;
    await transaction`insert into public.deals values (5, ${bob}, 2), (6, ${bob}, null)`;
  });
  expect((await organizationsOf("deals")).slice(4)).toEqual([{ id: 5, name: "Globex" }, { id: 6, name: "Acme" }]);
  await sql`delete from public.deals where id > 4`;
  // Nothing holds the two equal until the statement of the review has run.
  const named = async () => [
    ...await sql`select table_name, remedy from tenancy.review where code = 'other_organization_named'`,
  ];
  const [{ table_name = "", remedy = "" } = {}, ...others] = await named();
  expect([table_name, others]).toEqual(["public.deals", []]);
  await sql.unsafe(remedy).simple();
  expect(await named()).toEqual([]);
  const ofGlobex = sql`select organization_id from public.companies where name = 'Globex'`;
  const error = await refusal(sql`insert into public.deals (id, company_id, org_id) values (5, 1, (${ofGlobex}))`);
  expect(error?.constraint_name).toBe("org_id_is_of_company_id");
  await sql`insert into public.deals (id, company_id, org_id) values (5, 2, (${ofGlobex}))`;
  await sql`delete from public.organizations where name = 'Globex'`;
  expect([...await organizationsOf("deals")]).toEqual([{ id: 1, name: "Acme" }, { id: 4, name: "Initech" }]);
  expect([...await sql`select name from public.companies order by 1`]).toEqual([{ name: "Acme" }, { name: "Initech" }]);
});
