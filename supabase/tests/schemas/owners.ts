import type { Column, Draft, Table } from "./draft.ts";
import type { Features } from "./features.ts";
import { literal } from "./names.ts";

/** Who and what a row of its own accord belongs to. */
export const ownerFeatures = {
  "no owner": { weight: 20, group: "owner" },
  "owner in another column": { weight: 12, group: "owner" },
  "owner in text": { weight: 10, group: "owner" },
  "owner in varchar": { weight: 8, group: "owner" },
  "owner of a domain": { weight: 5, group: "owner" },
  "owner references auth.users": { weight: 12, group: "owner" },
  "owner through profiles": { weight: 8, group: "owner" },
  "owner through sales": { weight: 6, group: "owner" },
  "owner through members and profiles": { weight: 6, group: "owner" },
  "owner through what must be named": { weight: 6, group: "owner" },
  "owners who are gone": {
    weight: 25,
    excludes: [
      "owner references auth.users",
      "no owner",
      "owner through profiles",
      "owner through sales",
      "owner through members and profiles",
      "owner through what must be named",
    ],
  },
  "rows without owner": { weight: 25, excludes: ["no owner"] },
  "owner that is never NULL": { weight: 10, excludes: ["no owner", "rows without owner"] },
  "several owners": { weight: 14, excludes: ["no owner"] },

  "organization under another name": { weight: 8 },
  "organizations under other names": { weight: 4, needs: ["organization under another name"] },
  "organization that is not valid": { weight: 4, sort: "ordinary", needs: ["organization under another name"] },
} satisfies Features;

/** Those that need organizations to be there before the push. */
export const organizationColumnFeatures = Object.keys(ownerFeatures).filter((name) => name.startsWith("organization"));

/** Texts that are nobody's id. */
const junk = ["", "nobody", "42", "a0000000-0000-0000-0000-00000000000", "a0000000-0000-0000-0000-00000000000g", "é"];

/** Users who were there once. The mapping knows the first of them. */
export const goneUsers = ({ users }: Draft): string[] =>
  users.slice(0, 3).map((user) => user.replace(/^.{8}/, "dead0000"));

/** The table that an owner leads through, if it does. */
export const linkOf = ({ traits }: Table): string | undefined =>
  [...traits].find((trait) => trait.startsWith("owner through "));

/** The columns with the owner, and with others who may be. */
export function ownerColumns(draft: Draft, table: Table, makeDomain: (base: string) => string): Column[] {
  const { traits } = table;
  if (traits.has("no owner")) return [];
  const first = linkOf(table) ? [] : [ownerColumn(draft, table, makeDomain)];
  return [...first, ...(traits.has("several owners") ? otherOwners(draft, table) : [])];
}

function ownerColumn(draft: Draft, table: Table, makeDomain: (base: string) => string): Column {
  const { traits } = table;
  const { random, users } = draft;
  const isText = traits.has("owner in text") || traits.has("owner in varchar");
  const isElsewhere = traits.has("owner in another column") || (isText && random.below(2) > 0);
  const name = isElsewhere ? draft.name("owner") : "user_id";
  const isKeyed = traits.has("owner references auth.users");
  table.sources.push({ entry: name, kind: "owner", isDetected: !isElsewhere, mustBeNamed: isElsewhere });
  const value = () => {
    if (traits.has("rows without owner") && random.below(3) === 0) return "null";
    if (isText && random.below(4) === 0) return literal(random.pick(junk));
    if (traits.has("owners who are gone") && random.below(4) === 0) return literal(random.pick(goneUsers(draft)));
    const user = random.pick(users);
    return literal(isText && random.below(4) === 0 ? user.toUpperCase() : user);
  };
  const type = traits.has("owner in text")
    ? "text"
    : traits.has("owner in varchar")
    ? "varchar(60)"
    : traits.has("owner of a domain")
    ? makeDomain(random.pick(["uuid", "text"]))
    : "uuid";
  const clauses = [
    traits.has("owner that is never NULL") ? "not null" : "",
    isKeyed ? "references auth.users (id) on delete cascade" : "",
  ].join(" ").trim();
  return { name, role: "owner", type, clauses, value };
}

/** One or two columns more with users, nullable or not, most with a key. */
function otherOwners(draft: Draft, table: Table): Column[] {
  const { random, users } = draft;
  const names = random.shuffle(["owner_id", "created_by", draft.name("assignee")]);
  return names.slice(0, 1 + random.below(2)).map((name) => {
    const isKeyed = random.below(3) > 0;
    const isNotNull = random.below(2) > 0;
    table.sources.push({ entry: name, kind: "owner", isDetected: isKeyed });
    return {
      name,
      role: "other",
      type: "uuid",
      clauses: [isNotNull ? "not null" : "", isKeyed ? "references auth.users (id) on delete set null" : ""].join(" ")
        .trim(),
      value: () => !isNotNull && random.below(2) > 0 ? "null" : literal(random.pick(users)),
    };
  });
}

/** Columns that name an organization. Where their keys are not valid, some name one that is gone. */
export function organizationColumns(draft: Draft, table: Table): Column[] {
  const { traits } = table;
  const { random, organizations } = draft;
  if (!traits.has("organization under another name")) return [];
  const isValid = !traits.has("organization that is not valid");
  return Array.from({ length: traits.has("organizations under other names") ? 2 : 1 }, () => {
    const name = draft.name("organization");
    table.sources.push({ entry: name, kind: "organization", isDetected: true });
    const key = "references public.organizations (id)";
    return {
      name,
      role: "other",
      type: "uuid",
      ...(isValid ? { clauses: key } : { laterKey: `${key} not valid` }),
      value: () => {
        if (random.below(3) === 0) return "null";
        return literal(!isValid && random.below(3) === 0 ? random.uuid() : random.pick(organizations));
      },
    };
  });
}
