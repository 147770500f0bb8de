/** Lays rows out in columns; numbers are aligned to the right. */
export function formatTable(header: string[], rows: (string | number)[][]): string {
  const text = (cell: string | number) => (typeof cell === "number" ? formatCount(cell) : cell);
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => text(row[column] ?? "").length))
  );
  const line = (row: (string | number)[]) =>
    `  ${
      row
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return typeof cell === "number" ? text(cell).padStart(width) : cell.padEnd(width);
        })
        .join("  ")
        .trimEnd()
    }`;
  return [line(header), line(widths.map((width) => "─".repeat(width))), ...rows.map(line)].join("\n");
}

export function formatSeconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

export function formatCount(count: number): string {
  return count.toLocaleString("en-US");
}

const barWidth = 24;

/** A bar of which this share, from 0 to 1, is full. */
export function formatBar(share: number): string {
  const full = Math.min(Math.floor(share * barWidth), barWidth);
  return `${"█".repeat(full)}${"░".repeat(barWidth - full)}`;
}

export function formatDuration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
