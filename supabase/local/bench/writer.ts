import { setTimeout as sleep } from "node:timers/promises";
import type { ISql } from "postgres";
import { connect } from "../databases.ts";
import { request, signUp, tokenFromBefore } from "../requests.ts";
import { table } from "./shared.ts";

export interface Operation {
  begun: number;
  milliseconds: number;
  failed: boolean;
}

/**
 * What an application does to the largest table, with a token from before and no thought of org_id: it inserts a row, changes it,
 * upserts it, calls a function of its own, takes a webhook, and somebody signs up.
 */
export function startWriter(url: string): { stop(): Promise<Operation[]> } {
  const operations: Operation[] = [];
  let stopped = false;
  const working = (async () => {
    const as = (role: string) => connect(Object.assign(new URL(url), { username: role }).href);
    const [api, auth, owner] = [as("authenticator"), as("supabase_auth_admin"), connect(url)];
    for (const sql of [api, auth]) {
      await sql`select set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)`;
    }
    const [call] =
      await owner`select id, user_id from public.calls where user_id in (select id from auth.users) order by id limit 1`;
    await owner.end();
    const user = call?.["user_id"] as string;
    const token = tokenFromBefore(user);
    const timed = async (statement: () => Promise<unknown>) => {
      const begun = Date.now();
      const start = performance.now();
      const failed = await statement().then(() => false, () => true);
      operations.push({ begun, milliseconds: performance.now() - start, failed });
      await sleep(2);
    };
    const asUser = (act: (sql: ISql) => Promise<unknown>) => timed(() => request(api, "authenticated", token, act));
    const asBackend = (act: (sql: ISql) => Promise<unknown>) =>
      timed(() => request(api, "service_role", undefined, act));
    while (!stopped) {
      const row = {
        id: crypto.randomUUID(),
        user_id: user,
        phone_number: "+15550000",
        created_at: new Date().toISOString(),
      };
      const insert = (sql: ISql) => sql`insert into ${sql(`public.${table}`)} ${sql(row)}`;
      await asUser(insert);
      await asUser((sql) => sql`update ${sql(`public.${table}`)} set outcome = 'answered' where id = ${row.id}`);
      await asUser((sql) => sql`${insert(sql)} on conflict (id) do update set phone_number = excluded.phone_number`);
      await asUser((sql) => sql`select public.log_my_call(${crypto.randomUUID()}, '+15550000')`);
      await asBackend((sql) => sql`insert into ${sql(`public.${table}`)} ${sql({ ...row, id: crypto.randomUUID() })}`);
      await asBackend(async (sql) => {
        const event = { id: crypto.randomUUID(), call_id: call?.["id"], event: "ended" };
        const [answer] = await sql`select public.receive_call_event(${sql.json(event)}) ->> 'success' as success`;
        if (answer?.["success"] !== "true") throw new Error("the webhook's function did not succeed");
      });
      await timed(() => auth.begin((sql) => signUp(sql, crypto.randomUUID(), `${crypto.randomUUID()}@example.com`)));
    }
    await Promise.all([api.end(), auth.end()]);
  })();
  return {
    stop: async () => {
      stopped = true;
      await working;
      return operations;
    },
  };
}
