import { chmodSync, createWriteStream, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import type { TransactionSql } from "postgres";
import { UsageError } from "./command-line.ts";
import { type Manifest, manifestFile, type WrittenTable } from "./export-manifest.ts";
import {
  findLeftOut,
  findMissing,
  findTables,
  type LeftOut,
  type Missing,
  prepareSession,
  readRows,
} from "./export-tables.ts";
import { inTransaction } from "./live-database.ts";

/** Makes the folder, for its owner alone. Throws an error where something is in it. */
function prepareFolder(folder: string): void {
  if (existsSync(folder) && readdirSync(folder).length > 0) {
    throw new UsageError(`Cannot write to --out ${JSON.stringify(folder)}: it is not empty`);
  }
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o700);
}

/** Writes an organization's rows to a folder, all as they are at one moment. Returns what is in it, what the rows need besides, and what is not in it. */
export async function writeExport(
  url: string,
  options: { org: string; folder: string; withUsers: boolean },
): Promise<{ manifest: Manifest; needed: Missing[]; leftOut: LeftOut[] }> {
  const { org, folder, withUsers } = options;
  return await inTransaction(url, "isolation level repeatable read read only", async (transaction) => {
    await prepareSession(transaction);
    await refuseUnknown(transaction, org);
    prepareFolder(folder);
    const active = (await transaction<{ id: string }[]>`
      select user_id as id from tenancy.placed_users where org_id = ${org} order by 1
    `).map(({ id }) => id);
    const members = (await transaction<{ id: string }[]>`
      select user_id as id from tenancy.memberships where org_id = ${org}
    `).map(({ id }) => id);
    const users = [...new Set([...active, ...members])].sort();
    const scope = { org, users };
    const found = await findTables(transaction, withUsers);
    const tables: WrittenTable[] = [];
    for (const [number, table] of found.entries()) {
      const file = `${String(number + 1).padStart(3, "0")}_${table.name.replaceAll(/[^\w.]+/g, "_")}.copy`;
      const stream = createWriteStream(join(folder, file), { mode: 0o600 });
      const written = await readRows(transaction, table, scope, async (chunk) => {
        if (!stream.write(chunk)) await once(stream, "drain");
      });
      stream.end();
      await finished(stream);
      tables.push({ ...table, file, ...written });
    }
    const needed = await findMissing(transaction, tables, scope, "in the export");
    const manifest: Manifest = { format: 1, org, exportedAt: new Date().toISOString(), users, active, tables };
    writeFileSync(join(folder, manifestFile), `${JSON.stringify(manifest, null, 2)}\n`, { mode: 0o600 });
    return { manifest, needed, leftOut: await findLeftOut(transaction, found) };
  });
}

async function refuseUnknown(sql: TransactionSql, org: string): Promise<void> {
  const [there] = await sql<{ tenancy: boolean }[]>`select to_regclass('tenancy.registry') is not null as tenancy`;
  if (!there?.tenancy) {
    throw new UsageError("Cannot export: this database has no organizations, tenancy.registry is not there");
  }
  if ((await sql`select from public.organizations where id = ${org}`).length === 0) {
    throw new UsageError(`Cannot export: there is no organization ${org}`);
  }
}
