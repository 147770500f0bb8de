import { formatCount } from "../../cli/print.ts";
import type { Backfill, Least } from "./measure-backfill.ts";
import type { InsertCost } from "./measure-inserts.ts";
import { type Measured, phases } from "./measure-push.ts";
import type { Kind } from "./shared.ts";
import { table } from "./shared.ts";
import { markdown, median, megabytes, percentile, ratio, sum } from "./print.ts";

/** Phases 2 to 4 in all, in seconds. */
export const phases2to4 = ({ seconds }: Measured) =>
  sum(phases.filter((phase) => phase !== "immutability").map((phase) => seconds[phase] ?? 0));

export function comparePushes(plain: Measured[], ours: Measured[]): string[][] {
  const both = (name: string, read: (run: Measured) => number, show: (value: number) => string, isRatio = true) => {
    const [left, right] = [median(plain.map(read)), median(ours.map(read))];
    return [name, show(left), show(right), isRatio ? ratio(left, right) : ""];
  };
  const seconds = (value: number) => (value === 0 ? "" : `${value.toFixed(value < 1 ? 2 : 1)} s`);
  const milliseconds = (value: number) => `${formatCount(Math.round(value * 10) / 10)} ms`;
  const percent = (value: number) => `${Math.round(value * 100)} %`;
  return [
    both("**phases 2–4 in all**", phases2to4, seconds),
    ...phases.map((phase) => both(phase, (run) => run.seconds[phase] ?? 0, seconds, false)),
    both("writer: longest stall", (run) => Math.max(...run.latencies), milliseconds),
    both("writer: p99.9", (run) => percentile(run.latencies, 0.999), milliseconds, false),
    both("writer: p99", (run) => percentile(run.latencies, 0.99), milliseconds, false),
    both("writer: operations meanwhile", (run) => run.latencies.length, formatCount, false),
    both(
      "writer: operations per second",
      (run) => run.latencies.length / sum(Object.values(run.seconds)),
      (value) => formatCount(Math.round(value)),
      false,
    ),
    both("writer: errors", (run) => run.errors, formatCount, false),
    both("WAL", (run) => run.walBytes, megabytes),
    both(`growth of ${table}`, (run) => run.sizeAfter / run.sizeBefore - 1, percent, false),
    both("HOT updates", (run) => run.hotUpdates / Math.max(run.updates, 1), percent, false),
  ];
}

/** The least: what must leave its page at the price of one UPDATE, the rest at that of a row with room. */
export function compareBackfills({ plain, ours }: Record<Kind, Backfill[]>, { share, rateWithRoom }: Least): string {
  const medians = (read: (run: Backfill) => number) => [median(plain.map(read)), median(ours.map(read))] as const;
  const rates = medians(({ rate }) => rate);
  const wal = medians(({ walBytes }) => walBytes);
  const growth = medians((run) => run.sizeAfter / run.sizeBefore - 1);
  const hot = medians((run) => run.hotUpdates / run.updates);
  const percent = (value: number) => `${Math.round(value * 100)} %`;
  const least = 1 / (share / rates[0] + (1 - share) / rateWithRoom);
  return markdown(["", "one UPDATE", "these migrations", "ratio"], [
    ["rows per second", ...rates.map((rate) => formatCount(Math.round(rate))), ratio(rates[1], rates[0])],
    ["WAL", ...wal.map(megabytes), ratio(...wal)],
    ["growth", ...growth.map(percent), ""],
    ["HOT updates", ...hot.map(percent), ""],
    [`the least: ${percent(share)} must leave their page`, "", formatCount(Math.round(least)), ratio(least, rates[0])],
  ]);
}

export function compareTriggers({ none, plain, ours }: Record<"none" | Kind, number>): string {
  return markdown(["", "no trigger", "the plain plan's", "ours"], [
    ["per row", ...[none, plain, ours].map((time) => `${time.toFixed(2)} µs`)],
    ["against none", "1 ×", ratio(plain, none), ratio(ours, none)],
  ]);
}

export function compareInserts(costs: { together: InsertCost; apart: InsertCost }): string {
  const line = (name: string, cost: InsertCost) => [
    name,
    ...[cost.without, cost.with].map((time) => `${time.toFixed(2)} µs`),
    `${cost.ratio.toFixed(3)} ×`,
  ];
  return markdown(["", "without filler", "with the filler", "ratio"], [
    line("per row, one statement", costs.together),
    line("per row, a statement each", costs.apart),
  ]);
}
