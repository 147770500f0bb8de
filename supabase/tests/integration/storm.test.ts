import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { JSONValue } from "postgres";
import type { Fault } from "../../local/auth-server.ts";
import { connect } from "../../local/databases.ts";
import type { FunctionServer } from "../../local/function-server.ts";
import type { Services } from "../../local/stack.ts";
import { cloneDatabase } from "../databases.ts";
import { chooseSeed, createRandom, type Random } from "../random.ts";
import { startTestServices } from "../services.ts";

const functionName = "update-user-org-metadata";
const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
/** Of a hundred requests, how many meet a fault. */
const faultPercent = 30;
/** Requests to the Auth server at a time in these tests. */
const concurrency = 10;
/** Long enough for five attempts of a user, had each its own pauses alone. */
const outageSeconds = 15;
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

type Reply = Record<string, unknown> & { error?: { code: string; message: string } };
type Metadata = Record<string, JSONValue>;

describe("update-user-org-metadata in a storm", () => {
  let database: Awaited<ReturnType<typeof cloneDatabase>>;
  let services: Services;
  let served: FunctionServer;
  /** What meets the request for a user. */
  let choose: (userId: string) => Fault | undefined;
  let beforeWrite: (userId: string) => Promise<void>;
  /** The requests that have come for each user. */
  const requests = new Map<string, number>();
  /** app_metadata of each user before the function is called. */
  let before: Map<string, Metadata>;

  const idOf = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;

  const addUsers = async (count: number) => {
    const rows = await database.sql<{ id: string; metadata: Metadata }[]>`
      insert into auth.users (
        instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
        email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
      )
      select
        '00000000-0000-0000-0000-000000000000', format('00000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid,
        'authenticated', 'authenticated', format('user%s@example.com', n), '', now(), '', '', '', '',
        jsonb_build_object(
          'provider', 'email', 'providers', array['email'], 'plan', jsonb_build_object('name', 'pro', 'seats', n)
        ),
        '{}', now(), now()
      from generate_series(1, ${count}::integer) as n
      returning id, raw_app_meta_data as metadata
    `;
    before = new Map(rows.map(({ id, metadata }) => [id, metadata]));
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
  const callUntilDone = async (body: Record<string, unknown> = {}, mostCalls = 5) => {
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
    await addUsers(20);
    // The pause before a fourth attempt is long enough: the fifth is made where all kinds are mixed.
    choose = storm([faultKinds[name] as (random: Random) => Fault], 3);
    const reply = await callUntilDone();
    expect(reply, inSeed).toMatchObject({ updated: 20, failed: 0, users_without_org: 0 });
    await expectAllDoneBut([]);
  });

  test("updates those whose first answer never comes, or comes a byte at a time", async () => {
    await addUsers(12);
    const slow = new Map<string, Fault>([
      [idOf(1), { hang: true }],
      [idOf(5), { trickleMs: 500, status: 200, headers: json, body: "{}" }],
      [idOf(6), { trickleMs: 500, status: 200, headers: json, body: "{}", afterWrite: true }],
      [idOf(7), { trickleMs: 500, status: 503, headers: html, body: "<html>" }],
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
    await addUsers(200);
    const never = [idOf(17), idOf(90), idOf(200)];
    const deleted = idOf(60);
    const chance = storm(Object.values(faultKinds));
    choose = (userId) => {
      if (never.includes(userId)) return { status: 500, headers: json, body: errorBody(500) };
      if (userId !== deleted) return chance(userId);
      void database.sql`delete from auth.users where id = ${deleted}`.execute();
      return requests.get(userId) === 1 ? { status: 503, body: "" } : undefined;
    };
    const reply = await callUntilDone({ max_seconds: 5, concurrency: 20 }, 10);
    expect(reply, inSeed).toMatchObject({ updated: 196, failed: 3, deleted: 1, users_without_org: 3 });
    await expectAllDoneBut(never, [deleted]);
    const errors = await database.sql`select error from tenancy.user_metadata_audit where outcome = 'failed'`;
    for (const row of errors) expect(row["error"]).toMatch(/500.*storm 500/);
  });

  test("sends few requests while it is told to slow down, and is as fast as ever afterwards", async () => {
    await addUsers(300);
    const pressedSeconds = 3;
    let pressedUntil = 0;
    let underPressure = 0;
    choose = () => {
      pressedUntil ||= Date.now() + pressedSeconds * 1000;
      if (Date.now() >= pressedUntil) return undefined;
      underPressure++;
      return tooMany;
    };
    const reply = await callUntilDone();
    const secondsAfter = (Date.now() - pressedUntil) / 1000;
    expect(reply).toMatchObject({ updated: 300, failed: 0, users_without_org: 0 });
    expect(underPressure).toBeLessThanOrEqual(concurrency + 4 * pressedSeconds);
    expect(secondsAfter).toBeLessThan(10);
    await expectAllDoneBut([]);
  });

  test("waits for an Auth server that is away, and calls nobody failed for it", async () => {
    await addUsers(100);
    let backAt = 0;
    choose = () => {
      backAt ||= Date.now() + outageSeconds * 1000;
      return Date.now() < backAt ? { drop: true } : undefined;
    };
    const reply = await callUntilDone();
    expect(reply).toMatchObject({ updated: 100, failed: 0, users_without_org: 0 });
    await expectAllDoneBut([]);
  });

  test("ends with an organization for everyone who signs up, and takes no other key away, while others write too", async () => {
    await addUsers(300);
    /** When each user's update was read and written at the Auth server, for what the race between two writers explains. */
    const updates: { userId: string; from: number; to: number }[] = [];
    choose = (userId) => {
      updates.push({ userId, from: Date.now(), to: Infinity });
      return undefined;
    };
    beforeWrite = async (userId) => {
      await sleep(2);
      const update = updates.findLast((candidate) => candidate.userId === userId);
      // The write itself comes after this.
      if (update) update.to = Date.now() + 500;
    };

    let stopped = false;
    const written: { userId: string; key: string; from: number; to: number }[] = [];
    const deleted = new Set<string>();
    let created = 0;
    const keepDoing = async (action: (sql: ReturnType<typeof connect>, round: number) => Promise<void>) => {
      const sql = connect(database.url);
      try {
        for (let round = 0; !stopped; round++) await action(sql, round);
      } finally {
        await sql.end();
      }
    };
    const writers = [
      keepDoing(async (sql) => {
        created++;
        await sql`
          insert into auth.users (
            instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change_token_new, email_change,
            raw_app_meta_data, created_at, updated_at
          )
          values (
            '00000000-0000-0000-0000-000000000000', ${random.uuid()}, 'authenticated', 'authenticated',
            ${`new${created}@example.com`}, '', '', '', '',
            '{"provider": "email", "providers": ["email"], "plan": {"name": "pro"}}', now(), now()
          )
        `;
        await sleep(10);
      }),
      keepDoing(async (sql) => {
        const id = idOf(2 + random.below(299));
        if (deleted.size < 40) {
          deleted.add(id);
          await sql`delete from auth.users where id = ${id}`;
        }
        await sleep(15);
      }),
      // As a sign-in over OAuth does it: the row is read, and a moment later the whole column is written back.
      keepDoing(async (sql, round) => {
        const userId = idOf(1 + random.below(300));
        const key = `identity_${round}`;
        const from = Date.now();
        const [row] = await sql<{ metadata: Metadata }[]>`
          select raw_app_meta_data as metadata from auth.users where id = ${userId}
        `;
        if (!row) return;
        await sleep(3);
        await sql`
          update auth.users set raw_app_meta_data = ${sql.json({ ...row.metadata, [key]: true })} where id = ${userId}
        `;
        written.push({ userId, key, from, to: Date.now() });
      }),
    ];
    try {
      await callUntilDone({ page_size: 25 }, 20);
    } finally {
      stopped = true;
      await Promise.all(writers);
    }
    await callUntilDone({ page_size: 25 }, 20);

    expect(await idsWithoutOrg(), inSeed).toEqual([]);
    const users = await database.sql<{ id: string; metadata: Metadata }[]>`
      select id, raw_app_meta_data as metadata from auth.users
    `;
    const metadataOf = new Map(users.map(({ id, metadata }) => [id, metadata]));
    expect(users.length, inSeed).toBe(300 + created - deleted.size);
    for (const { metadata } of users) {
      expect(metadata, inSeed).toMatchObject({
        provider: "email",
        providers: ["email"],
        plan: { name: "pro" },
        org_id: defaultOrgId,
      });
    }
    expect(written.length).toBeGreaterThan(20);
    for (const { userId, key, from, to } of written) {
      const metadata = metadataOf.get(userId);
      if (!metadata || key in metadata) continue;
      const overlapping = updates.filter((update) =>
        update.userId === userId && update.from <= to && update.to >= from
      );
      expect(overlapping, `${inSeed}: ${key} of ${userId} is lost and nobody wrote meanwhile`).not.toEqual([]);
    }
    for (const [userId, count] of requests) expect(count, `${inSeed}: ${userId}`).toBeLessThanOrEqual(mostRequests);
    expectSound();
  });
});
