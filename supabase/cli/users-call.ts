import type {
  ErrorCode,
  PreviewAnswer,
  RequestBody,
  StreamEvent,
  StreamType,
  SummaryAnswer,
} from "../functions/update-user-org-metadata/protocol.ts";
import type { UserProblem } from "../functions/update-user-org-metadata/users.ts";
import { cleanText, networkReason } from "./command-line.ts";
import {
  type AnsweredError,
  parseObject,
  type Progress,
  readError,
  readPreview,
  readProblem,
  readProgress,
  readSummary,
} from "./users-answer.ts";

export interface CallRequest {
  /** The project's address, without a path. */
  url: string;
  key: string;
  fields: RequestBody;
  /** Ends the call: the request is closed, and the function stops on its own. */
  signal: AbortSignal;
}

export interface CallPorts {
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Calls the action after a while. The function that it returns cancels that. */
  after(milliseconds: number, action: () => void): () => void;
  display: {
    started(runId: string, progress: Progress): void;
    progress(progress: Progress): void;
  };
}

/** How far a run is, over all calls. */
export interface Position {
  runId: string;
  /** Users that the run has dealt with and not failed to update: an Auth server that refuses everybody gets it no further. */
  done: number;
  total: number;
  /** True if the present call has come further than the calls before. */
  moved: boolean;
}

export type CallEnd =
  | { kind: "finished"; summary: SummaryAnswer; problems: UserProblem[] }
  | { kind: "preview"; preview: PreviewAnswer }
  /** Another call may succeed. */
  | { kind: "failed"; reason: string }
  /** The function or the gateway says no, and another call would not change that. */
  | { kind: "refused"; message: string };

const functionPath = "/functions/v1/update-user-org-metadata";
const ndjson: StreamType = "application/x-ndjson";
/** The gateway itself answers 504 after 150 s, so an answer that takes longer will not come. */
const answerLimit = 160_000;
/** The stream has an event every second. */
const silenceLimit = 30_000;

/** Errors that another call would meet again, whatever the status. */
const lastingErrors: ErrorCode[] = ["auth_server_refused", "not_migrated"];
const busy: ErrorCode = "run_in_progress";
/** The statuses below 500 that pass; 409 passes while another run is in progress. */
const passingStatuses = [408, 425, 429];

/** The connection failed before the answer was complete. */
class ConnectionError extends Error {}

/** Calls the function once, from the request to the end of its answer. */
export async function callFunction(request: CallRequest, ports: CallPorts, position: Position): Promise<CallEnd> {
  const call = new AbortController();
  const close = () => call.abort();
  request.signal.addEventListener("abort", close, { once: true });
  let silent = "";
  const limitSilence = (milliseconds: number) =>
    ports.after(milliseconds, () => {
      silent = `no word from the function for ${milliseconds / 1000} s`;
      close();
    });
  let endLimit = limitSilence(answerLimit);
  try {
    const response = await send(request, ports, call.signal);
    if (response.status !== 200) return readFailure(response.status, await connected(response.text()), request);
    if (!(response.headers.get("content-type") ?? "").startsWith(ndjson)) {
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

async function send({ url, key, fields }: CallRequest, ports: CallPorts, signal: AbortSignal): Promise<Response> {
  return await connected(ports.fetch(`${url}${functionPath}`, {
    method: "POST",
    headers: { apikey: key, accept: ndjson, "content-type": "application/json" },
    body: JSON.stringify(fields),
    // A redirect would take the key to another address.
    redirect: "manual",
    signal,
  }));
}

/** Turns the failure of a request or of its body into an error that can be told from a bug. */
async function connected<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw new ConnectionError(`the connection failed: ${networkReason(error)}`);
  }
}

async function followStream(
  response: Response,
  request: CallRequest,
  { display }: CallPorts,
  position: Position,
  alive: () => void,
): Promise<CallEnd> {
  const problems: UserProblem[] = [];
  for await (const line of readLines(response, alive)) {
    const fields = parseObject(line);
    switch (fields["event"] as StreamEvent["event"]) {
      case "started": {
        const progress = readProgress(fields);
        const runId = String(fields["run_id"]);
        if (runId !== position.runId) Object.assign(position, { runId, done: progress.done - progress.failed });
        advance(position, progress);
        display.started(runId, progress);
        break;
      }
      case "progress": {
        const progress = readProgress(fields);
        advance(position, progress);
        display.progress(progress);
        break;
      }
      case "problem":
        problems.push(readProblem(fields));
        break;
      case "finished": {
        const summary = readSummary(fields);
        if (!summary) return unreadable(request);
        const { total } = position;
        advance(position, { done: total - summary.remaining, total, failed: summary.failed });
        return { kind: "finished", summary, problems };
      }
      case "error":
        return judge(readError(fields), request, true);
    }
  }
  throw new ConnectionError("the answer was cut off");
}

/** The lines of a stream as they come, without a last one that was cut off. */
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

function advance(position: Position, { done, total, failed }: Pick<Progress, "done" | "total" | "failed">): void {
  position.total = total;
  if (done - failed <= position.done) return;
  position.done = done - failed;
  position.moved = true;
}

function readFailure(status: number, body: string, request: CallRequest): CallEnd {
  const fields = parseObject(body);
  const error = readError(fields);
  if (error.message === "") {
    const said = String(fields["message"] ?? fields["msg"] ?? body).slice(0, 200).trim();
    const hint = status === 404 ? " (is the function deployed?)" : "";
    error.message = `${request.url} answered ${status}${said === "" ? "" : `: ${said}`}${hint}`;
  }
  const passes = status >= 500 || passingStatuses.includes(status) || (status === 409 && error.code === busy);
  return judge(error, request, passes);
}

/** Decides by an error if another call may succeed. */
function judge({ code, message }: AnsweredError, { key }: CallRequest, passes: boolean): CallEnd {
  const text = cleanText(message, [key]);
  return passes && !lastingErrors.some((lasting) => lasting === code)
    ? { kind: "failed", reason: text }
    : { kind: "refused", message: text };
}

function unreadable({ url }: CallRequest): CallEnd {
  const message =
    `Cannot read the answer of ${url}${functionPath}: it comes from another version; deploy the function again`;
  return { kind: "refused", message };
}
