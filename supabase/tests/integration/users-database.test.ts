import { expect, test } from "vitest";
import { openUsers } from "../../functions/update-user-org-metadata/users-database.ts";
import type { RunRequest } from "../../functions/update-user-org-metadata/users.ts";
import { cloneDatabase } from "../databases.ts";

const request: RunRequest = {
  orgId: null,
  onConflict: "keep",
  revertedRunId: null,
  moveToDefault: false,
  anonymous: "include",
};

test("the edge function's connection answers where its list of problems is left half-way, and frees the lock when it is closed", async () => {
  const database = await cloneDatabase("users_database", "migrated_with_data");
  const [users, other] = await Promise.all([openUsers(database.url), openUsers(database.url)]);
  try {
    const runId = (await users.start(request)) as string;
    await database.sql`
      insert into tenancy.user_metadata_audit (run_id, user_id, outcome, error)
      select ${runId}, gen_random_uuid(), 'failed', 'no' from generate_series(1, 600)
    `;
    for await (const page of users.problems(runId)) {
      expect(page).toHaveLength(500);
      break;
    }
    expect(await users.count(runId)).toMatchObject({ done: 600, failed: 600 });
    expect(await other.start(request)).toBeNull();
    await users.close();
    expect(await other.start(request)).toBe(runId);
  } finally {
    await other.close();
    await database.drop();
  }
});
