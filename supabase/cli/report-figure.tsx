/** @jsxRuntime automatic @jsxImportSource preact */
import { formatDuration, formatInstant, formatNumber } from "./report-text.ts";
import type { Span, Timeline } from "./report-timeline.ts";

/** The width of the drawings, in their own units; on the page they are as wide as there is room. */
const width = 1000;
/** What is narrower than this is drawn as wide as this, and what is nearer than this is drawn as one. */
const finest = 2;

interface Bar {
  x: number;
  width: number;
}

/** What ran when: a line for the statements that were done, and a lane for each kind of work, for waits and for pauses. */
export function TimelineFigure({ timeline, statements }: { timeline: Timeline; statements: number }) {
  const { began, ended, lanes, waits, pauses } = timeline;
  const lane = (name: string, spans: Span[], kind: string) => (
    <div class="lane">
      <span>{name}</span>
      <svg viewBox={`0 0 ${width} 10`} preserveAspectRatio="none" aria-hidden="true">
        {toBars(timeline, spans).map((bar) => <rect class={kind} x={bar.x} width={bar.width} y="1" height="8" />)}
      </svg>
    </div>
  );
  return (
    <figure class="timeline" aria-labelledby="timeline-caption">
      <div class="lane progress">
        <span>{`statements done, of ${formatNumber(statements)}`}</span>
        <svg viewBox={`0 0 ${width} 100`} preserveAspectRatio="none" aria-hidden="true">
          {toBars(timeline, pauses).map((bar) => <rect class="pause" x={bar.x} width={bar.width} y="0" height="100" />)}
          <path class="done" d={drawProgress(timeline, statements)} />
        </svg>
      </div>
      {lanes.map(({ name, spans, isTimed }) => lane(name, spans, isTimed ? "work" : "within"))}
      {waits.length > 0 && lane("waits for locks", waits, "wait")}
      {pauses.length > 0 && lane("pauses", pauses, "pause")}
      <div class="lane axis">
        <span></span>
        <span>
          <time dateTime={began.toISOString()}>{formatInstant(began)}</time>
          <time dateTime={ended.toISOString()}>{formatInstant(ended)}</time>
        </span>
      </div>
      <figcaption id="timeline-caption">
        {`What ran when, from left to right: ${formatDuration(timeline.seconds)}.`}
        {pauses.length > 0 && " Pauses are drawn shorter than they were."}
        {" The tables below say the same in numbers."}
      </figcaption>
    </figure>
  );
}

/** The spans as bars, those that touch as one, so that there are no more than can be seen. */
export function toBars({ place }: Pick<Timeline, "place">, spans: Span[]): Bar[] {
  const bars: Bar[] = [];
  const ordered = spans
    .map(({ from, to }) => ({ x: place(from) * width, end: place(to) * width }))
    .sort((one, other) => one.x - other.x);
  for (const { x, end } of ordered) {
    const last = bars.at(-1);
    if (last && x - (last.x + last.width) < finest) last.width = Math.max(last.width, end - last.x);
    else bars.push({ x, width: end - x });
  }
  return bars.map((bar) => {
    const drawn = Math.min(Math.max(bar.width, finest), width);
    return { x: round(Math.min(bar.x, width - drawn)), width: round(drawn) };
  });
}

/** The line of the progress as the path of an SVG, 100 high, a step where a statement was done; one per unit at the most. */
export function drawProgress({ progress, place }: Pick<Timeline, "progress" | "place">, statements: number): string {
  const height = (done: number) => round(100 - (100 * done) / Math.max(statements, 1));
  let path = `M0 ${height(0)}`;
  let drawn = 0;
  progress.forEach(({ at, done }, index) => {
    const x = round(place(at) * width);
    if (x - drawn < 1 && index < progress.length - 1) return;
    path += `H${x}V${height(done)}`;
    drawn = x;
  });
  return `${path}H${width}`;
}

function round(number: number): number {
  return Math.round(number * 10) / 10;
}
