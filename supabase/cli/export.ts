/** npm run export -- [options]: takes one organization out of a database, or into another. npm run export -- --help lists the options. */
import { hideKeys, networkReason, UsageError, usageExitCode } from "./command-line.ts";
import { secretsOf } from "./database-url.ts";
import { loadExport } from "./export-load.ts";
import type { Manifest } from "./export-manifest.ts";
import { help, readOptions } from "./export-options.ts";
import { writeExport } from "./export-write.ts";
import { endWithReader } from "./interruption.ts";
import { formatCount, formatTable } from "./print.ts";

/** What no output may hold. */
let secrets: string[] = [];

function show({ tables, users }: Manifest, what: string): void {
  const filled = tables.filter(({ rows }) => rows > 0);
  const rows = filled.reduce((sum, table) => sum + table.rows, 0);
  console.log(formatTable(["table", "rows", "what"], filled.map(({ name, rows: count, kind }) => [name, count, kind])));
  console.log(
    `\n${what}: ${formatCount(rows)} rows in ${filled.length} tables, of ${formatCount(users.length)} users.`,
  );
}

async function run(options: ReturnType<typeof readOptions>): Promise<void> {
  if (options.do === "help") {
    console.log(help);
    return;
  }
  secrets = secretsOf(options.url);
  if (options.do === "load") {
    show(await loadExport(options.url, options), "Loaded and verified");
    return;
  }
  const { manifest, needed, leftOut } = await writeExport(options.url, options);
  show(manifest, `Written to ${options.folder}`);
  if (leftOut.length > 0) {
    console.log(
      "\nNo row of these is in it, since no column of theirs says whose it is; copy what is the organization's yourself:",
    );
    console.log(
      formatTable(
        ["table", "references", "in the list as"],
        leftOut.map(({ table, references, reason }) => [table, references, reason]),
      ),
    );
  }
  if (needed.length === 0) return;
  console.log("\nThese reference rows that are not in it, which must be where it is loaded:");
  console.log(
    formatTable(
      ["table", "references", "rows", "foreign key"],
      needed.map((key) => [key.table, key.parent, key.rows, key.key]),
    ),
  );
}

endWithReader();
try {
  await run(readOptions(process.argv.slice(2), process.env));
} catch (error) {
  const isUsage = error instanceof UsageError;
  console.error(hideKeys(isUsage ? error.message : `Cannot do it: ${networkReason(error)}`, secrets));
  process.exitCode = isUsage ? usageExitCode : 1;
}
