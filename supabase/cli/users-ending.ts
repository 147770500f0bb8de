import type { PreviewAnswer, SummaryAnswer } from "../functions/update-user-org-metadata/protocol.ts";
import type { UserProblem } from "../functions/update-user-org-metadata/users.ts";
import { cleanText } from "./command-line.ts";
import { formatCount, formatTable } from "./print.ts";

/** How a run has ended, and what to do next. */
export interface Ending {
  text: string;
  /** True if nothing is missing. */
  complete: boolean;
}

/** How the run was asked for. */
interface EndedRun {
  revert: boolean;
  /** Without the Auth server. */
  inSql: boolean;
  /** All problems are in a file. */
  reported: boolean;
}

const mostShown = 20;

export function describePreview(preview: PreviewAnswer): Ending {
  const { would_update, conflicts, unreachable, users, users_without_org, users_in_no_org } = preview;
  const complete = would_update === 0 && conflicts === 0 && unreachable === 0;
  return {
    complete,
    text: joinParts([
      formatTable(["users", ""], [
        ["would be updated", would_update],
        ["conflicts", conflicts],
        ["unreachable", unreachable],
        ["not as they should be", users_without_org],
        ["in none on purpose", users_in_no_org],
        ["all", users],
      ]),
      [
        "Dry run: nothing was written.",
        ...(complete ? ["Nothing is missing."] : []),
        ...(would_update > 0 ? ["To update them, call again without --dry-run."] : []),
        ...adviseOnConflicts(preview),
        ...adviseOnUnreachable(preview),
      ].join("\n"),
    ]),
  };
}

export function describeSummary(summary: SummaryAnswer, options: EndedRun): Ending {
  const { run_id, updated, conflicts, unreachable, failed, deleted, users, problems } = summary;
  const { revert, inSql, reported } = options;
  const complete = revert ? failed === 0 && conflicts === 0 : summary.users_without_org === 0;
  const allProblems = conflicts + unreachable + failed;
  return {
    complete,
    text: joinParts([
      `${revert ? "Taken back" : "Done"}: run ${cleanText(run_id)}`,
      formatTable(["users", ""], [
        [revert ? "taken back" : "updated", updated],
        ["conflicts", conflicts],
        ["unreachable", unreachable],
        ["failed", failed],
        ["deleted meanwhile", deleted],
        ["without their organization", summary.users_without_org],
        ["in none on purpose", summary.users_in_no_org],
        ["all", users],
      ]),
      problems.length === 0 ? "" : describeProblems(problems, allProblems),
      [
        ...(revert ? adviseAfterRevert(summary, complete) : adviseAfterUpdate(summary, complete, inSql)),
        ...(allProblems > problems.length && !reported ? ["All of them, with the reasons: --report <file.csv>"] : []),
      ].join("\n"),
    ]),
  };
}

function adviseAfterUpdate(summary: SummaryAnswer, complete: boolean, inSql: boolean): string[] {
  const { run_id, updated, conflicts, unreachable, failed } = summary;
  return [
    ...(complete
      ? ["Nothing is missing. Tokens have the organization after their next refresh: one jwt_expiry at most."]
      : []),
    ...adviseOnConflicts(summary),
    ...adviseOnUnreachable(summary),
    ...(failed > 0 ? ["failed: call again; a new run tries them again"] : []),
    ...(!complete && conflicts + failed + unreachable === 0
      ? [
        "Some users still lack their organization: new ones, or those of another one (call again without --org-id), or those whom" +
        " nothing places (select * from tenancy.users_without_org where not on_purpose says which).",
      ]
      : []),
    ...(updated > 0 ? [`To take it back: npm run users -- ${inSql ? "--sql " : ""}--revert ${cleanText(run_id)}`] : []),
  ];
}

function adviseAfterRevert(summary: SummaryAnswer, complete: boolean): string[] {
  const { conflicts, failed } = summary;
  return [
    ...(complete ? ["Nothing is left of the run, except in tokens until their next refresh."] : []),
    ...(conflicts > 0 ? ["conflicts: they were changed after the run, so they stay as they are"] : []),
    ...adviseOnUnreachable(summary),
    ...(failed > 0 ? ["failed: call again"] : []),
  ];
}

function adviseOnConflicts(
  { conflicts, conflicts_with_default: held }: Pick<SummaryAnswer, "conflicts" | "conflicts_with_default">,
): string[] {
  return [
    ...(conflicts > held ? ["conflicts: they have another organization; --on-conflict overwrite replaces it"] : []),
    ...(held > 0
      ? [
        `${formatCount(held)} of the conflicts should have the default organization; only --on-conflict overwrite` +
        " --move-to-default takes theirs away for it",
      ]
      : []),
  ];
}

function adviseOnUnreachable({ unreachable }: Pick<SummaryAnswer, "unreachable">): string[] {
  return unreachable > 0 ? ["unreachable: select * from tenancy.user_findings says what to do; then call again"] : [];
}

function describeProblems(problems: UserProblem[], all: number): string {
  const shown = problems.slice(0, mostShown);
  const title = all > shown.length ? `The first ${shown.length} of ${formatCount(all)} problems:` : "The problems:";
  const rows = shown.map(({ user_id, outcome, reason }) => [user_id, outcome, reason].map((cell) => cleanText(cell)));
  return `${title}\n${formatTable(["user", "outcome", "reason"], rows)}`;
}

function joinParts(parts: string[]): string {
  return parts.filter((part) => part !== "").join("\n\n");
}
