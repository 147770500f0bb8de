/** What the report says, as data: read from the database by report-read.ts, shown by report-page.tsx. */
export interface ReportDocument {
  database: string;
  /** Where the database is, without user and password. */
  host: string;
  version: string;
  takenAt: Date;
  state: State;
  /** undefined: there is no table public.organizations. */
  organizations: number | undefined;
  /** undefined: nobody has said yet which tables are. */
  tablesInAll: { org: number; excluded: number } | undefined;
  users: number;
  /** How many users lack their organization, by what keeps them from it; null: nothing does. */
  usersWithoutOrg: { obstacle: string | null; users: number }[];
  /** How many users are in no organization on purpose. */
  usersInNoOrg: number;
  tables: OrgTable[];
  plan: PlannedStatement[];
  findings: Finding[];
  log: LoggedStatement[];
  /** What spoke against isolating a table that was isolated in spite of it. */
  objections: { table: string; objection: string }[];
  /** The locks that a push waits for now. */
  lockWaits: LockWait[];
  conflicts: Sample<Conflict>;
  runs: UserRun[];
  userProblems: Sample<UserProblem>;
  /** undefined: there is nothing to check yet. */
  checks: Check[] | undefined;
  /** False: no row of the application was read, so that there is no word on rows. */
  readsRows: boolean;
}

/**
 * not pushed: nothing of these migrations is in the database. not begun: the library is, and no table was touched. under way:
 * some of the plan has run. complete: nothing is left of it.
 */
export type State = "not pushed" | "not begun" | "under way" | "complete";

/** The first of many. */
export interface Sample<Row> {
  rows: Row[];
  inAll: number;
}

export interface OrgTable {
  name: string;
  /** As counted when the push began, or, before it, as the statistics have it; null: nobody has counted. */
  rows: number | null;
  /** With its indexes. */
  bytes: number;
  /** False: all rows belong to the default organization, and none is looked at. */
  isPerRow: boolean;
  /** What decides, in words. */
  inWords: string;
  /** True if decidedBy was reckoned from a part of the rows. */
  isSampled: boolean;
  /** undefined: not counted. */
  decidedBy: DecidedBy[] | undefined;
  /** What the backfill noted; undefined: it has not come to this table. */
  backfill: { state: string; rows: number; orphans: number; conflicts: number } | undefined;
}

/** How many rows a source decides. */
export interface DecidedBy {
  /** The column or columns, as in registry.org_from; null: nothing decides. */
  entry: string | null;
  rows: number;
  /** In how many of them the sources name several organizations. */
  conflicts: number;
}

export interface PlannedStatement {
  number: number;
  phase: number;
  part: string;
  /** The table, or of a partition the table that it is one of. */
  table: string;
  statement: string;
  lock: string;
  bytes: number;
  rows: number | null;
  seconds: number | null;
}

/** stops: a push stops at it. waits: a session that a push would wait for now. The rest as in tenancy.findings. */
export type Severity = "stops" | "breaks" | "leaks" | "decide" | "waits";

export interface Finding {
  severity: Severity;
  code: string;
  object: string;
  problem: string;
  remedy: string;
}

export interface LoggedStatement {
  id: number;
  part: string;
  /** The table, or of a partition the table that it is one of. */
  table: string;
  statement: string;
  /** null: it ran outside of any function, and nobody has timed it. */
  began: Date | null;
  seconds: number | null;
  secondsWaited: number;
  waitedFor: string | null;
  rows: number | null;
}

export interface LockWait {
  table: string;
  step: string;
  attempts: number;
  since: Date;
  holders: string;
}

/** A row whose sources name different organizations. */
export interface Conflict {
  table: string;
  /** The primary key. */
  key: Record<string, unknown>;
  orgId: string;
  /** What each column says. */
  candidates: Record<string, string | null>;
}

export interface UserRun {
  id: string;
  revertedRun: string | null;
  onlyOrg: string | null;
  onConflict: string;
  began: Date;
  ended: Date | null;
  /** How many users had each outcome. */
  outcomes: Record<string, number>;
}

export interface UserProblem {
  user: string;
  outcome: string;
  reason: string;
}

export interface Check {
  name: string;
  /** null: of the whole database. */
  table: string | null;
  passed: boolean;
  detail: string;
}
