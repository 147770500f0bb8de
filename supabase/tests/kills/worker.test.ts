import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { setTimeout as sleep } from "node:timers/promises";
import type { FunctionServer } from "../../local/function-server.ts";
import type { Services } from "../../local/stack.ts";
import { cloneDatabase } from "../databases.ts";
import { functionName, type Reply } from "../function.ts";
import { defaultOrgId } from "../organizations.ts";
import { chooseSeed, createRandom } from "../random.ts";
import { startTestServices } from "../services.ts";
import { addUsers, appMetadata, numberedUsers } from "../users.ts";

const users = 120;
const kills = 30;
const request = { page_size: 25, concurrency: 5 };

const seed = chooseSeed("a worker that is killed");
const random = createRandom(seed);

describe("a worker of the function that is killed, and called again, ends as one that was left alone", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let served: FunctionServer;
  /** How long a run takes that nobody kills. */
  let undisturbedMs: number;
  /** The kills that found the run begun and not ended. */
  let hits = 0;
  /** The requests that have come for each user. */
  const requests = new Map<string, number>();

  /** Every user without organization, and no run. */
  const reset = async () => {
    await database.sql`delete from tenancy.user_metadata_audit`;
    await database.sql`delete from tenancy.user_metadata_runs`;
    await database.sql`update auth.users set raw_app_meta_data = ${database.sql.json(appMetadata)}`;
    requests.clear();
  };

  const call = async () => {
    const response = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers: { apikey: services.keys.secretKey },
      body: JSON.stringify(request),
    });
    return { status: response.status, reply: (await response.json()) as Reply };
  };

  /** Calls until done; 409 while the session of a worker that was killed still has the lock. */
  const callUntilDone = async (moment: string) => {
    for (;;) {
      const { status, reply } = await call();
      expect([200, 409], `${moment}: ${JSON.stringify(reply)}`).toContain(status);
      if (reply["done"] === true) return;
      if (status === 409) await sleep(20);
    }
  };

  const usersOf = async (outcome: string) =>
    (await database.sql`select user_id from tenancy.user_metadata_audit where outcome = ${outcome}`)
      .map((row) => row["user_id"] as string);

  /** Users whom the audit calls updated and who have no organization. */
  const wronglyUpdated = async () =>
    await database.sql`
      select audit.user_id
      from tenancy.user_metadata_audit as audit
      left join auth.users on users.id = audit.user_id
      where audit.outcome = 'updated' and users.raw_app_meta_data ->> 'org_id' is distinct from ${defaultOrgId}
    `;

  beforeAll(async () => {
    database = await cloneDatabase("function_kills", "migrated");
    await addUsers(database.sql, numberedUsers(users));
    services = await startTestServices(database.name, {
      faults: {
        choose: ({ path }) => {
          const id = path.split("/").pop() ?? "";
          requests.set(id, (requests.get(id) ?? 0) + 1);
          return undefined;
        },
        // Slow enough for most kills to find a request on its way.
        beforeWrite: async () => await sleep(15),
      },
    });
    served = await services.serve(functionName);
    await reset();
    await callUntilDone("undisturbed");
    await reset();
    const started = performance.now();
    await callUntilDone("undisturbed");
    undisturbedMs = performance.now() - started;
  });

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  test.each(Array.from({ length: kills }, (_, number) => number + 1))("kill %i", async (number) => {
    await reset();
    const delay = random.below(Math.ceil(undisturbedMs));
    const moment = `TEST_SEED=${seed}, kill ${number}, after ${delay} of ${Math.round(undisturbedMs)} ms`;
    const gone = new Promise((resolve) => served.process.once("exit", resolve));
    // The gateway answers 502, in plain text, where the worker is gone.
    const interrupted = call().catch(() => undefined);
    await sleep(delay);
    served.process.kill("SIGKILL");
    await Promise.all([gone, interrupted]);
    await served.stop();
    const unsettled = await usersOf("pending");
    const [run] = await database.sql`select finished_at from tenancy.user_metadata_runs`;
    if (run && !run["finished_at"]) hits++;
    expect(await wronglyUpdated(), moment).toEqual([]);

    served = await services.serve(functionName);
    await callUntilDone(moment);

    const after = await database.sql`select raw_app_meta_data as metadata from auth.users`;
    expect(after.length).toBe(users);
    for (const row of after) expect(row["metadata"], moment).toEqual({ ...appMetadata, org_id: defaultOrgId });

    const audit = await database.sql<{ user_id: string; outcome: string; attempts: number }[]>`
      select user_id, outcome, attempts from tenancy.user_metadata_audit
    `;
    expect(new Set(audit.map((row) => row.user_id)).size, moment).toBe(users);
    expect(audit.length, `${moment}: each user is in one run`).toBe(users);
    for (const { user_id: id, outcome, attempts } of audit) {
      expect(outcome, `${moment}: ${id}`).toBe("updated");
      // Whose request succeeded, and was not settled before the kill, is settled later by what is there.
      if (!unsettled.includes(id)) expect(attempts, `${moment}: ${id}`).toBeGreaterThanOrEqual(1);
    }

    const total = [...requests.values()].reduce((sum, count) => sum + count, 0);
    expect(requests.size, moment).toBe(users);
    expect(Math.max(...requests.values()), `${moment}: requests for one user`).toBeLessThanOrEqual(2);
    expect(total, `${moment}: requests for all`).toBeLessThanOrEqual(users + request.concurrency);
  });

  test("and many of the kills have hit a run at work", () => {
    expect(hits).toBeGreaterThan(kills / 4);
  });
});
