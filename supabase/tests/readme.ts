import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../local/project.ts";
import type { CliResult } from "../local/supabase-cli.ts";

/** The README and the pages of docs. */
export const pages = [
  "README.md",
  ...readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md")).sort().map((name) => `docs/${name}`),
];

export const readPage = (page: string): string => readFileSync(join(root, page), "utf8");

/** A part of the README, or of a page of docs, with what a reader copies from it. */
export interface Section {
  text: string;
  /** Its blocks of code in this language, "" for output, in order, without the indentation that they have in a list. */
  blocks(language: "sh" | "sql" | ""): string[];
  /** The commands that the text names between its blocks. */
  inlineCommands: string[];
}

/** The part of the README, or of another file, under this heading, up to the next heading of any level. */
export function readSection(heading: string, file = "README.md"): Section {
  const page = `\n${readPage(file)}`;
  const start = page.indexOf(`\n${heading}\n`);
  if (start < 0) throw new Error(`Cannot find the heading ${JSON.stringify(heading)} in ${file}`);
  const rest = page.slice(start + heading.length + 2);
  // A # at the start of a line is a heading only outside of blocks.
  const end = [...rest.matchAll(/^ *```[^]*?^ *```|^#+ /gm)].find(([found]) => found.startsWith("#"))?.index;
  const text = rest.slice(0, end);
  const blocks = [...text.matchAll(/^( *)```(\w*)\n([^]*?)^ *```/gm)].map(([, indent = "", language, block = ""]) => ({
    language,
    block: block.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  }));
  const prose = text.replaceAll(/^ *```[^]*?^ *```/gm, "");
  return {
    text,
    blocks: (language) => blocks.filter((block) => block.language === language).map(({ block }) => block),
    inlineCommands: [...prose.matchAll(/`((?:npx|npm) [^`]+)`/g)].map(([, command = ""]) => command),
  };
}

/** When a block is ended that waits for what never comes; sooner than its test is. */
const longestRun = 250_000;

/**
 * Runs a block of the documentation as it stands, in a project's folder, except for what a reader fills in: --remote names a
 * database by its address, and the given texts are replaced. Ends with the first command that fails.
 */
export async function runAsWritten(
  commands: string,
  options: { folder: string; url: string; replace?: Record<string, string>; environment?: Record<string, string> },
): Promise<CliResult> {
  const { folder, url, replace = {}, environment = {} } = options;
  // Where the CLI asks a reader, --yes is the answer. It does not ask before a query that only reads.
  let substituted = commands.split("\n").map((line) =>
    line.replace(/--remote(?![=\w])/, `--remote='${url}'${/\bdb query\b/.test(line) ? "" : " --yes"}`)
  ).join("\n");
  for (const [text, replacement] of Object.entries(replace)) substituted = substituted.replaceAll(text, replacement);
  const temporary = mkdtempSync(join(tmpdir(), "as-written-"));
  const script = join(temporary, "commands.sh");
  writeFileSync(script, substituted);
  // A pipe of bash's own: /dev/stderr can be opened again there, as on a terminal, and not where Node has made it.
  const child = spawn("bash", ["-c", `bash -e '${script}' 2>&1 | cat; exit "\${PIPESTATUS[0]}"`], {
    cwd: folder,
    env: { ...process.env, SUPABASE_TELEMETRY_DISABLED: "1", DO_NOT_TRACK: "1", NO_COLOR: "1", ...environment },
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  const end = () => child.pid && process.kill(-child.pid, "SIGKILL");
  const limit = setTimeout(end, longestRun);
  process.once("exit", end);
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    return { code, output };
  } finally {
    clearTimeout(limit);
    process.off("exit", end);
    rmSync(temporary, { recursive: true, force: true });
  }
}
