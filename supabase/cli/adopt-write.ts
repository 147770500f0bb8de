import { existsSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { UsageError } from "./command-line.ts";

/** A file as it is to be. */
export interface Change {
  /** Relative to the application's folder. */
  path: string;
  /** undefined: it is to be gone. */
  text: string | undefined;
}

/**
 * Makes all of the changes, or none: everything is written beside the application's files first, and moved at the end; if a move
 * fails, those before it are taken back. Throws an error with the file and the reason.
 */
export function writeChanges(folder: string, changes: Change[]): void {
  const undo: (() => void)[] = [];
  let at = "supabase";
  let stage: string | undefined;
  try {
    stage = mkdtempSync(join(folder, "supabase/.adopt-"));
    const staged = changes.map((change, number) => {
      at = change.path;
      const target = realTarget(join(folder, change.path));
      const fresh = join(stage as string, `${number}.new`);
      const mode = existsSync(target) ? { mode: statSync(target).mode } : {};
      if (change.text !== undefined) writeFileSync(fresh, change.text, mode);
      return { path: change.path, target, fresh: change.text === undefined ? undefined : fresh };
    });
    for (const [number, { path, target, fresh }] of staged.entries()) {
      at = path;
      const made = mkdirSync(dirname(target), { recursive: true });
      if (made !== undefined) undo.unshift(() => rmSync(made, { recursive: true, force: true }));
      const before = join(stage, `${number}.before`);
      if (existsSync(target)) {
        renameSync(target, before);
        undo.unshift(() => renameSync(before, target));
      }
      if (fresh === undefined) continue;
      renameSync(fresh, target);
      undo.unshift(() => rmSync(target, { force: true }));
    }
  } catch (error) {
    for (const take of undo) take();
    throw new UsageError(
      `Cannot write ${at} in ${JSON.stringify(folder)}, so nothing was changed: ${(error as Error).message}`,
    );
  } finally {
    if (stage !== undefined) rmSync(stage, { recursive: true, force: true });
  }
}

/** Where a link leads: it stays a link. */
const realTarget = (path: string): string => existsSync(path) ? realpathSync(path) : path;
