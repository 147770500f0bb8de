import { describe, expect, test } from "vitest";
import { createPushDisplay, describeNow } from "../../cli/push-display.ts";
import type { Now } from "../../cli/push-now.ts";

const running: Now = {
  status: "running",
  session_pid: 4711,
  session_seconds: 60,
  paused_seconds: null,
  phase: 3,
  step: "backfill",
  relation: "calls",
  table_number: 12,
  tables: 45,
  percent: 34.25,
  rows_per_second: 21_300.4,
  seconds_left: 72,
  wal_bytes: 1_234_567_890,
  blocked_seconds: null,
  waits_for: null,
  blocked_by: null,
  unblock: null,
  next: "index of calls",
};
const blocked: Now = {
  ...running,
  status: "blocked",
  blocked_seconds: 12,
  waits_for: "a lock on calls",
  blocked_by: "pid 1, idle in transaction for 312.4 s: select 1\npid 2, active for 3.0 s: select \x1b[2J2",
  unblock: "select pg_terminate_backend(1);\nselect pg_terminate_backend(2);",
};
const paused: Now = {
  ...running,
  status: "paused",
  paused_seconds: 125,
  next: "update tenancy.settings set paused = false",
};
const dead: Now = { ...running, status: "dead", seconds_left: null, wal_bytes: null, next: "push" };

describe("describeNow", () => {
  test.each<[string, Now, string]>([
    [
      "a push that runs",
      running,
      "34.3 %  1 min 12 s left  phase 3 backfill calls (12 of 45)  21,300 rows/s  WAL 1,235 MB",
    ],
    [
      "one that waits for a lock",
      blocked,
      "34.3 %  blocked for 12 s  1 min 12 s of work left  phase 3 backfill calls (12 of 45)  WAL 1,235 MB",
    ],
    [
      "one that is paused",
      paused,
      "34.3 %  paused for 2 min 5 s  1 min 12 s of work left  phase 3 backfill calls (12 of 45)  WAL 1,235 MB",
    ],
    ["one that is dead", dead, "34.3 %  not running: its session is gone  phase 3 backfill calls (12 of 45)"],
    ["one between two steps", {
      ...running,
      phase: null,
      step: null,
      relation: null,
      table_number: null,
      tables: null,
      rows_per_second: null,
      wal_bytes: null,
    }, "34.3 %  1 min 12 s left"],
    ["one whose client is silent", {
      ...running,
      status: "idle",
      rows_per_second: null,
      wal_bytes: null,
    }, "34.3 %  its client sends nothing  1 min 12 s of work left  phase 3 backfill calls (12 of 45)"],
    [
      "one that is done",
      { ...running, status: "done", percent: 100, seconds_left: null, wal_bytes: null },
      "100 %  done",
    ],
    ["none", { ...running, status: "not begun" }, "no table has been touched yet"],
  ])("tells %s", (_what, now, line) => {
    expect(describeNow(now)).toBe(line);
  });
});

describe("createPushDisplay", () => {
  const show = (width: number | undefined) => {
    const screen = { text: "", time: 0 };
    const display = createPushDisplay({
      write: (text) => screen.text += text,
      columns: () => width,
      now: () => screen.time,
    });
    return { screen, display };
  };

  test("redraws one line on a terminal, no wider than it, and passes output on above it", () => {
    const { screen, display } = show(60);
    display.show(running);
    display.pass(() => screen.text += "Applying migration a.sql...\n", true);
    display.show(running);
    display.end();
    const line = "████████░░░░░░░░░░░░░░░░  34.3 %  1 min 12 s left  phase 3 ba".slice(0, 59);
    const erase = "\r\x1b[2K";
    expect(screen.text).toBe(
      `${erase}${line}${erase}Applying migration a.sql...\n${erase}${line}${erase}${line}\n`,
    );
  });

  test("keeps away from a line of the output that is not at its end", () => {
    const { screen, display } = show(60);
    display.pass(() => screen.text += "Password: ", false);
    display.show(running);
    expect(screen.text).toBe("Password: ");
    display.pass(() => screen.text += "\n", true);
    display.show(running);
    expect(screen.text).toContain("34.3 %");
  });

  test("writes a line per ten seconds elsewhere, and one at once when the status changes", () => {
    const { screen, display } = show(undefined);
    for (screen.time = 0; screen.time <= 20_000; screen.time += 1000) {
      display.show({ ...running, percent: screen.time / 1000 });
    }
    display.show({ ...running, status: "done", percent: 100 });
    display.end();
    expect(screen.text.split("\n").map((line) => line.split("  ")[0])).toEqual([
      "0.0 %",
      "10.0 %",
      "20.0 %",
      "100 %",
      "",
    ]);
  });

  test("tells once who is in the way, and the statement that ends that", () => {
    const { screen, display } = show(undefined);
    display.show(blocked);
    display.show({ ...blocked, blocked_by: blocked.blocked_by!.replace("312.4", "313.4") });
    expect(screen.text).toBe([
      "The push waits for a lock on calls, because of:",
      "  pid 1, idle in transaction for 312.4 s: select 1",
      "  pid 2, active for 3.0 s: select  [2J2",
      "To end that:",
      "  select pg_terminate_backend(1);",
      "  select pg_terminate_backend(2);",
      describeNow(blocked),
      "",
    ].join("\n"));
  });

  test.each<[string, Now, string]>([
    ["a pause", paused, "The push is paused. To go on: update tenancy.settings set paused = false;"],
    ["a session that is gone", dead, "The session of the push, pid 4711, is gone. Nothing is lost. To go on: push."],
  ])("tells once of %s, and what to do", (_what, now, told) => {
    const { screen, display } = show(undefined);
    display.show(now);
    display.show(now);
    expect(screen.text).toBe(`${told}\n${describeNow(now)}\n`);
  });

  test("says once why it shows nothing", () => {
    const { screen, display } = show(undefined);
    for (let times = 0; times < 3; times++) display.silent("connection refused");
    expect(screen.text).toBe("No progress is shown: connection refused\n");
  });
});
