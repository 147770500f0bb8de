import { describe, expect, test } from "vitest";
import { placeOf, secretsOf } from "../../cli/database-url.ts";
import { readOptions } from "../../cli/report-options.ts";

const url = "postgresql://postgres:p%40ss@db.example.com:5432/postgres";

describe("readOptions of the report", () => {
  test("takes the database from the option, else from the environment", () => {
    const environment = { SUPABASE_DB_URL: `${url}\n` };
    expect(readOptions([], environment)).toEqual({ help: false, url, preflight: undefined, skipRows: false });
    expect(readOptions(["--db-url", "postgres://h/d", "--preflight", "p.sql", "--skip-rows"], environment)).toEqual({
      help: false,
      url: "postgres://h/d",
      preflight: "p.sql",
      skipRows: true,
    });
    expect(readOptions(["--help"], {}).help).toBe(true);
  });

  test.each<[string[], string]>([
    [[], "give --db-url, or set SUPABASE_DB_URL"],
    [["--db-url", ""], "give --db-url, or set SUPABASE_DB_URL"],
    [["--db-url", "https://postgres:hunter2@h/d"], "Cannot use --db-url: it is no connection string"],
    [["--db-url", "postgresql:hunter2"], "Cannot use --db-url: it is no connection string"],
    [["--db-url", "postgresql://postgres:hunter2@h:port/d"], "Cannot use --db-url: it is no connection string"],
    [["--db-url", url, "--preflight", ""], 'Cannot read --preflight "": not the name of a file'],
    [["--frob"], "Unknown option '--frob'"],
    [["now"], "Unexpected argument 'now'"],
  ])("refuses %j without repeating a password", (parameters, rule) => {
    let message = "";
    try {
      readOptions(parameters, {});
    } catch (error) {
      ({ message } = error as Error);
    }
    expect(message).toContain(rule);
    expect(message).not.toContain("hunter2");
  });
});

describe("a connection string", () => {
  test("has a password, which is a secret as it is written and as it is meant", () => {
    expect(secretsOf(url)).toEqual(["p%40ss", "p@ss"]);
    expect(secretsOf("postgres://h/d?password=q")).toEqual(["q"]);
    expect(secretsOf("postgres://h/d")).toEqual([]);
    expect(secretsOf("postgres://u:100%@h/d")).toEqual(["100%"]);
  });

  test("says where the database is without user and password", () => {
    expect(placeOf(url)).toEqual({ host: "db.example.com:5432", database: "postgres" });
  });
});
