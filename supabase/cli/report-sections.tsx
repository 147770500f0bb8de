/** @jsxRuntime automatic @jsxImportSource preact */
import type { ComponentChildren } from "preact";
import type { Check, ReportDocument, Severity } from "./report-document.ts";
import { TimelineFigure } from "./report-figure.tsx";
import { rankOf } from "./report-meanings.ts";
import { DataTable, FoldedTable } from "./report-table.tsx";
import * as tables from "./report-tables.ts";
import { count, formatNumber } from "./report-text.ts";
import { drawTimeline, otherWork, type Timeline, work, workOf } from "./report-timeline.ts";
import { findingsOf, severityWords } from "./report-verdict.ts";

export interface Section {
  id: string;
  title: string;
  content: ComponentChildren;
}

/** The sections that have something to say: before the push what is wrong and what will run, after it what is and what ran. */
export function composeSections(report: ReportDocument): Section[] {
  return [
    ...checksSection(report),
    findingsSection(report),
    ...planSection(report),
    ...logSection(report),
    ...sourcesSection(report),
    usersSection(report),
  ];
}

/** The values with the same key, in the order of the first of each. */
function groupBy<Value>(values: Value[], keyOf: (value: Value) => string): [key: string, values: Value[]][] {
  const groups = new Map<string, Value[]>();
  for (const value of values) {
    const group = groups.get(keyOf(value));
    if (group) group.push(value);
    else groups.set(keyOf(value), [value]);
  }
  return [...groups];
}

function checksSection({ checks, readsRows, state }: ReportDocument): Section[] {
  if (!checks) return [];
  const failed = checks.filter(({ passed }) => !passed);
  const groups = groupBy([...checks].sort((one, other) => rankOf(one.name) - rankOf(other.name)), ({ name }) => name)
    .map(([name, checks]) => ({ name, checks }));
  const order = (one: Check, other: Check) =>
    Number(one.passed) - Number(other.passed) || (one.table ?? "").localeCompare(other.table ?? "") ||
    rankOf(one.name) - rankOf(other.name);
  return [{
    id: "checks",
    title: "Checks",
    content: (
      <>
        <p>
          What <code>tenancy.verify()</code> says of the database as it is, whatever was logged.
          {!readsRows && (state === "under way"
            ? " The push is under way, so the checks that count rows are left out."
            : " The checks that count rows are left out, as was asked for.")}
        </p>
        {failed.length > 0 && <DataTable kind={tables.checks} caption="Checks that fail" rows={failed} />}
        <DataTable kind={tables.checkGroups} caption="All checks, by kind" rows={groups} />
        <FoldedTable
          kind={tables.checks}
          caption="Every check"
          rows={[...checks].sort(order)}
          noun="check"
        />
      </>
    ),
  }];
}

function findingsSection({ findings }: ReportDocument): Section {
  return {
    id: "findings",
    title: "Findings",
    content: (
      <>
        <p>
          What is wrong with the migration, and what around the tables is not right once they have{" "}
          <code>org_id</code>, each with its code.
        </p>
        {findings.length === 0 && <p>There is none.</p>}
        {(Object.keys(severityWords) as Severity[]).map((severity) => {
          const found = findingsOf(findings, severity);
          const { title, explanation } = severityWords[severity];
          return found.length > 0 && (
            <>
              <h3>{`${title}: ${formatNumber(found.length)}`}</h3>
              <FoldedTable kind={tables.findings} caption={explanation} rows={found} noun="finding" />
            </>
          );
        })}
      </>
    ),
  };
}

function planSection({ plan }: ReportDocument): Section[] {
  if (plan.length === 0) return [];
  const planned = groupBy(plan, ({ table }) => table)
    .map(([table, statements]) => ({ table, statements }))
    .sort((one, other) => one.table.localeCompare(other.table));
  return [{
    id: "plan",
    title: "Plan",
    content: (
      <>
        <p>
          Every statement that is still to run, each in a transaction of its own, the backfill in one per batch. No
          statement of the application waits for its lock longer than{" "}
          <code>settings.lock_timeout_ms</code>, 100 ms unless it was changed. Bytes are read, or by the backfill
          rewritten; the seconds are reckoned by <code>settings</code>{" "}
          and the size of the table. An index line is built concurrently, and waits for every older transaction.
        </p>
        <FoldedTable kind={tables.plannedTables} caption="By table" rows={planned} noun="table" mostUnfolded={60} />
        <FoldedTable
          kind={tables.plannedStatements}
          caption="Every statement, in the order in which it runs"
          rows={plan}
          noun="statement"
        />
      </>
    ),
  }];
}

function logSection(report: ReportDocument): Section[] {
  const { log, lockWaits, objections } = report;
  if (log.length === 0 && lockWaits.length === 0 && objections.length === 0) return [];
  const timeline = drawTimeline(log);
  const byWork = groupBy(log, ({ part }) => workOf(part));
  const phases = [...work.map(([name]) => name), otherWork].flatMap((name) =>
    byWork.filter(([found]) => found === name).map(([name, statements]) => ({ name, statements }))
  );
  const byTable = groupBy(log, ({ table }) => table)
    .map(([table, statements]) => ({ table, statements }))
    .sort((one, other) => one.table.localeCompare(other.table));
  const locked = log.filter(({ secondsWaited }) => secondsWaited > 0);
  return [{
    id: "log",
    title: "What ran",
    content: (
      <>
        <p>
          Every statement that ran on a table, from{" "}
          <code>tenancy.log</code>. Index lines run outside of any function, and are not timed.
        </p>
        {timeline && <TimelineFigure timeline={timeline} statements={log.length} />}
        {log.length > 0 && <DataTable kind={tables.phases} caption="By kind of work" rows={phases} />}
        {timeline && <Pauses timeline={timeline} />}
        {locked.length > 0
          ? (
            <FoldedTable
              kind={tables.lockedStatements}
              caption="Waits for locks"
              rows={locked}
              noun="statement"
            />
          )
          : <p>No statement had to ask for its lock twice.</p>}
        {lockWaits.length > 0 && (
          <DataTable kind={tables.lockWaits} caption="Waiting for a lock now" rows={lockWaits} />
        )}
        {objections.length > 0 && (
          <FoldedTable
            kind={tables.objections}
            caption="Isolated in spite of this"
            rows={objections}
            noun="objection"
          />
        )}
        {log.length > 0 && (
          <>
            <FoldedTable kind={tables.loggedTables} caption="By table" rows={byTable} noun="table" />
            <FoldedTable
              kind={tables.loggedStatements}
              caption="Every statement, in the order in which it ran"
              rows={log}
              noun="statement"
            />
          </>
        )}
      </>
    ),
  }];
}

function Pauses({ timeline: { began, pauses } }: { timeline: Timeline }) {
  if (pauses.length === 0) return <p>There was no pause of a second or more.</p>;
  const moment = (seconds: number) => new Date(began.getTime() + seconds * 1000);
  return (
    <DataTable
      kind={tables.pauses}
      caption="Pauses: times of a second or more in which no statement ran"
      rows={pauses.map(({ from, to, hasIndexLines }) => ({
        began: moment(from),
        ended: moment(to),
        why: hasIndexLines
          ? "index lines, which are not timed"
          : "no statement ran: between two phases, paused, or stopped",
      }))}
    />
  );
}

function sourcesSection({ tables: orgTables, conflicts, readsRows, state }: ReportDocument): Section[] {
  if (orgTables.length === 0) return [];
  const sampled = orgTables.some(({ isSampled }) => isSampled);
  const done = state === "complete" || state === "under way";
  const hypothetical = orgTables.some(({ isPerRow, decidedBy = [] }) => !isPerRow && decidedBy.length > 0);
  return [{
    id: "sources",
    title: done ? "Who decided each table's rows" : "Who will decide each table's rows",
    content: (
      <>
        <p>
          A row belongs to the organization of the first of its columns that names one. An orphan is a row that nothing
          decides: it belongs to the default organization. In a conflict the columns name several organizations, and the
          first one counts.
          {hypothetical &&
            " Where all rows belong to the default organization, none is looked at; columns that are named there would decide with a mapping."}
          {!readsRows && " Rows were not counted; what the columns are is said in words."}
          {sampled && " Of large tables a sample was counted."}
        </p>
        <FoldedTable
          kind={tables.sources}
          caption="Sources, orphans and conflicts"
          rows={orgTables}
          noun="table"
          mostUnfolded={60}
        />
        {conflicts.inAll > 0 && (
          <FoldedTable
            kind={tables.conflictingRows}
            caption={conflicts.inAll > conflicts.rows.length
              ? `The first of ${count(conflicts.inAll, "row")} in conflict, from org_migration.backfill_conflicts`
              : "Rows in conflict"}
            rows={conflicts.rows}
            noun="row"
          />
        )}
      </>
    ),
  }];
}

function usersSection({ users, usersWithoutOrg, usersInNoOrg, runs, userProblems }: ReportDocument): Section {
  return {
    id: "users",
    title: "Users",
    content: (
      <>
        <p>
          {usersWithoutOrg.length === 0
            ? `All of ${
              count(users - usersInNoOrg, "user")
            } have their organization in app_metadata; a token has it after its next refresh.`
            : `Of ${count(users - usersInNoOrg, "user")} some lack their organization in app_metadata.`}
          {usersInNoOrg > 0 &&
            ` ${count(usersInNoOrg, "more user")} ${usersInNoOrg === 1 ? "is" : "are"} in none on purpose.`}
        </p>
        {usersWithoutOrg.length > 0 && (
          <DataTable kind={tables.lackingUsers} caption="Users without their organization" rows={usersWithoutOrg} />
        )}
        {runs.length > 0
          ? (
            <FoldedTable
              kind={tables.userRuns}
              caption="Runs of update-user-org-metadata, and their users by outcome"
              rows={runs}
              noun="run"
            />
          )
          : <p>The function update-user-org-metadata has not run.</p>}
        {userProblems.inAll > 0 && (
          <FoldedTable
            kind={tables.userProblems}
            caption={userProblems.inAll > userProblems.rows.length
              ? `The first of ${count(userProblems.inAll, "user")} who could not be updated, from tenancy.user_problems`
              : "Users who could not be updated"}
            rows={userProblems.rows}
            noun="user"
          />
        )}
      </>
    ),
  };
}
