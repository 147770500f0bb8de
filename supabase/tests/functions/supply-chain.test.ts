import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { root } from "../../local/project.ts";

interface LockedPackage {
  version: string;
  integrity?: string;
}

const readJson = (file: string): unknown => JSON.parse(readFileSync(join(root, file), "utf8"));

/** Packages of other platforms that the registry had not where package-lock.json was made: npm installs them unchecked. */
const unchecked = [
  ...["darwin-arm64", "darwin-x64", "linux-arm64-glibc", "win32-arm64", "win32-x64"].map((name) => `@deno/${name}`),
  ...["darwin-arm64", "darwin-x64", "linux-arm64", "win32-x64"].map((name) => `@squawk-cli/${name}`),
  ...["darwin-arm64", "darwin-x64", "linux-arm64", "linux-arm64-musl", "linux-x64-musl"].map((name) =>
    `@supabase/cli-${name}`
  ),
  ...["windows-arm64", "windows-x64"].map((name) => `@supabase/cli-${name}`),
];

test("package-lock.json has the integrity of every package, except those that are known to lack it", () => {
  const { packages } = readJson("package-lock.json") as { packages: Record<string, LockedPackage> };
  const lacking = Object.entries(packages).flatMap(([path, { integrity }]) =>
    path !== "" && !integrity?.startsWith("sha512-") ? [path.replace(/^node_modules\//, "")] : []
  );
  expect(lacking.sort()).toEqual(unchecked.sort());
});

test("every action of a workflow is pinned by its commit", () => {
  const folder = join(root, ".github/workflows");
  const uses = readdirSync(folder).flatMap((file) =>
    [...readFileSync(join(folder, file), "utf8").matchAll(/^[\s-]*uses: *(\S+)/gm)].map(([, action]) => action)
  );
  expect(uses.length).toBeGreaterThan(0);
  expect(uses.filter((action) => !/@[0-9a-f]{40}$/.test(action ?? ""))).toEqual([]);
});

describe("the function's deno.lock", () => {
  const locked = readJson("supabase/functions/update-user-org-metadata/deno.lock") as {
    specifiers: Record<string, string>;
    npm: Record<string, { integrity: string; dependencies?: string[] }>;
  };

  test("is for what deno.json imports", () => {
    const { imports } = readJson("supabase/functions/update-user-org-metadata/deno.json") as {
      imports: Record<string, string>;
    };
    const targets = Object.values(imports).map((target) => target.replace(/(?<=@[\d.]+)\/.*$/, ""));
    expect(Object.keys(locked.specifiers).sort()).toEqual(targets.sort());
  });

  test("has the packages that package-lock.json has, by their integrity, with all that they depend on", () => {
    const { packages } = readJson("package-lock.json") as { packages: Record<string, LockedPackage> };
    const found = Object.entries(locked.npm).map(([key, { integrity, dependencies = [] }]) => {
      const [, name = "", version] = /^(@?[^@]+)@([^_]+)/.exec(key) ?? [];
      return { name, version, integrity, dependencies };
    });
    expect(found.length).toBeGreaterThan(0);
    expect(found.map(({ name, version, integrity }) => ({ name, version, integrity }))).toEqual(
      found.map(({ name }) => {
        const { version, integrity } = packages[`node_modules/${name}`] ?? {};
        return { name, version, integrity };
      }),
    );
    const names = found.map(({ name }) => name);
    expect(found.flatMap(({ dependencies }) => dependencies).filter((name) => !names.includes(name))).toEqual([]);
  });
});
