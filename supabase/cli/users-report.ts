import { closeSync, existsSync, openSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { UserProblem } from "../functions/update-user-org-metadata/users.ts";
import { UsageError } from "./command-line.ts";

/** A report that has been begun: in its folder, under a temporary name. */
export interface Report {
  finish(text: string): void;
  discard(): void;
}

/** Begins the file before the run, so that the run does not end with a report and no place for it. */
export function beginReport(file: string): Report {
  if (existsSync(file) && !statSync(file).isFile()) {
    throw new UsageError(`Cannot write --report ${JSON.stringify(file)}: not a file`);
  }
  const temporary = `${file}.${process.pid}.tmp`;
  let descriptor: number;
  try {
    descriptor = openSync(temporary, "w");
  } catch (error) {
    throw new UsageError(`Cannot write --report ${JSON.stringify(file)}: ${(error as Error).message}`);
  }
  let open = true;
  const close = () => {
    if (open) closeSync(descriptor);
    open = false;
  };
  return {
    finish: (text) => {
      writeFileSync(descriptor, text);
      close();
      renameSync(temporary, file);
    },
    discard: () => {
      close();
      rmSync(temporary, { force: true });
    },
  };
}

/** Formats the problems as CSV (RFC 4180). A cell that a spreadsheet would take for a formula starts with an apostrophe. */
export function formatReport(problems: UserProblem[]): string {
  const cell = (text: string) => {
    const inert = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
  };
  return ["user_id,outcome,reason"]
    .concat(problems.map(({ user_id, outcome, reason }) => [user_id, outcome, reason].map(cell).join(",")))
    .map((line) => `${line}\r\n`)
    .join("");
}
