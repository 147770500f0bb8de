import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { connect } from "../local/databases.ts";
import { freePort, type PostgresMajor, type PostgresServer, startPostgres } from "../local/postgres.ts";
import { stateFolder } from "../local/project.ts";

declare module "vitest" {
  export interface ProvidedContext {
    databasePort: number;
    /** A folder for what a test writes; removed at the end. */
    folder: string;
    /** The major version of PostgreSQL that the tests run on, from vitest.config.ts. */
    major: PostgresMajor;
    /** Whether the tests run after the last step of the move, from vitest.config.ts. */
    finished: boolean;
  }
}

/** Starts the PostgreSQL of a project, for all of its tests. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  removeLeftovers();
  const folder = join(stateFolder(), `test-${process.pid}-${project.name}`);
  const { major } = project.getProvidedContext();
  const server = await startPostgres({ port: await freePort(), folder, major });
  await quietAutovacuum(server);
  project.provide("databasePort", server.port);
  project.provide("folder", folder);
  return async () => await tearDown(server, folder);
}

/** Keeps autovacuum from coming by in the middle of a test that measures; a test that wants it calls it. */
async function quietAutovacuum(server: PostgresServer): Promise<void> {
  const admin = connect(server.url({ role: "supabase_admin" }));
  try {
    await admin`alter system set autovacuum_naptime = '1h'`;
    await admin`select pg_reload_conf()`;
  } finally {
    await admin.end();
  }
}

async function tearDown(server: PostgresServer, folder: string): Promise<void> {
  await server.stop("immediate");
  rmSync(folder, { recursive: true, force: true });
}

/** Removes the folders of test runs that were killed. */
function removeLeftovers(): void {
  let names: string[] = [];
  try {
    names = readdirSync(stateFolder()).filter((name) => /^test-\d+-/.test(name));
  } catch {
    return;
  }
  for (const name of names) {
    try {
      process.kill(Number(name.split("-")[1]), 0);
    } catch {
      rmSync(join(stateFolder(), name), { recursive: true, force: true });
    }
  }
}
