/** @jsxRuntime automatic @jsxImportSource preact */
import { renderToString } from "preact-render-to-string";
import type { ReportDocument } from "./report-document.ts";
import { composeSections } from "./report-sections.tsx";
import { composeStyle } from "./report-style.ts";
import { kinds } from "./report-tables.ts";
import { formatMoment, spellOut } from "./report-text.ts";
import { judge, type Mark, summarize } from "./report-verdict.ts";

/** The page may load nothing and run nothing, whatever is in it. */
const policy = "default-src 'none'; style-src 'unsafe-inline'";

const signs: Record<Mark, string> = { good: "✔", open: "…", bad: "✘" };

/** The whole page, of which every text is escaped by preact. */
export function composePage(report: ReportDocument): string {
  return `<!doctype html>\n${renderToString(<Page report={report} />)}\n`;
}

function Page({ report }: { report: ReportDocument }) {
  const { host, version, takenAt } = report;
  const database = spellOut(report.database);
  const { mark, text, next } = judge(report);
  const sections = composeSections(report);
  return (
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta http-equiv="Content-Security-Policy" content={policy} />
        <meta name="color-scheme" content="light dark" />
        <title>{`From user_id to org_id: ${database}, ${formatMoment(takenAt)}`}</title>
        <style dangerouslySetInnerHTML={{ __html: composeStyle(kinds) }} />
      </head>
      <body>
        <header>
          <h1>
            From user_id to org_id: database <bdi>{database}</bdi>
          </h1>
          <p class="quiet">
            <bdi>{spellOut(host)}</bdi>, PostgreSQL {version},{" "}
            <time dateTime={takenAt.toISOString()}>{formatMoment(takenAt)}</time>
          </p>
        </header>
        <main>
          <p class={`verdict ${mark}`}>
            <strong>
              <span aria-hidden="true">{signs[mark]}</span> {text}
            </strong>{" "}
            {next}
          </p>
          <dl>
            {summarize(report).map(([term, value]) => (
              <>
                <dt>{term}</dt>
                <dd>{value}</dd>
              </>
            ))}
          </dl>
          <nav aria-label="Sections">
            <ul>
              {sections.map(({ id, title }) => (
                <li>
                  <a href={`#${id}`}>{title}</a>
                </li>
              ))}
            </ul>
          </nav>
          {sections.map(({ id, title, content }) => (
            <section aria-labelledby={id}>
              <h2 id={id}>{title}</h2>
              {content}
            </section>
          ))}
        </main>
      </body>
    </html>
  );
}
