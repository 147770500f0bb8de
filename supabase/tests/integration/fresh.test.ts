import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { digestTables, pushTarget } from "../../local/application.ts";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { dumpData } from "../data-dump.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { defaultOrgId, giveUsersTheirOrganization } from "../organizations.ts";
import { readSection, runAsWritten } from "../readme.ts";
import { userId } from "../users.ts";

/** A seed.sql as it was written for the application before anyone thought of organizations: users, rows, an upsert. */
const seed = `
  insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data)
  select
    '00000000-0000-0000-0000-000000000000', id::uuid, 'authenticated', 'authenticated', email, '', now(),
    '{"provider": "email", "providers": ["email"]}', '{}'
  from (values ('${userId(1)}', 'one@example.com'), ('${userId(2)}', 'two@example.com')) as users (id, email);

  insert into public.calls (id, user_id)
  values
    ('ca000000-0000-4000-8000-000000000001', '${userId(1)}'),
    ('ca000000-0000-4000-8000-000000000002', '${userId(2)}');
  insert into public.calls (id, user_id)
  values ('ca000000-0000-4000-8000-000000000001', '${userId(1)}')
  on conflict (id) do update set user_id = excluded.user_id;
  insert into public.sentiment_analysis (call_id) values ('ca000000-0000-4000-8000-000000000002');
`;

/** Lets a copy of the project seed its database with supabase/seed.sql. */
function enableSeed(copy: ProjectCopy): void {
  const config = join(copy.folder, "supabase/config.toml");
  writeFileSync(
    config,
    readFileSync(config, "utf8").replace("[db.seed]\nenabled = false", "[db.seed]\nenabled = true"),
  );
}

/** All migrations from empty, and then the seed, as `supabase db reset` does, by the CLI. */
const reset = (copy: ProjectCopy, url: string) =>
  supabase(["db", "push", "--include-seed", "--workdir", copy.folder, ...pushTarget(url)]);

describe("a fresh database", () => {
  const databases: Database[] = [];

  async function makeFresh(name: string, seed: string, listed = ""): Promise<Database> {
    const copy = copyProject(join(inject("folder"), name));
    enableSeed(copy);
    copy.append("_EDIT_list_of_tables.sql", listed);
    writeFileSync(join(copy.folder, "supabase/seed.sql"), seed);
    const database = await cloneDatabase(name, "postgres");
    databases.push(database);
    await reset(copy, database.url);
    return database;
  }

  afterAll(async () => {
    for (const database of databases) await database.drop();
  });

  const organizationsOf = async ({ sql }: Database) => ({
    calls: (await sql`select org_id from public.calls order by id`).map(({ org_id }) => org_id as string),
    scores: (await sql`select org_id from public.sentiment_analysis`).map(({ org_id }) => org_id as string),
    users: (await sql`select tenancy.org_of(id) as org_id from auth.users order by id`).map(({ org_id }) =>
      org_id as string
    ),
  });

  test("takes a seed that knows nothing of organizations, and does not wait where paused was left on", async () => {
    const database = await makeFresh("fresh_default", seed, "update tenancy.settings set paused = true;");
    expect(await organizationsOf(database)).toEqual({
      calls: [defaultOrgId, defaultOrgId],
      scores: [defaultOrgId],
      users: [defaultOrgId, defaultOrgId],
    });
    expect(await database.sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
  });

  test("gives each user of the seed a personal organization, and the rows to it", async () => {
    const database = await makeFresh(
      "fresh_personal",
      seed,
      "select tenancy.create_personal_organizations();\nselect tenancy.enable_new_users('personal');",
    );
    const { calls, scores, users } = await organizationsOf(database);
    expect(new Set([...users, defaultOrgId]).size).toBe(3);
    expect(calls).toEqual(users);
    expect(scores).toEqual(users.slice(1));
    expect(await database.sql`select * from tenancy.verify() where not passed`).toEqual([]);
  });

  describe("with the data of another that was pushed", () => {
    const section = readSection("## Fresh databases", "docs/adopt.md");
    let source: Database;
    let fresh: Database;

    beforeAll(async () => {
      source = await cloneDatabase("fresh_source", "two_organizations");
      databases.push(source);
      await giveUsersTheirOrganization(source.sql);
      await source.sql`select tenancy.enable_new_users('personal')`;
      await source.sql`insert into tenancy.user_orgs (user_id, org_id) values (${userId(9)}, ${defaultOrgId})`;
      const copy = copyProject(join(inject("folder"), "fresh_source"));
      // The CLI needs Docker for pg_dump: it prints what it would run, and that is done without it.
      const command = section.blocks("sh").find((block) => block.includes("--data-only")) ?? "";
      const { code, output } = await runAsWritten(command, {
        folder: copy.folder,
        url: source.url,
        replace: { "npx supabase db dump": "npx supabase db dump --dry-run" },
      });
      expect(code, output).toBe(0);
      const seedFile = join(copy.folder, "supabase/seed.sql");
      expect(existsSync(seedFile), output).toBe(true);
      fresh = await makeFresh("fresh_seeded", await dumpData(source.sql, readFileSync(seedFile, "utf8")));
    });

    test("has all of it, each user and each row in its organization", async () => {
      expect(await digestTables(fresh.sql)).toEqual(await digestTables(source.sql));
      const organizations = "select id, org_id from public.calls order by id";
      expect([...await fresh.sql.unsafe(organizations)]).toEqual([...await source.sql.unsafe(organizations)]);
      const mapping = "select * from tenancy.user_orgs order by user_id";
      expect([...await fresh.sql.unsafe(mapping)]).toEqual([...await source.sql.unsafe(mapping)]);
    });

    test("and leaves nothing to do", async () => {
      expect(await fresh.sql`select * from tenancy.verify() where not passed`).toEqual([]);
    });
  });
});
