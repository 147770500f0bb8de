import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chownSync, closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import postgres from "postgres";
import { installPrograms } from "./postgres-programs.ts";
import { type Account, findClosedParent, makeFolder, root, unprivilegedAccount } from "./project.ts";

const run = promisify(execFile);
const password = "postgres";

export type PostgresMajor = 15 | 17 | 18;

export interface PostgresServer {
  port: number;
  url(options?: { database?: string; role?: string }): string;
  /** Stops the server: in good order, or at once as a crash would. Resolves when it is gone. */
  stop(mode?: "fast" | "immediate"): Promise<void>;
  /** Stops the server at once, as a crash would, and starts it again on the same data. Resolves when it has recovered. */
  crash(): Promise<void>;
}

/** A connection string for a server of this stack. The role is the platform's postgres unless another is named. */
export function databaseUrl(port: number, options: { database?: string; role?: string } = {}): string {
  const { database = "postgres", role = "postgres" } = options;
  return `postgresql://${role}:${password}@127.0.0.1:${port}/${database}`;
}

/** True if nothing listens on 127.0.0.1 at this port. */
export async function isPortFree(port: number): Promise<boolean> {
  const server = createServer();
  return await new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** A port on 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  return await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/**
 * Starts a new, empty PostgreSQL server that looks like the platform's: its roles, default privileges and auth schema. Deletes
 * what was in the folder before. Throws a clear error if the port is taken, the server cannot reach the folder, or it does not
 * start.
 */
export async function startPostgres(options: {
  port: number;
  folder: string;
  /** The major version: 17 as in config.toml, or one of the others that the platform runs. */
  major?: PostgresMajor;
  settings?: Record<string, string>;
}): Promise<PostgresServer> {
  const { port, folder, major = 17, settings = {} } = options;
  if (!(await isPortFree(port))) {
    throw new Error(
      `Cannot start PostgreSQL on 127.0.0.1:${port}: the port is taken. Stop what uses it (another npm start -- --keep, ` +
        "or the Docker stack: npx supabase stop), or change [db].port in supabase/config.toml.",
    );
  }
  const cluster: Cluster = {
    programs: await installPrograms(major),
    folder,
    data: join(folder, "data"),
    log: join(folder, "postgres.log"),
    account: unprivilegedAccount(),
  };
  refuseClosedFolder(cluster);
  await createCluster(cluster);
  const url: PostgresServer["url"] = (which) => databaseUrl(port, which);
  const { start, stop } = createServerProcess(cluster, url({ role: "supabase_admin" }), {
    ...settings,
    port: String(port),
  });
  try {
    await start();
    const admin = postgres(url({ role: "supabase_admin" }), { max: 1, onnotice: () => {} });
    await admin.unsafe(readFileSync(join(root, "supabase/local/platform.sql"), "utf8")).simple();
    await admin.end();
  } catch (error) {
    await stop("immediate");
    throw error;
  }
  const crash = async () => {
    await stop("immediate");
    await start();
  };
  return { port, url, stop, crash };
}

/** A server's programs and files, and the account that it runs as. */
interface Cluster {
  programs: string;
  folder: string;
  data: string;
  log: string;
  /** undefined: the account that this process runs as. */
  account: Account | undefined;
}

function refuseClosedFolder({ folder, account }: Cluster): void {
  const closed = account && findClosedParent(folder, account);
  if (!closed) return;
  throw new Error(
    `Cannot start PostgreSQL in ${folder}: it does not run as root, and the account nobody cannot enter ${closed}. ` +
      `Choose another folder, or let everyone pass through this one: chmod o+x '${closed}'`,
  );
}

/** Replaces the folder by one with a new, empty cluster. A server that still runs in it is stopped. */
async function createCluster({ programs, folder, data, account }: Cluster): Promise<void> {
  if (existsSync(join(data, "postmaster.pid"))) {
    await run(join(programs, "bin/pg_ctl"), ["stop", "-D", data, "-m", "immediate"], account ?? {}).catch(() => {});
  }
  rmSync(folder, { recursive: true, force: true });
  makeFolder(folder);
  const passwordFile = join(folder, "password");
  writeFileSync(passwordFile, password);
  if (account) {
    for (const path of [folder, passwordFile]) chownSync(path, account.uid, account.gid);
  }
  const parameters = ["-D", data, "-U", "supabase_admin", "--pwfile", passwordFile];
  await run(
    join(programs, "bin/initdb"),
    [...parameters, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"],
    { ...account, cwd: folder },
  ).catch((error: { stderr?: string }) => {
    throw new Error(`Cannot create the database in ${data}: ${error.stderr?.trim()}`);
  });
}

interface ServerProcess {
  /** Resolves when the server takes connections. */
  start(): Promise<void>;
  /** Resolves when it is gone. */
  stop(mode?: "fast" | "immediate"): Promise<void>;
}

function createServerProcess(cluster: Cluster, url: string, settings: Record<string, string>): ServerProcess {
  const { programs, folder, data, log, account } = cluster;
  const parameters = Object.entries({
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    wal_level: "logical",
    jit: "off",
    statement_timeout: "120s",
    fsync: "off",
    ...settings,
  }).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  let child: ChildProcess;
  const killOnExit = () => child.kill("SIGQUIT");
  return {
    start: async () => {
      const output = openSync(log, "a");
      child = spawn(join(programs, "bin/postgres"), ["-D", data, ...parameters], {
        ...account,
        cwd: folder,
        stdio: ["ignore", output, output],
      });
      closeSync(output);
      process.once("exit", killOnExit);
      await waitUntilReady(url, child, log);
    },
    stop: async (mode = "fast") => {
      process.off("exit", killOnExit);
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
      await gone;
    },
  };
}

async function waitUntilReady(url: string, child: ChildProcess, log: string): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (child.exitCode !== null) break;
    const sql = postgres(url, { max: 1, connect_timeout: 2 });
    try {
      await sql`select 1`;
      return;
    } catch {
      await sleep(50);
    } finally {
      await sql.end({ timeout: 1 });
    }
  }
  throw new Error(`PostgreSQL did not start. Its log (${log}) ends with:\n${readFileSync(log, "utf8").slice(-2000)}`);
}
