import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readConfig } from "../../functions/update-user-org-metadata/config.ts";
import { createLog } from "../../functions/update-user-org-metadata/log.ts";
import { root } from "../../local/project.ts";

const complete = {
  SUPABASE_URL: "http://127.0.0.1:54321",
  SUPABASE_DB_URL: "postgresql://postgres@127.0.0.1/postgres",
  SUPABASE_SECRET_KEYS: '{"default": "sb_secret_a", "jobs": "sb_secret_b"}',
  SUPABASE_SERVICE_ROLE_KEY: "legacy",
};

const readJson = (file: string): unknown => JSON.parse(readFileSync(join(root, file), "utf8"));

describe("readConfig", () => {
  test("accepts every secret key and not the legacy key beside them, and calls the Auth server with the default one", () => {
    expect(readConfig(complete)).toEqual({
      supabaseUrl: "http://127.0.0.1:54321",
      databaseUrl: "postgresql://postgres@127.0.0.1/postgres",
      acceptedKeys: { default: "sb_secret_a", jobs: "sb_secret_b" },
      adminKey: "sb_secret_a",
    });
  });

  test("takes the first secret key where none is named default", () => {
    expect(readConfig({ ...complete, SUPABASE_SECRET_KEYS: '{"jobs": "sb_secret_b"}' }).adminKey).toBe("sb_secret_b");
  });

  test.each([undefined, "", "{}", '{"default": ""}'])(
    "works with the legacy key alone, with SUPABASE_SECRET_KEYS %s",
    (keys) => {
      const config = readConfig({ ...complete, SUPABASE_SECRET_KEYS: keys });
      expect(config.acceptedKeys).toEqual({ service_role: "legacy" });
      expect(config.adminKey).toBe("legacy");
    },
  );

  test("takes the secret key that is named service_role, and not the legacy key of that name", () => {
    const config = readConfig({ ...complete, SUPABASE_SECRET_KEYS: '{"service_role": "sb_secret_c"}' });
    expect(config.acceptedKeys).toEqual({ service_role: "sb_secret_c" });
    expect(config.adminKey).toBe("sb_secret_c");
  });

  test("never accepts an empty key", () => {
    expect(readConfig({ ...complete, SUPABASE_SECRET_KEYS: '{"default": "", "jobs": "b"}' }).acceptedKeys).toEqual({
      jobs: "b",
    });
  });

  test("names everything that is missing in one error", () => {
    expect(() => readConfig({})).toThrow(
      "Cannot start: SUPABASE_URL is not set; SUPABASE_DB_URL is not set; " +
        "neither SUPABASE_SECRET_KEYS nor SUPABASE_SERVICE_ROLE_KEY has a key",
    );
  });

  test.each(["sb_secret_a", '["sb_secret_a"]', '{"default": 1}', "null"])(
    "refuses SUPABASE_SECRET_KEYS %s without repeating it",
    (keys) => {
      expect(() => readConfig({ ...complete, SUPABASE_SECRET_KEYS: keys })).toThrow(
        "Cannot start: SUPABASE_SECRET_KEYS is not a JSON object of names and keys",
      );
    },
  );
});

describe("the function's deno.json", () => {
  test("pins the versions that package.json installs", () => {
    const read = (file: string) => readJson(file) as Record<string, Record<string, string>>;
    const { devDependencies = {} } = read("package.json");
    const { imports = {} } = read("supabase/functions/update-user-org-metadata/deno.json");
    expect(Object.keys(imports)).not.toEqual([]);
    for (const target of Object.values(imports)) {
      const [, name = "", version] = /^npm:(@?[^@]+)@(\d+\.\d+\.\d+)(\/.*)?$/.exec(target) ?? [];
      expect(devDependencies[name], target).toBe(version);
    }
  });
});

describe("createLog", () => {
  test("writes one JSON object per line", () => {
    const lines: string[] = [];
    createLog((line) => lines.push(line))("info", "run_started", { run_id: "1" });
    expect(lines).toEqual(['{"level":"info","event":"run_started","run_id":"1"}']);
  });
});
