import { parse } from "smol-toml";
import { describe, expect, test } from "vitest";
import { addFunction, parseConfig } from "../../cli/adopt-config.ts";

const add = (text: string) => addFunction("supabase/config.toml", text);
const functionsOf = (text: string) => (parse(text) as { functions: Record<string, unknown> }).functions;
const name = "update-user-org-metadata";

describe("addFunction", () => {
  test("adds the entry, and leaves all else as it is, comments included", () => {
    const own = '# ours\nproject_id = "crm" # and this\n\n[functions.mail]\nverify_jwt = true\n';
    expect(add(own)).toBe(`${own}\n[functions.${name}]\nverify_jwt = false\n`);
    expect(functionsOf(add(own))).toEqual({ mail: { verify_jwt: true }, [name]: { verify_jwt: false } });
  });

  test("adds it to a file that does not end its last line, and with the line ends of Windows", () => {
    expect(add("[api]\nport = 1")).toBe(`[api]\nport = 1\n\n[functions.${name}]\nverify_jwt = false\n`);
    expect(add("[api]\r\nport = 1\r\n")).toBe(
      `[api]\r\nport = 1\r\n\r\n[functions.${name}]\r\nverify_jwt = false\r\n`,
    );
  });

  test.each([
    `[functions.${name}]\nverify_jwt = false\n`,
    `functions.${name}.verify_jwt = false\n`,
    `[functions]\n"${name}" = { verify_jwt = false, enabled = true }\n`,
  ])("leaves an entry that is there: %s", (own) => expect(add(own)).toBe(own));

  test.each([
    [`[functions.${name}]\nverify_jwt = true\n`, "has verify_jwt true"],
    [`[functions.${name}]\nenabled = true\n`, 'has verify_jwt "unset"'],
    ["functions = { mail = { verify_jwt = true } }\n", "cannot be added to at its end; add it by hand"],
    ["[api]\nport = \n", "Cannot read supabase/config.toml: it is no TOML"],
  ])("refuses %s", (own, rule) => expect(() => add(own)).toThrow(rule));
});

test("parseConfig takes dates and nested tables as they are", () => {
  expect(parseConfig("config.toml", "[db]\nport = 55322\nsince = 2024-01-01\n").db?.port).toBe(55322);
});

test("parseConfig names a section at which the Supabase CLI ends, and takes it under its new name", () => {
  const sections = (name: string) => `[db]\nport = 55322\n\n[${name}]\nenabled = true\nport = 54324\n`;
  expect(() => parseConfig("config.toml", sections("inbucket"))).toThrow(/config\.toml: .* \[local_smtp\] now/);
  expect(parseConfig("config.toml", sections("local_smtp")).db?.port).toBe(55322);
});
