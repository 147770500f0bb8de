/**
 * What the function is measured against: the same PUTs with the same bodies and headers at the same concurrency, and nothing
 * else. Runs on Deno, as the function does. Its parameters: the address of the API, the key, the organization, how many at
 * a time, and a file with one user id a line. Prints the seconds.
 */
import { readFileSync } from "node:fs";
import process from "node:process";

const [apiUrl = "", key = "", orgId = "", concurrency = "1", file = ""] = process.argv.slice(2);
const ids = readFileSync(file, "utf8").trim().split("\n").values();

const started = performance.now();
await Promise.all(
  Array.from({ length: Number(concurrency) }, async () => {
    for (const id of ids) {
      const response = await fetch(`${apiUrl}/auth/v1/admin/users/${id}`, {
        method: "PUT",
        headers: {
          "apikey": key,
          "authorization": `Bearer ${key}`,
          "content-type": "application/json;charset=UTF-8",
          "x-supabase-api-version": "2024-01-01",
        },
        body: JSON.stringify({ app_metadata: { org_id: orgId } }),
      });
      await response.json();
      // 404: deleted meanwhile.
      if (!response.ok && response.status !== 404) throw new Error(`HTTP ${response.status}`);
    }
  }),
);
console.log((performance.now() - started) / 1000);
