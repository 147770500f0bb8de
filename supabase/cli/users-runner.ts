import { cleanText, networkReason } from "./command-line.ts";

/** The body of a call; the function has defaults for what is absent. */
export interface RequestFields {
  org_id?: string;
  on_conflict?: "keep" | "overwrite";
  concurrency?: number;
  max_seconds?: number;
  dry_run?: boolean;
  mode?: "update" | "revert";
  /** The run that mode "revert" takes back. */
  run_id?: string;
  /** Have the stream tell each problem once the run is done. */
  report?: boolean;
}

export interface Problem {
  user_id: string;
  outcome: string;
  reason: string;
}

export interface Progress {
  done: number;
  total: number;
  failed: number;
  usersPerSecond: number;
  /** null while nobody can tell. */
  etaSeconds: number | null;
}

/** What the function says at the end of a call. */
export interface Finished {
  runId: string;
  done: boolean;
  remaining: number;
  updated: number;
  conflicts: number;
  unreachable: number;
  failed: number;
  deleted: number;
  users: number;
  usersWithoutOrg: number;
  /** The first of them. */
  problems: Problem[];
  retryInSeconds: number;
}

export interface Preview {
  wouldUpdate: number;
  conflicts: number;
  unreachable: number;
  users: number;
  usersWithoutOrg: number;
}

export type RunEnd =
  | { kind: "done"; finished: Finished; problems: Problem[] }
  | { kind: "preview"; preview: Preview }
  /** The function or the gateway says no, and calling again would not change that. */
  | { kind: "refused"; message: string }
  | { kind: "gave_up"; message: string }
  | { kind: "interrupted" };

export interface Clock {
  /** Ends early, without an error, when the signal is aborted. */
  sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** Acts after a while, unless what it returns is called before. */
  after(milliseconds: number, action: () => void): () => void;
}

export interface RunnerPorts {
  fetch(url: string, init: RequestInit): Promise<Response>;
  clock: Clock;
  display: {
    started(runId: string, progress: Progress): void;
    progress(progress: Progress): void;
    pausing(reason: string, milliseconds: number): void;
  };
}

export interface RunnerRequest {
  /** The project's address, without a path. */
  url: string;
  key: string;
  fields: RequestFields;
  /** Ends the run: the request is closed, and the function stops by itself. */
  signal: AbortSignal;
}

const functionPath = "/functions/v1/update-user-org-metadata";
const firstPause = 1000;
const longestPause = 30_000;
/** Calls in a row without progress before it gives up: two and a half minutes, longer than one call may last. */
const mostVainCalls = 10;
/** The gateway itself answers 504 after 150 s, so an answer that takes longer will not come. */
const answerLimit = 160_000;
/** The stream tells of itself every second. */
const silenceLimit = 30_000;

/** Errors that the same call meets again, whatever the status. */
const lastingErrors = ["auth_server_refused", "not_migrated"];
/** Of the statuses below 500, those that pass; 409 does while another run is in progress. */
const passingStatuses = [408, 425, 429];

/** How far the run is, over all calls. */
interface Position {
  runId: string;
  done: number;
  total: number;
  /** Whether the present call has come further than the calls before. */
  moved: boolean;
}

type CallEnd =
  | { kind: "finished"; finished: Finished; problems: Problem[] }
  /** Worth another call. */
  | { kind: "failed"; reason: string }
  | Extract<RunEnd, { kind: "preview" | "refused" }>;

/** The connection did not hold until the answer was there. */
class ConnectionError extends Error {}

/** Calls the function until the run is done. What goes wrong on the way is in what it returns; only bugs throw. */
export async function runUsers(request: RunnerRequest, ports: RunnerPorts): Promise<RunEnd> {
  const position: Position = { runId: "", done: 0, total: 0, moved: false };
  let vainCalls = 0;
  while (!request.signal.aborted) {
    position.moved = false;
    const end = await callFunction(request, ports, position);
    if (end.kind === "preview" || end.kind === "refused") return end;
    if (end.kind === "finished" && end.finished.done) return { ...end, kind: "done" };
    if (request.signal.aborted) break;

    vainCalls = position.moved ? 0 : vainCalls + 1;
    const reason = end.kind === "failed"
      ? end.reason
      : position.moved
      ? "the function asks for a pause"
      : "the function has updated nobody";
    if (vainCalls === mostVainCalls) {
      return { kind: "gave_up", message: `Cannot go on: ${mostVainCalls} calls in a row came no further: ${reason}` };
    }
    const pause = Math.max(
      end.kind === "finished" ? end.finished.retryInSeconds * 1000 : firstPause,
      vainCalls === 0 ? 0 : Math.min(firstPause * 2 ** (vainCalls - 1), longestPause),
    );
    if (pause === 0) continue;
    ports.display.pausing(reason, pause);
    await ports.clock.sleep(pause, request.signal);
  }
  return { kind: "interrupted" };
}

/** One call to the function, from the request to the end of its answer. */
async function callFunction(request: RunnerRequest, ports: RunnerPorts, position: Position): Promise<CallEnd> {
  const call = new AbortController();
  const close = () => call.abort();
  request.signal.addEventListener("abort", close, { once: true });
  let silent = "";
  const limitSilence = (milliseconds: number) =>
    ports.clock.after(milliseconds, () => {
      silent = `no word from the function for ${milliseconds / 1000} s`;
      close();
    });
  let endLimit = limitSilence(answerLimit);
  try {
    const response = await connected(ports.fetch(`${request.url}${functionPath}`, {
      method: "POST",
      headers: { apikey: request.key, accept: "application/x-ndjson", "content-type": "application/json" },
      body: JSON.stringify(request.fields),
      // A redirect would take the key to another address.
      redirect: "manual",
      signal: call.signal,
    }));
    if (response.status !== 200) return readFailure(response.status, await connected(response.text()), request);
    const type = response.headers.get("content-type") ?? "";
    if (!type.startsWith("application/x-ndjson")) {
      const preview = request.fields.dry_run ? readPreview(parseObject(await connected(response.text()))) : undefined;
      return preview ? { kind: "preview", preview } : unreadable(request);
    }
    return await followStream(response, request, ports, position, () => {
      endLimit();
      endLimit = limitSilence(silenceLimit);
    });
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    return { kind: "failed", reason: silent || error.message };
  } finally {
    endLimit();
    request.signal.removeEventListener("abort", close);
  }
}

/** Makes of whatever a request or its body fails with an error that can be told from a bug. */
async function connected<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw new ConnectionError(`the connection failed: ${networkReason(error)}`);
  }
}

async function followStream(
  response: Response,
  request: RunnerRequest,
  { display }: RunnerPorts,
  position: Position,
  alive: () => void,
): Promise<CallEnd> {
  const problems: Problem[] = [];
  for await (const line of readLines(response, alive)) {
    const fields = parseObject(line);
    switch (fields["event"]) {
      case "started": {
        const progress = readProgress(fields);
        const runId = String(fields["run_id"]);
        if (runId !== position.runId) Object.assign(position, { runId, done: progress.done });
        advance(position, progress.done, progress.total);
        display.started(runId, progress);
        break;
      }
      case "progress": {
        const progress = readProgress(fields);
        advance(position, progress.done, progress.total);
        display.progress(progress);
        break;
      }
      case "problem":
        problems.push(readProblem(fields));
        break;
      case "finished": {
        const finished = readFinished(fields);
        if (!finished) return unreadable(request);
        advance(position, position.total - finished.remaining, position.total);
        return { kind: "finished", finished, problems };
      }
      case "error":
        return judge(readError(fields), request, true);
    }
  }
  throw new ConnectionError("the answer was cut off");
}

/** The lines of a stream as they come; one that was cut off is left out. */
async function* readLines(response: Response, alive: () => void): AsyncGenerator<string> {
  const chunks = (response.body ?? new Blob([]).stream())[Symbol.asyncIterator]();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await connected(chunks.next());
      if (done) return;
      alive();
      const lines = (rest + decoder.decode(value as Uint8Array, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } finally {
    await chunks.return?.().catch(() => {});
  }
}

function advance(position: Position, done: number, total: number): void {
  position.total = total;
  if (done <= position.done) return;
  position.done = done;
  position.moved = true;
}

interface FunctionError {
  code: string;
  message: string;
}

function readFailure(status: number, body: string, request: RunnerRequest): CallEnd {
  const fields = parseObject(body);
  const error = readError(fields);
  if (error.message === "") {
    const said = String(fields["message"] ?? fields["msg"] ?? body).slice(0, 200).trim();
    const hint = status === 404 ? " (is the function deployed?)" : "";
    error.message = `${request.url} answered ${status}${said === "" ? "" : `: ${said}`}${hint}`;
  }
  const busy = status === 409 && error.code === "run_in_progress";
  return judge(error, request, busy || status >= 500 || passingStatuses.includes(status));
}

function judge({ code, message }: FunctionError, { key }: RunnerRequest, passes: boolean): CallEnd {
  const text = cleanText(message, [key]);
  return passes && !lastingErrors.includes(code)
    ? { kind: "failed", reason: text }
    : { kind: "refused", message: text };
}

function unreadable(request: RunnerRequest): CallEnd {
  const message =
    `Cannot read the answer of ${request.url}${functionPath}: not what this version says; deploy the function again`;
  return { kind: "refused", message };
}

type Fields = Record<string, unknown>;

/** The object that a text holds; none: an empty one. */
function parseObject(text: string): Fields {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Fields : {};
  } catch {
    return {};
  }
}

function readNumber(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function readProgress(fields: Fields): Progress {
  const eta = fields["eta_seconds"];
  return {
    done: readNumber(fields["done"]),
    total: readNumber(fields["total"]),
    failed: readNumber(fields["failed"]),
    usersPerSecond: readNumber(fields["users_per_second"]),
    etaSeconds: typeof eta === "number" ? eta : null,
  };
}

function readProblem({ user_id, outcome, reason }: Fields): Problem {
  return { user_id: String(user_id), outcome: String(outcome), reason: String(reason ?? "") };
}

function readError({ error }: Fields): FunctionError {
  const { code, message } = typeof error === "object" && error !== null ? error as Fields : {};
  return { code: String(code ?? ""), message: String(message ?? "") };
}

const counts = ["remaining", "updated", "conflicts", "unreachable", "failed", "deleted", "users", "users_without_org"];

/** undefined when a count is missing: it must not pass for zero. */
function readFinished(fields: Fields): Finished | undefined {
  if (typeof fields["done"] !== "boolean" || counts.some((name) => typeof fields[name] !== "number")) return undefined;
  const problems: unknown[] = Array.isArray(fields["problems"]) ? fields["problems"] : [];
  return {
    runId: String(fields["run_id"]),
    done: fields["done"],
    remaining: readNumber(fields["remaining"]),
    updated: readNumber(fields["updated"]),
    conflicts: readNumber(fields["conflicts"]),
    unreachable: readNumber(fields["unreachable"]),
    failed: readNumber(fields["failed"]),
    deleted: readNumber(fields["deleted"]),
    users: readNumber(fields["users"]),
    usersWithoutOrg: readNumber(fields["users_without_org"]),
    problems: problems.map((problem) => readProblem(problem as Fields)),
    retryInSeconds: readNumber(fields["retry_in_seconds"]),
  };
}

function readPreview(fields: Fields): Preview | undefined {
  const names = ["would_update", "conflicts", "unreachable", "users", "users_without_org"];
  if (fields["dry_run"] !== true || names.some((name) => typeof fields[name] !== "number")) return undefined;
  return {
    wouldUpdate: readNumber(fields["would_update"]),
    conflicts: readNumber(fields["conflicts"]),
    unreachable: readNumber(fields["unreachable"]),
    users: readNumber(fields["users"]),
    usersWithoutOrg: readNumber(fields["users_without_org"]),
  };
}
