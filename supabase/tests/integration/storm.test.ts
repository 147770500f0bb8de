import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import type { Fault } from "../../local/auth-server.ts";
import { connect } from "../../local/databases.ts";
import type { FunctionServer } from "../../local/function-server.ts";
import type { Services } from "../../local/stack.ts";
import { cloneDatabase } from "../databases.ts";
import { functionName, type Reply } from "../function.ts";
import { defaultOrgId } from "../organizations.ts";
import { chooseSeed, createRandom, type Random } from "../random.ts";
import { startTestServices } from "../services.ts";
import { addUsers, appMetadata, type Metadata, numberedUsers, userId } from "../users.ts";

/** Of a hundred requests, how many meet a fault. */
const faultPercent = 30;
/** Requests to the Auth server at a time in these tests. */
const concurrency = 10;
/** As long as the pauses between five attempts of a user can be. */
const outageSeconds = 7.5;
/** What no user may cost: three writes, each of five attempts. */
const mostRequests = 15;

const seed = chooseSeed("the function in a storm");
const random = createRandom(seed);
const inSeed = `TEST_SEED=${seed}`;

const json = { "content-type": "application/json" };
const html = { "content-type": "text/html" };
const errorBody = (status: number) => JSON.stringify({ code: "unexpected_failure", message: `storm ${status}` });
const tooMany: Fault = {
  status: 429,
  headers: { ...json, "retry-after": "1" },
  body: '{"code":"over_request_rate_limit","message":"Request rate limit reached"}',
};

/** The faults that pass by at once, each as it is met. */
const faultKinds: Record<string, (random: Random) => Fault> = {
  "429 with Retry-After, as JSON": () => tooMany,
  "429 without Retry-After, as HTML": () => ({ status: 429, headers: html, body: "<html>Too many requests</html>" }),
  "500 as JSON": () => ({ status: 500, headers: json, body: errorBody(500) }),
  "502 as HTML": () => ({ status: 502, headers: html, body: "<html>Bad gateway</html>" }),
  "503 without a body": () => ({ status: 503, body: "" }),
  "504, half of them after the write": (random) => ({
    status: 504,
    headers: json,
    body: '{"code":"request_timeout","message":"Processing this request timed out"}',
    afterWrite: random.below(2) === 0,
  }),
  "dropped connections": () => ({ drop: true }),
  "malformed bodies, half of them after the write": (random) => ({
    status: 200,
    headers: json,
    body: '{"id": "00000000-',
    afterWrite: random.below(2) === 0,
  }),
  "200 without a write": () => ({ skipWrite: true }),
};

/** Keeps when the Auth server wrote each user, in milliseconds. */
const noteWrites = `
  create schema watch;
  create table watch.writes (id uuid, at double precision);
  create function watch.note() returns trigger language plpgsql security definer as $$
  begin
    insert into watch.writes values (new.id, extract(epoch from clock_timestamp()) * 1000);
    return null;
  end $$;
  create trigger note after update on auth.users for each row when (session_user = 'supabase_auth_admin')
  execute function watch.note();
`;

describe("update-user-org-metadata in a storm", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let served: FunctionServer;
  /** The fault that the request for a user meets. */
  let choose: (userId: string) => Fault | undefined;
  let beforeWrite: (userId: string) => Promise<void>;
  /** The requests that have come for each user. */
  const requests = new Map<string, number>();
  /** app_metadata of each user before the function is called. */
  let before: Map<string, Metadata>;

  const add = async (count: number) => {
    const users = numberedUsers(count).map((user, index) => ({
      ...user,
      metadata: { ...appMetadata, plan: { name: "pro", seats: index + 1 } },
    }));
    await addUsers(database.sql, users);
    before = new Map(users.map(({ id, metadata }) => [id, metadata]));
  };

  const call = async (body: Record<string, unknown> = {}) => {
    const response = await fetch(`${services.api.url}/functions/v1/${functionName}`, {
      method: "POST",
      headers: { apikey: services.keys.secretKey },
      body: JSON.stringify({ concurrency, ...body }),
    });
    return { status: response.status, reply: (await response.json()) as Reply };
  };

  /** Calls the function in a plain loop until it says that it is done. */
  const callUntilDone = async (body: Record<string, unknown> = {}, mostCalls = 50) => {
    for (let calls = 1; calls <= mostCalls; calls++) {
      const { status, reply } = await call(body);
      expect(status, `${inSeed}: ${JSON.stringify(reply)}`).toBe(200);
      if (reply["done"] === true) return reply;
    }
    throw new Error(`${inSeed}: not done after ${mostCalls} calls`);
  };

  /**
   * Faults for a share of the requests, each user's drawn for itself, so that a seed gives the same in whatever order they come.
   * A user meets so many at most, two of them lost writes: the function tries an update five times and a lost one three times, so
   * whoever meets more may rightly be called failed.
   */
  const storm = (kinds: readonly ((random: Random) => Fault)[], mostFaults = 4) => {
    const users = new Map<string, { random: Random; faults: number; lost: number }>();
    return (userId: string): Fault | undefined => {
      const user = users.get(userId) ?? { random: createRandom(seed + Number(userId.slice(-12))), faults: 0, lost: 0 };
      users.set(userId, user);
      if (user.faults === mostFaults || user.random.below(100) >= faultPercent) return undefined;
      const fault = user.random.pick(kinds)(user.random);
      const loses = fault.skipWrite || (fault.status === 200 && !fault.afterWrite);
      if (loses && user.lost === 2) return undefined;
      if (loses) user.lost++;
      user.faults++;
      return fault;
    };
  };

  const idsWithoutOrg = async () =>
    (await database.sql`select user_id from tenancy.users_without_org order by user_id`)
      .map((row) => row["user_id"] as string);

  /** What holds after any storm: all users but those who never can be are updated, in that one key, at a bounded price. */
  const expectAllDoneBut = async (never: string[], deleted: string[] = []) => {
    expect(await idsWithoutOrg(), inSeed).toEqual(never);
    const users = await database.sql<{ id: string; metadata: Metadata }[]>`
      select id, raw_app_meta_data as metadata from auth.users
    `;
    expect(users.length).toBe(before.size - deleted.length);
    for (const { id, metadata } of users) {
      const expected = { ...before.get(id), ...(never.includes(id) ? {} : { org_id: defaultOrgId }) };
      expect(metadata, `${inSeed}: ${id}`).toEqual(expected);
    }
    const audit = await database.sql<{ user_id: string; outcome: string; attempts: number; error: string | null }[]>`
      select user_id, outcome, attempts, error from tenancy.user_metadata_audit order by user_id
    `;
    expect(audit.map((row) => row.user_id), inSeed).toEqual([...before.keys()].sort());
    for (const { user_id: id, outcome, attempts, error } of audit) {
      const expected = never.includes(id) ? "failed" : deleted.includes(id) ? "deleted" : "updated";
      expect(outcome, `${inSeed}: ${id}, ${error}`).toBe(expected);
      // A request can die on a connection that the server has just closed, and Deno may send it again by itself.
      expect(Math.abs(attempts - (requests.get(id) ?? 0)), `${inSeed}: ${id}`).toBeLessThanOrEqual(1);
      expect(attempts, `${inSeed}: ${id}`).toBeLessThanOrEqual(mostRequests);
    }
    expectSound();
  };

  /** The function's process is the one that was started, and has met nothing that it did not expect. */
  const expectSound = () => {
    expect(served.process.exitCode).toBeNull();
    expect(served.process.signalCode).toBeNull();
    const log = readFileSync(served.log, "utf8");
    expect(log).not.toMatch(/uncaught|unhandled|request_failed/i);
  };

  beforeAll(async () => {
    database = await cloneDatabase("function_storm", "migrated");
    services = await startTestServices(database.name, {
      faults: {
        choose: ({ path }) => {
          const id = path.split("/").pop() ?? "";
          requests.set(id, (requests.get(id) ?? 0) + 1);
          return choose(id);
        },
        beforeWrite: (userId) => beforeWrite(userId),
      },
    });
    served = await services.serve(functionName);
  });

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  beforeEach(async () => {
    choose = () => undefined;
    beforeWrite = async () => {};
    requests.clear();
    await database.sql`delete from tenancy.user_metadata_audit`;
    await database.sql`delete from tenancy.user_metadata_runs`;
    await database.sql`delete from auth.users`;
  });

  test.each(Object.keys(faultKinds))("updates everyone while a third of the requests meet: %s", async (name) => {
    await add(20);
    // The pause before a fourth attempt is long enough: the fifth is made where all kinds are mixed.
    choose = storm([faultKinds[name] as (random: Random) => Fault], 3);
    const reply = await callUntilDone();
    expect(reply, inSeed).toMatchObject({ updated: 20, failed: 0, users_without_org: 0 });
    await expectAllDoneBut([]);
  });

  test("updates those whose first answer never comes, or comes a byte at a time", async () => {
    await add(12);
    const slow = new Map<string, Fault>([
      [userId(1), { hang: true }],
      [userId(5), { trickleMs: 500, status: 200, headers: json, body: "{}" }],
      [userId(6), { trickleMs: 500, status: 200, headers: json, body: "{}", afterWrite: true }],
      [userId(7), { trickleMs: 500, status: 503, headers: html, body: "<html>" }],
    ]);
    choose = (userId) => {
      const fault = slow.get(userId);
      slow.delete(userId);
      return fault;
    };
    const reply = await callUntilDone();
    expect(reply).toMatchObject({ updated: 12, failed: 0, users_without_org: 0 });
    await expectAllDoneBut([]);
  });

  test("updates everyone who can be while every kind of fault comes at once, and says of the others why not", async () => {
    await add(200);
    const never = [userId(17), userId(90), userId(200)];
    const deleted = userId(60);
    const chance = storm(Object.values(faultKinds));
    choose = (userId) => {
      if (never.includes(userId)) return { status: 500, headers: json, body: errorBody(500) };
      if (userId !== deleted) return chance(userId);
      void database.sql`delete from auth.users where id = ${deleted}`.execute();
      return requests.get(userId) === 1 ? { status: 503, body: "" } : undefined;
    };
    const reply = await callUntilDone({ max_seconds: 5, concurrency: 20 });
    expect(reply, inSeed).toMatchObject({ updated: 196, failed: 3, deleted: 1, users_without_org: 3 });
    await expectAllDoneBut(never, [deleted]);
    const errors = await database.sql`select error from tenancy.user_metadata_audit where outcome = 'failed'`;
    for (const row of errors) expect(row["error"]).toMatch(/500.*storm 500/);
  });

  test("sends few requests while it is told to slow down, and is as fast as ever afterwards", async () => {
    await add(300);
    const pressedSeconds = 3;
    let pressedUntil = 0;
    let underPressure = 0;
    choose = () => {
      pressedUntil ||= Date.now() + pressedSeconds * 1000;
      if (Date.now() >= pressedUntil) return undefined;
      underPressure++;
      return tooMany;
    };
    let atOnce = 0;
    let mostAtOnce = 0;
    beforeWrite = async () => {
      mostAtOnce = Math.max(mostAtOnce, ++atOnce);
      await sleep(30);
      atOnce--;
    };
    const reply = await callUntilDone();
    expect(reply).toMatchObject({ updated: 300, failed: 0, users_without_org: 0 });
    expect(underPressure).toBeLessThanOrEqual(concurrency + 4 * pressedSeconds);
    expect(mostAtOnce, "requests at a time afterwards").toBeGreaterThan(concurrency / 2);
    await expectAllDoneBut([]);
  });

  test("waits for an Auth server that is away, and calls nobody failed for it", async () => {
    await add(100);
    let backAt = 0;
    choose = () => {
      backAt ||= Date.now() + outageSeconds * 1000;
      return Date.now() < backAt ? { drop: true } : undefined;
    };
    const reply = await callUntilDone();
    expect(reply).toMatchObject({ updated: 100, failed: 0, users_without_org: 0 });
    await expectAllDoneBut([]);
  });

  /** Keeps doing something on a connection of its own until all are stopped. */
  const startWriters = (actions: ((sql: Sql, round: number) => Promise<void>)[]) => {
    let stopped = false;
    const writers = actions.map(async (action) => {
      const sql = connect(database.url);
      try {
        for (let round = 0; !stopped; round++) await action(sql, round);
      } finally {
        await sql.end();
      }
    });
    return async () => {
      stopped = true;
      await Promise.all(writers);
    };
  };

  /** Others who write to auth.users: sign-ups, deletions, and sign-ins over OAuth. */
  const startOthers = () => {
    let created = 0;
    const deleted = new Set<string>();
    const written: { id: string; key: string; from: number; to: number }[] = [];
    const stop = startWriters([
      async (sql) => {
        created++;
        await addUsers(sql, [{ id: random.uuid(), email: `new${created}@example.com` }]);
        await sleep(10);
      },
      async (sql) => {
        const id = userId(2 + random.below(299));
        if (deleted.size < 40) {
          deleted.add(id);
          await sql`delete from auth.users where id = ${id}`;
        }
        await sleep(15);
      },
      // As a sign-in over OAuth does it: the row is read, and a moment later the whole column is written back.
      async (sql, round) => {
        const id = userId(1 + random.below(300));
        const key = `identity_${round}`;
        const from = Date.now();
        const [row] = await sql<{ metadata: Metadata }[]>`
          select raw_app_meta_data as metadata from auth.users where id = ${id}
        `;
        if (!row) return;
        await sleep(3);
        await sql`update auth.users set raw_app_meta_data = ${
          sql.json({ ...row.metadata, [key]: true })
        } where id = ${id}`;
        written.push({ id, key, from, to: Date.now() });
      },
    ]);
    return { stop, written, deleted, created: () => created };
  };

  test("ends with an organization for everyone who signs up, and takes no other key away, while others write too", async () => {
    await add(300);
    await database.sql.unsafe(noteWrites).simple();
    /** When the Auth server read each user. */
    const reads: { id: string; at: number }[] = [];
    choose = (id) => {
      reads.push({ id, at: Date.now() });
      return undefined;
    };
    beforeWrite = async () => await sleep(2);
    const others = startOthers();
    await callUntilDone({ page_size: 25 }).finally(others.stop);
    await callUntilDone({ page_size: 25 });

    expect(await idsWithoutOrg(), inSeed).toEqual([]);
    const users = await database.sql<{ id: string; metadata: Metadata }[]>`
      select id, raw_app_meta_data as metadata from auth.users
    `;
    expect(users.length, inSeed).toBe(300 + others.created() - others.deleted.size);
    for (const { metadata } of users) {
      expect(metadata, inSeed).toMatchObject({
        provider: "email",
        providers: ["email"],
        plan: { name: "pro" },
        org_id: defaultOrgId,
      });
    }
    const metadataOf = new Map(users.map(({ id, metadata }) => [id, metadata]));
    const writes = await database.sql<{ id: string; at: number }[]>`select id, at from watch.writes`;
    expect(others.written.length).toBeGreaterThan(0);
    for (const { id, key, from, to } of others.written) {
      const metadata = metadataOf.get(id);
      if (!metadata || key in metadata) continue;
      // The Auth server read the user before the key was there, and wrote it afterwards.
      const overlaps = reads.some((read) => read.id === id && read.at <= to) &&
        writes.some((write) => write.id === id && write.at >= from);
      expect(overlaps, `${inSeed}: ${key} of ${id} is lost, and nobody wrote meanwhile`).toBe(true);
    }
    for (const [id, count] of requests) expect(count, `${inSeed}: ${id}`).toBeLessThanOrEqual(mostRequests);
    expectSound();
  });
});
