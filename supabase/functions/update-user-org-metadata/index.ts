import { createClient } from "@supabase/supabase-js";
import postgres from "postgres";
import { createAuthAdmin, createAuthFetch, type Pause, type Timing } from "./auth-admin.ts";
import { readConfig } from "./config.ts";
import { createHandler } from "./handler.ts";
import { updateUsers } from "./job.ts";
import { createLog } from "./log.ts";
import { openUsers } from "./users.ts";

const config = readConfig(Deno.env.toObject());
const log = createLog((line) => console.log(line));
const timing: Timing = {
  now: () => Date.now(),
  sleep: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
  random: () => Math.random(),
};

const handle = createHandler({
  config,
  log,
  updateUsers: async (request) => {
    const pause: Pause = { until: 0 };
    const client = createClient(config.supabaseUrl, config.adminKey, {
      auth: { persistSession: false, autoRefreshToken: false },
      global: { fetch: createAuthFetch(fetch, pause, timing) },
    });
    const sql = postgres(config.databaseUrl, { max: 1, prepare: false, onnotice: () => {} });
    const users = await openUsers(sql);
    try {
      return await updateUsers(request, {
        users,
        authAdmin: createAuthAdmin(client.auth.admin, pause, timing),
        timing,
        log,
      });
    } finally {
      await users.close();
    }
  },
});

export default { fetch: handle };
