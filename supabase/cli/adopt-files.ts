import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../local/project.ts";
import { type Application, normalize } from "./adopt-application.ts";
import { generatedPart } from "./adopt-preflight.ts";
import type { Change } from "./adopt-write.ts";
import { UsageError } from "./command-line.ts";

const functionFolder = "supabase/functions/update-user-org-metadata";
const testsFolder = "supabase/tests/database";
const preflightPath = "supabase/preflight.sql";

interface File {
  path: string;
  text: string;
}

/** The files of a folder of this project, without those of folders in it. */
const readFiles = (folder: string, ending: string): File[] =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith(ending))
    .sort()
    .map((name) => ({ path: `${folder}/${name}`, text: readFileSync(join(root, folder, name), "utf8") }));

/** What the application has in this place. */
function readOwn({ folder }: Application, path: string): string | undefined {
  const file = join(folder, path);
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

function refuseOther({ folder }: Application, path: string): never {
  throw new UsageError(
    `Cannot adopt ${
      JSON.stringify(folder)
    }: ${path} is not the one of this version: keep its changes elsewhere, delete it, and adopt again`,
  );
}

/** The edge function. Throws an error where the application has another one of its name. */
export function copyFunction(application: Application): Change[] {
  return readFiles(functionFolder, "").map((file) => {
    const own = readOwn(application, file.path);
    if (own !== undefined && normalize(own) !== normalize(file.text)) refuseOther(application, file.path);
    return { ...file, text: own ?? file.text };
  });
}

/** The two tests. Those that the application has stay as they are: what is accepted is written into them. */
export const copyTests = (application: Application): Change[] =>
  readFiles(testsFolder, ".test.sql").map((file) => ({ ...file, text: readOwn(application, file.path) ?? file.text }));

/** The preflight, with what the application's developers have pasted into theirs. */
export function readPreflight(application: Application): File {
  const text = readFileSync(join(root, preflightPath), "utf8");
  const own = readOwn(application, preflightPath);
  if (own === undefined) return { path: preflightPath, text };
  const there = normalize(own);
  if (generatedPart(there) !== generatedPart(text)) refuseOther(application, preflightPath);
  return { path: preflightPath, text: there };
}
