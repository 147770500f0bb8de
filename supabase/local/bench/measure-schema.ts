import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { pasteList } from "../../cli/adopt-preflight.ts";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { root } from "../project.ts";
import { copyProject, readList } from "../project-copy.ts";
import { findServer, readCpuOfServer } from "./processes.ts";
import { keepPhase1 } from "./shared.ts";

/** How many tables and partitions an application has. */
export interface Size {
  tables: number;
  /** Of one more table. */
  partitions: number;
}

export const steps = ["preflight", "plan", "push", "review", "verify_schema", "verify"] as const;
export interface StepCost {
  seconds: number;
  /** Of the server's CPU, which what else the machine does hardly changes; NaN where the system does not tell. */
  cpuSeconds: number;
}
export type SchemaCost = Record<(typeof steps)[number], StepCost>;

/** Of the shipped application. */
export const shippedTables = 54;

/** The tables that an application of this size has besides the shipped ones: chains of ten, each with a policy, two indexes and rows. */
function addTables({ tables, partitions }: Size): { names: string[]; statements: string } {
  const names = Array.from(
    { length: tables - shippedTables },
    (_, number) => `more_${String(number).padStart(4, "0")}`,
  );
  const statements = names.map((name, number) => `
    create table public.${name} (
      id uuid primary key default gen_random_uuid(), user_id uuid not null, parent_id uuid${
    number % 10 === 0 ? "" : ` references public.${names[number - 1]} (id)`
  }, name text, created_at timestamptz not null default now()
    );
    create index on public.${name} (user_id);
    alter table public.${name} enable row level security;
    create policy "own rows" on public.${name} to authenticated using (user_id = (select auth.uid()));
    insert into public.${name} (user_id, name) select id, 'x' from auth.users;
  `);
  if (partitions === 0) return { names, statements: statements.join("") };
  return {
    names: [...names, "parted"],
    statements: `${statements.join("")}
      create table public.parted (id integer not null, user_id uuid not null, primary key (id)) partition by range (id);
      do $$ begin
        for number in 0..${partitions - 1} loop
          execute format('create table public.parted_%1$s partition of public.parted for values from (%1$s0) to (%1$s9)', number);
        end loop;
      end $$;
      insert into public.parted (id, user_id) select 10 * number, (select id from auth.users limit 1)
      from generate_series(0, ${partitions - 1}) as number;
    `,
  };
}

/** What a step costs, whose sessions end with it. */
async function cost(serverPid: number, act: () => Promise<unknown>): Promise<StepCost> {
  const before = readCpuOfServer(serverPid);
  const start = performance.now();
  await act();
  const seconds = (performance.now() - start) / 1000;
  // A session that has said goodbye takes a moment to be gone.
  await sleep(200);
  return { seconds, cpuSeconds: readCpuOfServer(serverPid) - before };
}

/** What the steps of a push cost an application of this size: each on a connection of its own, as they are called. */
export async function measureSchema(server: PostgresServer, folder: string, size: Size): Promise<SchemaCost> {
  const url = await createDatabase(server.port, "bench_schema", "before");
  const serverPid = await findServer(server);
  const ask = (query: string): Promise<StepCost> =>
    cost(serverPid, async () => {
      const sql: Sql = connect(url);
      await sql`set statement_timeout = 0`;
      await sql.unsafe(query).finally(() => sql.end());
    });
  const { names, statements } = addTables(size);
  await ask(statements);
  await ask("vacuum analyze");
  const list = names.map((name) => `    ('public', '${name}', 'org', 'secondary', null, null),`);
  const pushWith = async (prepare: (folder: string) => void): Promise<void> => {
    rmSync(folder, { recursive: true, force: true });
    const project = copyProject(folder);
    project.append(
      "_EDIT_list_of_tables.sql",
      `insert into tenancy.registry (table_name, scope, priority) select name, 'org', 'secondary' from unnest('{${names}}'::text[]) as name on conflict do nothing;`,
    );
    // All are small, so that the push builds their indexes itself, except in partitions.
    project.append("_EDIT_list_of_tables.sql", "update tenancy.settings set small_table_bytes = 1000000000000;");
    prepare(folder);
    const { code, output } = await project.push(url);
    if (code !== 0) throw new Error(`the push of ${size.tables} tables failed:\n${output}`);
  };

  const rows = `${readList()}${list.join("\n")}`.trimEnd().replace(/,$/, "");
  const preflight = await ask(pasteList(readFileSync(join(root, "supabase/preflight.sql"), "utf8"), rows));
  await pushWith(keepPhase1);
  const costs: SchemaCost = {
    preflight,
    plan: await ask("select count(*) from tenancy.plan"),
    push: await cost(serverPid, () => pushWith(() => {})),
    review: await ask("select count(*) from tenancy.review"),
    verify_schema: await ask("select count(*) from tenancy.verify_schema()"),
    verify: await ask("select count(*) from tenancy.verify()"),
  };
  await dropDatabase(server.port, "bench_schema");
  return costs;
}
