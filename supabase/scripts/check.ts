/** npm run check: types, format, lint, the linter of the migrations, and the platform's advisors on a migrated database. */
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { pushTarget } from "../local/application.ts";
import { denoProgram } from "../local/function-server.ts";
import { freePort, startPostgres } from "../local/postgres.ts";
import { packageFolder, root, stateFolder } from "../local/project.ts";
import { supabase } from "../local/supabase-cli.ts";

const functionEntry = "supabase/functions/update-user-org-metadata/index.ts";
const sources = [
  "supabase/functions",
  "supabase/local",
  "supabase/cli",
  "supabase/scripts",
  "supabase/tests",
  "supabase/vitest.config.ts",
];
/** Rules of deno lint for code that Deno runs. Node runs this code, except the edge function, which uses none of it. */
const notForNode = ["no-process-globals", "no-node-globals"];
/** A port that has nothing to wait for is implemented as an async function without await. */
const notOurStyle = ["require-await"];

let failures = 0;

function report(name: string, problems: string): void {
  console.log(`${problems === "" ? "✔" : "✘"} ${name}`);
  if (problems === "") return;
  failures++;
  console.log(problems);
}

function run(name: string, program: string, parameters: string[]): void {
  const { status, stdout, stderr } = spawnSync(program, parameters, {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1", DENO_DIR: join(stateFolder(), "deno"), DENO_NO_UPDATE_CHECK: "1" },
  });
  report(name, status === 0 ? "" : `${stdout}${stderr}`);
}

interface Advice {
  name: string;
  level: "ERROR" | "WARN" | "INFO";
  detail: string;
}

/** The advice that there should not be on a migrated database: any error or warning, and anything about our objects. */
async function adviceOnMigratedDatabase(): Promise<string> {
  const folder = join(stateFolder(), `check-${process.pid}`);
  const server = await startPostgres({ port: await freePort(), folder });
  try {
    await supabase(["db", "push", ...pushTarget(server.url())]);
    const output = await supabase([
      "db",
      "advisors",
      `--remote=${server.url()}`,
      "--level=info",
      "--fail-on=none",
      "--output-format=json",
    ]);
    const { results } = JSON.parse(output.slice(output.indexOf("{"))) as { results: Advice[] };
    if (results.length === 0) {
      return "The advisors said nothing, not even about the new indexes: did they run?";
    }
    const ours = /tenancy\.|organizations|org_id/;
    return results
      .filter(({ name, level, detail }) => level !== "INFO" || (ours.test(detail) && name !== "unused_index"))
      .map(({ name, level, detail }) => `${level} ${name}: ${detail}`)
      .join("\n");
  } finally {
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv.slice(2).some((argument) => ["--help", "-h"].includes(argument))) {
  console.log(
    "npm run check: types, format, lint, generated files, migrations, and the platform's advisors on a migrated database.",
  );
  process.exit();
}
const deno = denoProgram();
run("types: what Node runs (tsc)", process.execPath, [
  join(packageFolder("typescript"), "bin/tsc"),
  "-p",
  "supabase/tsconfig.json",
]);
run("types: the edge function (deno check)", deno, ["check", "--node-modules-dir=manual", functionEntry]);
run("format (deno fmt)", deno, ["fmt", "--check", "--line-width=120", ...sources, "package.json"]);
run("lint (deno lint)", deno, ["lint", `--rules-exclude=${[...notForNode, ...notOurStyle].join(",")}`, ...sources]);
run("generated files (npm run build)", process.execPath, ["--import", "tsx", "supabase/scripts/build.ts", "--check"]);
run("migrations (squawk)", process.execPath, [
  join(packageFolder("squawk-cli"), "js/bin/squawk"),
  "supabase/migrations/*.sql",
]);
report("advisors on a migrated database (supabase db advisors)", await adviceOnMigratedDatabase());
console.log(failures === 0 ? "All checks pass." : `${failures} checks failed.`);
process.exitCode = failures === 0 ? 0 : 1;
