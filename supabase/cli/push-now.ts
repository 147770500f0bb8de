import { closeLive, connectLive } from "./live-database.ts";

/** A row of tenancy.now, with times as seconds. */
export interface Now {
  status: "not begun" | "running" | "blocked" | "paused" | "idle" | "dead" | "done";
  session_pid: number | null;
  /** Since the session began. */
  session_seconds: number | null;
  paused_seconds: number | null;
  phase: number | null;
  step: string | null;
  relation: string | null;
  table_number: number | null;
  tables: number | null;
  percent: number;
  rows_per_second: number | null;
  seconds_left: number | null;
  wal_bytes: number | null;
  blocked_seconds: number | null;
  waits_for: string | null;
  blocked_by: string | null;
  unblock: string | null;
  next: string | null;
}

export interface NowReader {
  /** undefined: the migrations that make the view are not there yet. */
  read(): Promise<Now | undefined>;
  close(): Promise<void>;
}

/** invalid_schema_name, undefined_table, _column, _function: a push that is at the library, for the first time or anew. */
export const notThereYet: readonly string[] = ["3F000", "42P01", "42703", "42883"];

/** Opens a connection of its own, which holds nothing between two reads. */
export function openNow(url: string): NowReader {
  const sql = connectLive(url, {
    connect_timeout: 10,
    idle_timeout: 60,
    connection: { application_name: "npm run watch" },
  });
  return {
    read: async () => {
      try {
        const [now] = await sql<Now[]>`
          select
            now.status, now.session_pid,
            extract(epoch from clock_timestamp() - now.session_began)::float8 as session_seconds,
            extract(epoch from clock_timestamp() - now.paused_since)::float8 as paused_seconds,
            now.phase, now.step, now.relation::text as relation, now.table_number::integer as table_number,
            now.tables::integer as tables, now.percent::float8 as percent, now.rows_per_second,
            extract(epoch from now.time_left)::float8 as seconds_left, now.wal_bytes::float8 as wal_bytes,
            extract(epoch from clock_timestamp() - now.blocked_since)::float8 as blocked_seconds,
            now.waits_for, now.blocked_by, now.unblock, now.next
          from tenancy.now
        `;
        return now;
      } catch (error) {
        if (notThereYet.includes((error as { code?: string }).code ?? "")) return undefined;
        throw error;
      }
    },
    close: () => closeLive(sql),
  };
}
