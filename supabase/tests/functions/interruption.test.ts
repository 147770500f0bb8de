import { describe, expect, test } from "vitest";
import { createInterruption } from "../../cli/interruption.ts";

describe("createInterruption", () => {
  test("asks to stop at the first Ctrl-C and its echo, and stops at once at the second", () => {
    let time = 0;
    let stops = 0;
    const { signal, interrupt } = createInterruption(() => time, () => stops++);
    expect([signal.aborted, stops]).toEqual([false, 0]);
    interrupt();
    time = 400;
    interrupt();
    expect([signal.aborted, stops]).toEqual([true, 0]);
    time = 600;
    interrupt();
    expect(stops).toBe(1);
  });
});
