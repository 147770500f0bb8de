/** @jsxRuntime automatic @jsxImportSource preact */
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
  UserProblem,
  UserRun,
} from "./report-document.ts";
import { Code, Prose, type TableKind } from "./report-table.tsx";
import { formatBytes, formatDuration, formatKey, formatMoment, formatNumber, formatTime } from "./report-text.ts";

const number = (value: number | null) => value === null ? "not known" : formatNumber(value);
const duration = (seconds: number | null) => seconds === null ? "not timed" : formatDuration(seconds);

/** A table, with what is still to run on it. */
export interface PlannedTable {
  table: string;
  statements: PlannedStatement[];
}

/** From the weakest to the strongest. */
const locks = [
  "ACCESS SHARE",
  "ROW SHARE",
  "ROW EXCLUSIVE",
  "SHARE UPDATE EXCLUSIVE",
  "SHARE",
  "SHARE ROW EXCLUSIVE",
  "EXCLUSIVE",
  "ACCESS EXCLUSIVE",
];

/** The strongest of these locks, by the name that each begins with. */
export function strongestLock(statements: { lock: string }[]): string {
  const strength = ({ lock }: { lock: string }) => locks.indexOf(lock.split(",")[0] ?? "");
  const [strongest] = [...statements].sort((one, other) => strength(other) - strength(one));
  return strongest?.lock ?? "none";
}

const sum = (numbers: (number | null)[]) => numbers.reduce<number>((all, one) => all + (one ?? 0), 0);

export const plannedTables: TableKind<PlannedTable> = {
  name: "planned-tables",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "Statements", cell: ({ statements }) => formatNumber(statements.length), isNumber: true },
    { title: "Strongest lock", cell: ({ statements }) => strongestLock(statements) },
    {
      title: "Reads or rewrites",
      cell: ({ statements }) => formatBytes(sum(statements.map(({ bytes }) => bytes))),
      isNumber: true,
    },
    {
      title: "Seconds to expect",
      cell: ({ statements }) => formatDuration(sum(statements.map(({ seconds }) => seconds))),
      isNumber: true,
    },
  ],
};

export const plannedStatements: TableKind<PlannedStatement> = {
  name: "planned",
  columns: [
    { title: "No.", cell: (statement) => formatNumber(statement.number) },
    { title: "Part", cell: ({ part }) => part },
    { title: "Statement", cell: ({ statement }) => <Code text={statement} /> },
    { title: "Lock", cell: ({ lock }) => lock },
    { title: "Bytes", cell: ({ bytes }) => formatBytes(bytes), isNumber: true },
    { title: "Seconds", cell: ({ seconds }) => duration(seconds), isNumber: true },
  ],
};

export const findings: TableKind<Finding> = {
  name: "findings",
  columns: [
    { title: "Object", cell: ({ object }) => <Code text={object} /> },
    { title: "Code", cell: ({ code }) => code },
    { title: "What", cell: ({ problem }) => <Prose text={problem} /> },
    { title: "What to do", cell: ({ remedy }) => <Code text={remedy} /> },
  ],
};

/** A kind of work, with what ran of it. */
export interface Phase {
  name: string;
  statements: LoggedStatement[];
}

const began = (statements: LoggedStatement[]) => statements.flatMap((statement) => statement.began ?? []);
const firstOf = (statements: LoggedStatement[]) => began(statements).reduce((one, other) => one < other ? one : other);

/** Work of whose statements none was timed has no time. */
const firstTime = (statements: LoggedStatement[]) =>
  began(statements).length === 0 ? "not timed" : formatTime(firstOf(statements));

export const phases: TableKind<Phase> = {
  name: "phases",
  columns: [
    { title: "Work", cell: ({ name }) => name },
    { title: "Statements", cell: ({ statements }) => formatNumber(statements.length), isNumber: true },
    { title: "Began (UTC)", cell: ({ statements }) => firstTime(statements) },
    {
      title: "At work",
      cell: ({ statements }) =>
        statements.every(({ seconds }) => seconds === null)
          ? "not timed"
          : formatDuration(sum(statements.map(({ seconds }) => seconds))),
      isNumber: true,
    },
    {
      title: "Waited for locks",
      cell: ({ statements }) => formatDuration(sum(statements.map(({ secondsWaited }) => secondsWaited))),
      isNumber: true,
    },
    {
      title: "Rows",
      cell: ({ statements }) =>
        statements.every(({ rows }) => rows === null) ? "none" : formatNumber(sum(statements.map(({ rows }) => rows))),
      isNumber: true,
    },
  ],
};

/** A table, with what ran on it. */
export interface LoggedTable {
  table: string;
  statements: LoggedStatement[];
}

const longest = (statements: LoggedStatement[]) => {
  const [first] = [...statements].sort((one, other) => (other.seconds ?? -1) - (one.seconds ?? -1));
  return first ? `${first.part}, ${duration(first.seconds)}` : "";
};

export const loggedTables: TableKind<LoggedTable> = {
  name: "logged-tables",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "Statements", cell: ({ statements }) => formatNumber(statements.length), isNumber: true },
    {
      title: "At work",
      cell: ({ statements }) => formatDuration(sum(statements.map(({ seconds }) => seconds))),
      isNumber: true,
    },
    {
      title: "Waited for locks",
      cell: ({ statements }) => formatDuration(sum(statements.map(({ secondsWaited }) => secondsWaited))),
      isNumber: true,
    },
    { title: "Longest statement", cell: ({ statements }) => longest(statements) },
  ],
};

export const loggedStatements: TableKind<LoggedStatement> = {
  name: "logged",
  columns: [
    { title: "No.", cell: ({ id }) => formatNumber(id) },
    { title: "Began (UTC)", cell: ({ began }) => began ? formatTime(began) : "not timed" },
    { title: "Part", cell: ({ part }) => part },
    { title: "Statement", cell: ({ statement }) => <Code text={statement} /> },
    { title: "Took", cell: ({ seconds }) => duration(seconds), isNumber: true },
    {
      title: "Waited",
      cell: ({ secondsWaited }) => secondsWaited > 0 ? formatDuration(secondsWaited) : "",
      isNumber: true,
    },
    { title: "Rows", cell: ({ rows }) => rows === null ? "" : formatNumber(rows), isNumber: true },
  ],
};

export const lockedStatements: TableKind<LoggedStatement> = {
  name: "locked",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "Part", cell: ({ part }) => part },
    { title: "Waited", cell: ({ secondsWaited }) => formatDuration(secondsWaited), isNumber: true },
    { title: "Until (UTC)", cell: ({ began }) => began ? formatTime(began) : "" },
    { title: "For", cell: ({ waitedFor }) => <Prose text={waitedFor ?? "not noted"} /> },
  ],
};

/** A pause of the timeline, with its own times. */
export interface ShownPause {
  began: Date;
  ended: Date;
  why: string;
}

export const pauses: TableKind<ShownPause> = {
  name: "pauses",
  columns: [
    { title: "From", cell: ({ began }) => formatMoment(began) },
    { title: "To", cell: ({ ended }) => formatMoment(ended) },
    {
      title: "Length",
      cell: ({ began, ended }) => formatDuration((ended.getTime() - began.getTime()) / 1000),
      isNumber: true,
    },
    { title: "What", cell: ({ why }) => why },
  ],
};

export const lockWaits: TableKind<LockWait> = {
  name: "lock-waits",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "Part", cell: ({ step }) => step },
    { title: "Attempts", cell: ({ attempts }) => formatNumber(attempts), isNumber: true },
    { title: "Since", cell: ({ since }) => formatMoment(since) },
    { title: "Held by", cell: ({ holders }) => <Prose text={holders} /> },
  ],
};

export const objections: TableKind<ReportDocument["objections"][number]> = {
  name: "objections",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "What spoke against it", cell: ({ objection }) => <Prose text={objection} /> },
  ],
};

/** What a source is called: its columns, or that there is none. */
const nameSource = ({ entry }: DecidedBy) => entry === null ? "nothing decides" : <Code text={entry} />;

const listSources = ({ decidedBy = [] }: OrgTable) => (
  <ul class="plain">{decidedBy.map((source) => <li>{nameSource(source)} {formatNumber(source.rows)}</li>)}</ul>
);

const whoDecides = (table: OrgTable) => {
  if (!table.isPerRow) return "the default organization, without a look at the rows";
  return table.decidedBy?.length ? listSources(table) : <Prose text={table.inWords} />;
};

const orphans = ({ decidedBy, backfill, isPerRow }: OrgTable) =>
  !isPerRow
    ? "none"
    : decidedBy
    ? formatNumber(sum(decidedBy.filter(({ entry }) => entry === null).map(({ rows }) => rows)))
    : number(backfill?.orphans ?? null);

const conflicts = ({ decidedBy, backfill, isPerRow }: OrgTable) =>
  !isPerRow
    ? "none"
    : decidedBy
    ? formatNumber(sum(decidedBy.map(({ conflicts }) => conflicts)))
    : number(backfill?.conflicts ?? null);

export const sources: TableKind<OrgTable> = {
  name: "sources",
  columns: [
    { title: "Table", cell: ({ name }) => <Code text={name} /> },
    { title: "Rows", cell: ({ rows, isSampled }) => `${number(rows)}${isSampled ? " (sample)" : ""}`, isNumber: true },
    { title: "Decided by", cell: whoDecides },
    { title: "Orphans", cell: orphans, isNumber: true },
    { title: "Conflicts", cell: conflicts, isNumber: true },
    {
      title: "Written by the backfill",
      cell: ({ backfill }) => backfill ? formatNumber(backfill.rows) : "none",
      isNumber: true,
    },
  ],
};

export const conflictingRows: TableKind<Conflict> = {
  name: "conflicts",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "Row", cell: ({ key }) => <Code text={formatKey(key)} /> },
    { title: "Given to", cell: ({ orgId }) => <Code text={orgId} /> },
    {
      title: "What its columns say",
      cell: ({ candidates }) => (
        <ul class="plain">
          {Object.entries(candidates).map(([column, orgId]) => (
            <li>
              <Code text={`${column}: ${orgId ?? "none"}`} />
            </li>
          ))}
        </ul>
      ),
    },
  ],
};

const outcomes = ["updated", "conflict", "unreachable", "failed", "deleted", "pending"] as const;

export const userRuns: TableKind<UserRun> = {
  name: "runs",
  columns: [
    { title: "Run", cell: ({ id }) => <Code text={id} /> },
    {
      title: "What",
      cell: ({ revertedRun, onlyOrg, onConflict }) =>
        revertedRun
          ? (
            <>
              takes back <Code text={revertedRun} />
            </>
          )
          : (
            <>
              {onlyOrg
                ? (
                  <>
                    only <Code text={onlyOrg} />;
                  </>
                )
                : ""}
              {`conflicts: ${onConflict}`}
            </>
          ),
    },
    { title: "Began", cell: ({ began }) => formatMoment(began) },
    {
      title: "Took",
      cell: ({ began, ended }) => ended ? formatDuration((ended.getTime() - began.getTime()) / 1000) : "has not ended",
      isNumber: true,
    },
    ...outcomes.map((outcome) => ({
      title: outcome,
      cell: (run: UserRun) => formatNumber(run.outcomes[outcome] ?? 0),
      isNumber: true,
    })),
  ],
};

export const userProblems: TableKind<UserProblem> = {
  name: "problems",
  columns: [
    { title: "User", cell: ({ user }) => <Code text={user} /> },
    { title: "Outcome", cell: ({ outcome }) => outcome },
    { title: "Reason", cell: ({ reason }) => <Prose text={reason} /> },
  ],
};

export const lackingUsers: TableKind<ReportDocument["usersWithoutOrg"][number]> = {
  name: "lacking",
  columns: [
    { title: "Why", cell: ({ obstacle }) => obstacle ?? "not updated yet" },
    { title: "Users", cell: ({ users }) => formatNumber(users), isNumber: true },
  ],
};

/** A check of tenancy.verify(), with all that it looked at. */
export interface CheckGroup {
  name: string;
  checks: Check[];
}

export const checkGroups: TableKind<CheckGroup> = {
  name: "checks",
  columns: [
    { title: "Check", cell: ({ name }) => name },
    {
      title: "Result",
      cell: ({ checks }) =>
        checks.every(({ passed }) => passed)
          ? <span class="mark good">✔ passed</span>
          : <span class="mark bad">✘ failed</span>,
    },
    {
      title: "Passed",
      cell: ({ checks }) =>
        `${formatNumber(checks.filter(({ passed }) => passed).length)} of ${formatNumber(checks.length)}`,
      isNumber: true,
    },
    { title: "Of", cell: ({ checks }) => checks.some(({ table }) => table === null) ? "the database" : "tables" },
  ],
};

export const checks: TableKind<Check> = {
  name: "check",
  columns: [
    { title: "Check", cell: ({ name }) => name },
    { title: "Table", cell: ({ table }) => table === null ? "the whole" : <Code text={table} /> },
    {
      title: "Result",
      cell: ({ passed }) => passed ? <span class="mark good">✔ passed</span> : <span class="mark bad">✘ failed</span>,
    },
    { title: "Detail", cell: ({ detail }) => <Prose text={detail} /> },
  ],
};

/** All kinds, for the style of the page. */
export const kinds = [
  ...[plannedTables, plannedStatements, findings, phases, loggedTables, loggedStatements, lockedStatements, pauses],
  ...[lockWaits, objections, sources, conflictingRows, userRuns, userProblems, lackingUsers, checkGroups, checks],
] as TableKind<never>[];
