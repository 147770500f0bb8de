import { type Draft, isOrgScoped, type SourceOf, type Table } from "./draft.ts";
import type { Features } from "./features.ts";

/** What the list says of the columns that decide. Without any of these: nothing, where that will do. */
export const orgFromFeatures = {
  "org_from that is empty": { weight: 5, group: "org_from", excludes: ["excluded table"] },
  "org_from of one parent": {
    weight: 7,
    group: "org_from",
    excludes: ["excluded table"],
    elsewhere: ["identity always"],
  },
  "org_from with a parent first": {
    weight: 8,
    group: "org_from",
    excludes: ["excluded table", "no owner"],
    elsewhere: ["identity always"],
  },
  "org_from in another order": {
    weight: 8,
    group: "org_from",
    needs: ["several owners"],
    excludes: ["excluded table"],
  },
} satisfies Features;

/** Whether the table is to have a parent for this. */
export const wantsParent = ({ traits }: Table): boolean =>
  traits.has("org_from of one parent") || traits.has("org_from with a parent first");

/** Chooses what the list says of the table; something wherever the push would ask for it, which it does where there is a mapping. */
export function chooseOrgFrom(draft: Draft, table: Table, isMapped: boolean): void {
  if (!isOrgScoped(table)) return;
  const chosen = choose(draft, table);
  if (chosen) {
    draft.used.add(chosen.feature);
    // The push asks why where a column that names an organization is left out.
    const organizations = table.sources.filter(({ kind }) => kind === "organization" && chosen.sources.length > 0);
    table.orgFrom = [...new Set([...chosen.sources, ...organizations].map(({ entry }) => entry))];
    return;
  }
  const named = table.sources.filter(({ mustBeNamed }) => mustBeNamed);
  if (named.length > 0) {
    const others = table.sources.filter((source) =>
      !named.includes(source) && (draft.random.below(2) > 0 || source.kind === "organization")
    );
    table.orgFrom = [...named, ...others].map(({ entry }) => entry);
  } else if (isMapped && !table.sources.some(({ isDetected }) => isDetected)) {
    table.orgFrom = [];
  }
}

function choose({ random }: Draft, { traits, sources }: Table): { feature: string; sources: SourceOf[] } | undefined {
  const parents = random.shuffle(sources.filter(({ kind }) => kind === "parent"));
  const [parent] = parents;
  const others = random.shuffle(sources.filter((source) => source !== parent));
  if (traits.has("org_from that is empty")) return { feature: "org_from that is empty", sources: [] };
  if (traits.has("org_from of one parent") && parent) return { feature: "org_from of one parent", sources: [parent] };
  if (traits.has("org_from with a parent first") && parent && others.length > 0) {
    return { feature: "org_from with a parent first", sources: [parent, ...others] };
  }
  if (traits.has("org_from in another order") && sources.length > 1) {
    const shuffled = random.shuffle(sources);
    return { feature: "org_from in another order", sources: shuffled.slice(0, 2 + random.below(sources.length)) };
  }
  return undefined;
}
