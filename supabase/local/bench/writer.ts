import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../databases.ts";
import { defaultOrgId, table } from "./shared.ts";

export interface Operation {
  begun: number;
  milliseconds: number;
  failed: boolean;
}

/** What an application does to the largest table: it inserts a row, with org_id if there is that column, and changes one of its own. */
export function startWriter(url: string): { stop(): Promise<Operation[]> } {
  const operations: Operation[] = [];
  let stopped = false;
  const working = (async () => {
    const sql = connect(url);
    await sql`set statement_timeout = 0`;
    const [user] = await sql`select id from auth.users order by id limit 1`;
    const timed = async (statement: () => Promise<unknown>) => {
      const begun = Date.now();
      const start = performance.now();
      const failed = await statement().then(() => false, () => true);
      operations.push({ begun, milliseconds: performance.now() - start, failed });
      await sleep(2);
    };
    while (!stopped) {
      const row = {
        id: crypto.randomUUID(),
        user_id: user?.["id"],
        phone_number: "+15550000",
        created_at: new Date().toISOString(),
        org_id: defaultOrgId,
      };
      await timed(() =>
        sql.unsafe(
          `insert into public.${table} select (jsonb_populate_record(null::public.${table}, $1::text::jsonb)).*`,
          [
            JSON.stringify(row),
          ],
        )
      );
      await timed(() => sql.unsafe(`update public.${table} set outcome = 'answered' where id = $1`, [row.id]));
    }
    await sql.end();
  })();
  return {
    stop: async () => {
      stopped = true;
      await working;
      return operations;
    },
  };
}
