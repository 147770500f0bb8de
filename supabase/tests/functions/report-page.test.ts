import { describe, expect, test } from "vitest";
import type { ReportDocument } from "../../cli/report-document.ts";
import { composePage } from "../../cli/report-page.tsx";
import { judge, summarize } from "../../cli/report-verdict.ts";
import { emptyReport, hostileReport, logged } from "../report.ts";

const passed = { name: "guard", table: "public.calls", passed: true, detail: "" };
const planned = {
  number: 1,
  phase: 2,
  part: "column",
  table: "public.calls",
  statement: "alter table public.calls add column org_id uuid",
  lock: "ACCESS EXCLUSIVE",
  bytes: 0,
  rows: null,
  seconds: 0.2,
};
const stopping = {
  severity: "stops" as const,
  code: "rule",
  object: "public.calls",
  problem: "has a rule",
  remedy: "drop it",
};

describe("judge", () => {
  test.each<[string, Partial<ReportDocument>, string, string]>([
    ["stopped", { findings: [stopping] }, "bad", "The push would stop at 1 finding"],
    [
      "planned",
      { plan: [planned], findings: [{ ...stopping, severity: "leaks" }] },
      "open",
      "it has 1 statement to run",
    ],
    ["not begun", { state: "not begun", plan: [planned] }, "open", "Nothing would stop the push"],
    [
      "under way",
      { state: "under way", plan: [planned, planned], checks: [] },
      "open",
      "2 statements are still to run",
    ],
    ["complete", { state: "complete", checks: [passed] }, "good", "all of 1 check pass"],
    [
      "without users",
      { state: "complete", checks: [passed, { ...passed, name: "users", passed: false }] },
      "open",
      "Call the function update-user-org-metadata",
    ],
    ["failed", { state: "complete", checks: [passed, { ...passed, passed: false }] }, "bad", "1 check of 2 fails"],
  ])("says what a database is that is %s", (_, report, mark, words) => {
    const verdict = judge({ ...emptyReport, ...report });
    expect(verdict.mark).toBe(mark);
    expect(`${verdict.text} ${verdict.next}`).toContain(words);
  });
});

test("the summary has tables, rows, organizations, users, time, checks and findings", () => {
  const lines = Object.fromEntries(summarize({ ...hostileReport, plan: [] }));
  expect(lines).toEqual({
    Tables: "3 org-scoped, 1 excluded",
    "Rows in org-scoped tables": "2,468",
    Organizations: "2",
    Users: "3, 1 with their organization in app_metadata, 1 in none on purpose",
    "What ran": "5 statements in 1 h; at work: 6.511 s; waited for locks: 3 s; pauses: 59 min 50 s",
    "Checks of tenancy.verify()": "1 of 3 pass",
    Findings: "stops the push: 1, breaks: 1, leaks: 1, to decide: 1, in the way now: 1",
  });
});

describe("the page", () => {
  const page = composePage(hostileReport);

  test("has no markup but its own, whatever names and messages are made of", () => {
    expect(page).not.toMatch(/<script|<img/i);
    expect(page).not.toContain("\u202e");
    expect(page.match(/<\/style>|<\/title>/g)).toEqual(["</title>", "</style>"]);
    expect(page).toContain("&amp;amp;");
  });

  test("loads nothing and runs nothing", () => {
    expect(page).toContain("default-src 'none'; style-src 'unsafe-inline'");
    expect(page).not.toMatch(/<[^>]*\s(src|srcset|style|on\w+)=|url\(|@import|<link/i);
    expect([...page.matchAll(/href="([^"]*)"/g)].every(([, target]) => target?.startsWith("#"))).toBe(true);
  });

  test("has sections only for what there is", () => {
    const sections = (report: ReportDocument) =>
      [...composePage(report).matchAll(/<h2 id="(\w+)"/g)].map(([, id]) => id);
    expect(sections(hostileReport)).toEqual(["checks", "findings", "plan", "log", "sources", "users"]);
    expect(sections(emptyReport)).toEqual(["findings", "users"]);
  });

  test("is of a reasonable size for 300 tables", () => {
    const names = Array.from({ length: 300 }, (_, index) => `public.a_table_with_a_name_${index}`);
    const each = <Row>(number: number, make: (name: string, step: number) => Row) =>
      names.flatMap((name) => Array.from({ length: number }, (_, step) => make(name, step)));
    const statement = (name: string) => `alter table ${name} validate constraint a_table_with_a_name_org_id_not_null`;
    const tables = hostileReport.tables.slice(0, 1);
    const report: ReportDocument = {
      ...emptyReport,
      state: "under way",
      tables: tables.flatMap((table) => names.map((name) => ({ ...table, name, inWords: "the owner in user_id" }))),
      plan: each(3, (table, number) => ({ ...planned, number, table, statement: statement(table) })),
      log: each(11, (table, id) => logged(id, { table, statement: statement(table) })),
      checks: each(13, (table) => ({ ...passed, table, detail: "a_table_with_a_name_org_id_not_null" })),
    };
    expect(composePage(report).length).toBeLessThan(3_000_000);
  });
});
