import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { demoPassword } from "../../local/application.ts";
import { type FunctionUnderTest, startFunction } from "../function.ts";
import { contradictMapping, defaultOrgId, otherOrgId } from "../organizations.ts";
import { addUsers, numberedUsers, userId } from "../users.ts";

describe("update-user-org-metadata as a stream", () => {
  let tested: FunctionUnderTest;
  let sql: Sql;
  let call: FunctionUnderTest["call"];
  let stream: FunctionUnderTest["stream"];
  let requests: string[];
  let behaviour: FunctionUnderTest["behaviour"];

  beforeAll(async () => {
    tested = await startFunction("function_stream_http");
    ({ call, stream, requests, behaviour } = tested);
    sql = tested.database.sql;
  });

  beforeEach(async () => await tested.reset());
  afterAll(async () => await tested?.stop());

  test("streams how far it is while it works, and each problem when asked to", async () => {
    await addUsers(sql, numberedUsers(40), demoPassword);
    await contradictMapping(sql, userId(1));
    behaviour.beforeWrite = async () => await sleep(100);
    const response = await stream({ concurrency: 2, page_size: 10, report: true });
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    const lines = (await response.text()).trim().split("\n");
    const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events.map(({ event }) => event).filter((name, index, all) => name !== all[index - 1])).toEqual([
      "started",
      "progress",
      "problem",
      "progress",
      "finished",
    ]);
    expect(events[0]).toMatchObject({ done: 0, total: 40 });
    const done = events.filter(({ event }) => event === "progress").map(({ done }) => Number(done));
    expect(done.length).toBeGreaterThan(2);
    expect(done).toEqual([...done].sort((one, other) => one - other));
    expect(done.at(-1)).toBe(40);
    expect(events.find(({ event }) => event === "problem")).toMatchObject({
      user_id: userId(1),
      outcome: "conflict",
      reason: `has organization ${otherOrgId}, should have the default one, ${defaultOrgId}`,
    });
    expect(events.at(-1)).toMatchObject({ event: "finished", done: true, updated: 39, conflicts: 1 });
  });

  test("stops when the reader of its stream has gone, and goes on when it is called again", async () => {
    await addUsers(sql, numberedUsers(60), demoPassword);
    behaviour.beforeWrite = async () => await sleep(100);
    const gone = new AbortController();
    const response = await stream({ concurrency: 2, page_size: 10 }, gone.signal);
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.read();
    // From here on the rest of the users takes half a minute: long enough to notice that the reader has gone.
    behaviour.beforeWrite = async () => await sleep(1000);
    gone.abort();
    await reader?.closed.catch(() => {});
    while ((await call({ max_users: 1 })).status === 409) await sleep(100);
    expect(requests.length, "it had stopped before the rest").toBeLessThan(60);
    behaviour.beforeWrite = async () => {};
    const { reply } = await call();
    expect(reply).toMatchObject({ users_without_org: 0 });
    expect(new Set(requests).size).toBe(60);
    expect(requests.length, "nobody was written twice").toBe(60);
    const [runs] =
      await sql`select count(*)::integer as runs from tenancy.user_metadata_runs where finished_at is null`;
    expect(runs).toEqual({ runs: 0 });
  });
});
