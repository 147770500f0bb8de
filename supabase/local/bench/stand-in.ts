/** The API with the Auth server's stand-in, as a process of its own: its work is not done on the thread that measures. */
import { startServices } from "../stack.ts";

/**
 * What the parent sends: the count of requests is read and set to 0; from now on the first update of every hundredth user is lost, as
 * when a sign-in that read the user before writes the whole of it back; the process ends.
 */
export type StandInOrder = "count" | "lose" | "stop";

/** What the parent gets: once where it is and how to call it, and each time that it asks, the count. */
export type StandInMessage =
  | { ready: true; apiUrl: string; secretKey: string; serviceRoleKey: string }
  | { ready: false; requests: number; lost: string[] };

const [databaseUrlTemplate = "", apiPort = "0", folder = ""] = process.argv.slice(2);
const send = (message: StandInMessage) => void process.send?.(message);
let requests = 0;
/** The users whose update was lost; undefined: none is to be. */
let lost: Set<string> | undefined;

const services = await startServices({
  databaseUrl: (role) => databaseUrlTemplate.replace("ROLE", role),
  apiPort: Number(apiPort),
  jwtExpiry: 3600,
  tokenHook: null,
  folder,
  faults: {
    choose: ({ method, path }) => {
      if (method !== "PUT" && method !== "GET") return undefined;
      requests++;
      const id = path.slice(path.lastIndexOf("/") + 1);
      if (method === "GET" || !lost || lost.has(id) || parseInt(id.slice(-4), 16) % 100 > 0) return undefined;
      lost.add(id);
      return { skipWrite: true };
    },
  },
});

process.on("disconnect", () => process.exit());
process.on("message", (order: StandInOrder) => {
  if (order === "stop") {
    void services.stop().then(() => process.exit());
    return;
  }
  if (order === "lose") {
    lost = new Set();
    return;
  }
  send({ ready: false, requests, lost: [...lost ?? []] });
  requests = 0;
  lost = undefined;
});
send({
  ready: true,
  apiUrl: services.api.url,
  secretKey: services.keys.secretKey,
  serviceRoleKey: services.keys.serviceRoleKey,
});
