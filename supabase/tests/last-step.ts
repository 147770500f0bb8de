import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Sql } from "postgres";
import { inject } from "vitest";
import { root } from "../local/project.ts";

/** The migration of the last step, as the documentation has it. */
export const lastStep = readFileSync(join(root, "docs/last-step.sql"), "utf8");

/** The same, of an owner who knows what still inserts without org_id. */
export const lastStepDespiteFindings = lastStep.replaceAll("despite_findings => false", "despite_findings => true");

/** Takes the last step as its migration does: each statement by itself, since it commits on the way. */
export async function takeLastStep(sql: Sql): Promise<void> {
  const connection = await sql.reserve();
  try {
    for (const statement of lastStepDespiteFindings.split(/;\n(?=\n|set )/)) await connection.unsafe(statement);
    await connection.unsafe("reset all");
  } finally {
    connection.release();
  }
}

/** Takes it where the tests are to run after it: in the project finished. */
export async function finishWhereAsked(sql: Sql): Promise<void> {
  if (inject("finished")) await takeLastStep(sql);
}
