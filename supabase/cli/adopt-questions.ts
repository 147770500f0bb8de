import { confirm, isCancel, multiselect, text } from "@clack/prompts";
import { hasRow, type Suggestion } from "./adopt-list.ts";
import { interruptedExitCode } from "./interruption.ts";

const standardReason = "the same for all organizations";

/** Which of the suggestions could be otherwise: org or excluded. The order of org_from is left to the list. */
const isScopeOpen = ({ about }: Suggestion): boolean => /^decide: (org|excluded)\b/.test(about);

/** Asks on the terminal which of the tables get org_id, and why the others do not. Ends the process if nobody wants to say. */
export async function askDecisions(suggestions: Suggestion[]): Promise<Suggestion[]> {
  const open = suggestions.filter(isScopeOpen);
  if (open.length === 0) return suggestions;
  const chosen = answered(
    await multiselect({
      message: "Which of these tables have rows that belong to organizations, and get org_id?",
      options: open.map((suggestion) => ({
        value: suggestion.table,
        hint: suggestion.about.replace(/^decide: /, ""),
      })),
      initialValues: open.filter(isOrg).map(({ table }) => table),
      required: false,
    }),
  );
  const decided: Suggestion[] = [];
  for (const suggestion of suggestions) {
    const getsOrgId = chosen.includes(suggestion.table);
    // One that is open and not chosen stays open.
    const isAnswered = isScopeOpen(suggestion) && (getsOrgId || hasRow(suggestion.row));
    decided.push(isAnswered ? await settle(suggestion, getsOrgId) : suggestion);
  }
  return decided;
}

/** Asks whether to write now. */
export const confirmWriting = async (folder: string, files: number): Promise<boolean> =>
  answered(await confirm({ message: `Write ${files} files to ${folder}?` }));

const isOrg = ({ row }: Suggestion): boolean => /^\('(?:[^']|'')+', '(?:[^']|'')+', 'org',/.test(row);

/** The suggestion as it was decided, with the other scope if need be. */
async function settle(suggestion: Suggestion, getsOrgId: boolean): Promise<Suggestion> {
  const decided = {
    ...suggestion,
    about: suggestion.about.replace(/^decide: /, "decided: "),
    isDecision: false,
  };
  if (getsOrgId === isOrg(suggestion)) return decided;
  const [key = ""] = /(?<=\()'(?:[^']|'')+', '(?:[^']|'')+'/.exec(suggestion.row) ?? [];
  // Where the scope is open the row for org stands first, and may name the columns that decide.
  const [row = `(${key}, 'org', 'secondary', null, null)`] = /(?<=^-- )\(.*?'org'.*?\)(?=, or )/.exec(suggestion.row) ??
    [];
  if (getsOrgId) return { ...decided, row: `${row},` };
  const why = answered(
    await text({
      message: `Why does ${suggestion.table} not get org_id?`,
      placeholder: standardReason,
      defaultValue: standardReason,
    }),
  );
  return { ...decided, row: `(${key}, 'excluded', null, '${why.replaceAll("'", "''")}', null),` };
}

function answered<Answer>(answer: Answer): Exclude<Answer, symbol> {
  if (isCancel(answer)) process.exit(interruptedExitCode);
  return answer as Exclude<Answer, symbol>;
}
