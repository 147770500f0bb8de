/**
 * npm run bench:scale -- [--tables 54,300,1000] [--rows 1000000,5000000,20000000] [--partitions 500]: what more tables, more rows and
 * a table of many partitions cost, each against the first of its kind. 0 leaves a kind out. Prints Markdown tables on standard output.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatCount } from "../../cli/print.ts";
import { dropDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { machine, runBench } from "./command.ts";
import { measureBackfill, prepareBackfill } from "./measure-backfill.ts";
import { measureSchema, type SchemaCost, shippedTables, type Size, type StepCost, steps } from "./measure-schema.ts";
import { prepareApplication } from "./prepare.ts";
import { markdown, median, say } from "./print.ts";
import { runs, serverSettings, table } from "./shared.ts";

/** Rows of the largest table where tables are counted. */
const fewRows = 1000;

const show = ({ seconds, cpuSeconds }: StepCost) => `${seconds.toFixed(2)} s (${cpuSeconds.toFixed(2)})`;

const describe = ({ tables, partitions }: Size) =>
  partitions === 0 ? `${formatCount(tables)} tables` : `and one of ${formatCount(partitions)} partitions`;

async function compareSchemas(server: PostgresServer, folder: string, sizes: Size[]): Promise<string> {
  await prepareApplication(server, folder, fewRows);
  const costs: SchemaCost[] = [];
  for (const size of sizes) {
    const cost = await measureSchema(server, join(folder, "schema"), size);
    costs.push(cost);
    say(`  ${describe(size)}: ${steps.map((step) => `${step} ${show(cost[step])}`).join(", ")}`);
  }
  const [first] = costs;
  const of = ({ tables, partitions }: Size) => tables + partitions;
  return markdown(
    ["", ...sizes.flatMap((size, index) => index === 0 ? [describe(size)] : [describe(size), "per table"])],
    steps.map((step) => [
      step,
      ...costs.flatMap((cost, index) => {
        const [base, size] = [sizes[0], sizes[index]];
        if (index === 0 || !first || !base || !size) return [show(cost[step])];
        const times = cost[step].cpuSeconds / first[step].cpuSeconds;
        return [show(cost[step]), `${(times / (of(size) / of(base))).toFixed(2)} ×`];
      }),
    ]),
  );
}

async function compareRows(server: PostgresServer, folder: string, counts: number[]): Promise<string> {
  const lines: string[][] = [];
  let first: { ours: number; plain: number } | undefined;
  for (const rows of counts) {
    await prepareApplication(server, folder, rows);
    await prepareBackfill(server, join(folder, "columns"));
    // Which is of no use any more, and large.
    await dropDatabase(server.port, "before");
    const rates: { ours: number[]; plain: number[] } = { ours: [], plain: [] };
    // All others are compared with the first.
    for (let turn = 1; turn <= (first ? 1 : runs); turn++) {
      for (const kind of ["ours", "plain"] as const) {
        rates[kind].push((await measureBackfill(server, kind)).rate);
        say(`  ${formatCount(rows)} rows, ${kind}: ${formatCount(Math.round(rates[kind].at(-1) ?? NaN))} a second`);
      }
    }
    const [ours, plain] = [median(rates.ours), median(rates.plain)];
    first ??= { ours, plain };
    const against = (value: number, base: number) => [formatCount(Math.round(value)), `${(value / base).toFixed(2)} ×`];
    lines.push([
      formatCount(rows),
      ...against(plain, first.plain),
      ...against(ours, first.ours),
      `${(ours / plain).toFixed(2)} ×`,
    ]);
  }
  return markdown(
    [
      `rows in ${table}, mapped`,
      "one UPDATE, rows per second",
      "against the first",
      "these migrations, rows per second",
      "against the first",
      "ratio",
    ],
    lines,
  );
}

interface Sizes {
  schemas: Size[];
  rows: number[];
}

async function bench({ schemas, rows }: Sizes): Promise<void> {
  console.log(
    `${machine()}, each measured once, the first count of rows ${runs} times. In brackets the server's CPU, which the figures per table ` +
      "compare.\n",
  );
  if (schemas.length > 0) {
    // Autovacuum's work comes when it likes, and counts as the server's.
    await runBench(
      { ...serverSettings, autovacuum: "off" },
      (server, folder) => compareSchemas(server, folder, schemas),
    );
  }
  if (rows.length > 0) await runBench(serverSettings, (server, folder) => compareRows(server, folder, rows));
}

/** The numbers of an option, or an error that says which one is none. */
function readNumbers(name: string, text: string, least: number): number[] {
  if (text === "0") return [];
  return text.split(",").map((part) => {
    const number = Number(part.replaceAll("_", ""));
    if (!Number.isInteger(number) || number < least) {
      throw new Error(`Cannot run the benchmark with --${name} ${part}: not a whole number from ${least}`);
    }
    return number;
  });
}

const { values } = parseArgs({
  options: {
    tables: { type: "string", default: "54,300,1000" },
    rows: { type: "string", default: "1000000,5000000,20000000" },
    partitions: { type: "string", default: "500" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  console.log(
    "npm run bench:scale -- [--tables 54,300,1000] [--rows 1000000,5000000,20000000] [--partitions 500]; 0 leaves a kind out.",
  );
  process.exit();
}
const tables = readNumbers("tables", values.tables, shippedTables).map((count) => ({ tables: count, partitions: 0 }));
const partitions = readNumbers("partitions", values.partitions, 1).map((count) => ({
  tables: shippedTables,
  partitions: count,
}));
await bench({ schemas: [...tables, ...partitions], rows: readNumbers("rows", values.rows, 1000) });
