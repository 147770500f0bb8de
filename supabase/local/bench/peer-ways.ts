/** How others give one large table its organizations, to be measured beside the plain plan and these migrations. */
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Sql } from "postgres";
import type { Work } from "./measure-push.ts";
import { readState, table } from "./shared.ts";

const run = promisify(execFile);
const nilId = "00000000-0000-0000-0000-000000000000";
const batchSize = 1000;

async function time(work: () => Promise<unknown>) {
  const from = Date.now();
  await work();
  const to = Date.now();
  return { from, to, seconds: { backfill: (to - from) / 1000 } };
}

/** As people write it: the column, one batch after the other by primary key, each committed, then index, foreign key and NOT NULL. */
export function inBatches(noteLeftOver: (rows: number) => void): Work {
  return async (_url, sql) => {
    await sql`set statement_timeout = 0`;
    const before = await readState(sql);
    const times = await time(async () => {
      await sql.unsafe(`alter table public.${table} add column org_id uuid`);
      for (let last: string | undefined = nilId; last;) last = await updateBatch(sql, last);
      noteLeftOver(await countWithout(sql, "org_id"));
      await sql.unsafe(`create index concurrently idx_${table}_org_id on public.${table} (org_id)`);
      await sql.unsafe(`
        alter table public.${table} add constraint ${table}_org_id_fkey
        foreign key (org_id) references public.organizations (id) on delete cascade not valid
      `);
      await sql.unsafe(`alter table public.${table} validate constraint ${table}_org_id_fkey`);
      // Whoever leaves out the lock has new rows without organization by the time of the last statement, which then fails.
      await sql.begin(async (transaction) => {
        await transaction.unsafe(`lock table public.${table} in access exclusive mode`);
        await transaction.unsafe(`
          update public.${table} as todo set org_id = user_orgs.org_id
          from tenancy.user_orgs
          where todo.org_id is null and user_orgs.user_id = todo.user_id
        `);
        await transaction.unsafe(`alter table public.${table} alter column org_id set not null`);
      });
    });
    return { before, times };
  };
}

/** Returns the last id of the batch; undefined: there is none after this one. */
async function updateBatch(sql: Sql, after: string): Promise<string | undefined> {
  const [row] = await sql`
    with batch as (
      select id, user_id from ${sql(`public.${table}`)} where id > ${after} order by id limit ${batchSize}
    ), updated as (
      update ${sql(`public.${table}`)} as todo
      set org_id = user_orgs.org_id
      from batch
      join tenancy.user_orgs using (user_id)
      where todo.id = batch.id
    )
    select id from batch order by id desc limit 1
  `;
  return row?.["id"] as string | undefined;
}

async function countWithout(sql: Sql, column: string): Promise<number> {
  const [row] = await sql`
    select count(*)::integer as rows from ${sql(`public.${table}`)} where ${sql(column)} is null
  `;
  return row?.["rows"] as number;
}

/** pgroll: a migration with the column, begun and completed, then one with its index, which would slow the first. */
export function withPgroll(program: string, folder: string, noteLeftOver: (rows: number) => void): Work {
  const write = (name: string, operation: unknown) => {
    const file = join(folder, `${name}.json`);
    writeFileSync(file, JSON.stringify({ operations: [operation] }));
    return file;
  };
  const column = write("01_add_org_id", {
    add_column: {
      table,
      column: {
        name: "org_id",
        type: "uuid",
        nullable: false,
        references: { table: "organizations", column: "id", name: `${table}_org_id_fkey`, on_delete: "CASCADE" },
      },
      // Its trigger runs as whoever writes, who may not read the mapping.
      up: "public.org_of_user(user_id)",
    },
  });
  const index = write("02_index_org_id", {
    create_index: { table, name: `idx_${table}_org_id`, columns: [{ column: "org_id" }] },
  });
  return async (url, sql) => {
    const pgroll = (...parameters: string[]) =>
      run(program, [...parameters, "--postgres-url", `${superuser(url)}?sslmode=disable`]);
    await sql.unsafe(`
      create function public.org_of_user(id uuid) returns uuid language sql stable security definer set search_path = ''
      as 'select org_id from tenancy.user_orgs where user_id = id'
    `);
    await pgroll("init");
    await pgroll("baseline", "00_before", folder, "--yes");
    await sql`set statement_timeout = 0`;
    const before = await readState(sql);
    const started = await time(() => pgroll("start", column));
    noteLeftOver(await countWithout(sql, "_pgroll_new_org_id"));
    const completed = await time(async () => {
      await pgroll("complete");
      await pgroll("start", index, "--complete");
    });
    const seconds = { "backfill": started.seconds.backfill + completed.seconds.backfill };
    return { before, times: { from: started.from, to: completed.to, seconds } };
  };
}

const superuser = (url: string) => Object.assign(new URL(url), { username: "supabase_admin" }).href;

/** Rows whose organization is not that of their user. */
export async function countWrong(sql: Sql): Promise<number> {
  const [row] = await sql`
    select count(*)::integer as rows
    from ${sql(`public.${table}`)} as placed
    left join tenancy.user_orgs using (user_id)
    where placed.org_id is distinct from user_orgs.org_id
  `;
  return row?.["rows"] as number;
}
