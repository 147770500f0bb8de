import type { Ask } from "./report-database.ts";
import type {
  Check,
  Conflict,
  DecidedBy,
  Finding,
  LockWait,
  LoggedStatement,
  OrgTable,
  PlannedStatement,
  ReportDocument,
  Sample,
  State,
  UserProblem,
  UserRun,
} from "./report-document.ts";
import type { Common } from "./report-read.ts";
import { hideContacts, hideValuesOfHolders } from "./report-text.ts";

/** At most so many rows of a list that may be as long as a table. */
const mostShown = 100;

/** The table that a logged or planned one is a partition of, or itself. */
const rootOf = (relation: string) => `coalesce(pg_partition_root(${relation}), ${relation})`;

/**
 * Reads a database that has the library. While a push is under way it leaves the application's rows alone: a count holds its
 * table, and what the push is to change in it would wait.
 */
export async function readTenancy(ask: Ask, common: Common, skipRows: boolean): Promise<ReportDocument> {
  const plan = await readPlan(ask);
  const state = await readState(ask, plan);
  const readsRows = !skipRows && state !== "under way";
  const logged = await readLog(ask);
  return {
    ...common,
    state,
    plan,
    readsRows,
    tablesInAll: await readTablesInAll(ask),
    usersWithoutOrg: await ask(`
      select obstacle, count(*) as users from tenancy.users_without_org where not on_purpose
      group by obstacle order by obstacle nulls first
    `),
    usersInNoOrg: await readUsersInNoOrg(ask),
    tables: await readTables(ask, readsRows),
    findings: await readFindings(ask),
    ...logged,
    lockWaits: await readLockWaits(ask),
    conflicts: await readConflicts(ask),
    runs: await readRuns(ask),
    userProblems: await readUserProblems(ask),
    checks: state === "not begun" ? undefined : await readChecks(ask, readsRows),
  };
}

async function readUsersInNoOrg(ask: Ask): Promise<number> {
  const [counts] = await ask<{ users: number }>(
    "select (tenancy.user_counts() ->> 'users_in_no_org')::bigint as users",
  );
  return counts?.users ?? 0;
}

async function readState(ask: Ask, plan: PlannedStatement[]): Promise<State> {
  // Of a table that was dropped meanwhile the note stays.
  const begun = await ask(`
    select from org_migration.tables_before
    join tenancy.application_tables using (relation)
    where application_tables.scope = 'org'
    limit 1
  `);
  if (begun.length === 0) return "not begun";
  return plan.length > 0 ? "under way" : "complete";
}

async function readTablesInAll(ask: Ask): Promise<ReportDocument["tablesInAll"]> {
  const [found] = await ask<{ org: number; excluded: number }>(`
    select
      count(*) filter (where scope = 'org') as org,
      count(*) filter (where scope = 'excluded') as excluded
    from tenancy.application_tables
  `);
  return found && found.org + found.excluded > 0 ? found : undefined;
}

async function readTables(ask: Ask, readsRows: boolean): Promise<OrgTable[]> {
  const tables = await ask<
    Omit<OrgTable, "decidedBy" | "isSampled" | "backfill"> & { backfill: OrgTable["backfill"] | null }
  >(`
    select
      tables.qualified_name as name,
      coalesce(tables_before.row_count, leaves.rows) as rows,
      leaves.bytes,
      decisions.is_per_row as "isPerRow",
      decisions.in_words as "inWords",
      leaves.backfill
    from tenancy.application_tables as tables
    join tenancy.decisions on decisions.root = tables.relation
    left join org_migration.tables_before on tables_before.relation = tables.relation
    cross join lateral (
      select
        case when bool_and(class.reltuples >= 0) then sum(class.reltuples)::bigint end as rows,
        coalesce(sum(pg_table_size(class.oid) + pg_indexes_size(class.oid)), 0) as bytes,
        case when count(backfills.relation) > 0 then jsonb_build_object(
          'state', string_agg(distinct backfills.state, ', '),
          'rows', sum(backfills.rows_updated),
          'orphans', sum(backfills.orphans),
          'conflicts', sum(backfills.conflicts)
        ) end as backfill
      from tenancy.leaves(tables.relation) as leaf
      join pg_catalog.pg_class as class on class.oid = leaf
      left join org_migration.backfill_progress as backfills on backfills.relation = leaf
    ) as leaves
    where tables.scope = 'org'
    order by tables.qualified_name
  `);
  const answer: OrgTable[] = [];
  for (const { backfill, ...table } of tables) {
    const decidedBy = readsRows && table.isPerRow
      ? await ask<DecidedBy>(
        "select entry, rows, conflicts from tenancy.count_sources($1::text::regclass)",
        [table.name],
      )
      : undefined;
    answer.push({ ...table, isSampled: false, decidedBy, backfill: backfill ?? undefined });
  }
  return answer;
}

async function readPlan(ask: Ask): Promise<PlannedStatement[]> {
  return await ask<PlannedStatement>(`
    select
      number,
      phase,
      part,
      ${rootOf("relation")}::regclass::text as table,
      statement,
      lock,
      coalesce(bytes, 0) as bytes,
      estimated_rows as rows,
      seconds
    from tenancy.plan
    order by number
  `);
}

/** What is wrong with the migration, and with what of the application is around its tables. */
async function readFindings(ask: Ask): Promise<Finding[]> {
  return await ask<Finding>(`
    select severity, code, object, problem, remedy
    from (
      select code, severity, object, table_name, problem, remedy from tenancy.findings
      union
      select code, severity, object, table_name, problem, remedy from tenancy.review
    ) as found
    order by code, object, problem
  `);
}

async function readLog(ask: Ask): Promise<Pick<ReportDocument, "log" | "objections">> {
  const rows = await ask<LoggedStatement>(`
    select
      log.id,
      log.part,
      coalesce(tables.root, log.table_name) as table,
      log.statement,
      log.began,
      log.seconds,
      log.seconds_waited as "secondsWaited",
      log.waited_for as "waitedFor",
      log.rows
    from tenancy.log
    left join lateral (
      select ${rootOf("named.relation")}::regclass::text as root
      from to_regclass(log.table_name) as named (relation)
      where named.relation is not null
    ) as tables on true
    order by log.id
  `);
  return {
    objections: rows
      .filter(({ part }) => part === "objection")
      .map(({ table, statement }) => ({ table, objection: statement })),
    log: rows
      .filter(({ part }) => part !== "objection")
      .map((row) => ({ ...row, waitedFor: row.waitedFor && hideValuesOfHolders(row.waitedFor) })),
  };
}

async function readLockWaits(ask: Ask): Promise<LockWait[]> {
  const waits = await ask<LockWait>(`
    select relation::text as table, step, attempts, blocked_since as since, blocked_by as holders
    from org_migration.lock_waits
    join pg_catalog.pg_stat_activity as session on session.pid = lock_waits.session_pid
    order by blocked_since
  `);
  return waits.map((wait) => ({ ...wait, holders: hideValuesOfHolders(wait.holders) }));
}

async function readConflicts(ask: Ask): Promise<Sample<Conflict>> {
  const rows = await ask<Conflict>(`
    select relation::text as table, row_key as key, org_id as "orgId", candidates
    from org_migration.backfill_conflicts
    order by id
    limit ${mostShown}
  `);
  return { rows, inAll: await countRows(ask, "org_migration.backfill_conflicts") };
}

async function readRuns(ask: Ask): Promise<UserRun[]> {
  return await ask<UserRun>(`
    select
      runs.run_id as id,
      runs.reverted_run_id as "revertedRun",
      runs.only_org_id as "onlyOrg",
      runs.on_conflict as "onConflict",
      runs.started_at as began,
      runs.finished_at as ended,
      coalesce(
        (
          select jsonb_object_agg(counted.outcome, counted.users)
          from (
            select audit.outcome, count(*) as users
            from tenancy.user_metadata_audit as audit
            where audit.run_id = runs.run_id
            group by audit.outcome
          ) as counted
        ),
        '{}'
      ) as outcomes
    from tenancy.user_metadata_runs as runs
    order by runs.started_at
  `);
}

async function readUserProblems(ask: Ask): Promise<Sample<UserProblem>> {
  const rows = await ask<UserProblem>(`
    select user_id as user, outcome, coalesce(reason, '') as reason
    from tenancy.user_problems
    order by run_id, user_id
    limit ${mostShown}
  `);
  return {
    rows: rows.map((row) => ({ ...row, reason: hideContacts(row.reason) })),
    inAll: await countRows(ask, "tenancy.user_problems"),
  };
}

async function readChecks(ask: Ask, readsRows: boolean): Promise<Check[]> {
  return await ask<Check>(`
    select check_name as name, table_name as table, passed, coalesce(detail, '') as detail
    from ${readsRows ? "tenancy.verify()" : "tenancy.verify_schema()"}
  `);
}

async function countRows(ask: Ask, table: string): Promise<number> {
  const [found] = await ask<{ count: number }>(`select count(*) as count from ${table}`);
  return found?.count ?? 0;
}
