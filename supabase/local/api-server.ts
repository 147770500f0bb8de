/**
 * The one HTTP address of the stack, with the paths of the platform's gateway: /auth/v1 is the stand-in for the Auth server,
 * /functions/v1/<name> the running function. A known apikey is replaced by the JWT that the Auth server understands.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import type { AuthReply } from "./auth-call.ts";
import type { AuthServer } from "./auth-server.ts";
import type { ApiKeys } from "./keys.ts";

export interface ApiServer {
  url: string;
  /** The address of each function by name; any other name is answered with 404. */
  functions: Map<string, string>;
  close(): Promise<void>;
}

/** Starts the gateway on 127.0.0.1. Throws a clear error if the port is taken. */
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
      const { method = "GET" } = request;
      reply(request, response, await auth.answer({ method, url, headers, body: await readAll(request) }));
      return;
    }
    const target = version === "v1" && service === "functions" ? functions.get(name ?? "") : undefined;
    if (!target) {
      response.writeHead(404, { "content-type": "application/json" }).end('{"message":"no such route"}');
      return;
    }
    await forward(request, response, headers, `${target}${url.pathname}${url.search}`);
  }

  await listen(server, port);
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

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const taken =
        `Cannot start the API on 127.0.0.1:${port}: the port is taken. Stop what uses it, or change [api].port in supabase/config.toml.`;
      reject(error.code === "EADDRINUSE" ? new Error(taken) : error);
    });
    server.listen(port, "127.0.0.1", resolve);
  });
}

/** Passes the Auth server's answer on; undefined: closes the connection instead. */
function reply(request: IncomingMessage, response: ServerResponse, answer: AuthReply | undefined): void {
  if (!answer) {
    request.socket.destroy();
    return;
  }
  const { status, headers, body = "", trickleMs } = answer;
  if (trickleMs === undefined) {
    response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
    return;
  }
  response.writeHead(status, headers);
  trickle(response, body, trickleMs);
}

function swapKey(headers: Headers, keys: ApiKeys): void {
  const token = keys.tokens.get(headers.get("apikey") ?? "");
  const sent = headers.get("authorization") ?? "";
  if (token && (sent === "" || sent.startsWith("Bearer sb_"))) headers.set("authorization", `Bearer ${token}`);
}

/** Sends the headers at once, then the body byte by byte, then blanks, until the client closes the connection. */
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
  // fetch has decoded the body.
  const { "content-encoding": _, "content-length": __, ...kept } = Object.fromEntries(reply.headers);
  response.writeHead(reply.status, kept);
  if (reply.body) await pipeline(Readable.fromWeb(reply.body as ReadableStream), response);
  else response.end();
}
