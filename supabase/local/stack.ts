import { type ApiServer, startApiServer } from "./api-server.ts";
import { createAuthServer, type Faults } from "./auth-server.ts";
import { type FunctionServer, serveFunction } from "./function-server.ts";
import { type ApiKeys, createKeys } from "./keys.ts";
import { type PostgresServer, startPostgres } from "./postgres.ts";

/** The API, with the stand-in for the Auth server and the functions, over one database. */
export interface Services {
  api: ApiServer;
  keys: ApiKeys;
  /** Serves a function behind the API, of this project or of another functions folder, in the platform's environment. */
  serve(name: string, functions?: string): Promise<FunctionServer>;
  stop(): Promise<void>;
}

interface ServiceOptions {
  /** The connection string for a role. */
  databaseUrl(role: string): string;
  apiPort: number;
  jwtExpiry: number;
  tokenHook: string | null;
  /** Where the logs go. */
  folder: string;
  faults?: Faults;
  idTokenIssuers?: string[];
}

export async function startServices(options: ServiceOptions): Promise<Services> {
  const { databaseUrl, apiPort, jwtExpiry, tokenHook, folder, faults, idTokenIssuers = [] } = options;
  const keys = await createKeys();
  const auth = createAuthServer(
    {
      databaseUrl: databaseUrl("supabase_auth_admin"),
      jwtSecret: keys.jwtSecret,
      jwtExpiry,
      tokenHook,
      idTokenIssuers,
    },
    faults,
  );
  const api = await startApiServer({ port: apiPort, auth, keys });
  const running: FunctionServer[] = [];
  return {
    api,
    keys,
    serve: async (name, functions) => {
      const served = await serveFunction(
        name,
        {
          SUPABASE_URL: api.url,
          SUPABASE_DB_URL: databaseUrl("postgres"),
          SUPABASE_SECRET_KEYS: JSON.stringify({ default: keys.secretKey }),
          SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: keys.publishableKey }),
          SUPABASE_SERVICE_ROLE_KEY: keys.serviceRoleKey,
          SUPABASE_ANON_KEY: keys.anonKey,
        },
        folder,
        functions,
      );
      running.push(served);
      api.functions.set(name, served.url);
      return served;
    },
    stop: async () => {
      await Promise.all(running.map((served) => served.stop()));
      await api.close();
    },
  };
}

export interface Stack extends Services {
  postgres: PostgresServer;
}

/** Starts PostgreSQL and the services over it. If one does not start, those that did are stopped again. */
export async function startStack(options: {
  apiPort: number;
  dbPort: number;
  jwtExpiry: number;
  tokenHook: string | null;
  /** Where the database's data and the logs go; emptied first. */
  folder: string;
}): Promise<Stack> {
  const { apiPort, dbPort, jwtExpiry, tokenHook, folder } = options;
  const postgres = await startPostgres({ port: dbPort, folder });
  try {
    const services = await startServices({
      databaseUrl: (role) => postgres.url({ role }),
      apiPort,
      jwtExpiry,
      tokenHook,
      folder,
    });
    return {
      ...services,
      postgres,
      stop: async () => {
        await services.stop();
        await postgres.stop();
      },
    };
  } catch (error) {
    await postgres.stop("immediate");
    throw error;
  }
}
