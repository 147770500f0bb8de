import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PostgresError } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { pushTarget } from "../../local/application.ts";
import { mapUsers } from "../../local/mapping.ts";
import { root } from "../../local/project.ts";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { defaultOrgId, north, south } from "../organizations.ts";
import { readSection, runAsWritten } from "../readme.ts";
import { repeat } from "../steps.ts";

const template = readFileSync(join(root, "docs/forgotten-table.sql"), "utf8");

/** What the application's developers wrote without a word of organizations, each followed by the template for it. */
const migrations = {
  "20250301000000_invoices.sql": `
    create table public.invoices (
      id bigint generated always as identity primary key,
      user_id uuid references auth.users (id),
      text text not null
    );
    alter table public.invoices enable row level security;
  `,
  "20250401000000_org_id_of_invoices.sql": template,
  "20250501000000_invoice_lines.sql": `
    create table public.invoice_lines (
      id bigint generated always as identity primary key,
      invoice_id bigint not null references public.invoices (id),
      text text not null
    );
    alter table public.invoice_lines enable row level security;
  `,
  "20250601000000_org_id_of_invoice_lines.sql": template.replaceAll("invoices", "invoice_lines"),
};

/** 30,000 invoices, every tenth without an owner, and 30,000 lines: both tables are over the limit. */
const fill = {
  invoices: `
    insert into public.invoices (user_id, text)
    select case when n % 10 > 0 then users.ids[1 + n % cardinality(users.ids)] end, repeat('x', 400)
    from generate_series(1, 30000) as n
    cross join (select array_agg(id order by id) as ids from auth.users) as users
  `,
  invoice_lines: "insert into public.invoice_lines (invoice_id, text) select id, repeat('x', 400) from public.invoices",
};

/** The shipped project, its users in two organizations. */
function copyMapped(name: string): ProjectCopy {
  const copy = copyProject(join(inject("folder"), name));
  copy.edit(
    "_EDIT_list_of_tables.sql",
    "select tenancy.assert_registry();",
    `${mapUsers([north, south])}
select tenancy.assert_registry();`,
  );
  return copy;
}

function addMigration(copy: ProjectCopy, name: keyof typeof migrations): void {
  writeFileSync(join(copy.folder, "supabase/migrations", name), migrations[name]);
}

async function push(copy: ProjectCopy, url: string): Promise<void> {
  const { code, output } = await copy.push(url);
  expect(code, output).toBe(0);
}

describe("a large table that was forgotten", () => {
  let database: Database;
  let copy: ProjectCopy;

  beforeAll(async () => {
    database = await cloneDatabase("forgotten", "before");
    copy = copyMapped("forgotten");
    addMigration(copy, "20250301000000_invoices.sql");
    await push(copy, database.url);
    await database.sql.unsafe(fill.invoices);
  });

  afterAll(async () => await database?.drop());

  const failures = () => database.sql`select * from tenancy.verify() where not passed and check_name <> 'users'`;

  test("is too large to be onboarded in one call", async () => {
    const refusal = await database.sql`select tenancy.onboard('public.invoices')`.catch((error: PostgresError) =>
      error
    );
    expect(refusal).toMatchObject({ code: "54000" });
  });

  test("goes through all phases by the template, each row in the organization of its owner", async () => {
    const { sql, url } = database;
    addMigration(copy, "20250401000000_org_id_of_invoices.sql");
    await push(copy, url);
    expect(await failures()).toEqual([]);
    const misplaced = await sql`
      select invoices.id
      from public.invoices
      left join tenancy.user_orgs using (user_id)
      where invoices.org_id <> coalesce(user_orgs.org_id, ${defaultOrgId})
    `;
    expect(misplaced).toEqual([]);
    const organizations = await sql`select distinct org_id from public.invoices order by 1`;
    expect(organizations.map(({ org_id }) => org_id)).toEqual([defaultOrgId, north, south]);
    await expect(sql`update public.invoices set org_id = ${north} where org_id = ${south}`).rejects.toMatchObject({
      code: "23001",
    });
  });

  test("and so does one that references it, its rows after theirs", async () => {
    const { sql, url } = database;
    addMigration(copy, "20250501000000_invoice_lines.sql");
    await push(copy, url);
    await sql.unsafe(fill.invoice_lines);
    addMigration(copy, "20250601000000_org_id_of_invoice_lines.sql");
    await push(copy, url);
    expect(await failures()).toEqual([]);
    const misplaced = await sql`
      select from public.invoice_lines
      join public.invoices on invoices.id = invoice_lines.invoice_id
      where invoice_lines.org_id <> invoices.org_id
    `;
    expect(misplaced).toEqual([]);
  });

  test("is not touched again when the template comes again", async () => {
    const { sql, url } = database;
    const logged = async () => [...await sql`select id, statement from tenancy.log order by id`];
    const before = await logged();
    const target = ["--workdir", copy.folder, ...pushTarget(url)];
    await supabase(["migration", "repair", ...target, "--status", "reverted", "20250401000000", "20250601000000"]);
    await supabase(["db", "push", ...target, "--include-all"]);
    expect(await logged()).toEqual(before);
  });

  test("comes again with the others after an undo, once the index lines that the push names are there", async () => {
    const { sql, url } = database;
    const undo = readSection("## Undo", "docs/operate.md");
    await repeat(sql, "tenancy.roll_back(1)");
    const again = undo.blocks("sh").find((block) => block.includes("migration repair")) ?? "";
    const run = (commands: string) => runAsWritten(commands, { folder: copy.folder, url });
    const refused = await run(again);
    expect(refused.code, refused.output).toBe(1);
    const lines = refused.output.match(/^create index concurrently .*?;/gm) ?? [];
    expect(lines).toEqual([
      "create index concurrently if not exists idx_invoice_lines_org_id on public.invoice_lines (org_id);",
      "create index concurrently if not exists idx_invoices_org_id on public.invoices (org_id);",
    ]);
    for (const line of lines) await sql.unsafe(line);
    const { code, output } = await run("npx supabase db push --remote --include-all");
    expect(code, output).toBe(0);
    expect(output).toContain("20250601000000_org_id_of_invoice_lines.sql");
    expect(await failures()).toEqual([]);
  });
});

describe("the migration for a table that was forgotten", () => {
  let database: Database;

  beforeAll(async () => {
    database = await cloneDatabase("forgotten_fresh", "postgres");
    const copy = copyMapped("forgotten_fresh");
    for (const name of Object.keys(migrations)) addMigration(copy, name as keyof typeof migrations);
    await push(copy, database.url);
  });

  afterAll(async () => await database?.drop());

  test("runs on an empty database with all others, and leaves nothing to do", async () => {
    expect(await database.sql`select * from tenancy.verify() where not passed`).toEqual([]);
  });
});
