import { connect, createDatabase, dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { defaultOrgId, plainPlan, table } from "./shared.ts";
import { median } from "./print.ts";

/** Microseconds that an update of another column takes: without trigger, under the plan's, under ours. */
export async function measureTriggers(
  server: PostgresServer,
  rows: number,
): Promise<{ none: number; plain: number; ours: number }> {
  const url = await createDatabase(server.port, "bench_triggers", "columns");
  const sql = connect(url);
  await sql`set statement_timeout = 0`;
  const kinds = ["none", "plain", "ours"] as const;
  const times = { none: [] as number[], plain: [] as number[], ours: [] as number[] };
  await sql.unsafe(plainPlan.match(/create function[^]*?\$function\$;/)?.[0] ?? "");
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
  await sql`
    insert into tenancy.registry (schema_name, table_name, scope, priority)
    values ('public', 'bench_ours', 'org', 'secondary')
  `;
  await sql`select tenancy.build('public.bench_ours', 'guard')`;
  for (let round = 0; round <= 7; round++) {
    for (let turn = 0; turn < kinds.length; turn++) {
      const kind = kinds[(round + turn) % kinds.length] as (typeof kinds)[number];
      await sql.unsafe(`vacuum public.bench_${kind}`);
      const start = performance.now();
      await sql.unsafe(`update public.bench_${kind} set outcome = 'round ${round}'`);
      // In the first round no vacuum has seen the tables yet.
      if (round > 0) times[kind].push(((performance.now() - start) * 1000) / rows);
    }
  }
  await sql.end();
  await dropDatabase(server.port, "bench_triggers");
  return { none: median(times.none), plain: median(times.plain), ours: median(times.ours) };
}
