import { describe, expect, test } from "vitest";
import { takeWorkers } from "../../cli/push-workers.ts";

describe("--workers", () => {
  test.each([
    [["--remote", "--workers", "3", "--yes"], { workers: 3, rest: ["--remote", "--yes"] }],
    [["--workers=16"], { workers: 16, rest: [] }],
    [["--remote"], { workers: 1, rest: ["--remote"] }],
    [["--workdir", "workers"], { workers: 1, rest: ["--workdir", "workers"] }],
  ])("is taken out of %j, for the CLI does not know it", (given, expected) => {
    expect(takeWorkers(given)).toEqual(expected);
  });

  test.each([["0"], ["17"], ["two"], ["1.5"], ["-1"], [""]])("refuses %j by name", (given) => {
    expect(() => takeWorkers(["--workers", given])).toThrow(`--workers ${given}: give a number from 1 to 16`);
    expect(() => takeWorkers([`--workers=${given}`])).toThrow("give a number from 1 to 16");
  });

  test("without a number is refused", () => {
    expect(() => takeWorkers(["--workers"])).toThrow("give a number from 1 to 16");
  });
});
