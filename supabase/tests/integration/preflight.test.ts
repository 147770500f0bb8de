import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { cloneDatabase } from "../databases.ts";
import { withResolvers } from "../promises.ts";
import { composePreflight, preflightFile, withList } from "../preflight.ts";
import { copyProject, readList } from "../../local/project-copy.ts";

type Database = Awaited<ReturnType<typeof cloneDatabase>>;

interface Finding {
  topic: string;
  object: string;
  finding: string;
  to_do: string;
}

const open: Database[] = [];
async function clone(name: string): Promise<Database> {
  const database = await cloneDatabase(name, "before");
  open.push(database);
  return database;
}

afterEach(async () => {
  for (const database of open.splice(0)) await database.drop();
});

async function preflight({ sql }: Database, list = ""): Promise<Finding[]> {
  const query = withList(readFileSync(preflightFile, "utf8"), list);
  return await sql.begin("read only", async (transaction) => await transaction.unsafe<Finding[]>(query));
}

const about = (findings: Finding[], topic: string) => findings.filter((found) => found.topic === topic);

test("the preflight has the views of the migration word for word (UPDATE_PREFLIGHT=1 writes them anew)", () => {
  if (process.env["UPDATE_PREFLIGHT"]) writeFileSync(preflightFile, composePreflight());
  expect(readFileSync(preflightFile, "utf8")).toBe(composePreflight());
});

describe("the preflight", () => {
  test("runs read-only by the CLI, before any migration, and gives the row to add for each table", async () => {
    const database = await clone("preflight_cli");
    const output = await supabase([
      "db",
      "query",
      `--remote=${database.url}`,
      "--read-only",
      "--output-format=json",
      "-f",
      preflightFile,
    ]);
    const found = about(JSON.parse(output.slice(output.indexOf("\n["))) as Finding[], "to classify");
    expect(found).toHaveLength(54);
    expect(found.find(({ object }) => object.endsWith("call_tracking"))).toMatchObject({
      finding: "references calls",
      to_do: "('public', 'call_tracking', 'org', 'secondary', null),",
    });
    expect(found.find(({ object }) => object.endsWith("voice_options"))).toMatchObject({
      finding: "has nothing that says whose its rows are",
      to_do: "('public', 'voice_options', 'excluded', null, '<why not>'),",
    });
  });

  test("says nothing against the shipped application with its list, and what will happen to each of its 45 tables", async () => {
    const database = await clone("preflight_list");
    await database.sql`analyze`;
    const findings = await preflight(database, readList());
    expect(about(findings, "refused")).toEqual([]);
    expect(about(findings, "to classify")).toEqual([]);
    expect(about(findings, "would get org_id")).toEqual([]);
    const tables = about(findings, "gets org_id");
    expect(tables).toHaveLength(45);
    const [orphans] = await database.sql`
      select count(*)::integer as rows from public.calls where not exists (select from auth.users where users.id = user_id)
    `;
    expect(orphans?.["rows"]).toBeGreaterThan(0);
    expect(tables.find(({ object }) => object === "calls")?.finding).toContain(
      `60 rows, 16 kB and 32 kB of indexes; ${orphans?.["rows"]} rows whose user_id is no user`,
    );
    expect(tables.find(({ object }) => object === "call_tracking")?.finding).toContain(
      "follows the rows that it references",
    );
    const counted = about(findings, "good to know").find(({ object }) => object === "auth.users");
    expect(counted?.finding).toBe("60 users, 60 of them without app_metadata.org_id");
  });

  test("names what the push will refuse, in the words of the push, and then the push refuses it", async () => {
    const database = await clone("preflight_refused");
    const { sql } = database;
    await sql.unsafe(`
      alter table public.calls add column org_id text;
      create rule no_deletes as on delete to public.leads do instead nothing;
      create table public.organizations (id uuid primary key, name text not null);
      alter table public.imports add column org_id uuid default gen_random_uuid();
      alter table public.contacts add column org_id uuid references public.organizations (id);
    `).simple();
    const refused = about(await preflight(database, readList()), "refused");
    expect(refused.map(({ object }) => object)).toEqual(["calls", "contacts", "imports", "imports", "leads"]);
    const copy = copyProject(`${inject("folder")}/preflight_refused`);
    const { code, output } = await copy.push(database.url);
    expect(code).toBe(1);
    for (const { object, finding } of refused) expect(output).toContain(`public.${object} ${finding}`);
    expect(output).toContain("4 of its tables stop the push");
  });

  test("names who is in the way now, and what that holds", async () => {
    const database = await clone("preflight_held");
    const holder = connect(database.url);
    const { promise: released, resolve: release } = withResolvers();
    const held = holder.begin(async (transaction) => {
      await transaction`select count(*) as nightly_report from public.calls`;
      await released;
    });
    const waiting = () => preflight(database).then((findings) => about(findings, "in the way now"));
    let found = await waiting();
    while (found.length === 0) found = await waiting();
    expect(found).toHaveLength(1);
    expect(found[0]?.finding).toMatch(
      /^postgres idle in transaction for \d+ s, holds calls: select count\(\*\) as nightly_report from public\.calls$/,
    );
    release();
    await held;
    await holder.end();
  });

  test("tells what else will be noticed: column grants, publications, materialized views", async () => {
    const database = await clone("preflight_notes");
    await database.sql.unsafe(`
      grant select (id, user_id) on public.agents to dashboard_user;
      create publication supabase_realtime for table public.calls;
      create materialized view public.call_counts as select user_id, count(*) as calls from public.calls group by user_id;
    `).simple();
    const notes = about(await preflight(database), "good to know").map(({ object, finding }) => `${object} ${finding}`);
    expect(notes.join("\n")).toMatch(/^agents columns are granted to dashboard_user one by one/m);
    expect(notes.join("\n")).toMatch(/^calls is published by supabase_realtime/m);
    expect(notes.join("\n")).toMatch(/^call_counts is a materialized view of calls/m);
  });
});
