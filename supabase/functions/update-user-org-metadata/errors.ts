import type { Log } from "./log.ts";
import type { ErrorAnswer, ErrorCode } from "./protocol.ts";

/** An error that the caller is told of as it is. */
export class RequestError extends Error {
  constructor(
    readonly status: number,
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

export function toErrorAnswer({ code, message }: RequestError): ErrorAnswer {
  return { error: { code, message } };
}

/** What the caller is told of any error. Nobody expected one that is no RequestError, so its details go to the log alone. */
export function toRequestError(error: unknown, log: Log): RequestError {
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
  // 53300: it has as many connections as it takes.
  if (/^(CONNECT|ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_|08|57P|53300)/.test(code)) {
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
