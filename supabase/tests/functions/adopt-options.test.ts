import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { hidePassword, readOptions } from "../../cli/adopt-options.ts";

describe("readOptions", () => {
  test("takes a folder relative to where npm was called", () => {
    expect(readOptions(["../my apps/crm"], { INIT_CWD: "/home/me/org-id-migration" })).toEqual({
      help: false,
      folder: "/home/me/my apps/crm",
      dbUrl: undefined,
      dryRun: false,
    });
    expect(readOptions(["crm"], {}).folder).toBe(join(process.cwd(), "crm"));
    expect(readOptions(["/crm", "--dry-run", "--db-url", "postgres://a:b@c/d"], {})).toMatchObject({
      folder: "/crm",
      dbUrl: "postgres://a:b@c/d",
      dryRun: true,
    });
    expect(readOptions(["--help"], {}).help).toBe(true);
  });

  test.each<[string[], string]>([
    [[], "Cannot adopt an application: give its folder"],
    [["my", "apps/crm"], 'Cannot adopt "my" and "apps/crm": give one folder, in quotes'],
    [["crm", "--db-url", "localhost"], 'Cannot parse --db-url "localhost": not a URL'],
    [["crm", "--db-url", "https://ref.supabase.co"], "neither postgresql:// nor postgres://"],
    [["crm", "--db"], "Unknown option '--db'"],
    [["crm", "--dry-run=yes"], "Option '--dry-run' does not take an argument"],
  ])("refuses %j", (parameters, message) => expect(() => readOptions(parameters, {})).toThrow(message));

  test.each(["postgresql://me:se#cret@host:x/db", "postgresql://me:se@cret@host:5432:1/db"])(
    "shows no password of %s",
    (url) => {
      expect(() => readOptions(["crm", "--db-url", url], {})).toThrow(/^(?!.*cret)Cannot parse --db-url/s);
      expect(hidePassword(url)).not.toContain("cret");
      expect(hidePassword(url)).toContain("host");
    },
  );
});
