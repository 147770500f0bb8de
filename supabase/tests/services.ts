import { inject } from "vitest";
import type { Faults } from "../local/auth-server.ts";
import { databaseUrl, freePort } from "../local/postgres.ts";
import { type Services, startServices } from "../local/stack.ts";

/** The API and the Auth server's stand-in over one of the cloned databases. */
export async function startTestServices(
  database: string,
  options: { faults?: Faults; jwtExpiry?: number; tokenHook?: string; idTokenIssuers?: string[] } = {},
): Promise<Services> {
  const port = inject("databasePort");
  const { faults, jwtExpiry = 3600, tokenHook = null, idTokenIssuers = [] } = options;
  return await startServices({
    databaseUrl: (role) => databaseUrl(port, { database, role }),
    apiPort: await freePort(),
    jwtExpiry,
    tokenHook,
    idTokenIssuers,
    folder: `${inject("folder")}/${database}`,
    ...(faults ? { faults } : {}),
  });
}
