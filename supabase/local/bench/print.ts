import { formatCount } from "../../cli/print.ts";

/** Says how far the benchmark is, apart from its results. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle) - 1] ?? 0)) / 2;
}

export function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

export const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);

/** A table; all columns except the first are figures. */
export function markdown(header: string[], rows: string[][]): string {
  return [header, header.map((_, column) => (column === 0 ? "---" : "---:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n");
}

export const megabytes = (bytes: number) => `${formatCount(Math.round(bytes / 2 ** 20))} MB`;
export const ratio = (large: number, small: number) =>
  `${large / small < 100 ? (large / small).toPrecision(3) : formatCount(Math.round(large / small))} ×`;
