/** Finds the database that `supabase db push` with these parameters works on, to open a second connection to it. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "smol-toml";

export type Target = { url: string } | { why: string };

export interface Surroundings {
  environment: Record<string, string | undefined>;
  /** The text of a file; undefined: there is none. */
  read(file: string): string | undefined;
  exists(path: string): boolean;
  folder: string;
}

/** What this process runs in. */
export const surroundings: Surroundings = {
  environment: process.env,
  read: (file) => existsSync(file) ? readFileSync(file, "utf8") : undefined,
  exists: existsSync,
  folder: process.cwd(),
};

const isAddress = (text: string) => /^postgres(ql)?:\/\//.test(text);
const isRef = (text: string) => /^[a-z]{20}$/.test(text);

/** The value of an option, as `--name value` or `--name=value`. */
function readOption(parameters: string[], ...names: string[]): string | undefined {
  for (const [index, parameter] of parameters.entries()) {
    for (const name of names) {
      if (parameter === name) return parameters[index + 1];
      if (parameter.startsWith(`${name}=`)) return parameter.slice(name.length + 1);
    }
  }
  return undefined;
}

/** What --remote names; "": the linked project; undefined: it is not given. --remote takes its value after = only. */
function readRemote(parameters: string[]): string | undefined {
  const address = readOption(parameters, "--db-url");
  if (address !== undefined) return address;
  const given = parameters.find((parameter) => parameter.startsWith("--remote="));
  if (given !== undefined) return given.slice("--remote=".length);
  return parameters.includes("--remote") || parameters.includes("--linked") ? "" : undefined;
}

export const isRemote = (parameters: string[]): boolean => readRemote(parameters) !== undefined;

/** Why the folder of --workdir is none to push from, in which the CLI would find no migrations; undefined: it is one, or is not given. */
export function refuseFolder(parameters: string[], { environment, exists, folder }: Surroundings): string | undefined {
  const given = readOption(parameters, "--workdir") ?? environment["SUPABASE_WORKDIR"];
  if (given === undefined) return undefined;
  const project = resolve(folder, given);
  if (!exists(project)) return `${JSON.stringify(given)}: there is no such folder`;
  if (!exists(join(project, "supabase"))) return `${JSON.stringify(given)}: it has no folder supabase`;
  return undefined;
}

export function findTarget(parameters: string[], surroundings: Surroundings): Target {
  const { environment, read, folder } = surroundings;
  const project = resolve(
    folder,
    readOption(parameters, "--workdir") ?? environment["SUPABASE_WORKDIR"] ?? "",
    "supabase",
  );
  const remote = readRemote(parameters);
  if (remote === undefined) return findLocal(read(join(project, "config.toml")));
  if (isAddress(remote)) return { url: remote };
  if (remote !== "" && !isRef(remote)) {
    return { why: `--remote=${remote} names a branch; with its address, --remote='postgresql://…', there is progress` };
  }
  const ref = remote || environment["SUPABASE_PROJECT_ID"] || read(join(project, ".temp/project-ref"))?.trim();
  if (!ref) return { why: "no project is linked" };
  const password = readOption(parameters, "--password", "-p") || environment["SUPABASE_DB_PASSWORD"];
  if (!password) {
    return {
      why: "the second connection needs the password of the database: set SUPABASE_DB_PASSWORD, or give --password",
    };
  }
  return { url: addressOf(ref, password, read(join(project, ".temp/pooler-url"))?.trim()) };
}

function findLocal(config: string | undefined): Target {
  const { db } = parse(config ?? "") as { db?: { port?: unknown } };
  const port = typeof db?.port === "number" ? db.port : 54322;
  return { url: `postgresql://postgres:postgres@127.0.0.1:${port}/postgres` };
}

/** By the pooler where one was saved, in session mode, since the direct address is often out of reach without IPv6. */
function addressOf(ref: string, password: string, pooler: string | undefined): string {
  const usable = pooler !== undefined && isAddress(pooler) && pooler.includes(ref);
  const url = new URL(usable ? pooler : `postgresql://postgres@db.${ref}.supabase.co:5432/postgres`);
  url.password = encodeURIComponent(password);
  url.port = "5432";
  return url.href;
}
