import type { LoggedStatement } from "./report-document.ts";

/** A length of the time axis, from and to in seconds since the first statement. */
export interface Span {
  from: number;
  to: number;
}

/** A time in which nothing ran. */
export interface Pause extends Span {
  /** True if index lines ran in it, each of which is outside of any function, and not timed. */
  hasIndexLines: boolean;
}

export interface Lane {
  name: string;
  spans: Span[];
  /** False: nobody has timed it, and it ran at some time within these spans. */
  isTimed: boolean;
}

/** What ran when. */
export interface Timeline {
  began: Date;
  ended: Date;
  /** From the first statement to the end of the last one. */
  seconds: number;
  lanes: Lane[];
  waits: Span[];
  pauses: Pause[];
  /** How many of the statements were done by then, from nothing to all. */
  progress: { at: number; done: number }[];
  /** Where a moment is on the axis, from 0 to 1: pauses are drawn shorter than they were. */
  place(seconds: number): number;
}

/** The kinds of work, in the order of the phases, with the parts of each. */
export const work: [name: string, parts: RegExp][] = [
  ["rows counted", /^count$/],
  ["columns", /^(column|default|filler)$/],
  ["backfill", /^(backfill|leftovers|last_resort)$/],
  ["indexes", /^(invalid_index|index|index_root)$/],
  ["foreign keys", /^foreign_key/],
  ["NOT NULL", /^(check|check_valid|not_null)$/],
  ["guards", /^guard/],
];
export const otherWork = "opt-ins";

/** The kind of work that makes a part. */
export function workOf(part: string): string {
  return work.find(([, parts]) => parts.test(part))?.[0] ?? otherWork;
}

/** Nothing ran for at least this long: a pause. Between two statements of a push there is less. */
const shortestPause = 1;
/** A pause takes at most this share of what the work takes on the axis. */
const longestShare = 0.15;

/** undefined: nothing of it was timed. */
export function drawTimeline(log: LoggedStatement[]): Timeline | undefined {
  const timed = log.flatMap((statement) => {
    const { began, seconds, secondsWaited } = statement;
    if (began === null || seconds === null) return [];
    return [{ ...statement, at: began.getTime() / 1000, seconds, secondsWaited }];
  });
  if (timed.length === 0) return undefined;
  const origin = timed.reduce((first, { at, secondsWaited }) => Math.min(first, at - secondsWaited), Infinity);
  const events = timed
    .map(({ id, part, at, seconds, secondsWaited }) => ({
      id,
      part,
      waits: { from: at - secondsWaited - origin, to: at - origin },
      runs: { from: at - origin, to: at - origin + seconds },
    }))
    .sort((one, other) => one.waits.from - other.waits.from);
  const end = events.reduce((latest, { runs }) => Math.max(latest, runs.to), 0);
  const pauses = findPauses(events, log);

  const lanes = [...work.map(([name]) => name), otherWork].flatMap((name) => {
    const spans = events.filter(({ part }) => workOf(part) === name).map(({ runs }) => runs);
    const untimed = log.filter(({ part, began }) => began === null && workOf(part) === name);
    return [
      { name, spans, isTimed: true },
      { name: `${name}, within`, spans: untimed.map(({ id }) => boundsOf(id, events, end)), isTimed: false },
    ].filter(({ spans }) => spans.length > 0);
  });
  return {
    began: new Date(origin * 1000),
    ended: new Date((origin + end) * 1000),
    seconds: end,
    lanes,
    waits: events.map(({ waits }) => waits).filter(({ from, to }) => to > from),
    pauses,
    progress: countDone(events, log, end),
    place: placeOn(end, pauses),
  };
}

/** When a statement that was not timed ran: after all that were logged before it, and before all that were logged after it. */
function boundsOf(id: number, events: { id: number; runs: Span }[], end: number): Span {
  const before = events.filter((event) => event.id < id).map(({ runs }) => runs.to);
  const after = events.filter((event) => event.id > id).map(({ runs }) => runs.from);
  const from = before.reduce((latest, to) => Math.max(latest, to), 0);
  return { from, to: Math.max(from, after.reduce((earliest, at) => Math.min(earliest, at), end)) };
}

function findPauses(events: { id: number; waits: Span; runs: Span }[], log: LoggedStatement[]): Pause[] {
  const untimed = log.filter(({ began }) => began === null).map(({ id }) => id);
  const pauses: Pause[] = [];
  let latest = { to: 0, id: 0 };
  for (const { id, waits, runs } of events) {
    if (waits.from - latest.to >= shortestPause) {
      const before = latest.id;
      pauses.push({
        from: latest.to,
        to: waits.from,
        hasIndexLines: untimed.some((line) => line > before && line < id),
      });
    }
    if (runs.to >= latest.to) latest = { to: runs.to, id };
  }
  return pauses;
}

/** What was not timed is done at the latest that it can have been. */
function countDone(events: { id: number; runs: Span }[], log: LoggedStatement[], end: number): Timeline["progress"] {
  const timed = new Map(events.map(({ id, runs }) => [id, runs.to]));
  const moments = log.map(({ id }) => timed.get(id) ?? boundsOf(id, events, end).to).sort((one, other) => one - other);
  const progress = [{ at: 0, done: 0 }];
  moments.forEach((moment, index) => {
    const last = progress.at(-1);
    if (last?.at === moment) last.done = index + 1;
    else progress.push({ at: moment, done: index + 1 });
  });
  return progress;
}

function placeOn(end: number, pauses: Pause[]): Timeline["place"] {
  const paused = pauses.reduce((sum, { from, to }) => sum + to - from, 0);
  const longest = Math.max((end - paused) * longestShare, 0.001);
  const shown = ({ from, to }: Span) => Math.min(to - from, longest);
  const before = (seconds: number) => {
    let shortened = 0;
    for (const pause of pauses) {
      const passed = Math.min(seconds, pause.to) - pause.from;
      if (passed > 0) shortened += passed * (1 - shown(pause) / (pause.to - pause.from));
    }
    return seconds - shortened;
  };
  const width = before(end) || 1;
  return (seconds) => before(seconds) / width;
}
