import { verifyCredentials } from "@supabase/server/core";
import type { Config } from "./config.ts";
import type { JobRequest, JobResult } from "./job.ts";
import type { Log } from "./log.ts";

export interface HandlerPorts {
  config: Pick<Config, "supabaseUrl" | "acceptedKeys">;
  updateUsers(request: JobRequest): Promise<JobResult>;
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

/**
 * The function over HTTP: POST, a secret key as `apikey`, a JSON object or nothing as body; answers with the summary of the
 * run, or with { error: { code, message } }. No CORS headers: it is not for browsers.
 */
export function createHandler({ config, updateUsers, log }: HandlerPorts): (request: Request) => Promise<Response> {
  return async (request) => {
    try {
      if (request.method !== "POST") {
        throw new RequestError(405, "method_not_allowed", `Cannot ${request.method}: the function takes POST`);
      }
      await authorize(request, config);
      return respond(await updateUsers(parseJobRequest(await readBody(request))));
    } catch (error) {
      if (error instanceof RequestError) {
        return failure(error.status, error.code, error.message, error.status === 405 ? { allow: "POST" } : {});
      }
      return unexpected(error, log);
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

async function readBody(request: Request): Promise<string> {
  const tooLarge = new RequestError(
    413,
    "body_too_large",
    `Cannot read the body: it has more than ${maxBodyBytes} bytes`,
  );
  if (Number(request.headers.get("content-length") ?? 0) > maxBodyBytes) throw tooLarge;
  let bytes = new Uint8Array();
  for await (const chunk of request.body ?? []) {
    if (bytes.length + chunk.length > maxBodyBytes) throw tooLarge;
    const joined = new Uint8Array(bytes.length + chunk.length);
    joined.set(bytes);
    joined.set(chunk, bytes.length);
    bytes = joined;
  }
  return new TextDecoder().decode(bytes);
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
  const { org_id, on_conflict, page_size, concurrency, max_seconds, dry_run, ...unknown } = fields as Record<
    string,
    unknown
  >;
  const [name] = Object.keys(unknown);
  if (name !== undefined) {
    throw new RequestError(
      400,
      "unknown_field",
      `Cannot use the field ${
        shorten(name)
      }: the fields are org_id, on_conflict, page_size, concurrency, max_seconds, dry_run`,
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
  if (org_id !== undefined && org_id !== null && !(typeof org_id === "string" && uuid.test(org_id))) {
    throw invalid("org_id", org_id, "not a UUID");
  }
  if (on_conflict !== undefined && on_conflict !== "keep" && on_conflict !== "overwrite") {
    throw invalid("on_conflict", on_conflict, 'neither "keep" nor "overwrite"');
  }
  if (dry_run !== undefined && typeof dry_run !== "boolean") {
    throw invalid("dry_run", dry_run, "neither true nor false");
  }
  return {
    orgId: (org_id ?? null) as string | null,
    onConflict: on_conflict ?? "keep",
    pageSize: integer("page_size", page_size, 100, 1, 1000),
    concurrency: integer("concurrency", concurrency, 5, 1, 20),
    maxSeconds: integer("max_seconds", max_seconds, 60, 1, 140),
    dryRun: dry_run ?? false,
  };
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function respond(result: JobResult): Response {
  switch (result.kind) {
    case "summary":
      return Response.json({ ...result.summary, pages: result.pages, seconds: result.seconds });
    case "preview":
      return Response.json({ dry_run: true, ...result.preview });
    case "unknown_organization":
      return failure(
        422,
        "unknown_organization",
        `Cannot use org_id "${result.orgId}": there is no such organization`,
      );
    case "busy":
      return failure(409, "run_in_progress", "Cannot start: another run is in progress; call again when it has ended");
    case "refused":
      return failure(
        502,
        "auth_server_refused",
        `Cannot update users: the Auth server refuses the function's key: ${result.message}`,
      );
  }
}

function unexpected(error: unknown, log: Log): Response {
  const { name } = error as { name?: string };
  const code = String((error as { code?: unknown }).code ?? "");
  log("error", "request_failed", { name, code, message: error instanceof Error ? error.message : String(error) });
  if (code === "3F000" || code === "42P01" || code === "42883") {
    return failure(503, "not_migrated", "Cannot find the schema tenancy in this database: push the migrations first");
  }
  if (/^(CONNECT|ECONN|08|57P)/.test(code)) {
    return failure(503, "database_unavailable", `Cannot reach the database (${code}); nothing is lost, call again`);
  }
  return failure(
    500,
    "internal_error",
    "Cannot finish; the function's log has the reason. Nothing is lost, call again",
  );
}

function failure(status: number, code: string, message: string, headers: Record<string, string> = {}): Response {
  return Response.json({ error: { code, message } }, { status, headers });
}
