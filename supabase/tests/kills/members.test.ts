import { expect, test } from "vitest";
import { runStorm } from "../../local/members-storm.ts";
import { cloneDatabase } from "../databases.ts";
import { functionName } from "../function.ts";
import { chooseSeed, createRandom } from "../random.ts";
import { startTestServices } from "../services.ts";

const seed = chooseSeed("memberships in a storm");

test.each([true, false])(
  "nobody is in a wrong organization or none after sign-ups, switches, invitations, removals and two runs at once, hook: %s",
  async (withHook) => {
    const database = await cloneDatabase(`members_storm_${withHook}`, "migrated");
    const services = await startTestServices(
      database.name,
      withHook ? { tokenHook: "tenancy.add_org_id_to_token" } : {},
    );
    try {
      await services.serve(functionName);
      const { below } = createRandom(seed);
      const { counts, wrong } = await runStorm({ url: database.url, services, seconds: 10, withHook, below });
      expect(wrong, `TEST_SEED=${seed}`).toEqual([]);
      for (const [what, times] of Object.entries(counts)) expect(times, what).toBeGreaterThan(0);
    } finally {
      await services.stop();
      await database.drop();
    }
  },
);
