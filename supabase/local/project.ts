import { createHash } from "node:crypto";
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "smol-toml";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** The settings of supabase/config.toml that the local stack uses. */
interface ProjectConfig {
  projectId: string;
  apiPort: number;
  dbPort: number;
  /** Seconds that an access token is valid. */
  jwtExpiry: number;
  /** The function of the custom access token hook, as schema.name; null: it is off. */
  tokenHook: string | null;
}

/** Reads supabase/config.toml. Throws if a setting is missing or has the wrong type. */
export function readConfig(): ProjectConfig {
  const file = join(root, "supabase/config.toml");
  const settings = parse(readFileSync(file, "utf8"));
  const read = (path: string): unknown =>
    path.split(".").reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], settings);
  const refuse = (path: string, type: string) =>
    new Error(`Cannot use ${file}: ${path} is ${JSON.stringify(read(path))}, not a ${type}`);
  const readNumber = (path: string) => {
    const value = read(path);
    if (typeof value !== "number") throw refuse(path, "number");
    return value;
  };
  const projectId = read("project_id");
  if (typeof projectId !== "string") throw refuse("project_id", "string");
  const readHook = () => {
    if (read("auth.hook.custom_access_token.enabled") !== true) return null;
    const [, schema, name] = /^pg-functions:\/\/[^/]+\/([^/]+)\/([^/]+)$/.exec(
      String(read("auth.hook.custom_access_token.uri")),
    ) ?? [];
    if (!schema || !name) {
      throw refuse("auth.hook.custom_access_token.uri", "pg-functions://<database>/<schema>/<function>");
    }
    return `${schema}.${name}`;
  };
  return {
    projectId,
    apiPort: readNumber("api.port"),
    dbPort: readNumber("db.port"),
    jwtExpiry: readNumber("auth.jwt_expiry"),
    tokenHook: readHook(),
  };
}

/** The ids of a user and a group that a process runs as. */
export interface Account {
  uid: number;
  gid: number;
}

/** The account that PostgreSQL runs as instead of root, since it refuses root; undefined: this process is not root. */
export function unprivilegedAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const entry = readFileSync("/etc/passwd", "utf8").split("\n").find((line) => line.startsWith("nobody:"));
  const [, , uid, gid] = entry?.split(":") ?? [];
  if (!uid || !gid) throw new Error("Cannot run PostgreSQL: it refuses to run as root, and there is no account nobody");
  return { uid: Number(uid), gid: Number(gid) };
}

/**
 * The folder for what the stack writes; made if it does not exist. It is supabase/.local, which git ignores, or a folder in the
 * system's temporary folder if the account that PostgreSQL runs as cannot enter this project.
 */
export function stateFolder(): string {
  const account = unprivilegedAccount();
  const local = join(root, "supabase/.local");
  const name = `org-id-migration-${createHash("sha256").update(root).digest("hex").slice(0, 12)}`;
  const folder = account && findClosedParent(local, account) ? join(tmpdir(), name) : local;
  makeFolder(folder);
  return folder;
}

/** The nearest folder above this path that the account may not enter; undefined: it may enter all of them. */
export function findClosedParent(path: string, { uid, gid }: Account): string | undefined {
  for (let folder = dirname(resolve(path)); folder !== dirname(folder); folder = dirname(folder)) {
    if (!existsSync(folder)) continue;
    const { mode, uid: owner, gid: group } = statSync(folder);
    const mayEnter = owner === uid ? 0o100 : group === gid ? 0o010 : 0o001;
    if ((mode & mayEnter) === 0) return folder;
  }
  return undefined;
}

/**
 * Makes a folder and its parents. For root, everyone may enter those that did not exist, whatever the umask, since PostgreSQL
 * runs as another account. Folders that existed keep their mode.
 */
export function makeFolder(path: string): void {
  const folder = resolve(path);
  const first = mkdirSync(folder, { recursive: true });
  if (first === undefined || !unprivilegedAccount()) return;
  for (let made = folder; made !== dirname(resolve(first)); made = dirname(made)) chmodSync(made, 0o755);
}

/** The folder of an installed package, seen from this project or from another package. */
export function packageFolder(name: string, from: string = import.meta.url): string {
  for (const folder of createRequire(from).resolve.paths(name) ?? []) {
    const candidate = join(folder, name);
    try {
      accessSync(join(candidate, "package.json"), constants.R_OK);
      return candidate;
    } catch {
      continue;
    }
  }
  throw new Error(`Cannot find the package ${name}: run npm ci`);
}
