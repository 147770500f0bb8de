import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, inject, test } from "vitest";
import { freePort, isPortFree } from "../../local/postgres.ts";
import { root } from "../../local/project.ts";
import { type Command, startCommand } from "../commands.ts";
import { readSection } from "../readme.ts";

describe("npm start", () => {
  let folder: string;
  let apiPort: number;
  let dbPort: number;
  const runs: Command[] = [];

  beforeAll(async () => {
    folder = join(inject("folder"), "npm-start");
    for (const part of [".", "supabase"]) {
      mkdirSync(join(folder, part), { recursive: true });
      for (const name of readdirSync(join(root, part))) {
        if (["node_modules", "supabase", ".git", ".local", ".temp", ".branches"].includes(name)) continue;
        cpSync(join(root, part, name), join(folder, part, name), { recursive: true });
      }
    }
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    apiPort = await freePort();
    dbPort = await freePort();
    const config = join(folder, "supabase/config.toml");
    writeFileSync(
      config,
      readFileSync(config, "utf8").replace("54321", String(apiPort)).replace("54322", String(dbPort)),
    );
  });

  afterEach(async () => {
    for (const run of runs.splice(0)) {
      run.signal("SIGTERM");
      await run.ended;
    }
  });

  const start = (...parameters: string[]): Command => {
    const run = startCommand(["npm", "start", "--silent", ...parameters], { cwd: folder });
    runs.push(run);
    return run;
  };
  /** The processes that run from the copy: its servers have its folder in their command line. */
  const processesLeft = () =>
    execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" })
      .split("\n")
      .filter((line) => line.includes(`${folder}/`) || line.includes(`--port=${apiPort}`));
  const nothingLeft = async () => {
    expect(processesLeft()).toEqual([]);
    expect(await isPortFree(dbPort)).toBe(true);
    expect(await isPortFree(apiPort)).toBe(true);
  };

  test("takes the application to org_id, shows it, ends with 0 and leaves nothing running", async () => {
    const run = start();
    expect(await run.ended, run.output()).toBe(0);
    const output = run.output();
    expect(output).toContain("54 tables, 55,000 rows, 1,200 users");
    expect(output).toContain("Finished supabase db push.");
    expect(output).toContain("✔ 1200 of 1200 users updated in 12 pages");
    expect(output).toMatch(/app_metadata \{"org_id":"a0000000-0000-0000-0000-000000000001"/);
    expect(output).toContain("✔ public.auth_org_id() returns a0000000-0000-0000-0000-000000000001");
    expect(output).toContain("✔ 55,000 rows in 54 tables are what they were, org_id apart");
    expect(output).toContain("✔ 9 excluded tables are untouched");
    const orgId = "a0000000-0000-0000-0000-000000000001";
    expect(output).toContain(
      `✔ user1 inserts a call with the token from before the push: it is in organization ${orgId}`,
    );
    expect(output).toContain(`✔ newcomer@example.com signs up: the JWT has organization ${orgId}`);
    expect(output).toContain(
      `✔ the application's trigger wrote an agent for the new user: it is in organization ${orgId}`,
    );
    const [report = ""] = /^ {4}(\/.*report\.html)$/m.exec(output)?.slice(1) ?? [];
    expect(readFileSync(report, "utf8")).toContain("</span> Done.</strong>");
    expect(output).not.toContain("✘");
    const [shown = ""] = readSection("## See it").blocks("");
    const lines = shown.trimEnd().split("\n");
    expect(lines.length).toBeLessThanOrEqual(12);
    expect(lines.filter((line) => !output.includes(line))).toEqual([]);
    expect(output.trimEnd().endsWith("All of it holds.")).toBe(true);
    await nothingLeft();
  });

  test("keeps everything running when told to, says how to go on, and ends on SIGTERM", async () => {
    const run = start("--", "--keep");
    await run.untilPrinted("To stop:");
    const [, output = ""] = run.output().split("It is all still running");
    const secretKey = /secret key\s+(sb_secret_\S+)/.exec(output)?.[1] ?? "";
    const commands = [...output.matchAll(/^ {2}((?:npx|curl|psql) .*)$/gm)].map(([, command]) => command ?? "");
    expect(commands.length).toBe(6);
    const runs = commands.filter((command) => !command.startsWith("psql")).map((command) => {
      return execFileSync("bash", ["-c", command], {
        cwd: folder,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      });
    });
    expect(runs.join("\n")).toContain('"would_update":0');
    expect(runs.join("\n")).toContain('"access_token"');
    const reply = await fetch(`http://127.0.0.1:${apiPort}/functions/v1/update-user-org-metadata`, {
      method: "POST",
      headers: { apikey: secretKey },
    });
    expect(await reply.json()).toMatchObject({ done: true, updated: 0 });
    process.kill(Number(/or from elsewhere: kill (\d+)/.exec(output)?.[1]));
    await run.ended;
    await nothingLeft();
  });

  test("leaves the application running as it is before the push, for a rehearsal of it", async () => {
    const run = start("--", "--before", "--rows", "2000", "--orgs", "3");
    await run.untilPrinted("To stop:");
    expect(run.output()).toContain("54 tables, 79,000 rows, 1,200 users");
    const push = /npm run push -- --workdir '\S+'/.exec(run.output())?.[0] ?? "";
    const ask = (query: string) => `npx supabase db query "${query}" -o csv`;
    const execute = (command: string) =>
      execFileSync("bash", ["-c", command], { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    execute(push);
    expect(execute(ask("select count(*), count(distinct org_id) from public.call_logs"))).toContain("2000,3");
    expect(execute(ask("select status from tenancy.now"))).toContain("done");
    process.kill(Number(/or from elsewhere: kill (\d+)/.exec(run.output())?.[1]));
    await run.ended;
    await nothingLeft();
  });

  test("says what it cannot use", async () => {
    const run = start("--", "--rows", "5");
    expect(await run.ended).toBe(2);
    expect(run.output()).toContain("Cannot use --rows without --before");
  });

  test.each(["1. The local stack", "Applying migration", "4. The edge function"])(
    "leaves nothing running when it is interrupted at: %s",
    async (moment) => {
      const run = start();
      await run.untilPrinted(moment);
      // Ctrl-C in a terminal reaches the whole group.
      run.signal("SIGINT");
      expect(await run.ended).not.toBe(0);
      await nothingLeft();
    },
  );

  test("says so when the port is taken, with exit code 1", async () => {
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(dbPort, "127.0.0.1", resolve));
    const run = start();
    expect(await run.ended).toBe(1);
    expect(run.output()).toContain(`Cannot start PostgreSQL on 127.0.0.1:${dbPort}: the port is taken.`);
    await new Promise((resolve) => squatter.close(resolve));
    await nothingLeft();
  });
});
