export interface Screen {
  write(text: string): void;
  /** The width of the terminal; undefined: there is no terminal. */
  columns(): number | undefined;
  /** Milliseconds since some fixed point. */
  now(): number;
}

/** What is going on, in one line: redrawn in place on a terminal, elsewhere a new line now and then. */
export interface LiveLine {
  /** True where it is redrawn: there is room for a bar. */
  isLive(): boolean;
  /** Shows the line; where it is not redrawn, not sooner than the interval after the last one, unless always. */
  show(text: string, always?: boolean): void;
  /** Writes text for good, above the line. What does not end with a newline keeps the line away until one comes. */
  above(write: () => void, endsLine?: boolean): void;
  /** Takes the line away. */
  clear(): void;
  /** Ends the line: what it shows stays. */
  end(): void;
}

/** The screen that a process writes to on this stream. A terminal that does not know its width says 0. */
export function screenOf(stream: NodeJS.WriteStream, hide: (text: string) => string = (text) => text): Screen {
  return {
    write: (text) => stream.write(hide(text)),
    columns: () => stream.isTTY && process.env["TERM"] !== "dumb" ? stream.columns || 80 : undefined,
    now: () => performance.now(),
  };
}

export function createLiveLine({ write, columns, now }: Screen, plainInterval: number): LiveLine {
  let lastPlain = -Infinity;
  let drawn = "";
  let open = false;

  const draw = (text: string) => {
    write(`\r\x1b[2K${[...text].slice(0, Math.max((columns() ?? 80) - 1, 1)).join("")}`);
    drawn = text;
  };
  return {
    isLive: () => columns() !== undefined,
    show: (text, always = false) => {
      if (columns() !== undefined) {
        if (!open) draw(text);
      } else if (always || now() - lastPlain >= plainInterval) {
        write(`${text}\n`);
        lastPlain = now();
      }
    },
    above: (writeAbove, endsLine = true) => {
      const line = drawn;
      if (line !== "") write("\r\x1b[2K");
      drawn = "";
      writeAbove();
      open = !endsLine;
      if (line !== "" && !open) draw(line);
    },
    clear: () => {
      if (drawn !== "") write("\r\x1b[2K");
      drawn = "";
    },
    end: () => {
      if (drawn !== "") write("\n");
      drawn = "";
    },
  };
}
