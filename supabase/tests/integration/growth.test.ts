import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { keepPhase1, runLoops } from "../../local/bench/shared.ts";
import { connect } from "../../local/databases.ts";
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

  test("and while the backfill goes from table to table", async () => {
    await advance(sql, "column default", "filler");
    const calls = await countLooks(() => runLoops(sql, "_backfill_org_id_from_user_id.sql"));
    expect(calls).toBeGreaterThan(0);
    expect(calls).toBeLessThan(tables);
  });
});
