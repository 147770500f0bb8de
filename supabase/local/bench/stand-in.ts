/** The API with the Auth server's stand-in, as a process of its own: its work is not done on the thread that measures. */
import { startServices } from "../stack.ts";

/** What the parent sends: the count of requests is read and set to 0, or the process ends. */
export type StandInOrder = "count" | "stop";

/** What the parent gets: once where it is and how to call it, and each time that it asks, the count. */
export type StandInMessage =
  | { ready: true; apiUrl: string; secretKey: string; serviceRoleKey: string }
  | { ready: false; puts: number };

const [databaseUrlTemplate = "", apiPort = "0", folder = ""] = process.argv.slice(2);
const send = (message: StandInMessage) => void process.send?.(message);
let puts = 0;

const services = await startServices({
  databaseUrl: (role) => databaseUrlTemplate.replace("ROLE", role),
  apiPort: Number(apiPort),
  jwtExpiry: 3600,
  tokenHook: null,
  folder,
  faults: {
    choose: ({ method }) => {
      if (method === "PUT") puts++;
      return undefined;
    },
  },
});

process.on("disconnect", () => process.exit());
process.on("message", (order: StandInOrder) => {
  if (order === "stop") {
    void services.stop().then(() => process.exit());
    return;
  }
  send({ ready: false, puts });
  puts = 0;
});
send({
  ready: true,
  apiUrl: services.api.url,
  secretKey: services.keys.secretKey,
  serviceRoleKey: services.keys.serviceRoleKey,
});
