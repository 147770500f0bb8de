/** @jsxRuntime automatic @jsxImportSource preact */
/** The tables of what is to run, and of what ran. */
import type { LockWait, LoggedStatement, PlannedStatement, ReportDocument } from "./report-document.ts";
import { Code, type Column, Prose, type TableKind } from "./report-table.tsx";
import {
  formatBytes,
  formatDuration,
  formatInstant,
  formatMoment,
  formatNumber,
  formatTime,
  sum,
} from "./report-text.ts";

/** tenancy.plan reckons in tenths of a second. */
const finestReckoned = 0.1;
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
function strongestLock(statements: { lock: string }[]): string {
  const strength = ({ lock }: { lock: string }) => locks.indexOf(lock.split(",")[0] ?? "");
  const [strongest] = [...statements].sort((one, other) => strength(other) - strength(one));
  return strongest?.lock ?? "none";
}

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
      cell: ({ statements }) => formatDuration(sum(statements.map(({ seconds }) => seconds)), finestReckoned),
      isNumber: true,
    },
  ],
};

export const plannedStatements: TableKind<PlannedStatement> = {
  name: "planned",
  columns: [
    { title: "No.", cell: (statement) => formatNumber(statement.number) },
    { title: "Part", cell: ({ part }) => part },
    { title: "Statement", cell: ({ statement }) => <Code text={statement} />, isWide: true },
    { title: "Lock", cell: ({ lock }) => lock },
    { title: "Bytes", cell: ({ bytes }) => formatBytes(bytes), isNumber: true },
    {
      title: "Seconds to expect",
      cell: ({ seconds }) => seconds === null ? "not known" : formatDuration(seconds, finestReckoned),
      isNumber: true,
    },
  ],
};

const worked = (statements: LoggedStatement[]) =>
  statements.every(({ seconds }) => seconds === null)
    ? "not timed"
    : formatDuration(sum(statements.map(({ seconds }) => seconds)));

const waited = (statements: LoggedStatement[]) => {
  const seconds = sum(statements.map(({ secondsWaited }) => secondsWaited));
  return seconds > 0 ? formatDuration(seconds) : "none";
};

/** How long what ran took. */
const times: Column<{ statements: LoggedStatement[] }>[] = [
  { title: "At work", cell: ({ statements }) => worked(statements), isNumber: true },
  { title: "Waited for locks", cell: ({ statements }) => waited(statements), isNumber: true },
];

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
    ...times,
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
    ...times,
    { title: "Longest statement", cell: ({ statements }) => longest(statements) },
  ],
};

export const loggedStatements: TableKind<LoggedStatement> = {
  name: "logged",
  columns: [
    { title: "No.", cell: ({ id }) => formatNumber(id) },
    { title: "Began (UTC)", cell: ({ began }) => began ? formatTime(began) : "not timed" },
    { title: "Part", cell: ({ part }) => part },
    { title: "Statement", cell: ({ statement }) => <Code text={statement} />, isWide: true },
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
    { title: "For", cell: ({ waitedFor }) => <Prose text={waitedFor ?? "not noted"} />, isWide: true },
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
    { title: "From", cell: ({ began }) => formatInstant(began) },
    { title: "To", cell: ({ ended }) => formatInstant(ended) },
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
    { title: "Held by", cell: ({ holders }) => <Prose text={holders} />, isWide: true },
  ],
};

export const objections: TableKind<ReportDocument["objections"][number]> = {
  name: "objections",
  columns: [
    { title: "Table", cell: ({ table }) => <Code text={table} /> },
    { title: "What spoke against it", cell: ({ objection }) => <Prose text={objection} />, isWide: true },
  ],
};
