import { cleanText } from "./command-line.ts";
import { formatCount, formatTable } from "./print.ts";
import type { Finished, Preview, Problem, Progress, RunnerPorts } from "./users-runner.ts";

export interface Screen {
  write(text: string): void;
  /** The width of the terminal; undefined: it is none. */
  columns(): number | undefined;
  /** Milliseconds, from anywhere. */
  now(): number;
}

export type Display = RunnerPorts["display"] & {
  /** Leaves the terminal on a line of its own. */
  end(): void;
};

/** Where there is no terminal: a line no more often than this. */
const plainInterval = 5000;
const barWidth = 24;

/** Shows how far a run is: on a terminal one line that is drawn again and again, elsewhere a line now and then. */
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
      const sofar = lastProgress ? `${formatDone(lastProgress)}  ` : "";
      show(`${sofar}calling again in ${formatDuration(milliseconds / 1000)}: ${reason}`);
    },
    end,
  };
}

function formatDone({ done, total }: Progress): string {
  return `${formatCount(done)} of ${formatCount(total)} users`;
}

function formatProgress(progress: Progress, width: number): string {
  const { done, total, failed, usersPerSecond, etaSeconds } = progress;
  const full = total === 0 ? width : Math.min(Math.floor((done / total) * width), width);
  return [
    ...(width === 0 ? [] : [`${"█".repeat(full)}${"░".repeat(width - full)}`]),
    formatDone(progress),
    ...(usersPerSecond === 0 ? [] : [`${usersPerSecond.toFixed(1)}/s`]),
    ...(etaSeconds === null ? [] : [`${formatDuration(etaSeconds)} left`]),
    `${formatCount(failed)} failed`,
  ].join("  ");
}

function formatDuration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** How a run has ended, and what there is to do. */
export interface Ending {
  text: string;
  /** Whether nothing is missing. */
  complete: boolean;
}

export function describePreview({ wouldUpdate, conflicts, unreachable, users, usersWithoutOrg }: Preview): Ending {
  const complete = wouldUpdate === 0 && conflicts === 0 && unreachable === 0;
  return {
    complete,
    text: joinParts([
      formatTable(["users", ""], [
        ["would be updated", wouldUpdate],
        ["conflicts", conflicts],
        ["unreachable", unreachable],
        ["not as they should be", usersWithoutOrg],
        ["all", users],
      ]),
      [
        "Dry run: nothing was written.",
        ...(complete ? ["Nothing is missing."] : []),
        ...(wouldUpdate > 0 ? ["To update them, call again without --dry-run."] : []),
        ...adviceOn({ conflicts, unreachable }),
      ].join("\n"),
    ]),
  };
}

export function describeFinished(finished: Finished, options: { revert: boolean; reported: boolean }): Ending {
  const { runId, updated, conflicts, unreachable, failed, deleted, users, usersWithoutOrg, problems } = finished;
  const { revert, reported } = options;
  const complete = revert ? failed === 0 && conflicts === 0 : usersWithoutOrg === 0;
  const allProblems = conflicts + unreachable + failed;
  return {
    complete,
    text: joinParts([
      `${revert ? "Taken back" : "Done"}: run ${cleanText(runId)}`,
      formatTable(["users", ""], [
        [revert ? "taken back" : "updated", updated],
        ["conflicts", conflicts],
        ["unreachable", unreachable],
        ["failed", failed],
        ["deleted meanwhile", deleted],
        ["without their organization", usersWithoutOrg],
        ["all", users],
      ]),
      problems.length === 0 ? "" : describeProblems(problems, allProblems),
      [
        ...(revert
          ? adviceOnRevert({ conflicts, failed, unreachable, complete })
          : adviceOnUpdate({ conflicts, failed, unreachable, complete, updated, runId })),
        ...(allProblems > problems.length && !reported ? ["All of them, with the reasons: --report <file.csv>"] : []),
      ].join("\n"),
    ]),
  };
}

function adviceOnUpdate(
  { conflicts, failed, unreachable, complete, updated, runId }:
    & Pick<Finished, "conflicts" | "failed" | "unreachable" | "updated" | "runId">
    & { complete: boolean },
): string[] {
  return [
    ...(complete
      ? ["Nothing is missing. Tokens have the organization after their next refresh: one jwt_expiry at most."]
      : []),
    ...adviceOn({ conflicts, unreachable }),
    ...(failed > 0 ? ["failed: call again; a new run tries them again"] : []),
    ...(!complete && conflicts + failed + unreachable === 0
      ? [
        "Users still lack their organization, new ones or those of another one: call again, without --org-id.",
      ]
      : []),
    ...(updated > 0 ? [`To take it back: npm run users -- --revert ${cleanText(runId)}`] : []),
  ];
}

function adviceOnRevert(
  { conflicts, failed, unreachable, complete }:
    & Pick<Finished, "conflicts" | "failed" | "unreachable">
    & { complete: boolean },
): string[] {
  return [
    ...(complete ? ["Nothing is left of the run but in tokens, until their next refresh."] : []),
    ...(conflicts > 0 ? ["conflicts: they were changed after the run, so they stay as they are"] : []),
    ...(unreachable > 0
      ? ["unreachable: select * from tenancy.user_preflight says what to mend; then call again"]
      : []),
    ...(failed > 0 ? ["failed: call again"] : []),
  ];
}

function adviceOn({ conflicts, unreachable }: Pick<Finished, "conflicts" | "unreachable">): string[] {
  return [
    ...(conflicts > 0 ? ["conflicts: they have another organization; --on-conflict overwrite replaces it"] : []),
    ...(unreachable > 0
      ? ["unreachable: select * from tenancy.user_preflight says what to mend; then call again"]
      : []),
  ];
}

const mostShown = 20;

function describeProblems(problems: Problem[], all: number): string {
  const shown = problems.slice(0, mostShown);
  const title = all > shown.length ? `The first ${shown.length} of ${formatCount(all)} problems:` : "The problems:";
  const rows = shown.map((problem) =>
    [problem.user_id, problem.outcome, problem.reason].map((cell) => cleanText(cell))
  );
  return `${title}\n${formatTable(["user", "outcome", "reason"], rows)}`;
}

function joinParts(parts: string[]): string {
  return parts.filter((part) => part !== "").join("\n\n");
}
