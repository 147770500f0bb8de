/**
 * The stack's one HTTP address, as the platform's gateway has it: /auth/v1 is the Auth server's stand-in, /functions/v1/<name>
 * goes to the running function. A known apikey is swapped for the JWT that the Auth server understands.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import type { AuthServer } from "./auth-server.ts";
import type { ApiKeys } from "./keys.ts";

export interface ApiServer {
  url: string;
  /** Where /functions/v1/<name> goes; a name that is not here answers 404. */
  functions: Map<string, string>;
  close(): Promise<void>;
}

/** Starts the gateway on 127.0.0.1. Throws with a clear message when the port is taken. */
export async function startApiServer(options: { port: number; auth: AuthServer; keys: ApiKeys }): Promise<ApiServer> {
  const { port, auth, keys } = options;
  const functions = new Map<string, string>();
  const server = createServer((request, response) => {
    handle(request, response).catch((error: Error) => {
      if (response.headersSent) response.destroy(error);
      else response.writeHead(502, { "content-type": "text/plain" }).end(`${error.message}\n`);
    });
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", `http://127.0.0.1:${port}`);
    const [, service, version, name] = url.pathname.split("/");
    const headers = new Headers();
    for (const [header, value] of Object.entries(request.headers)) {
      if (typeof value === "string") headers.set(header, value);
    }
    if (version === "v1" && service === "auth") {
      swapKey(headers, keys);
      url.pathname = url.pathname.slice("/auth/v1".length);
      const body = await readAll(request);
      const reply = await auth.answer({ method: request.method ?? "GET", url, headers, body });
      if (!reply) {
        request.socket.destroy();
        return;
      }
      const { status, headers: replyHeaders, body: answer = "", trickleMs } = reply;
      if (trickleMs === undefined) {
        response.writeHead(status, { ...replyHeaders, "content-length": Buffer.byteLength(answer) }).end(answer);
        return;
      }
      response.writeHead(status, replyHeaders);
      trickle(response, answer, trickleMs);
      return;
    }
    const target = version === "v1" && service === "functions" ? functions.get(name ?? "") : undefined;
    if (!target) {
      response.writeHead(404, { "content-type": "application/json" }).end('{"message":"no such route"}');
      return;
    }
    await forward(request, response, headers, `${target}${url.pathname}${url.search}`);
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const taken =
        `Cannot start the API on 127.0.0.1:${port}: the port is taken. Stop what uses it, or change [api].port in supabase/config.toml.`;
      reject(error.code === "EADDRINUSE" ? new Error(taken) : error);
    });
    server.listen(port, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${port}`,
    functions,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await auth.close();
    },
  };
}

function swapKey(headers: Headers, keys: ApiKeys): void {
  const token = keys.tokens.get(headers.get("apikey") ?? "");
  const sent = headers.get("authorization") ?? "";
  if (token && (sent === "" || sent.startsWith("Bearer sb_"))) headers.set("authorization", `Bearer ${token}`);
}

/** Sends the headers at once and the body byte by byte, then blanks, until the client has had enough. */
function trickle(response: ServerResponse, body: string, milliseconds: number): void {
  const bytes = Buffer.from(body).values();
  response.flushHeaders();
  const timer = setInterval(() => response.write(Buffer.of(bytes.next().value ?? 0x20)), milliseconds);
  response.once("close", () => clearInterval(timer));
}

async function readAll(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

async function forward(
  request: IncomingMessage,
  response: ServerResponse,
  headers: Headers,
  url: string,
): Promise<void> {
  const stop = new AbortController();
  response.once("close", () => stop.abort());
  for (const name of ["connection", "host", "content-length", "transfer-encoding", "expect"]) headers.delete(name);
  const method = request.method ?? "GET";
  const reply = await fetch(url, {
    method,
    headers,
    signal: stop.signal,
    ...(method === "GET" || method === "HEAD" ? {} : { body: await readAll(request) }),
  });
  // The body arrives decoded.
  const { "content-encoding": _, "content-length": __, ...kept } = Object.fromEntries(reply.headers);
  response.writeHead(reply.status, kept);
  if (reply.body) await pipeline(Readable.fromWeb(reply.body as ReadableStream), response);
  else response.end();
}
