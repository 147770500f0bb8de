import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { fillApplication, pushApplicationBefore, pushTarget } from "../local/application.ts";
import { createDatabase } from "../local/databases.ts";
import { freePort, type PostgresMajor, type PostgresServer, startPostgres } from "../local/postgres.ts";
import { stateFolder } from "../local/project.ts";
import { supabase } from "../local/supabase-cli.ts";

declare module "vitest" {
  export interface ProvidedContext {
    databasePort: number;
    /** A folder for what a test writes; removed at the end. */
    folder: string;
    /** The major version of PostgreSQL that the tests run on. */
    major: PostgresMajor;
  }
}

/**
 * Starts one PostgreSQL for all tests, with the databases that they clone: `before` is the application with data and no
 * organizations, `migrated` is the empty application after all migrations, as `supabase test db` would find it.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  removeLeftovers();
  const folder = join(stateFolder(), `test-${process.pid}`);
  const major = Number(process.env["POSTGRES_MAJOR"] ?? 17) as PostgresMajor;
  const server = await startPostgres({ port: await freePort(), folder, major });
  try {
    const before = await createDatabase(server.port, "before", "postgres");
    await pushApplicationBefore(before, folder);
    await fillApplication(before, { users: 60, rows: 60 });
    const migrated = await createDatabase(server.port, "migrated", "postgres");
    await supabase(["db", "push", ...pushTarget(migrated)]);
  } catch (error) {
    await server.stop("immediate");
    throw error;
  }
  project.provide("databasePort", server.port);
  project.provide("folder", folder);
  project.provide("major", major);
  return async () => await tearDown(server, folder);
}

async function tearDown(server: PostgresServer, folder: string): Promise<void> {
  await server.stop("immediate");
  rmSync(folder, { recursive: true, force: true });
}

/** Removes the folders of test runs that were killed. */
function removeLeftovers(): void {
  let names: string[] = [];
  try {
    names = readdirSync(stateFolder()).filter((name) => /^test-\d+$/.test(name));
  } catch {
    return;
  }
  for (const name of names) {
    try {
      process.kill(Number(name.slice("test-".length)), 0);
    } catch {
      rmSync(join(stateFolder(), name), { recursive: true, force: true });
    }
  }
}
