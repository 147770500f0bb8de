/**
 * npm run bench -- [rows]: the plan as it is usually written against these migrations, on the same data, alternating, in one
 * run. Prints Markdown tables on standard output; what it is at, on standard error. rows: of the largest table.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Sql } from "postgres";
import { fillApplication, migrationFiles, pushApplicationBefore } from "../application.ts";
import { connect, createDatabase, dropDatabase } from "../databases.ts";
import { freePort, type PostgresServer, startPostgres } from "../postgres.ts";
import { formatCount } from "../print.ts";
import { root, stateFolder } from "../project.ts";
import { copyProject } from "../project-copy.ts";

const plainPlan = readFileSync(join(root, "supabase/local/bench/plain-plan.sql"), "utf8");
const runs = 3;
const users = 1000;
const table = "call_logs";
const defaultOrgId = "a0000000-0000-0000-0000-000000000001";
const mapping = `
  insert into public.organizations (id, name)
  select md5('org ' || n)::uuid, 'Organization ' || n from generate_series(0, 99) as n;
  insert into tenancy.user_orgs (user_id, org_id)
  select id, md5('org ' || (row_number() over (order by id)) % 100)::uuid from auth.users;
`;

const phases = ["columns", "backfill", "indexes", "foreign keys", "not null", "immutability"] as const;
type Phase = (typeof phases)[number];
/** Our migrations by what their names end in, and their phase, if it is measured; the plain plan's foreign keys come with the columns. */
const filePhases: [string, Phase | undefined][] = [
  ["_add_org_id_to_existing_tables.sql", "columns"],
  ["_backfill_org_id_from_user_id.sql", "backfill"],
  ["_index_org_id.sql", "indexes"],
  ["_add_org_id_foreign_keys.sql", "foreign keys"],
  ["_add_org_id_not_null_constraints.sql", "not null"],
  ["_create_user_org_metadata_audit.sql", undefined],
  ["_create_org_id_immutability_triggers.sql", "immutability"],
  ["_verify_org_id_migration.sql", undefined],
];

interface Measured {
  /** Seconds by phase. */
  seconds: Partial<Record<Phase, number>>;
  /** Milliseconds of each of the writer's operations while the phases ran. */
  latencies: number[];
  /** How many of them failed. */
  errors: number;
  walBytes: number;
  /** Of the largest table, in bytes. */
  sizeBefore: number;
  sizeAfter: number;
  updates: number;
  hotUpdates: number;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle) - 1] ?? 0)) / 2;
}

function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);

interface Operation {
  begun: number;
  milliseconds: number;
  failed: boolean;
}

/** What an application does to the largest table: it inserts a row, with org_id if there is that column, and changes one of its own. */
function startWriter(url: string): { stop(): Promise<Operation[]> } {
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

async function readState(sql: Sql) {
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

/** Removes the migrations of a copied project that come after phase 1. */
function keepPhase1(folder: string): void {
  const migrations = join(folder, "supabase/migrations");
  for (const name of readdirSync(migrations)) {
    if (name > "20250110020000") rmSync(join(migrations, name));
  }
}

/** Our migration whose name ends so, in two parts: the functions that it defines, and the blocks that apply them. */
function splitMigration(ending: string): [definitions: string, blocks: string] {
  const name = migrationFiles().find((file) => file.endsWith(ending));
  const text = readFileSync(join(root, "supabase/migrations", name ?? ending), "utf8");
  const at = text.indexOf("\ndo $do$");
  return [text.slice(0, at), text.slice(at)];
}

/** Pushes one of the two plans to a fresh copy of the application, with a writer at work, and measures it. */
async function measurePush(server: PostgresServer, kind: "plain" | "ours", mapped: boolean): Promise<Measured> {
  const name = `bench_${kind}`;
  const url = await createDatabase(server.port, name, "before");
  const folder = join(stateFolder(), `bench-${process.pid}`, name);
  rmSync(folder, { recursive: true, force: true });
  const project = copyProject(folder);
  if (mapped) project.append("_discover_org_scoped_tables.sql", mapping);
  if (kind === "plain") {
    keepPhase1(folder);
    writeFileSync(join(folder, "supabase/migrations/20250110020000_plain_plan.sql"), plainPlan);
  }

  const sql = connect(url);
  // The tables are cold in the new database otherwise, and the first to read them pays for that.
  await sql`select count(*) from ${sql(table)} where notes = ''`;
  const writer = startWriter(url);
  await sleep(500);
  const begun = new Map<string, number>();
  let before = await readState(sql);
  let output = "";
  const { result } = project.startPush(url, (text) => {
    output += text;
    for (const [, file] of output.matchAll(/Applying migration \d+(_\S+)\.\.\./g)) {
      if (!begun.has(file as string)) begun.set(file as string, Date.now());
    }
  });
  while (!begun.has("_add_org_id_to_existing_tables.sql") && !begun.has("_plain_plan.sql")) {
    before = await readState(sql);
    await sleep(5);
  }
  const { code } = await result;
  await sleep(1200);
  const after = await readState(sql);
  const operations = await writer.stop();
  if (code !== 0) {
    await sql.end();
    if (kind === "ours" || !output.includes("deadlock detected")) throw new Error(`the push failed:\n${output}`);
    say("  the plain plan was the victim of a deadlock with the writer, and is pushed to a new copy");
    return await measurePush(server, kind, mapped);
  }

  const seconds: Partial<Record<Phase, number>> = {};
  let from: number;
  let to: number;
  if (kind === "ours") {
    filePhases.forEach(([file, phase], index) => {
      const next = filePhases[index + 1]?.[0];
      if (next && phase) seconds[phase] = ((begun.get(next) ?? 0) - (begun.get(file) ?? 0)) / 1000;
    });
    from = begun.get("_add_org_id_to_existing_tables.sql") ?? 0;
    to = begun.get("_verify_org_id_migration.sql") ?? 0;
  } else {
    const marks = await sql<{ name: string; at: number }[]>`
      select name, extract(epoch from ended_at)::double precision as at from bench.phases order by ended_at
    `;
    const names: Record<string, Phase> = { not_null: "not null" };
    marks.forEach(({ name, at }, index) => {
      const last = marks[index - 1];
      if (last) seconds[names[name] ?? (name as Phase)] = at - last.at;
    });
    from = (marks[0]?.at ?? 0) * 1000;
    to = (marks.at(-1)?.at ?? 0) * 1000;
  }
  await sql.end();
  await dropDatabase(server.port, name);
  const meanwhile = operations.filter(({ begun, milliseconds }) => begun + milliseconds >= from && begun <= to);
  return {
    seconds,
    latencies: meanwhile.map(({ milliseconds }) => milliseconds),
    errors: meanwhile.filter(({ failed }) => failed).length,
    walBytes: after.wal - before.wal,
    sizeBefore: before.size,
    sizeAfter: after.size,
    updates: after.updates - before.updates,
    hotUpdates: after.hot - before.hot,
  };
}

/** Rows per second of the backfill alone, no writer, no index, no foreign key: one UPDATE against ours. */
async function measureBackfill(
  server: PostgresServer,
  kind: "plain" | "ours",
): Promise<Omit<Measured, "seconds" | "latencies" | "errors"> & { rate: number }> {
  const name = `bench_backfill_${kind}`;
  const url = await createDatabase(server.port, name, "columns");
  const sql = connect(url);
  const [counted] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  await sql`set statement_timeout = 0`;
  const before = await readState(sql);
  const start = performance.now();
  let seconds: number;
  if (kind === "plain") {
    await sql`set session_replication_role = replica`;
    await sql.unsafe(
      `update ${table} as todo set org_id = user_orgs.org_id from tenancy.user_orgs where user_orgs.user_id = todo.user_id`,
    );
    seconds = (performance.now() - start) / 1000;
  } else {
    const [, blocks] = splitMigration("_backfill_org_id_from_user_id.sql");
    for (const block of blocks.split("\n\n")) await sql.unsafe(block);
    // Of this table alone, which is gone through in one piece.
    const [spent] = await sql`
      select extract(epoch from finished_at - started_at)::double precision as seconds
      from tenancy.backfills
      where relation = ${table}::regclass
    `;
    seconds = spent?.["seconds"] as number;
  }
  const [left] = await sql`select count(*)::integer as rows from ${sql(table)} where org_id is null`;
  if (left?.["rows"] !== 0) throw new Error(`${left?.["rows"]} rows without organization after the backfill`);
  await sleep(1200);
  const after = await readState(sql);
  await sql.end();
  await dropDatabase(server.port, name);
  return {
    rate: (counted?.["rows"] as number) / seconds,
    walBytes: after.wal - before.wal,
    sizeBefore: before.size,
    sizeAfter: after.size,
    updates: after.updates - before.updates,
    hotUpdates: after.hot - before.hot,
  };
}

/** Microseconds that an update of another column takes: without trigger, under the plan's, under ours. */
async function measureTriggers(
  server: PostgresServer,
  rows: number,
): Promise<{ none: number; plain: number; ours: number }> {
  const url = await createDatabase(server.port, "bench_triggers", "columns");
  const sql = connect(url);
  await sql`set statement_timeout = 0`;
  const kinds = ["none", "plain", "ours"] as const;
  const times = { none: [] as number[], plain: [] as number[], ours: [] as number[] };
  await sql.unsafe(plainPlan.match(/create function[^]*?\$function\$;/)?.[0] ?? "");
  await sql.unsafe(splitMigration("_create_org_id_immutability_triggers.sql")[0]).simple();
  await sql`set statement_timeout = 0`;
  for (const kind of kinds) {
    await sql.unsafe(`
      create table public.bench_${kind} (like public.${table} including all) with (autovacuum_enabled = off);
      insert into public.bench_${kind} select * from public.${table} limit ${rows};
      update public.bench_${kind} set org_id = '${defaultOrgId}';
    `).simple();
  }
  await sql.unsafe(
    "create trigger guard before update on public.bench_plain for each row execute function public.prevent_org_id_change()",
  );
  await sql`select tenancy.make_org_id_immutable('public.bench_ours')`;
  for (let round = 0; round <= 7; round++) {
    for (let turn = 0; turn < kinds.length; turn++) {
      const kind = kinds[(round + turn) % kinds.length] as (typeof kinds)[number];
      await sql.unsafe(`vacuum public.bench_${kind}`);
      const start = performance.now();
      await sql.unsafe(`update public.bench_${kind} set outcome = 'round ${round}'`);
      // The first round finds tables that no vacuum has seen.
      if (round > 0) times[kind].push(((performance.now() - start) * 1000) / rows);
    }
  }
  await sql.end();
  await dropDatabase(server.port, "bench_triggers");
  return { none: median(times.none), plain: median(times.plain), ours: median(times.ours) };
}

function markdown(header: string[], rows: string[][]): string {
  return [header, header.map((_, column) => (column === 0 ? "---" : "---:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n");
}

const megabytes = (bytes: number) => `${formatCount(Math.round(bytes / 2 ** 20))} MB`;
const ratio = (large: number, small: number) =>
  `${large / small < 100 ? (large / small).toPrecision(3) : formatCount(Math.round(large / small))} ×`;

/** Phases 2 to 4 in all, in seconds. */
const phases2to4 = ({ seconds }: Measured) =>
  sum(phases.filter((phase) => phase !== "immutability").map((phase) => seconds[phase] ?? 0));

function comparePushes(plain: Measured[], ours: Measured[]): string[][] {
  const both = (name: string, read: (run: Measured) => number, show: (value: number) => string, isRatio = true) => {
    const [left, right] = [median(plain.map(read)), median(ours.map(read))];
    return [name, show(left), show(right), isRatio ? ratio(left, right) : ""];
  };
  const seconds = (value: number) => (value === 0 ? "" : `${value.toFixed(value < 1 ? 2 : 1)} s`);
  const milliseconds = (value: number) => `${formatCount(Math.round(value * 10) / 10)} ms`;
  const percent = (value: number) => `${Math.round(value * 100)} %`;
  return [
    both("**phases 2–4 in all**", phases2to4, seconds),
    ...phases.map((phase) => both(phase, (run) => run.seconds[phase] ?? 0, seconds, false)),
    both("writer: longest stall", (run) => Math.max(...run.latencies), milliseconds),
    both("writer: p99", (run) => percentile(run.latencies, 0.99), milliseconds, false),
    both("writer: operations meanwhile", (run) => run.latencies.length, formatCount, false),
    both(
      "writer: operations per second",
      (run) => run.latencies.length / sum(Object.values(run.seconds)),
      (value) => formatCount(Math.round(value)),
      false,
    ),
    both("writer: errors", (run) => run.errors, formatCount, false),
    both("WAL", (run) => run.walBytes, megabytes),
    both(`growth of ${table}`, (run) => run.sizeAfter / run.sizeBefore - 1, percent, false),
    both("HOT updates", (run) => run.hotUpdates / Math.max(run.updates, 1), percent, false),
  ];
}

async function bench(rows: number): Promise<void> {
  const folder = join(stateFolder(), `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const started = Date.now();
  const server = await startPostgres({
    port: await freePort(),
    folder: join(folder, "server"),
    settings: { fsync: "on", shared_buffers: "2GB", max_wal_size: "16GB", checkpoint_timeout: "30min" },
  });
  try {
    say(`The application, with ${formatCount(rows)} rows in ${table}…`);
    const before = await createDatabase(server.port, "before", "postgres");
    await pushApplicationBefore(before, folder);
    await fillApplication(before, { users, rows: 1000 });
    const filler = connect(before);
    await filler`set statement_timeout = 0`;
    // Each row of a call of its own user, in the order of time: one UPDATE by the mapping reaches every row.
    await filler`
      insert into public.calls (user_id, started_at)
      select id, now() - make_interval(days => number)
      from auth.users, generate_series(1, 20) as number
    `;
    await filler`truncate ${filler(table)} cascade`;
    await filler`
      insert into ${filler(table)} (user_id, call_id, phone_number, outcome, notes, created_at)
      select call.user_id, call.id, '+1555' || drawn.n, 'no answer', repeat('x', 60), now() - make_interval(secs => ${rows} - drawn.n)
      from (
        select n, 1 + floor(random() * ${users * 20})::integer as number
        from generate_series(1, ${rows}::integer) as n
      ) as drawn
      join (
        select calls.id, calls.user_id, row_number() over (order by calls.id) as number
        from public.calls
        where started_at < now()
          and user_id in (select id from auth.users)
        limit ${users * 20}
      ) as call
        using (number)
      order by drawn.n
    `;
    await filler`vacuum (freeze, analyze)`;
    const [size] =
      await filler`select pg_relation_size(${table}::regclass)::text as heap, pg_indexes_size(${table}::regclass)::text as indexes`;
    const [{ version } = { version: "" }] = await filler`select current_setting('server_version') as version`;
    await filler.end();

    const pushes: Record<string, Measured[]> = {};
    for (const mapped of [false, true]) {
      for (let run = 1; run <= runs; run++) {
        for (const kind of ["plain", "ours"] as const) {
          const measured = await measurePush(server, kind, mapped);
          (pushes[`${kind} ${mapped}`] ??= []).push(measured);
          say(
            `  ${mapped ? "mapped" : "single organization"}, run ${run} of ${runs}, ${
              kind === "plain" ? "plain plan" : "ours"
            }: ` +
              `phases 2–4 ${phases2to4(measured).toFixed(1)} s, longest stall ${
                Math.max(...measured.latencies).toFixed(0)
              } ms`,
          );
        }
      }
    }

    const columns = await createDatabase(server.port, "columns", "before");
    const project = copyProject(join(folder, "columns"));
    project.append("_discover_org_scoped_tables.sql", mapping);
    keepPhase1(join(folder, "columns"));
    const { code, output } = await project.push(columns);
    if (code !== 0) throw new Error(output);
    const preparer = connect(columns);
    for (const ending of ["_add_org_id_to_existing_tables.sql", "_backfill_org_id_from_user_id.sql"]) {
      const [definitions, blocks] = splitMigration(ending);
      await preparer.unsafe(definitions).simple();
      if (ending.startsWith("_add")) { for (const block of blocks.split("\n\n")) await preparer.unsafe(block); }
    }
    await preparer`vacuum (freeze, analyze)`;
    await preparer.end();
    const backfills = {
      plain: [] as Awaited<ReturnType<typeof measureBackfill>>[],
      ours: [] as Awaited<ReturnType<typeof measureBackfill>>[],
    };
    for (let run = 1; run <= runs; run++) {
      for (const kind of ["plain", "ours"] as const) {
        const measured = await measureBackfill(server, kind);
        backfills[kind].push(measured);
        say(
          `  backfill alone, run ${run} of ${runs}, ${kind === "plain" ? "one UPDATE" : "ours"}: ${
            formatCount(Math.round(measured.rate))
          } rows a second`,
        );
      }
    }
    say("  triggers…");
    const triggers = await measureTriggers(server, Math.min(rows, 200_000));

    const single = { plain: pushes["plain false"] ?? [], ours: pushes["ours false"] ?? [] };
    const mapped = { plain: pushes["plain true"] ?? [], ours: pushes["ours true"] ?? [] };
    const header = ["", "plain plan", "these migrations", "ratio"];
    console.log(
      [
        `${formatCount(rows)} rows in ${table} (${megabytes(Number(size?.["heap"]))} and ${
          megabytes(Number(size?.["indexes"]))
        } of indexes), 44 other tables of ` +
        `1,000 rows or more, a writer at work; medians of ${runs} alternating runs. PostgreSQL ${version}, fsync on, shared_buffers 2 GB, ` +
        `${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}.`,
        "",
        "One organization:",
        "",
        markdown(header, comparePushes(single.plain, single.ours)),
        "",
        "Mapped, 100 organizations:",
        "",
        markdown(header, comparePushes(mapped.plain, mapped.ours)),
        "",
        "The mapped backfill alone, on a column without index and foreign key, nothing else at work:",
        "",
        markdown(["", "one UPDATE", "these migrations", "ratio"], [
          [
            "rows per second",
            ...[backfills.plain, backfills.ours].map((of) =>
              formatCount(Math.round(median(of.map(({ rate }) => rate))))
            ),
            ratio(median(backfills.ours.map(({ rate }) => rate)), median(backfills.plain.map(({ rate }) => rate))),
          ],
          [
            "WAL",
            ...[backfills.plain, backfills.ours].map((of) => megabytes(median(of.map(({ walBytes }) => walBytes)))),
            ratio(
              median(backfills.plain.map(({ walBytes }) => walBytes)),
              median(backfills.ours.map(({ walBytes }) => walBytes)),
            ),
          ],
          [
            "growth",
            ...[backfills.plain, backfills.ours].map((of) =>
              `${Math.round(median(of.map((run) => run.sizeAfter / run.sizeBefore - 1)) * 100)} %`
            ),
            "",
          ],
          [
            "HOT updates",
            ...[backfills.plain, backfills.ours].map((of) =>
              `${Math.round(median(of.map((run) => run.hotUpdates / run.updates)) * 100)} %`
            ),
            "",
          ],
        ]),
        "",
        `An update of another column, ${formatCount(Math.min(rows, 200_000))} rows of ${table}, median of 7:`,
        "",
        markdown(["", "no trigger", "the plain plan's", "ours"], [
          ["per row", ...[triggers.none, triggers.plain, triggers.ours].map((time) => `${time.toFixed(2)} µs`)],
          ["against none", "1 ×", ratio(triggers.plain, triggers.none), ratio(triggers.ours, triggers.none)],
        ]),
        "",
      ].join("\n"),
    );
    say(`${formatCount(Math.round((Date.now() - started) / 1000))} s in all.`);
  } finally {
    await server.stop("immediate");
    rmSync(folder, { recursive: true, force: true });
  }
}

const [argument = "1000000", ...others] = process.argv.slice(2);
const rows = Number(argument.replaceAll("_", ""));
if (others.length > 0 || !Number.isInteger(rows) || rows < 1000 || rows > 1_000_000_000) {
  say(
    `Cannot run the benchmark with ${
      JSON.stringify(process.argv.slice(2).join(" "))
    }: the one argument is the number of rows, from 1000 to 1000000000`,
  );
  process.exitCode = 1;
} else {
  await bench(rows);
}
