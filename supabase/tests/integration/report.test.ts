import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import axe from "axe-core";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { composePage } from "../../cli/report-page.tsx";
import { type Ask, openReadOnly } from "../../cli/report-database.ts";
import { readReport } from "../../cli/report-read.ts";
import { writeReport } from "../../cli/report-write.ts";
import { readList } from "../../local/project-copy.ts";
import { root } from "../../local/project.ts";
import { startBrowser } from "../browser.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { updateUsers } from "../organizations.ts";
import { readPreflight } from "../preflight.ts";
import { hebrew, hostile, hostileReport, rowOf, script, textOf } from "../report.ts";
import { dropApplication, repeat } from "../steps.ts";

let folder: string;
/** The pages of the call-centre before the push, with its list, and after it, in two organizations. */
const pages = { before: "", after: "" };
let migrated: Database;
const open: Database[] = [];

beforeAll(async () => {
  folder = join(inject("folder"), "report");
  mkdirSync(folder, { recursive: true });

  const before = await clone("report_before", "before");
  await before.sql`analyze`;
  const preflight = join(folder, "preflight.sql");
  writeFileSync(preflight, readPreflight({ list: readList() }));
  pages.before = await writeReport(before.url, { preflight });

  migrated = await clone("report_after", "two_organizations");
  await migrated.sql`
    update tenancy.log
    set seconds_waited = 2.5, waited_for = 'pid 7, idle in transaction for 9 s: update t set email = ''ann@example.com'''
    where part = 'guard' and table_name = 'public.calls'
  `;
  // Who was deleted softly is no user any more.
  await migrated.sql`
    insert into auth.users (instance_id, id, aud, role, email, deleted_at)
    values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', 'authenticated', '', now())
  `;
  await updateUsers(migrated.sql);
  pages.after = await writeReport(migrated.url);
});

afterAll(async () => {
  for (const database of open) await database.drop();
});

async function clone(...parameters: Parameters<typeof cloneDatabase>): Promise<Database> {
  const database = await cloneDatabase(...parameters);
  open.push(database);
  return database;
}

describe("the report before the push", () => {
  test("has the plan of each table, what decides its rows, and the findings", () => {
    const page = pages.before;
    const text = textOf(page);
    expect(text).toContain("Nothing would stop the push; it has 450 statements to run.");
    expect(text).toContain("45 would be org-scoped");
    expect(text).toContain("60, 0 with their organization in app_metadata");
    expect(rowOf(page, "planned-tables", "public.calls")).toBe("public.calls 10 ACCESS EXCLUSIVE 64 kB under 0.1 s");
    expect(rowOf(page, "planned", "1")).toMatch(
      /^1 count select count\(\*\) from public\.\w+ ACCESS SHARE 8 kB under 0\.1 s$/,
    );
    expect(rowOf(page, "sources", "public.calls")).toMatch(
      /^public\.calls 60 the default organization user_id : \d+ agent_id : \d+ none none none$/,
    );
    expect(text).toContain("create policy rows_of_own_organization");
  });

  test("says what the list lacks, and needs the preflight of this version", async () => {
    const { url } = await clone("report_unlisted", "before");
    const text = textOf(await writeReport(url));
    expect(text).toContain("Not pushed. The push would stop at 54 findings");
    expect(text).toContain("('public', 'call_tracking', 'org', 'secondary', null, ");

    const other = join(folder, "other.sql");
    writeFileSync(other, "select 1 as topic;");
    await expect(writeReport(url, { preflight: other })).rejects.toThrow(
      "it is not the supabase/preflight.sql of this version",
    );
    await expect(writeReport(url, { preflight: `${other}.none` })).rejects.toThrow("Cannot read the preflight");
  });
});

describe("the report after the push", () => {
  test("has what ran, who decided the rows, the users by outcome, and the checks", async () => {
    const { sql } = migrated;
    const page = pages.after;
    const text = textOf(page);
    const [counted] = await sql`
      select
        (select count(*)::integer from tenancy.log) as statements,
        (select count(*)::integer from tenancy.verify()) as checks,
        (select count(*)::integer from org_migration.backfill_conflicts) as conflicts
    `;
    expect(text).toContain(`Done. Nothing is left of the plan, and all of ${counted?.["checks"]} checks pass.`);
    expect(text).toContain("45 org-scoped, 9 excluded");
    expect(text).toContain("60, all with their organization in app_metadata");
    const ran = new RegExp(
      `What ran ${counted?.["statements"]} statements in \\S+ s; at work: \\S+ s; waited for locks: 2.5 s`,
    );
    expect(text).toMatch(ran);
    expect(rowOf(page, "phases", "guards")).toMatch(/^guards 45 \d\d:\d\d:\d\d\.\d{3} .* 2\.5 s none$/);
    expect(rowOf(page, "locked", "public.calls")).toMatch(
      /^public\.calls guard 2\.5 s \S+ pid 7, idle in transaction for 9 s: update t set email = '…'$/,
    );
    const decided = await sql`select * from tenancy.count_sources('public.calls')`;
    const conflicts = decided.reduce((all, source) => all + Number(source["conflicts"]), 0);
    expect(conflicts).toBeGreaterThan(0);
    expect(rowOf(page, "sources", "public.calls")).toBe(
      `public.calls 60 ${decided.map(({ entry, rows }) => `${entry} : ${rows}`).join(" ")} 0 ${conflicts} 60`,
    );
    expect(text).toContain(`The first of ${Number(counted?.["conflicts"]).toLocaleString("en-US")} rows in conflict`);
    expect(text).toMatch(/conflicts: keep \S+ \S+ UTC .* 60 0 0 0 0 0 /);
    expect(rowOf(page, "checks", "row_count")).toContain("row_count ✔ passed 45 of 45");
  });

  test("leaves the application's rows alone while a push is under way, and when it is told to", async () => {
    const { url, sql } = await clone("report_under_way", "two_organizations");
    const { ask, end } = openReadOnly(url);
    const asked: string[] = [];
    const watched: Ask = async (query, parameters) => {
      asked.push(query);
      return await ask(query, parameters);
    };
    const read = (skipRows: boolean) => readReport(watched, { url, preflight: () => "", skipRows });
    const skipped = textOf(composePage(await read(true)));
    expect(skipped).toContain("The checks that count rows are left out, as was asked for.");

    await sql`drop trigger org_id_immutable_calls on public.calls`;
    await sql`insert into tenancy.log (part, table_name, statement) values ('objection', 'public.calls', 'leaks by a view')`;
    const page = composePage(await read(false));
    await end();
    const text = textOf(page);
    expect(text).toContain("Not done. 1 statement is still to run.");
    expect(text).toContain("The push is under way, so the checks that count rows are left out.");
    expect(rowOf(page, "planned", "1")).toContain("create trigger org_id_immutable_calls");
    expect(rowOf(page, "checks", "guard")).toContain("guard ✘ failed 44 of 45");
    expect(rowOf(page, "objections", "public.calls")).toBe("public.calls leaks by a view");
    expect(rowOf(page, "sources", "public.calls")).toContain(
      "60 the owner in user_id, else public.agents through agent_id",
    );
    expect(asked.filter((query) => /count_sources|verify\(\)/.test(query))).toEqual([]);
  });

  test("is as before the push once that was rolled back, with the log of all", async () => {
    const { url, sql } = await clone("report_rolled_back", "migrated");
    await dropApplication(sql, "calls");
    await repeat(sql, "tenancy.roll_back(1)");
    const page = await writeReport(url);
    expect(textOf(page)).toContain("Not begun: the library is there, and no table was touched.");
    expect(textOf(page)).toContain("Who will decide each table's rows");
    expect(rowOf(page, "logged-tables", "public.calls")).toMatch(/^public\.calls \d+ /);
  });
});

describe("npm run report", () => {
  const run = async (parameters: string[], environment: Record<string, string> = {}) => {
    const output = join(folder, "page.html");
    const command = `npm run report -- ${parameters.map((parameter) => `'${parameter}'`).join(" ")} > '${output}'`;
    return await new Promise<{ code: number; page: string; errors: string }>((resolve) =>
      execFile(
        "bash",
        ["-c", command],
        { cwd: root, env: { ...process.env, ...environment } },
        (error, _, errors) => resolve({ code: Number(error?.code ?? 0), page: readFileSync(output, "utf8"), errors }),
      )
    );
  };

  test("writes the page into a file, and nothing of the connection string but where the database is", async () => {
    const { url, name } = migrated;
    const { code, page, errors } = await run(["--db-url", `${url}?application_name=hunter2`, "--skip-rows"]);
    expect([code, errors]).toEqual([0, ""]);
    expect(page.startsWith("<!doctype html>\n<html")).toBe(true);
    expect(page.trimEnd().endsWith("</html>")).toBe(true);
    expect(page).toContain(`database <bdi>${name}</bdi>`);
    expect(page).not.toContain("hunter2");
    expect(page).not.toMatch(/postgresql:|:postgres@/);
  });

  test("says what it needs, and why it cannot, without the password", async () => {
    const help = await run(["--help"]);
    expect([help.code, help.page]).toEqual([0, expect.stringContaining("--skip-rows")]);
    const wrong = await run(["--db-url", "x"]);
    expect([wrong.code, wrong.errors]).toEqual([2, expect.stringContaining("Cannot use --db-url")]);
    const refused = await run([
      "--db-url",
      `postgresql://postgres:hunter2@127.0.0.1:${inject("databasePort")}/postgres`,
    ]);
    expect([refused.code, refused.page]).toEqual([1, ""]);
    expect(refused.errors).toContain("password authentication failed");
    expect(refused.errors).not.toContain("hunter2");
  });
});

describe("the page in a browser", () => {
  let browser: Browser;
  const addresses: [name: string, address: string][] = [];

  beforeAll(async () => {
    browser = await startBrowser(folder);
    for (const [name, page] of Object.entries({ ...pages, hostile: composePage(hostileReport) })) {
      const file = join(folder, `${name}.html`);
      writeFileSync(file, page);
      addresses.push([name, pathToFileURL(file).href]);
    }
  });

  afterAll(async () => await browser?.close());

  /** Looks at each of the pages, all of it unfolded unless it is to stay as it is. */
  const lookAtAll = async (
    options: BrowserContextOptions & { folded?: boolean },
    look: (page: Page, name: string) => Promise<void>,
  ) => {
    for (const [name, address] of addresses) {
      const page = await browser.newPage(options);
      const requests: string[] = [];
      page.on("request", (request) => requests.push(request.url()));
      await page.goto(address);
      if (!options.folded) {
        await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
      }
      await look(page, name);
      expect(requests, `${name} loads nothing but itself`).toEqual([address]);
      await page.close();
    }
  };

  test.each(["light", "dark"] as const)(
    "is accessible in the colours of %s, contrast included",
    async (colorScheme) => {
      // What is folded are more rows of tables that the hostile page shows.
      await lookAtAll({ colorScheme, folded: true, viewport: { width: 1200, height: 900 } }, async (page, name) => {
        await page.evaluate(axe.source);
        const found = await page.evaluate(async () => {
          const { axe } = window as unknown as { axe: typeof import("axe-core") };
          const { violations, passes } = await axe.run();
          return {
            violations: violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`),
            passes: passes.map(({ id }) => id),
          };
        });
        expect(found.violations, name).toEqual([]);
        expect(found.passes).toContain("color-contrast");
      });
    },
  );

  test("has a caption on each table, and headers that say what they head", async () => {
    await lookAtAll({}, async (page, name) => {
      const tables = await page.evaluate(() =>
        [...document.querySelectorAll("table")].map((table) => ({
          caption: table.caption?.textContent ?? "",
          columns: [...table.querySelectorAll("thead th")].every((header) => header.getAttribute("scope") === "col"),
          rows: [...table.tBodies].flatMap((body) => [...body.rows])
            .every((row) => row.cells[0]?.getAttribute("scope") === "row"),
          same: [...table.rows].every((row) => row.cells.length === table.rows[0]?.cells.length),
        }))
      );
      expect(tables.length, name).toBeGreaterThan(2);
      expect(tables.filter(({ caption, columns, rows, same }) => !(caption && columns && rows && same))).toEqual([]);
    });
  });

  test("is read at 400 px without scrolling sideways, each cell under the title of its column", async () => {
    await lookAtAll({ viewport: { width: 400, height: 800 } }, async (page, name) => {
      const narrow = await page.evaluate(() => ({
        mislabelled: [...document.querySelectorAll("table")].flatMap((table) => {
          const titles = [...table.querySelectorAll("thead th")].map((header) => header.textContent);
          return [...(table.tBodies[0]?.rows[0]?.cells ?? [])].slice(1)
            .map((
              cell,
              index,
            ) => [getComputedStyle(cell, "::before").content, JSON.stringify(`${titles[index + 1]}: `)])
            .filter(([label, title]) => label !== title);
        }),
        small: [...document.querySelectorAll("body *")]
          .filter((element) => parseFloat(getComputedStyle(element).fontSize) < 12).map(({ tagName }) => tagName),
      }));
      expect(narrow, name).toEqual({ mislabelled: [], small: [] });
      // And where the columns come to stand beside each other.
      for (const width of [320, 400, 768, 897, 1024]) {
        await page.setViewportSize({ width, height: 800 });
        expect(await page.evaluate(() => document.documentElement.scrollWidth), `${name} at ${width} px`).toBe(width);
      }
    });
  });

  test("unfolds everything in print, and leaves out what is for the screen", async () => {
    const [, address = ""] = addresses.find(([name]) => name === "after") ?? [];
    const page = await browser.newPage();
    await page.goto(address);
    const see = () =>
      page.evaluate(() => ({
        folded: document.querySelectorAll("details").length,
        rows: [...document.querySelectorAll("details tbody tr")].filter((row) => row.checkVisibility()).length,
        all: document.querySelectorAll("details tbody tr").length,
        links: document.querySelector("nav")?.checkVisibility(),
      }));
    const onScreen = await see();
    expect(onScreen).toMatchObject({ rows: 0, links: true });
    expect(onScreen.folded).toBeGreaterThan(3);
    await page.emulateMedia({ media: "print" });
    const inPrint = await see();
    expect(inPrint.all).toBeGreaterThan(1000);
    expect(inPrint).toMatchObject({ rows: inPrint.all, links: false });
    await page.close();
  });

  test("says what it says without colour: in words, and in lanes with a name", async () => {
    await lookAtAll({}, async (page, name) => {
      const marks = await page.evaluate(() => [...document.querySelectorAll(".mark")].map((mark) => mark.textContent));
      expect(marks.filter((mark) => !/passed|failed/.test(mark ?? ""))).toEqual([]);
      const lanes = await page.evaluate(() =>
        [...document.querySelectorAll(".lane svg")].map((svg) => ({
          name: svg.previousElementSibling?.textContent,
          shapes: svg.querySelectorAll("rect, path").length,
          width: svg.getBoundingClientRect().width,
        }))
      );
      expect(lanes.length > 6, name).toBe(name !== "before");
      expect(lanes.filter(({ name, shapes, width }) => !name || shapes === 0 || width < 200)).toEqual([]);
    });
  });

  test.each(["light", "dark"] as const)(
    "draws its figure in colours of %s that stand out from what is behind",
    async (colorScheme) => {
      await lookAtAll({ colorScheme }, async (page, name) => {
        if (name !== "hostile") return;
        const contrasts = await page.evaluate(() => {
          const channels = (color: string) =>
            (color.match(/[\d.]+/g) ?? []).slice(0, 3).map((channel) => Number(channel) / 255);
          const luminance = (color: string) => {
            const [red = 0, green = 0, blue = 0] = channels(color)
              .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
          };
          return [...document.querySelectorAll(".lane:not(.progress) rect, .progress path")].map((shape) => {
            const { fill, stroke } = getComputedStyle(shape);
            const background = getComputedStyle(shape.closest("svg") as Element).backgroundColor;
            const [dark = 0, bright = 0] = [luminance(fill === "none" ? stroke : fill), luminance(background)].sort();
            return { kind: shape.getAttribute("class"), contrast: (bright + 0.05) / (dark + 0.05) };
          });
        });
        expect(new Set(contrasts.map(({ kind }) => kind))).toEqual(
          new Set(["done", "work", "within", "wait", "pause"]),
        );
        expect(contrasts.filter(({ contrast }) => !(contrast >= 3))).toEqual([]);
      });
    },
  );

  test("shows hostile names as what they are, and runs nothing of them", async () => {
    await lookAtAll({}, async (page, name) => {
      if (name !== "hostile") return;
      const found = await page.evaluate(() => ({
        foreign: document.querySelectorAll("script, img, iframe, body style").length,
        title: document.querySelector("h1 bdi")?.textContent,
        names: [...document.querySelectorAll(".sources tbody th")].map((cell) => cell.textContent),
      }));
      expect(found).toEqual({ foreign: 0, title: script, names: [hostile.replace("\u202e", "[U+202E]"), hebrew] });
    });
  });
});
