import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, inject, test } from "vitest";
import { copyProject, type ProjectCopy } from "../../local/project-copy.ts";
import { startCommand } from "../commands.ts";
import { cloneDatabase } from "../databases.ts";
import { tenOrganizations } from "../organizations.ts";

const open: Awaited<ReturnType<typeof cloneDatabase>>[] = [];

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

/** Runs one of the commands as a user does. */
const start = (command: "push" | "watch", parameters: string[]) =>
  startCommand(["npm", "run", "--silent", command, "--", ...parameters], {
    env: { ...process.env, NO_COLOR: "1", SUPABASE_TELEMETRY_DISABLED: "1" },
  });

async function prepare(name: string, list: string) {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  const project: ProjectCopy = copyProject(`${inject("folder")}/${name}`);
  project.append("_EDIT_list_of_tables.sql", list);
  return { ...database, project, target: [`--workdir=${project.folder}`, `--remote=${database.url}`] };
}

describe("npm run push", () => {
  test("passes the CLI's output through, shows what the push does, and stops and goes on without loss", async () => {
    const { sql, target } = await prepare(
      "push_live",
      `${tenOrganizations} update tenancy.settings set paused = true;`,
    );
    const first = start("push", [...target, "--yes"]);
    await first.untilPrinted("The push is paused. To go on: update tenancy.settings set paused = false;\n");
    const elsewhere = start("watch", [...target, "--once"]);
    expect(await elsewhere.ended).toBe(1);
    expect(elsewhere.stdout()).toMatch(/^0\.0 % {2}paused for /m);

    first.signal("SIGINT");
    // npm, which it reaches too, ends by the signal.
    expect([130, null]).toContain(await first.ended);
    expect(first.stderr()).toContain("Applying migration 20250110030000_add_org_id_to_existing_tables.sql...");
    expect(first.stderr()).toContain("Stopped. Nothing is lost: 0.0 % is done and stays");
    // The server sees that its client has gone within client_connection_check_interval.
    while ((await sql`select from tenancy.now where status = 'dead'`).length === 0) await sleep(20);

    await sql`update tenancy.settings set paused = false`;
    const second = start("push", [...target, "--yes"]);
    expect(await second.ended, second.stderr()).toBe(0);
    expect(second.stdout() + second.stderr()).toContain("Finished supabase db push.");
    expect(second.stderr()).toMatch(/^100 % {2}done/m);
    expect(second.stderr(), "the first push is no news").not.toContain("not running");
    expect(await sql`select * from tenancy.verify() where not passed and check_name <> 'users'`).toEqual([]);
    const after = start("watch", target);
    expect(await after.ended).toBe(0);
    expect(after.stdout()).toBe("100 %  done\n");
  });

  test("ends with the CLI's exit code, its message, and how to go on", async () => {
    const { sql, target } = await prepare("push_live_fails", "");
    await sql`create table public.forgotten (id integer primary key)`;
    const push = start("push", [...target, "--yes"]);
    expect(await push.ended).toBe(1);
    expect(push.stdout() + push.stderr()).toContain("public.forgotten");
    expect(push.stderr()).toContain("No table was touched. Once what it says is dealt with");
  });

  test.each<["push" | "watch", string]>([["push", "130 stopped"], ["watch", "--once"]])(
    "npm run %s -- --help tells the options and exit codes",
    async (command, text) => {
      const help = start(command, ["--help"]);
      expect(await help.ended).toBe(0);
      expect(help.stdout()).toContain(text);
    },
  );

  test("npm run watch says what it cannot use, and what it needs", async () => {
    const wrong = start("watch", ["--onec"]);
    expect(await wrong.ended).toBe(2);
    expect(wrong.stderr()).toContain("Cannot use --onec: there is no such option");
    const linked = start("watch", ["--remote", `--workdir=${inject("folder")}`]);
    expect(await linked.ended).toBe(2);
    expect(linked.stderr()).toContain("Cannot watch: no project is linked");
  });
});

describe("npm run watch", () => {
  test("says at once that there is nothing to watch, or that it cannot, and ends", async () => {
    const { target, project } = await prepare("watch_nothing", "");
    const before = start("watch", [...target, "--once"]);
    expect(await before.ended).toBe(1);
    expect(before.stderr()).toMatch(/^There is no push to watch: nothing of it is in this database yet/);

    const away = start("watch", [`--workdir=${project.folder}`, "--remote=postgresql://postgres@127.0.0.1:1/postgres"]);
    expect(await away.ended).toBe(2);
    expect(away.stderr()).toMatch(/^Cannot watch: .*ECONNREFUSED/);
  });

  test("and a push from a folder that is none is refused before the database is asked", async () => {
    const refused = start("push", [
      "--workdir=/nonesuch",
      "--remote=postgresql://postgres@127.0.0.1:1/postgres",
      "--yes",
    ]);
    expect(await refused.ended).toBe(2);
    expect(refused.stderr()).toBe('Cannot push: "/nonesuch": there is no such folder\n');
  });
});
