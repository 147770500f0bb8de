import { join } from "node:path";
import { beforeAll, describe, expect, inject, test } from "vitest";
import { root } from "../../local/project.ts";
import { createDatabase } from "../../local/databases.ts";
import { findPgtapFiles, runPgtapFile } from "../run-pgtap.ts";

const folder = join(root, "supabase/tests/database");

describe("the migrated database", () => {
  let url: string;

  beforeAll(async () => {
    url = await createDatabase(inject("databasePort"), "pgtap", "migrated");
  });

  test.each(findPgtapFiles(folder))("%s", async (name) => {
    const { passed, failures } = await runPgtapFile(url, join(folder, name));
    expect(failures).toEqual([]);
    expect(passed).toBeGreaterThan(0);
  });
});
