import { cleanText } from "./command-line.ts";
import { createLiveLine, type Screen } from "./live-line.ts";
import { formatBar, formatCount, formatDuration } from "./print.ts";
import type { Now } from "./push-now.ts";

export interface PushDisplay {
  show(now: Now): void;
  /** Says once why there is nothing to show. */
  silent(reason: string): void;
  /** Passes on a piece of another program's output, above the line. */
  pass(write: () => void, endsLine: boolean): void;
  end(): void;
}

/** Without a terminal, the least time between two lines. */
const plainInterval = 10_000;

/** Shows what a push is doing in one line, and above it, once each, who is in its way and whatever else the reader has to act on. */
export function createPushDisplay(screen: Screen): PushDisplay {
  const line = createLiveLine(screen, plainInterval);
  let told = "";
  let last = "";

  /** Once for each new text; that somebody's age grows is no news. */
  const tell = (text: string) => {
    const news = text.replaceAll(/ for [\d.]+ s:/g, "");
    if (news !== told && news !== "") line.above(() => screen.write(`${text}\n`));
    told = news;
  };
  return {
    show: (now) => {
      tell(describeObstacle(now));
      const text = `${line.isLive() ? `${formatBar(now.percent / 100)}  ` : ""}${describeNow(now)}`;
      line.show(text, now.status !== last);
      last = now.status;
    },
    silent: (reason) => tell(`No progress is shown: ${cleanText(reason)}`),
    pass: (write, endsLine) => line.above(write, endsLine),
    end: () => line.end(),
  };
}

/** What a push is doing, in one line. */
export function describeNow(now: Now): string {
  const { status, seconds_left: left, rows_per_second: pace, wal_bytes: wal } = now;
  if (status === "not begun") return "no table has been touched yet";
  return [
    `${now.percent.toFixed(now.percent < 100 ? 1 : 0)} %`,
    // The first of it is what a narrow terminal shows.
    ...(status === "done" ? ["done"] : [describeStatus(now)]),
    ...(left === null ? [] : [`${formatDuration(left)} ${status === "running" ? "left" : "of work left"}`]),
    ...(status === "done" ? [] : [describeStep(now)]),
    ...(status === "running" && pace !== null ? [`${formatCount(Math.round(pace))} rows/s`] : []),
    ...(wal === null ? [] : [`WAL ${formatCount(Math.round(wal / 1e6))} MB`]),
  ].filter((part) => part !== "").join("  ");
}

function describeStatus(now: Now): string {
  switch (now.status) {
    case "paused":
      return `paused for ${formatDuration(now.paused_seconds ?? 0)}`;
    case "blocked":
      return `blocked for ${formatDuration(now.blocked_seconds ?? 0)}`;
    case "idle":
      return "its client sends nothing";
    case "dead":
      return "not running: its session is gone";
    default:
      return "";
  }
}

function describeStep({ phase, step, relation, table_number: number, tables }: Now): string {
  if (step === null) return "";
  return cleanText([
    ...(phase === null ? [] : [`phase ${phase}`]),
    step,
    relation ?? "",
    ...(number === null || tables === null ? [] : [`(${number} of ${tables})`]),
  ].join(" "));
}

/** What keeps a push from going on, and the statement that ends it; empty: nothing does. */
function describeObstacle(
  { status, waits_for: waitsFor, blocked_by: by, unblock, next, session_pid: pid }: Now,
): string {
  switch (status) {
    case "blocked":
      return [
        `The push waits for ${cleanText(waitsFor ?? "a lock")}, because of:`,
        ...(by ?? "").split("\n").map((line) => `  ${cleanText(line)}`),
        ...(unblock === null ? [] : ["To end that:", ...unblock.split("\n").map((line) => `  ${cleanText(line)}`)]),
      ].join("\n");
    case "paused":
      return `The push is paused. To go on: ${next};`;
    case "dead":
      return `The session of the push, pid ${pid}, is gone. Nothing is lost. To go on: ${next}.`;
    default:
      return "";
  }
}
