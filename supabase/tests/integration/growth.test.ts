import postgres, { type Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { keepPhase1, runLoops } from "../../local/bench/shared.ts";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { copyProject } from "../../local/project-copy.ts";
import { applyMigrations } from "../apply-migrations.ts";
import { cloneDatabase, type Database, runAsSuperuser } from "../databases.ts";
import { advance } from "../steps.ts";

/** What looks at all tables, however many there are: a step that asks it of each table takes the square of their number. */
const looks = ["classify_tables", "find_sources"];

describe("what looks at all tables", () => {
  let database: Database;
  /** A session that counts calls of functions. */
  let sql: Sql;
  let tables: number;

  beforeAll(async () => {
    database = await cloneDatabase("growth", "before");
    const copy = copyProject(`${inject("folder")}/growth`);
    keepPhase1(copy.folder);
    await applyMigrations(copy.folder, database.url);
    await runAsSuperuser(database.name, "alter database growth set track_functions = 'all'");
    sql = connect(database.url);
    const [counted] = await sql`select count(*)::integer as tables from tenancy.org_scoped_tables`;
    tables = counted?.["tables"] as number;
  });

  afterAll(async () => {
    await sql?.end();
    await database?.drop();
  });

  const countLooks = async (loop: () => Promise<void>): Promise<number> => {
    const read = async () => {
      await sql`select pg_stat_force_next_flush()`;
      const [found] = await sql`
        select coalesce(sum(calls), 0)::integer as calls from pg_stat_user_functions where funcname in ${sql(looks)}
      `;
      return found?.["calls"] as number;
    };
    const before = await read();
    await loop();
    return await read() - before;
  };

  test("is asked as often as the loop needs while rows are counted, and not by each table", async () => {
    const calls = await countLooks(() => advance(sql, "count"));
    expect(calls).toBeGreaterThan(0);
    // By noting what there is to do, 73 times. Each table's own would be as many more, twice or more often.
    expect(calls).toBeLessThan(2 * tables);
  });

  test("nor where tables name an organization already, which is looked for once", async () => {
    await sql`delete from org_migration.tables_before`;
    await sql`alter table public.agents add column owner_org uuid references public.organizations (id)`;
    const calls = await countLooks(() => advance(sql, "count"));
    expect(calls).toBeLessThan(2 * tables);
    const [noted] = await sql`
      select array_agg(relation::text) as following from org_migration.tables_before where follows_org_id
    `;
    expect(noted?.["following"], "whose rows may belong to any organization").toContain("agents");
    expect(noted?.["following"]).not.toContain("imports");
    await sql`delete from org_migration.tables_before`;
    await sql`alter table public.agents drop column owner_org`;
    await advance(sql, "count");
  });

  test("and while the backfill goes from table to table", async () => {
    await advance(sql, "column default", "filler");
    const calls = await countLooks(() => runLoops(sql, "_backfill_org_id_from_user_id.sql"));
    expect(calls).toBeGreaterThan(0);
    expect(calls).toBeLessThan(tables);
  });

  test("or the catalog, for the partitions of one table", async () => {
    const [found] = await sql.begin(async (transaction) => {
      await transaction`select tenancy.leaves('public.calls')`;
      const read = () =>
        transaction`select pg_stat_get_xact_tuples_returned('pg_catalog.pg_class'::regclass)::integer as rows`;
      const [before] = await read();
      await transaction`select tenancy.leaves('public.call_logs')`;
      const [after] = await read();
      return [(after?.["rows"] as number) - (before?.["rows"] as number)];
    });
    expect(found).toBeLessThan(10);
  });
});

describe("the rules of all tables", () => {
  test("are noted by a look at each, and not by a look at all for each", async () => {
    const database = await cloneDatabase("growth_of_rules", "migrated");
    const notices: string[] = [];
    const superuser = postgres(
      databaseUrl(inject("databasePort"), { database: database.name, role: "supabase_admin" }),
      { max: 1, onnotice: ({ message }) => notices.push(message ?? "") },
    );
    const [counted] = await superuser`
      select greatest(
        (select count(*) from tenancy.sources),
        (select count(*) from pg_constraint where contype = 'f')
      )::integer as of_each
    `;
    await superuser.unsafe(`
      load 'auto_explain';
      set auto_explain.log_min_duration = 0;
      set auto_explain.log_analyze = on;
      set auto_explain.log_timing = off;
      set auto_explain.log_nested_statements = on;
      set auto_explain.log_format = json;
      set client_min_messages = log;
      select org_migration.note_rules();
    `).simple();
    await superuser.end();
    await database.drop();
    const plans = notices.filter((text) => text.includes("insert into org_migration.rules"));
    expect(plans).toHaveLength(1);
    const loops = [...plans.join().matchAll(/"Actual Loops": (\d+)/g)].map(([, count]) => Number(count));
    expect(Math.max(...loops)).toBeLessThanOrEqual(counted?.["of_each"] as number);
  });
});
