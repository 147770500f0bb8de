import { fstatSync, ftruncateSync, readFileSync, writeSync } from "node:fs";
import { UsageError } from "./command-line.ts";
import { endUnread } from "./interruption.ts";

/** Standard output, once it is fit for a page. */
export interface PageOutput {
  write(text: string): void;
}

/**
 * How the lines begin that npm writes before what a script writes, and into the same file: the command with all that was given
 * to it, a connection string among it. undefined: it writes none.
 */
export function bannerOf(environment: Record<string, string | undefined>): string | undefined {
  const { npm_lifecycle_event: event, npm_lifecycle_script: script, npm_config_loglevel: level } = environment;
  if (event === undefined || script === undefined || level === "silent") return undefined;
  return `\n> ${environment["npm_package_name"]}@${environment["npm_package_version"]} ${event}\n> ${script}`;
}

/**
 * Makes standard output hold the page and nothing else: takes npm's lines out of a file that has nothing else in it, and refuses
 * what it cannot make right.
 */
export function preparePage(
  descriptor: number,
  { isTerminal, banner }: { isTerminal: boolean; banner: string | undefined },
): PageOutput {
  if (isTerminal) throw new UsageError("Cannot write a page to the terminal: add > report.html");
  const state = fstatSync(descriptor);
  if (!state.isFile()) {
    if (banner !== undefined) throw new UsageError(`Cannot write the page: ${silently}`);
    return { write: (text) => writeAll(descriptor, text, false) };
  }
  if (state.size > 0) {
    if (banner === undefined) {
      throw new UsageError("Cannot write the page: there is something in the file already; use > and not >>");
    }
    const written = readBack(descriptor);
    if (!written.startsWith(banner) || !written.endsWith("\n\n")) {
      throw new UsageError(`Cannot write the page: there is something in the file already; ${silently}`);
    }
    ftruncateSync(descriptor, 0);
  }
  return { write: (text) => writeAll(descriptor, text, true) };
}

const silently = "npm writes lines of its own before it, so use npm run --silent report … > report.html";

/** What is in the file that a descriptor writes to; nothing, where a system does not let it be read. */
function readBack(descriptor: number): string {
  try {
    return readFileSync(`/dev/fd/${descriptor}`, "utf8");
  } catch {
    return "";
  }
}

/** Writes a file from its start, wherever the descriptor stands, since npm has moved it. */
function writeAll(descriptor: number, text: string, isFile: boolean): void {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length;) {
    try {
      written += writeSync(descriptor, bytes, written, bytes.length - written, isFile ? written : null);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE") endUnread();
      // A pipe whose reader is slow.
      if (code !== "EAGAIN") throw error;
    }
  }
}
