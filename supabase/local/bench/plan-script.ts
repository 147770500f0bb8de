/**
 * The plan's own script, as it is usually written: all users page by page, each updated with updateUserById. Runs on Deno, as the
 * function does. Its parameters: the address of the API, the key, the organization, how many at a time. Prints the seconds.
 */
import process from "node:process";
import { createClient } from "@supabase/supabase-js";

const [apiUrl = "", key = "", orgId = "", concurrency = "1"] = process.argv.slice(2);
const { admin } = createClient(apiUrl, key, { auth: { persistSession: false, autoRefreshToken: false } }).auth;

const started = performance.now();
for (let page = 1;; page++) {
  const { data, error } = await admin.listUsers({ page, perPage: 1000 });
  if (error) throw error;
  if (data.users.length === 0) break;
  const users = data.users.values();
  await Promise.all(
    Array.from({ length: Number(concurrency) }, async () => {
      for (const user of users) {
        const { error } = await admin.updateUserById(user.id, { app_metadata: { org_id: orgId } });
        // Deleted meanwhile.
        if (error && error.status !== 404) throw error;
      }
    }),
  );
}
console.log((performance.now() - started) / 1000);
