import { Readable } from "node:stream";
import type { Sql } from "postgres";
import { copyIn, copyOut } from "../cli/copy.ts";
import { refusal } from "./attempts.ts";
import type { Intruder } from "./intruder-identities.ts";
import { type Callable, readCallables, readRelations, readTables, type Relation } from "./intruder-targets.ts";
import {
  calls,
  deleteForeign,
  type ForeignRow,
  type Guesses,
  inserts,
  makeRoom,
  quote,
  read,
  readStatistics,
  type Way,
  writes,
} from "./intruder-ways.ts";

interface Try {
  role: string;
  way: string;
  /** The table, partition, view or function that was used, qualified. */
  through: string;
}
/** Rows of another organization were read or written. */
export interface Hit extends Try {
  /** The org-scoped tables whose rows were reached, as far as that is known. */
  reached: string[];
}

interface Outcome {
  /** NULL where it was refused. */
  lines: string[] | null;
  /** The tables of which rows of other organizations are not what they were. */
  written: string[];
}

const otherHeaders = (orgId: string) => JSON.stringify({ "x-org-id": orgId, "x-tenant-id": orgId });

export interface Intrusions {
  hits: Hit[];
  /** What was not refused, whether it reached anything or not. */
  accepted: Try[];
}
export interface Limits {
  /** Only what has such a name is used. */
  through?: RegExp;
}

/** Tries everything that the catalog offers, as everyone, in transactions that leave nothing behind. Needs a superuser. */
export async function intrude(sql: Sql, intruders: Intruder[], limits: Limits = {}): Promise<Intrusions> {
  // For pg_stats, which shows samples of what was analyzed.
  await sql`analyze`;
  const tables = await readTables(sql);
  await createDigest(sql, tables);
  const all: Intrusions = { hits: [], accepted: [] };
  for (const intruder of intruders) {
    const { hits, accepted } = await new Intrusion(sql, intruder, tables).run(limits);
    all.hits.push(...hits);
    all.accepted.push(...accepted);
  }
  return all;
}

/**
 * How many rows of other organizations each table has, and where they are: a row that is written has another place. A function
 * in PL/pgSQL keeps its plan.
 */
async function createDigest(sql: Sql, tables: string[]): Promise<void> {
  const digests = tables.map((table) => `
    select ${quote(table)} as name, count(*) as rows, sum(hashtid(ctid) + tableoid::bigint * hashtid(ctid)) as places
    from ${table}
    where org_id is distinct from own
  `);
  await sql.unsafe(`
    create or replace function pg_temp.digest(own uuid) returns text language plpgsql as $$
    begin
      return (
        select jsonb_object_agg(name, rows || ' ' || coalesce(places::text, ''))
        from (${digests.join(" union all ")}) as digests
      );
    end
    $$
  `);
}

/** What one intruder does, in one transaction. */
class Intrusion {
  #sql: Sql;
  #intruder: Intruder;
  #tables: string[];
  #found: Intrusions = { hits: [], accepted: [] };
  /** What was read that may or may not depend on other organizations' rows, by the statement. */
  #doubtful = new Map<string, { through: string; lines: string[] }>();
  #before = "";

  constructor(sql: Sql, intruder: Intruder, tables: string[]) {
    this.#sql = sql;
    this.#intruder = intruder;
    this.#tables = tables;
  }

  async run({ through = /./ }: Limits): Promise<Intrusions> {
    const { role, claims, orgId } = this.#intruder;
    const relations = (await readRelations(this.#sql, role)).filter(({ name }) => through.test(name));
    const callables = (await readCallables(this.#sql, role)).filter(({ name }) => through.test(name));
    await this.#sql`begin`;
    try {
      const [other] = await this.#sql<{ id: string }[]>`
        select id from public.organizations where id is distinct from ${orgId}::uuid order by id limit 1
      `;
      await this.#sql`
        select
          set_config('request.jwt.claims', ${JSON.stringify(claims)}, true),
          set_config('request.headers', ${otherHeaders(other?.id ?? "")}, true),
          set_config('statement_timeout', '20s', true)
      `;
      await this.#refresh();
      this.#before = await this.#digest();
      await this.#readStatistics(relations);
      for (const relation of relations) await this.#use(relation);
      const guesses = await this.#guess(other?.id ?? "");
      for (const callable of callables) await this.#call(callable, guesses);
      await this.#resolveDoubts();
      return this.#found;
    } finally {
      await this.#sql`rollback`;
    }
  }

  #hit(way: string, through: string, reached: string[] = []): void {
    this.#found.hits.push({ role: this.#intruder.role, way, through, reached });
  }

  /** Reads and writes a relation in every way. */
  async #use(relation: Relation): Promise<void> {
    const { name, root, readable } = relation;
    if (readable.length > 0) {
      const statement = read(relation, this.#intruder);
      const { lines } = await this.#attempt("select", name, statement);
      if (lines?.length && root && readable.includes("org_id")) this.#hit("select", name, [root]);
      else if (lines?.length && (root || relation.kind === "view")) {
        this.#doubtful.set(statement, { through: name, lines });
      }
      if (root && await this.#copyOut(relation)) this.#hit("copy to", name, [root]);
    }
    const foreign = await this.#foreignRows(relation);
    for (const way of writes(relation, foreign, this.#intruder)) await this.#write(name, way);
    for (const found of foreign) {
      await this.#without(makeRoom(relation, found, this.#intruder), async () => {
        for (const way of inserts(relation, found, this.#intruder)) await this.#write(name, way);
        if (relation.insertable && relation.kind === "table" && await this.#copyIn(relation, found)) {
          this.#hit("copy from", name, root ? [root] : []);
        }
      });
    }
  }

  async #write(through: string, { name, statement }: Way): Promise<void> {
    const { written } = await this.#attempt(name, through, statement);
    if (written.length > 0) this.#hit(name, through, written);
  }

  async #call(callable: Callable, guesses: Guesses): Promise<void> {
    const written = new Set<string>();
    for (const statement of calls(callable, guesses)) {
      const outcome = await this.#attempt("call", callable.signature, statement);
      if (outcome.lines?.length) this.#doubtful.set(statement, { through: callable.signature, lines: outcome.lines });
      for (const table of outcome.written) written.add(table);
    }
    if (written.size > 0) this.#hit("call that writes", callable.signature, [...written].sort());
  }

  /**
   * Without the other organizations' rows it reads the same things again. What is different then was made of those rows, be it
   * a row, a count or a yes. What differs without any change, such as a random number, tells only by a key that it contains.
   */
  async #resolveDoubts(): Promise<void> {
    const suspects = new Map<string, string[]>();
    await this.#without(this.#tables.map((table) => deleteForeign(table, this.#intruder)).join("; "), async () => {
      await this.#refresh();
      for (const [statement, { through, lines }] of this.#doubtful) {
        const without = new Set((await this.#attempt("again", through, statement)).lines ?? []);
        const gone = lines.filter((line) => !without.has(line));
        if (gone.length > 0) suspects.set(statement, gone);
      }
    });
    const keys = await this.#foreignKeys();
    const found = new Set<string>();
    for (const [statement, gone] of suspects) {
      const { through } = this.#doubtful.get(statement) ?? { through: statement };
      const again = new Set((await this.#attempt("again", through, statement)).lines ?? []);
      if (gone.some((line) => again.has(line) || keys.some((key) => line.includes(key)))) found.add(through);
    }
    for (const through of found) this.#hit(/\)$/.test(through) ? "call that reads" : "select", through);
  }

  /** Does something where rows are missing, which are deleted as by whoever may do everything, without triggers and foreign keys. */
  async #without(deletion: string, act: () => Promise<void>): Promise<void> {
    await this.#sql`savepoint world`;
    const before = this.#before;
    try {
      await this.#sql.unsafe(
        `set local session_replication_role = replica; ${deletion}; set local session_replication_role = origin`,
      ).simple();
      this.#before = await this.#digest();
      await act();
    } finally {
      this.#before = before;
      await this.#sql`rollback to world`;
    }
  }

  /** Runs a statement as the intruder and takes it back. */
  async #attempt(way: string, through: string, statement: string): Promise<Outcome> {
    await this.#sql`savepoint attempt`;
    try {
      const results = await this.#sql.unsafe(`
        select set_config('intruder.position', pg_current_wal_insert_lsn()::text, true);
        set local role ${this.#intruder.role};
        ${statement};
        set constraints all immediate;
        reset role;
        select case
          -- Where no log was written, no row was.
          when pg_current_wal_insert_lsn() <> current_setting('intruder.position')::pg_lsn
            then pg_temp.digest(${quote(this.#intruder.orgId)})
        end as digest
      `).simple().then((all) => (all as unknown as Record<string, string | null>[][]).flat(), () => null);
      if (!results) return { lines: null, written: [] };
      this.#found.accepted.push({ role: this.#intruder.role, way, through });
      const lines = results.flatMap(({ line }) => line ?? []);
      return { lines, written: differences(this.#before, results.at(-1)?.["digest"] ?? this.#before) };
    } finally {
      await this.#sql`rollback to attempt`;
    }
  }

  /** Whether COPY brings rows of other organizations. It copies no view. */
  async #copyOut({ name, readable }: Relation): Promise<boolean> {
    if (!readable.includes("org_id")) return false;
    return await this.#within(async () => {
      let text = "";
      await copyOut(this.#sql, `copy ${name} (org_id) to stdout`, (chunk) => void (text += String(chunk)));
      return text.split("\n").some((line) => line !== "" && line !== this.#intruder.orgId);
    });
  }

  /** Whether COPY brings a row into another organization. */
  async #copyIn(relation: Relation, { row }: ForeignRow): Promise<boolean> {
    const columns = relation.columns.filter(({ name, insertable }) => insertable && row[name] !== null);
    const [line] = await this.#sql.unsafe<{ values: string }[]>(`
      select concat_ws(E'\\t', ${columns.map(({ name }) => `"${name}"::text`).join(", ")}) as values
      from jsonb_populate_record(null::${relation.name}, ${quote(JSON.stringify(row))})
    `);
    return await this.#within(async () => {
      const statement = `copy ${relation.name} (${columns.map(({ name }) => `"${name}"`).join(", ")}) from stdin`;
      await copyIn(this.#sql, statement, Readable.from([`${line?.values}\n`]));
      await this.#sql`reset role`;
      return differences(this.#before, await this.#digest()).length > 0;
    });
  }

  /** Does something as the intruder and takes it back; false where that is refused. */
  async #within(act: () => Promise<boolean>): Promise<boolean> {
    await this.#sql`savepoint attempt`;
    try {
      await this.#sql.unsafe(`set local role ${this.#intruder.role}`);
      let outcome = false;
      await refusal(act().then((value) => outcome = value));
      return outcome;
    } finally {
      await this.#sql`rollback to attempt`;
    }
  }

  /** Materialized views show what is there now. */
  async #refresh(): Promise<void> {
    const views = await this.#sql<{ name: string }[]>`
      select oid::regclass::text as name from pg_class where relkind = 'm' order by oid
    `;
    for (const { name } of views) await this.#sql.unsafe(`refresh materialized view ${name}`);
  }

  async #digest(): Promise<string> {
    const [row] = await this.#sql<{ digest: string }[]>`select pg_temp.digest(${this.#intruder.orgId}) as digest`;
    return row?.digest ?? "";
  }

  /** Rows of other organizations in the table, those first that mention the intruder. */
  async #foreignRows({ name, columns, kind }: Relation): Promise<ForeignRow[]> {
    const { orgId, user } = this.#intruder;
    const isView = kind === "view";
    const ofOthers = columns.some((column) => column.name === "org_id" && column.type === "uuid")
      ? `where org_id is distinct from ${quote(orgId)}::uuid`
      : "";
    return [
      ...await this.#sql.unsafe<ForeignRow[]>(`
      select
        row_to_json(rows) as row,
        ${isView ? quote(name) : "tableoid::regclass::text"} as table,
        ${isView ? "null" : "ctid::text"} as place
      from ${name} as rows
      ${ofOthers}
      order by position(${quote(user ?? "")} in row_to_json(rows)::text) > 0 desc
      limit 2
    `),
    ];
  }

  /** What identifies a row of another organization and nothing else: keys that are neither users' nor organizations'. */
  async #foreignKeys(): Promise<string[]> {
    const keys: string[] = [];
    for (const table of this.#tables) {
      const rows = await this.#sql.unsafe<{ key: string }[]>(`
        select to_jsonb(rows) ->> 'id' as key
        from ${table} as rows
        where org_id is distinct from ${quote(this.#intruder.orgId)}::uuid
          and (to_jsonb(rows) ->> 'id') ~ '^[0-9a-f]{8}-'
          and not exists (select from auth.users where users.id::text = to_jsonb(rows) ->> 'id')
      `);
      keys.push(...rows.map(({ key }) => key));
    }
    return keys;
  }

  /** Values of rows of other organizations, by their types, with the organizations and users themselves. */
  async #guess(orgId: string): Promise<Guesses> {
    const guesses: Guesses = new Map([["uuid", [orgId, ...[...this.#intruder.users].slice(0, 2)]]]);
    for (
      const relation of (await readRelations(this.#sql, "postgres")).filter(({ name }) => this.#tables.includes(name))
    ) {
      const rows = await this.#foreignRows(relation);
      const note = (type: string, value: string) => {
        const known = guesses.get(type) ?? [];
        if (!known.includes(value)) guesses.set(type, [...known, value]);
      };
      for (const { row } of rows) {
        note(relation.name, JSON.stringify(row));
        for (const { name, type } of relation.columns) {
          const value = row[name];
          if (value === null || value === undefined) continue;
          note(type.replace(/\(.*\)/, ""), typeof value === "object" ? JSON.stringify(value) : String(value));
        }
      }
    }
    guesses.set("regclass", this.#tables);
    return guesses;
  }

  async #readStatistics(relations: Relation[]): Promise<void> {
    const names = relations.filter(({ root, kind }) => root || kind === "view").map(({ name }) => name);
    const { lines } = await this.#attempt("statistics", "pg_stats", readStatistics(names));
    for (const line of new Set(lines)) this.#hit("statistics", line);
  }
}

/** The tables of which two digests differ. */
function differences(before: string, after: string): string[] {
  const [old, now] = [before, after].map((text) => JSON.parse(text || "{}") as Record<string, string>);
  return Object.keys({ ...old, ...now }).filter((table) => old?.[table] !== now?.[table]).sort();
}
