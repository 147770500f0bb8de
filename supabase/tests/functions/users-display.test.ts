import { describe, expect, test } from "vitest";
import { createDisplay } from "../../cli/users-display.ts";

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
  const at = (done: number) => ({ done, total: 1200, failed: 2, users_per_second: 12.34, eta_seconds: 75 });

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
