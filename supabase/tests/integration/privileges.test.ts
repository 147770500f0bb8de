import { basename, join } from "node:path";
import type { PostgresError } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openUsers } from "../../functions/update-user-org-metadata/users-database.ts";
import { pushTarget } from "../../local/application.ts";
import { root } from "../../local/project.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase } from "../databases.ts";
import { defaultOrgId, otherOrgId } from "../organizations.ts";
import { findPgtapFiles, runPgtapFile } from "../run-pgtap.ts";
import { isolateAllTables } from "../rows.ts";
import { bind, checkNewTables } from "../steps.ts";
import { addUsers, numberedUsers } from "../users.ts";

const roles = ["anon", "authenticated", "service_role"] as const;
const schemas = ["tenancy", "org_migration"] as const;
const rolesAndSchemas = roles.flatMap((role) => schemas.map((schema) => [role, schema] as const));
const pgtapFiles = findPgtapFiles(join(root, "supabase/tests")).map((file) => [basename(file), file] as const);

/** What the platform does to a project whose new objects are not to be exposed by themselves. */
const closeNewObjects = `
  alter default privileges for role postgres in schema public
  revoke select, insert, update, delete on tables from anon, authenticated, service_role;
  alter default privileges for role postgres in schema public
  revoke usage, select on sequences from anon, authenticated, service_role;
  alter default privileges for role postgres in schema public
  revoke execute on functions from anon, authenticated, service_role;
`;

describe.each(["opens new objects to the API's roles", "leaves new objects closed"])(
  "where the platform %s",
  (platform) => {
    let database: Awaited<ReturnType<typeof cloneDatabase>>;
    const closed = platform === "leaves new objects closed";

    beforeAll(async () => {
      if (closed) {
        database = await cloneDatabase("privileges_closed", "postgres");
        await database.sql.unsafe(closeNewObjects).simple();
        await supabase(["db", "push", ...pushTarget(database.url)]);
      } else {
        // Pushed by the setup, and what tests/database/pgtap.test.ts runs on.
        database = await cloneDatabase("privileges_open", "migrated");
      }
    });

    afterAll(async () => await database?.drop());

    /** Runs a statement as one of the roles, in a transaction that leaves nothing behind. */
    const attempt = async (role: string, statement: string, setUp = "select 1", claims = "") => {
      const { sql } = database;
      await sql`begin`;
      try {
        await sql.unsafe(setUp).simple();
        await sql`select set_config('request.jwt.claims', ${claims}, true)`;
        await sql`set local role ${sql(role)}`;
        return await sql.unsafe(statement).then(
          (rows) => ({ rows: [...rows] }),
          (error: PostgresError) => ({ code: error.code, message: error.message }),
        );
      } finally {
        await sql`rollback`;
      }
    };
    /** A statement for each object of the schema that uses it. */
    const usesOf = async (schema: string) => {
      const rows = await database.sql<{ kind: string; statement: string }[]>`
      select 'relation' as kind, format('select from %s', oid::regclass) as statement
      from pg_class
      where relnamespace = ${schema}::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      union all
      select 'relation', format('delete from %s', oid::regclass)
      from pg_class
      where relnamespace = ${schema}::regnamespace and relkind in ('r', 'p', 'f')
      union all
      select 'function', format(
        'select %s(%s)',
        oid::regproc,
        (select string_agg(case when ordinal = pronargs and provariadic <> 0 then 'variadic ' else '' end || 'null::' || format_type(type, null), ', ' order by ordinal) from unnest(proargtypes) with ordinality as argument (type, ordinal))
      )
      from pg_proc
      where pronamespace = ${schema}::regnamespace
      union all
      select 'type', format('select null::%s', oid::regtype)
      from pg_type
      where typnamespace = ${schema}::regnamespace
    `;
      expect(new Set(rows.map(({ kind }) => kind))).toEqual(new Set(["relation", "function", "type"]));
      return [...rows];
    };
    const answersTo = async (role: string, statements: string[], setUp?: string) => {
      const answers = new Set<string>();
      for (const statement of statements) {
        const answer = await attempt(role, statement, setUp);
        answers.add(
          "code" in answer && answer.code === "42501"
            ? answer.message.replace(/ \S+$/, "")
            : `${statement}: ${JSON.stringify(answer)}`,
        );
      }
      return [...answers].sort();
    };

    test.each(rolesAndSchemas)("%s cannot name anything in %s", async (role, schema) => {
      const uses = await usesOf(schema);
      expect(await answersTo(role, uses.map(({ statement }) => statement))).toEqual(["permission denied for schema"]);
    });

    test.each(rolesAndSchemas)("%s could not use it either if somebody opened %s", async (role, schema) => {
      const uses = (await usesOf(schema)).filter(({ kind }) => kind !== "type");
      const answers = await answersTo(
        role,
        uses.map(({ statement }) => statement),
        `grant usage on schema tenancy, org_migration to ${role}`,
      );
      expect(answers.filter((answer) => !/^permission denied for (table|view|function|sequence)$/.test(answer)))
        .toEqual(
          [],
        );
    });

    test.each(rolesAndSchemas)("%s has no privilege on anything in %s, by the catalog", async (role, schema) => {
      const privileges = await database.sql`
      select 'schema ' || privilege as privilege
      from unnest(array['usage', 'create']) as privilege
      where has_schema_privilege(${role}, ${schema}, privilege)
      union all
      select format('%s on %s', privilege, oid::regclass)
      from pg_class
      cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
      where relnamespace = ${schema}::regnamespace
        and relkind in ('r', 'p', 'v', 'm', 'f')
        and (
          has_table_privilege(${role}, oid, privilege)
          or privilege in ('select', 'insert', 'update', 'references') and has_any_column_privilege(${role}, oid, privilege)
        )
      union all
      select format('%s on %s', privilege, oid::regclass)
      from pg_class
      cross join unnest(array['usage', 'select', 'update']) as privilege
      where relnamespace = ${schema}::regnamespace
        and relkind = 'S'
        and has_sequence_privilege(${role}, oid, privilege)
      union all
      select format('execute on %s', oid::regprocedure)
      from pg_proc
      where pronamespace = ${schema}::regnamespace and has_function_privilege(${role}, oid, 'execute')
    `;
      expect([...privileges]).toEqual([]);
    });

    test.each(rolesAndSchemas)("%s gets nothing of what is added to %s later", async (role, schema) => {
      const add =
        `create table ${schema}.later (id bigint generated always as identity); create function ${schema}.later() returns integer language sql as 'select 1'`;
      for (const statement of [`select from ${schema}.later`, `select ${schema}.later()`]) {
        expect(await attempt(role, statement, add)).toMatchObject({ code: "42501" });
      }
      expect(await attempt(role, `select from ${schema}.later`, `${add}; grant usage on schema ${schema} to ${role}`))
        .toMatchObject({
          code: "42501",
        });
    });

    test("public.organizations and auth_org_id() are granted as the migration says, and to nobody else", async () => {
      const grants = await database.sql`
      select grantee, string_agg(privilege, ', ' order by privilege) as privileges
      from (
        select coalesce(nullif(grantee, 0)::regrole::text, 'public') as grantee, lower(privilege_type) as privilege
        from pg_class cross join aclexplode(relacl)
        where pg_class.oid = 'public.organizations'::regclass and grantee <> relowner
      ) as granted
      group by grantee order by grantee
    `;
      expect([...grants]).toEqual([
        { grantee: "authenticated", privileges: "select" },
        { grantee: "service_role", privileges: "delete, insert, select, update" },
      ]);
      const callers = await database.sql`
      select role from unnest(array['anon', 'authenticated', 'service_role', 'authenticator']) as role
      where has_function_privilege(role, 'public.auth_org_id()', 'execute')
      order by role
    `;
      expect(callers.map((row) => row["role"])).toEqual(["anon", "authenticated", "authenticator", "service_role"]);
    });

    test("people read their own organization, and the backend manages them all", async () => {
      const others = `insert into public.organizations (id, name) values ('${otherOrgId}', 'other')`;
      const claims = JSON.stringify({ role: "authenticated", app_metadata: { org_id: otherOrgId } });
      const read = "select id from public.organizations order by id";
      const rename = "update public.organizations set name = 'ours' returning id";
      expect(await attempt("authenticated", read, others, claims)).toEqual({ rows: [{ id: otherOrgId }] });
      expect(await attempt("authenticated", read, others)).toEqual({ rows: [] });
      expect(await attempt("authenticated", rename, others, claims)).toMatchObject({ code: "42501" });
      expect(await attempt("anon", read, others)).toMatchObject({ code: "42501" });
      expect(await attempt("service_role", rename, others)).toEqual({
        rows: [{ id: defaultOrgId }, { id: otherOrgId }],
      });
      expect(await attempt("anon", "select public.auth_org_id()")).toEqual({ rows: [{ auth_org_id: null }] });
      expect(await attempt("authenticated", "select public.auth_org_id()", others, claims)).toEqual({
        rows: [{ auth_org_id: otherOrgId }],
      });
    });

    test("the backend and people go on writing rows, which get their organization", async () => {
      const insert =
        "insert into public.imports (user_id, file_name) values (gen_random_uuid(), 'leads.csv') returning org_id";
      const claims = JSON.stringify({ role: "authenticated", app_metadata: { org_id: defaultOrgId } });
      const open = "create policy everything on public.imports to authenticated using (true) with check (true)";
      expect(await attempt("authenticated", insert, open, claims)).toEqual({ rows: [{ org_id: defaultOrgId }] });
      expect(await attempt("service_role", insert, open, claims)).toEqual({ rows: [{ org_id: defaultOrgId }] });
      expect(await attempt("service_role", insert), "by the filler").toEqual({ rows: [{ org_id: defaultOrgId }] });
    });

    if (closed) {
      describe("and new tables are refused unless they are classified", () => {
        beforeAll(async () => await checkNewTables(database.name));
        afterAll(async () => await database.sql`select tenancy.disable_new_table_check()`);

        test.each(pgtapFiles)("pgTAP passes: %s", async (_name, file) => {
          const { passed, failures } = await runPgtapFile(database.url, file);
          expect(failures).toEqual([]);
          expect(passed).toBeGreaterThan(0);
        });
      });
    }

    test("the edge function's side of the database does a whole run", async () => {
      await addUsers(database.sql, numberedUsers(3));
      const users = await openUsers(database.url);
      try {
        const request = {
          orgId: null,
          onConflict: "keep",
          moveToDefault: false,
          anonymous: "include",
          revertedRunId: null,
        } as const;
        expect(await users.preview(request)).toMatchObject({ would_update: 3, users: 3, users_without_org: 3 });
        const runId = await users.start(request) ?? "";
        const page = await users.claim(runId, 10);
        expect(page.map(({ value }) => value)).toEqual([defaultOrgId, defaultOrgId, defaultOrgId]);
        await database.sql`update auth.users set raw_app_meta_data = jsonb_build_object('org_id', tenancy.org_of(id))`;
        const settled = await users.settle(
          runId,
          page.map(({ userId }) => ({ userId, attempts: 1, error: null, final: true })),
        );
        expect(new Set(settled.values())).toEqual(new Set(["updated"]));
        for (let ended = false; !ended;) {
          expect(await users.claim(runId, 10)).toEqual([]);
          ended = await users.endRound(runId);
        }
        expect(await users.summary(runId)).toMatchObject({ updated: 3, users_without_org: 0, problems: [] });
        const revert = await users.start({ ...request, revertedRunId: runId }) ?? "";
        expect(await users.write(revert, 10)).toEqual({ claimed: 3, settled: 3, failed: 0 });
      } finally {
        await users.close();
      }
    });
  },
);

describe("the platform's advisors", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;

  beforeAll(async () => {
    database = await cloneDatabase("advisors", "migrated");
  });

  afterAll(async () => await database?.drop());

  const advise = async () => {
    const output = await supabase([
      "db",
      "advisors",
      `--remote=${database.url}`,
      "--level=info",
      "--fail-on=none",
      "--output-format=json",
    ]);
    const { results } = JSON.parse(output.slice(output.indexOf("{"))) as {
      results: { name: string; level: string; detail: string }[];
    };
    expect(results.length, "new indexes are always worth a word to them").toBeGreaterThan(0);
    return results.map(({ name, level, detail }) => `${level} ${name}: ${detail}`);
  };

  test("say nothing of isolated tables and bound foreign keys, except that their indexes are new", async () => {
    const { sql } = database;
    const before = await advise();
    for (const table of ["credit_transactions", "payment_events_log", "user_twilio_subaccounts"]) {
      await sql.unsafe(`alter table public.${table} enable row level security`);
    }
    await isolateAllTables(sql);
    const lines: string[] = [];
    const children = await sql`select distinct relation::text as relation from tenancy.org_references`;
    for (const { relation } of children) lines.push(...(await bind(sql, relation)));
    expect(await sql`select from tenancy.status where not isolated`).toHaveLength(0);

    const after = await advise();
    const isNew = (advice: string) => /^INFO unused_index: Index \\?`idx\d*_\w+_org_id_\w+\\?`/.test(advice);
    expect(after.filter((advice) => !before.includes(advice) && !isNew(advice))).toEqual([]);
    expect(after.filter((advice) => advice.includes("unindexed_foreign_keys") && /org_id/.test(advice))).toEqual([]);
    expect(
      after.filter((advice) =>
        /tenancy\.|org_migration\.|organizations|org_id/.test(advice) && !advice.startsWith("INFO unused_index")
      ),
    ).toEqual([]);
  });
});
