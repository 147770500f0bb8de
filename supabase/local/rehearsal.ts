/** npm start -- --before: the application as it is before the push, to rehearse everything on. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { formatCount } from "../cli/print.ts";
import { digestTables, fillApplication, fillCallLogs, pushApplicationBefore, sumRows } from "./application.ts";
import { connect } from "./databases.ts";
import { mapUsers, organizationIds } from "./mapping.ts";
import { copyProject } from "./project-copy.ts";
import { codeBefore } from "./requests.ts";
import { say, timed, title } from "./show.ts";
import type { Stack } from "./stack.ts";

export interface Rehearsal {
  /** In the largest table, call_logs. */
  rows: number;
  /** The organizations that the users are mapped to; 0: everything belongs to the default one. */
  orgs: number;
}

const users = 1200;

/** Makes the application, and returns the commands that take it to org_id. */
export async function prepareRehearsal(stack: Stack, folder: string, { rows, orgs }: Rehearsal): Promise<string[]> {
  title("2. The application before: rows kept by user_id");
  const sql = connect(stack.postgres.url());
  await timed("the application and its data", async () => {
    await pushApplicationBefore("local", folder);
    await fillApplication(stack.postgres.url(), { users, rows: 1000 });
    await sql.unsafe(codeBefore).simple();
    await sql`set statement_timeout = 0`;
    if (rows > 1000) await fillCallLogs(sql, rows);
    await sql`vacuum (analyze)`;
  });
  const [tables] = await timed("counting", async () => await digestTables(sql));
  await sql.end();
  say(`  ${tables.size} tables, ${formatCount(sumRows(tables))} rows, ${formatCount(users)} users`);
  const target = orgs === 0 ? "" : ` --workdir '${mapProject(join(folder, "rehearsal"), orgs)}'`;
  return [
    "npx supabase db query -f supabase/preflight.sql -o csv",
    `npm run push${target === "" ? "" : ` --${target}`}`,
    "npm run watch",
    "npx supabase db query 'select * from tenancy.verify() where not passed'",
  ];
}

/** A copy of the project with a mapping in its list of tables. */
function mapProject(folder: string, orgs: number): string {
  rmSync(folder, { recursive: true, force: true });
  copyProject(folder).append(
    "_EDIT_list_of_tables.sql",
    `${mapUsers(organizationIds(orgs))}
select tenancy.enable_new_users('personal');`,
  );
  return folder;
}
