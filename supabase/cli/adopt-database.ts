import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { databaseUrl, freePort, type PostgresMajor, startPostgres } from "../local/postgres.ts";
import { root, stateFolder } from "../local/project.ts";
import { startSupabase } from "../local/supabase-cli.ts";
import { type Application, laterThanList, migrationsFolder } from "./adopt-application.ts";
import { hasRow } from "./adopt-list.ts";
import { versionOf, withoutVersion } from "./adopt-migrations.ts";
import { pasteList, type PreflightRow } from "./adopt-preflight.ts";
import { hidePassword } from "./adopt-options.ts";
import { networkReason, UsageError } from "./command-line.ts";
import { closeLive, connectLive } from "./live-database.ts";

/** A database that has the application's tables. */
export interface Source {
  sql: Sql;
  /** What it is, for whoever reads. */
  what: string;
  /** True if it is the one that is live: it knows how large the tables are, and whether our migrations were pushed. */
  isLive: boolean;
  close(): Promise<void>;
}

const majors: readonly number[] = [15, 17, 18] satisfies PostgresMajor[];

/** The database of --db-url; else that of the application's supabase start; else a new one with the application's migrations. */
export async function openSource(
  application: Application,
  dbUrl: string | undefined,
  say: (text: string) => void,
): Promise<Source> {
  if (dbUrl !== undefined) {
    const sql = await connect(dbUrl, 20);
    const [state] = await sql`
      select to_regclass('tenancy.registry') is not null and to_regnamespace('org_migration') is null as is_over
    `;
    if (state?.["is_over"]) {
      await closeLive(sql);
      throw new UsageError(
        `Cannot adopt with --db-url ${
          hidePassword(dbUrl)
        }: the last step was taken there, so nothing is left to adopt; a new table is` +
          " registered and given to tenancy.onboard in a migration of your own",
      );
    }
    return { sql, what: hidePassword(dbUrl), isLive: true, close: () => closeLive(sql) };
  }
  const local = await findLocal(application);
  if (local) return local;
  say("Starting a PostgreSQL with the application's migrations …");
  return await startOwn(application);
}

/** Throws an error with the address and the reason, without the password. */
async function connect(url: string, timeout: number): Promise<Sql> {
  const sql = connectLive(url, { connect_timeout: timeout });
  try {
    await sql`select 1`.simple();
    return sql;
  } catch (error) {
    await closeLive(sql);
    throw new UsageError(`Cannot connect to --db-url ${hidePassword(url)}: ${networkReason(error)}`);
  }
}

/** The database of supabase start, if it runs and has the application's migrations, and none of ours. */
async function findLocal(application: Application): Promise<Source | undefined> {
  const url = databaseUrl(application.dbPort);
  const sql = await connect(url, 2).catch(() => undefined);
  if (!sql) return undefined;
  const applied = [...(await readHistory(sql)).keys()];
  const expected = ownBeforeList(application).map(versionOf);
  if (applied.length !== expected.length || expected.some((version) => !applied.includes(version))) {
    await closeLive(sql);
    return undefined;
  }
  return {
    sql,
    what: `the local stack at 127.0.0.1:${application.dbPort}`,
    isLive: false,
    close: () => closeLive(sql),
  };
}

const ownBeforeList = (application: Application): string[] => {
  const later = laterThanList(application);
  return application.own.filter((file) => !later.includes(file));
};

/** The migrations that were pushed to a database: their versions, with their names where the CLI has noted them. */
async function readHistory(sql: Sql): Promise<Map<string, string | null>> {
  const [history] = await sql`select to_regclass('supabase_migrations.schema_migrations') as oid`;
  if (!history?.["oid"]) return new Map();
  const rows = await sql<{ version: string; name: string | null }[]>`
    select version, to_jsonb(pushed) ->> 'name' as name from supabase_migrations.schema_migrations as pushed
  `;
  return new Map(rows.map(({ version, name }) => [version, name]));
}

/** Tells whether a file is in the history of the live database, so that it is too late to change it: that file, not another of its version. */
export async function readPushed({ sql, isLive }: Source): Promise<(file: string) => boolean> {
  const history = isLive ? await readHistory(sql) : new Map<string, string | null>();
  return (file) => {
    const name = history.get(versionOf(file));
    return name !== undefined && (name === null || `${name}.sql` === withoutVersion(file));
  };
}

/** What the preflight answers with these rows as its list. Throws an error where they are no list. */
export async function askPreflight({ sql }: Source, rows: string): Promise<PreflightRow[]> {
  const preflight = readFileSync(join(root, "supabase/preflight.sql"), "utf8");
  return await readOnly(sql, pasteList(preflight, rows));
}

const columns = "(schema_name, table_name, scope, priority, reason, org_from)";

/** Throws an error with the file where these rows of it are no rows of a list. */
export async function checkRows({ sql }: Source, file: string, rows: string): Promise<void> {
  if (hasRow(rows)) await readOnly(sql, `select from (values ${rows}\n) as listed ${columns}`, `the list in ${file}`);
}

/** Index lines that would stop a push: of tables that the list excludes, and of tables that are gone. */
export interface NeedlessLines {
  excluded: string[];
  gone: string[];
}

/** Which of these tables, of which there are index lines, need none. */
export async function readNeedlessLines({ sql }: Source, rows: string, relations: string[]): Promise<NeedlessLines> {
  if (!hasRow(rows) || relations.length === 0) return { excluded: [], gone: [] };
  const needless = await readOnly<{ name: string; is_gone: boolean }>(
    sql,
    `
      with listed ${columns} as (values ${rows}
      )
      select line.name, named.relation is null as is_gone
      from pg_catalog.jsonb_array_elements_text(${literal(JSON.stringify(relations))}) as line (name)
      cross join lateral (select pg_catalog.to_regclass(line.name) as relation) as named
      where named.relation is null
        or exists (
          select from listed
          where listed.scope = 'excluded'
            and pg_catalog.to_regclass(pg_catalog.format('%I.%I', listed.schema_name, listed.table_name))
              = coalesce(pg_catalog.pg_partition_root(named.relation), named.relation)
        )
    `,
  );
  const names = (isGone: boolean) => needless.filter((line) => line.is_gone === isGone).map(({ name }) => name);
  return { excluded: names(false), gone: names(true) };
}

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'::jsonb`;

async function readOnly<Row extends object>(sql: Sql, query: string, what = "the tables"): Promise<Row[]> {
  try {
    const answer = await sql.begin(
      "read only",
      async (transaction) => ({ rows: await transaction.unsafe<Row[]>(query) }),
    );
    return [...answer.rows];
  } catch (error) {
    throw new UsageError(`Cannot read ${what}: ${(error as Error).message}`);
  }
}

/** A new PostgreSQL with the application's own migrations: those that come before the list of tables. */
async function startOwn(application: Application): Promise<Source> {
  const folder = join(stateFolder(), `adopt-${process.pid}`);
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", removeFolder);
  const major = majors.includes(application.major) ? application.major as PostgresMajor : 17;
  const server = await startPostgres({ port: await freePort(), folder: join(folder, "postgres"), major });
  const stop = async () => {
    await server.stop("immediate");
    removeFolder();
    process.off("exit", removeFolder);
  };
  try {
    const sql = connectLive(server.url());
    // As on the platform, where migrations add tables to it.
    await sql`create publication supabase_realtime`;
    await push(application, join(folder, "project"), server.url());
    return {
      sql,
      what: "a PostgreSQL of its own with the application's migrations",
      isLive: false,
      close: async () => {
        await closeLive(sql);
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function push(application: Application, project: string, url: string): Promise<void> {
  mkdirSync(join(project, migrationsFolder), { recursive: true });
  writeFileSync(join(project, "supabase/config.toml"), 'project_id = "adopt"\n\n[db.seed]\nenabled = false\n');
  for (const file of ownBeforeList(application)) {
    cpSync(join(application.folder, migrationsFolder, file), join(project, migrationsFolder, file));
  }
  const { code, output } = await startSupabase(["db", "push", "--workdir", project, `--remote=${url}`, "--yes"]).result;
  if (code === 0) return;
  throw new UsageError(
    "Cannot apply the application's migrations to an empty PostgreSQL, which has neither the platform's extensions nor its storage: " +
      `give the database with --db-url, or start it with npx supabase start. The CLI says:\n${output.trim()}`,
  );
}
