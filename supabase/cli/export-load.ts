import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import type { PostgresError, TransactionSql } from "postgres";
import { UsageError } from "./command-line.ts";
import { copyIn } from "./copy.ts";
import { type Manifest, readManifest, type WrittenTable } from "./export-manifest.ts";
import { columnList, condition, findMissing, prepareSession, readColumns, readRows, rowsOf } from "./export-tables.ts";
import { inTransaction } from "./live-database.ts";

/** Loads a folder that was exported, in one transaction: all of it, or nothing. Returns what is in it. */
export async function loadExport(url: string, options: { folder: string; without: string[] }): Promise<Manifest> {
  const { folder, without } = options;
  const manifest = readManifest(folder);
  const unknown = without.find((name) =>
    !manifest.tables.some((table) => table.name === name && (table.kind === "personal" || table.kind === "account"))
  );
  if (unknown !== undefined) {
    throw new UsageError(`Cannot use --without ${unknown}: the folder has no such table that is not org-scoped`);
  }
  const tables = manifest.tables.filter(({ name }) => !without.includes(name));
  for (const table of tables) await refuseChanged(folder, table);
  await inTransaction(url, "", async (transaction) => {
    await prepareSession(transaction);
    await refuseOther(transaction, tables);
    await refuseUnchecked(transaction, tables);
    await refuseTaken(transaction, manifest, tables);
    // Whoever is in none here is placed by what is loaded.
    await transaction`
      delete from tenancy.user_orgs where user_id = any (${manifest.users}::text[]::uuid[]) and org_id is null
    `;
    // As they are: no trigger writes anything, and keys that lead round are looked at once all rows are there.
    await transaction`set local session_replication_role = replica`;
    // Checks of the application look for its functions where its own sessions do.
    await transaction`set local search_path to default`;
    for (const table of tables) {
      const source = createReadStream(join(folder, table.file));
      await copyIn(transaction, `copy ${table.name} (${columnList(table)}) from stdin`, source)
        .catch((error: unknown) => Promise.reject(nameRow(error, table)));
    }
    await transaction`set local search_path = ''`;
    await verifyRows(transaction, manifest, tables);
    for (const table of tables) await refuseDuplicates(transaction, manifest, table);
    await refuseMissing(transaction, manifest, tables);
    for (const table of tables) await advanceSequences(transaction, table);
    await placeMembers(transaction, manifest);
  });
  return { ...manifest, tables };
}

async function refuseChanged(folder: string, { file, name, sha256 }: WrittenTable): Promise<void> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(join(folder, file))) hash.update(chunk as Buffer);
  if (hash.digest("hex") !== sha256) {
    throw new Error(`${file} is not what was exported of ${name}: its hash is another one`);
  }
}

/** Refuses a database whose tables are not those that the rows are of. */
async function refuseOther(sql: TransactionSql, tables: WrittenTable[]): Promise<void> {
  const problems: string[] = [];
  for (const { name, columns } of tables) {
    const here = await readColumns(sql, name);
    const [was, is] = [columns, here].map((list) =>
      list.map((column) => `${column.name} ${column.type}${column.generated ? " generated" : ""}`)
    ) as [string[], string[]];
    if (here.length === 0) problems.push(`${name} is not there`);
    const differs = [...was.filter((column) => !is.includes(column)), ...is.filter((column) => !was.includes(column))];
    if (here.length > 0 && differs.length > 0) problems.push(`${name} has other columns: ${differs.join(", ")}`);
  }
  if (problems.length > 0) throw new Error(`the tables are not those of the export:\n${problems.join("\n")}`);
}

/** Refuses what a table looks for by a trigger, of which none fires, and nothing else can look for. */
async function refuseUnchecked(sql: TransactionSql, tables: WrittenTable[]): Promise<void> {
  const constraints = await sql<{ table: string; name: string }[]>`
    select named.table, its.conname as name
    from unnest(${tables.map(({ name }) => name)}::text[]) as named ("table")
    join pg_constraint as its on its.conrelid = to_regclass(named.table) and its.contype = 'x' and its.condeferrable
  `;
  if (constraints.length === 0) return;
  const lines = constraints.map(({ table, name }) =>
    `${table} has ${name}, an exclusion constraint that is deferrable, which a load cannot check`
  );
  throw new Error(lines.join("\n"));
}

/** Refuses what is there already, and users who are not. */
async function refuseTaken(
  sql: TransactionSql,
  { org, users, active }: Manifest,
  tables: WrittenTable[],
): Promise<void> {
  if ((await sql`select from public.organizations where id = ${org}`).length > 0) {
    throw new Error(`the organization ${org} is in this database already`);
  }
  const taken: string[] = [];
  for (const table of tables) {
    const [held] = await sql.unsafe<{ rows: number }[]>(
      `select count(*)::integer as rows from ${rowsOf(table)} as held where ${
        condition(table, "held", { org, users })
      }`,
    );
    if (held && held.rows > 0) {
      const wayOut = table.kind === "personal" || table.kind === "account"
        ? `; leave them as they are: --without ${table.name}`
        : "";
      taken.push(`${table.name} has ${held.rows} rows of the organization or its users already${wayOut}`);
    }
  }
  const placed = await findPlaced(sql, active);
  if (placed.length > 0) {
    taken.push(
      `${placed.length} users of the organization are in another one here: take them out of it in tenancy.user_orgs first`,
    );
  }
  if (taken.length > 0) throw new Error(taken.join("\n"));
  if (tables.some(({ name }) => name === "auth.users")) return;
  const missing = await sql<{ id: string }[]>`
    select id::text as id from unnest(${users}::text[]::uuid[]) as member (id)
    where not exists (select from auth.users where users.id = member.id)
  `;
  if (missing.length > 0) {
    throw new Error(
      `${missing.length} of the ${users.length} users of the organization are not in auth.users here, such as ${
        missing[0]?.id
      }: ` +
        "create them with the same ids first, or export with --with-users",
    );
  }
}

/** Those of these users who are in an organization here, and not only where everybody is. */
async function findPlaced(sql: TransactionSql, users: string[]): Promise<string[]> {
  const placed = await sql<{ id: string }[]>`
    select member.id::text as id
    from unnest(${users}::text[]::uuid[]) as member (id)
    left join tenancy.user_orgs on user_orgs.user_id = member.id
    left join auth.users on users.id = member.id
    where case
      when user_orgs.user_id is not null then user_orgs.org_id is not null
      else tenancy.organization_named(users.raw_app_meta_data ->> 'org_id') is not null
    end
  `;
  return placed.map(({ id }) => id);
}

/** Members who worked in another organization where they come from, which is not here, work in this one. */
async function placeMembers(sql: TransactionSql, { org, users }: Manifest): Promise<void> {
  const placed = new Set(await findPlaced(sql, users));
  const unplaced = users.filter((id) => !placed.has(id));
  await sql`
    insert into tenancy.user_orgs (user_id, org_id)
    select id, ${org}::uuid from unnest(${unplaced}::text[]::uuid[]) as member (id)
  `;
}

async function verifyRows(sql: TransactionSql, manifest: Manifest, tables: WrittenTable[]): Promise<void> {
  for (const table of tables) {
    const { rows, sha256 } = await readRows(sql, table, manifest);
    if (rows !== table.rows || sha256 !== table.sha256) {
      throw new Error(`${table.name} has ${rows} rows now where ${table.rows} were exported, or other values in them`);
    }
  }
}

async function refuseMissing(sql: TransactionSql, manifest: Manifest, tables: WrittenTable[]): Promise<void> {
  const missing = await findMissing(sql, tables, manifest, "in the database");
  if (missing.length === 0) return;
  const lines = missing.map(({ table, parent, key, rows }) =>
    `${rows} rows of ${table} reference rows of ${parent} that are not here (${key})`
  );
  throw new Error(`what the rows reference is missing, so load it first:\n${lines.join("\n")}`);
}

/** Says which key is taken, such as a user's e-mail address, or of which row the server says what is wrong. */
function nameRow(error: unknown, { name, file }: WrittenTable): unknown {
  const { code = "", detail = "", where = "", message = "" } = error as Partial<PostgresError>;
  if (!/^2[23]/.test(code)) return error;
  const line = /line \d+/.exec(where)?.[0] ?? "a line";
  return new Error(`${name}, ${line} of ${file}: ${message}${/^23(505|P01)$/.test(code) ? `: ${detail}` : ""}`);
}

/** Refuses keys that are taken, where the table looks for them at the end of a transaction: by a trigger, and none fires. */
async function refuseDuplicates(sql: TransactionSql, manifest: Manifest, table: WrittenTable): Promise<void> {
  const { name } = table;
  const rows = rowsOf(table);
  const constraints = await sql<{ constraint: string; columns: string; matches: string }[]>`
    select
      its.conname as constraint,
      (select string_agg(quote_ident(attname), ', ') from pg_attribute where attrelid = its.conrelid and attnum = any (its.conkey)) as columns,
      (
        select string_agg(
          format('(held.%1$I operator(%2$I.%3$s) other.%1$I', attribute.attname, namespace.nspname, equality.oprname)
          || case when pg_index.indnullsnotdistinct then format(' or held.%1$I is null and other.%1$I is null', attribute.attname) else '' end
          || ')',
          ' and '
        )
        from unnest(its.conkey, pg_index.indclass::oid[]) as key_ (attnum, class)
        join pg_attribute as attribute on attribute.attrelid = its.conrelid and attribute.attnum = key_.attnum
        join pg_opclass as class on class.oid = key_.class
        join pg_amop as member
          on member.amopfamily = class.opcfamily and member.amopstrategy = 3
          and (member.amoplefttype, member.amoprighttype) = (class.opcintype, class.opcintype)
        join pg_operator as equality on equality.oid = member.amopopr
        join pg_namespace as namespace on namespace.oid = equality.oprnamespace
      ) as matches
    from pg_constraint as its
    join pg_index on pg_index.indexrelid = its.conindid
    where its.conrelid = to_regclass(${name}) and its.contype in ('p', 'u') and its.condeferrable
  `;
  for (const { constraint, columns, matches } of constraints) {
    const [held] = await sql.unsafe<{ rows: number }[]>(`
      select count(*)::integer as rows from ${rows} as held
      where ${condition(table, "held", manifest)}
        and exists (select from ${rows} as other where ${matches} and (other.tableoid, other.ctid) <> (held.tableoid, held.ctid))
    `);
    if (held && held.rows > 0) {
      throw new Error(
        `${name} would have ${held.rows} rows with a key (${columns}) that others have too (${constraint})`,
      );
    }
  }
}

/** Numbers that are given out from now on come after those that were loaded, of every sequence that a column has its numbers from. */
async function advanceSequences(sql: TransactionSql, { name }: WrittenTable): Promise<void> {
  const owned = await sql<{ column: string; sequence: string }[]>`
    select distinct quote_ident(attribute.attname) as column, format('%I.%I', namespace.nspname, sequence.relname) as sequence
    from pg_attribute as attribute
    left join pg_attrdef as its_default on its_default.adrelid = attribute.attrelid and its_default.adnum = attribute.attnum
    join pg_depend as link
      on link.classid = 'pg_attrdef'::regclass and link.objid = its_default.oid and link.refclassid = 'pg_class'::regclass
      or link.refclassid = 'pg_class'::regclass and link.refobjid = attribute.attrelid and link.refobjsubid = attribute.attnum
        and link.classid = 'pg_class'::regclass and link.deptype in ('a', 'i')
    join pg_class as sequence
      on sequence.oid = case when link.classid = 'pg_attrdef'::regclass then link.refobjid else link.objid end and sequence.relkind = 'S'
    join pg_namespace as namespace on namespace.oid = sequence.relnamespace
    join pg_type as type on type.oid = attribute.atttypid and type.typcategory = 'N'
    where attribute.attrelid = to_regclass(${name})
  `;
  for (const { column, sequence } of owned) {
    await sql.unsafe(`
      select setval('${sequence.replaceAll("'", "''")}', loaded.highest)
      from (select max(${column})::bigint as highest from ${name}) as loaded
      cross join ${sequence} as sequence
      where loaded.highest >= sequence.last_value
    `);
  }
}
