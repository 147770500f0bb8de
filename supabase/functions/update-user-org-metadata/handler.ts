import { verifyCredentials } from "@supabase/server/core";
import { readBody } from "./body.ts";
import type { Config } from "./config.ts";
import type { JobRequest, JobResult, Observer, Progress } from "./job.ts";
import type { Log } from "./log.ts";

export interface HandlerPorts {
  config: Pick<Config, "supabaseUrl" | "acceptedKeys">;
  updateUsers(request: JobRequest, observer: Observer): Promise<JobResult>;
  /** Milliseconds since some fixed point. */
  now(): number;
  log: Log;
}

/** The largest body that is read, in bytes; a request needs a hundred. */
const maxBodyBytes = 16_384;

class RequestError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** The media type of a stream of JSON objects, one a line. */
const ndjson = "application/x-ndjson";

/**
 * The function over HTTP: POST, a secret key as `apikey`, a JSON object or nothing as body; answers with the summary of the
 * run, or with { error: { code, message } }. To `Accept: application/x-ndjson` it tells how far it is, at least once a second;
 * when that connection is closed, it stops. No CORS headers: it is not for browsers.
 */
export function createHandler(ports: HandlerPorts): (request: Request) => Promise<Response> {
  return async (request) => {
    try {
      if (request.method !== "POST") {
        throw new RequestError(405, "method_not_allowed", `Cannot ${request.method}: the function takes POST`);
      }
      await authorize(request, ports.config);
      const job = parseJobRequest(await readText(request));
      if (request.headers.get("accept")?.includes(ndjson)) return await stream(job, ports);
      const watched = { signal: new AbortController().signal, onStart: () => {}, onProblem: () => {} };
      return respond(await ports.updateUsers(job, watched));
    } catch (error) {
      return failure(describe(error, ports.log));
    }
  };
}

async function authorize(request: Request, config: HandlerPorts["config"]): Promise<void> {
  const { error } = await verifyCredentials(
    { token: null, apikey: request.headers.get("apikey") },
    {
      auth: "secret:*",
      env: { url: config.supabaseUrl, publishableKeys: {}, secretKeys: config.acceptedKeys, jwks: null },
    },
  );
  if (error) {
    throw new RequestError(401, "unauthorized", "Cannot run without a secret key of this project in the apikey header");
  }
}

async function readText(request: Request): Promise<string> {
  const announced = Number(request.headers.get("content-length") ?? 0);
  const text = announced > maxBodyBytes ? null : await readBody(request.body, maxBodyBytes);
  if (text === null) {
    throw new RequestError(413, "body_too_large", `Cannot read the body: it has more than ${maxBodyBytes} bytes`);
  }
  return text;
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Reads the request's fields; absent ones get their defaults. Throws what names the field, the value and the rule. */
export function parseJobRequest(body: string): JobRequest {
  let fields: unknown = {};
  if (body.trim() !== "") {
    try {
      fields = JSON.parse(body);
    } catch (error) {
      throw new RequestError(400, "invalid_json", `Cannot parse the body: ${(error as Error).message}`);
    }
  }
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new RequestError(400, "invalid_body", `Cannot use the body ${shorten(fields)}: not a JSON object`);
  }
  const {
    mode,
    run_id,
    org_id,
    on_conflict,
    page_size,
    concurrency,
    max_seconds,
    max_users,
    dry_run,
    report,
    ...unknown
  } = fields as Record<string, unknown>;
  const [name] = Object.keys(unknown);
  if (name !== undefined) {
    throw new RequestError(
      400,
      "unknown_field",
      `Cannot use the field ${
        shorten(name)
      }: the fields are mode, run_id, org_id, on_conflict, page_size, concurrency, max_seconds, max_users, dry_run, report`,
    );
  }
  const invalid = (field: string, value: unknown, rule: string) =>
    new RequestError(400, "invalid_field", `Cannot parse ${field} ${shorten(value)}: ${rule}`);
  const integer = (field: string, value: unknown, fallback: number, least: number, most: number) => {
    if (value === undefined) return fallback;
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
      throw invalid(field, value, `not a whole number from ${least} to ${most}`);
    }
    return value;
  };
  const boolean = (field: string, value: unknown) => {
    if (value !== undefined && typeof value !== "boolean") throw invalid(field, value, "neither true nor false");
    return value ?? false;
  };
  const isUuid = (value: unknown) => typeof value === "string" && uuid.test(value);
  if (mode !== undefined && mode !== "update" && mode !== "revert") {
    throw invalid("mode", mode, 'neither "update" nor "revert"');
  }
  const reverts = mode === "revert";
  if (reverts && !isUuid(run_id)) throw invalid("run_id", run_id ?? null, "not the UUID of the run to revert");
  if (!reverts && run_id !== undefined) throw invalid("run_id", run_id, 'only with the mode "revert"');
  if (reverts && org_id !== undefined) throw invalid("org_id", org_id, 'not with the mode "revert"');
  if (reverts && on_conflict !== undefined) throw invalid("on_conflict", on_conflict, 'not with the mode "revert"');
  if (org_id !== undefined && org_id !== null && !isUuid(org_id)) throw invalid("org_id", org_id, "not a UUID");
  if (on_conflict !== undefined && on_conflict !== "keep" && on_conflict !== "overwrite") {
    throw invalid("on_conflict", on_conflict, 'neither "keep" nor "overwrite"');
  }
  return {
    revertedRunId: reverts ? run_id as string : null,
    orgId: (org_id ?? null) as string | null,
    onConflict: on_conflict ?? "keep",
    pageSize: integer("page_size", page_size, 500, 1, 1000),
    concurrency: integer("concurrency", concurrency, 5, 1, 20),
    maxSeconds: integer("max_seconds", max_seconds, 60, 1, 130),
    maxUsers: integer("max_users", max_users, 5000, 1, 1_000_000),
    dryRun: boolean("dry_run", dry_run),
    report: boolean("report", report),
  };
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

/** Answers with the events of the run as they come; what ends it before it has begun is an answer of its own. */
async function stream(job: JobRequest, { updateUsers, now, log }: HandlerPorts): Promise<Response> {
  const stop = new AbortController();
  const encoder = new TextEncoder();
  let controller: ReadableStreamDefaultController<Uint8Array>;
  const events = new ReadableStream<Uint8Array>({
    start: (opened) => {
      controller = opened;
    },
    cancel: () => stop.abort(),
  });
  const send = (event: unknown) => {
    if (!stop.signal.aborted) controller.enqueue(encoder.encode(`${JSON.stringify(event)}\n`));
  };

  let begin: (progress: Progress) => void = () => {};
  const begun = new Promise<Progress>((resolve) => (begin = resolve));
  const running = updateUsers(job, {
    signal: stop.signal,
    onStart: (progress) => {
      const { runId, done, total } = progress;
      send({ event: "started", run_id: runId, done, total });
      begin(progress);
    },
    onProblem: (problem) => send({ event: "problem", ...problem }),
  });
  const first = await Promise.race([begun, running]);
  if ("kind" in first) return respond(first);

  const ticker = setInterval(() => send(progressEvent(first, now())), 900);
  const tellTheEnd = async () => {
    try {
      const result = await running;
      send(progressEvent(first, now()));
      send(lastEvent(result));
    } catch (error) {
      const { code, message } = describe(error, log);
      send({ event: "error", error: { code, message } });
    } finally {
      clearInterval(ticker);
      if (!stop.signal.aborted) controller.close();
    }
  };
  void tellTheEnd();
  return new Response(events, { headers: { "content-type": ndjson, "cache-control": "no-store" } });
}

function progressEvent({ done, total, failed, doneNow, startedAt }: Progress, now: number) {
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

function lastEvent(result: JobResult) {
  if (result.kind === "summary") return { event: "finished", ...describeSummary(result) };
  const { code, message } = describeFailure(result);
  return { event: "error", error: { code, message } };
}

function describeSummary({ summary, pages, seconds, retryInSeconds }: JobResult & { kind: "summary" }) {
  return { ...summary, pages, seconds, retry_in_seconds: retryInSeconds };
}

function respond(result: JobResult): Response {
  switch (result.kind) {
    case "summary":
      return Response.json(describeSummary(result));
    case "preview":
      return Response.json({ dry_run: true, ...result.preview });
    default:
      return failure(describeFailure(result));
  }
}

function describeFailure(result: JobResult): RequestError {
  switch (result.kind) {
    case "unknown_organization":
      return new RequestError(
        422,
        "unknown_organization",
        `Cannot use org_id "${result.orgId}": there is no such organization`,
      );
    case "unknown_run":
      return new RequestError(422, "unknown_run", `Cannot revert the run "${result.runId}": there is no such run`);
    case "busy":
      return new RequestError(
        409,
        "run_in_progress",
        "Cannot start: another run is in progress; call again when it has ended",
      );
    case "refused":
      return new RequestError(
        502,
        "auth_server_refused",
        `Cannot update users: the Auth server refuses the function's key: ${result.message}`,
      );
    default:
      throw new TypeError(`${result.kind} is no failure`);
  }
}

/** What the caller is told of an error; of one that nobody expected, the log gets the rest. */
function describe(error: unknown, log: Log): RequestError {
  if (error instanceof RequestError) return error;
  const { name } = error as { name?: string };
  const code = String((error as { code?: unknown }).code ?? "");
  log("error", "request_failed", { name, code, message: error instanceof Error ? error.message : String(error) });
  if (code === "3F000" || code === "42P01" || code === "42883") {
    return new RequestError(
      503,
      "not_migrated",
      "Cannot find the schema tenancy in this database: push the migrations first",
    );
  }
  if (/^(CONNECT|ECONN|08|57P)/.test(code)) {
    return new RequestError(
      503,
      "database_unavailable",
      `Cannot reach the database (${code}); nothing is lost, call again`,
    );
  }
  return new RequestError(
    500,
    "internal_error",
    "Cannot finish; the function's log has the reason. Nothing is lost, call again",
  );
}

function failure({ status, code, message }: RequestError): Response {
  const headers: Record<string, string> = status === 405 ? { allow: "POST" } : {};
  return Response.json({ error: { code, message } }, { status, headers });
}
