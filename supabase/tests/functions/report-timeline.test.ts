import { describe, expect, test } from "vitest";
import { drawProgress, toBars } from "../../cli/report-figure.tsx";
import { drawTimeline, workOf } from "../../cli/report-timeline.ts";
import { after, eventfulLog, logged } from "../report.ts";

describe("drawTimeline", () => {
  const timeline = drawTimeline(eventfulLog);

  test("has nothing to draw of a log in which nothing was timed", () => {
    expect(drawTimeline([])).toBeUndefined();
    expect(drawTimeline([logged(1, { began: null, seconds: null })])).toBeUndefined();
  });

  test("begins with the first statement, or its first wait, and ends with the end of the last", () => {
    expect([timeline?.began, timeline?.ended, timeline?.seconds]).toEqual([after(0), after(3600.001), 3600.001]);
    const waited = drawTimeline([logged(1, { began: after(5), secondsWaited: 2, seconds: 1 })]);
    expect([waited?.began, waited?.seconds]).toEqual([after(3), 3]);
    expect(waited?.waits).toEqual([{ from: 0, to: 2 }]);
  });

  test("draws each kind of work in a lane, in the order of the phases, and what nobody timed as the time it can have been in", () => {
    expect(timeline?.lanes.map(({ name, isTimed }) => [name, isTimed])).toEqual([
      ["rows counted", true],
      ["columns", true],
      ["backfill", true],
      ["indexes, within", false],
      ["guards", true],
    ]);
    const [index] = timeline?.lanes.find(({ isTimed }) => !isTimed)?.spans ?? [];
    expect(index?.from).toBeCloseTo(10.1);
    expect(index?.to).toBeCloseTo(3600);
  });

  test("calls a second or more in which nothing ran a pause, but not a wait for a lock", () => {
    expect(timeline?.waits.map(({ from, to }) => [from, to].map(Math.round))).toEqual([[1, 4]]);
    expect(timeline?.pauses).toHaveLength(1);
    expect(timeline?.pauses[0]).toMatchObject({ hasIndexLines: true });
    const gap = (seconds: number) =>
      drawTimeline([logged(1, { seconds: 1 }), logged(2, { began: after(1 + seconds) })])?.pauses.length;
    expect([gap(0.9), gap(1.1)]).toEqual([0, 1]);
    // One statement runs all the while that others begin and end.
    const overlapping = [logged(1, { seconds: 10 }), logged(2, { began: after(1) }), logged(3, { began: after(9) })];
    expect(drawTimeline(overlapping)?.pauses).toEqual([]);
  });

  test("counts every statement as done, those that nobody timed at the latest that they can have been", () => {
    expect(timeline?.progress.map(({ done }) => done)).toEqual([0, 1, 2, 3, 4, 5]);
    const untimed = [logged(1, {}), logged(2, { began: null, seconds: null })];
    expect(drawTimeline(untimed)?.progress.at(-1)?.done).toBe(2);
  });

  test("draws a pause no longer than its share of the work, and never turns time round", () => {
    const place = timeline?.place ?? Number;
    expect([place(0), place(3600.001)]).toEqual([0, 1]);
    expect(place(3600) - place(10.1)).toBeLessThan(0.15);
    const moments = [0, 0.5, 4, 10.1, 1000, 2000, 3600].map(place);
    expect(moments).toEqual([...moments].sort((one, other) => one - other));
  });

  test("knows the work of every part, and takes what it does not know for an opt-in", () => {
    expect(
      ["count", "default", "leftovers", "invalid_index", "foreign_key_root", "check_valid", "guard_move"].map(workOf),
    )
      .toEqual(["rows counted", "columns", "backfill", "indexes", "foreign keys", "NOT NULL", "guards"]);
    expect(["isolation", "binding_valid", "least_privilege"].map(workOf)).toEqual(["opt-ins", "opt-ins", "opt-ins"]);
  });
});

describe("the drawing", () => {
  const place = (seconds: number) => seconds / 100;

  test("draws no more bars than can be seen, none too narrow to be seen, and none outside", () => {
    const many = Array.from({ length: 20_000 }, (_, index) => ({ from: index / 200, to: index / 200 + 0.001 }));
    expect(toBars({ place }, many).length).toBeLessThanOrEqual(500);
    expect(toBars({ place }, [{ from: 1, to: 1 }, { from: 50, to: 60 }, { from: 100, to: 100 }])).toEqual([
      { x: 10, width: 2 },
      { x: 500, width: 100 },
      { x: 998, width: 2 },
    ]);
  });

  test("draws the progress from nothing at the left to all at the top right", () => {
    const progress = [{ at: 0, done: 0 }, { at: 50, done: 1 }, { at: 100, done: 2 }];
    expect(drawProgress({ progress, place }, 2)).toBe("M0 100H500V50H1000V0H1000");
  });
});
