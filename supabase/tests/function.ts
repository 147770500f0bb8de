import type { Fault } from "../local/auth-server.ts";
import type { FunctionServer } from "../local/function-server.ts";
import type { Services } from "../local/stack.ts";
import { cloneDatabase, type Database } from "./databases.ts";
import { finishWhereAsked } from "./last-step.ts";
import { startTestServices } from "./services.ts";

export const functionName = "update-user-org-metadata";

export type Reply = Record<string, unknown> & { error?: { code: string; message: string } };

/** The edge function behind the API, with a database and an Auth server of its own. */
export interface FunctionUnderTest {
  database: Database;
  services: Services;
  served: FunctionServer;
  /** What the Auth server was asked, each as its method and path. */
  requests: string[];
  /** What the Auth server does to a request, and what it waits for before it writes. */
  behaviour: {
    choose: (request: { method: string; path: string }) => Fault | undefined;
    beforeWrite: () => Promise<void>;
  };
  call(body?: unknown, headers?: Record<string, string>): Promise<{ status: number; reply: Reply }>;
  stream(body: unknown, signal?: AbortSignal): Promise<Response>;
  /** Forgets users, runs and requests. */
  reset(): Promise<void>;
  stop(): Promise<void>;
}

const calm = (): FunctionUnderTest["behaviour"] => ({ choose: () => undefined, beforeWrite: async () => {} });

export async function startFunction(name: string): Promise<FunctionUnderTest> {
  const database = await cloneDatabase(name, "migrated");
  await finishWhereAsked(database.sql);
  const requests: string[] = [];
  const behaviour = calm();
  const services = await startTestServices(database.name, {
    faults: {
      choose: (request) => {
        requests.push(`${request.method} ${request.path}`);
        return behaviour.choose(request);
      },
      beforeWrite: async () => await behaviour.beforeWrite(),
    },
  });
  const served = await services.serve(functionName);
  const secret = { apikey: services.keys.secretKey };
  const post = async (body: string, headers: Record<string, string>, signal?: AbortSignal) =>
    await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers,
      body,
      ...(signal ? { signal } : {}),
    });
  return {
    database,
    services,
    served,
    requests,
    behaviour,
    call: async (body = {}, headers = secret) => {
      const response = await post(typeof body === "string" ? body : JSON.stringify(body), headers);
      return { status: response.status, reply: (await response.json()) as Reply };
    },
    stream: async (body, signal) =>
      await post(JSON.stringify(body), { ...secret, accept: "application/x-ndjson" }, signal),
    reset: async () => {
      Object.assign(behaviour, calm());
      requests.length = 0;
      await database.sql`delete from tenancy.user_metadata_audit`;
      await database.sql`delete from tenancy.user_metadata_runs`;
      await database.sql`delete from tenancy.user_orgs`;
      await database.sql`delete from auth.users`;
    },
    stop: async () => {
      await services.stop();
      await database.drop();
    },
  };
}
