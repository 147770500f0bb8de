import { describe, expect, test } from "vitest";
import { findTarget, isRemote, refuseFolder } from "../../cli/push-target.ts";

const ref = "abcdefghijklmnopqrst";
const pooler = `postgresql://postgres.${ref}:[YOUR-PASSWORD]@aws-0-eu-central-1.pooler.supabase.com:6543/postgres`;

describe("findTarget", () => {
  const find = (
    parameters: string[],
    given: { files?: Record<string, string>; environment?: Record<string, string> } = {},
  ) =>
    findTarget(parameters, {
      folder: "/project",
      environment: given.environment ?? {},
      read: (file) => given.files?.[file],
      exists: () => true,
    });
  const linked = { "/project/supabase/.temp/project-ref": `${ref}\n` };

  test.each<[string, string[], Parameters<typeof find>[1], string]>([
    ["the local database", [], {}, "postgresql://postgres:postgres@127.0.0.1:54322/postgres"],
    [
      "the local database at the port of config.toml",
      ["--local"],
      { files: { "/project/supabase/config.toml": "[db]\nport = 5555\n" } },
      "postgresql://postgres:postgres@127.0.0.1:5555/postgres",
    ],
    [
      "that of another folder",
      ["--workdir", "/other"],
      { files: { "/other/supabase/config.toml": "[db]\nport = 5556\n" } },
      "postgresql://postgres:postgres@127.0.0.1:5556/postgres",
    ],
    ["an address", ["--remote=postgresql://a:b@c:1/d", "--yes"], {}, "postgresql://a:b@c:1/d"],
    ["an address, as it was given before", ["--db-url", "postgresql://a:b@c:1/d"], {}, "postgresql://a:b@c:1/d"],
    [
      "the linked project, with the password of the environment",
      ["--remote"],
      { files: linked, environment: { SUPABASE_DB_PASSWORD: "p@ss%1" } },
      `postgresql://postgres:p%40ss%251@db.${ref}.supabase.co:5432/postgres`,
    ],
    [
      "the linked project by its pooler, in session mode",
      ["--linked", "-p", "secret"],
      { files: { ...linked, "/project/supabase/.temp/pooler-url": pooler } },
      `postgresql://postgres.${ref}:secret@aws-0-eu-central-1.pooler.supabase.com:5432/postgres`,
    ],
    [
      "another project than the linked one, without its pooler",
      [`--remote=${"z".repeat(20)}`, "--password=secret"],
      { files: { ...linked, "/project/supabase/.temp/pooler-url": pooler } },
      `postgresql://postgres:secret@db.${"z".repeat(20)}.supabase.co:5432/postgres`,
    ],
  ])("finds %s", (_what, parameters, given, url) => {
    expect(find(parameters, given)).toEqual({ url });
  });

  test.each<[string, string[], Parameters<typeof find>[1], string]>([
    ["no password", ["--remote"], { files: linked }, "SUPABASE_DB_PASSWORD"],
    ["no project", ["--remote"], { environment: { SUPABASE_DB_PASSWORD: "secret" } }, "no project is linked"],
    ["a branch by its name", ["--remote=feature-1"], { files: linked }, "--remote='postgresql://…'"],
  ])("says what is missing: %s", (_what, parameters, given, why) => {
    expect(find(parameters, given)).toEqual({ why: expect.stringContaining(why) as string });
  });
});

test.each<[string[], boolean]>([[[], false], [["--local"], false], [["--remote"], true], [["--remote=x"], true]])(
  "isRemote(%j) is %s",
  (parameters, remote) => {
    expect(isRemote(parameters)).toBe(remote);
  },
);

describe("refuseFolder", () => {
  const refuse = (parameters: string[], there: string[], environment = {}) =>
    refuseFolder(parameters, {
      folder: "/project",
      environment,
      read: () => undefined,
      exists: (path) => there.includes(path),
    });

  test.each<[string, string[], string[], Record<string, string>, string | undefined]>([
    ["a folder that is not there", ["--workdir", "app"], [], {}, '"app": there is no such folder'],
    ["one without supabase", ["--workdir=app"], ["/project/app"], {}, '"app": it has no folder supabase'],
    ["one of the environment", [], [], { SUPABASE_WORKDIR: "/app" }, '"/app": there is no such folder'],
    ["a project's, which goes through", ["--workdir", "app"], ["/project/app", "/project/app/supabase"], {}, undefined],
    ["none, which the CLI looks for itself", [], [], {}, undefined],
  ])("%s", (_what, parameters, there, environment, refused) => {
    expect(refuse(parameters, there, environment)).toBe(refused);
  });
});
