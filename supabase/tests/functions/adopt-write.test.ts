import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { writeChanges } from "../../cli/adopt-write.ts";

describe("writeChanges", () => {
  let folder: string;
  const path = (name: string) => join(folder, "supabase", name);
  const read = (name: string) => readFileSync(path(name), "utf8");

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "adopt write-"));
    mkdirSync(path("migrations"), { recursive: true });
    writeFileSync(path("config.toml"), "before", { mode: 0o600 });
    writeFileSync(path("migrations/1_a.sql"), "a");
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("writes, replaces and removes, and leaves nothing else behind", () => {
    writeChanges(folder, [
      { path: "supabase/functions/f/index.ts", text: "f" },
      { path: "supabase/config.toml", text: "after" },
      { path: "supabase/migrations/1_a.sql", text: undefined },
      { path: "supabase/migrations/2_a.sql", text: "a" },
    ]);
    expect(read("functions/f/index.ts")).toBe("f");
    expect(read("config.toml")).toBe("after");
    expect(statSync(path("config.toml")).mode & 0o777).toBe(0o600);
    expect(readdirSync(path("migrations"))).toEqual(["2_a.sql"]);
    expect(readdirSync(join(folder, "supabase")).sort()).toEqual(["config.toml", "functions", "migrations"]);
  });

  test("changes nothing where one of the files cannot be written, and says which", () => {
    // A file where a folder is to be.
    writeFileSync(path("tests"), "mine");
    expect(() =>
      writeChanges(folder, [
        { path: "supabase/functions/f/index.ts", text: "f" },
        { path: "supabase/config.toml", text: "after" },
        { path: "supabase/migrations/1_a.sql", text: undefined },
        { path: "supabase/tests/database/x.test.sql", text: "x" },
      ])
    ).toThrow(/^Cannot write supabase\/tests\/database\/x\.test\.sql in ".*adopt write-.*", so nothing was changed: /);
    expect(read("config.toml")).toBe("before");
    expect(read("migrations/1_a.sql")).toBe("a");
    expect(existsSync(path("functions"))).toBe(false);
    expect(readdirSync(join(folder, "supabase")).sort()).toEqual(["config.toml", "migrations", "tests"]);
  });

  test("follows a link, which stays one", () => {
    writeFileSync(join(folder, "shared.toml"), "shared");
    symlinkSync(join(folder, "shared.toml"), path("linked.toml"));
    writeChanges(folder, [{ path: "supabase/linked.toml", text: "after" }]);
    expect(lstatSync(path("linked.toml")).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(folder, "shared.toml"), "utf8")).toBe("after");
  });
});
