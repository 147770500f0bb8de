import type { Random } from "../random.ts";

/** What a table of a random schema can have, and with what else. */
export interface Feature {
  /** How many schemas of a hundred draw it, besides those that must have it. */
  weight: number;
  /** Of the features of a group a table has one at most. */
  group?: string;
  /** A table with this feature is partitioned, is not, or has nothing but this. */
  sort?: "partitioned" | "ordinary" | "bare";
  /** Features that the same table has to have. */
  needs?: string[];
  /** Features that the same table cannot have. */
  excludes?: string[];
  /** Features that another table of the schema has to have. */
  elsewhere?: string[];
  /** The first major version of PostgreSQL that knows it, and the last. */
  since?: number;
  until?: number;
}

export type Features = Record<string, Feature>;

/** Whether a table that has these features can have this one, and all that it needs, too. */
function fits(all: Features, traits: Set<string>, name: string): boolean {
  const feature = all[name];
  if (!feature) throw new Error(`Cannot give a table the feature ${JSON.stringify(name)}: there is none of that name`);
  return [...traits].every((trait) => {
    const other = all[trait] as Feature;
    if (trait === name) return true;
    if (feature.sort === "bare" || other.sort === "bare") return false;
    if (feature.sort && other.sort && feature.sort !== other.sort) return false;
    if (feature.group && feature.group === other.group) return false;
    return !feature.excludes?.includes(trait) && !other.excludes?.includes(name);
  }) && (feature.needs ?? []).every((needed) => fits(all, new Set([...traits, name]), needed));
}

/** Gives a table a feature with all that it needs. */
function give(all: Features, traits: Set<string>, name: string): void {
  traits.add(name);
  for (const needed of all[name]?.needs ?? []) give(all, traits, needed);
}

/** Shares features out among so many tables, or more where they do not go together. Returns the features of each table. */
export function shareOut(all: Features, wished: string[], tables: number, random: Random): Set<string>[] {
  const shares = Array.from({ length: tables }, () => new Set<string>());
  const place = (name: string, except?: Set<string>): Set<string> => {
    let share = random.shuffle(shares).find((traits) => traits !== except && fits(all, traits, name));
    if (!share) shares.push(share = new Set());
    give(all, share, name);
    for (const other of all[name]?.elsewhere ?? []) {
      if (!shares.some((traits) => traits !== share && traits.has(other))) place(other, share);
    }
    return share;
  };
  const [first, ...others] = wished;
  const share = first === undefined ? undefined : place(first);
  // The first of them is not to end up on a table that is left alone.
  for (const name of others) place(name, name === "excluded table" ? share : undefined);
  return shares;
}
