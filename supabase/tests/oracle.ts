import type { Sql } from "postgres";
import {
  type Catalog,
  findSources,
  keyOf,
  normalize,
  organizationsKey,
  type OrgTable,
  readCatalog,
  type Reference,
  type Source,
  usersKey,
} from "./oracle-sources.ts";

export type { OrgTable } from "./oracle-sources.ts";

type Row = Record<string, unknown>;

interface Found {
  row: Row;
  /** What the row holds besides org_id. */
  text: string;
}

/** The organizations that rows had before the push, by table and by what else is in the row. */
export type OrgIdsBefore = Map<string, Map<string, string>>;

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const inPublic = (table: string | OrgTable): OrgTable =>
  typeof table === "string" ? { schema: "public", name: table } : table;

/** What the decision about a row takes, read once. */
export interface Knowledge {
  defaultOrgId: string;
  /** By table: its rows, and what decides them. */
  rows: Map<string, Found[]>;
  sources: Map<string, Source[]>;
  /** By table: true where the registry says that nothing decides. */
  undecided: Map<string, boolean>;
  /** For each reference the rows of its parent by their keys. */
  parents: Map<Reference, Map<string, Found>>;
  /** The mapping, and what app_metadata says of each user. */
  mapping: Map<string, string | null>;
  /** The organizations that each user is a member of. */
  memberships: Map<string, Set<string>>;
  claims: Map<string, unknown>;
  organizations: Set<string>;
  before: OrgIdsBefore;
}

/** A row with the key of its table. */
interface Place {
  key: string;
  found: Found;
}

/**
 * Says for each row of each org-scoped table which organization it should have, from the rules of the documentation and
 * without any code of the migration: the one it had before; else what the first of its sources says that says one; else the
 * default. Returns one line for every row that has another.
 *
 * Rows that lead to one another in a circle have no parent with an organization: any that another source of theirs says is
 * right, and the default.
 */
export async function findWrongRows(
  sql: Sql,
  tables: (string | OrgTable)[],
  defaultOrgId: string,
  before: OrgIdsBefore = new Map(),
): Promise<string[]> {
  const knowledge = await readKnowledge(sql, tables, defaultOrgId, before);
  const decisions = new Map<object, string | undefined>();
  const wrong: string[] = [];
  for (const [key, sources] of knowledge.sources) {
    for (const found of knowledge.rows.get(key) ?? []) {
      const decision = decide(knowledge, decisions, { key, found });
      const expected = decision ? [decision] : [...decideInCircle(knowledge, decisions, { key, found })];
      if (!expected.includes(found.row["org_id"] as string)) {
        const from = sources.map(({ kind, entry }) => `${kind} ${entry}`).join(", ");
        wrong.push(`${key} (${from}): ${JSON.stringify(found.row)} should have ${expected.join(" or ")}`);
      }
    }
  }
  return wrong;
}

export async function readKnowledge(
  sql: Sql,
  tables: (string | OrgTable)[],
  defaultOrgId: string,
  before: OrgIdsBefore = new Map(),
): Promise<Knowledge> {
  const scoped = tables.map(inPublic);
  const catalog = await readCatalog(sql);
  const mapping = await sql`select user_id, org_id from tenancy.user_orgs`;
  const memberships = await sql`select user_id, array_agg(org_id) as org_ids from tenancy.memberships group by user_id`;
  const users = await sql`select id, raw_app_meta_data -> 'org_id' as claim from auth.users`;
  const organizations = await sql`select id from public.organizations`;
  const keys = new Set(scoped.map(keyOf));
  const sources = new Map(scoped.map((table) => [keyOf(table), findSources(catalog, keys, table)]));
  const rows = new Map<string, Found[]>();
  for (const key of tablesToRead(catalog, keys, sources)) {
    const [schema, name] = JSON.parse(key) as [string, string];
    rows.set(key, await readRows(sql, { schema, name }));
  }
  return {
    defaultOrgId,
    rows,
    sources,
    undecided: new Map(scoped.map((table) => [keyOf(table), table.orgFrom?.length === 0])),
    parents: new Map(catalog.references.map((reference) => [reference, rowsByKey(rows, reference)])),
    mapping: new Map(mapping.map((row) => [row["user_id"] as string, row["org_id"] as string | null])),
    memberships: new Map(memberships.map((row) => [row["user_id"] as string, new Set(row["org_ids"] as string[])])),
    claims: new Map(users.map((row) => [row["id"] as string, row["claim"]])),
    organizations: new Set(organizations.map((row) => row["id"] as string)),
    before,
  };
}

/** The tables themselves, organizations, and what lies on the way to a user. */
function tablesToRead({ references }: Catalog, scoped: Set<string>, sources: Map<string, Source[]>): Set<string> {
  const steps = [...sources.values()].flat().flatMap(({ way }) => way.map(({ parent }) => parent));
  const named = references.filter(({ parent }) => parent === organizationsKey).map(({ parent }) => parent);
  return new Set([...scoped, ...steps, ...named].filter((key) => key !== usersKey));
}

/** The value of a row in these columns, to be compared as the parent's key compares; none where one is NULL. */
function keyIn({ row }: Found, columns: string[], { comparisons }: Reference): string | undefined {
  const values = columns.map((column, place) => normalize(row[column], comparisons[place]));
  return values.includes(null) ? undefined : JSON.stringify(values);
}

const rowsByKey = (rows: Map<string, Found[]>, reference: Reference): Map<string, Found> =>
  new Map((rows.get(reference.parent) ?? []).flatMap((found) => {
    const key = keyIn(found, reference.parentColumns, reference);
    return key === undefined ? [] : [[key, found]];
  }));

/** The row that another references, if it is there. */
function follow({ parents }: Knowledge, from: Found | undefined, reference: Reference): Found | undefined {
  const key = from && keyIn(from, reference.columns, reference);
  return key === undefined ? undefined : parents.get(reference)?.get(key);
}

/** The organization that a text names, if it exists. */
const named = ({ organizations }: Knowledge, text: unknown): string | undefined =>
  typeof text === "string" && uuid.test(text) && organizations.has(text.toLowerCase()) ? text.toLowerCase() : undefined;

/** The user whom a source of a row names. */
function userOf(knowledge: Knowledge, found: Found, { way, end }: Source): string | undefined {
  if (typeof end !== "string") return undefined;
  const user = goAlong(knowledge, found, way)?.row[end];
  return typeof user === "string" && uuid.test(user) ? user.toLowerCase() : undefined;
}

/** The organization of a user: the mapping's, which may be none, else that of app_metadata. */
function organizationOf(knowledge: Knowledge, user: string | undefined): string | undefined {
  if (user === undefined) return undefined;
  const mapped = knowledge.mapping.get(user);
  return mapped === undefined ? named(knowledge, knowledge.claims.get(user)) : mapped ?? undefined;
}

function goAlong(knowledge: Knowledge, found: Found, way: Reference[]): Found | undefined {
  let at: Found | undefined = found;
  for (const step of way) at = follow(knowledge, at, step);
  return at;
}

/** What a source says of a row: an organization, or a parent that has it; undefined where it says nothing. */
function ask(knowledge: Knowledge, found: Found, source: Source): string | Place | undefined {
  const { way, end } = source;
  if (typeof end === "string") return organizationOf(knowledge, userOf(knowledge, found, source));
  const parent = follow(knowledge, goAlong(knowledge, found, way), end);
  if (!parent) return undefined;
  return end.parent === organizationsKey ? parent.row["id"] as string : { key: end.parent, found: parent };
}

/** What the row's sources say, in the order that decides, after the organization that it had. */
const answers = (knowledge: Knowledge, { key, found }: Place): (string | Place)[] =>
  [
    knowledge.before.get(key)?.get(found.text),
    ...(knowledge.sources.get(key) ?? []).map((source) => ask(knowledge, found, source)),
  ].filter((answer) => answer !== undefined);

const inCircle = Symbol("in a circle");

/**
 * What decides a row: the first answer. Where that is the organization of an owner, the first parent after the owner that is in
 * an organization of theirs comes before it, if that parent's does not go in a circle.
 */
function firstAnswer(
  knowledge: Knowledge,
  { key, found }: Place,
  orgOf: (parent: Place) => string | undefined,
  isThere: (parent: Place) => boolean = () => true,
): string | Place | typeof inCircle | undefined {
  const before = knowledge.before.get(key)?.get(found.text);
  if (before !== undefined) return before;
  const sources = knowledge.sources.get(key) ?? [];
  for (const [number, source] of sources.entries()) {
    const answer = ask(knowledge, found, source);
    if (typeof answer !== "string") {
      if (answer && isThere(answer)) return answer;
      continue;
    }
    const memberships = knowledge.memberships.get(userOf(knowledge, found, source) ?? "");
    for (const later of memberships ? sources.slice(number + 1).filter(({ kind }) => kind === "parent") : []) {
      const parent = ask(knowledge, found, later) as Place | undefined;
      if (!parent || !isThere(parent)) continue;
      const orgId = orgOf(parent);
      if (orgId === undefined) return inCircle;
      if (memberships?.has(orgId)) return orgId;
    }
    return answer;
  }
  return undefined;
}

/** The organization that the rules give; none where they go in a circle. */
function decide(
  knowledge: Knowledge,
  decisions: Map<object, string | undefined>,
  place: Place,
  onTheWay: object[] = [],
): string | undefined {
  const path: object[] = [];
  let at: Place | string | undefined = place;
  let decision: string | undefined;
  while (decision === undefined && typeof at === "object") {
    if (decisions.has(at.found)) {
      decision = decisions.get(at.found);
      break;
    }
    if (path.includes(at.found) || onTheWay.includes(at.found)) break;
    path.push(at.found);
    const orgOf = (parent: Place) => decide(knowledge, decisions, parent, [...onTheWay, ...path]);
    const answer: string | Place | typeof inCircle = firstAnswer(knowledge, at, orgOf) ?? knowledge.defaultOrgId;
    if (answer === inCircle) break;
    at = answer;
    if (typeof at === "string") decision = at;
  }
  for (const row of path) decisions.set(row, decision);
  return decision;
}

/** All that may be right for a row whose parents go in a circle. */
function decideInCircle(
  knowledge: Knowledge,
  decisions: Map<object, string | undefined>,
  place: Place,
): Set<string> {
  const allowed = new Set([knowledge.defaultOrgId]);
  const seen = new Set<object>();
  const visit = (at: Place) => {
    if (seen.has(at.found)) return;
    seen.add(at.found);
    for (const answer of answers(knowledge, at)) {
      const decision = typeof answer === "string" ? answer : decide(knowledge, decisions, answer);
      if (decision !== undefined) allowed.add(decision);
      else if (typeof answer !== "string") visit(answer);
    }
  };
  visit(place);
  return allowed;
}

/**
 * The organization that a row should get which is inserted once more without org_id, after the push and with no claim;
 * undefined where it should be refused.
 */
export function decideInsert(knowledge: Knowledge, table: OrgTable, text: string): string | undefined {
  const key = keyOf(table);
  const found = knowledge.rows.get(key)?.find((candidate) => candidate.text === text);
  if (!found) throw new Error(`Cannot decide a row of ${key} that was not there: ${text}`);
  const orgOf = (parent: Place) => parent.found.row["org_id"] as string;
  // A row that references itself is not there yet.
  const answer = firstAnswer(knowledge, { key, found }, orgOf, (parent) => parent.found !== found);
  if (typeof answer === "string") return answer;
  if (typeof answer === "object") return orgOf(answer);
  return knowledge.undecided.get(key) || knowledge.mapping.size === 0 ? knowledge.defaultOrgId : undefined;
}

/** Reads which organizations rows have, to be known after the push as those from before. */
export async function readOrgIds(sql: Sql, tables: OrgTable[]): Promise<OrgIdsBefore> {
  const before: OrgIdsBefore = new Map();
  for (const table of tables) {
    const found = await readRows(sql, table);
    before.set(
      keyOf(table),
      new Map(found.flatMap(({ row, text }) => typeof row["org_id"] === "string" ? [[text, row["org_id"]]] : [])),
    );
  }
  return before;
}

/** The rows that had an organization and have not that one any more. */
export function findLostOrgIds(before: OrgIdsBefore, after: OrgIdsBefore): string[] {
  return [...before].flatMap(([table, rows]) =>
    [...rows].filter(([row, orgId]) => after.get(table)?.get(row) !== orgId).map(([row]) => `${table}: ${row}`)
  );
}

async function readRows(sql: Sql, { schema, name }: OrgTable): Promise<Found[]> {
  // The driver's own quoting takes a dot for the end of a schema.
  const target = [schema, name].map((part) => `"${part.replaceAll('"', '""')}"`).join(".");
  return await sql<Found[]>`
    select to_jsonb("a row") as row, (to_jsonb("a row") - 'org_id')::text as text from ${sql.unsafe(target)} as "a row"
  `;
}
