import { describe, expect, test } from "vitest";
import { nextVersions, readMigrations, versionOf, withoutVersion } from "../../cli/adopt-migrations.ts";

const now = new Date("2026-11-26T23:59:58.500Z");

describe("nextVersions", () => {
  test("are now and a second apart", () => {
    expect(nextVersions("20240918080000", 3, now)).toEqual(["20261126235958", "20261126235959", "20261127000000"]);
    expect(nextVersions("0001", 1, now)).toEqual(["20261126235958"]);
  });

  test.each([
    ["20261126235958", ["20261126235959", "20261126235960"]],
    ["20300101000059", ["20300101000060", "20300101000061"]],
    ["99991231999999", ["99991232000000", "99991232000001"]],
    ["99999", ["999990001", "999990002"]],
  ])("come after %s, which is later than now", (newest, versions) => {
    expect(nextVersions(newest, 2, now)).toEqual(versions);
    expect([newest, ...versions].toSorted()).toEqual([newest, ...versions]);
  });
});

describe("readMigrations", () => {
  const names = readMigrations().map(({ name }) => name);

  test("are those of this project in order, without the shipped application", () => {
    expect(names[0]).toBe("create_organizations.sql");
    expect(names.at(-1)).toBe("verify_org_id_migration.sql");
    expect(names).not.toContain("user_based_application.sql");
    expect(new Set(names).size).toBe(names.length);
  });

  test("are told apart by what follows the version", () => {
    expect(versionOf("20250110000100_tenancy_01_foundation.sql")).toBe("20250110000100");
    expect(withoutVersion("20250110000100_tenancy_01_foundation.sql")).toBe("tenancy_01_foundation.sql");
  });
});
