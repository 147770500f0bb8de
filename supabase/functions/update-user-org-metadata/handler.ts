import { answer, answerError } from "./answer.ts";
import { authorize } from "./authorize.ts";
import type { Config } from "./config.ts";
import { RequestError, toRequestError } from "./errors.ts";
import { readJobRequest } from "./job-request.ts";
import { stream, type StreamPorts, wantsStream } from "./stream.ts";

interface HandlerPorts extends StreamPorts {
  config: Pick<Config, "supabaseUrl" | "acceptedKeys">;
}

/**
 * The function over HTTP: POST, a secret key as `apikey`, a JSON object or nothing as body. It answers with the summary of the
 * run, or with { error: { code, message } }. With `Accept: application/x-ndjson` it streams its progress, at least one event per
 * second, and stops when that connection is closed. No CORS headers: it is not for browsers.
 */
export function createHandler(ports: HandlerPorts): (request: Request) => Promise<Response> {
  return async (request) => {
    try {
      if (request.method !== "POST") {
        throw new RequestError(405, "method_not_allowed", `Cannot ${request.method}: the function takes POST`);
      }
      await authorize(request, ports.config);
      const job = await readJobRequest(request);
      if (wantsStream(request)) return await stream(job, ports);
      const nobody = { signal: new AbortController().signal, onStart: () => {}, onProblem: () => {} };
      return answer(await ports.updateUsers(job, nobody));
    } catch (error) {
      return answerError(toRequestError(error, ports.log));
    }
  };
}
