import { createClient } from "@supabase/supabase-js";
import { createAuthAdmin } from "./auth-admin.ts";
import { createAuthFetch } from "./auth-fetch.ts";
import { readConfig } from "./config.ts";
import { createHandler } from "./handler.ts";
import { updateUsers } from "./job.ts";
import { createLog } from "./log.ts";
import { createThrottle } from "./throttle.ts";
import { type Pause, systemTiming as timing } from "./timing.ts";
import { openUsers } from "./users-database.ts";

// postgres.js writes a query in a task of its own, where nobody can catch that its connection is gone by then (porsager/postgres#1208). The
// query fails all the same, and the worker has other requests.
addEventListener("error", (event) => {
  if (event.error instanceof TypeError && event.error.message.endsWith("(reading 'write')")) {
    event.preventDefault();
    log("error", "connection_lost", { message: event.error.message });
  }
});

const config = readConfig(Deno.env.toObject());
const log = createLog((line) => console.log(line));
const handle = createHandler({
  config,
  log,
  now: timing.now,
  updateUsers: async (request, observer) => {
    const pause: Pause = { until: 0 };
    const client = createClient(config.supabaseUrl, config.adminKey, {
      auth: { persistSession: false, autoRefreshToken: false },
      global: { fetch: createAuthFetch(fetch, pause, timing) },
    });
    const users = await openUsers(config.databaseUrl);
    try {
      const authAdmin = createAuthAdmin(client.auth.admin, createThrottle(request.concurrency), pause, timing);
      return await updateUsers(request, { users, authAdmin, timing, log }, observer);
    } finally {
      await users.close();
    }
  },
});

export default { fetch: handle };
