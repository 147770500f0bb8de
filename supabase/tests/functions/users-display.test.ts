import { describe, expect, test } from "vitest";
import { createDisplay, describeFinished, describePreview } from "../../local/users-display.ts";
import { formatReport } from "../../local/users-report.ts";
import type { Finished } from "../../local/users-runner.ts";

const runId = "6f000000-0000-4000-8000-000000000001";

describe("createDisplay", () => {
  const show = (width: number | undefined) => {
    const screen = { text: "", time: 0 };
    const display = createDisplay({
      write: (text) => screen.text += text,
      columns: () => width,
      now: () => screen.time,
    });
    return { screen, display };
  };
  const at = (done: number) => ({ done, total: 1200, failed: 2, usersPerSecond: 12.34, etaSeconds: 75 });

  test("draws one line again and again on a terminal, no wider than it", () => {
    const { screen, display } = show(50);
    display.started(runId, at(0));
    display.progress(at(600));
    display.end();
    const lines = screen.text.split(/[\r\n]+(?:\p{Cc}\[2K)?/u).filter(Boolean);
    expect(lines[2]).toBe("████████████░░░░░░░░░░░░  600 of 1,200 users  12.34".slice(0, 49));
    expect(screen.text.match(/\n/g)).toHaveLength(2);
  });

  test("writes plain lines elsewhere, at most one in five seconds after the first", () => {
    const { screen, display } = show(undefined);
    display.started(runId, at(0));
    for (screen.time = 1000; screen.time <= 11_000; screen.time += 1000) display.progress(at(screen.time / 1000));
    display.started(runId, at(11));
    display.pausing("the connection failed", 8000);
    display.end();
    expect(screen.text.split("\n")).toEqual([
      `Run ${runId}`,
      "0 of 1,200 users  12.3/s  1 min 15 s left  2 failed",
      "5 of 1,200 users  12.3/s  1 min 15 s left  2 failed",
      "10 of 1,200 users  12.3/s  1 min 15 s left  2 failed",
      "",
    ]);
  });
});

describe("describeFinished and describePreview", () => {
  const end: Finished = {
    runId,
    done: true,
    remaining: 0,
    updated: 10,
    conflicts: 0,
    unreachable: 0,
    failed: 0,
    deleted: 0,
    users: 12,
    usersWithoutOrg: 0,
    problems: [],
    retryInSeconds: 0,
  };
  const update = { revert: false, reported: false };
  const revert = { revert: true, reported: false };

  test("an update is complete when no user is without organization, whatever the counts of the run", () => {
    expect(describeFinished(end, update).complete).toBe(true);
    expect(describeFinished({ ...end, failed: 1 }, update).complete).toBe(true);
    expect(describeFinished({ ...end, usersWithoutOrg: 1 }, update).complete).toBe(false);
  });

  test("a revert is complete without failures and conflicts, whoever is without organization then", () => {
    expect(describeFinished({ ...end, usersWithoutOrg: 12 }, revert).complete).toBe(true);
    expect(describeFinished({ ...end, failed: 1 }, revert).complete).toBe(false);
    expect(describeFinished({ ...end, conflicts: 1 }, revert).complete).toBe(false);
  });

  test("a dry run is complete when there is nothing to update and no obstacle", () => {
    const preview = { wouldUpdate: 0, conflicts: 0, unreachable: 0, users: 12, usersWithoutOrg: 0 };
    expect(describePreview(preview).complete).toBe(true);
    for (const name of ["wouldUpdate", "conflicts", "unreachable"]) {
      expect(describePreview({ ...preview, [name]: 1 }).complete).toBe(false);
    }
  });

  test("shows the first problems and how to go on", () => {
    const problems = [{ user_id: "a", outcome: "conflict", reason: "has \x1b[1manother" }];
    const { text } = describeFinished({ ...end, conflicts: 2, usersWithoutOrg: 2, problems }, update);
    expect(text).toContain("The first 1 of 2 problems:");
    expect(text).toMatch(/a {5}conflict {2}has {2}\[1manother/);
    expect(text).toContain("--on-conflict overwrite");
    expect(text).toContain("--report <file.csv>");
    expect(text).toContain(`npm run users -- --revert ${runId}`);
    expect(describeFinished({ ...end, conflicts: 2, problems }, { ...update, reported: true }).text)
      .not.toContain("--report");
  });
});

describe("formatReport", () => {
  test("quotes what RFC 4180 wants quoted, and leaves the rest as it is", () => {
    expect(formatReport([{ user_id: "a", outcome: "failed", reason: 'says "no", twice\nor more' }, {
      user_id: "b",
      outcome: "failed",
      reason: "says no",
    }])).toBe('user_id,outcome,reason\r\na,failed,"says ""no"", twice\nor more"\r\nb,failed,says no\r\n');
  });

  test.each(["=1+1", "+1", "-1", "@SUM(A1)"])("makes a text of %s", (reason) => {
    expect(formatReport([{ user_id: "a", outcome: "failed", reason }])).toContain(`a,failed,'${reason}\r\n`);
    expect(formatReport([{ user_id: "a", outcome: "failed", reason: `x${reason}` }])).toContain(
      `a,failed,x${reason}\r\n`,
    );
  });

  test("has the header when there are no problems", () => {
    expect(formatReport([])).toBe("user_id,outcome,reason\r\n");
  });
});
