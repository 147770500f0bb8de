import { cleanText } from "./command-line.ts";
import { createLiveLine, type Screen } from "./live-line.ts";
import { formatBar, formatCount, formatDuration } from "./print.ts";
import type { Progress } from "./users-answer.ts";
import type { RunnerPorts } from "./users-runner.ts";

type Display = RunnerPorts["display"] & {
  /** Ends the line that is being redrawn. */
  end(): void;
};

/** Without a terminal, the least time between two lines. */
const plainInterval = 5000;

/** Shows how far a run is, in one line. */
export function createDisplay(screen: Screen): Display {
  const line = createLiveLine(screen, plainInterval);
  let lastProgress: Progress | undefined;
  let lastRun = "";

  const draw = (progress: Progress, always = false) => {
    lastProgress = progress;
    line.show(formatProgress(progress, line.isLive()), always);
  };
  return {
    started: (runId, progress) => {
      if (runId === lastRun) return draw(progress);
      lastRun = runId;
      line.end();
      screen.write(`Run ${cleanText(runId)}\n`);
      draw(progress, true);
    },
    progress: (progress) => draw(progress),
    pausing: (reason, milliseconds) => {
      const soFar = lastProgress ? `${formatDone(lastProgress)}  ` : "";
      line.show(`${soFar}calling again in ${formatDuration(milliseconds / 1000)}: ${reason}`);
    },
    end: () => line.end(),
  };
}

function formatDone({ done, total }: Progress): string {
  return `${formatCount(done)} of ${formatCount(total)} users`;
}

function formatProgress(progress: Progress, withBar: boolean): string {
  const { done, total, failed, users_per_second: pace, eta_seconds: eta } = progress;
  return [
    ...(withBar ? [formatBar(total === 0 ? 1 : done / total)] : []),
    formatDone(progress),
    ...(pace === 0 ? [] : [`${pace.toFixed(1)}/s`]),
    ...(eta === null ? [] : [`${formatDuration(eta)} left`]),
    `${formatCount(failed)} failed`,
  ].join("  ");
}
