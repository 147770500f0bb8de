import { fillApplication, fillCallLogs, pushApplicationBefore } from "../application.ts";
import { formatCount } from "../../cli/print.ts";
import { connect, createDatabase } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";
import { codeBefore } from "../requests.ts";
import { say } from "./print.ts";
import { table } from "./shared.ts";

const users = 1000;
/** From so many on, what is done per row outweighs what is done per table. */
const enoughRows = 100_000;

export interface Application {
  /** Of the largest table, in bytes. */
  heap: number;
  indexes: number;
  postgresVersion: string;
}

/** Makes the database before: the application with so many rows in its largest table. */
export async function prepareApplication(server: PostgresServer, folder: string, rows: number): Promise<Application> {
  say(`The application, with ${formatCount(rows)} rows in ${table}…`);
  if (rows < enoughRows) {
    say(
      `With fewer than ${
        formatCount(enoughRows)
      } rows the figures are those of 45 small tables, and say nothing of a large one.`,
    );
  }
  const before = await createDatabase(server.port, "before", "postgres");
  await pushApplicationBefore(before, folder);
  await fillApplication(before, { users, rows: 1000 });
  const filler = connect(before);
  await filler.unsafe(codeBefore).simple();
  await filler`set statement_timeout = 0`;
  await fillCallLogs(filler, rows);
  await filler`vacuum (freeze, analyze)`;
  const [size] =
    await filler`select pg_relation_size(${table}::regclass)::text as heap, pg_indexes_size(${table}::regclass)::text as indexes`;
  const [{ version } = { version: "" }] = await filler`select current_setting('server_version') as version`;
  await filler.end();
  return { heap: Number(size?.["heap"]), indexes: Number(size?.["indexes"]), postgresVersion: version as string };
}
