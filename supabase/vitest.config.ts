import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config";
import type { PostgresMajor } from "./local/postgres.ts";

/** The version of PostgreSQL for all projects except versions-*. */
const major = Number(process.env["POSTGRES_MAJOR"] ?? 17) as PostgresMajor;

/**
 * What takes minutes: kills and storms, a push while the application writes, other applications, intruders, npm start, the
 * platform closed, resets, a browser, the benchmarks, one organization out, and what looks at one database in dozens of states.
 */
const kills = [
  "tests/kills/**/*.test.ts",
  "tests/integration/{traffic,storm,adopt,push-again,forgotten-table,fresh,applications,privileges,pace,start}.test.ts",
  "tests/integration/{report,other-tools,two-organizations,five-commands,copied-tests,adopt-command,push-live,last-step,workers,benches}.test.ts",
  "tests/integration/{small-inputs,export,preflight,onboarding,years-later,binding,users-without-keys}.test.ts",
  "tests/integration/{delete-organization,roll-back,time-left}.test.ts",
];
const schemas = ["tests/schemas/**/*.test.ts"];
/** What runs again after the last step: the attacks on org_id and on other organizations, the edge function. */
const finished = ["tests/integration/{immutability,isolation-of-rows,function,function-faults}.test.ts"];
/** What runs on every version: the path of the migrations, up and down, and the attacks on what they leave. */
const path = [
  "tests/database/**/*.test.ts",
  "tests/integration/{whole-path,push,immutability,not-null,verify,roll-back}.test.ts",
];

/** Each project has a PostgreSQL of its own. A worker that is done goes on with the next project's files. */
const project = (
  name: string,
  test: Pick<NonNullable<TestProjectInlineConfiguration["test"]>, "include" | "exclude" | "maxConcurrency">,
  version: PostgresMajor = major,
  isFinished = false,
): TestProjectInlineConfiguration => ({
  extends: true,
  test: {
    name,
    ...test,
    globalSetup: "tests/setup.ts",
    provide: { major: version, finished: isFinished },
  },
});

export default defineConfig({
  test: {
    root: import.meta.dirname,
    // What hangs is ended. Nothing is this slow, not even on a busy machine.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // One more than the cores that there are: most files wait for another process, or for time to pass.
    maxWorkers: 3,
    projects: [
      project("quick", { include: ["tests/**/*.test.ts"], exclude: [...kills, ...schemas] }),
      project("kills", { include: kills }),
      project("schemas", { include: schemas, maxConcurrency: 3 }),
      project("finished", { include: finished }, major, true),
      project("versions-15", { include: path }, 15),
      project("versions-18", { include: path }, 18),
    ],
  },
});
