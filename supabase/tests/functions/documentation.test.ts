import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { root } from "../../local/project.ts";
import { cannotRun } from "../adopter.ts";
import { pages, readPage, readSection } from "../readme.ts";

/** The file below supabase/tests that runs the commands of each section as they stand. */
const runBy: Record<string, string> = {
  "README.md ## Use it on your application": "integration/five-commands.test.ts",
  "docs/adopt.md ## Step by step": "adopter.ts",
  "docs/adopt.md ## Fresh databases": "integration/fresh.test.ts",
  "docs/operate.md ## Undo": "adopter.ts",
  "docs/last-step.md ## Take it": "integration/last-step.test.ts",
  "docs/last-step.md ## One plain migration instead of the copied files": "integration/last-step.test.ts",
};

/** The commands that the text names between its blocks: the test of each, or why there is none. */
const namedInText: Record<string, string> = {
  "npx supabase link --workdir ../my-app": "there is no project on the platform to link to",
  "npx supabase db reset": "it needs Docker; with --remote it is run in integration/other-tools.test.ts",
  "supabase db reset": "as npx supabase db reset",
  "supabase gen types": "integration/other-tools.test.ts",
  "npx supabase gen types --remote > database.types.ts": "integration/other-tools.test.ts",
  "npx supabase db schema declarative generate --remote --overwrite": "integration/other-tools.test.ts",
  "supabase db diff": "integration/other-tools.test.ts",
  "supabase db reset --remote": "integration/other-tools.test.ts",
  "npx drizzle-kit pull": "tried by hand with the version that the page names",
  "npx prisma db pull": "tried by hand with the version that the page names",
};

const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };

/** True if npm itself or a script of package.json is what it calls. */
function isScript(command: string): boolean {
  const [, own, script = ""] = /^npm (?:--prefix \S+ )?(?:(ci|start|test)|run (\S+))( |$)/.exec(command) ?? [];
  return own === "ci" || Object.hasOwn(scripts, own ?? script);
}

/** A page without its blocks of code. */
const textOf = (page: string): string => readPage(page).replaceAll(/^ *```[^]*?^ *```/gm, "");

const headingsOf = (page: string): string[] => textOf(page).match(/^#+ .*$/gm) ?? [];

/** The anchor that GitHub gives a heading. */
const anchorOf = (heading: string): string =>
  heading.replace(/^#+ /, "").toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");

/** The commands of a block, each on a line, those over several lines joined. */
const commandsOf = (block: string): string[] =>
  block.replaceAll(/\\\n\s*/g, "").split("\n").filter((line) => line.trim() !== "");

describe.each(pages)("%s", (page) => {
  test("is short enough to be read", () => {
    const lines = readPage(page).trimEnd().split("\n").length;
    expect(lines).toBeLessThanOrEqual(page === "README.md" ? 200 : 300);
  });

  test("has each heading once", () => {
    const anchors = headingsOf(page).map(anchorOf);
    expect(anchors).toEqual([...new Set(anchors)]);
  });

  test("links to what is there", () => {
    const broken = [...textOf(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => target).filter((target) => {
      if (/^https?:/.test(target)) return false;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? page : join(dirname(page), path);
      return !existsSync(join(root, file)) ||
        (anchor !== undefined && !headingsOf(file).map(anchorOf).includes(anchor));
    });
    expect(broken).toEqual([]);
  });

  test("has commands only that a test or an npm script runs", () => {
    const unknown = headingsOf(page).flatMap((heading) => {
      const commands = readSection(heading, page).blocks("sh").flatMap(commandsOf);
      const isRun = Object.hasOwn(runBy, `${page} ${heading}`);
      return commands.filter((command) =>
        command.startsWith("npm ") ? !isScript(command) : !isRun && !command.startsWith("export ")
      );
    });
    expect(unknown).toEqual([]);
  });

  test("names commands only that a test or an npm script runs, or that have a reason why not", () => {
    const commands = [...textOf(page).matchAll(/`((?:npx|npm|supabase) [^`]+)`/g)].map(([, command = ""]) => command);
    const inBlocks = pages.flatMap((each) => readPage(each).match(/^ *```sh\n[^]*?^ *```/gm) ?? []).join("\n");
    const known = (command: string) =>
      isScript(command) || inBlocks.includes(command) || Object.hasOwn(cannotRun, command) ||
      Object.hasOwn(namedInText, command);
    expect(commands.filter((command) => !known(command))).toEqual([]);
  });
});

describe("the lists of what runs the documented commands", () => {
  test.each(Object.entries(runBy))("%s is read by %s", (section, file) => {
    const [page = "", heading = ""] = section.split(/ (?=#)/);
    expect(readSection(heading, page).blocks("sh")).not.toEqual([]);
    expect(readFileSync(join(root, "supabase/tests", file), "utf8")).toContain(
      page === "README.md" ? `readSection("${heading}")` : `readSection("${heading}", "${page}")`,
    );
  });

  test("have no command that is not documented any more", () => {
    const all = pages.map(readPage).join("\n");
    expect(Object.keys(namedInText).filter((command) => !all.includes(`\`${command}\``))).toEqual([]);
  });
});

test("every example of a policy is tested as it stands", () => {
  const policies = readPage("docs/memberships.md").match(/^create policy .*$/gm) ?? [];
  const file = join(root, "supabase/tests/database/library/05_policies_of_members.test.sql");
  const tested = readFileSync(file, "utf8").split("\n");
  expect(policies).not.toEqual([]);
  expect(policies.filter((policy) => !tested.includes(policy))).toEqual([]);
});

/** Every code of a finding, as the library's own test has them. */
const codes = [
  ...readFileSync(
    join(root, "supabase/tests/database/library/09_findings_have_one_interface.test.sql"),
    "utf8",
  ).matchAll(/^ {4}\('\w+', '(\w+)'\)/gm),
].map(([, code = ""]) => code);

test("every code of a finding is documented", () => {
  const documented = ["adopt", "operate", "function", "organizations"].map((name) => readPage(`docs/${name}.md`))
    .join();
  // `auth_org_id_missing`, `…_not_uuid` stand for two.
  const all = documented.replaceAll("`…_", "`auth_org_id_");
  expect(codes.length).toBeGreaterThan(80);
  expect(codes.filter((code) => !all.includes(`\`${code}\``))).toEqual([]);
});

test("every error of the edge function is documented, and no other", () => {
  const source = readFileSync(join(root, "supabase/functions/update-user-org-metadata/protocol.ts"), "utf8");
  const [union = ""] = /export type ErrorCode =[^;]*;/.exec(source) ?? [];
  const known = [...union.matchAll(/"(\w+)"/g)].map(([, code]) => code).sort();
  const rows = readSection("## Errors", "docs/function.md").text.match(/^\| \d+ \|[^|]*\|/gm) ?? [];
  expect(rows.flatMap((row) => [...row.matchAll(/`(\w+)`/g)].map(([, code]) => code)).sort()).toEqual(known);
});

test("every file of docs that the code names is there", () => {
  const folders = ["cli", "functions", "local", "migrations", "scripts", "tests"];
  const sources = folders.flatMap((folder) =>
    (readdirSync(join(root, "supabase", folder), { recursive: true }) as string[]).map((name) => join(folder, name))
  ).filter((name) => /\.(tsx?|sql)$/.test(name));
  const named = sources.flatMap((name) =>
    readFileSync(join(root, "supabase", name), "utf8").match(/\bdocs\/[\w-]+\.(md|sql)\b/g) ?? []
  );
  expect([...new Set(named)].filter((name) => !existsSync(join(root, name)))).toEqual([]);
});
