import type { PostgresMajor } from "../../local/postgres.ts";
import type { OrgTable } from "../oracle.ts";
import { createStream, hash } from "../random.ts";
import { adoptedFeatures, designOrgId, hasOrgId, hasOrgIdIndex } from "./adopted.ts";
import { fillTables } from "./data.ts";
import {
  type Draft,
  exclude,
  type Extras,
  isOrgScoped,
  type Name,
  qualify,
  register,
  type Registered,
  type Table,
} from "./draft.ts";
import { createExtras, plainExtras, publications, triggers } from "./extras.ts";
import { type Features, shareOut } from "./features.ts";
import { designLinks } from "./links.ts";
import { coinName, createNames, literal, type NameKind, nameKinds, quote } from "./names.ts";
import type { Obstacle, Planted } from "./obstacle.ts";
import { obstacles } from "./obstacles.ts";
import {
  claimOrganizations,
  createOrganizations,
  isMapped,
  type Mapping,
  mappings,
  mapUsers,
  namesOrganizations,
  namingMappings,
  noMapping,
  organizationFeatures,
} from "./organizations.ts";
import { chooseOrgFrom, orgFromFeatures } from "./org-from.ts";
import { organizationColumnFeatures } from "./owners.ts";
import { createReferences, referenceFeatures } from "./references.ts";
import { createTable, designTable, dropColumns, tableFeatures } from "./tables.ts";

/** A random schema, and what its owner writes into the two files to edit. */
export interface RandomSchema {
  /** Makes it, run by the superuser. */
  script: string;
  /** The rows of the list. */
  list: string[];
  indexLines: string;
  mapping: Mapping;
  /** The tables that are to get org_id. */
  orgTables: OrgTable[];
  features: Set<string>;
  /** True if the push is to be undone. */
  rollBack: boolean;
  /** What stops the push, and the name of that. */
  obstacle: (Planted & { kind: string; isUnforeseen: boolean }) | undefined;
}

const extras: Extras = { ...adoptedFeatures, ...plainExtras, ...publications, ...triggers };
const allTableFeatures: Features = { ...tableFeatures, ...referenceFeatures, ...orgFromFeatures, ...extras };
/** Each obstacle that has a neighbour, by the feature that is the neighbour. */
const neighbours = new Map<string, (draft: Draft) => Registered[]>(
  Object.entries(obstacles).flatMap(([name, { neighbour }]) =>
    neighbour ? [[`beside ${name}`, neighbour] as const] : []
  ),
);
const isIn = (major: PostgresMajor, { since = 0, until = Infinity }: { since?: number; until?: number }): boolean =>
  since <= major && major <= until;

/** Everything that a schema can have on this version of PostgreSQL. */
export function allFeatures(major: PostgresMajor): string[] {
  return [
    ...nameKinds,
    "several schemas",
    ...Object.keys(organizationFeatures),
    ...mappings,
    ...Object.entries(allTableFeatures).filter(([, feature]) => isIn(major, feature)).map(([name]) => name),
    ...Object.entries(obstacles).filter(([, obstacle]) => obstacle.neighbour && isIn(major, obstacle)).map(([name]) =>
      `beside ${name}`
    ),
  ];
}

export function allObstacles(major: PostgresMajor): string[] {
  return Object.entries(obstacles).filter(([, obstacle]) => isIn(major, obstacle)).map(([name]) => name);
}

/** How many schemas of a hundred draw a feature. */
export const weightOf = (name: string): number =>
  allTableFeatures[name]?.weight ?? organizationFeatures[name] ??
    (name === "several schemas" ? 40 : mappings.includes(name) ? 0 : neighbours.has(name) ? 2 : 8);

/** What a schema is made from: what fast-check draws and shrinks, and a seed for all the rest. */
export interface Draw {
  seed: number;
  /** The feature whose turn it is, if any; it comes first while it is among the features. */
  forced: string | undefined;
  features: string[];
  /** How many tables the features are shared out among. */
  tables: number;
  /** The name of what is to stop the push. */
  obstacle: string | undefined;
  /** True if the push is to be undone. */
  rollBack: boolean;
}

/** A generator of its own for each step: without one of the features the rest of the schema stays much as it was. */
const streamFor = ({ seed }: Draw, step: string) => createStream(seed, step);

/** Makes the schema of a draw, always the same. */
export function generateSchema(draw: Draw): RandomSchema {
  const obstacle = draw.obstacle === undefined ? undefined : obstacles[draw.obstacle];
  const { draft, shares } = startDraft(draw, obstacle ? featuresWithout(obstacle) : []);
  createBasis(draft);
  for (const [number, share] of shares.entries()) {
    draft.random = streamFor(draw, `table ${number}`);
    designTable(draft, share);
  }
  draft.random = streamFor(draw, "mapping");
  const mapping = chooseMapping(draft, obstacle?.needsMapping === true);
  draft.random = streamFor(draw, "links");
  designLinks(draft);
  draft.random = streamFor(draw, "references");
  createReferences(draft);
  draft.random = streamFor(draw, "org_id");
  for (const table of draft.tables) designOrgId(draft, table);
  if (!obstacle?.withoutOrganizations) {
    const hasOrgIds = draft.tables.some(hasOrgId);
    createOrganizations(draft, hasOrgIds || needsOrganizations(draft), hasOrgIds);
  }
  draft.random = streamFor(draw, "claims");
  claimOrganizations(draft);
  draft.random = streamFor(draw, "org_from");
  for (const table of draft.tables) chooseOrgFrom(draft, table, isMapped(draft, mapping));
  for (const table of draft.tables) createTable(draft, table);
  draft.random = streamFor(draw, "rows");
  fillTables(draft);
  dropColumns(draft);
  for (const table of draft.tables) (isOrgScoped(table) ? register : exclude)(draft, table);
  draft.random = streamFor(draw, "obstacle");
  const planted = obstacle?.plant(draft);
  if (!obstacle) plantNeighbours(draft, draw);
  draft.random = streamFor(draw, "extras");
  createExtras(draft, extras);
  if (new Set(draft.tables.map(({ schema }) => schema)).size > 1) draft.used.add("several schemas");
  return {
    script: ["set session authorization postgres", ...draft.script, ""].join(";\n"),
    list: draft.list,
    indexLines: [
      ...draft.tables.filter(isOrgScoped).flatMap((table) => indexLines(draft, table)),
      ...draft.neighbours.map((table) => indexLine(coinName("idx_", table.name, "_org_id"), table)),
    ].join("\n"),
    mapping: mapUsers(draft, mapping),
    orgTables: [...draft.tables.filter(isOrgScoped), ...draft.neighbours].map(({ schema, name, orgFrom }) => ({
      schema,
      name,
      orgFrom: orgFrom?.map(String),
    })),
    features: draft.used,
    rollBack: draw.rollBack,
    obstacle: planted && draw.obstacle !== undefined
      ? { ...planted, kind: draw.obstacle, isUnforeseen: obstacle?.isUnforeseen === true }
      : undefined,
  };
}

/** The draft without any table, and the features of each table to come. */
function startDraft(draw: Draw, without: string[]): { draft: Draft; shares: Set<string>[] } {
  const { seed, forced, features } = draw;
  const place = (feature: string) => hash(`${seed} ${feature}`);
  const others = features.filter((feature) => feature !== forced);
  const wished = others.toSorted((one, other) => place(one) - place(other));
  if (forced !== undefined && features.includes(forced)) wished.unshift(forced);
  const traits = new Set(wished);
  const used = new Set<string>();
  const name = createNames(
    streamFor(draw, "names"),
    wished.filter((feature): feature is NameKind => nameKinds.includes(feature as NameKind)).slice(0, 3),
    (kind) => used.add(kind),
  );
  const ofTables = wished.filter((feature) => feature in allTableFeatures && !without.includes(feature));
  const shares = shareOut(allTableFeatures, ofTables, draw.tables, streamFor(draw, "shares"));
  if (shares.every((share) => share.has("excluded table"))) shares.push(new Set());
  const needsSchemas = ["partition in another schema", "parent in another schema", "several schemas"].some((trait) =>
    traits.has(trait)
  );
  const random = streamFor(draw, "basis");
  const draft: Draft = {
    random,
    traits,
    used,
    name,
    schemas: ["public", ...(needsSchemas ? Array.from({ length: 1 + random.below(2) }, () => name("schema")) : [])],
    tables: [],
    script: [],
    list: [],
    neighbours: [],
    users: Array.from({ length: 6 }, () => random.uuid()),
    organizations: Array.from({ length: 3 }, () => random.uuid()),
    log: { schema: "public", name: "log" },
  };
  return { draft, shares };
}

/** Who belongs where; not everyone to one organization where a large table is to be gone through. */
function chooseMapping({ random, traits, tables }: Draft, isNeeded: boolean): string {
  if (isNeeded) return "a few organizations";
  const isLarge = tables.some((table) => table.traits.has("more than 1000 blocks"));
  const possible = mappings.filter((candidate) =>
    namesOrganizations(tables) ? namingMappings.includes(candidate) : !isLarge || candidate !== noMapping
  );
  return possible.find((candidate) => traits.has(candidate)) ?? random.pick(possible);
}

/** Whether a row, or a user, names an organization that only the application can have made. */
const needsOrganizations = ({ traits, tables }: Draft): boolean =>
  traits.has("users placed by app_metadata") ||
  namesOrganizations(tables);

/** Makes the tables that look much as what the push refuses. */
function plantNeighbours(draft: Draft, draw: Draw): void {
  for (const [feature, plant] of neighbours) {
    if (!draft.traits.has(feature)) continue;
    draft.random = streamFor(draw, feature);
    for (const table of plant(draft)) {
      register(draft, table);
      draft.neighbours.push(table);
    }
    draft.used.add(feature);
  }
}

/** The features that do not go with an obstacle. */
function featuresWithout({ without = [], withoutOrganizations }: Obstacle): string[] {
  // Its own tables would be published with all, too.
  return [
    "published with all tables",
    ...without,
    ...(withoutOrganizations ? [...Object.keys(adoptedFeatures), ...organizationColumnFeatures] : []),
  ];
}

/** Adds the schemas, the users and the table that triggers write to. */
function createBasis(draft: Draft): void {
  const { schemas, script, users, log } = draft;
  for (const schema of schemas.slice(1)) script.push(`create schema ${quote(schema)}`);
  const rows = users.map((id, number) => `(${literal(id)}, 'authenticated', 'user${number}@example.com')`);
  script.push(
    `insert into auth.users (id, role, email) values ${rows.join(", ")}`,
    `create table ${qualify(log)} (operation text)`,
  );
  exclude(draft, log);
}

/** A line for each table that holds rows; its index is mostly named as the documentation does. */
function indexLines(draft: Draft, table: Table): string[] {
  if (hasOrgIdIndex(table)) return [];
  return table.leaves.map((leaf: Name) => {
    const name = draft.random.below(5) > 0 ? coinName("idx_", leaf.name, "_org_id") : draft.name("index");
    return indexLine(name, leaf);
  });
}

const indexLine = (name: string, table: Name): string =>
  `create index concurrently if not exists ${quote(name)} on ${qualify(table)} (org_id);`;
