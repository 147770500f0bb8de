import { describe, expect, test } from "vitest";
import { describePreview, describeSummary } from "../../cli/users-ending.ts";
import type { PreviewAnswer, SummaryAnswer } from "../../functions/update-user-org-metadata/protocol.ts";
import type { UserProblem } from "../../functions/update-user-org-metadata/users.ts";

const runId = "6f000000-0000-4000-8000-000000000001";

describe("describeSummary and describePreview", () => {
  const summary: SummaryAnswer = {
    run_id: runId,
    done: true,
    remaining: 0,
    updated: 10,
    conflicts: 0,
    conflicts_with_default: 0,
    unreachable: 0,
    failed: 0,
    deleted: 0,
    users: 12,
    users_without_org: 0,
    users_in_no_org: 0,
    problems: [],
    pages: 1,
    seconds: 3,
    retry_in_seconds: 0,
  };
  const update = { revert: false, inSql: false, reported: false };
  const revert = { revert: true, inSql: false, reported: false };

  test("an update is complete when no user is without organization, whatever the counts of the run", () => {
    expect(describeSummary(summary, update).complete).toBe(true);
    expect(describeSummary({ ...summary, failed: 1 }, update).complete).toBe(true);
    expect(describeSummary({ ...summary, users_without_org: 1 }, update).complete).toBe(false);
  });

  test("who is in no organization on purpose is counted and does not make an update incomplete", () => {
    const { text, complete } = describeSummary({ ...summary, users_in_no_org: 3 }, update);
    expect(complete).toBe(true);
    expect(text).toMatch(/in none on purpose +3\n/);
  });

  test("a revert is complete without failures and conflicts, whoever is without organization then", () => {
    expect(describeSummary({ ...summary, users_without_org: 12 }, revert).complete).toBe(true);
    expect(describeSummary({ ...summary, failed: 1 }, revert).complete).toBe(false);
    expect(describeSummary({ ...summary, conflicts: 1 }, revert).complete).toBe(false);
  });

  test("says how to replace another organization, and apart from that how to replace it by the default one", () => {
    const advice = (conflicts: number, conflicts_with_default: number) =>
      describeSummary({ ...summary, conflicts, conflicts_with_default, users_without_org: conflicts }, update).text;
    expect(advice(2, 0)).toContain("--on-conflict overwrite replaces it");
    expect(advice(2, 0)).not.toContain("--move-to-default");
    expect(advice(2, 2)).toContain("2 of the conflicts should have the default organization");
    expect(advice(2, 2)).toContain("--on-conflict overwrite --move-to-default");
    expect(advice(2, 2)).not.toContain("replaces it");
    expect(advice(2, 1)).toMatch(/replaces it\n1 of the conflicts/);
  });

  test("a dry run is complete when there is nothing to update and no obstacle", () => {
    const preview: PreviewAnswer = {
      dry_run: true,
      would_update: 0,
      conflicts: 0,
      conflicts_with_default: 0,
      unreachable: 0,
      users: 12,
      users_without_org: 0,
      users_in_no_org: 0,
    };
    expect(describePreview(preview).complete).toBe(true);
    for (const name of ["would_update", "conflicts", "unreachable"]) {
      expect(describePreview({ ...preview, [name]: 1 }).complete).toBe(false);
    }
  });

  test("shows the first problems and how to go on", () => {
    const problems: UserProblem[] = [{ user_id: "a", outcome: "conflict", reason: "has \x1b[1manother" }];
    const { text } = describeSummary({ ...summary, conflicts: 2, users_without_org: 2, problems }, update);
    expect(text).toContain("The first 1 of 2 problems:");
    expect(text).toMatch(/a {5}conflict {2}has {2}\[1manother/);
    expect(text).toContain("--on-conflict overwrite");
    expect(text).toContain("--report <file.csv>");
    expect(text).toContain(`npm run users -- --revert ${runId}`);
    expect(describeSummary(summary, { ...update, inSql: true }).text).toContain(
      `npm run users -- --sql --revert ${runId}`,
    );
    expect(describeSummary({ ...summary, conflicts: 2, problems }, { ...update, reported: true }).text)
      .not.toContain("--report");
  });
});
