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
