/** A report of everything that a page can show, with names that are meant to break it, and how a page is read. */
import type { LoggedStatement, ReportDocument } from "../cli/report-document.ts";

export const script = `<script>alert("x")</script>`;
/** A table whose name closes what it stands in, and turns what follows it. */
export const hostile = `public."a\u202e'"";--></style></title>${script}&amp;<img src=x onerror=alert(1)>"`;
/** A table in a script that is written from right to left. */
export const hebrew = 'public."טבלה"';
export const orgId = "b0000000-0000-4000-8000-000000000001";

const began = new Date("2026-11-26T10:00:00.000Z");
export const after = (seconds: number) => new Date(began.getTime() + seconds * 1000);

export function logged(id: number, statement: Partial<LoggedStatement>): LoggedStatement {
  return {
    id,
    part: "column",
    table: "public.calls",
    statement: "alter table public.calls add column org_id uuid",
    began,
    seconds: 0.002,
    secondsWaited: 0,
    waitedFor: null,
    rows: null,
    ...statement,
  };
}

/** A push that counted, waited for a lock, was paused, and built an index that nobody timed. */
export const eventfulLog: LoggedStatement[] = [
  logged(1, { part: "count", statement: "select count(*) from public.calls", seconds: 0.5, rows: 1234 }),
  logged(2, {
    part: "column",
    began: after(4),
    seconds: 0.01,
    secondsWaited: 3,
    waitedFor: "pid 7, idle for 9 s: select 1",
  }),
  logged(3, {
    part: "backfill",
    began: after(4.1),
    seconds: 6,
    rows: 1234,
    table: hostile,
    statement: `update ${hostile}`,
  }),
  logged(4, {
    part: "index",
    began: null,
    seconds: null,
    table: hebrew,
    statement: `create index on ${hebrew} (org_id)`,
  }),
  logged(5, { part: "guard", began: after(3600), seconds: 0.001 }),
];

export const emptyReport: ReportDocument = {
  database: "postgres",
  host: "db.example.com:5432",
  version: "17.10",
  takenAt: after(7200),
  state: "not pushed",
  organizations: undefined,
  tablesInAll: undefined,
  users: 0,
  usersWithoutOrg: [],
  usersInNoOrg: 0,
  tables: [],
  plan: [],
  findings: [],
  log: [],
  objections: [],
  lockWaits: [],
  conflicts: { rows: [], inAll: 0 },
  runs: [],
  userProblems: { rows: [], inAll: 0 },
  checks: undefined,
  readsRows: true,
};

export const hostileReport: ReportDocument = {
  ...emptyReport,
  database: script,
  host: `${script}:5432`,
  state: "complete",
  organizations: 2,
  tablesInAll: { org: 3, excluded: 1 },
  users: 3,
  usersWithoutOrg: [{ obstacle: "conflict", users: 1 }],
  usersInNoOrg: 1,
  tables: [hostile, hebrew].map((name) => ({
    name,
    rows: 1234,
    bytes: 123456,
    isPerRow: true,
    inWords: script,
    isSampled: false,
    decidedBy: [{ entry: script, rows: 1200, conflicts: 2 }, { entry: null, rows: 34, conflicts: 0 }],
    backfill: { state: "finished", rows: 1234, orphans: 34, conflicts: 2 },
  })),
  plan: [{
    number: 1,
    phase: 7,
    part: "isolation",
    table: hostile,
    statement: `create policy org_isolation on ${hostile}`,
    lock: "ACCESS EXCLUSIVE",
    bytes: 0,
    rows: null,
    seconds: 0,
  }],
  findings: (["stops", "breaks", "leaks", "decide", "waits"] as const).map((severity) => ({
    severity,
    code: "view_leaks",
    object: hostile,
    problem: `shows ${hostile} to ${hebrew}`,
    remedy: `alter view ${hostile}`,
  })),
  log: eventfulLog,
  objections: [{ table: hostile, objection: script }],
  lockWaits: [{ table: hostile, step: "guard", attempts: 3, since: began, holders: script }],
  conflicts: {
    rows: [{ table: hostile, key: { [script]: 7 }, orgId, candidates: { [script]: orgId, parent_id: null } }],
    inAll: 120,
  },
  runs: [{
    id: orgId,
    revertedRun: null,
    onlyOrg: orgId,
    onConflict: "keep",
    began,
    ended: after(3),
    outcomes: { updated: 2, conflict: 1 },
  }],
  userProblems: { rows: [{ user: orgId, outcome: "failed", reason: script }], inAll: 1 },
  checks: [
    { name: "guard", table: hostile, passed: false, detail: script },
    { name: "guard", table: hebrew, passed: true, detail: "org_id_immutable" },
    { name: "users", table: null, passed: false, detail: "1 of 3 users" },
  ],
};

/** What somebody reads in a page without its markup. */
export const textOf = (page: string) =>
  page.replace(/<style>[^]*?<\/style>/, "").replace(/<[^>]+>/g, " ").replaceAll("&quot;", '"').replaceAll("&lt;", "<")
    .replaceAll("&amp;", "&").replace(/\s+/g, " ");

/** The row of a table of the page that begins with this. */
export const rowOf = (page: string, kind: string, first: string) => {
  const [, table = ""] = new RegExp(`<table class="${kind}">([^]*?)</table>`).exec(page) ?? [];
  const rows = [...table.matchAll(/<tr>([^]*?)<\/tr>/g)].map(([, row]) => textOf(row ?? "").trim());
  return rows.find((row) => row.startsWith(`${first} `));
};
