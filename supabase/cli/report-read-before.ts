import { UsageError } from "./command-line.ts";
import type { Ask } from "./report-database.ts";
import type { DecidedBy, Finding, OrgTable, PlannedStatement, ReportDocument, Severity } from "./report-document.ts";
import type { Common } from "./report-read.ts";
import { hideValuesOfHolders } from "./report-text.ts";

interface TableDetails {
  rows: number | null;
  bytes: number;
  is_per_row: boolean;
  in_words: string;
  is_sampled: boolean;
  decided_by: DecidedBy[] | null;
}

interface PlanDetails {
  root: string;
  number: number;
  phase: number;
  lock: string;
  bytes: number | null;
  rows: number | null;
  seconds: number | null;
}

interface PreflightRow {
  topic: string;
  code: string;
  object: string;
  finding: string;
  to_do: string;
  details: unknown;
}

const severities: Record<string, Severity> = {
  refused: "stops",
  "to classify": "stops",
  breaks: "breaks",
  leaks: "leaks",
  "to decide": "decide",
  "in the way now": "waits",
};

/** The last line of the preflight, which says what of its answer it shows. */
const shown = /(as found \(topic text, code text, object text, finding text, to_do text)\);\s*$/;

/** The preflight, asked for all of its answer. */
export function askForDetails(preflight: string): string {
  if (!shown.test(preflight)) {
    throw new UsageError("Cannot use the preflight: it is not the supabase/preflight.sql of this version");
  }
  return preflight.replace(shown, "$1, details jsonb);");
}

/** Reads a database that has nothing of these migrations yet, by the preflight. */
export async function readBefore(ask: Ask, common: Common, preflight: string): Promise<ReportDocument> {
  const rows = await ask<PreflightRow>(askForDetails(preflight));
  const about = (...topics: string[]) => rows.filter(({ topic }) => topics.includes(topic));
  const without = rows.find(({ topic, code }) => topic === "good to know" && code === "users");
  const lacking = /users, (\d+) of them/.exec(without?.finding ?? "");
  return {
    ...common,
    tablesInAll: undefined,
    usersWithoutOrg: lacking ? [{ obstacle: null, users: Number(lacking[1]) }] : [],
    usersInNoOrg: 0,
    tables: about("gets org_id", "would get org_id").map(readTable),
    plan: about("plan").map(readPlanned),
    findings: about(...Object.keys(severities)).map(readFinding),
    log: [],
    objections: [],
    lockWaits: [],
    conflicts: { rows: [], inAll: 0 },
    runs: [],
    userProblems: { rows: [], inAll: 0 },
    checks: undefined,
    readsRows: true,
  };
}

function readTable({ object, details }: PreflightRow): OrgTable {
  const { rows, bytes, is_per_row, in_words, is_sampled, decided_by } = details as TableDetails;
  return {
    name: object,
    rows,
    bytes,
    isPerRow: is_per_row,
    inWords: in_words,
    isSampled: is_sampled,
    decidedBy: decided_by ?? undefined,
    backfill: undefined,
  };
}

function readPlanned({ code, to_do, details }: PreflightRow): PlannedStatement {
  const { root, number, phase, lock, bytes, rows, seconds } = details as PlanDetails;
  return { number, phase, part: code, table: root, statement: to_do, lock, bytes: bytes ?? 0, rows, seconds };
}

function readFinding({ topic, code, object, finding, to_do }: PreflightRow): Finding {
  const severity = severities[topic] ?? "decide";
  const problem = severity === "waits" ? hideValuesOfHolders(finding) : finding;
  return { severity, code, object, problem, remedy: to_do };
}
