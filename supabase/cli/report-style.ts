import type { TableKind } from "./report-table.tsx";

const style = `
:root {
  color-scheme: light dark;
  --text: #1b1f24; --quiet: #545b64; --page: #ffffff; --raised: #f3f5f7; --line: #c3c9d0; --link: #0b57a4;
  --good: #0f6b33; --open: #7a4d00; --bad: #a8171c; --work: #2464a8; --pause: #737d88;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e7eb; --quiet: #a9b1bb; --page: #14171b; --raised: #1f242a; --line: #454d57; --link: #86bdf7;
    --good: #6fd194; --open: #e8b75c; --bad: #ff9a94; --work: #6aa9e9; --pause: #7f8995;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.5rem; padding-top: 0.5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 0.25rem; }
p { margin: 0.5rem 0; max-width: 50rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 1rem 0; padding: 0; list-style: none; }
code { font: 0.875em/1.45 ui-monospace, Menlo, Consolas, monospace; unicode-bidi: isolate; white-space: pre-wrap; overflow-wrap: anywhere; }
bdi { overflow-wrap: anywhere; }
ul.plain { margin: 0; padding: 0; list-style: none; }
.quiet { color: var(--quiet); }
.verdict { border: 1px solid var(--line); border-left-width: 0.5rem; background: var(--raised); padding: 0.75rem 1rem; margin: 1rem 0; max-width: none; }
.verdict strong { font-size: 1.2rem; }
.good { border-left-color: var(--good); } .open { border-left-color: var(--open); } .bad { border-left-color: var(--bad); }
.mark { font-weight: 600; white-space: nowrap; }
.mark.good { color: var(--good); } .mark.open { color: var(--open); } .mark.bad { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.5rem; margin: 1rem 0; }
dt { color: var(--quiet); } dd { margin: 0; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1rem; font-size: 0.9375rem; }
caption { text-align: left; font-weight: 600; padding: 0.25rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0; border-bottom: 1px solid var(--line); }
td, tbody th { white-space: pre-line; }
thead th { color: var(--quiet); font-weight: 600; }
tbody th { font-weight: inherit; min-width: 3.5rem; }
@media (min-width: 64rem) { tbody th:has(code) { min-width: 15rem; } }
.wide { width: 45%; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 1.5rem; }
thead .number { white-space: normal; }
details { margin: 0.5rem 0; }
summary { cursor: pointer; padding: 0.25rem 0; font-weight: 600; }
details > table > caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
figure { margin: 1rem 0; }
figcaption { color: var(--quiet); margin-top: 0.5rem; }
.lane { display: grid; grid-template-columns: 11rem 1fr; gap: 0 0.75rem; align-items: center; margin: 0.15rem 0; }
.lane svg { display: block; width: 100%; height: 1rem; background: var(--raised); border-bottom: 1px solid var(--line); }
.progress svg { height: 6rem; }
.axis > span:last-child { display: flex; justify-content: space-between; gap: 1rem; font-size: 0.875rem; color: var(--quiet); }
.axis time + time { text-align: right; }
.work { fill: var(--work); } .within { fill: none; stroke: var(--work); vector-effect: non-scaling-stroke; } .wait { fill: var(--bad); } .pause { fill: var(--pause); } .progress .pause { opacity: 0.3; }
.done { fill: none; stroke: var(--work); stroke-width: 2; vector-effect: non-scaling-stroke; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
`;

/** On a narrow screen each row stands by itself, each cell under the title of its column. */
const narrow = `
.lane, dl { grid-template-columns: 1fr; } .lane { margin: 0.4rem 0; } dd { margin-bottom: 0.4rem; }
table, tbody, tr, td, tbody th { display: block; min-width: 0; width: auto; }
caption { display: block; }
thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
tr { padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; }
th, td { border: 0; padding: 0.1rem 0; }
.number { text-align: left; white-space: normal; }
td:empty { display: none; }
td::before { color: var(--quiet); }
`;

/** On paper nothing is folded, and no row is cut in two. */
const print = `
:root { color-scheme: light; --text: #000; --quiet: #444; --page: #fff; --raised: #fff; --line: #999; --link: #000;
  --good: #000; --open: #000; --bad: #000; --work: #333; --pause: #bbb; }
body { max-width: none; padding: 0; font-size: 9pt; }
table { font-size: 8pt; } th, td { padding: 0.15rem 0.5rem 0.15rem 0; } .number { padding-right: 0.75rem; white-space: normal; }
nav { display: none; }
details::details-content { content-visibility: visible; display: block; block-size: auto; }
summary { list-style: none; break-after: avoid; } summary::-webkit-details-marker { display: none; }
h2, h3 { break-after: avoid; }
tr, figure, .verdict { break-inside: avoid; }
thead { display: table-header-group; }
svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
`;

/** The whole style of the page. */
export function composeStyle(kinds: Pick<TableKind<never>, "name" | "columns">[]): string {
  const labels = kinds.flatMap(({ name, columns }) =>
    columns.map(({ title }, index) =>
      index === 0 ? "" : `.${name} td:nth-child(${index + 1})::before { content: ${JSON.stringify(`${title}: `)}; }\n`
    )
  );
  return `${style}@media screen and (max-width: 56rem) {${narrow}${labels.join("")}}\n@media print {${print}}\n`;
}
