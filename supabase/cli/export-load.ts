import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { TransactionSql } from "postgres";
import { UsageError } from "./command-line.ts";
import { type Manifest, readManifest, type WrittenTable } from "./export-manifest.ts";
import { columnList, condition, findMissing, prepareSession, readColumns, readRows } from "./export-tables.ts";
import { closeLive, connectLive } from "./live-database.ts";

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
  const sql = connectLive(url, { fetch_types: true });
  try {
    await sql.begin(async (transaction) => {
      await prepareSession(transaction);
      await refuseOther(transaction, tables);
      await refuseTaken(transaction, manifest, tables);
      // Whoever is in none here is placed by what is loaded.
      await transaction`
        delete from tenancy.user_orgs where user_id = any (${manifest.active}::text[]::uuid[]) and org_id is null
      `;
      // As they are: no trigger writes anything, and keys that lead round are looked at once all rows are there.
      await transaction`set local session_replication_role = replica`;
      // Checks of the application look for its functions where its own sessions do.
      await transaction`set local search_path to default`;
      for (const table of tables) {
        const target = await transaction.unsafe(`copy ${table.name} (${columnList(table)}) from stdin`).writable();
        await pipeline(createReadStream(join(folder, table.file)), target);
      }
      await transaction`set local search_path = ''`;
      await verifyRows(transaction, manifest, tables);
      await refuseMissing(transaction, manifest, tables);
      for (const table of tables) await advanceSequences(transaction, table);
    });
  } finally {
    await closeLive(sql);
  }
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
      `select count(*)::integer as rows from ${table.name} as held where ${condition(table, "held", { org, users })}`,
    );
    if (held && held.rows > 0) {
      const wayOut = table.kind === "personal" || table.kind === "account"
        ? `; leave them as they are: --without ${table.name}`
        : "";
      taken.push(`${table.name} has ${held.rows} rows of the organization or its users already${wayOut}`);
    }
  }
  const [placed] = await sql<{ users: number }[]>`
    select count(*)::integer as users from tenancy.user_orgs
    where user_id = any (${active}::text[]::uuid[]) and org_id is not null
  `;
  if (placed && placed.users > 0) {
    taken.push(
      `${placed.users} users of the organization are in another one here: take them out of it in tenancy.user_orgs first`,
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

/** Numbers that are given out from now on come after those that were loaded. */
async function advanceSequences(sql: TransactionSql, { name, columns }: WrittenTable): Promise<void> {
  for (const { name: column } of columns) {
    const [owned] = await sql<
      { sequence: string | null }[]
    >`select pg_get_serial_sequence(${name}, ${column}) as sequence`;
    if (!owned?.sequence) continue;
    await sql.unsafe(`
      select setval('${owned.sequence.replaceAll("'", "''")}', loaded.highest)
      from (select max("${column.replaceAll('"', '""')}")::bigint as highest from ${name}) as loaded
      cross join ${owned.sequence} as sequence
      where loaded.highest > sequence.last_value
    `);
  }
}
