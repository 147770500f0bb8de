import { mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, inject, test } from "vitest";
import { cloneDatabase } from "../databases.ts";
import { chooseSeed } from "../random.ts";
import { drawSchema } from "./draws.ts";
import { allFeatures, allObstacles, type Draw, generateSchema, type RandomSchema } from "./generate.ts";
import { testPush } from "./push.ts";

const seed = chooseSeed("random schemas");
const major = inject("major");
const only = process.env["TEST_SCHEMA"];
/** How far a schema that fails is to be shrunk at once, as an earlier run printed it. */
const path = process.env["TEST_PATH"];
/** Enough for each feature and each obstacle to have its turn. */
const all = "0-239";
/** Which schemas are tried, first and last. */
const range = only === undefined ? process.env["TEST_SCHEMAS"] ?? all : `${only}-${only}`;
const [first = 0, last = first] = range.split("-").map(Number);
const numbers = Array.from({ length: last - first + 1 }, (_, place) => first + place);
/** How many smaller schemas are tried, some seconds each, before the smallest that failed is reported. */
const mostShrinks = Number(process.env["TEST_SHRINKS"] ?? 40);

/** What became of the schemas. */
const outcome = {
  migrated: 0,
  rolledBack: 0,
  inPasses: 0,
  refused: new Map<string, number>(),
  features: new Set<string>(),
};

/** Makes the schema of a draw in a database of its own, pushes, and counts what became of it. */
async function tryDraw(number: number, draw: Draw): Promise<void> {
  const schema = generateSchema(draw);
  const database = await cloneDatabase(`schema_${number}`, "postgres");
  try {
    const { result, inPasses } = await testPush(number, schema, database);
    if (result === "refused") {
      const kind = draw.obstacle as string;
      outcome.refused.set(kind, (outcome.refused.get(kind) ?? 0) + 1);
      return;
    }
    outcome.migrated++;
    if (result === "rolled back") outcome.rolledBack++;
    outcome.inPasses += inPasses;
    for (const feature of schema.features) outcome.features.add(feature);
  } finally {
    await database.drop();
  }
}

/** Writes the schema to a file, for a reader. Returns where. */
function write(number: number, { script, list, mapping, indexLines }: RandomSchema): string {
  const folder = join(tmpdir(), "random-schemas");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${seed}-${number}.sql`);
  writeFileSync(file, [script, "/*", list.join(",\n"), mapping.statements, indexLines, "*/"].join("\n\n"));
  return file;
}

/** Says what is left of the draw that failed first, and how to repeat it. */
function describeFailure(number: number, details: fc.RunDetailsFailureProperty<[Draw]>, original: Draw): string {
  const [draw] = details.counterexample;
  const list = ({ features }: Draw) => features.join(", ") || "none";
  return [
    `schema ${number}, to be ${draw.obstacle === undefined ? "migrated" : `refused for ${draw.obstacle}`}, fails`,
    `with the features: ${list(draw)} (${draw.tables} tables)`,
    `shrunk ${details.numShrinks} times from: ${list(original)} (${original.tables} tables)`,
    `again: TEST_SEED=${seed} TEST_SCHEMA=${number} TEST_PATH=${details.counterexamplePath} npm run test:schemas`,
    `as SQL: ${write(number, generateSchema(draw))}`,
    String((details.errorInstance as Error | null)?.message),
  ].join("\n");
}

/** Tries what is drawn for this number. When that fails, tries it with less and less. */
async function testSchema(number: number): Promise<void> {
  let original: Draw | undefined;
  let tries = 0;
  const property = fc.asyncProperty(drawSchema(seed, number, major), async (draw) => {
    original ??= draw;
    if (tries++ <= mostShrinks) await tryDraw(number, draw);
  });
  const details = await fc.check(property, {
    seed: seed + number,
    numRuns: 1,
    ...(path === undefined ? {} : { path, endOnFailure: true }),
  });
  if (!details.failed) return;
  const message = describeFailure(number, details as fc.RunDetailsFailureProperty<[Draw]>, original as Draw);
  throw new Error(message, { cause: details.errorInstance });
}

describe.concurrent("a schema that nobody has thought of is migrated whole, or refused and left as it was", () => {
  // Long enough for a schema that fails to be shrunk.
  test.for(numbers)("schema %i", { timeout: 1_200_000 }, testSchema);
});

describe.skipIf(range !== all)("in all the schemas of a run", () => {
  test("there was every feature, and every obstacle", () => {
    expect(allFeatures(major).filter((feature) => !outcome.features.has(feature))).toEqual([]);
    expect(allObstacles(major).filter((obstacle) => !outcome.refused.has(obstacle))).toEqual([]);
    expect(outcome.rolledBack, "undone").toBeGreaterThan(outcome.migrated / 5);
    expect(outcome.inPasses, "tables that were gone through in passes").toBeGreaterThan(0);
  });
});

afterAll(() => {
  const refused = [...outcome.refused].map(([kind, times]) => `${kind} (${times})`);
  console.log(
    `random schemas, PostgreSQL ${major}: ${outcome.migrated} migrated with ${outcome.features.size} of ` +
      `${
        allFeatures(major).length
      } features, ${outcome.rolledBack} of them rolled back, ${outcome.inPasses} tables in passes; ` +
      `refused for ${refused.length} of ${allObstacles(major).length} obstacles: ${refused.join(", ")}`,
  );
});
