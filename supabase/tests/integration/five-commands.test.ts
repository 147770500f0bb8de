import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { root } from "../../local/project.ts";
import type { Services } from "../../local/stack.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { copyCrm, crmFolder, decideAsOwner } from "../adopter.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { readSection, runAsWritten } from "../readme.ts";
import { startTestServices } from "../services.ts";

const [block = ""] = readSection("## Use it on your application").blocks("sh");
const commands = block.trimEnd().split("\n");

describe("the README's five commands", () => {
  let database: Database;
  let project: string;
  let services: Services;
  const outputs: Record<string, string> = {};

  /** Runs a command in the folder of this repository, where it is typed. Returns its exit code. */
  async function type(command: string): Promise<number | null> {
    const { code, output } = await runAsWritten(command, {
      folder: root,
      url: database.url,
      replace: {
        "../my-app": project,
        "postgresql://…": database.url,
        "https://<ref>.supabase.co": services.api.url,
      },
      environment: { SUPABASE_SECRET_KEY: services.keys.secretKey },
    });
    outputs[command] = output;
    return code;
  }

  beforeAll(async () => {
    database = await cloneDatabase("five_commands", "postgres");
    const { sql, url } = database;
    project = copyCrm(database.name);
    services = await startTestServices(database.name);
    await sql`create publication supabase_realtime`;
    await supabase(["db", "push", "--workdir", project, `--remote=${url}`, "--yes"]);
    await sql.unsafe(readFileSync(join(crmFolder, "data.sql"), "utf8")).simple();
  });

  afterAll(async () => {
    await services?.stop();
    await database?.drop();
  });

  test("are five", () => {
    expect(commands).toHaveLength(5);
  });

  test("take an application to the end, users whom its owner places nowhere counted apart", async () => {
    const [adopt = "", push = "", deploy = "", users = "", verify = ""] = commands;
    expect(await type(adopt), outputs[adopt]).toBe(0);
    decideAsOwner(project);
    expect(await type(push), outputs[push]).toBe(0);
    expect(outputs[push]).toContain("Finished supabase db push.");
    // There is no project on the platform to deploy to: the copied function is served here instead.
    expect(deploy).toBe("npx supabase functions deploy update-user-org-metadata --use-api --workdir ../my-app");
    await services.serve("update-user-org-metadata", join(project, "supabase/functions"));
    expect(await type(users), outputs[users]).toBe(0);
    expect(outputs[users]).toMatch(/in none on purpose +[1-9]/);
    expect(await type(verify), outputs[verify]).toBe(0);
    expect(await database.sql`select check_name, detail from tenancy.verify() where not passed`).toEqual([]);
  });
});
