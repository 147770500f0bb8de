/** What the whole comes to, in a few lines. */
import { type Finding, type ReportDocument, type Severity } from "./report-document.ts";
import { count, formatDuration, formatNumber, sum } from "./report-text.ts";
import { drawTimeline } from "./report-timeline.ts";

/** good: nothing is to be done. open: something is. bad: something is wrong. */
export type Mark = "good" | "open" | "bad";

export interface Verdict {
  mark: Mark;
  text: string;
  next: string;
}

export const severityWords: Record<Severity, { title: string; explanation: string }> = {
  stops: { title: "Stops the push", explanation: "The push stops at these before it touches a table" },
  breaks: { title: "Breaks", explanation: "A user, an insert or a function of the application fails" },
  leaks: { title: "Leaks", explanation: "Rows of another organization are within reach" },
  decide: { title: "To decide", explanation: "Nothing fails; the owner of the application says what is right" },
  waits: { title: "In the way now", explanation: "Open transactions that the push would wait for at this moment" },
};

export function findingsOf(findings: Finding[], severity: Severity): Finding[] {
  return findings.filter((finding) => finding.severity === severity);
}

export function judge(report: ReportDocument): Verdict {
  const { state, plan, findings, checks = [] } = report;
  const stops = findingsOf(findings, "stops").length;
  if (state === "not pushed" || state === "not begun") {
    const text = state === "not pushed" ? "Not pushed." : "Not begun: the library is there, and no table was touched.";
    return stops > 0
      ? { mark: "bad", text, next: `The push would stop at ${count(stops, "finding")}: see Findings.` }
      : { mark: "open", text, next: `Nothing would stop the push; it has ${count(plan.length, "statement")} to run.` };
  }
  if (state === "under way") {
    return {
      mark: "open",
      text: "Not done.",
      next: `${count(plan.length, "statement")} ${
        plan.length === 1 ? "is" : "are"
      } still to run. Push again: it goes on.`,
    };
  }
  const failed = checks.filter(({ passed }) => !passed);
  if (failed.length === 0) {
    return {
      mark: "good",
      text: "Done.",
      next: `Nothing is left of the plan, and all of ${count(checks.length, "check")} pass.`,
    };
  }
  return failed.every(({ name }) => name === "users")
    ? {
      mark: "open",
      text: "The tables are done, the users are not.",
      next: "Call the function update-user-org-metadata: npm run users.",
    }
    : {
      mark: "bad",
      text: "Not right.",
      next: `Nothing is left of the plan, but ${count(failed.length, "check")} of ${formatNumber(checks.length)} ${
        failed.length === 1 ? "fails" : "fail"
      }: see Checks.`,
    };
}

/** The lines of the summary: what, and how much of it. */
export function summarize(report: ReportDocument): [term: string, value: string][] {
  const { tablesInAll, tables, organizations, users, usersInNoOrg, plan, log, findings, checks } = report;
  const lines: [string, string][] = [];
  lines.push([
    "Tables",
    tablesInAll
      ? `${formatNumber(tablesInAll.org)} org-scoped, ${formatNumber(tablesInAll.excluded)} excluded`
      : `${formatNumber(tables.length)} would be org-scoped`,
  ]);
  const counted = tables.filter(({ rows }) => rows !== null);
  const rows = sum(tables.map(({ rows }) => rows));
  lines.push([
    "Rows in org-scoped tables",
    `${report.state === "not pushed" || report.state === "not begun" ? "about " : ""}${formatNumber(rows)}${
      counted.length < tables.length ? `, and ${count(tables.length - counted.length, "table")} never counted` : ""
    }`,
  ]);
  lines.push(["Organizations", organizations === undefined ? "no table yet" : formatNumber(organizations)]);
  const placed = users - usersInNoOrg - sum(report.usersWithoutOrg.map((group) => group.users));
  lines.push([
    "Users",
    `${formatNumber(users)}, ${
      placed === users ? "all" : formatNumber(placed)
    } with their organization in app_metadata` +
    (usersInNoOrg > 0 ? `, ${formatNumber(usersInNoOrg)} in none on purpose` : ""),
  ]);
  if (log.length > 0) lines.push(["What ran", summarizeLog(report)]);
  if (plan.length > 0) {
    const seconds = sum(plan.map((statement) => statement.seconds));
    lines.push(["Still to run", `${count(plan.length, "statement")}; to expect: ${formatDuration(seconds, 0.1)}`]);
  }
  if (checks) {
    const passed = checks.filter((check) => check.passed).length;
    lines.push(["Checks of tenancy.verify()", `${formatNumber(passed)} of ${formatNumber(checks.length)} pass`]);
  }
  lines.push(["Findings", summarizeFindings(findings)]);
  return lines;
}

function summarizeLog({ log }: ReportDocument): string {
  const timeline = drawTimeline(log);
  const statements = count(log.length, "statement");
  if (!timeline) return statements;
  const worked = sum(log.map(({ seconds }) => seconds));
  const waited = sum(log.map(({ secondsWaited }) => secondsWaited));
  const paused = sum(timeline.pauses.map(({ from, to }) => to - from));
  return [
    `${statements} in ${formatDuration(timeline.seconds)}`,
    `at work: ${formatDuration(worked)}`,
    `waited for locks: ${waited > 0 ? formatDuration(waited) : "never"}`,
    ...(paused > 0 ? [`pauses: ${formatDuration(paused)}`] : []),
  ].join("; ");
}

function summarizeFindings(findings: Finding[]): string {
  const parts = (Object.keys(severityWords) as Severity[]).flatMap((severity) => {
    const number = findingsOf(findings, severity).length;
    return number > 0 ? [`${severityWords[severity].title.toLowerCase()}: ${formatNumber(number)}`] : [];
  });
  return parts.length > 0 ? parts.join(", ") : "none";
}
