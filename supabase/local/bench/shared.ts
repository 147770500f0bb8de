import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { migrationFiles } from "../application.ts";
import { mapUsers, organizationIds } from "../mapping.ts";
import { root } from "../project.ts";

export const plainPlan = readFileSync(join(import.meta.dirname, "plain-plan.sql"), "utf8");
export const kinds = ["plain", "ours"] as const;
export type Kind = (typeof kinds)[number];
/** How often each is measured, in turn. */
export const runs = 3;
/** The largest table. */
export const table = "call_logs";
export const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
/** For the list of tables: whoever signs up gets an organization of their own, all others are mapped. */
export const mapping = `select tenancy.enable_new_users('personal'); ${mapUsers(organizationIds(100))}`;

export const serverSettings = { fsync: "on", shared_buffers: "2GB", max_wal_size: "16GB", checkpoint_timeout: "30min" };

/** What measuring a table takes from its statistics, before and after. */
export async function readState(sql: Sql) {
  const [state] = await sql`
    select
      (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::text as wal,
      pg_relation_size(${table}::regclass)::text as size,
      pg_stat_get_tuples_updated(${table}::regclass)::text as updates,
      pg_stat_get_tuples_hot_updated(${table}::regclass)::text as hot
  `;
  return {
    wal: Number(state?.["wal"]),
    size: Number(state?.["size"]),
    updates: Number(state?.["updates"]),
    hot: Number(state?.["hot"]),
  };
}

/** What changed between two states of the largest table. */
export interface Growth {
  walBytes: number;
  /** Of the table, in bytes. */
  sizeBefore: number;
  sizeAfter: number;
  updates: number;
  hotUpdates: number;
}

export type State = Awaited<ReturnType<typeof readState>>;

export const compareStates = (before: State, after: State): Growth => ({
  walBytes: after.wal - before.wal,
  sizeBefore: before.size,
  sizeAfter: after.size,
  updates: after.updates - before.updates,
  hotUpdates: after.hot - before.hot,
});

/** Removes the migrations of a copied project that come after phase 1. */
export function keepPhase1(folder: string): void {
  const migrations = join(folder, "supabase/migrations");
  for (const name of readdirSync(migrations)) {
    if (name >= "20250110030000") rmSync(join(migrations, name));
  }
}

/** Runs the loops of our migration whose name ends so, each a line of it, without what it sets before them. */
export async function runLoops(sql: Sql, ending: string): Promise<void> {
  const name = migrationFiles().find((file) => file.endsWith(ending));
  const text = readFileSync(join(root, "supabase/migrations", name ?? ending), "utf8");
  const loops = text.match(/^do \$\$ begin while tenancy\.advance\(.*\$\$;$/gm);
  if (!loops) throw new Error(`Cannot find a loop in the migration ending in ${ending}`);
  for (const loop of loops) await sql.unsafe(loop);
}

/** Makes these parts of one table, until all are present. */
export async function repeatParts(sql: Sql, target: string, parts: string[]): Promise<void> {
  for (let more = true; more;) {
    const [row] = await sql`select tenancy.build(${target}::regclass, variadic ${parts}::text[]) as more`;
    more = row?.["more"] === true;
  }
}
