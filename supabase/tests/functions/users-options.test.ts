import { describe, expect, test } from "vitest";
import { readOptions } from "../../cli/users-options.ts";

const runId = "6f000000-0000-4000-8000-000000000001";
const key = "sb_secret_test";

describe("readOptions", () => {
  const environment = { SUPABASE_URL: "https://ref.supabase.co/", SUPABASE_SECRET_KEY: `${key}\n` };

  test("takes address and key from the environment, and sends nothing that was not given", () => {
    expect(readOptions([], environment)).toMatchObject({ url: "https://ref.supabase.co", key, fields: {} });
    expect(readOptions(["--url", "http://127.0.0.1:54321"], {})).toMatchObject({
      url: "http://127.0.0.1:54321",
      key: undefined,
    });
  });

  test.each(["http://127.0.0.1:54321", "http://127.1.2.3", "http://localhost:54321", "http://[::1]:54321"])(
    "sends a key unencrypted to %s, which is this machine",
    (url) => expect(readOptions(["--url", url], environment)).toMatchObject({ url, key }),
  );

  test("makes the function's fields of all options", () => {
    const parameters = [
      "--org-id",
      runId,
      "--on-conflict",
      "overwrite",
      "--move-to-default",
      "--concurrency",
      "20",
      "--max-seconds",
      "1",
    ];
    expect(readOptions([...parameters, "--dry-run"], environment).fields).toEqual({
      org_id: runId,
      on_conflict: "overwrite",
      move_to_default: true,
      concurrency: 20,
      max_seconds: 1,
      dry_run: true,
    });
    expect(readOptions(["--sql"], environment).fields).toEqual({ mode: "sql" });
    expect(readOptions(["--sql", "--revert", runId], environment).fields).toEqual({ mode: "sql", run_id: runId });
    expect(readOptions(["--anonymous", "exclude"], environment).fields).toEqual({ anonymous: "exclude" });
    expect(readOptions(["--revert", runId, "--report", "a.csv"], environment)).toMatchObject({
      fields: { mode: "revert", run_id: runId, report: true },
      report: "a.csv",
    });
  });

  test.each<[string[], string]>([
    [["--org-id", "acme"], 'Cannot parse --org-id "acme": not a UUID'],
    [["--revert", "last"], 'Cannot parse --revert "last": not a UUID'],
    [["--on-conflict", "ask"], 'Cannot parse --on-conflict "ask": neither keep nor overwrite'],
    [["--concurrency", "21"], 'Cannot parse --concurrency "21": not a whole number from 1 to 20'],
    [["--concurrency", "1.5"], 'Cannot parse --concurrency "1.5": not a whole number from 1 to 20'],
    [["--max-seconds", "0"], 'Cannot parse --max-seconds "0": not a whole number from 1 to 130'],
    [["--revert", runId, "--org-id", runId], "Cannot use --org-id with --revert"],
    [["--revert", runId, "--on-conflict", "keep"], "Cannot use --on-conflict with --revert"],
    [["--revert", runId, "--move-to-default"], "Cannot use --move-to-default with --revert"],
    [["--move-to-default"], "Cannot use --move-to-default without --on-conflict overwrite"],
    [["--move-to-default", "--on-conflict", "keep"], "Cannot use --move-to-default without --on-conflict overwrite"],
    [["--anonymous", "no"], 'Cannot parse --anonymous "no": neither include, only nor exclude'],
    [["--revert", runId, "--anonymous", "only"], "Cannot use --anonymous with --revert"],
    [["--sql", "--concurrency", "5"], "Cannot use --concurrency with --sql"],
    [["--report", "a.csv", "--dry-run"], "a dry run counts the users and names none"],
    [["--url", "ref"], 'Cannot use --url "ref": not a URL such as https://ref.supabase.co'],
    [["--url", "ftp://ref"], "neither https:// nor http://"],
    [["--url", "http://ref.supabase.co"], "http:// would send the key unencrypted; use https://"],
    [["--url", "http://127.0.0.1.example.com"], "http:// would send the key unencrypted"],
    [["--url", "http://192.168.0.2:54321"], "http:// would send the key unencrypted"],
    [["--url", "http://0.0.0.0:54321"], "http:// would send the key unencrypted"],
    [["--url", "https://ref.supabase.co/functions/v1/x"], "which has no path: https://ref.supabase.co"],
    [["--url", "https://u:p@ref.supabase.co"], "it has a user or a password in front of ref.supabase.co"],
    [["--key", "two words"], "it has spaces or characters that no key has"],
    [["--key", ""], "it is empty"],
    [["--frob"], "Unknown option '--frob'"],
    [["now"], "Unexpected argument 'now'"],
  ])("refuses %j", (parameters, rule) => {
    expect(() => readOptions(parameters, environment)).toThrow(rule);
  });

  test("refuses to guess the address", () => {
    expect(() => readOptions([], { SUPABASE_URL: "" })).toThrow("give --url, or set SUPABASE_URL");
  });
});
