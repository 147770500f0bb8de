import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bannerOf, preparePage } from "../../cli/report-output.ts";

const folder = mkdtempSync(join(tmpdir(), "report-"));
afterAll(() => rmSync(folder, { recursive: true }));

const npm = {
  npm_lifecycle_event: "report",
  npm_lifecycle_script: "node --import tsx supabase/cli/report.ts",
  npm_package_name: "app",
  npm_package_version: "0.1.0",
};
const banner = bannerOf(npm) ?? "";
const written = `${banner} --db-url postgresql://postgres:***@h/d\n\n`;

describe("standard output of the report", () => {
  const file = (name: string, flags: string, content: string) => {
    const path = join(folder, name);
    const descriptor = openSync(path, flags);
    writeSync(descriptor, content);
    return { path, descriptor };
  };

  test("knows what npm writes, and when it writes nothing", () => {
    expect(banner).toBe("\n> app@0.1.0 report\n> node --import tsx supabase/cli/report.ts");
    expect(bannerOf({ ...npm, npm_config_loglevel: "silent" })).toBeUndefined();
    expect(bannerOf({})).toBeUndefined();
  });

  test.each([["w", written], ["a", written], ["w", ""]])(
    "is the page and nothing else in a file opened by %s that has %j",
    (flags, content) => {
      const { path, descriptor } = file(`page-${flags}-${content.length}`, flags, content);
      const page = preparePage(descriptor, { isTerminal: false, banner });
      expect(readFileSync(path, "utf8")).toBe("");
      page.write("<!doctype html>é");
      closeSync(descriptor);
      expect(readFileSync(path, "utf8")).toBe("<!doctype html>é");
    },
  );

  test.each([
    ["text of somebody's", banner],
    [`text of somebody's${written}`, banner],
    ["text of somebody's", undefined],
  ])("leaves a file alone that has %j", (content, expected) => {
    const { path, descriptor } = file("other", "w", content);
    expect(() => preparePage(descriptor, { isTerminal: false, banner: expected })).toThrow(
      "there is something in the file already",
    );
    closeSync(descriptor);
    expect(readFileSync(path, "utf8")).toBe(content);
  });

  test("is neither a terminal nor a pipe into which npm has written", () => {
    const descriptor = openSync("/dev/null", "w");
    expect(() => preparePage(descriptor, { isTerminal: true, banner: undefined })).toThrow("add > report.html");
    expect(() => preparePage(descriptor, { isTerminal: false, banner })).toThrow("npm run --silent report");
    expect(() => preparePage(descriptor, { isTerminal: false, banner: undefined }).write("page")).not.toThrow();
    closeSync(descriptor);
  });
});
