import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import {
  digestTables,
  fillApplication,
  migrationFiles,
  pushApplicationBefore,
  type TableDigest,
} from "../../local/application.ts";
import { connect, createDatabase } from "../../local/databases.ts";
import { databaseUrl, freePort, type PostgresServer, startPostgres } from "../../local/postgres.ts";
import { defaultOrgId, tenOrganizations } from "../organizations.ts";
import { findWrongRows } from "../oracle.ts";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { chooseSeed, createRandom, type Random } from "../random.ts";
import { describeSchema } from "../schema.ts";
import { inRanges, withWorkers } from "../workers.ts";

const files = migrationFiles().slice(1);
/** The tables with enough rows for a push to be killed between two batches. */
const largeTables = ["call_tracking", "calls"];

/** Ends a push: what is killed is a parameter of the suite. */
export type Kill = (run: { server: PostgresServer; database: string; cliPid: number | undefined }) => Promise<void>;

let server: PostgresServer;
let project: ProjectCopy;
let undisturbed: { schema: string[]; milliseconds: Map<string, number> };
let dataBefore: Map<string, TableDigest>;
/** How many sessions help a push. */
let workers = 0;

/** Pushes, and runs what is to happen each time that the CLI says which file it applies. */
function startPush(database: string, onFile: (file: string) => void) {
  let seen = "";
  const url = databaseUrl(server.port, { database });
  const { process, result } = project.startPush(url, (text) => {
    seen += text;
    for (const [, file] of seen.matchAll(/Applying migration (\S+\.sql)/g)) onFile(file as string);
    seen = seen.slice(seen.lastIndexOf("\n") + 1);
  });
  // What those who help meet when everything is killed is not the push's.
  return { process, result: withWorkers(workers, url, async () => await result).then((helped) => helped.result) };
}

async function withConnection<T>(database: string, use: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = connect(databaseUrl(server.port, { database }));
  try {
    return await use(sql);
  } finally {
    await sql.end();
  }
}

/** Starts a server of the suite's own, since it may be crashed, with an application, and pushes to a copy of that, undisturbed. */
async function prepare(name: string): Promise<void> {
  const folder = join(inject("folder"), name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  server = await startPostgres({ port: await freePort(), folder: join(folder, "server"), major: inject("major") });
  project = copyProject(join(folder, "project"));
  project.append(
    "_EDIT_list_of_tables.sql",
    `${tenOrganizations}
     -- Batches small enough for a push to be killed between two of them.
     update tenancy.settings set batch_target_ms = 10;`,
  );
  if (workers > 0) {
    project.append(
      "_add_org_id_to_existing_tables.sql",
      largeTables.map((table) => inRanges(`public.${table}`, 4)).join(""),
    );
  }

  const before = await createDatabase(server.port, "before", "postgres");
  await pushApplicationBefore(before, folder);
  await fillApplication(before, { users: 60, rows: 60 });
  dataBefore = await withConnection("before", async (sql) => {
    await sql`
      insert into public.calls (user_id, started_at)
      select (array(select id from auth.users order by id))[1 + n % 60], now() from generate_series(1, 20000) as n
    `;
    await sql`
      insert into public.call_tracking (call_id, event)
      select id, 'ring' from public.calls, generate_series(1, 2)
    `;
    return await digestTables(sql);
  });

  await createDatabase(server.port, "undisturbed", "before");
  const began = new Map<string, number>();
  const { code, output } = await startPush("undisturbed", (file) => began.set(file, Date.now())).result;
  expect(code, output).toBe(0);
  const times = [...files.map((file) => began.get(file) as number), Date.now()];
  undisturbed = {
    schema: await withConnection("undisturbed", describeSchema),
    milliseconds: new Map(
      files.map((file, number) => [file, (times[number + 1] as number) - (times[number] as number)]),
    ),
  };
}

/**
 * Pushes to a new copy of the application and kills that at a random moment within the file. Returns the moment, for
 * messages. Where the push is through before, it begins anew and kills earlier.
 */
async function pushAndKill(database: string, file: string, kill: Kill, random: Random): Promise<string> {
  for (let limit = undisturbed.milliseconds.get(file) ?? 0;; limit /= 2) {
    await createDatabase(server.port, database, "before");
    const delay = random.below(Math.max(limit, 1));
    let reached: () => void = () => {};
    const begun = new Promise<void>((resolve) => (reached = resolve));
    const { process: cli, result } = startPush(database, (applied) => {
      if (applied === file) reached();
    });
    await Promise.race([begun, result]);
    await sleep(delay);
    await kill({ server, database, cliPid: cli.pid });
    const { code } = await result;
    if (code !== 0) return `${delay} ms into ${file}`;
  }
}

/** How many more rows were updated than there are, the batches in flight when a push was killed, and how many those may have. */
async function readWork(sql: Sql): Promise<{ table: string; updated: number; batchLimit: number }[]> {
  const [found] = await sql`select to_regclass('org_migration.backfills') is not null as begun`;
  const work = [];
  for (const table of largeTables) {
    const [row] = await sql`
      select
        pg_stat_get_tuples_updated(${table}::regclass)::integer as updated,
        (
          select max(rows) from (select count(*)::integer as rows from ${
      sql(table)
    } group by (ctid::text::point)[0]) as block
        ) as rows_of_block
    `;
    const [backfill] = found?.["begun"]
      ? await sql`
        select max(batch_blocks) as batch_blocks from org_migration.backfills where relation = ${table}::regclass`
      : [];
    work.push({
      table,
      updated: row?.["updated"] as number,
      batchLimit: (1 + workers) * (row?.["rows_of_block"] as number) *
        ((backfill?.["batch_blocks"] as number | undefined) ?? 0),
    });
  }
  return work;
}

/** Everything that a push that was killed, and pushed again, must share with one that was not. */
async function expectTheSame(sql: Sql, moment: string): Promise<void> {
  expect(await describeSchema(sql), moment).toEqual(undisturbed.schema);
  expect(await digestTables(sql), moment).toEqual(dataBefore);
  const tables = (await sql`select table_name from tenancy.org_scoped_tables`).map((row) =>
    row["table_name"] as string
  );
  expect(await findWrongRows(sql, tables, defaultOrgId), moment).toEqual([]);
  expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`, moment).toEqual([]);
  const backfilled = await sql`
    select relation::text as table, rows_updated::integer as rows
    from org_migration.backfill_progress
    where relation::text = any(${largeTables})
    order by relation::text
  `;
  expect(backfilled, `${moment}: each row was counted once`).toEqual(
    largeTables.map((table) => ({ table, rows: dataBefore.get(table)?.rows })),
  );
}

/** All migrations, except that of the library's, each one transaction that touches nothing of the application, four are drawn. */
function chooseFiles(random: Random): string[] {
  const isLibrary = (file: string) => file.includes("_tenancy_");
  const drawn = random.shuffle(files.filter(isLibrary)).slice(0, 4);
  return files.filter((file) => !isLibrary(file) || drawn.includes(file));
}

/** Kills a push once in each of these migrations, and pushes again. */
export function testKilledPushes(
  name: string,
  kill: Kill,
  options: { keepsStatistics: boolean; workers?: number },
): void {
  const seed = chooseSeed(name);
  const random = createRandom(seed);

  beforeAll(async () => {
    workers = options.workers ?? 0;
    await prepare(name.replaceAll(/\W+/g, "_"));
  });
  afterAll(async () => await server.stop("immediate"));

  describe(`${name}, and pushed again, ends as one that was left alone`, () => {
    test.each(chooseFiles(random))("in %s", async (file) => {
      const database = `killed_${files.indexOf(file)}`;
      const moment = `TEST_SEED=${seed}, ${await pushAndKill(database, file, kill, random)}`;
      const whenKilled = await withConnection(database, readWork);
      const { code, output } = await project.push(databaseUrl(server.port, { database }));
      expect(code, `${moment}\n${output}`).toBe(0);
      await withConnection(database, async (sql) => {
        await expectTheSame(sql, moment);
        if (!options.keepsStatistics) return;
        for (const { table, updated } of await readWork(sql)) {
          const twice = updated - (dataBefore.get(table)?.rows ?? 0);
          const limit = whenKilled.find((work) => work.table === table)?.batchLimit;
          expect(twice, `${moment}: rows of ${table} that were updated twice`).toBeLessThanOrEqual(limit ?? 0);
        }
      });
    });
  });
}
