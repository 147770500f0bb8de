/** @jsxRuntime automatic @jsxImportSource preact */
/** The tables of what is found: findings, whose rows are whose, users and checks. */
import type {
  Check,
  Conflict,
  DecidedBy,
  Finding,
  OrgTable,
  ReportDocument,
  UserProblem,
  UserRun,
} from "./report-document.ts";
import { meaningOf } from "./report-meanings.ts";
import { Code, Prose, type TableKind } from "./report-table.tsx";
import { formatDuration, formatKey, formatMoment, formatNumber, sum } from "./report-text.ts";

export const findings: TableKind<Finding> = {
  name: "findings",
  columns: [
    { title: "Object", cell: ({ object }) => <Code text={object} /> },
    { title: "Code", cell: ({ code }) => code },
    { title: "What", cell: ({ problem }) => <Prose text={problem} /> },
    { title: "What to do", cell: ({ remedy }) => <Code text={remedy} />, isWide: true },
  ],
};

const number = (value: number | null) => value === null ? "not known" : formatNumber(value);

/** What a source is called: its columns, or that there is none. */
const nameSource = ({ entry }: DecidedBy) => entry === null ? "nothing" : <Code text={entry} />;

const listSources = ({ decidedBy = [] }: OrgTable) => (
  <ul class="plain">{decidedBy.map((source) => <li>{nameSource(source)}: {formatNumber(source.rows)}</li>)}</ul>
);

const whoDecides = (table: OrgTable) => (
  <>
    {!table.isPerRow && "the default organization"}
    {table.decidedBy?.length ? listSources(table) : table.isPerRow && <Prose text={table.inWords} />}
  </>
);

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
      cell: ({ revertedRun, onlyOrg, onConflict }) => (
        <Prose
          text={revertedRun
            ? `takes back ${revertedRun}`
            : `${onlyOrg ? `only ${onlyOrg}; ` : ""}conflicts: ${onConflict}`}
        />
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
    { title: "Reason", cell: ({ reason }) => <Prose text={reason} />, isWide: true },
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
    { title: "What holds if it passes", cell: ({ name }) => meaningOf(name) },
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
    { title: "Detail", cell: ({ detail }) => <Prose text={detail} />, isWide: true },
  ],
};
