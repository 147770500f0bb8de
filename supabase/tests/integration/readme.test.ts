import type { PostgresError } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cloneDatabase } from "../databases.ts";
import { defaultOrgId } from "../organizations.ts";
import { pages, readPage } from "../readme.ts";
import { indexLines } from "../steps.ts";
import { addUsers, numberedUsers, userId } from "../users.ts";

interface Block {
  page: string;
  sql: string;
}

const blocks: Block[] = pages.flatMap((page) =>
  [...readPage(page).matchAll(/^( *)```sql\n([^]*?)^ *```/gm)].map(([, indent = "", sql = ""]) => ({
    page,
    sql: sql.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  }))
);

/** The block of SQL that has this text. */
function findSql(text: string): string {
  const found = blocks.filter(({ sql }) => sql.includes(text));
  expect(found.length, `one block of SQL with ${text}`).toBe(1);
  return found[0]?.sql ?? "";
}

/** Blocks that need more than a migrated database, by a text of each, and the test that runs them. */
const elsewhere: Record<string, string> = {
  "('public', 'contacts', 'org'": "adopt.test.ts",
  "insert into tenancy.user_orgs": "adopt.test.ts",
  "tenancy.enable_new_users('personal')": "other-tools.test.ts",
  "cron.schedule(": "this file, above",
  "tenancy.enable_binding('public.call_tracking')": "this file, above",
  "tenancy.enable_memberships(": "this file, above",
  "function public.create_organization_of_company()": "companies.test.ts",
  "function public.give_company_its_organization()": "small-inputs.test.ts",
  "function public.custom_access_token(": "token-hook.test.ts",
  '"own rows" on public.documents': "05_policies_of_members.test.sql",
  '"rows of colleagues" on public.documents': "05_policies_of_members.test.sql",
  '"admins write" on public.documents': "05_policies_of_members.test.sql",
  '"one organization at a time" on public.documents': "05_policies_of_members.test.sql",
  '"members at this moment" on public.documents': "05_policies_of_members.test.sql",
  "delete from auth.sessions": "this file, above",
  "tenancy.delete_organization(": "delete-organization.test.ts",
};

describe("the documentation's SQL", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;

  beforeAll(async () => {
    database = await cloneDatabase("readme", "migrated");
    // What pg_cron, pg_net and the Vault are to it: their signatures, and a note of what they were told.
    await database.sql.unsafe(`
      create schema cron;
      create table cron.job (jobname text primary key, schedule text, command text);
      create function cron.schedule(job_name text, schedule text, command text) returns bigint language sql as
      'insert into cron.job values (job_name, schedule, command) returning 1::bigint';
      create function cron.unschedule(job_name text) returns boolean language sql as
      'delete from cron.job where jobname = job_name returning true';
      create schema net;
      create table net.sent (url text, body jsonb, headers jsonb, timeout_milliseconds integer);
      create function net.http_post(
        url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds integer default 5000
      ) returns bigint language sql as 'insert into net.sent values (url, body, headers, timeout_milliseconds) returning 1::bigint';
      create schema vault;
      create view vault.decrypted_secrets as select 'secret_key' as name, 'sb_secret_of_the_vault' as decrypted_secret;
    `).simple();
  });

  afterAll(async () => await database?.drop());

  test("keeps calling the function from the database, while there is somebody to update", async () => {
    const { sql } = database;
    await sql.unsafe(findSql("cron.schedule("));
    const [job] = await sql`select jobname, schedule, command from cron.job`;
    expect(job).toMatchObject({ jobname: "update-user-org-metadata", schedule: "* * * * *" });

    await sql.unsafe(job?.["command"] as string);
    expect(await sql`select from net.sent`, "nobody is without organization").toHaveLength(0);
    await addUsers(sql, numberedUsers(1));
    await sql.unsafe(job?.["command"] as string);
    expect(await sql`select * from net.sent`).toEqual([{
      url: "https://<ref>.supabase.co/functions/v1/update-user-org-metadata",
      body: { max_seconds: 50 },
      headers: { apikey: "sb_secret_of_the_vault" },
      timeout_milliseconds: 60000,
    }]);

    // With a mapping it puts nobody into the default organization: who is in none is for the application to place.
    await sql`delete from net.sent`;
    await sql`insert into tenancy.user_orgs (user_id, org_id) values (${userId(2)}, ${defaultOrgId})`;
    await sql.unsafe(job?.["command"] as string);
    expect(await sql`select obstacle from tenancy.users_without_org`).toEqual([{ obstacle: "unplaced" }]);
    expect(await sql`select from net.sent`).toHaveLength(0);
    await sql`delete from tenancy.user_orgs`;
    await sql`delete from auth.users where id = ${userId(1)}`;
    await sql.unsafe("select cron.unschedule('update-user-org-metadata')");
    expect(await sql`select from cron.job`).toHaveLength(0);
  });

  test("binds a table to its parents, once it has the indexes that it asks for", async () => {
    const { sql } = database;
    const block = findSql("tenancy.enable_binding('public.call_tracking')");
    const refusal = await sql.unsafe(block).catch((error: PostgresError) => error);
    expect(refusal).toMatchObject({ code: "55000" });
    const lines = indexLines(refusal as PostgresError);
    expect(lines).toContain(
      "create unique index concurrently if not exists idx_calls_org_id_id_key on public.calls (org_id, id);",
    );
    expect(lines).toContain(
      "create index concurrently if not exists idx_call_tracking_org_id_call_id on public.call_tracking (org_id, call_id);",
    );
    for (const line of lines) await sql.unsafe(line);
    await sql.unsafe(block);
    const [bound] = await sql`
      select pg_get_constraintdef(oid) as definition from pg_constraint where conname = 'call_tracking_call_id_fkey'
    `;
    expect(bound?.["definition"]).toBe("FOREIGN KEY (org_id, call_id) REFERENCES calls(org_id, id) ON DELETE CASCADE");
  });

  test("fills the memberships from the application's own table", async () => {
    const { sql } = database;
    await sql`create table public.company_members (user_id uuid, company_id uuid, role text)`;
    await sql`insert into public.company_members values (${userId(3)}, ${defaultOrgId}, 'admin')`;
    await sql.unsafe(findSql("tenancy.enable_memberships("));
    expect(await sql`select user_id, org_id, role from tenancy.memberships`)
      .toEqual([{ user_id: userId(3), org_id: defaultOrgId, role: "admin" }]);
    await sql`select tenancy.disable_memberships()`;
    await sql`drop table public.company_members`;
    await sql`delete from tenancy.user_orgs`;
  });

  test("ends the sessions of a user, and nobody else's", async () => {
    const { sql } = database;
    await addUsers(sql, numberedUsers(2));
    await sql`
      insert into auth.sessions (id, user_id, created_at)
      select gen_random_uuid(), id, now() from auth.users where id in (${userId(1)}, ${userId(2)})
    `;
    await sql.unsafe(findSql("delete from auth.sessions").replace("…", userId(1)));
    expect(await sql`select user_id from auth.sessions`).toEqual([{ user_id: userId(2) }]);
    await sql`delete from auth.users where id in (${userId(1)}, ${userId(2)})`;
  });

  const refusedHere = [
    // On the platform postgres may; here it is superuser for that, in new-tables.test.ts.
    { what: "tenancy.enable_new_table_check()", code: "42501" },
  ];
  /** The statements that the text names between its blocks and that need nothing else. */
  const inlineStatements = [
    ...new Set(
      pages.flatMap((page) => [
        ...readPage(page).replaceAll(/^ *```[^]*?^ *```/gm, "").matchAll(/`((?:select|do) [^`]*)`/g),
      ]).map(([, sql]) => sql),
    ),
  ].filter((statement) => !statement?.includes("…"));

  test.each(inlineStatements)("between its blocks runs as it is written: %s", async (statement = "") => {
    const run = database.sql.unsafe(statement);
    const refusal = refusedHere.find(({ what }) => statement.includes(what));
    if (refusal) await expect(run).rejects.toMatchObject({ code: refusal.code });
    else await run;
  });

  test("names no object of ours that is not there", async () => {
    const there = await database.sql`
      select relnamespace::regnamespace || '.' || relname as name
      from pg_class
      where relnamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
      union all
      select pronamespace::regnamespace || '.' || proname
      from pg_proc
      where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
    `;
    const names = new Set(there.map(({ name }) => name as string));
    const mentioned = pages.flatMap((page) => readPage(page).match(/\b(tenancy|org_migration)\.\w+/g) ?? []);
    expect([...new Set(mentioned)].filter((name) => !names.has(name)).sort()).toEqual([]);
  });

  test("has a test for each block that needs more than a migrated database", () => {
    for (const text of Object.keys(elsewhere)) findSql(text);
  });

  const alone = blocks.filter(({ sql }) => !Object.keys(elsewhere).some((text) => sql.includes(text)));
  test.each([...new Set(alone.map(({ page }) => page))])(
    "runs as it is written, block after block: %s",
    async (page) => {
      const own = await cloneDatabase("documented_blocks", "migrated");
      try {
        for (const { sql } of alone.filter((block) => block.page === page)) await own.sql.unsafe(sql);
      } finally {
        await own.drop();
      }
    },
  );
});
