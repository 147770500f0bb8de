/**
 * The application while it is being migrated: writers whose tokens are older than the migration, who never send org_id nor look
 * whether there is one, until its next version is released.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { ISql, JSONValue, Sql } from "postgres";
import { connect } from "../local/databases.ts";
import { type Claims, codeAfter, readToken, request, signUp, tokenFromBefore } from "../local/requests.ts";
import { createRandom, type Random } from "./random.ts";
import {
  type Kind,
  kinds,
  noRows,
  type RowsOfUser,
  type Step,
  stepsOfBackend,
  stepsOfUsers,
  tables,
} from "./traffic-steps.ts";

export interface Traffic {
  /** Resolves once each kind of operation has been tried so many times more. */
  untilTried(times: number): Promise<void>;
  /** Releases the application's next version: tokens are refreshed, and what has none sends org_id. Resolves when all writers have it. */
  release(): Promise<void>;
  /** Ends the writers; resolves to what they did and met. */
  stop(): Promise<TrafficReport>;
}

export interface TrafficReport {
  tried: Record<Kind, number>;
  /** Each as its kind, SQLSTATE and message. */
  errors: string[];
  /** Who signed up, with the organization in the token that they got, if any. */
  signUps: { id: string; orgId: string | undefined }[];
}

/** One writer: its users, whom no other writer has, with their tokens and rows. */
interface Writer {
  random: Random;
  number: number;
  /** As the API connects. */
  api: Sql;
  /** As the Auth server does. */
  auth: Sql;
  tokens: Map<string, Claims>;
  rows: Map<string, RowsOfUser>;
  released: boolean;
  report: TrafficReport;
}

/** Starts writers, until they are stopped. Waiting for a lock for more than two seconds counts as an error. */
export function startTraffic(url: string, options: { writers: number; seed: number }): Traffic {
  const report: TrafficReport = {
    tried: Object.fromEntries(kinds.map((kind) => [kind, 0])) as Record<Kind, number>,
    errors: [],
    signUps: [],
  };
  let stopped = false;
  let released = false;
  let behind = options.writers;
  const running = Array.from({ length: options.writers }, async (_, number) => {
    const writer = await createWriter(url, number, options, report);
    try {
      while (!stopped) {
        if (released && !writer.released) {
          for (const id of writer.tokens.keys()) writer.tokens.set(id, await readToken(writer.auth, id));
          writer.released = true;
          behind--;
        }
        await act(writer);
      }
    } finally {
      await Promise.all([writer.api.end({ timeout: 5 }), writer.auth.end({ timeout: 5 })]);
    }
  });
  /** A writer that cannot go on ends the waiting. */
  const until = async (holds: () => boolean) => {
    const failed = Promise.all(running);
    while (!holds()) await Promise.race([sleep(10), failed]);
  };
  return {
    untilTried: async (times) => {
      const goal = kinds.map((kind) => [kind, report.tried[kind] + times] as const);
      await until(() => goal.every(([kind, count]) => report.tried[kind] >= count));
    },
    release: async () => {
      const sql = connect(url);
      await sql.unsafe(codeAfter).simple();
      await sql.end();
      released = true;
      await until(() => behind === 0);
    },
    stop: async () => {
      stopped = true;
      await Promise.all(running);
      return report;
    },
  };
}

async function createWriter(
  url: string,
  number: number,
  { writers, seed }: { writers: number; seed: number },
  report: TrafficReport,
): Promise<Writer> {
  const connectAs = async (role: string) => {
    const address = new URL(url);
    address.username = role;
    const sql = connect(address.href);
    await sql`set lock_timeout = '2s'`;
    return sql;
  };
  const owner = connect(url);
  const users = (await owner`select id from auth.users order by id`)
    .map((row) => row["id"] as string)
    .filter((_, place) => place % writers === number);
  const rows = new Map<string, RowsOfUser>();
  for (const user of users) rows.set(user, await readRows(owner, user));
  await owner.end();
  return {
    random: createRandom(seed + number),
    number,
    api: await connectAs("authenticator"),
    auth: await connectAs("supabase_auth_admin"),
    tokens: new Map(users.map((user) => [user, tokenFromBefore(user)])),
    rows,
    released: false,
    report,
  };
}

/** Some of the rows that a user has from before. */
async function readRows(sql: Sql, user: string): Promise<RowsOfUser> {
  const rows = noRows();
  for (const table of tables) {
    const found = table === "call_tracking"
      ? await sql`
        select call_tracking.id
        from public.call_tracking
        join public.calls on calls.id = call_tracking.call_id
        where calls.user_id = ${user}
        order by 1
        limit 20
      `
      : await sql`select id from ${sql(`public.${table}`)} where user_id = ${user} order by 1 limit 20`;
    rows[table].all = found.map((row) => row["id"] as string);
    if (table === "call_logs" || table === "call_tracking") rows[table].removable = [...rows[table].all];
  }
  return rows;
}

/** One transaction: a sign-up, a request of a user's, or one of the backend's. */
async function act(writer: Writer): Promise<void> {
  const { random, report, tokens } = writer;
  const actor = random.below(20);
  const user = random.pick([...tokens.keys()]);
  const rows = structuredClone(writer.rows.get(user) ?? noRows());
  let doing: Kind = "sign-up";
  const run = async (sql: ISql, steps: readonly Step[], orgId?: string) => {
    for (const step of steps) {
      doing = step.kind;
      report.tried[doing]++;
      await step.run({ sql, random, user, rows, orgId });
    }
  };
  try {
    if (actor === 0) {
      report.tried[doing]++;
      await joinIn(writer);
    } else if (actor < 8) {
      const claims = random.below(2) === 0 ? undefined : { role: "service_role" };
      const steps = [random.pick(stepsOfBackend)];
      await request(writer.api, "service_role", claims, async (sql) => await run(sql, steps, orgIdOf(writer, user)));
    } else {
      const steps = random.shuffle(stepsOfUsers).slice(0, 1 + random.below(3));
      await request(writer.api, "authenticated", tokens.get(user), async (sql) => await run(sql, steps));
    }
    writer.rows.set(user, rows);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    report.errors.push(`${doing}: ${code} ${message}`);
  }
}

/** Somebody signs up, and is one of the writer's users from then on. */
async function joinIn({ random, auth, tokens, rows, report }: Writer): Promise<void> {
  const id = random.uuid();
  const token = await auth.begin(async (sql) => await signUp(sql, id, `${id}@example.com`));
  tokens.set(id, token);
  rows.set(id, noRows());
  report.signUps.push({ id, orgId: claimOf(token) });
}

const claimOf = (token: Claims | undefined): string | undefined =>
  (token?.["app_metadata"] as Record<string, JSONValue> | undefined)?.["org_id"] as string | undefined;

/** What the backend sends for a row of this user's: nothing, until the next version sends what the user's token has. */
const orgIdOf = ({ released, tokens }: Writer, user: string): string | undefined =>
  released ? claimOf(tokens.get(user)) : undefined;
