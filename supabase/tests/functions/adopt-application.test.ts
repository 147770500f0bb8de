import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { laterThanList, newestOwn, readApplication } from "../../cli/adopt-application.ts";
import { readMigrations } from "../../cli/adopt-migrations.ts";
import { root } from "../../local/project.ts";

describe("readApplication", () => {
  let folder: string;
  const migration = (name: string) => join(folder, "supabase/migrations", name);
  const own = ["20230915100000_leads_and_deals.sql", "20240518090000_organizations_and_projects.sql"];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "my app-"));
    mkdirSync(join(folder, "supabase/migrations"), { recursive: true });
    writeFileSync(join(folder, "supabase/config.toml"), "[db]\nport = 55322\nmajor_version = 15\n");
    for (const name of own) writeFileSync(migration(name), "select 1;");
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** Gives the application our migrations, from this version on. */
  function addOurs(version: number): void {
    for (const [number, { name, text }] of readMigrations().entries()) {
      writeFileSync(migration(`${version + number}_${name}`), text);
    }
  }

  test("finds what it has", () => {
    expect(readApplication(folder)).toMatchObject({ folder, dbPort: 55322, major: 15, own, adopted: undefined });
    writeFileSync(join(folder, "supabase/config.toml"), "");
    writeFileSync(migration("README.md"), "not one");
    expect(readApplication(folder)).toMatchObject({ dbPort: 54322, major: 17, own });
  });

  test("tells its own migrations from ours, also one of the same name", () => {
    writeFileSync(migration("20240601000000_create_organizations.sql"), "create table public.organizations ();");
    expect(readApplication(folder).adopted).toBeUndefined();
    addOurs(20250110000000);
    writeFileSync(migration("20250801000000_invoices.sql"), "select 1;");
    const application = readApplication(folder);
    expect(application.own).toEqual([...own, "20240601000000_create_organizations.sql", "20250801000000_invoices.sql"]);
    expect(application.adopted?.get("create_organizations.sql")).toBe("20250110000000_create_organizations.sql");
    expect(laterThanList(application)).toEqual(["20250801000000_invoices.sql"]);
    expect(newestOwn(application)).toBe("20250801000000");
  });

  test("takes the two files that are edited, and line ends that Git has changed, for ours", () => {
    addOurs(20250110000000);
    for (const name of readdirSync(join(folder, "supabase/migrations"))) {
      if (name.includes("EDIT")) writeFileSync(migration(name), "edited");
      if (name.includes("tenancy_05")) {
        const text = readMigrations().find((ours) => name.endsWith(ours.name))?.text ?? "";
        writeFileSync(migration(name), text.replaceAll("\n", "\r\n"));
      }
    }
    expect(readApplication(folder).adopted?.size).toBe(readMigrations().length);
  });

  test("takes the file of the organizations with something at its end for ours, and not with something in it", () => {
    addOurs(20250110000000);
    const file = find(folder, "create_organizations");
    const text = readFileSync(file, "utf8");
    writeFileSync(
      file,
      `${text}\ninsert into public.organizations (id, name) select id, name from public.companies;\n`,
    );
    expect(readApplication(folder).adopted?.size).toBe(readMigrations().length);
    writeFileSync(file, text.replace("create table", "create unlogged table"));
    expect(() => readApplication(folder)).toThrow("create_organizations.sql is different");
  });

  test.each<[string, (folder: string) => void, RegExp]>([
    [
      "one is different",
      (at) => writeFileSync(find(at, "tenancy_05"), "select 1;"),
      /tenancy_05_\w+\.sql is different/,
    ],
    ["one is missing", (at) => rmSync(find(at, "verify_org_id")), /…_verify_org_id_migration\.sql is missing/],
    [
      "one is of another version",
      (at) => renameSync(find(at, "tenancy_05"), find(at, "tenancy_05").replace("tenancy_05", "tenancy_99_x")),
      /…_tenancy_05\w+\.sql is missing, \d+_tenancy_99_x\w+\.sql is not one of this version/,
    ],
  ])("refuses an application that another version has adopted: %s", (_, break_, rule) => {
    addOurs(20250110000000);
    break_(folder);
    expect(() => readApplication(folder)).toThrow(rule);
    expect(() => readApplication(folder)).toThrow(/^Cannot adopt ".*my app-.*": it was adopted by another version: /);
  });

  const find = (at: string, text: string) => {
    const migrations = join(at, "supabase/migrations");
    return join(migrations, readdirSync(migrations).find((name) => name.includes(text)) ?? text);
  };

  test.each<[string, (folder: string) => string, string]>([
    ["no such folder", (at) => join(at, "nowhere"), "there is no such folder"],
    ["a file", (at) => join(at, "supabase/config.toml"), "it is not a folder"],
    ["a folder without supabase", (at) => join(at, "supabase/migrations"), "it has no folder supabase"],
    ["the folder supabase itself", (at) => join(at, "supabase"), "so give the folder that it is in"],
    ["this repository", () => root, "it is this repository, not an application"],
  ])("refuses %s by its name", (_, which, rule) => {
    const given = which(folder);
    expect(() => readApplication(given)).toThrow(`Cannot adopt ${JSON.stringify(given)}: `);
    expect(() => readApplication(given)).toThrow(rule);
  });

  test("refuses one without config.toml, or with one that cannot be read, or without migrations", () => {
    const config = join(folder, "supabase/config.toml");
    rmSync(config);
    expect(() => readApplication(folder)).toThrow("it has no supabase/config.toml: npx supabase init writes one");
    writeFileSync(config, "[db");
    expect(() => readApplication(folder)).toThrow(`Cannot read ${config}: it is no TOML`);
    writeFileSync(config, "");
    rmSync(join(folder, "supabase/migrations"), { recursive: true });
    expect(() => readApplication(folder)).toThrow("it has no migrations of its own in supabase/migrations");
    cpSync(join(root, "supabase/migrations"), join(folder, "supabase/migrations"), {
      recursive: true,
      filter: (name) => !name.endsWith("_application.sql"),
    });
    expect(() => readApplication(folder)).toThrow("it has no migrations of its own in supabase/migrations");
  });
});
