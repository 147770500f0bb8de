import { describe, expect, test } from "vitest";
import { readOptions } from "../../cli/export-options.ts";

const url = "postgresql://postgres:hunter2@db.example.com:5432/postgres";
const org = "b0000000-0000-4000-8000-000000000001";
const environment = { SUPABASE_DB_URL: url };

describe("readOptions of the export", () => {
  test("takes an organization and a folder, or a folder to load", () => {
    expect(readOptions(["--org", org.toUpperCase(), "--out", "folder"], environment)).toEqual({
      do: "export",
      url,
      org,
      folder: "folder",
      withUsers: false,
    });
    expect(readOptions(["--load", "folder", "--db-url", "postgres://h/d", "--without", "a.b"], environment)).toEqual({
      do: "load",
      url: "postgres://h/d",
      folder: "folder",
      without: ["a.b"],
    });
    expect(readOptions(["--help"], {})).toEqual({ do: "help" });
  });

  test.each<[string[], string]>([
    [["--org", org], "Cannot export: give --out"],
    [["--out", "folder"], 'Cannot use --org "": not the id of an organization'],
    [["--org", "north", "--out", "folder"], 'Cannot use --org "north": not the id of an organization'],
    [["--load", ""], 'Cannot read --load ""'],
    [["--load", "folder", "--org", org], "Cannot use --load with --org, --out or --with-users"],
    [["--load", "folder", "--with-users"], "Cannot use --load with --org, --out or --with-users"],
    [["--org", org, "--out", "folder", "--without", "a.b"], "Cannot use --without: it is for --load"],
    [["--frob"], "Unknown option '--frob'"],
    [["--db-url", "https://postgres:hunter2@h/d"], "Cannot use --db-url: it is no connection string"],
  ])("refuses %j without repeating a password", (parameters, rule) => {
    let message = "";
    try {
      readOptions(parameters, environment);
    } catch (error) {
      ({ message } = error as Error);
    }
    expect(message).toContain(rule);
    expect(message).not.toContain("hunter2");
  });
});
