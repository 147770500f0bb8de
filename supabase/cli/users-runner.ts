import type { SummaryAnswer } from "../functions/update-user-org-metadata/protocol.ts";
import type { UserProblem } from "../functions/update-user-org-metadata/users.ts";
import { type CallEnd, callFunction, type CallPorts, type CallRequest, type Position } from "./users-call.ts";

export type RunEnd =
  | { kind: "done"; summary: SummaryAnswer; problems: UserProblem[] }
  | Extract<CallEnd, { kind: "preview" | "refused" }>
  | { kind: "gave_up"; message: string }
  | { kind: "interrupted" };

export interface RunnerPorts extends CallPorts {
  /** Ends early, without an error, when the signal is aborted. */
  sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
  display: CallPorts["display"] & {
    pausing(reason: string, milliseconds: number): void;
  };
}

const firstPause = 1000;
const longestPause = 30_000;
/** After this many calls in a row without progress it gives up: two and a half minutes, longer than one call may last. */
const mostVainCalls = 10;

/** Calls the function until the run is done. The result says what went wrong on the way; only bugs throw. */
export async function runUsers(request: CallRequest, ports: RunnerPorts): Promise<RunEnd> {
  const position: Position = { runId: "", done: 0, total: 0, moved: false };
  let vainCalls = 0;
  while (!request.signal.aborted) {
    position.moved = false;
    const end = await callFunction(request, ports, position);
    if (end.kind === "preview" || end.kind === "refused") return end;
    if (end.kind === "finished" && end.summary.done) return { ...end, kind: "done" };
    if (request.signal.aborted) break;

    vainCalls = position.moved ? 0 : vainCalls + 1;
    const reason = explainPause(end, position);
    if (vainCalls === mostVainCalls) {
      return { kind: "gave_up", message: `Cannot go on: ${mostVainCalls} calls in a row came no further: ${reason}` };
    }
    const pause = Math.max(
      end.kind === "finished" ? end.summary.retry_in_seconds * 1000 : firstPause,
      vainCalls === 0 ? 0 : Math.min(firstPause * 2 ** (vainCalls - 1), longestPause),
    );
    if (pause === 0) continue;
    ports.display.pausing(reason, pause);
    await ports.sleep(pause, request.signal);
  }
  return { kind: "interrupted" };
}

function explainPause(end: Extract<CallEnd, { kind: "finished" | "failed" }>, { moved }: Position): string {
  if (end.kind === "failed") return end.reason;
  return moved ? "the function asks for a pause" : "the function has updated nobody";
}
