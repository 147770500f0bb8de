import { createHash } from "node:crypto";
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "smol-toml";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** What the local stack takes from supabase/config.toml. */
export interface ProjectConfig {
  projectId: string;
  apiPort: number;
  dbPort: number;
  /** Seconds that an access token is valid. */
  jwtExpiry: number;
}

/** Reads supabase/config.toml. Throws when a setting that the stack needs is missing or of the wrong type. */
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
  return {
    projectId,
    apiPort: readNumber("api.port"),
    dbPort: readNumber("db.port"),
    jwtExpiry: readNumber("auth.jwt_expiry"),
  };
}

/** The user id and group id that a process runs as. */
export interface Account {
  uid: number;
  gid: number;
}

/** PostgreSQL does not run as root: for root, the account that it runs as instead; otherwise undefined. */
export function unprivilegedAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const entry = readFileSync("/etc/passwd", "utf8").split("\n").find((line) => line.startsWith("nobody:"));
  const [, , uid, gid] = entry?.split(":") ?? [];
  if (!uid || !gid) throw new Error("Cannot run PostgreSQL: it refuses to run as root, and there is no account nobody");
  return { uid: Number(uid), gid: Number(gid) };
}

/**
 * The folder for what the stack writes: supabase/.local, which git ignores, or, where root has cloned into a folder that
 * only root can enter, one in the system's temporary folder.
 */
export function stateFolder(): string {
  const folder = join(root, "supabase/.local");
  if (!unprivilegedAccount()) return folder;
  for (let parent = dirname(folder); parent !== dirname(parent); parent = dirname(parent)) {
    if ((statSync(parent).mode & 0o001) === 0) {
      return join(tmpdir(), `org-id-migration-${createHash("sha256").update(root).digest("hex").slice(0, 12)}`);
    }
  }
  return folder;
}

/** The folder of an installed package, found from this project or from another package. */
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
