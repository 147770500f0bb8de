import { cleanText } from "./command-line.ts";
import { formatCount } from "./print.ts";
import type { Progress } from "./users-answer.ts";
import type { RunnerPorts } from "./users-runner.ts";

interface Screen {
  write(text: string): void;
  /** The width of the terminal; undefined: there is no terminal. */
  columns(): number | undefined;
  /** Milliseconds since some fixed point. */
  now(): number;
}

type Display = RunnerPorts["display"] & {
  /** Ends the line that is being redrawn. */
  end(): void;
};

/** Without a terminal, the least time between two lines. */
const plainInterval = 5000;
const barWidth = 24;

/** Shows how far a run is: on a terminal in one line that is redrawn, elsewhere in a new line now and then. */
export function createDisplay({ write, columns, now }: Screen): Display {
  let lastPlain = -Infinity;
  let drawn = false;
  let lastProgress: Progress | undefined;
  let lastRun = "";

  const show = (text: string, always = false) => {
    const width = columns();
    if (width !== undefined) {
      write(`\r\x1b[2K${[...text].slice(0, Math.max(width - 1, 1)).join("")}`);
      drawn = true;
    } else if (always || now() - lastPlain >= plainInterval) {
      write(`${text}\n`);
      lastPlain = now();
    }
  };
  const draw = (progress: Progress, always = false) => {
    lastProgress = progress;
    show(formatProgress(progress, columns() === undefined ? 0 : barWidth), always);
  };
  const end = () => {
    if (drawn) write("\n");
    drawn = false;
  };
  return {
    started: (runId, progress) => {
      if (runId === lastRun) return draw(progress);
      lastRun = runId;
      end();
      write(`Run ${cleanText(runId)}\n`);
      draw(progress, true);
    },
    progress: (progress) => draw(progress),
    pausing: (reason, milliseconds) => {
      const soFar = lastProgress ? `${formatDone(lastProgress)}  ` : "";
      show(`${soFar}calling again in ${formatDuration(milliseconds / 1000)}: ${reason}`);
    },
    end,
  };
}

function formatDone({ done, total }: Progress): string {
  return `${formatCount(done)} of ${formatCount(total)} users`;
}

function formatProgress(progress: Progress, width: number): string {
  const { done, total, failed, users_per_second: pace, eta_seconds: eta } = progress;
  const full = total === 0 ? width : Math.min(Math.floor((done / total) * width), width);
  return [
    ...(width === 0 ? [] : [`${"█".repeat(full)}${"░".repeat(width - full)}`]),
    formatDone(progress),
    ...(pace === 0 ? [] : [`${pace.toFixed(1)}/s`]),
    ...(eta === null ? [] : [`${formatDuration(eta)} left`]),
    `${formatCount(failed)} failed`,
  ].join("  ");
}

function formatDuration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
