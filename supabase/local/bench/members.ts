/**
 * npm run bench:members -- [minutes]: what the token hook and a switch cost with 100,000 users and 300,000 memberships, and a storm
 * of so many minutes over memberships, half of it with the hook. Times count on a quiet machine, CPU time on any. Prints Markdown
 * tables on standard output; what it is at, on standard error.
 */
import { readFileSync } from "node:fs";
import type { Sql } from "postgres";
import { formatCount } from "../../cli/print.ts";
import { pushTarget } from "../application.ts";
import { connect, createDatabase } from "../databases.ts";
import { runStorm, type Storm } from "../members-storm.ts";
import { databaseUrl, freePort, type PostgresServer } from "../postgres.ts";
import { type Services, startServices } from "../stack.ts";
import { supabase } from "../supabase-cli.ts";
import { machine, readCount, runBench } from "./command.ts";
import { markdown, median, percentile, say } from "./print.ts";

const users = 100_000;
const organizations = 1000;
/** Each user is in as many organizations. */
const memberships = 3;
/** Tokens of each kind, with the hook and without in turn. */
const pairs = { password: 150, refresh: 1000 };
const calls = 2000;
const password = "correct horse";
const hook = "tenancy.add_org_id_to_token";
const emptyHook = "public.change_nothing";

const serve = async (port: number, database: string, folder: string, tokenHook: string | null): Promise<Services> =>
  await startServices({
    databaseUrl: (role) => databaseUrl(port, { database, role }),
    apiPort: await freePort(),
    jwtExpiry: 3600,
    tokenHook,
    folder,
  });

/** Returns what it took to enable memberships. */
async function createMembers(sql: Sql): Promise<string> {
  say(`${formatCount(users)} users in ${memberships} of ${formatCount(organizations)} organizations each…`);
  await sql.unsafe(`
    insert into public.organizations (id, name)
    select md5('organization ' || n)::uuid, 'Organization ' || n from generate_series(0, ${organizations - 1}) as n;
    insert into auth.users (
      instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
      email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
    )
    select
      '00000000-0000-0000-0000-000000000000', md5('user ' || n)::uuid, 'authenticated', 'authenticated', format('user%s@example.com', n),
      password.hash, now(), '', '', '', '', '{"provider": "email", "providers": ["email"]}', '{"full_name": "A user"}', now(), now()
    from generate_series(1, ${users}) as n
    -- The cost that the Auth server takes.
    cross join (select extensions.crypt('${password}', extensions.gen_salt('bf', 10))) as password (hash);
    create table public.company_members (user_id uuid, company_id uuid, position text, primary key (user_id, company_id));
    insert into public.company_members
    select md5('user ' || n)::uuid, md5('organization ' || (n * 7 + m * 311) % ${organizations})::uuid, 'member'
    from generate_series(1, ${users}) as n
    cross join generate_series(1, ${memberships}) as m;
    create function ${emptyHook}(event jsonb) returns jsonb language plpgsql stable as 'begin return event; end';
    grant execute on function ${emptyHook} to supabase_auth_admin;
    insert into tenancy.user_orgs (user_id, org_id)
    select distinct on (user_id) user_id, company_id from public.company_members order by user_id, company_id;
  `).simple();
  const began = performance.now();
  const cpu = await cpuSeconds(
    sql,
    () => sql`select tenancy.enable_memberships('public.company_members', 'user_id', 'company_id', 'position')`,
  );
  const enabled = `enable_memberships(): ${((performance.now() - began) / 1000).toFixed(1)} s, ${
    cpu.toFixed(1)
  } s of CPU`;
  say(`  ${enabled}`);
  await sql`select tenancy.enable_token_hook()`;
  await sql`vacuum (freeze, analyze)`;
  return enabled;
}

/** Seconds of CPU that the session's server process spends meanwhile; not a number where the system does not say (it is not Linux). */
async function cpuSeconds(sql: Sql, act: () => Promise<unknown>): Promise<number> {
  const [row] = await sql`select pg_backend_pid() as pid`;
  const read = () => {
    try {
      const [user, system] = readFileSync(`/proc/${row?.["pid"]}/stat`, "utf8").split(") ")[1]?.split(" ").slice(11) ??
        [];
      return (Number(user) + Number(system)) / 100;
    } catch {
      return NaN;
    }
  };
  const before = read();
  await act();
  return read() - before;
}

interface Grant {
  access_token: string;
  refresh_token: string;
}

async function issue({ api, keys }: Services, grant: string, body: Record<string, string>): Promise<Grant> {
  const response = await fetch(`${api.url}/auth/v1/token?grant_type=${grant}`, {
    method: "POST",
    headers: { apikey: keys.publishableKey },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await response.text());
  return await response.json() as Grant;
}

async function timed<Result>(act: () => Promise<Result>): Promise<{ ms: number; result: Result }> {
  const began = performance.now();
  const result = await act();
  return { ms: performance.now() - began, result };
}

/** Milliseconds of tokens with the hook and without, in turn and in alternating order. */
async function compareTokens(plain: Services, hooked: Services, grant: "password" | "refresh_token", count: number) {
  const times = { plain: [] as number[], hooked: [] as number[] };
  const sides = [["plain", plain], ["hooked", hooked]] as const;
  const signIn = (services: Services, number: number) =>
    issue(services, "password", { email: `user${number}@example.com`, password });
  const tokens = new Map<string, string>();
  for (const [side, services] of sides) tokens.set(side, (await signIn(services, 1)).refresh_token);
  for (let pair = -20; pair < count; pair++) {
    for (const [side, services] of pair % 2 === 0 ? sides : sides.toReversed()) {
      const { ms, result } = await timed(() =>
        grant === "password"
          ? signIn(services, 100 + pair)
          : issue(services, grant, { refresh_token: tokens.get(side) ?? "" })
      );
      tokens.set(side, result.refresh_token);
      // The first ones are not counted.
      if (pair >= 0) times[side].push(ms);
    }
  }
  return times;
}

/** Ours against none, and against one that does nothing, which takes the same requests of the Auth server at the database. */
async function measureTokens(port: number, database: string, folder: string): Promise<string> {
  const none = await serve(port, database, folder, null);
  const empty = await serve(port, database, folder, emptyHook);
  const ours = await serve(port, database, folder, hook);
  try {
    const rows: string[][] = [];
    for (
      const [what, against, grant, count] of [
        ["signing in with a password, against no hook", none, "password", pairs.password],
        ["signing in with a password, against a hook that does nothing", empty, "password", pairs.password],
        ["refreshing a session, against no hook", none, "refresh_token", pairs.refresh],
        ["refreshing a session, against a hook that does nothing", empty, "refresh_token", pairs.refresh],
      ] as const
    ) {
      const times = await compareTokens(against, ours, grant, count);
      const other = median(times.plain);
      // Of each pair, since the machine may be busier at one time than at another.
      const more = median(times.hooked.map((ms, pair) => ms - (times.plain[pair] ?? NaN)));
      rows.push([what, `${other.toFixed(2)} ms`, `${more.toFixed(2)} ms`, `${(1 + more / other).toFixed(3)} ×`]);
      say(`  ${rows.at(-1)?.join("  ")}`);
    }
    return markdown(["a token", "without ours", "ours adds", "ratio"], rows);
  } finally {
    await Promise.all([none, empty, ours].map((services) => services.stop()));
  }
}

/** Milliseconds on the server of so many calls of a statement, $1 being each time another number. */
async function timeOnServer(sql: Sql, preparation: string, statement: string): Promise<number[]> {
  await sql.unsafe(`
    create or replace function pg_temp.measure() returns setof double precision language plpgsql as $measure$
    declare
      began timestamptz;
      number integer;
    begin
      for number in select 1 + (n * 7919) % ${users} from generate_series(1, ${calls}) as n loop
        ${preparation}
        began := clock_timestamp();
        ${statement}
        return next extract(epoch from clock_timestamp() - began) * 1000;
      end loop;
    end
    $measure$
  `);
  const rows = await sql<{ ms: number }[]>`select pg_temp.measure() as ms`;
  return rows.map(({ ms }) => ms);
}

/** What a token costs the server besides, by so many calls in a row, of which the loop itself is taken off. */
async function measureCpu(sql: Sql): Promise<string> {
  const count = 100_000;
  const loop = async (statement: string) =>
    await cpuSeconds(sql, () =>
      sql.unsafe(`
        do $$
        declare
          number integer;
          event jsonb;
        begin
          for number in 1..${count} loop
            event := ${tokenEvent};
            ${statement}
          end loop;
        end
        $$
      `));
  const idle = await loop("");
  const rows: string[][] = [];
  for (const [what, called] of [["a hook that does nothing", emptyHook], ["ours", hook]] as const) {
    const cells = [what, `${(((await loop(`perform ${called}(event);`)) - idle) * 1e6 / count).toFixed(1)} µs`];
    say(`  ${cells.join("  ")}`);
    rows.push(cells);
  }
  return markdown(["CPU per call", ""], rows);
}

const tokenEvent =
  `jsonb_build_object('user_id', md5('user ' || number)::uuid, 'claims', '{"app_metadata": {"provider": "email"}}'::jsonb)`;
const asUser =
  `perform set_config('request.jwt.claims', json_build_object('sub', md5('user ' || number)::uuid)::text, true);`;
const theirs =
  `(select company_id from public.company_members where user_id = md5('user ' || number)::uuid order by random() limit 1)`;

/** What one switch reads: how often an index of each table, and which tables as a whole. */
async function readScans(sql: Sql): Promise<string> {
  const read = async (transaction: Sql) =>
    new Map(
      (await transaction<{ name: string; index: number; whole: number }[]>`
        select relid::regclass::text as name, coalesce(idx_scan, 0)::integer as index, seq_scan::integer as whole
        from pg_stat_xact_all_tables
        where schemaname in ('tenancy', 'auth', 'public') and relname <> 'settings'
      `).map((row) => [row.name, row]),
    );
  return await sql.begin(async (transaction) => {
    await transaction.unsafe(`do $$ declare number integer := 17; begin ${asUser} end $$`);
    const [row] = await transaction`
      select memberships.org_id
      from tenancy.memberships
      left join tenancy.user_orgs using (user_id, org_id)
      where memberships.user_id = md5('user 17')::uuid and user_orgs.user_id is null
      limit 1
    `;
    const before = await read(transaction as unknown as Sql);
    await transaction`select public.switch_organization(${row?.["org_id"]})`;
    const after = await read(transaction as unknown as Sql);
    return [...after].flatMap(([name, { index, whole }]) => {
      const more = index - (before.get(name)?.index ?? 0);
      if (whole > (before.get(name)?.whole ?? 0)) return [`${name} as a whole`];
      return more > 0 ? [`${name} ${more}`] : [];
    }).join(", ");
  });
}

async function measureServer(sql: Sql): Promise<string> {
  const member = `row(md5('user ' || number)::uuid, ${theirs})`;
  const row = (what: string, times: number[]) => {
    const cells = [what, ...[median(times), percentile(times, 0.99)].map((ms) => `${ms.toFixed(3)} ms`)];
    say(`  ${cells.join("  ")}`);
    return cells;
  };
  const rows = [
    row("the hook", await timeOnServer(sql, "", `perform ${hook}(${tokenEvent});`)),
    row("a switch, with the hook", await timeOnServer(sql, asUser, `perform public.switch_organization(${theirs});`)),
  ];
  await sql`select tenancy.disable_token_hook()`;
  rows.push(
    row("a switch, without it", await timeOnServer(sql, asUser, `perform public.switch_organization(${theirs});`)),
    row("my_organizations()", await timeOnServer(sql, asUser, "perform from public.my_organizations();")),
    row(
      "a role that changes in the application's table, copied",
      await timeOnServer(
        sql,
        "",
        `update public.company_members set position = 'role ' || random() where (user_id, company_id) = ${member};`,
      ),
    ),
  );
  const scans = await readScans(sql);
  return [
    markdown(["", "median", "99 of 100 below"], rows),
    "",
    `Index lookups of a switch without the hook: ${scans}.`,
  ].join("\n");
}

function describeStorm({ counts, users: signedUp, staleBefore, wrong }: Storm, what: string, minutes: number): string {
  const done = Object.entries(counts).map(([name, times]) => `${formatCount(times)} ${name}`).join(", ");
  say(wrong.slice(0, 20).join("\n"));
  return `- ${what}, ${minutes} minutes: ${done}. Of ${
    formatCount(signedUp)
  } users, **${wrong.length}** in a wrong organization or none` +
    ` (app_metadata of ${staleBefore} waited for the last run).`;
}

async function storm(server: PostgresServer, folder: string, template: string, minutes: number): Promise<string> {
  const lines: string[] = [];
  for (const withHook of [true, false]) {
    const what = withHook ? "with the hook" : "without it";
    say(`The storm, ${what}…`);
    const url = await createDatabase(server.port, "storm", template);
    const services = await serve(server.port, "storm", folder, withHook ? hook : null);
    try {
      await services.serve("update-user-org-metadata");
      const report = (counts: Record<string, number>) => say(`  ${JSON.stringify(counts)}`);
      const below = (limit: number) => Math.floor(Math.random() * limit);
      const seconds = minutes * 60;
      lines.push(describeStorm(await runStorm({ url, services, seconds, withHook, below, report }), what, minutes));
      say(lines.at(-1) ?? "");
    } finally {
      await services.stop();
    }
  }
  return lines.join("\n");
}

async function measure(server: PostgresServer, folder: string, minutes: number): Promise<string> {
  say("The migrations…");
  const url = await createDatabase(server.port, "bench_template", "postgres");
  await supabase(["db", "push", ...pushTarget(url)]);
  await createDatabase(server.port, "bench_members", "bench_template");
  const sql = connect(databaseUrl(server.port, { database: "bench_members", role: "postgres" }));
  await sql`set statement_timeout = 0`;
  const enabled = await createMembers(sql);
  const tokens = await measureTokens(server.port, "bench_members", folder);
  const cpu = await measureCpu(sql);
  const onServer = await measureServer(sql);
  await sql.end();
  const storms = await storm(server, folder, "bench_template", minutes / 2);
  return [
    `${formatCount(users)} users, ${
      formatCount(users * memberships)
    } memberships. PostgreSQL 17, fsync off, ${machine()}. ${enabled}.`,
    tokens,
    cpu,
    onServer,
    storms,
  ].join("\n\n");
}

// fsync is off: the server answers as fast as it can, and what the hook adds to that counts the most.
const settings = { shared_buffers: "512MB", max_wal_size: "4GB" };
const minutes = readCount("minutes of the storms", 10, 0.1, 600);
if (minutes !== undefined) await runBench(settings, (server, folder) => measure(server, folder, minutes));
