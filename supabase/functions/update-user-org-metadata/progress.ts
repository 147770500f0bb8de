import type { RunCounts } from "./users.ts";

/** How far a run is, over all its calls. */
export interface Progress {
  runId: string;
  /** Users that the run has dealt with. */
  done: number;
  total: number;
  /** Users among those done. */
  failed: number;
  /** Users that this call has dealt with. */
  doneNow: number;
  /** When this call began. */
  startedAt: number;
}

/** The progress at the start of a call. */
export function startProgress(runId: string, { done, failed, remaining }: RunCounts, startedAt: number): Progress {
  return { runId, done, total: done + remaining, failed, doneNow: 0, startedAt };
}

/** Adds users that have been dealt with, and how many of them failed. */
export function addDone(progress: Progress, count: number, failed: number): void {
  progress.done += count;
  progress.doneNow += count;
  progress.failed += failed;
  progress.total = Math.max(progress.total, progress.done);
}
