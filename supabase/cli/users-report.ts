import { closeSync, existsSync, openSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { UsageError } from "./command-line.ts";
import type { Problem } from "./users-runner.ts";

/** A report that has been begun: its file is where it will be, under another name. */
export interface Report {
  finish(text: string): void;
  discard(): void;
}

/** Begins the file before there is anything to write, so that a run does not end with nowhere to put it. */
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

/** CSV as RFC 4180 has it. A cell that a spreadsheet would take for a formula gets an apostrophe in front. */
export function formatReport(problems: Problem[]): string {
  const cell = (text: string) => {
    const inert = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
  };
  return ["user_id,outcome,reason"]
    .concat(problems.map(({ user_id, outcome, reason }) => [user_id, outcome, reason].map(cell).join(",")))
    .map((line) => `${line}\r\n`)
    .join("");
}
