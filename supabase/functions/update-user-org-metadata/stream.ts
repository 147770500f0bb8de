import { answer, toFailure, toSummaryAnswer } from "./answer.ts";
import { toErrorAnswer, toRequestError } from "./errors.ts";
import type { JobRequest, JobResult, Observer } from "./job.ts";
import type { Log } from "./log.ts";
import type { Progress } from "./progress.ts";
import type { ProgressEvent, StreamEvent, StreamType } from "./protocol.ts";

export interface StreamPorts {
  updateUsers(request: JobRequest, observer: Observer): Promise<JobResult>;
  /** Milliseconds since some fixed point. */
  now(): number;
  log: Log;
}

const ndjson: StreamType = "application/x-ndjson";
/** Milliseconds between progress events: the caller is promised one per second. */
const progressInterval = 900;

/** True if the caller asks for a stream. */
export function wantsStream(request: Request): boolean {
  return request.headers.get("accept")?.includes(ndjson) ?? false;
}

/** Answers with the events of the run as they come. A run that does not begin is answered in one piece. */
export async function stream(job: JobRequest, { updateUsers, now, log }: StreamPorts): Promise<Response> {
  const events = openEvents();
  let begin: (progress: Progress) => void = () => {};
  const begun = new Promise<Progress>((resolve) => (begin = resolve));
  const running = updateUsers(job, {
    signal: events.closed,
    onStart: (progress) => {
      const { runId, done, total, failed } = progress;
      events.send({ event: "started", run_id: runId, done, total, failed });
      begin(progress);
    },
    onProblem: (problem) => events.send({ event: "problem", ...problem }),
  });
  const first = await Promise.race([begun, running]);
  if ("kind" in first) return answer(first);

  const ticker = setInterval(() => events.send(toProgressEvent(first, now())), progressInterval);
  const sendTheEnd = async () => {
    try {
      const result = await running;
      events.send(toProgressEvent(first, now()));
      events.send(toLastEvent(result));
    } catch (error) {
      events.send({ event: "error", ...toErrorAnswer(toRequestError(error, log)) });
    } finally {
      clearInterval(ticker);
      events.end();
    }
  };
  void sendTheEnd();
  return new Response(events.body, { headers: { "content-type": ndjson, "cache-control": "no-store" } });
}

interface Events {
  body: ReadableStream<Uint8Array>;
  /** Aborted when the caller has closed the connection; nothing is sent from then on. */
  closed: AbortSignal;
  send(event: StreamEvent): void;
  end(): void;
}

function openEvents(): Events {
  const closed = new AbortController();
  const encoder = new TextEncoder();
  let controller: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({
    start: (opened) => {
      controller = opened;
    },
    cancel: () => closed.abort(),
  });
  return {
    body,
    closed: closed.signal,
    send: (event) => {
      if (!closed.signal.aborted) controller.enqueue(encoder.encode(`${JSON.stringify(event)}\n`));
    },
    end: () => {
      if (!closed.signal.aborted) controller.close();
    },
  };
}

function toProgressEvent({ done, total, failed, doneNow, startedAt }: Progress, now: number): ProgressEvent {
  const perSecond = doneNow / (Math.max(now - startedAt, 1) / 1000);
  return {
    event: "progress",
    done,
    total,
    failed,
    users_per_second: Math.round(perSecond * 10) / 10,
    eta_seconds: perSecond > 0 ? Math.ceil((total - done) / perSecond) : null,
  };
}

function toLastEvent(result: JobResult): StreamEvent {
  switch (result.kind) {
    case "summary":
      return { event: "finished", ...toSummaryAnswer(result) };
    case "preview":
      throw new TypeError("a dry run does not begin a run");
    default:
      return { event: "error", ...toErrorAnswer(toFailure(result)) };
  }
}
