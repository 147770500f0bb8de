import type { Adoption } from "./adopt-plan.ts";

/** What an adoption comes to, for whoever reads it before it is written and after. */
export function describeAdoption(adoption: Adoption): string {
  const { changes, added, indexed, needless } = adoption;
  const decisions = added.filter(({ isDecision }) => isDecision);
  return [
    describeChanges(adoption),
    added.length > 0
      ? [
        `${added.length} ${
          added.length === 1 ? "table is" : "tables are"
        } new in the list, ${decisions.length} of them to decide, in ${adoption.list}.`,
        ...decisions.map(({ table, about }) => `  ${table}: ${about.replace(/^decide: /, "")}`),
      ].join("\n")
      : changes.length > 0
      ? `No table is new in the list, ${adoption.list}.`
      : "",
    indexed.length > 0 ? `Index lines for ${indexed.join(", ")}.` : "",
    needless.excluded.length > 0
      ? `Index lines taken out, since these are excluded: ${needless.excluded.join(", ")}.`
      : "",
    needless.gone.length > 0
      ? `✘ Index lines of what is not in this database, and stops a push: ${needless.gone.join(", ")}.`
      : "",
    ...describeLate(adoption),
    describeFindings(adoption),
  ].filter((part) => part !== "").join("\n\n");
}

/** Each file on a line, the migrations except the two to edit on one. */
function describeChanges({ changes }: Adoption): string {
  if (changes.length === 0) return "Nothing to write: the application has all of it.";
  const isQuiet = (path: string) => /^supabase\/(functions|migrations)\//.test(path) && !/_EDIT_\w+\.sql$/.test(path);
  const quiet = changes.filter(({ path }) => isQuiet(path));
  const folders = [...new Set(quiet.map(({ path }) => path.slice(0, path.lastIndexOf("/"))))];
  return [
    ...folders.map((folder) =>
      `  ${folder} (files: ${quiet.filter(({ path }) => path.startsWith(`${folder}/`)).length})`
    ),
    ...changes.filter(({ path }) => !isQuiet(path)).map(({ path, text }) =>
      `  ${path}${text === undefined ? ": gone" : ""}`
    ),
  ].join("\n");
}

function describeLate({ late, later, namesakes }: Adoption): string[] {
  return [
    namesakes.length > 0
      ? `These migrations have the version of one of ours, and the CLI pushes one file per version: ${
        namesakes.join(", ")
      }. Rename them, or, if ours are not pushed anywhere yet, give the live database with --db-url, and ours are dated anew.`
      : "",
    later.length > 0
      ? `These migrations come after the list, and a table that they make is classified there: ${
        later.join(", ")
      }. If ours are not` +
        " pushed anywhere yet, give the live database with --db-url, and they are dated anew."
      : "",
    late.length > 0
      ? `The list is pushed, so these come too late for it (see New tables in docs/organizations.md; docs/forgotten-table.sql):\n${
        late.map(({ row, about }) => `  ${row} -- ${about}`).join("\n")
      }`
      : "",
  ];
}

function describeFindings({ findings }: Adoption): string {
  const refused = findings.filter(({ topic, code }) => topic === "refused" || code === "missing_table");
  const others = findings.filter((finding) => !refused.includes(finding));
  const counts = [...new Set(others.map(({ topic }) => topic))].map((topic) =>
    `${others.filter((finding) => finding.topic === topic).length} ${topic}`
  );
  return [
    ...refused.map(({ code, object, finding, to_do }) => `✘ ${object} ${finding}; ${to_do} [${code}]`),
    counts.length > 0
      ? `The preflight, supabase/preflight.sql, says more of the application: ${counts.join(", ")}.`
      : "",
  ].filter((line) => line !== "").join("\n");
}
