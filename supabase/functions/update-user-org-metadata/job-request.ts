import { readBody } from "./body.ts";
import { RequestError } from "./errors.ts";
import type { JobRequest } from "./job.ts";
import type { RequestBody } from "./protocol.ts";

/** The largest body that is read, in bytes; a request needs a hundred. */
const maxBodyBytes = 16_384;

const fieldNames = [
  "mode",
  "run_id",
  "org_id",
  "on_conflict",
  "move_to_default",
  "anonymous",
  "page_size",
  "concurrency",
  "max_seconds",
  "max_users",
  "dry_run",
  "report",
] as const satisfies (keyof RequestBody)[];

type FieldName = (typeof fieldNames)[number];
type Fields = Partial<Record<FieldName, unknown>>;

/** Reads what a request asks for; absent fields get their defaults. Throws an error with the field, the value and the rule. */
export async function readJobRequest(request: Request): Promise<JobRequest> {
  const fields = parseFields(await readText(request));
  return {
    inSql: fields.mode === "sql",
    revertedRunId: readRevertedRun(fields),
    orgId: readOrganization(fields),
    onConflict: readOnConflict(fields),
    moveToDefault: readMoveToDefault(fields),
    anonymous: readAnonymous(fields),
    pageSize: readInteger(fields, "page_size", { fallback: 500, most: 1000 }),
    concurrency: readConcurrency(fields),
    maxSeconds: readInteger(fields, "max_seconds", { fallback: 60, most: 130 }),
    // The database does the work of the mode "sql", so that the worker's CPU time does not limit it.
    maxUsers: readInteger(fields, "max_users", { fallback: fields.mode === "sql" ? 1_000_000 : 2000, most: 1_000_000 }),
    dryRun: readBoolean(fields, "dry_run"),
    report: readBoolean(fields, "report"),
  };
}

async function readText(request: Request): Promise<string> {
  const announced = Number(request.headers.get("content-length") ?? 0);
  const text = announced > maxBodyBytes ? null : await readBody(request.body, maxBodyBytes);
  if (text === null) {
    throw new RequestError(413, "body_too_large", `Cannot read the body: it has more than ${maxBodyBytes} bytes`);
  }
  return text;
}

/** The fields of a JSON object; an empty body has none. */
function parseFields(body: string): Fields {
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
  const unknown = Object.keys(fields).find((name) => !(fieldNames as readonly string[]).includes(name));
  if (unknown !== undefined) {
    throw new RequestError(
      400,
      "unknown_field",
      `Cannot use the field ${shorten(unknown)}: the fields are ${fieldNames.join(", ")}`,
    );
  }
  return fields;
}

/** The run to revert; null: users are given their organization. */
function readRevertedRun({ mode, run_id, ...others }: Fields): string | null {
  if (mode !== undefined && mode !== "update" && mode !== "revert" && mode !== "sql") {
    throw invalid("mode", mode, 'neither "update", "revert" nor "sql"');
  }
  if (mode !== "revert" && run_id === undefined) return null;
  if (mode !== "revert" && mode !== "sql") throw invalid("run_id", run_id, 'only with the modes "revert" and "sql"');
  if (!isUuid(run_id)) throw invalid("run_id", run_id ?? null, "not the UUID of the run to revert");
  for (const name of ["org_id", "on_conflict", "move_to_default", "anonymous"] as const) {
    if (others[name] !== undefined) throw invalid(name, others[name], "not with a run to revert");
  }
  return run_id;
}

function readConcurrency(fields: Fields): number {
  if (fields.mode === "sql" && fields.concurrency !== undefined) {
    throw invalid("concurrency", fields.concurrency, 'not with the mode "sql", which sends no requests');
  }
  return readInteger(fields, "concurrency", { fallback: 5, most: 20 });
}

function readOrganization({ org_id = null }: Fields): string | null {
  if (org_id === null || isUuid(org_id)) return org_id;
  throw invalid("org_id", org_id, "not a UUID");
}

function readOnConflict({ on_conflict = "keep" }: Fields): JobRequest["onConflict"] {
  if (on_conflict === "keep" || on_conflict === "overwrite") return on_conflict;
  throw invalid("on_conflict", on_conflict, 'neither "keep" nor "overwrite"');
}

function readMoveToDefault(fields: Fields): boolean {
  const moves = readBoolean(fields, "move_to_default");
  if (moves && fields.on_conflict !== "overwrite") {
    throw invalid("move_to_default", moves, 'only with the on_conflict "overwrite"');
  }
  return moves;
}

function readAnonymous({ anonymous = "include" }: Fields): JobRequest["anonymous"] {
  if (anonymous === "include" || anonymous === "only" || anonymous === "exclude") return anonymous;
  throw invalid("anonymous", anonymous, 'neither "include", "only" nor "exclude"');
}

/** A whole number from 1 up to the most. */
function readInteger(fields: Fields, name: FieldName, { fallback, most }: { fallback: number; most: number }): number {
  const { [name]: value = fallback } = fields;
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw invalid(name, value, `not a whole number from 1 to ${most}`);
}

function readBoolean(fields: Fields, name: FieldName): boolean {
  const { [name]: value = false } = fields;
  if (typeof value === "boolean") return value;
  throw invalid(name, value, "neither true nor false");
}

function invalid(name: FieldName, value: unknown, rule: string): RequestError {
  return new RequestError(400, "invalid_field", `Cannot parse ${name} ${shorten(value)}: ${rule}`);
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

function isUuid(value: unknown): value is string {
  return typeof value === "string" && uuid.test(value);
}

/** As JSON, cut; what is nested too deeply to be written is "…". */
function shorten(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return "…";
  }
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
